"""Scan, audit and features of Parquet shards: time and peak memory of one process and of two.

    python -m tests.bench.shards [--photos 100000] [--shards 20] [--processes 1 2] [--cores 1]
        [--image-px 32] [--folder FOLDER] [--out docs/results/shards.json]

Renders small JPEGs (64 × 64) into shards as Hugging Face writes them, and then runs the three steps
with an empty cache: in one process, and in several that Keras' distribution joins. Each process has
`--cores` cores of its own in all runs, as if it had a machine of its own. Seconds are those of the
slowest process, memory is that of the largest. The file is written after each run, and runs that it
contains are not repeated.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scenelearn.finetune._device import environment
from tests.bench._common import add_out, bench_parser, new_runs

_CLASSES, _PX = 10, 64

_STEPS = """
import json, os, sys, time
folder, px, k, n, address, cores = json.loads(sys.argv[1])
os.sched_setaffinity(0, cores)  # before NumPy starts its threads
from tests.bench.fuzz._cases import peak_kib
if n > 1:
    import jax
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, n, k)
    import keras
    keras.distribution.set_distribution(keras.distribution.DataParallel())
import scenelearn as sl
steps, start = {}, time.monotonic()
def done(name):
    global start
    steps[name] = {"seconds": time.monotonic() - start, "peak_mib": peak_kib() / 1024}
    start = time.monotonic()
sl.backbones.build("scenelearn_tiny", image_px=px, weights="scenelearn")
done("start")
photos = sl.scan(folder)
done("scan")
audit = sl.audit(photos)
done("audit")
features = sl.finetune.extract_features(photos, weights="scenelearn", image_px=px)
done("features")
print(json.dumps({"steps": steps, "photos": len(photos), "shape": features.shape,
    "groups": len(set(audit.groups.tolist()))}))
"""


def render(number: int) -> bytes:
    """The JPEG of photo `number`, smooth colors."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    content = io.BytesIO()
    coarse.resize((_PX, _PX), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def write_shards(folder: Path, n_photos: int, n_shards: int) -> None:
    """Write the photos as a dataset."""
    import pyarrow as pa
    import pyarrow.parquet

    with ProcessPoolExecutor() as pool:
        for k in range(n_shards):
            numbers = range(n_photos * k // n_shards, n_photos * (k + 1) // n_shards)
            rows = pa.table(
                {
                    "image": [{"bytes": one} for one in pool.map(render, numbers, chunksize=100)],
                    "label": [f"class{number % _CLASSES}" for number in numbers],
                }
            )
            pyarrow.parquet.write_table(rows, folder / f"train-{k:05d}.parquet", row_group_size=100)


def measure(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Run the steps in as many processes as the run says, each with so many cores."""
    cores, n_cores, n_processes = sorted(os.sched_getaffinity(0)), run["cores"], run["processes"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="scenelearn-cache-") as cache:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", _STEPS,
                 json.dumps([str(folder), run["image_px"], k, n_processes, address,
                             cores[k * n_cores : (k + 1) * n_cores]])],
                stdout=subprocess.PIPE, text=True,
                env=os.environ | {"SCENELEARN_CACHE": cache, "KERAS_BACKEND": "jax"},
            )
            for k in range(n_processes)
        ]  # fmt: skip
        outputs = [one.communicate()[0] for one in started]
    results = [json.loads(output.splitlines()[-1]) for output in outputs]
    steps = {
        name: {
            what: max(one["steps"][name][what] for one in results)
            for what in ("seconds", "peak_mib")
        }
        for name in results[0]["steps"]
    }
    assert results[0]["photos"] == run["photos"]
    return {**results[0], "steps": steps, "environment": environment()}


def main() -> None:
    """Measure each number of processes."""
    parser = bench_parser("shards", __doc__)
    parser.add_argument("--photos", metavar="N", type=int, default=100_000)
    parser.add_argument("--shards", metavar="N", type=int, default=20)
    parser.add_argument("--processes", metavar="N", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cores", metavar="N", type=int, default=1, help="of each process")
    parser.add_argument("--image-px", metavar="N", type=int, default=32)
    parser.add_argument(
        "--folder", metavar="FOLDER", help="where the shards are kept for the next run, or are"
    )
    add_out(parser, "shards")
    options = parser.parse_args()
    n_available = len(os.sched_getaffinity(0))
    if (n_needed := max(options.processes) * options.cores) > n_available:
        parser.error(f"{n_needed} cores are needed. There are {n_available}.")
    same = {name: getattr(options, name) for name in ("photos", "shards", "image_px", "cores")}
    cases = [same | {"processes": n_processes} for n_processes in options.processes]
    table = {"command": "python -m tests.bench.shards"}
    with tempfile.TemporaryDirectory(prefix="scenelearn-shards-") as temporary:
        folder = Path(options.folder or temporary)
        if len(list(folder.glob("*.parquet"))) < options.shards:
            folder.mkdir(parents=True, exist_ok=True)
            write_shards(folder, options.photos, options.shards)
        for run in new_runs(options.out, table, cases, show=("processes", "steps")):
            run.update(measure(folder, run))


if __name__ == "__main__":
    main()
