"""Time and memory of scan, audit and split as the number of photos grows.

    python -m tests.bench.scale [--photos 2000 20000 200000] --out docs/results/scale.json

Renders this many small JPEGs (64 × 64; a tenth are re-encoded duplicates, three are truncated), and
times each step in its own process, with its peak memory. The time per photo of a step that takes
O(n log n) rises by a quarter from 2,000 photos to 20,000 and again to 200,000.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from scenelearn.finetune._device import environment
from tests.bench._common import bench_parser, write_json

_CLASSES, _PX, _DUPLICATE_EVERY = 10, 64, 10

_STEPS = """
import json, sys, time
from tests.bench.fuzz._cases import peak_kib
import scenelearn as sl
steps, start = {}, time.monotonic()
def done(name):
    global start
    steps[name] = {"seconds": time.monotonic() - start, "peak_mib": peak_kib() / 1024}
    start = time.monotonic()
import scenelearn.data
done("import")
photos = sl.scan(sys.argv[1])
done("scan and hash")
audit = sl.audit(photos)
done("audit")
splits = sl.split(photos, groups=audit.groups)
done("split")
position = {path: k for k, path in enumerate(photos.paths)}
planted = [(position[a], position[b]) for a, b in json.load(open(sys.argv[2])) if a in position]
found = sum(audit.groups[i] == audit.groups[j] for i, j in planted)
pairs = sum(len(g) * (len(g) - 1) // 2 for g in audit.near_duplicates)
print(json.dumps({"steps": steps, "photos": len(photos), "rejected": len(photos.rejected),
    "planted": len(planted), "planted_found": int(found), "pairs_found": pairs}))
"""


def path_of(number: int) -> str:
    """The path of photo `number`."""
    return f"class{number % _CLASSES}/{number // 1000:03d}/{number}.jpg"


def render(folder: Path, number: int) -> None:
    """Write photo `number`, smooth colors; every tenth is the one before, re-encoded."""
    duplicate = number % _DUPLICATE_EVERY == _DUPLICATE_EVERY - 1
    random = np.random.default_rng(number - 1 if duplicate else number)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = coarse.resize((_PX, _PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60 if duplicate else 90)
    content = buffer.getvalue()
    (folder / path_of(number)).write_bytes(content[:300] if number in (5, 15, 25) else content)


def measure(n: int) -> dict[str, object]:
    """Seconds and peak memory of each step for `n` photos, and the duplicates found."""
    with tempfile.TemporaryDirectory(prefix="scenelearn-scale-") as where:
        folder = Path(where, "photos")
        for number in range(0, n, 1000):
            for k in range(_CLASSES):
                (folder / path_of(number + k)).parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(render, folder), range(n), chunksize=500))
        duplicates = range(_DUPLICATE_EVERY - 1, n, _DUPLICATE_EVERY)
        Path(where, "planted.json").write_text(
            json.dumps([(path_of(number), path_of(number - 1)) for number in duplicates])
        )
        run = subprocess.run(
            [sys.executable, "-c", _STEPS, str(folder), str(Path(where, "planted.json"))],
            check=True, capture_output=True, text=True,
            env=os.environ | {"SCENELEARN_CACHE": str(Path(where, "cache"))},
        )  # fmt: skip
        shutil.rmtree(folder)
    result: dict[str, object] = json.loads(run.stdout)
    return result


def main() -> None:
    """Measure each size, print it, and write them all."""
    parser = bench_parser("scale", __doc__)
    parser.add_argument(
        "--photos", type=int, nargs="+", default=[2_000, 20_000, 200_000], help="numbers of photos"
    )
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    sizes = []
    for n in options.photos:
        size = measure(n)
        for step in size["steps"].values():  # type: ignore[attr-defined]
            step["microseconds_per_n_log2_n"] = 1e6 * step["seconds"] / (n * math.log2(n))
        print(json.dumps(size), flush=True)
        sizes.append(size)
    if options.out:
        command = "python -m tests.bench.scale"
        table = {"command": command, "environment": environment(), "sizes": sizes}
        write_json(options.out, table)


if __name__ == "__main__":
    main()
