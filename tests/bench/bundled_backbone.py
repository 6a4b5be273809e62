"""Accuracy of the bundled backbone on photos that it never saw, and its benefit to a fit.

    python -m tests.bench.bundled_backbone [--photos FOLDER [--weights FILE]] [--sizes 25 100 500]
        [--scenes 40 120 500] [--fits random pretrained longer] [--image-px 128 160 192]
        [--seeds 0 1 2 3 4] [--out docs/results/bundled_backbone.json]

With `--photos`: linear probes on its frozen features, on those of the same network with random
weights, and, with `--weights`, on those of the default of `sl.fit` (mobilenet_v3_small at 160 px
with ImageNet weights). Each seed has its own split. The image size is the one with the best mean
accuracy on the validation photos; only its test results are kept. The means are also written to a
small file next to the weights, which an error message reads.

With `--sizes`: fits on this many training photos per class; validation and test stay complete.
With `--scenes`: fits on this many sample scenes per class. Both take 25 epochs, from the bundled
weights ("pretrained") and from random ones, or 100 from random ones ("longer"), which need more.
The file keeps what it contains, and fits in it are not repeated; results of other bundled weights
are dropped.
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
from scenelearn.backbones._bundled import WEIGHTS_FILE
from scenelearn.finetune import cross_validate_l2, extract_features
from scenelearn.finetune._device import environment
from scenelearn.metrics import wilson
from tests.bench._common import (
    add_out,
    bench_parser,
    require_complete,
    take_per_class,
    write_json,
)

_TINY, _DEFAULT = "scenelearn_tiny", sl.backbones.DEFAULT_BACKBONE
_ORDER = ("random", "pretrained", "imagenet")
_EPOCHS = {"random": 25, "pretrained": 25, "longer": 100}
_PHOTO_PX, _SCENE_PX = 96, 64
SUMMARY = WEIGHTS_FILE.with_name("scenelearn_tiny.json")


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    results: dict[str, Any] = {"command": "python -m tests.bench.bundled_backbone"}
    results |= {"rows": [], "fits": [], "scenes": []}
    if out.exists():
        results |= _drop_stale(json.loads(out.read_text(encoding="utf-8")))
    results |= {"weights_blake2b": digest(), "environment": environment()}
    if options.photos:
        photos = sl.scan(options.photos)
        results["photos"] = {"n": len(photos), "classes": photos.counts()}
        rows = _rows(photos, options)
        others = [row for row in results["rows"] if row["name"] not in options.only]
        results["rows"] = sorted(others + rows, key=lambda row: _ORDER.index(row["name"]))
        write_json(out, results)
        if options.tiny == "scenelearn":
            write_json(SUMMARY, summary(results))
        for per_class, seed, name in itertools.product(options.sizes, options.seeds, options.fits):
            splits = take_per_class(sl.split(photos, seed=seed), per_class, seed)
            _add_fit(results["fits"], splits, (per_class, seed, name), _PHOTO_PX, options)
            write_json(out, results)
    for per_class in options.scenes:
        with tempfile.TemporaryDirectory() as folder:
            scenes = sl.scan(sl.sample_scenes(folder, per_class=per_class, seed=0))
            for seed, name in itertools.product(options.seeds, options.fits):
                splits = sl.split(scenes, seed=seed)
                _add_fit(results["scenes"], splits, (per_class, seed, name), _SCENE_PX, options)
                write_json(out, results)


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """The mean test accuracy of each network in percent, for an error message."""
    values = {row["name"]: [run["test"]["value"] for run in row["runs"]] for row in results["rows"]}
    return {
        "photos": "Intel scenes, six classes, linear probes on frozen features",
        "image_px": {row["name"]: row["image_px"] for row in results["rows"]},
        "test_percent": {name: round(100 * float(np.mean(v)), 1) for name, v in values.items()},
    }


def _drop_stale(results: dict[str, Any]) -> dict[str, Any]:
    """Drop results of other bundled weights than those there are now."""
    if results.get("weights_blake2b") == digest():
        return results
    kept = {
        part: [row for row in results.get(part, []) if row["name"] != "pretrained"]
        for part in ("rows", "fits", "scenes")
    }
    return results | kept


def digest() -> str | None:
    """A hash of the bundled weights, which tells whether a result belongs to them."""
    return (
        hashlib.blake2b(WEIGHTS_FILE.read_bytes()).hexdigest()[:32]
        if WEIGHTS_FILE.is_file()
        else None
    )


def _rows(photos: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    networks = {
        "random": (_TINY, None, options.image_px),
        "pretrained": (_TINY, options.tiny, options.image_px),
    }
    if options.weights:
        networks["imagenet"] = (_DEFAULT, options.weights, [160])
    rows = []
    for name, (backbone, weights, sizes) in networks.items():
        if name not in options.only:
            continue
        runs_by_size = [
            _probes(photos, options.seeds, backbone=backbone, weights=weights, image_px=px)
            for px in sizes
        ]
        means = [
            float(np.mean([run["validation"]["value"] for run in runs])) for runs in runs_by_size
        ]
        best = int(np.argmax(means))
        rows.append(
            {
                "name": name,
                "backbone": backbone,
                "image_px": sizes[best],
                "validation_by_px": {
                    str(px): round(mean, 4) for px, mean in zip(sizes, means, strict=True)
                },
                "runs": runs_by_size[best],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _probes(photos: Any, seeds: list[int], **network: Any) -> list[dict[str, Any]]:
    """For each seed, the accuracy of a linear probe on validation and on test photos."""
    features, labels, runs = extract_features(photos, **network), photos.labels, []
    for seed in seeds:
        splits = sl.split(photos, seed=seed)
        train, groups = splits.train, splits.groups[splits.train]
        probe = cross_validate_l2(
            features[train], labels[train], photos.n_classes, groups=groups
        ).probe
        correct = (features @ probe.kernel + probe.bias).argmax(1) == labels
        run: dict[str, Any] = {"seed": seed, "n_train": len(train), "l2": probe.l2}
        for split in ("validation", "test"):
            outcomes = correct[getattr(splits, split)]
            run[split] = wilson(int(outcomes.sum()), len(outcomes)).to_json()
        runs.append(run)
    return runs


def _add_fit(
    runs: list[dict[str, Any]], splits: Any, key: tuple[int, int, str], px: int, options: Any
) -> None:
    """Fit, and append the result unless it is there."""
    if key in [(run["per_class"], run["seed"], run["name"]) for run in runs]:
        return
    per_class, seed, name = key
    fit = sl.fit(
        splits,
        backbone=_TINY,
        weights=options.tiny if name == "pretrained" else None,
        image_px=px,
        epochs=_EPOCHS[name],
        seed=seed,
        minutes=60,
    )
    require_complete(fit)
    run = {"per_class": per_class, "seed": seed, "name": name}
    run |= {"image_px": px, "epochs": _EPOCHS[name], "date": fit.environment["date"]}
    run |= {"test": fit.evaluation.accuracy.to_json()}
    runs.append(run | {"kept": fit.kept, "stopped": fit.stopped, "seconds": round(fit.seconds, 1)})
    print(json.dumps(runs[-1]), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("bundled_backbone", __doc__)
    parser.add_argument("--photos", metavar="FOLDER", help="photos, one subfolder per class")
    parser.add_argument("--weights", metavar="FILE", help="ImageNet weights of mobilenet_v3_small")
    parser.add_argument("--image-px", type=int, nargs="+", default=[128, 160, 192])
    parser.add_argument(
        "--only", nargs="*", choices=_ORDER, default=_ORDER, help="networks to probe (default: all)"
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="photos per class")
    parser.add_argument("--scenes", type=int, nargs="*", default=[], help="scenes per class")
    parser.add_argument("--fits", nargs="+", choices=list(_EPOCHS), default=list(_EPOCHS))
    parser.add_argument("--tiny", default="scenelearn", help="other weights of scenelearn_tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add_out(parser, "bundled_backbone")
    return parser


if __name__ == "__main__":
    main()
