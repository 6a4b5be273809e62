"""Calibration, prediction sets and out-of-distribution detection on real photos.

    python -m tests.bench.uncertainty --photos FOLDER [--weights FILE] [--epochs N] --out FILE.json

Each seed has its own split. Thresholds come from its validation photos; the test photos and the
synthetic images are evaluated once.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn.metrics import evaluate, wilson
from tests.bench._common import bench_parser, require_complete, write_json
from tests.helpers import ood_images

_N_EACH = 50
_COVERAGES = (0.8, 0.9, 0.95, 0.99)


def main(arguments: list[str] | None = None) -> None:
    parser = bench_parser("uncertainty", __doc__)
    parser.add_argument(
        "--photos", metavar="FOLDER", required=True, help="photos, one subfolder per class"
    )
    parser.add_argument("--weights", default="imagenet", help="a weights file (default: imagenet)")
    parser.add_argument("--others", metavar="FOLDER", help="photos of other things")
    parser.add_argument("--epochs", type=int, default=0, help="of fine-tuning (default: 0)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", metavar="FILE", required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    photos = sl.scan(options.photos)
    runs, labels, tables = [], [], []
    for seed in options.seeds:
        fit = sl.fit(
            sl.split(photos, seed=seed), weights=options.weights, epochs=options.epochs, seed=seed
        )
        require_complete(fit)
        runs.append(measure(fit, options.others) | {"seed": seed})
        labels.append(photos.labels[fit.test_indices])
        tables.append(fit.test_probabilities)
        print(json.dumps(runs[-1]), flush=True)
    pooled = evaluate(np.concatenate(labels), np.concatenate(tables), photos.class_names)
    value = {
        "command": "python -m tests.bench.uncertainty",
        "epochs": options.epochs,
        "backbone": fit.settings.backbone,
        "environment": fit.environment,
        "runs": runs,
        "pooled": {
            "n": pooled.n_photos,
            "calibration_error": pooled.calibration_error,
            "calibration_noise_floor": pooled.calibration_noise_floor,
        },
    }
    print(json.dumps(value["pooled"]))
    write_json(options.out, value)


def measure(fit: sl.finetune.FitResult, others: str | None = None) -> dict[str, Any]:
    """Calibration, prediction sets and detection rates of one fit."""
    evaluation, classifier = fit.evaluation, fit.classifier
    assert evaluation.selective is not None
    assert classifier.calibration is not None
    labels, table = fit.splits.photos.labels[fit.test_indices], fit.test_probabilities
    sets = {
        coverage: classifier.calibration.prediction_sets(table, coverage) for coverage in _COVERAGES
    }
    result = {
        "kept": fit.kept,
        "accuracy": evaluation.accuracy.to_json(),
        "calibration_error": evaluation.calibration_error,
        "calibration_noise_floor": evaluation.calibration_noise_floor,
        "prediction_sets": {
            str(coverage): {
                "coverage": wilson(
                    int(members[np.arange(len(members)), labels].sum()), len(members)
                ).to_json(),
                "mean_size": float(members.sum(axis=1).mean()),
            }
            for coverage, members in sets.items()
        },
        "answer_rate": evaluation.selective.answer_rate.to_json(),
        "selective_accuracy": evaluation.selective.selective_accuracy.to_json(),
        "test_flagged": evaluation.selective.ood_rate.to_json(),
        "synthetic_flagged": {
            kind: _flagged(classifier, images)
            for kind in ood_images.KINDS
            if (images := ood_images.render(kind, _N_EACH))
        },
    }
    if others:
        result["others_flagged"] = _flagged(classifier, others)
    return result


def _flagged(classifier: sl.classify.Classifier, photos: Any) -> float:
    """The fraction of photos that is flagged as out of distribution."""
    return float(np.mean([prediction.is_ood for prediction in classifier.stream(photos)]))


if __name__ == "__main__":
    main()
