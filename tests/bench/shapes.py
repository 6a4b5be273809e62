"""Accuracy of "crop", "pad" and "squash" on photos that are not square.

    python -m tests.bench.shapes --photos FOLDER [--weights FILE] [--image-px 160] [--epochs 3]
        [--seeds 0 1 2] [--out docs/results/shapes.json]

Each photo is cut to the proportions 3:2 at a random place, every second one to landscape and the
others to portrait. Each shape is fine-tuned on them. Test photos are evaluated once, at the end of
each fit; nothing was chosen on them. The file is written after each run, and runs that it contains
are not repeated. Fifteen minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import scenelearn as sl
from tests.bench._common import (
    add_network_options,
    add_out,
    bench_parser,
    correct_digits,
    new_runs,
    require_complete,
    settings_of,
)

_SHAPES = ("crop", "pad", "squash")


def cut(source: Path, target: Path) -> None:
    """Cut the JPEGs of a folder of classes to 3:2 or 2:3."""
    for number, file in enumerate(sorted(source.glob("*/*.jpg"))):
        random = np.random.default_rng(number)
        with Image.open(file) as image:
            width, height = image.size
            part = np.array([1, 2 / 3] if number % 2 else [2 / 3, 1])
            new_width, new_height = np.round(part * min(width, height)).astype(int).tolist()
            left = int(random.integers(width - new_width + 1))
            top = int(random.integers(height - new_height + 1))
            copy = target / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            image.crop((left, top, left + new_width, top + new_height)).save(copy, quality=95)


def main() -> None:
    """Fit each shape with each seed."""
    parser = bench_parser("shapes", __doc__)
    add_network_options(parser)
    parser.add_argument("--epochs", metavar="N", type=int, default=3)
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[0, 1, 2])
    add_out(parser, "shapes")
    options = parser.parse_args()
    cases = [{"shape": shape, "seed": seed} for seed in options.seeds for shape in _SHAPES]
    table = {
        "command": "python -m tests.bench.shapes",
        "proportions": "3:2",
        "settings": settings_of(options, "epochs"),
    }
    with tempfile.TemporaryDirectory(prefix="scenelearn-shapes-") as temporary:
        folder = Path(temporary)
        cut(Path(options.photos), folder)
        photos = sl.scan(folder)
        for run in new_runs(options.out, table, cases, show=("shape", "seed", "test")):
            fit = sl.fit(
                sl.split(photos, seed=run["seed"]),
                backbone=options.backbone,
                weights=options.weights,
                image_px=options.image_px,
                shape=run["shape"],
                epochs=options.epochs,
                seed=run["seed"],
            )
            require_complete(fit)
            run |= {
                "photos": len(photos),
                "epochs": options.epochs,
                "test": fit.evaluation.accuracy.to_json(),
                "test_correct": correct_digits(fit),
                "seconds": round(fit.seconds, 1),
                "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
                "environment": fit.environment,
            }


if __name__ == "__main__":
    main()
