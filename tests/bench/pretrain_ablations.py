"""What of the pretraining of the embedded backbone matters: one change at a time, judged on photos.

    python -m tests.bench.pretrain_ablations --photos FOLDER [--only NAME …]
        [--out docs/results/pretrain_ablations.json]

They are run at 64 px and with 384 features, but for those that change just that. Each sees about
as many images as the first one, a sixth of what the run of full length sees; that of 96 px sees
half as many. It is judged by heads on its frozen features: cross-validated on photos that are on
the test side of none of the five splits with which `tests.bench.embedded` measures, so that a
choice made here does not spoil what is published there. Variants that are in the file already are
left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import scenelearn as sl
from scenelearn import augment
from scenelearn._io import atomic_write, cache_folder
from scenelearn.backbones import _tiny
from scenelearn.finetune import choose, features
from scenelearn.finetune._environment import environment
from scenelearn.metrics import wilson
from tests.bench.pretrain.__main__ import write_weights
from tests.bench.pretrain._store import Store
from tests.bench.pretrain._train import Lesson, train

_SEEDS = range(5)  # of splits whose test photos stay unseen
_FOLDS = 4
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "as it is": {},
    "layouts only": {"store": {"kinds": ("layout",)}},
    "textures only": {"store": {"kinds": ("texture",)}},
    "fractals only": {"store": {"kinds": ("attractor", "julia")}},
    "fewer classes, more images of each": {"store": {"n_classes": 100, "per_class": 890}},
    "more classes, fewer images of each": {"store": {"n_classes": 2000, "per_class": 46}},
    # as in A. Dosovitskiy et al. (2014), Exemplar-CNN, arXiv:1406.6909: no label is used
    "each image a class of its own": {
        "store": {"n_classes": 8000, "per_class": 3}, "lesson": {"epochs": 44},
    },
    "images mirrored and cropped, not else varied": {
        "lesson": {"policy": augment.Policy(mirror=0.5, crop=0.6, stretch=0.33)},
    },
    "statistics of the whole batch": {"lesson": {"sixteens": False}},
    "twice the rate": {"lesson": {"peak": 4e-3}},
    "96 px, fewer images": {"store": {"px": 108}, "lesson": {"image_px": 96, "epochs": 2}},
    "768 features": {"network": {"_FEATURES": 768}},
    "a block more at the end": {"network": {"_STAGES": ((32, 1), (64, 2), (128, 4))}},
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    found: dict[str, Any] = {"command": "python -m tests.bench.pretrain_ablations", "rows": []}
    if out.exists():
        found = json.loads(out.read_text(encoding="utf-8"))
    photos = sl.scan(options.photos)
    found |= {"photos": {"n": len(photos), "classes": photos.counts()}}
    for name in options.only or VARIANTS:
        if name in [row["what"] for row in found["rows"]]:
            continue
        row = {"what": name, **_measured(photos, VARIANTS[name], options)}
        print(json.dumps(row), flush=True)
        found["rows"].append(row)
        found["environment"] = environment()
        with atomic_write(out) as partial:
            partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _measured(photos: Any, variant: dict[str, dict[str, Any]], options: Any) -> dict[str, Any]:
    folder = Path(options.work) if options.work else cache_folder() / "pretrain"
    usual = Store(folder=folder, seed=0, n_classes=600, per_class=150, px=72)
    store = dataclasses.replace(usual, **variant.get("store", {}))
    lesson = dataclasses.replace(Lesson(image_px=64, epochs=4), **variant.get("lesson", {}))
    store.draw(print)
    network = {"_FEATURES": 384} | variant.get("network", {})
    with mock.patch.multiple(_tiny, **network), tempfile.TemporaryDirectory() as there:
        network, about = train(store, lesson, Path(there, "run"), print)
        weights = Path(there, "tiny.weights.h5")
        write_weights(network, weights)
        judged = {str(px): judge(photos, str(weights), px) for px in options.image_px}
    kept = ("images_seen", "seconds", "held_out_accuracy_by_kind")
    return {key: about[key] for key in kept} | {"cross_validated": judged}


def judge(photos: Any, weights: str | None, px: int) -> dict[str, Any]:
    """Accuracy of heads on frozen features, each photo judged by a head that never saw its group.

    Args:
        photos: scanned.
        weights: a file of scenelearn_tiny, "scenelearn", or None for random ones.
        px: image size.

    Returns:
        As `Interval.to_json`.
    """
    known = features(photos, backbone="scenelearn_tiny", weights=weights, image_px=px)
    unseen = np.ones(len(photos), bool)
    for seed in _SEEDS:
        splits = sl.split(photos, seed=seed)
        unseen[splits.test] = False
    numbers = np.flatnonzero(unseen)
    groups, labels = splits.groups[numbers], photos.labels[numbers]
    fold_of = np.random.default_rng(0).integers(0, _FOLDS, groups.max() + 1)[groups]
    right = np.zeros(len(numbers), bool)
    for fold in range(_FOLDS):
        train, rest = numbers[fold_of != fold], fold_of == fold
        head = choose(
            known[train], photos.labels[train], photos.n_classes, groups=groups[fold_of != fold]
        ).head
        answers = (known[numbers[rest]] @ head.kernel + head.bias).argmax(1)
        right[rest] = answers == labels[rest]
    return wilson(int(right.sum()), len(right)).to_json()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pretrain_ablations")
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="[all]")
    parser.add_argument("--image-px", type=int, nargs="+", default=[128, 160])
    parser.add_argument("--work", help="folder of drawn images [in scenelearn's cache]")
    parser.add_argument("--out", default="docs/results/pretrain_ablations.json")
    return parser


if __name__ == "__main__":
    main()
