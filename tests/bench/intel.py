"""Accuracy on the Intel photos by time budget, and of the linear probe only.

    python -m tests.bench.intel --photos FOLDER [--weights FILE] --out FILE.json
        [--minutes 1 2 4.5] [--backbone NETWORK …] [--preprocessing VALUES] [--image-px 160]
        [--seeds 0 1 2 3 4] [--recipe cutmix_alpha=1 …] [--save FOLDER] [--teacher FOLDER]

A backbone is a name, or a network of one's own, such as a ``.keras`` file. Of several, only the
linear probe on all their features is fitted.

A teacher must not have learned the test photos of its student, so each seed has its own: `--save`
writes the classifiers to FOLDER/SEED.keras, and `--teacher` reads them from there.

Each seed has its own split and its own training. Test photos are evaluated once, at the end of each
fit; nothing here or in the library was chosen on them. Each run starts without the pixels and
features of the others. Compiled programs may come from an earlier run, unless `--cold` is given.
`process_seconds` is the time of the whole process, imports and scan included. The file is written
after each run, and runs that it contains are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

from scenelearn.backbones import default_for
from scenelearn.backbones._network import is_own
from scenelearn.cli._options import preprocessing
from tests.bench._common import add_network_options, bench_parser, new_runs, require_complete

PROBE = "linear probe only"


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        print("\n" + json.dumps(_fit(options, options.worker)), flush=True)
        return
    options.backbone = options.backbone or [default_for(options.weights)]
    weights = "own" if is_own(_backbone(options)) else Path(options.weights).name
    budgets = [*([] if options.no_linear_probe else [None]), *options.minutes]
    cases = [
        {"name": _name(options, minutes), "seed": seed, "minutes": minutes}
        for seed, minutes in product(options.seeds, budgets)
    ]
    longest = max([4.5, *options.minutes])
    table = {"command": "python -m tests.bench.intel", "photos": {}, "minutes": longest}
    for run in new_runs(
        options.out, table, cases, show=("name", "seed", "test", "seconds"),
        counts=lambda run: run["settings"]["weights"] == weights,
    ):  # fmt: skip
        minutes = PROBE if run["minutes"] is None else str(run["minutes"])
        result, table["photos"] = _fit_in_process(options, run["seed"], minutes)
        run.update(result)


def _name(options: argparse.Namespace, minutes: float | None) -> str:
    """The name of a run; without `minutes`, of the linear probe."""
    network = " + ".join(Path(name).name for name in options.backbone)
    taught = ["with a teacher"] * bool(options.teacher)
    budget = PROBE if minutes is None else f"{minutes:g} minutes"
    return ", ".join(
        [f"{network} at {options.image_px} px", *_fields(options.recipe), *taught, budget]
    )


def _fit_in_process(options: argparse.Namespace, seed: int, minutes: str) -> tuple[Any, Any]:
    """A fit in its own process, with its own cache."""
    programs = Path(os.environ.get("SCENELEARN_CACHE", "~/.cache/scenelearn")).expanduser()
    with tempfile.TemporaryDirectory() as cache:
        if not options.cold and (programs / "programs").is_dir():
            Path(cache, "programs").symlink_to(programs / "programs")
        command = [sys.executable, "-m", "tests.bench.intel", "--worker", minutes]
        command += ["--photos", options.photos, "--weights", options.weights, "--out", options.out]
        command += ["--backbone", *options.backbone, "--image-px", str(options.image_px)]
        command += ["--preprocessing", options.preprocessing] * bool(options.preprocessing)
        for name in ("save", "teacher"):
            command += [f"--{name}", getattr(options, name)] * bool(getattr(options, name))
        command += ["--seeds", str(seed), "--recipe", *_fields(options.recipe)]
        environment = os.environ | {"SCENELEARN_CACHE": cache}
        start = time.monotonic()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        seconds = round(time.monotonic() - start, 1)
    run, photos = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return run | {"process_seconds": seconds}, photos


def _fit(options: argparse.Namespace, minutes: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import scenelearn as sl

    photos, seed, backbone = sl.scan(options.photos), options.seeds[0], _backbone(options)
    fit = sl.fit(
        sl.split(photos, seed=seed),
        backbone=backbone,
        weights="imagenet" if is_own(backbone) else options.weights,
        preprocessing=options.preprocessing and preprocessing(options.preprocessing),
        image_px=options.image_px,
        minutes=4.5 if minutes == PROBE else float(minutes),
        epochs=0 if minutes == PROBE else None,
        recipe=dict(options.recipe),
        teacher=Path(options.teacher, f"{seed}.keras") if options.teacher else None,
        seed=seed,
    )
    require_complete(fit)
    if options.save:
        Path(options.save).mkdir(parents=True, exist_ok=True)
        fit.save(Path(options.save, f"{seed}.keras"))
    about = {"n": len(photos), "classes": photos.counts()}
    return {
        "minutes": None if minutes == PROBE else float(minutes),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "interpolation": fit.interpolation,
        "test": fit.evaluation.accuracy.to_json(),
        "test_calibration_error": fit.evaluation.calibration_error,
        "validation": fit.validation_evaluation.accuracy.to_json(),
        "seconds": round(fit.seconds, 1),
        "phases": {phase.name: round(phase.seconds, 1) for phase in fit.phases},
        "settings": fit.settings.to_json()
        | {name: fit.environment.get(name) for name in ("backbone", "weights", "teacher")},
        "environment": fit.environment,
    }, about | {"fingerprint": fit.environment["photos"]}


def _backbone(options: argparse.Namespace) -> str | list[str]:
    return options.backbone if options.backbone[1:] else options.backbone[0]


def _field(text: str) -> tuple[str, Any]:
    """The name and value of NAME=VALUE."""
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _fields(recipe: list[tuple[str, Any]]) -> list[str]:
    """The fields of a recipe as NAME=VALUE, sorted."""
    return [f"{name}={json.dumps(value)}" for name, value in sorted(recipe)]


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("intel", __doc__)
    add_network_options(parser, several=True)
    parser.add_argument(
        "--preprocessing", metavar="VALUES", help="of a network of your own, as for the CLI"
    )
    parser.add_argument(
        "--minutes", type=float, nargs="*", default=[1, 2, 4.5], help="one run for each"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="one run for each"
    )
    parser.add_argument(
        "--recipe", type=_field, nargs="*", default=[], metavar="NAME=VALUE",
        help="fields of Recipe, as JSON",
    )  # fmt: skip
    parser.add_argument("--save", metavar="FOLDER", help="save the classifier of each seed here")
    parser.add_argument("--teacher", metavar="FOLDER", help="with the teacher of each seed")
    parser.add_argument("--no-linear-probe", action="store_true", help="skip the linear probe")
    parser.add_argument("--cold", action="store_true", help="compile everything again")
    parser.add_argument("--out", metavar="FILE", required=True, help="JSON file to write")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
