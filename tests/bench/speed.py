"""Speed of backbones on this CPU: plain Keras on JAX, the fast forms, TensorFlow and Torch.

    python -m tests.bench.speed [--backbone NAME …] [--cores N …] [--rounds 5] [--out FILE.json]

A name may also be the path of a .keras file, or vit_tiny or vit_small, transformers of Keras'
layers.

Each form runs in its own process. They take turns, one at a time, for several rounds, so a busy
machine slows all of them down alike. Of each round the fastest of a few calls counts; of the
rounds, the median of the ratios. CPU seconds are recorded next to wall-clock seconds, because they
hardly depend on what else runs. Backends that are not installed are skipped and listed. Forms in
bfloat16 are measured if `--forms` names them, whether or not `fit` would use them on this CPU.
`--cores` limits all processes to so many cores (Linux only), one number after another; of the
fast form, `serial_ms` is the time in which only one of them computes.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench._common import bench_parser, write_json
from tests.bench._vit import SIZES, build_vit

_BATCH = 32
_BACKBONES = ["mobilenet_v2_0.35", "mobilenet_v3_small", "mobilenet_0.25", "efficientnet_b0"]
_FORMS: dict[str, tuple[str, str | None]] = {
    "plain": ("jax", None),
    "fast": ("jax", None),
    "tensorflow": ("tensorflow", None),
    "torch": ("torch", None),
    "fast_bfloat16": ("jax", "mixed_bfloat16"),
    "tensorflow_bfloat16": ("tensorflow", "mixed_bfloat16"),
    "torch_bfloat16": ("torch", "mixed_bfloat16"),
}
_DEFAULT_FORMS = [form for form, (_, precision) in _FORMS.items() if precision is None]
_CALLS = {"plain": 1}  # per round; plain Keras on JAX is slow enough
_CALL_NAMES = ("predict", "train")
_HEADING = "ms per photo (CPU ms), and the ratio to the fast form"


def main(arguments: list[str] | None = None) -> None:
    parser = bench_parser("speed", __doc__)
    parser.add_argument("--backbone", metavar="NAME", nargs="+", default=_BACKBONES)
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--cores", type=int, nargs="+", help="numbers of cores (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    forms_help = "fast and others (default: all in 32 bits)"
    parser.add_argument(
        "--forms", nargs="+", default=_DEFAULT_FORMS, choices=_FORMS, help=forms_help
    )
    parser.add_argument("--out", help="JSON file to write; keeps rows of others")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        return _work(options.worker, options.backbone[0], options.image_px)
    forms = [form for form in options.forms if _installed(form)]
    if "fast" not in forms:
        parser.error(f"the ratios need the form 'fast'. Received: {options.forms}")
    skipped = [form for form in options.forms if form not in forms]
    print(_HEADING, "- skipped:", ", ".join(skipped) or "none")
    allowed = sorted(os.sched_getaffinity(0)) if options.cores else []
    if options.cores and max(options.cores) > len(allowed):
        parser.error(f"this process may use {len(allowed)} cores. Received: {options.cores}")
    for n_cores, name in itertools.product(options.cores or [None], options.backbone):
        if n_cores:
            os.sched_setaffinity(0, allowed[:n_cores])  # of the workers as well
        row = _row(name, options.image_px, forms, options.rounds)
        if n_cores:
            row["cores"] = str(n_cores)
        print(json.dumps(row), flush=True)
        if options.out:
            _write(Path(options.out), row, sys.argv[1:] if arguments is None else arguments)
    return None


def _installed(form: str) -> bool:
    return importlib.util.find_spec(_FORMS[form][0]) is not None


def _write(path: Path, row: dict[str, Any], arguments: list[str]) -> None:
    table = json.loads(path.read_text()) if path.exists() else {"rows": []}
    key = ("backbone", "cores")
    rows = [other for other in table["rows"] if any(other[k] != row[k] for k in key)]
    command = " ".join(["python -m tests.bench.speed", *(Path(a).name for a in arguments)])
    table = {"batch_size": _BATCH, "rows": [*rows, row | {"command": command}]}
    write_json(path, table)


def _row(name: str, image_px: int, forms: list[str], n_rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.speed", "--image-px", str(image_px)]
    workers = {}
    for form in forms:
        environment = os.environ | {"KERAS_BACKEND": _FORMS[form][0], "TF_CPP_MIN_LOG_LEVEL": "3"}
        worker = subprocess.Popen(
            [*command, "--backbone", name, "--worker", form],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip
        workers[form] = worker
        versions = _read(worker)  # it has built and compiled: the next can start
        row_versions = {} if form == forms[0] else row_versions  # noqa: F821
        row_versions |= versions
    rounds: list[dict[str, dict[str, list[float]]]] = []
    for number in range(n_rounds):
        turn: dict[str, dict[str, list[float]]] = {call: {} for call in _CALL_NAMES}
        for form in forms[number % len(forms) :] + forms[: number % len(forms)]:
            for call in _CALL_NAMES:
                workers[form].stdin.write(call + "\n")
                workers[form].stdin.flush()
                turn[call][form] = _read(workers[form])
        rounds.append(turn)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    row: dict[str, Any] = {"backbone": Path(name).name, "image_px": image_px, "rounds": n_rounds}
    for call in _CALL_NAMES:
        for form in forms:
            times = [turn[call][form] for turn in rounds]
            row[f"{call}_{form}_ms"] = round(min(time[0] for time in times), 2)
            row[f"{call}_{form}_cpu_ms"] = round(min(time[1] for time in times), 2)
            if form == "fast":
                row[f"{call}_{form}_serial_ms"] = round(min(time[2] for time in times), 3)
            for part, key in enumerate(("ratio", "cpu_ratio")):
                ratios = [
                    t[part] / turn[call]["fast"][part]
                    for t, turn in zip(times, rounds, strict=True)
                ]
                row[f"{call}_{form}_{key}"] = round(statistics.median(ratios), 2)
    return row | row_versions


def _read(worker: Any) -> Any:
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"a worker ended with exit status {worker.wait()}")
    return json.loads(line)


def _work(form: str, name: str, image_px: int) -> None:
    """Build, compile, and answer each line of stdin with milliseconds per photo.

    They are those on the clock, of the processor, and those outside of parallel parts.
    """
    import numpy as np

    from scenelearn import backbones
    from scenelearn._backend import keras
    from scenelearn.backbones._fast._parallel import PartProgram
    from scenelearn.finetune._device import environment

    backend, precision = _FORMS[form]
    network = build_vit(name, image_px) if name in SIZES else name
    built = backbones.build(network, weights=None, image_px=image_px, precision=precision)
    features = backbones.freeze_batchnorm(built)
    k = keras()
    model = k.Sequential([features, k.layers.Dense(6)])
    if backend == "jax" and form != "plain":
        backbones.fast_on_cpu(model)
    model.compile("sgd", k.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, image_px, image_px, 3))
    images, labels = images.astype(np.uint8), np.zeros(_BATCH, np.int32)
    calls: dict[str, Callable[[], Any]] = {
        "predict": lambda: features.predict_on_batch(images),
        "train": lambda: model.train_on_batch(images, labels),
    }
    parallel, run_parts = [0.0], PartProgram.map

    def timed(*arguments: Any) -> None:
        start = time.perf_counter()
        run_parts(*arguments)
        parallel[0] += time.perf_counter() - start

    PartProgram.map = timed  # type: ignore[method-assign]
    for call in calls.values():
        call()
    print(json.dumps(environment()), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(_CALLS.get(form, 3)):
            wall, cpu, parallel[0] = time.perf_counter(), time.process_time(), 0.0
            np.asarray(calls[line.strip()]())
            wall = time.perf_counter() - wall
            times.append((wall, time.process_time() - cpu, wall - parallel[0]))
        print(
            json.dumps([min(column) / _BATCH * 1e3 for column in zip(*times, strict=True)]),
            flush=True,
        )


if __name__ == "__main__":
    main()
