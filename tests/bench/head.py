"""How long the head takes, and how exact it is, beside scikit-learn's LogisticRegression.

    python -m tests.bench.head [--photos FOLDER --weights FILE] [--rounds 2]
        [--out docs/results/head.json]

All solve the same convex problem: 2,000 × 320 and 10,000 × 1,280 features of six classes, drawn at
random, and with --photos those of real photos, as they are and mirrored. Ours is timed twice: for
one strength, and with the strength chosen by cross-validation, which no other time here contains.
Methods take turns, round after round; the fastest round counts, in seconds of the clock and of
processor time. On a machine with other work, set OPENBLAS_NUM_THREADS=1: its threads wait by
spinning, which takes both; then the ratio of processor times says more. The optimum is that of
lbfgs with a tolerance of 1e-9, in float64. newton-cholesky, which takes minutes on the larger
tables, is timed there only with --newton, and not on photos.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

import scenelearn as sl
from scenelearn import finetune
from scenelearn._io import atomic_write
from scenelearn.finetune._environment import environment

Table = npt.NDArray[np.float32]
Answer = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]  # kernel and bias, for scaled


def drawn(n: int, n_features: int, n_classes: int) -> tuple[Table, npt.NDArray[np.int32]]:
    """Positive features with common directions, and classes that overlap."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n)
    hidden = rng.standard_normal((n, 60)) + 0.4 * rng.standard_normal((n_classes, 60))[y]
    x = hidden @ rng.standard_normal((60, n_features)) / 8
    x += rng.standard_normal((n, n_features))
    return np.maximum(x, 0).astype(np.float32), y.astype(np.int32)


def of_photos(options: argparse.Namespace) -> tuple[Table, npt.NDArray[np.int32]]:
    """The training photos of a split, as `fit` solves on them."""
    from scenelearn import backbones
    from scenelearn.data import decode
    from scenelearn.finetune._features import features_of, sides_of

    splits = sl.split(sl.scan(options.photos))
    settings = finetune.FitSettings(
        backbone=backbones.default_for(options.weights), weights=options.weights
    )
    model = backbones.build(settings.backbone, weights=settings.weights)
    backbones.fast_on_cpu(model)
    pixels = decode(splits.photos, settings.image_px)
    found = features_of(model, sides_of(splits, pixels, 32, 0), splits, settings)
    return found.train, found.labels


def row(
    name: str, x: Table, y: npt.NDArray[np.int32], rounds: int, *, newton: bool
) -> dict[str, Any]:
    """All methods on one table."""
    from sklearn.linear_model import LogisticRegression

    n, n_classes = len(x), int(y.max()) + 1
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    z = (x - mean) / scale
    groups = np.tile(np.arange(n // 2), 2) if name == "photos" else np.arange(n)
    choice = finetune.choose(x, y, n_classes, groups=groups)
    strength = choice.head.strength

    def scaled(head: finetune.Head) -> Answer:
        return head.kernel * scale[:, None], head.bias + mean @ head.kernel

    def theirs(solver: str, tol: float, z: npt.NDArray[np.floating] = z) -> Answer:
        model = LogisticRegression(C=1 / (n * strength), solver=solver, tol=tol, max_iter=10_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(z, y)
        return model.coef_.T, model.intercept_

    methods: dict[str, Callable[[], Answer]] = {
        "ours": lambda: scaled(finetune.solve(x, y, n_classes, strength)),
        "ours, strength chosen": lambda: scaled(
            finetune.choose(x, y, n_classes, groups=groups).head
        ),
        "lbfgs": lambda: theirs("lbfgs", 1e-4),
        "lbfgs, float32": lambda: theirs("lbfgs", 1e-4, z.astype(np.float32)),
    }
    if newton:
        methods["newton-cholesky"] = lambda: theirs("newton-cholesky", 1e-4)
    best = theirs("lbfgs", 1e-9)
    least, log_p = judged(z, y, strength, best)
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    exact: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for method, run in methods.items():
            wall, cpu = time.monotonic(), time.process_time()
            answer = run()
            times[method].append((time.monotonic() - wall, time.process_time() - cpu))
            value, other = judged(z, y, strength, answer)
            exact[method] = {
                "above_the_least": value - least,
                "largest_difference_of_a_probability": float(
                    np.abs(np.exp(other) - np.exp(log_p)).max()
                ),
            }
            print(name, method, times[method][-1], exact[method], flush=True)
    ours = [min(column) for column in zip(*times["ours"], strict=True)]
    return {
        "features": name,
        "shape": [n, x.shape[1], n_classes],
        "strength": strength,
        "tried": choice.tried,
        "least": least,
        "methods": {
            method: {
                "seconds": round(min(s for s, _ in of), 2),
                "processor_seconds": round(min(s for _, s in of), 2),
                "times_ours": round(min(s for s, _ in of) / ours[0], 2),
                "times_ours_processor": round(min(s for _, s in of) / ours[1], 2),
                **exact[method],
            }
            for method, of in times.items()
        },
    }


def judged(
    z: npt.NDArray[np.float64], y: npt.NDArray[np.int32], strength: float, answer: Answer
) -> tuple[float, npt.NDArray[np.float64]]:
    """The value of an answer, and its logarithms of probabilities, in float64."""
    kernel, bias = (part.astype(np.float64) for part in answer)
    log_p = log_softmax(z @ kernel + bias, axis=1)
    loss = -math.fsum(log_p[np.arange(len(y)), y]) / len(y)
    return loss + strength / 2 * float((kernel**2).sum()), log_p


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.head")
    parser.add_argument("--photos", help="one folder a class")
    parser.add_argument("--weights", default="imagenet", help="a weights file [imagenet]")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--newton", action="store_true", help="time newton-cholesky on 10,000, too")
    parser.add_argument("--out", default="docs/results/head.json")
    options = parser.parse_args(arguments)
    import sklearn

    rows = [
        row("drawn", *drawn(2_000, 320, 6), options.rounds, newton=True),
        row("drawn", *drawn(10_000, 1_280, 6), options.rounds, newton=options.newton),
    ]
    if options.photos:
        rows.append(row("photos", *of_photos(options), options.rounds, newton=False))
    table = {
        "command": "python -m tests.bench.head",
        "environment": environment() | {"scikit-learn": sklearn.__version__},
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "as many as cores"),
        "rows": rows,
    }
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
