"""Time from the start of a process to its first training step, by stage.

    python -m tests.bench.cold_start [--backbone NAME] [--weights FILE] [--out FILE.json]
    python -m tests.bench.cold_start --photos FOLDER [...]

Runs once with an empty cache of compiled programs, then with the cache that this run left, each in
a new process. The same layers are trained as by `fit`: with random weights, all of them. With
photos, a fit runs from the scan to the first trained batch: it also decodes photos, computes their
features and fits the linear probe, all of which later runs find in the cache, except for the linear
probe. CPU seconds are recorded next to wall-clock seconds, for machines that are busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_STARTED = time.perf_counter() - time.process_time()  # the interpreter itself takes some hundredths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.cold_start", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument(
        "--weights", metavar="FILE", help="without top layers (default: random weights)"
    )
    parser.add_argument("--photos", metavar="FOLDER", help="one folder per class")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="runs with a warm cache")
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _work(options)
    given = sys.argv[1:] if arguments is None else arguments
    with tempfile.TemporaryDirectory(prefix="scenelearn-cold-") as cache:
        environment = os.environ | {"SCENELEARN_CACHE": cache}
        command = [sys.executable, "-m", "tests.bench.cold_start", "--worker", *given]
        runs = []
        for number in range(1 + options.rounds):
            start = time.perf_counter()
            run = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            stages = json.loads(run.stdout) | {"process_s": round(time.perf_counter() - start, 2)}
            runs.append(stages | {"programs_cached": number > 0})
            print(json.dumps(runs[-1]), flush=True)
        n_bytes = sum(
            path.stat().st_size for path in Path(cache, "programs").rglob("*") if path.is_file()
        )
    table = {
        "command": " ".join(["python -m tests.bench.cold_start", *(Path(a).name for a in given)]),
        "backbone": options.backbone,
        "first_s": runs[0]["total_s"],
        "warm_median_s": statistics.median(run["total_s"] for run in runs[1:]),
        "programs_kib": round(n_bytes / 1024),
        "runs": runs,
    }
    if options.out:
        Path(options.out).write_text(json.dumps(table, indent=1) + "\n")
    return None


class _FirstStepError(Exception):
    """Ends a fit after its first step."""


def _work(options: argparse.Namespace) -> None:
    seconds: dict[str, Any] = {}
    last = [_STARTED, 0.0]

    def stage(name: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        wall, cpu = (round(a - b, 2) for a, b in zip(now, last, strict=True))
        seconds[f"{name}_s"], seconds[f"{name}_cpu_s"] = wall, cpu
        last[:] = now

    if options.photos:
        _fit(options, stage)
    else:
        _step(options, stage)
    from scenelearn.finetune._device import environment

    seconds["total_s"] = round(last[0] - _STARTED, 2)
    seconds["total_cpu_s"] = round(last[1], 2)
    print(json.dumps(seconds | {"environment": environment()}))


def _fit(options: argparse.Namespace, stage: Callable[[str], None]) -> None:
    """The stages of a fit up to its first step."""
    import scenelearn as sl
    from scenelearn._backend import keras

    keras()
    stage("imports")
    splits = sl.split(sl.scan(options.photos), seed=0)
    stage("scan")
    ended = {
        ("decoding photos", 0): "network",
        ("extracting features", 0): "photos",
        ("fitting the linear probe", 0): "features",
        ("compiling and timing", 0): "linear_probe",
        ("compiling and timing", 1): "first_step",
    }

    def progress(what: str, done: int, _: int) -> None:
        name = ended.pop((what, done if what == "compiling and timing" else 0), None)
        if name:
            stage(name)
        if name == "first_step":
            raise _FirstStepError

    with suppress(_FirstStepError):
        sl.fit(
            splits,
            backbone=options.backbone,
            weights=options.weights,
            image_px=options.image_px,
            batch_size=options.batch_size,
            minutes=60,
            progress=progress,
        )


def _step(options: argparse.Namespace, stage: Callable[[str], None]) -> None:
    """The first step of a network, without photos."""
    import numpy as np

    from scenelearn import backbones
    from scenelearn._backend import keras
    from scenelearn.finetune import FitSettings, _model

    keras()
    stage("imports")
    features = backbones.build(options.backbone, weights=options.weights, image_px=options.image_px)
    stage("network")
    model, _ = _model.add_zero_head(features, 6)
    settings = FitSettings(
        backbone=options.backbone, weights=options.weights, image_px=options.image_px
    )
    if options.weights:
        _model.freeze_layers(features, options.image_px, settings.recipe.unfreeze)
    _model.compile_model(features, model, settings)
    stage("head")
    images = np.zeros((options.batch_size, options.image_px, options.image_px, 3), np.uint8)
    model.train_on_batch(images, np.eye(6, dtype=np.float32)[np.arange(options.batch_size) % 6])
    stage("first_step")


if __name__ == "__main__":
    main()
