"""What the embedded backbone knows of photos that it never saw, and what it is worth to a fit.

    python -m tests.bench.embedded [--photos FOLDER [--weights FILE]] [--sizes 25 100 500]
        [--scenes 40 120 500] [--fits random pretrained longer] [--image-px 128 160 192]
        [--seeds 0 1 2 3 4] [--out docs/results/embedded.json]

With `--photos`: heads on its frozen features; the same network with random weights beside it, and,
with `--weights`, the default of `sl.fit` (mobilenet_v3_small at 160 px from ImageNet). Each seed
draws its own split. The image size of each is the one that is best on the validation photos, all
seeds together; only its figures on test photos are kept. The means also go into a small file beside
the weights, from which an error message has them.

With `--sizes`: fits on so many training photos of each class, validation and test whole; with
`--scenes`: fits on so many sample scenes of each class; both of 25 epochs, from the stored weights
and from random ones, and "longer" of 100 epochs from random ones, which have further to go. What is
in the file stays, and fits that it holds are not repeated; but what other stored weights reached is
dropped.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn._io import atomic_write
from scenelearn.backbones._tiny import FILE
from scenelearn.finetune import choose, features
from scenelearn.finetune._environment import environment
from scenelearn.metrics import wilson
from tests.bench._whole import whole
from tests.bench.augment_helps import smaller

_TINY, _DEFAULT = "scenelearn_tiny", sl.backbones.DEFAULT
_ORDER = ("random", "pretrained", "imagenet")
_EPOCHS = {"random": 25, "pretrained": 25, "longer": 100}
_PHOTO_PX, _SCENE_PX = 96, 64
SUMMARY = FILE.with_name("scenelearn_tiny.json")


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    found: dict[str, Any] = {"command": "python -m tests.bench.embedded"}
    found |= {"rows": [], "fits": [], "scenes": []}
    if out.exists():
        found |= _of_these_weights(json.loads(out.read_text(encoding="utf-8")))
    found |= {"weights_blake2b": digest(), "environment": environment()}
    if options.photos:
        photos = sl.scan(options.photos)
        found["photos"] = {"n": len(photos), "classes": photos.counts()}
        rows = _rows(photos, options)
        before = [row for row in found["rows"] if row["what"] not in options.what]
        found["rows"] = sorted(before + rows, key=lambda row: _ORDER.index(row["what"]))
        _write(out, found)
        if options.tiny == "scenelearn":
            _write(SUMMARY, summary(found))
        for per_class, seed, what in itertools.product(options.sizes, options.seeds, options.fits):
            splits = smaller(sl.split(photos, seed=seed), per_class, seed)
            _add(found["fits"], splits, (per_class, seed, what), _PHOTO_PX, options)
            _write(out, found)
    for per_class in options.scenes:
        with tempfile.TemporaryDirectory() as folder:
            scenes = sl.scan(sl.sample_scenes(folder, per_class=per_class, seed=0))
            for seed, what in itertools.product(options.seeds, options.fits):
                splits = sl.split(scenes, seed=seed)
                _add(found["scenes"], splits, (per_class, seed, what), _SCENE_PX, options)
                _write(out, found)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The mean test accuracy of each, in percent, as the error message gives it."""
    values = {row["what"]: [run["test"]["value"] for run in row["runs"]] for row in found["rows"]}
    return {
        "photos": "Intel scenes, six classes, frozen features and a solved head",
        "image_px": {row["what"]: row["image_px"] for row in found["rows"]},
        "test_percent": {what: round(100 * float(np.mean(v)), 1) for what, v in values.items()},
    }


def _of_these_weights(found: dict[str, Any]) -> dict[str, Any]:
    """Without what was measured with other stored weights than are there now."""
    if found.get("weights_blake2b") == digest():
        return found
    kept = {
        part: [row for row in found.get(part, []) if row["what"] != "pretrained"]
        for part in ("rows", "fits", "scenes")
    }
    return found | kept


def digest() -> str | None:
    """Of the stored weights, so that it can be seen whether a result is theirs."""
    return hashlib.blake2b(FILE.read_bytes()).hexdigest()[:32] if FILE.is_file() else None


def _rows(photos: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    asked = {
        "random": (_TINY, None, options.image_px),
        "pretrained": (_TINY, options.tiny, options.image_px),
    }
    if options.weights:
        asked["imagenet"] = (_DEFAULT, options.weights, [160])
    rows = []
    for what, (backbone, weights, sizes) in asked.items():
        if what not in options.what:
            continue
        judged = [
            _heads(photos, options.seeds, backbone=backbone, weights=weights, image_px=px)
            for px in sizes
        ]
        means = [float(np.mean([run["validation"]["value"] for run in runs])) for runs in judged]
        best = int(np.argmax(means))
        rows.append(
            {
                "what": what,
                "backbone": backbone,
                "image_px": sizes[best],
                "validation_by_px": {
                    str(px): round(mean, 4) for px, mean in zip(sizes, means, strict=True)
                },
                "runs": judged[best],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _heads(photos: Any, seeds: list[int], **network: Any) -> list[dict[str, Any]]:
    """For each seed the accuracy of a head on validation and on test photos."""
    known, labels, runs = features(photos, **network), photos.labels, []
    for seed in seeds:
        splits = sl.split(photos, seed=seed)
        train, groups = splits.train, splits.groups[splits.train]
        head = choose(known[train], labels[train], photos.n_classes, groups=groups).head
        right = (known @ head.kernel + head.bias).argmax(1) == labels
        run: dict[str, Any] = {"seed": seed, "n_train": len(train), "strength": head.strength}
        for side in ("validation", "test"):
            of = right[getattr(splits, side)]
            run[side] = wilson(int(of.sum()), len(of)).to_json()
        runs.append(run)
    return runs


def _add(
    runs: list[dict[str, Any]], splits: Any, key: tuple[int, int, str], px: int, options: Any
) -> None:
    """Fit and append what came out, unless it is there."""
    if key in [(run["per_class"], run["seed"], run["what"]) for run in runs]:
        return
    per_class, seed, what = key
    fit = sl.fit(
        splits,
        backbone=_TINY,
        weights=options.tiny if what == "pretrained" else None,
        image_px=px,
        epochs=_EPOCHS[what],
        seed=seed,
        minutes=60,
    )
    whole(fit)
    run = {"per_class": per_class, "seed": seed, "what": what}
    run |= {"image_px": px, "epochs": _EPOCHS[what], "date": fit.environment["date"]}
    run |= {"test": fit.evaluation.accuracy.to_json()}
    runs.append(run | {"kept": fit.kept, "stopped": fit.stopped, "seconds": round(fit.seconds, 1)})
    print(json.dumps(runs[-1]), flush=True)


def _write(file: Path, value: dict[str, Any]) -> None:
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.embedded")
    parser.add_argument("--photos", help="one folder a class")
    parser.add_argument("--weights", help="ImageNet weights of mobilenet_v3_small, to compare")
    parser.add_argument("--what", nargs="*", choices=_ORDER, default=_ORDER, help="heads of [all]")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="photos of each class")
    parser.add_argument("--scenes", type=int, nargs="*", default=[], help="of each class")
    parser.add_argument("--fits", nargs="+", choices=list(_EPOCHS), default=list(_EPOCHS))
    parser.add_argument("--tiny", default="scenelearn", help="other weights of scenelearn_tiny")
    parser.add_argument("--out", default="docs/results/embedded.json", help="[%(default)s]")
    parser.add_argument("--image-px", type=int, nargs="+", default=[128, 160, 192])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    return parser


if __name__ == "__main__":
    main()
