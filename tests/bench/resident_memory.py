"""Resident memory of a process, compared with XLA's plan and with what sizing expects.

    python -m tests.bench.resident_memory [--out FILE.json]

Each step runs three times in its own process, compiled as Keras compiles it. The figure is the peak
of resident memory minus what it was before the step's arrays were allocated, so Python, Keras, JAX
and the compiler are excluded. It is compared with the upper bound of sizing's XLA rule. "fit" means
training steps as `fit` runs them, in the form that is fast on a CPU, including the network; their
compiled programs come from the cache of an earlier process, and they are compared with what `fit`
expects. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from scenelearn import backbones, sizing
from scenelearn.finetune._device import environment, training_bytes
from tests.bench._common import bench_parser, write_json
from tests.bench.memory import freeze, lower_step, networks, plan_of

CASES = (
    ("textbook CNN", 0, 50),
    ("MobileNetV2", 224, 8),
    ("EfficientNetB0", 160, 8),
    ("ResNet50", 224, 4),
    ("VGG16", 128, 4),
    ("DenseNet121", 128, 8),
    ("ConvNeXtTiny", 128, 4),
    ("LSTM", 0, 64),
    ("encoder", 0, 32),
)
STEPS = ("predict", "train sgd_momentum", "head adam")
FITS = (("MobileNetV2", 160, 32), ("MobileNetV2", 224, 32), ("EfficientNetB0", 224, 32),
        ("ResNet50", 224, 32), ("ConvNeXtTiny", 160, 32))  # fmt: skip


def measure_step(name: str, px: int, batch: int, step: str) -> dict[str, int]:
    """XLA's plan of a step and the rise of resident memory while it runs, in bytes."""
    import jax
    import jax.numpy as jnp

    from scenelearn._keras_internals import deferred_initialization

    with deferred_initialization():
        model = networks()[name](px)
    if step.startswith("head"):
        freeze(model)
    lowered, shapes = lower_step(model, batch, step)
    compiled = lowered.compile()
    plan = plan_of(compiled)["total_bytes"]
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    arguments = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
    for _ in range(3):
        result = jax.block_until_ready(compiled(*arguments))
        if step != "predict":
            arguments = (result[1], arguments[1])
    return {
        "plan_bytes": plan,
        "resident_bytes": _status("VmHWM") - before,
        "bound_bytes": _bound(model, batch, step),
    }


def measure_fit(name: str, px: int, batch: int) -> dict[str, int]:
    """The rise of resident memory for a network and three steps as `fit` makes them, in bytes."""
    import numpy as np

    from scenelearn._backend import keras

    k = keras()
    k.ops.convert_to_numpy(k.ops.ones(1))  # initializes JAX
    before = _status("VmRSS")
    model = getattr(k.applications, name)(weights=None, input_shape=(px, px, 3), classes=6)
    backbones.fast_on_cpu(backbones.freeze_batchnorm(model))
    model.compile(k.optimizers.AdamW(), k.losses.CategoricalCrossentropy())
    x = np.zeros((batch, px, px, 3), np.uint8)
    for _ in range(3):
        model.train_on_batch(x, np.eye(6, dtype=np.float32)[np.arange(batch) % 6])
    bound = training_bytes(model, batch)
    return {"resident_bytes": _status("VmHWM") - before, "bound_bytes": bound}


def _bound(model: Any, batch: int, step: str) -> int:
    """The upper bound that sizing gives."""
    kind, _, optimizer = step.partition(" ")
    estimate = sizing.estimate(
        model,
        batch_size=batch,
        optimizer=optimizer or None,
        trainable={"head": "head", "train": True}.get(kind),
        method="xla",
    )
    training = kind != "predict"
    bound = estimate.training_resident_bytes if training else estimate.prediction_resident_bytes
    assert bound is not None
    return bound


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def main() -> None:
    """Measure every case, and write the table."""
    parser = bench_parser("resident_memory", __doc__)
    parser.add_argument(
        "--case", nargs=4, metavar=("NAME", "PX", "BATCH", "STEP"), help=argparse.SUPPRESS
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="JSON file to write")
    options = parser.parse_args()
    if options.case:
        name, px, batch, step = options.case
        measure = measure_fit if step == "fit" else functools.partial(measure_step, step=step)
        print(json.dumps(measure(name, int(px), int(batch))))
        return
    rows: list[dict[str, Any]] = []
    for step in (*STEPS, "fit"):
        for name, px, batch in FITS if step == "fit" else CASES:
            call = [sys.executable, "-m", "tests.bench.resident_memory", "--case"]
            for _ in range(1 + (step == "fit")):
                run = subprocess.run(
                    [*call, name, str(px), str(batch), step],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
            if run.returncode:
                raise SystemExit(f"{name}, {step}: {run.stderr[-2000:]}")
            result = json.loads(run.stdout.splitlines()[-1])
            row = {"model": name, "image_px": px, "batch_size": batch, "step": step, **result}
            fraction = round(result["resident_bytes"] / result["bound_bytes"], 3)
            rows.append(row | {"fraction": fraction})
            print(json.dumps(rows[-1]), flush=True)
    fractions = [row["fraction"] for row in rows]
    table = {
        "command": "python -m tests.bench.resident_memory",
        "environment": environment(),
        "fraction_median": statistics.median(fractions),
        "fraction_max": max(fractions),
        "rows": rows,
    }
    if options.out:
        write_json(options.out, table)


if __name__ == "__main__":
    main()
