"""Unbalanced classes: balanced accuracy and calibration, with and without class weights.

    python -m tests.bench.imbalance --photos FOLDER --weights FILE
        [--ratios 10 50] [--per-class 300] [--epochs 5] [--seeds 0 1 2]
        [--out docs/results/imbalance.json]

Each seed reserves photos for the test, about 100 per class. Of the others, every second class keeps
`--per-class` photos; the rest are rare, and keep one in 10 or one in 50 of that. Which classes are
rare alternates with the seed. One sixth of them validate; Keras leaves these out. Compared are

- scenelearn: `sl.fit` with its defaults and `--epochs` epochs of fine-tuning, however long they
  take, so that the result does not depend on what else the machine does;
- scenelearn, weighted: also `class_weight="balanced", objective="balanced_accuracy"`;
- Keras: the recipe of its guide, see `_keras_recipe`, with its default epochs;
- Keras, weighted: also `class_weight` of `Model.fit`, n / (n_classes · n_c).

Calibration per class is the mean probability of a class minus its frequency. It is given for the
test photos as they are, about balanced, and with weights that give the classes the frequencies that
they have among the training photos. Weighted training predicts for the former, training without
weights for the latter. The file is written after each run, and runs that it contains are not
repeated.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

import scenelearn as sl
from scenelearn.metrics import evaluate
from tests.bench._common import (
    add_network_options,
    add_out,
    bench_parser,
    new_runs,
    require_complete,
    settings_of,
    take_few,
)
from tests.bench._keras_recipe import train_keras_recipe

TEST_PER_CLASS = 100
METHODS = ("scenelearn", "scenelearn, weighted", "Keras", "Keras, weighted")


def main() -> None:
    """Fit each method at each ratio, for each seed."""
    options = _parser().parse_args()
    photos = sl.scan(options.photos)
    cases = [
        {"ratio": ratio, "seed": seed, "name": name}
        for seed, ratio, name in product(options.seeds, options.ratios, options.methods)
    ]
    show = ("ratio", "seed", "name", "balanced_accuracy")
    settings = settings_of(options, "per_class", "epochs")
    table = {"command": "python -m tests.bench.imbalance", "settings": settings}
    for run in new_runs(options.out, table, cases, show=show):
        seed, name = run["seed"], run["name"]
        counts = [
            max(3, options.per_class // (1 if (k + seed) % 2 else run["ratio"]))
            for k in range(photos.n_classes)
        ]
        splits = sl.split(photos, seed=seed, test=TEST_PER_CLASS * photos.n_classes)
        splits = take_few(splits, counts, seed)
        fit = train_keras if name.startswith("Keras") else train_scenelearn
        run.update(fit(splits, seed, options, weighted="weighted" in name))


def train_scenelearn(splits: Any, seed: int, options: Any, *, weighted: bool) -> dict[str, Any]:
    """`sl.fit`, with class weights or without."""
    weights: dict[str, Any] = {}
    if weighted:
        weights = {"class_weight": "balanced", "objective": "balanced_accuracy"}
    fit = sl.fit(
        splits,
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        epochs=options.epochs,
        seed=seed,
        **weights,
    )
    require_complete(fit)
    labels = splits.photos.labels[fit.test_indices]
    return {
        **measure(splits, labels, fit.test_probabilities),
        "kept": fit.kept,
        "seconds": round(fit.seconds, 1),
        "environment": fit.environment,
    }


def train_keras(splits: Any, seed: int, options: Any, *, weighted: bool) -> dict[str, Any]:
    """The recipe of Keras' guide, with class weights or without."""
    counts = np.bincount(splits.photos.labels[splits.train])
    weights = (counts.sum() / (len(counts) * counts)).tolist() if weighted else None
    result = train_keras_recipe(splits, seed, options, class_weight=weights)
    return {
        **measure(splits, result["labels"], softmax(result["logits"], axis=1)),
        "seconds": result["seconds"],
        "environment": result["environment"],
    }


def measure(
    splits: Any, labels: npt.NDArray[np.int32], probabilities: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Metrics on the test photos, and the calibration of each class."""
    names, train_labels = splits.photos.class_names, splits.photos.labels[splits.train]
    evaluation = evaluate(labels, probabilities, names)
    n_train = np.bincount(train_labels, minlength=len(names))
    n_test = np.bincount(labels, minlength=len(names))

    def gaps(weights: npt.NDArray[Any]) -> dict[str, float]:
        true = np.average(labels[:, None] == np.arange(len(names)), axis=0, weights=weights)
        mean = np.average(probabilities, axis=0, weights=weights)
        return dict(zip(names, (mean - true).round(4).tolist(), strict=True))

    return {
        "n_train": dict(zip(names, n_train.tolist(), strict=True)),
        "n_test": len(labels),
        "balanced_accuracy": evaluation.balanced_accuracy.to_json(),
        "recall": {row.label: row.recall.value for row in evaluation.per_class},
        "log_loss": evaluation.log_loss,
        "calibration_error": evaluation.calibration_error,
        "calibration_balanced": gaps(np.ones(len(labels))),
        "calibration_as_trained": gaps((n_train / n_test)[labels]),
    }


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("imbalance", __doc__)
    add_network_options(parser, px=96)
    parser.set_defaults(backbone="mobilenet_v2_0.35")
    parser.add_argument("--ratios", metavar="N", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--per-class", metavar="N", type=int, default=300)
    parser.add_argument("--epochs", metavar="N", type=int, default=5)
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    add_out(parser, "imbalance")
    return parser


if __name__ == "__main__":
    main()
