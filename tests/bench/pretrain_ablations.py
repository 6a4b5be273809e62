"""Accuracy of the bundled backbone when one setting of its pretraining changes.

    python -m tests.bench.pretrain_ablations --photos FOLDER [--only NAME …]
        [--out docs/results/pretrain_ablations.json]

Unless a variant changes it, images have 64 px and there are 384 features. Each variant sees about
as many images as the defaults, one sixth of those of the full run; the one with 96 px sees half as
many. Variants are compared by linear probes on frozen features, cross-validated on photos that are
in the test split of none of the five seeds of `tests.bench.bundled_backbone`: a choice made here
does not bias what is published there. Variants that the file contains are not repeated.
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
from scenelearn._io import cache_folder
from scenelearn.backbones import _bundled
from scenelearn.finetune import cross_validate_l2, extract_features
from scenelearn.finetune._device import environment
from scenelearn.metrics import wilson
from tests.bench._common import add_out, bench_parser, write_json
from tests.bench.pretrain.__main__ import write_weights
from tests.bench.pretrain._store import ImageStore
from tests.bench.pretrain._train import PretrainConfig, train

_SEEDS = range(5)  # the splits whose test photos are excluded
_FOLDS = 4
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "defaults": {},
    "layouts only": {"store": {"kinds": ("layout",)}},
    "textures only": {"store": {"kinds": ("texture",)}},
    "fractals only": {"store": {"kinds": ("attractor", "julia")}},
    "fewer classes, more images per class": {"store": {"n_classes": 100, "per_class": 890}},
    "more classes, fewer images per class": {"store": {"n_classes": 2000, "per_class": 46}},
    # as in A. Dosovitskiy et al. (2014), Exemplar-CNN, arXiv:1406.6909: no label is used
    "every image its own class": {
        "store": {"n_classes": 8000, "per_class": 3}, "config": {"epochs": 44},
    },
    "flips and crops only": {
        "config": {"policy": augment.Policy(horizontal_flip=0.5, crop=0.6, aspect=0.33)},
    },
    "whole-batch statistics": {"config": {"ghost_batches": False}},
    "twice the learning rate": {"config": {"learning_rate": 4e-3}},
    "96 px, fewer images": {"store": {"px": 108}, "config": {"image_px": 96, "epochs": 2}},
    "768 features": {"network": {"_FEATURES": 768}},
    "one more block at the end": {"network": {"_STAGES": ((32, 1), (64, 2), (128, 4))}},
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    table: dict[str, Any] = {"command": "python -m tests.bench.pretrain_ablations", "rows": []}
    if out.exists():
        table = json.loads(out.read_text(encoding="utf-8"))
    photos = sl.scan(options.photos)
    table |= {"photos": {"n": len(photos), "classes": photos.counts()}}
    for name in options.only or VARIANTS:
        if name in [row["name"] for row in table["rows"]]:
            continue
        row = {"name": name, **_measure(photos, VARIANTS[name], options)}
        print(json.dumps(row), flush=True)
        table["rows"].append(row)
        rows = {row["name"] for row in table["rows"]}
        table |= {"not_run": sorted(set(VARIANTS) - rows), "environment": environment()}
        write_json(out, table)


def _measure(photos: Any, variant: dict[str, dict[str, Any]], options: Any) -> dict[str, Any]:
    folder = Path(options.work) if options.work else cache_folder() / "pretrain"
    default_store = ImageStore(folder=folder, seed=0, n_classes=600, per_class=150, px=72)
    store = dataclasses.replace(default_store, **variant.get("store", {}))
    config = dataclasses.replace(PretrainConfig(image_px=64, epochs=4), **variant.get("config", {}))
    store.render(print)
    network = {"_FEATURES": 384} | variant.get("network", {})
    with mock.patch.multiple(_bundled, **network), tempfile.TemporaryDirectory() as there:
        network, about = train(store, config, Path(there, "run"), print)
        weights = Path(there, "tiny.weights.h5")
        write_weights(network, weights)
        accuracy = {str(px): cross_validate(photos, str(weights), px) for px in options.image_px}
    kept = ("images_seen", "seconds", "held_out_accuracy_by_kind")
    return {key: about[key] for key in kept} | {"cross_validated": accuracy}


def cross_validate(photos: Any, weights: str | None, px: int) -> dict[str, Any]:
    """Cross-validated accuracy of linear probes on frozen features.

    A photo's group is in one fold only.

    Args:
        photos: scanned.
        weights: a file for scenelearn_tiny, "scenelearn", or None for random weights.
        px: image size.

    Returns:
        The accuracy, as `Interval.to_json`.
    """
    features = extract_features(photos, backbone="scenelearn_tiny", weights=weights, image_px=px)
    usable = np.ones(len(photos), bool)
    for seed in _SEEDS:
        splits = sl.split(photos, seed=seed)
        usable[splits.test] = False
    indices = np.flatnonzero(usable)
    groups, labels = splits.groups[indices], photos.labels[indices]
    fold_of = np.random.default_rng(0).integers(0, _FOLDS, groups.max() + 1)[groups]
    correct = np.zeros(len(indices), bool)
    for fold in range(_FOLDS):
        train, held_out = indices[fold_of != fold], fold_of == fold
        probe = cross_validate_l2(
            features[train], photos.labels[train], photos.n_classes, groups=groups[fold_of != fold]
        ).probe
        predictions = (features[indices[held_out]] @ probe.kernel + probe.bias).argmax(1)
        correct[held_out] = predictions == labels[held_out]
    return wilson(int(correct.sum()), len(correct)).to_json()


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("pretrain_ablations", __doc__)
    parser.add_argument(
        "--photos", metavar="FOLDER", required=True, help="photos, one subfolder per class"
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, help="variants (default: all)")
    parser.add_argument("--image-px", type=int, nargs="+", default=[128, 160])
    parser.add_argument("--work", metavar="FOLDER", help="rendered images (default: in the cache)")
    add_out(parser, "pretrain_ablations")
    return parser


if __name__ == "__main__":
    main()
