"""What each part of fine-tuning is worth: fits with one of them changed, three seeds.

    python -m tests.bench.ablations --photos FOLDER --weights FILE
        [--per-class 100] [--epochs 10] [--out docs/results/ablations.json]

Each seed draws its own split; of its training side each class keeps as many photos as asked for,
the same for all variants. Validation and test stay whole. All fits train for the same number of
epochs where the variant names no other, however long that takes. The file is written after each
run, and runs that it holds are not repeated. A variant is compared with the defaults on the same
test photos, as in `augment_helps`. Nothing in the library was chosen by these test photos.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import scenelearn as sl
from scenelearn._io import atomic_write
from scenelearn.data import Splits
from scenelearn.finetune import fingerprint
from tests.bench._whole import whole
from tests.bench.augment_helps import gain, smaller

DEFAULTS = "defaults"

VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULTS: {},
    "solved head alone": {"epochs": 0},
    "fine-tuned network itself, none between": {"recipe": {"interpolate": False}},
    "photos as they are": {"augmentation": "none"},
    "all layers train": {"recipe": {"trained": "all"}},
    "all layers, rates falling to a tenth": {"recipe": {"trained": "all", "layer_decay": 0.1}},
    "coarsest layers train": {"recipe": {"trained": "coarsest"}},
    "four views of each photo": {"recipe": {"views": 4}},
    "four views, coarsest layers": {"recipe": {"trained": "coarsest", "views": 4}},
    "one rate for all kernels": {"recipe": {"relative_rates": False}},
    "rate 0.003": {"learning_rate": 0.003},
    "rate 0.0003": {"learning_rate": 0.0003},
    "label smoothing 0.1": {"recipe": {"label_smoothing": 0.1}},
    "MixUp 0.2": {"recipe": {"mixup": 0.2}},
    "CutMix 1": {"recipe": {"cutmix": 1.0}},
    "running average 0.99": {"recipe": {"average": 0.99}},
    "four times as many epochs": {"epochs": 40},
    "soup of four, each as long": {"recipe": {"soup": 4}},
    "photo and mirror image in the end": {"recipe": {"mirrored": True}},
}


def run(splits: Splits, case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One fit, and what it reaches."""
    settings = {"epochs": options.epochs} | VARIANTS[case["what"]]
    fit = sl.fit(
        smaller(splits, case["per_class"], case["seed"]),
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        seed=case["seed"],
        **settings,
    )
    whole(fit)
    right = fit.test_probabilities.argmax(axis=1) == splits.photos.labels[fit.test_indices]
    return case | {
        "kept": fit.kept,
        "stopped": fit.stopped,
        "share": fit.share,
        "test": fit.evaluation.accuracy.to_json(),
        "test_right": "".join("01"[int(r)] for r in right),
        "validation": fit.validation.accuracy.to_json(),
        "seconds": round(fit.seconds, 1),
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def compared(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each variant against the defaults, seeds pooled."""
    by = {(r["what"], r["seed"]): r for r in runs}
    rows = []
    for what in VARIANTS:
        seeds = sorted(s for w, s in by if w == what and (DEFAULTS, s) in by)
        if not seeds:
            continue
        pairs = [(by[what, s], by[DEFAULTS, s]) for s in seeds]
        test = sum(pair[0]["test"]["value"] for pair in pairs) / len(pairs)
        rows.append({"what": what, "seeds": seeds, "test": test} | gain(pairs))
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.backbone = options.backbone or sl.backbones.default_for(options.weights)
    photos = sl.scan(options.photos)
    which = {
        "photos": fingerprint(photos),
        "backbone": options.backbone,
        "weights": Path(options.weights).name,
        "image_px": options.image_px,
        "epochs": options.epochs,
        "per_class": options.per_class,
    }
    out = Path(options.out)
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    if runs and {key: runs[0][key] for key in which} != which:
        raise SystemExit(f"{out} holds runs of {[runs[0][key] for key in which]}: take another")
    done = {(r["what"], r["seed"]) for r in runs}
    for seed, what in itertools.product(options.seeds, VARIANTS):
        case = {"what": what, "seed": seed} | which
        if (what, seed) in done:
            continue
        runs.append(run(sl.split(photos, seed=seed), case, options))
        print({key: runs[-1][key] for key in ("what", "seed", "kept", "test")}, flush=True)
        table = {"command": "python -m tests.bench.ablations", **which}
        table |= {"compared": compared(runs), "runs": runs}
        with atomic_write(out) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n")
    for row in compared(runs):
        print(row)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ablations")
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", default="imagenet", help="a weights file [imagenet]")
    parser.add_argument("--out", default="docs/results/ablations.json")
    parser.add_argument("--backbone", help="[the one that the weights are of]")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


if __name__ == "__main__":
    main()
