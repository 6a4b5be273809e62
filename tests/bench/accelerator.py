"""What a GPU is worth: the same fits on it and on the CPU beside it, in 32 and in 16 bits.

    python -m tests.bench.accelerator --photos FOLDER --weights FILE [FILE …]
        [--forms accelerator CPU …] [--image-px 160] [--batch-size 128] [--epochs 8]
        [--out docs/results/accelerator.json]

Run it where Keras finds an accelerator. Each fit has a process of its own, one after another, on
the same split; test photos are judged once, at its end. Pixels, features and programs are made anew
in each. `epoch_seconds` is the median over all epochs but the first. `features_differ` is by how
much the features of 64 of the photos differ from those on the CPU, at the most, as a share of the
largest of them. The file is written after each fit, and fits that it holds are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench._whole import whole

FORMS: dict[str, str | None] = {
    "accelerator": None,
    "accelerator, bfloat16": "mixed_bfloat16",
    "accelerator, float16": "mixed_float16",
    "CPU": None,
}
_N_COMPARED = 64  # photos


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        print("\n" + json.dumps(_fit(options, options.worker)), flush=True)
        return
    out = Path(options.out)
    table = json.loads(out.read_text()) if out.exists() else {"rows": []}
    rows = table["rows"]
    asked = {key: getattr(options, key) for key in ("image_px", "batch_size", "epochs")}
    asked["cores"] = str(os.cpu_count())
    done = {
        (row["settings"]["weights"], row["form"])
        for row in rows
        if asked == {key: (row["settings"] | row["environment"])[key] for key in asked}
    }
    for weights, form in itertools.product(options.weights, options.forms):
        if (Path(weights).name, form) in done:
            continue
        with tempfile.TemporaryDirectory() as cache:
            rows.append(_alone(options, weights, form, cache))
        print({key: rows[-1][key] for key in ("backbone", "form", "phases", "test")}, flush=True)
        table = {"command": "python -m tests.bench.accelerator", "rows": rows}
        out.write_text(json.dumps(table, indent=1) + "\n")


def _alone(options: argparse.Namespace, weights: str, form: str, cache: str) -> dict[str, Any]:
    """A fit in a process and a cache of its own."""
    command = [sys.executable, "-m", "tests.bench.accelerator", "--worker", form]
    command += ["--photos", options.photos, "--weights", weights, "--out", options.out]
    command += ["--image-px", str(options.image_px), "--batch-size", str(options.batch_size)]
    command += ["--epochs", str(options.epochs)]
    environment = os.environ | {"SCENELEARN_CACHE": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if form == "CPU":
        environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    row: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return row


def _fit(options: argparse.Namespace, form: str) -> dict[str, Any]:
    import scenelearn as sl

    weights, precision = options.weights[0], FORMS[form]
    fit = sl.fit(
        sl.split(sl.scan(options.photos), seed=0),
        weights=weights,
        image_px=options.image_px,
        batch_size=options.batch_size,
        epochs=options.epochs,
        minutes=1000,
        precision=precision,
        seed=0,
    )
    whole(fit)
    return {
        "backbone": fit.settings.backbone,
        "form": form,
        "seconds": round(fit.seconds, 1),
        "epoch_seconds": round(statistics.median(e.seconds for e in fit.history[2:]), 3),
        "phases": {phase.name: round(phase.seconds, 1) for phase in fit.phases},
        "n_training": len(fit.splits.train),
        "features_differ": _difference(fit, weights, precision),
        "test": fit.evaluation.accuracy.to_json(),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def _difference(fit: Any, weights: str, precision: str | None) -> float:
    """How far the network's features lie from those on the CPU, see above."""
    import jax

    from scenelearn import backbones
    from scenelearn.data import decode

    settings = fit.settings
    images, _ = decode(fit.splits.photos, settings.image_px).read(np.arange(_N_COMPARED))
    here, on_cpu = (
        backbones.build(settings.backbone, weights=weights, image_px=settings.image_px, precision=p)
        for p in (precision, None)
    )
    seen = np.asarray(here.predict_on_batch(images), np.float32)
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        states = [
            [jax.device_put(v.value, cpu) for v in variables]
            for variables in (on_cpu.trainable_variables, on_cpu.non_trainable_variables)
        ]
        exact, _ = jax.jit(on_cpu.stateless_call)(*states, images)
    exact = np.asarray(exact)
    return float(np.abs(seen - exact).max() / np.abs(exact).max())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.accelerator")
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", nargs="+", required=True, help="weights files")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS, help="[all]")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8, help="at least 2 [%(default)s]")
    parser.add_argument("--out", default="docs/results/accelerator.json", help="[%(default)s]")
    parser.add_argument("--worker", choices=FORMS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
