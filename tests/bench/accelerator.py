"""Speed and accuracy of the same fits on an accelerator and on the CPU, in 32 and in 16 bits.

    python -m tests.bench.accelerator --photos FOLDER --weights FILE [FILE …]
        [--forms accelerator CPU …] [--image-px 160] [--batch-size 128] [--epochs 8]
        [--out docs/results/accelerator.json]

Run it where Keras finds an accelerator. Each fit runs in its own process, one after another, on the
same split and with an empty cache, and evaluates the test photos once, at its end.
`epoch_seconds` is the median over all epochs except the first. `max_feature_difference` is the
largest difference between the features of 64 photos and those that the CPU computes, as a fraction
of the largest feature. The file is written after each fit, and fits that it contains are not
repeated.
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

from tests.bench._common import add_out, bench_parser, require_complete, write_json

FORMS: dict[str, str | None] = {
    "accelerator": None,
    "accelerator, bfloat16": "mixed_bfloat16",
    "accelerator, float16": "mixed_float16",
    "CPU": None,
}
_N_COMPARED = 64  # photos whose features are compared


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        print("\n" + json.dumps(_fit(options, options.worker)), flush=True)
        return
    out = Path(options.out)
    table = json.loads(out.read_text()) if out.exists() else {"rows": []}
    rows = table["rows"]
    setup = {key: getattr(options, key) for key in ("image_px", "batch_size", "epochs")}
    setup["cores"] = str(os.cpu_count())
    done = {
        (row["settings"]["weights"], row["form"])
        for row in rows
        if setup == {key: (row["settings"] | row["environment"])[key] for key in setup}
    }
    for weights, form in itertools.product(options.weights, options.forms):
        if (Path(weights).name, form) in done:
            continue
        with tempfile.TemporaryDirectory() as cache:
            rows.append(_fit_in_process(options, weights, form, cache))
        print({key: rows[-1][key] for key in ("backbone", "form", "phases", "test")}, flush=True)
        table = {"command": "python -m tests.bench.accelerator", "rows": rows}
        write_json(out, table)


def _fit_in_process(
    options: argparse.Namespace, weights: str, form: str, cache: str
) -> dict[str, Any]:
    """A fit in its own process, with its own cache."""
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
    require_complete(fit)
    device = fit.environment["device"]
    if (form == "CPU") != device.lower().startswith("cpu"):
        raise SystemExit(f"{form}: the fit ran on {device}. Run this on a machine with both.")
    return {
        "backbone": fit.settings.backbone,
        "form": form,
        "seconds": round(fit.seconds, 1),
        "epoch_seconds": round(statistics.median(e.seconds for e in fit.history[2:]), 3),
        "phases": {phase.name: round(phase.seconds, 1) for phase in fit.phases},
        "n_training": len(fit.splits.train),
        "max_feature_difference": _max_feature_difference(fit, weights, precision),
        "test": fit.evaluation.accuracy.to_json(),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "settings": fit.settings.to_json() | {"weights": fit.environment["weights"]},
        "environment": fit.environment,
    }


def _max_feature_difference(fit: Any, weights: str, precision: str | None) -> float:
    """The largest difference from features that the CPU computes, relative to the largest."""
    import jax

    from scenelearn import backbones
    from scenelearn.data import decode

    settings = fit.settings
    images, _ = decode(fit.splits.photos, settings.image_px).read(np.arange(_N_COMPARED))
    on_device, on_cpu = (
        backbones.build(settings.backbone, weights=weights, image_px=settings.image_px, precision=p)
        for p in (precision, None)
    )
    features = np.asarray(on_device.predict_on_batch(images), np.float32)
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        states = [
            [jax.device_put(v.value, cpu) for v in variables]
            for variables in (on_cpu.trainable_variables, on_cpu.non_trainable_variables)
        ]
        exact, _ = jax.jit(on_cpu.stateless_call)(*states, images)
    exact = np.asarray(exact)
    return float(np.abs(features - exact).max() / np.abs(exact).max())


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("accelerator", __doc__)
    parser.add_argument(
        "--photos", metavar="FOLDER", required=True, help="photos, one subfolder per class"
    )
    parser.add_argument("--weights", metavar="FILE", nargs="+", required=True, help="weights files")
    parser.add_argument(
        "--forms", nargs="+", default=list(FORMS), choices=FORMS, help="(default: all)"
    )
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=8, help="at least 2 (default: 8)")
    add_out(parser, "accelerator")
    parser.add_argument("--worker", choices=FORMS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
