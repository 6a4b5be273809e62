"""Whether augmentation helps: fine-tuning with and without, at three sizes, three seeds.

    python -m tests.bench.augment_helps --photos FOLDER --weights FILE
        [--sizes 25 100 500] [--policies none standard] [--out docs/results/augment_helps.json]

Each seed draws its own split; of its training side each class keeps as many photos as the size
says, the same for all policies, and the smaller sizes are parts of the larger. Validation and test
stay whole. The file is written after each run, and runs that it holds are not repeated, so that it
goes on where it was cut off.

Two policies are compared on the same test photos: the mean of (right with the one) - (right with
the other), and its 95 % interval from the spread of these differences over photos, seeds pooled.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn._io import atomic_write
from scenelearn.data import Splits
from scenelearn.finetune import fingerprint
from tests.bench._whole import whole

_Z95 = 1.959963984540054


def smaller(splits: Splits, per_class: int, seed: int) -> Splits:
    """The same split with so many training photos of each class."""
    mixed = np.random.default_rng([seed, 0]).permutation(splits.train)
    labels = splits.photos.labels[mixed]
    kept = [mixed[labels == label][:per_class] for label in np.unique(labels)]
    short = [len(k) for k in kept if len(k) < per_class]
    if short:
        raise SystemExit(f"A class has only {min(short)} training photos, not {per_class}.")
    return dataclasses.replace(splits, train=np.sort(np.concatenate(kept)))


def run(splits: Splits, case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One fit, and what it reaches."""
    fit = sl.fit(
        smaller(splits, case["per_class"], case["seed"]),
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        epochs=options.epochs,
        augmentation=case["policy"],
        seed=case["seed"],
    )
    whole(fit)
    right = fit.test_probabilities.argmax(axis=1) == splits.photos.labels[fit.test_indices]
    head, last = fit.history[0], fit.history[-1]
    return case | {
        "kept": fit.kept,
        "stopped": fit.stopped,
        "test": fit.evaluation.accuracy.to_json(),
        "test_right": "".join("01"[int(r)] for r in right),
        "validation_head": head.validation_accuracy,
        "validation_fine_tuned": last.validation_accuracy,
        "validation_loss_fine_tuned": last.validation_loss,
        "train_loss_fine_tuned": last.train_loss,
        "n_validation": fit.validation.n_photos,
        "seconds": round(fit.seconds, 1),
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def gain(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
    """What the first of each pair of runs gains on the second, on the same test photos."""
    bits = [[np.array(list(r["test_right"])) == "1" for r in pair] for pair in pairs]
    difference = np.concatenate([a.astype(float) - b for a, b in bits])
    mean = float(difference.mean())
    half = _Z95 * float(difference.std()) / math.sqrt(len(difference))
    return {"test_gain": mean, "low": mean - half, "high": mean + half, "n": len(difference)}


def compared(runs: list[dict[str, Any]], base: str) -> list[dict[str, Any]]:
    """Each policy against the first one, for each size: on test and on validation photos."""
    rows = []
    by = {(r["per_class"], r["policy"], r["seed"]): r for r in runs}
    sizes = sorted({r["per_class"] for r in runs})
    policies = [p for p in dict.fromkeys(r["policy"] for r in runs) if p != base]
    for size, policy in itertools.product(sizes, policies):
        seeds = sorted(s for n, p, s in by if (n, p) == (size, policy) and (size, base, s) in by)
        if not seeds:
            continue
        pairs = [(by[size, policy, s], by[size, base, s]) for s in seeds]
        row = {"per_class": size, "policy": policy, "against": base, "seeds": seeds}
        row |= gain(pairs)
        for k, name in enumerate((policy, base)):
            row[f"test_{name}"] = float(np.mean([pair[k]["test"]["value"] for pair in pairs]))
            tuned = [pair[k]["validation_fine_tuned"] for pair in pairs]
            row[f"validation_fine_tuned_{name}"] = float(np.mean(tuned))
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.backbone = options.backbone or sl.backbones.default_for(options.weights)
    photos = sl.scan(options.photos)
    which = {"photos": fingerprint(photos), "epochs": options.epochs}
    out = Path(options.out)
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    done = {tuple(r[key] for key in ("per_class", "seed", "policy", *which)) for r in runs}
    for size, seed, policy in itertools.product(options.sizes, options.seeds, options.policies):
        case = {"per_class": size, "seed": seed, "policy": policy} | which
        if tuple(case.values()) in done:
            continue
        runs.append(run(sl.split(photos, seed=seed), case, options))
        print({key: runs[-1][key] for key in ("per_class", "seed", "policy", "kept", "test")})
        table = {
            "command": "python -m tests.bench.augment_helps",
            "compared": compared(runs, options.policies[0]),
            "runs": runs,
        }
        with atomic_write(out) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n")
    for row in compared(runs, options.policies[0]):
        print(row)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.augment_helps")
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", default="imagenet", help="a weights file [imagenet]")
    parser.add_argument("--out", default="docs/results/augment_helps.json")
    parser.add_argument("--backbone", help="[the one that the weights are of]")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 100, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--policies", nargs="+", default=["none", "standard"])
    return parser


if __name__ == "__main__":
    main()
