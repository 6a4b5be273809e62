"""Fine-tuning of a vision transformer with LoRA and without: time and memory of a step.

    python -m tests.bench.lora [--network vit_small] [--image-px 224] [--rounds 5]

Each form trains in its own process, as `fit` does, on images of noise; the processes take turns. Of
each round the fastest of three steps counts, of the rounds the median. The memory is the rise of
the process' resident memory from before the network is built to its peak in the steps. The first
step is left out, since it compiles, which takes more. `predicted_mib` is what `fit` expects of it.
Linux with glibc only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench._common import add_out, bench_parser, write_json
from tests.bench._vit import SIZES, build_vit

_FORMS = {"all layers": None, "LoRA": 8}
_STEPS = 3  # per round


def main() -> None:
    """Measure each form, and write the table."""
    parser = bench_parser("lora", __doc__)
    parser.add_argument("--network", choices=SIZES, default="vit_small")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=_FORMS, help=argparse.SUPPRESS)
    add_out(parser, "lora")
    options = parser.parse_args()
    if options.worker:
        return _work(options)
    workers = {form: _start(form) for form in _FORMS}
    rows = {form: json.loads(_read(worker)) for form, worker in workers.items()}
    times: dict[str, list[float]] = {form: [] for form in _FORMS}
    for _ in range(options.rounds):
        for form, worker in workers.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            times[form].append(float(_read(worker)))
    table = []
    for form, worker in workers.items():
        worker.stdin.close()
        row = {"form": form, "step_ms": round(statistics.median(times[form]), 1), **rows[form]}
        table.append(row | json.loads(_read(worker)))
        print(json.dumps(table[-1]), flush=True)
    from scenelearn.finetune._device import environment

    settings = {name: getattr(options, name) for name in ("network", "image_px", "batch_size")}
    result = {"command": "nox -s lora", **settings, "rounds": options.rounds}
    write_json(options.out, result | {"environment": environment(), "rows": table})
    return None


def _start(form: str) -> Any:
    command = [sys.executable, "-m", "tests.bench.lora", *sys.argv[1:], "--worker", form]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ)


def _read(worker: Any) -> str:
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"a worker ended with exit status {worker.wait()}")
    return str(line)


def _work(options: argparse.Namespace) -> None:
    """Build, compile, and answer each line of stdin with milliseconds per step."""
    import numpy as np

    from scenelearn._backend import keras
    from scenelearn.backbones._network import load_if_own
    from scenelearn.finetune import FitSettings, Recipe, _model
    from scenelearn.finetune._device import training_bytes
    from scenelearn.finetune._lora import add_lora

    keras().ops.convert_to_numpy(keras().ops.ones(1))  # starts the backend
    before, rank = _status("VmRSS"), _FORMS[options.worker]
    network = load_if_own(build_vit(options.network, options.image_px), None)
    settings = FitSettings(
        backbone=network.name, weights="own", image_px=options.image_px,
        batch_size=options.batch_size, recipe=Recipe(lora_rank=rank, unfreeze="all"),
    )  # fmt: skip
    features = _model.build_features(settings, network)
    to_logits, _ = _model.add_zero_head(features, 6)
    _model.select_layers(features, settings)
    add_lora(features, settings)
    _model.compile_model(features, to_logits, settings)
    rng, n, px = np.random.default_rng(0), options.batch_size, options.image_px
    images = rng.integers(0, 256, (n, px, px, 3), np.uint8)
    labels = np.eye(6, dtype=np.float32)[np.arange(n) % 6]
    to_logits.train_on_batch(images, labels)  # compiles
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begins a new VmHWM
    trained = sum(int(np.prod(variable.shape)) for variable in to_logits.trainable_variables)
    print(json.dumps({"trained_parameters": trained}), flush=True)
    for _ in sys.stdin:
        seconds = []
        for _ in range(_STEPS):
            start = time.perf_counter()
            to_logits.train_on_batch(images, labels)
            seconds.append(time.perf_counter() - start)
        print(1e3 * min(seconds), flush=True)
    peak = _status("VmHWM") - before
    sizes = {"resident_mib": peak, "predicted_mib": training_bytes(to_logits, n)}
    print(json.dumps({name: round(n_bytes / 2**20) for name, n_bytes in sizes.items()}), flush=True)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
