"""Accuracy on few photos per class: scenelearn and Keras' own recipe, with the same weights.

    python -m tests.bench.few_photos --photos FOLDER --weights FILE
        [--sizes 10 25 100] [--seeds 0 1 2] [--out docs/results/few_photos.json]

Each seed reserves 150 photos per class for the test. From the others, each class contributes as
many photos as the size says, validation photos included: both recipes use only those. scenelearn's
is `sl.fit` with its defaults and a budget of `--minutes`. Keras' is that of its guide, see
`_keras_recipe`; its accuracy is measured after both parts. The file is written after each run, and
runs that it contains are not repeated.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import scenelearn as sl
from scenelearn.metrics import wilson
from tests.bench._common import (
    add_out,
    bench_parser,
    new_runs,
    require_complete,
    settings_of,
    take_few,
)
from tests.bench._keras_recipe import train_keras_recipe


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    photos, recipes = sl.scan(options.photos), {"scenelearn": _scenelearn, "Keras' recipe": _keras}
    cases = [
        {"per_class": size, "seed": seed, "name": name}
        for size, seed, name in product(options.sizes, options.seeds, recipes)
    ]
    show = ("per_class", "seed", "name", "test", "seconds")
    settings = settings_of(options, "minutes")
    table = {"command": "python -m tests.bench.few_photos", "settings": settings}
    for run in new_runs(options.out, table, cases, show=show):
        splits = sl.split(photos, seed=run["seed"], test=150 * photos.n_classes)
        splits = take_few(splits, run["per_class"], run["seed"])
        run.update(recipes[run["name"]](splits, run["seed"], options))


def _scenelearn(splits: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    fit = sl.fit(
        splits,
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        minutes=options.minutes,
        seed=seed,
    )
    require_complete(fit)
    return {
        "test": fit.evaluation.accuracy.to_json(),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "interpolation": fit.interpolation,
        "epochs": len(fit.history) - 1,
        "seconds": round(fit.seconds, 1),
        "environment": fit.environment,
    }


def _keras(splits: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    result = train_keras_recipe(splits, seed, options)
    labels = result.pop("labels")

    def accuracy(name: str) -> dict[str, Any]:
        correct = result.pop(name).argmax(axis=1) == labels
        return wilson(int(correct.sum()), len(labels)).to_json()

    return {"test": accuracy("logits"), "test_frozen": accuracy("logits_frozen"), **result}


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("few_photos", __doc__)
    parser.add_argument(
        "--photos", metavar="FOLDER", required=True, help="photos, one subfolder per class"
    )
    parser.add_argument("--weights", required=True, help="a weights file for [-1, 1] inputs")
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_out(parser, "few_photos")
    return parser


if __name__ == "__main__":
    main()
