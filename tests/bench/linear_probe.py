"""Time and accuracy of the linear probe's solver, compared with scikit-learn's LogisticRegression.

    python -m tests.bench.linear_probe [--photos FOLDER --weights FILE] [--rounds 2]
        [--out docs/results/linear_probe.json]

All methods solve the same convex problem: 2,000 × 320 and 10,000 × 1,280 random features of six
classes, and with `--photos` those of real photos and their mirror images. scenelearn is timed
twice: for one `l2`, and with `l2` chosen by cross-validation, which no other time includes. Methods
take turns for several rounds; the fastest round counts, in wall-clock and in CPU seconds. On a busy
machine, set OPENBLAS_NUM_THREADS=1: its threads spin while they wait, which inflates both, and the
ratio of CPU seconds is the better figure. The optimum is that of lbfgs in float64 with a tolerance
of 1e-9. newton-cholesky takes minutes on the larger tables: it is timed on 10,000 × 1,280 only with
`--newton`, and never on photos.
"""

from __future__ import annotations

import argparse
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
from scenelearn.finetune._device import environment
from tests.bench._common import add_out, bench_parser, write_json

Table = npt.NDArray[np.float32]
Solution = tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]  # kernel, bias; scaled


def random_features(n: int, n_features: int, n_classes: int) -> tuple[Table, npt.NDArray[np.int32]]:
    """Positive, correlated features of classes that overlap."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n)
    hidden = rng.standard_normal((n, 60)) + 0.4 * rng.standard_normal((n_classes, 60))[y]
    x = hidden @ rng.standard_normal((60, n_features)) / 8
    x += rng.standard_normal((n, n_features))
    return np.maximum(x, 0).astype(np.float32), y.astype(np.int32)


def photo_features(options: argparse.Namespace) -> tuple[Table, npt.NDArray[np.int32]]:
    """Features of the training photos of a split, as `fit` uses them."""
    from scenelearn import backbones
    from scenelearn.data import decode
    from scenelearn.finetune._features import compute_probe_data, make_datasets

    splits = sl.split(sl.scan(options.photos))
    settings = finetune.FitSettings(
        backbone=backbones.default_for(options.weights), weights=options.weights
    )
    model = backbones.build(settings.backbone, weights=settings.weights)
    backbones.fast_on_cpu(model)
    pixels = decode(splits.photos, settings.image_px)
    data = compute_probe_data(
        model,
        make_datasets(splits, pixels, 32, 0),
        splits,
        settings.backbone,
        use_cache=False,
    )
    return data.features, data.labels


def row(
    name: str, x: Table, y: npt.NDArray[np.int32], rounds: int, *, newton: bool
) -> dict[str, Any]:
    """All methods on one table of features."""
    from sklearn.linear_model import LogisticRegression

    n, n_classes = len(x), int(y.max()) + 1
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    z = (x - mean) / scale
    groups = np.tile(np.arange(n // 2), 2) if name == "photos" else np.arange(n)
    cross_validation = finetune.cross_validate_l2(x, y, n_classes, groups=groups)
    l2 = cross_validation.probe.l2

    def scaled(head: finetune.LinearProbe) -> Solution:
        return head.kernel * scale[:, None], head.bias + mean @ head.kernel

    def sklearn_solution(solver: str, tol: float, z: npt.NDArray[np.floating] = z) -> Solution:
        model = LogisticRegression(C=1 / (n * l2), solver=solver, tol=tol, max_iter=10_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(z, y)
        return model.coef_.T, model.intercept_

    methods: dict[str, Callable[[], Solution]] = {
        "scenelearn": lambda: scaled(finetune.fit_linear_probe(x, y, n_classes, l2)),
        "scenelearn, cross-validated l2": lambda: scaled(
            finetune.cross_validate_l2(x, y, n_classes, groups=groups).probe
        ),
        "lbfgs": lambda: sklearn_solution("lbfgs", 1e-4),
        "lbfgs, float32": lambda: sklearn_solution("lbfgs", 1e-4, z.astype(np.float32)),
    }
    if newton:
        methods["newton-cholesky"] = lambda: sklearn_solution("newton-cholesky", 1e-4)
    best = sklearn_solution("lbfgs", 1e-9)
    min_loss, log_p = evaluate(z, y, l2, best)
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    exact: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for method, run in methods.items():
            wall, cpu = time.monotonic(), time.process_time()
            solution = run()
            times[method].append((time.monotonic() - wall, time.process_time() - cpu))
            value, other = evaluate(z, y, l2, solution)
            exact[method] = {
                "excess_loss": value - min_loss,
                "max_probability_difference": float(np.abs(np.exp(other) - np.exp(log_p)).max()),
            }
            print(name, method, times[method][-1], exact[method], flush=True)
    reference = [min(column) for column in zip(*times["scenelearn"], strict=True)]
    return {
        "features": name,
        "shape": [n, x.shape[1], n_classes],
        "l2": l2,
        "l2_tried": cross_validation.losses,
        "min_loss": min_loss,
        "methods": {
            method: {
                "seconds": round(min(s for s, _ in rounds_of), 2),
                "cpu_seconds": round(min(s for _, s in rounds_of), 2),
                "ratio": round(min(s for s, _ in rounds_of) / reference[0], 2),
                "cpu_ratio": round(min(s for _, s in rounds_of) / reference[1], 2),
                **exact[method],
            }
            for method, rounds_of in times.items()
        },
    }


def evaluate(
    z: npt.NDArray[np.float64], y: npt.NDArray[np.int32], l2: float, solution: Solution
) -> tuple[float, npt.NDArray[np.float64]]:
    """The loss of a solution and its log probabilities, in float64."""
    kernel, bias = (part.astype(np.float64) for part in solution)
    log_p = log_softmax(z @ kernel + bias, axis=1)
    loss = -math.fsum(log_p[np.arange(len(y)), y]) / len(y)
    return loss + l2 / 2 * float((kernel**2).sum()), log_p


def main(arguments: list[str] | None = None) -> None:
    parser = bench_parser("linear_probe", __doc__)
    parser.add_argument("--photos", metavar="FOLDER", help="photos, one subfolder per class")
    parser.add_argument("--weights", default="imagenet", help="a weights file (default: imagenet)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--newton", action="store_true", help="also time newton-cholesky on 10,000 × 1,280"
    )
    add_out(parser, "linear_probe")
    options = parser.parse_args(arguments)
    import sklearn

    rows = [
        row("random", *random_features(2_000, 320, 6), options.rounds, newton=True),
        row("random", *random_features(10_000, 1_280, 6), options.rounds, newton=options.newton),
    ]
    if options.photos:
        rows.append(row("photos", *photo_features(options), options.rounds, newton=False))
    table = {
        "command": "python -m tests.bench.linear_probe",
        "environment": environment() | {"scikit-learn": sklearn.__version__},
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "one per core"),
        "rows": rows,
    }
    write_json(options.out, table)


if __name__ == "__main__":
    main()
