"""How long from the start of a process to its first trained batch, stage by stage.

python -m tests.bench.cold_start [--backbone NAME] [--weights FILE] [--out FILE.json]

Once with an empty cache of compiled programs, then with what that run left there, each in a new
process. Seconds of processor time are noted beside those of the clock, for machines with other
work.
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
from pathlib import Path
from typing import Any

_STARTED = time.perf_counter() - time.process_time()  # Python itself takes some hundredths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument("--weights", help="a file without top layers; else random ones")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--times", type=int, default=3, help="starts with a filled cache")
    parser.add_argument("--out", help="a JSON file to write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _work(options)
    given = sys.argv[1:] if arguments is None else arguments
    with tempfile.TemporaryDirectory(prefix="scenelearn-cold-") as cache:
        environment = os.environ | {"SCENELEARN_CACHE": cache}
        command = [sys.executable, "-m", "tests.bench.cold_start", "--worker", *given]
        runs = []
        for number in range(1 + options.times):
            start = time.perf_counter()
            run = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            found = json.loads(run.stdout) | {"process_s": round(time.perf_counter() - start, 2)}
            runs.append(found | {"programs_on_disk": number > 0})
            print(json.dumps(runs[-1]), flush=True)
        kept = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
    table = {
        "command": " ".join(["python -m tests.bench.cold_start", *(Path(a).name for a in given)]),
        "backbone": options.backbone,
        "first_s": runs[0]["total_s"],
        "later_median_s": statistics.median(run["total_s"] for run in runs[1:]),
        "programs_kib": round(kept / 1024),
        "runs": runs,
    }
    if options.out:
        Path(options.out).write_text(json.dumps(table, indent=1) + "\n")
    return None


def _work(options: argparse.Namespace) -> None:
    seconds: dict[str, Any] = {}
    last = [_STARTED, 0.0]

    def stage(name: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        clock, used = (round(a - b, 2) for a, b in zip(now, last, strict=True))
        seconds[f"{name}_s"], seconds[f"{name}_processor_s"] = clock, used
        last[:] = now

    import numpy as np

    from scenelearn import backbones
    from scenelearn._backend import keras
    from scenelearn.finetune import _network, _train
    from scenelearn.finetune._environment import environment
    from scenelearn.finetune._head import Head
    from scenelearn.finetune._recipe import Recipe

    keras()
    stage("imports")
    features = backbones.build(options.backbone, weights=options.weights, image_px=options.image_px)
    stage("network")
    n_features = features.output.shape[-1]
    head = Head(
        kernel=np.zeros((n_features, 6), np.float32), bias=np.zeros(6, np.float32), strength=1.0
    )
    model, _ = _network.with_head(features, head)
    _train.compile_(model, Recipe())
    stage("head")
    images = np.zeros((options.batch, options.image_px, options.image_px, 3), np.uint8)
    model.train_on_batch(images, np.eye(6, dtype=np.float32)[np.arange(options.batch) % 6])
    stage("first_step")
    seconds["total_s"] = round(last[0] - _STARTED, 2)
    seconds["total_processor_s"] = round(last[1], 2)
    print(json.dumps(seconds | {"environment": environment()}))


if __name__ == "__main__":
    main()
