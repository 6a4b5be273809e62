"""Accuracy of fine-tuning with and without augmentation, for three numbers of training photos.

    python -m tests.bench.augmentation_accuracy --photos FOLDER --weights FILE
        [--sizes 25 100 500] [--policies none standard] [--out FILE.json]

Each seed has its own split. All policies get the same training photos, so many per class, and the
smaller subsets are parts of the larger ones; validation and test photos stay complete. The file is
written after each run, and runs that it contains are not repeated. Two policies are compared on
the same test photos, see `gain`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn.data import Splits
from scenelearn.finetune._device import fingerprint
from tests.bench._common import (
    add_network_options,
    add_out,
    bench_parser,
    correct_digits,
    gain,
    require_complete,
    take_per_class,
    write_json,
)


def run(splits: Splits, case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One fit and its results."""
    fit = sl.fit(
        take_per_class(splits, case["per_class"], case["seed"]),
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        epochs=options.epochs,
        augmentation=case["policy"],
        seed=case["seed"],
    )
    require_complete(fit)
    first, last = fit.history[0], fit.history[-1]
    return case | {
        "kept": fit.kept,
        "stopped": fit.stopped,
        "test": fit.evaluation.accuracy.to_json(),
        "test_correct": correct_digits(fit),
        "validation_linear_probe": first.validation_accuracy,
        "validation_fine_tuned": last.validation_accuracy,
        "validation_loss_fine_tuned": last.validation_loss,
        "train_loss_fine_tuned": last.train_loss,
        "n_validation": fit.validation_evaluation.n_photos,
        "seconds": round(fit.seconds, 1),
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def comparisons(runs: list[dict[str, Any]], baseline: str) -> list[dict[str, Any]]:
    """Each policy against the baseline, for each size, on test and on validation photos."""
    rows = []
    by_key = {(r["per_class"], r["policy"], r["seed"]): r for r in runs}
    sizes = sorted({r["per_class"] for r in runs})
    policies = [p for p in dict.fromkeys(r["policy"] for r in runs) if p != baseline]
    for size, policy in itertools.product(sizes, policies):
        seeds = sorted(
            seed
            for n, p, seed in by_key
            if (n, p) == (size, policy) and (size, baseline, seed) in by_key
        )
        if not seeds:
            continue
        pairs = [(by_key[size, policy, s], by_key[size, baseline, s]) for s in seeds]
        row = {"per_class": size, "policy": policy, "baseline": baseline, "seeds": seeds}
        row |= gain(pairs)
        for k, name in enumerate((policy, baseline)):
            row[f"test_{name}"] = float(np.mean([pair[k]["test"]["value"] for pair in pairs]))
            tuned = [pair[k]["validation_fine_tuned"] for pair in pairs]
            row[f"validation_fine_tuned_{name}"] = float(np.mean(tuned))
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.backbone = options.backbone or sl.backbones.default_for(options.weights)
    photos = sl.scan(options.photos)
    setup = {"photos": fingerprint(photos), "epochs": options.epochs}
    out, baseline = Path(options.out), options.policies[0]
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    done = {tuple(r[key] for key in ("per_class", "seed", "policy", *setup)) for r in runs}
    for size, seed, policy in itertools.product(options.sizes, options.seeds, options.policies):
        case = {"per_class": size, "seed": seed, "policy": policy} | setup
        if tuple(case.values()) in done:
            continue
        runs.append(run(sl.split(photos, seed=seed), case, options))
        print({key: runs[-1][key] for key in ("per_class", "seed", "policy", "kept", "test")})
        command = "python -m tests.bench.augmentation_accuracy"
        table = {"command": command, "comparisons": comparisons(runs, baseline), "runs": runs}
        write_json(out, table)
    for row in comparisons(runs, baseline):
        print(row)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("augmentation_accuracy", __doc__)
    add_network_options(parser)
    parser.add_argument("--epochs", type=int, default=12, help="epochs per fit")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[25, 100, 500], help="training photos per class"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run for each")
    parser.add_argument(
        "--policies", nargs="+", default=["none", "standard"], help="the first is the baseline"
    )
    add_out(parser, "augmentation_accuracy")
    return parser


if __name__ == "__main__":
    main()
