"""What the embedded backbone knows of photos that it never saw, and what it is worth to a fit.

    python -m tests.bench.embedded [--photos FOLDER [--weights FILE]] [--scenes 40 120]
        [--image-px 96 128] [--seeds 0 1] [--out docs/results/embedded.json]

With `--photos`: heads on its frozen features; the same network with random weights beside it, and,
with `--weights`, the default of `sl.fit` (mobilenet_v3_small at 160 px from ImageNet). Each seed
draws its own split. The image size of each is the one that is best on the validation photos, all
seeds together; only its figures on test photos are kept. The means also go into a small file beside
the weights, from which an error message has them.

With `--scenes`: fits of 25 epochs at 64 px on so many sample scenes of each class, from the stored
weights and from random ones. What is not measured now, see `--what`, stays in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn.backbone._tiny import FILE
from scenelearn.data import written_whole
from scenelearn.evaluate import wilson
from scenelearn.finetune import choose, features
from scenelearn.finetune._environment import environment

_TINY, _DEFAULT = "scenelearn_tiny", sl.backbone.DEFAULT
_ORDER = ("random", "pretrained", "imagenet")
SUMMARY = FILE.with_name("scenelearn_tiny.json")


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    found: dict[str, Any] = {"command": "python -m tests.bench.embedded", "rows": [], "scenes": []}
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
    for per_class in options.scenes:
        runs = _scenes(per_class, options)
        new = {(run["per_class"], run["what"]) for run in runs}
        kept = [run for run in found["scenes"] if (run["per_class"], run["what"]) not in new]
        found["scenes"] = kept + runs
        _write(out, found)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The mean test accuracy of each, in percent, as the error message gives it."""
    values = {row["what"]: [run["test"]["value"] for run in row["runs"]] for row in found["rows"]}
    return {
        "photos": "Intel scenes, six classes, frozen features and a solved head",
        "test_percent": {what: round(100 * float(np.mean(v)), 1) for what, v in values.items()},
    }


def _of_these_weights(found: dict[str, Any]) -> dict[str, Any]:
    """Without what was measured with other stored weights than are there now."""
    if found.get("weights_blake2b") == digest():
        return found
    kept = {
        part: [row for row in found.get(part, []) if row["what"] != "pretrained"]
        for part in ("rows", "scenes")
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


def _scenes(per_class: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        photos = sl.scan(sl.sample_scenes(folder, per_class=per_class, seed=0))
        for seed in options.seeds:
            splits = sl.split(photos, seed=seed)
            for what, weights in (("random", None), ("pretrained", options.tiny)):
                if what not in options.what:
                    continue
                fit = sl.fit(
                    splits, backbone=_TINY, weights=weights, image_px=64, epochs=25, seed=seed,
                    minutes=60,
                )  # fmt: skip
                test = fit.evaluation.accuracy.to_json()
                run = {"per_class": per_class, "seed": seed, "what": what, "test": test}
                runs.append(run | {"kept": fit.kept, "seconds": round(fit.seconds, 1)})
                print(json.dumps(runs[-1]), flush=True)
    return runs


def _write(file: Path, value: dict[str, Any]) -> None:
    with written_whole(file) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.embedded")
    parser.add_argument("--photos", help="one folder a class")
    parser.add_argument("--weights", help="ImageNet weights of mobilenet_v3_small, to compare")
    parser.add_argument("--what", nargs="+", choices=_ORDER, default=_ORDER, help="[all]")
    parser.add_argument("--scenes", type=int, nargs="*", default=[], help="of each class")
    parser.add_argument("--tiny", default="scenelearn", help="other weights of scenelearn_tiny")
    parser.add_argument("--out", default="docs/results/embedded.json", help="[%(default)s]")
    parser.add_argument("--image-px", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    return parser


if __name__ == "__main__":
    main()
