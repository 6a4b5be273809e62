"""What a fit reaches on real photos, by its minutes, with the solved head alone for comparison.

    python -m tests.bench.intel --photos FOLDER [--weights FILE] --out FILE.json
        [--minutes 1 2 4.5] [--backbone NAME] [--image-px 160] [--seeds 0 1 2 3 4]
        [--recipe cutmix=1 …]

Each seed draws its own split and its own training. Test photos are judged once, at the end of
each fit; nothing here or in the library was chosen by them. Each run starts with nothing kept from
another: pixels, features and programs are made in it, but that its programs may lie on the disk
from a run before (`--cold` makes those anew, too). `process_seconds` are those of the whole
process, from its start to its end, imports and scan included. The file is written after each run,
and runs that it holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scenelearn.backbones import default_for
from tests.bench._whole import whole

HEAD = "solved head alone"


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        print("\n" + json.dumps(_fit(options, options.worker)), flush=True)
        return
    options.backbone = options.backbone or default_for(options.weights)
    out = Path(options.out)
    table = json.loads(out.read_text()) if out.exists() else {"runs": []}
    runs = table["runs"]
    done = {(run["what"], run["seed"], run["settings"]["weights"]) for run in runs}
    weights = Path(options.weights).name
    for seed in options.seeds:
        for minutes in (*([] if options.without_head else ["head"]), *options.minutes):
            spent = HEAD if minutes == "head" else f"{minutes:g} minutes"
            network = f"{options.backbone} at {options.image_px} px"
            what = ", ".join([network, *_words(options.recipe), spent])
            if (what, seed, weights) in done:
                continue
            run, photos = _alone(options, seed, str(minutes))
            runs.append({"what": what, "seed": seed} | run)
            print({k: runs[-1][k] for k in ("what", "seed", "test", "seconds")}, flush=True)
            minutes_asked = max([4.5, *options.minutes])
            table = {
                "command": "python -m tests.bench.intel",
                "photos": photos,
                "minutes": minutes_asked,
                "runs": runs,
            }
            out.write_text(json.dumps(table, indent=1) + "\n")


def _alone(options: argparse.Namespace, seed: int, minutes: str) -> tuple[Any, Any]:
    """A run in a process and a cache of its own."""
    programs = Path(os.environ.get("SCENELEARN_CACHE", "~/.cache/scenelearn")).expanduser()
    with tempfile.TemporaryDirectory() as cache:
        if not options.cold and (programs / "programs").is_dir():
            Path(cache, "programs").symlink_to(programs / "programs")
        command = [sys.executable, "-m", "tests.bench.intel", "--worker", minutes]
        command += ["--photos", options.photos, "--weights", options.weights, "--out", options.out]
        command += ["--backbone", options.backbone, "--image-px", str(options.image_px)]
        command += ["--seeds", str(seed), "--recipe", *_words(options.recipe)]
        environment = os.environ | {"SCENELEARN_CACHE": cache}
        start = time.monotonic()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        seconds = round(time.monotonic() - start, 1)
    run, photos = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return run | {"process_seconds": seconds}, photos


def _fit(options: argparse.Namespace, minutes: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import scenelearn as sl

    photos, seed = sl.scan(options.photos), options.seeds[0]
    fit = sl.fit(
        sl.split(photos, seed=seed),
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        minutes=4.5 if minutes == "head" else float(minutes),
        epochs=0 if minutes == "head" else None,
        recipe=dict(options.recipe),
        seed=seed,
    )
    whole(fit)
    about = {"n": len(photos), "classes": photos.counts()}
    return {
        "minutes": None if minutes == "head" else float(minutes),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "share": fit.share,
        "test": fit.evaluation.accuracy.to_json(),
        "test_calibration_error": fit.evaluation.calibration_error,
        "validation": fit.validation.accuracy.to_json(),
        "seconds": round(fit.seconds, 1),
        "phases": {phase.name: round(phase.seconds, 1) for phase in fit.phases},
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }, about | {"fingerprint": fit.environment["photos"]}


def _setting(text: str) -> tuple[str, Any]:
    """The name and value of what is written as NAME=VALUE."""
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _words(recipe: list[tuple[str, Any]]) -> list[str]:
    """The settings as they are written, in one order."""
    return [f"{name}={json.dumps(value)}" for name, value in sorted(recipe)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", default="imagenet", help="a weights file [imagenet]")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--backbone", help="[the one that the weights are of]")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 2, 4.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--recipe", type=_setting, nargs="*", default=[], metavar="NAME=VALUE",
        help="of `Recipe`, as JSON",
    )  # fmt: skip
    parser.add_argument("--without-head", action="store_true", help="leave the head alone out")
    parser.add_argument("--cold", action="store_true", help="compile everything anew")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
