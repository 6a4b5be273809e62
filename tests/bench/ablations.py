"""Accuracy of fine-tuning with one setting changed at a time, over three seeds.

    python -m tests.bench.ablations --photos FOLDER --weights FILE
        [--per-class 100] [--epochs 10] [--out docs/results/ablations.json]

Each seed has its own split. All variants get the same training photos, a fixed number per class;
validation and test photos stay complete. All fits train for the same number of epochs unless the
variant sets another, however long that takes. The file is written after each run, and runs that it
contains are not repeated. Each variant is compared with the defaults on the same test photos, see
`gain`. Nothing in the library was chosen on these test photos.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

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

DEFAULTS = "defaults"

VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULTS: {},
    "linear probe only": {"epochs": 0},
    "no interpolation of weights": {"recipe": {"interpolate_weights": False}},
    "no augmentation": {"augmentation": "none"},
    "all layers train": {"recipe": {"unfreeze": "all"}},
    "learning rates not scaled by weights": {"recipe": {"scale_lr_by_weights": False}},
    "learning rate 0.003": {"learning_rate": 0.003},
    "learning rate 0.0003": {"learning_rate": 0.0003},
    "MixUp 0.2": {"recipe": {"mixup_alpha": 0.2}},
    "CutMix 1": {"recipe": {"cutmix_alpha": 1.0}},
    "four times as many epochs": {"epochs": 40},
    "soup of four, each as long": {"recipe": {"soup": 4}},
}


def run(splits: Splits, case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One fit and its results."""
    settings = {"epochs": options.epochs} | VARIANTS[case["name"]]
    fit = sl.fit(
        take_per_class(splits, case["per_class"], case["seed"]),
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        seed=case["seed"],
        **settings,
    )
    require_complete(fit)
    return case | {
        "kept": fit.kept,
        "stopped": fit.stopped,
        "interpolation": fit.interpolation,
        "test": fit.evaluation.accuracy.to_json(),
        "test_correct": correct_digits(fit),
        "validation": fit.validation_evaluation.accuracy.to_json(),
        "seconds": round(fit.seconds, 1),
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def comparisons(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each variant against the defaults, all seeds pooled."""
    by_key = {(r["name"], r["seed"]): r for r in runs}
    rows = []
    for name in VARIANTS:
        seeds = sorted(s for n, s in by_key if n == name and (DEFAULTS, s) in by_key)
        if not seeds:
            continue
        pairs = [(by_key[name, s], by_key[DEFAULTS, s]) for s in seeds]
        test = sum(pair[0]["test"]["value"] for pair in pairs) / len(pairs)
        rows.append({"name": name, "seeds": seeds, "test": test} | gain(pairs))
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.backbone = options.backbone or sl.backbones.default_for(options.weights)
    photos = sl.scan(options.photos)
    setup = {
        "photos": fingerprint(photos),
        "backbone": options.backbone,
        "weights": Path(options.weights).name,
        "image_px": options.image_px,
        "epochs": options.epochs,
        "per_class": options.per_class,
    }
    out = Path(options.out)
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    if runs and {key: runs[0][key] for key in setup} != setup:
        other = [runs[0][key] for key in setup]
        raise SystemExit(f"{out} contains runs of {other}: pass another file with --out.")
    done = {(r["name"], r["seed"]) for r in runs}
    for seed, name in itertools.product(options.seeds, VARIANTS):
        if (name, seed) in done:
            continue
        case = {"name": name, "seed": seed} | setup
        runs.append(run(sl.split(photos, seed=seed), case, options))
        print({key: runs[-1][key] for key in ("name", "seed", "kept", "test")}, flush=True)
        table = {"command": "python -m tests.bench.ablations", **setup}
        write_json(out, table | {"comparisons": comparisons(runs), "runs": runs})
    for row in comparisons(runs):
        print(row)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("ablations", __doc__)
    add_network_options(parser)
    parser.add_argument("--epochs", type=int, default=10, help="epochs per fit")
    parser.add_argument("--per-class", type=int, default=100, help="training photos per class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run for each")
    add_out(parser, "ablations")
    return parser


if __name__ == "__main__":
    main()
