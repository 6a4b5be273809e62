"""How far the answers can be trusted, on real photos: calibration, sets, what is flagged.

    python -m tests.bench.trust --photos FOLDER [--weights FILE] [--epochs N] --out FILE.json

Each seed has a split of its own. Thresholds come from its validation photos; the test photos
and the drawings are looked at once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn.metrics import evaluate, wilson
from tests import nonscenes
from tests.bench._whole import whole

_N_EACH = 50
_COVERAGES = (0.8, 0.9, 0.95, 0.99)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", default="imagenet", help="a weights file [imagenet]")
    parser.add_argument("--others", help="a folder of photos of other things")
    parser.add_argument("--epochs", type=int, default=0, help="of fine-tuning [0]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", required=True, help="the JSON file to write")
    options = parser.parse_args(arguments)
    photos = sl.scan(options.photos)
    runs, labels, tables = [], [], []
    for seed in options.seeds:
        fit = sl.fit(
            sl.split(photos, seed=seed), weights=options.weights, epochs=options.epochs, seed=seed
        )
        whole(fit)
        runs.append(measured(fit, options.others) | {"seed": seed})
        labels.append(photos.labels[fit.test_indices])
        tables.append(fit.test_probabilities)
        print(json.dumps(runs[-1]), flush=True)
    together = evaluate(np.concatenate(labels), np.concatenate(tables), photos.class_names)
    value = {
        "command": "python -m tests.bench.trust",
        "epochs": options.epochs,
        "backbone": fit.settings.backbone,
        "environment": fit.environment,
        "runs": runs,
        "together": {
            "n": together.n_photos,
            "calibration_error": together.calibration_error,
            "calibration_floor": together.calibration_floor,
        },
    }
    print(json.dumps(value["together"]))
    Path(options.out).write_text(json.dumps(value, indent=1) + "\n")


def measured(fit: sl.finetune.FitResult, others: str | None = None) -> dict[str, Any]:
    """What one fit's answers are worth."""
    judged, classifier = fit.evaluation, fit.classifier
    assert judged.trust is not None
    assert classifier.trust is not None
    labels, table = fit.splits.photos.labels[fit.test_indices], fit.test_probabilities
    sets = {coverage: classifier.trust.sets(table, coverage) for coverage in _COVERAGES}
    found = {
        "kept": fit.kept,
        "accuracy": judged.accuracy.to_json(),
        "calibration_error": judged.calibration_error,
        "calibration_floor": judged.calibration_floor,
        "sets": {
            str(coverage): {
                "coverage": wilson(int(one[np.arange(len(one)), labels].sum()), len(one)).to_json(),
                "mean_size": float(one.sum(axis=1).mean()),
            }
            for coverage, one in sets.items()
        },
        "answered": judged.trust.answered.to_json(),
        "accuracy_answered": judged.trust.accuracy_answered.to_json(),
        "unlike_of_test": judged.trust.unlike.to_json(),
        "unlike": {
            kind: float(np.mean([one.is_unlike for one in classifier.stream(drawn)]))
            for kind in nonscenes.KINDS
            if (drawn := nonscenes.draw(kind, _N_EACH))
        },
    }
    if others:
        found["unlike_of_others"] = float(
            np.mean([one.is_unlike for one in classifier.stream(others)])
        )
    return found


if __name__ == "__main__":
    main()
