"""What a fit reaches on real photos, with the solved head alone for comparison.

    python -m tests.bench.intel --photos FOLDER [--weights FILE] --out FILE.json

Each seed draws its own split and its own training. Test photos are judged once, at the end of
each fit; nothing here or in the library was chosen by them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import scenelearn as sl


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    photos = sl.scan(options.photos)
    print(photos, flush=True)
    runs = []
    for seed in options.seeds:
        for epochs in (0, None):
            runs.append(_run(photos, seed, epochs, options))
            print(json.dumps(runs[-1]), flush=True)
    first = runs[0]["environment"]
    table = {
        "command": "python -m tests.bench.intel",
        "photos": {"n": len(photos), "classes": photos.counts(), "fingerprint": first["photos"]},
        "minutes": options.minutes,
        "runs": runs,
    }
    Path(options.out).write_text(json.dumps(table, indent=1) + "\n")


def _run(
    photos: sl.data.Photos, seed: int, epochs: int | None, options: argparse.Namespace
) -> dict[str, Any]:
    fit = sl.fit(
        sl.split(photos, seed=seed),
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        minutes=options.minutes,
        epochs=epochs,
        seed=seed,
    )
    return {
        "what": "solved head alone" if epochs == 0 else "the better of head and fine-tuning",
        "seed": seed,
        "kept": fit.kept,
        "test": fit.evaluation.accuracy.to_json(),
        "test_calibration_error": fit.evaluation.calibration_error,
        "validation": fit.validation.accuracy.to_json(),
        "seconds": round(fit.seconds, 1),
        "phases": {phase.name: round(phase.seconds, 1) for phase in fit.phases},
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", default="imagenet", help="a weights file [imagenet]")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--minutes", type=float, default=4.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


if __name__ == "__main__":
    main()
