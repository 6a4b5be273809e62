"""What a process takes beside XLA's plan: `python -m tests.bench.resident --out FILE`.

Each step runs three times in a process of its own, compiled as Keras compiles it. Counted is how
far the process's resident memory rises at its highest above what it was before the step's arrays
were made, so Python, Keras, JAX and the compiler are left out. Beside it stands the most that
sizing expects, with the XLA rule. "fit" are training steps as `fit` makes them, in the form that is
fast on a CPU, and the network; their programs come from the disk, from a process before. Beside
them stands what `fit` expects. Linux only.
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
from scenelearn._io import atomic_write
from scenelearn.finetune._environment import environment
from scenelearn.finetune._fits import training_bytes
from tests.bench.memory import freeze, lowered, networks, plan_of

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


def measured(name: str, px: int, batch: int, step: str) -> dict[str, int]:
    """XLA's plan of a step and the rise of resident memory while it runs, in bytes."""
    import jax
    import jax.numpy as jnp

    from scenelearn._backend import keras
    from scenelearn.sizing._unfilled import without_values

    with without_values(keras()):
        model = networks()[name](px)
    if step.startswith("head"):
        freeze(model)
    step_as_lowered, shapes = lowered(model, batch, step)
    compiled = step_as_lowered.compile()
    plan = plan_of(compiled)["total_bytes"]
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _status("VmRSS")
    arguments = jax.tree.map(lambda one: jnp.full(one.shape, 0.01, one.dtype), shapes)
    for _ in range(3):
        result = jax.block_until_ready(compiled(*arguments))
        if step != "predict":
            arguments = (result[1], arguments[1])
    return {
        "plan_bytes": plan,
        "resident_bytes": _status("VmHWM") - before,
        "at_most_bytes": _said(model, batch, step),
    }


def fitted(name: str, px: int, batch: int) -> dict[str, int]:
    """The rise of resident memory for a network and three steps as `fit` makes them, in bytes."""
    import numpy as np

    from scenelearn._backend import keras

    k = keras()
    k.ops.convert_to_numpy(k.ops.ones(1))  # JAX is there
    before = _status("VmRSS")
    model = getattr(k.applications, name)(weights=None, input_shape=(px, px, 3), classes=6)
    backbones.fast_on_cpu(backbones.keep_statistics(model))
    model.compile(k.optimizers.AdamW(), k.losses.CategoricalCrossentropy())
    x = np.zeros((batch, px, px, 3), np.uint8)
    for _ in range(3):
        model.train_on_batch(x, np.eye(6, dtype=np.float32)[np.arange(batch) % 6])
    most = training_bytes(model, batch)
    return {"resident_bytes": _status("VmHWM") - before, "at_most_bytes": most}


def _said(model: Any, batch: int, step: str) -> int:
    """The most that sizing expects."""
    kind, _, optimizer = step.partition(" ")
    found = sizing.estimate(
        model,
        batch_size=batch,
        optimizer=optimizer or None,
        trainable={"head": "head", "train": True}.get(kind),
        rule="xla",
    )
    most = found.prediction_resident_bytes if kind == "predict" else found.training_resident_bytes
    assert most is not None
    return most


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def main() -> None:
    """Measure every case and write the table with the margins."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path)
    options.add_argument("--case", nargs=4, metavar=("NAME", "PX", "BATCH", "STEP"))
    given = options.parse_args()
    if given.case:
        name, px, batch, step = given.case
        found = fitted if step == "fit" else functools.partial(measured, step=step)
        print(json.dumps(found(name, int(px), int(batch))))
        return
    rows: list[dict[str, Any]] = []
    for step in (*STEPS, "fit"):
        for name, px, batch in FITS if step == "fit" else CASES:
            call = [sys.executable, "-m", "tests.bench.resident", "--case"]
            for _ in range(1 + (step == "fit")):
                run = subprocess.run(
                    [*call, name, str(px), str(batch), step],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
            if run.returncode:
                raise SystemExit(f"{name}, {step}: {run.stderr[-2000:]}")
            found = json.loads(run.stdout.splitlines()[-1])
            row = {"model": name, "image_px": px, "batch": batch, "step": step, **found}
            rows.append(
                {**row, "share": round(found["resident_bytes"] / found["at_most_bytes"], 3)}
            )
            print(json.dumps(rows[-1]), flush=True)
    shares = [row["share"] for row in rows]
    table = {
        "command": "python -m tests.bench.resident",
        "environment": environment(),
        "share_median": statistics.median(shares),
        "share_highest": max(shares),
        "rows": rows,
    }
    if given.out:
        with atomic_write(given.out) as partial:
            partial.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
