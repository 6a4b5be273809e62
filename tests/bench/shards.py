"""Scan, audit and features of Parquet shards: time and peak memory of one process and of two.

    python -m tests.bench.shards [--photos 100000] [--shards 20] [--processes 1 2]
        [--image-px 32] [--out docs/results/shards.json]

Renders small JPEGs (64 × 64) into shards as Hugging Face writes them, and then runs the three steps
with an empty cache: in one process, and in several that Keras' distribution joins. Each process has
as many cores in all runs, as if it had a machine of its own. Seconds are those of the slowest
process, memory is that of the largest.
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
from tests.bench._common import add_out, bench_parser, write_json

_CLASSES, _PX = 10, 64

_STEPS = """
import json, os, sys, time
from tests.bench.fuzz._cases import peak_kib
folder, px, k, n, address, cores = json.loads(sys.argv[1])
os.sched_setaffinity(0, cores)
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


def measure(folder: Path, image_px: int, n_processes: int, n_cores: int) -> dict[str, Any]:
    """Run the steps in this many processes, each with so many cores."""
    cores = sorted(os.sched_getaffinity(0))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="scenelearn-cache-") as cache:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", _STEPS,
                 json.dumps([str(folder), image_px, k, n_processes, address,
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
    return results[0] | {"processes": n_processes, "cores": n_processes * n_cores, "steps": steps}


def main() -> None:
    """Measure each number of processes, print it, and write them all."""
    parser = bench_parser("shards", __doc__)
    parser.add_argument("--photos", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--shards", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--image-px", type=int, default=32, help="default: %(default)s")
    add_out(parser, "shards")
    options = parser.parse_args()
    rows = []
    n_cores = len(os.sched_getaffinity(0)) // max(options.processes)
    with tempfile.TemporaryDirectory(prefix="scenelearn-shards-") as folder:
        write_shards(Path(folder), options.photos, options.shards)
        for n_processes in options.processes:
            rows.append(measure(Path(folder), options.image_px, n_processes, n_cores))
            print(json.dumps(rows[-1]), flush=True)
    table = {
        "command": "python -m tests.bench.shards",
        "environment": environment(),
        "photos": options.photos,
        "shards": options.shards,
        "image_px": options.image_px,
        "rows": rows,
    }
    write_json(options.out, table)


if __name__ == "__main__":
    main()
