"""How scan, audit and split grow with the number of photos.

    python -m tests.bench.scale --out docs/results/scale.json [--photos 2000 20000 200000]

Draws so many small JPEGs (64 × 64, a tenth of them re-encoded copies of others, three truncated),
and times each step in a process of its own, with its peak memory. `per_photo` of a step that grows
as n log n rises by a quarter from 2,000 photos to 20,000 and again to 200,000.
"""

from __future__ import annotations

import argparse
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

from scenelearn._io import atomic_write
from scenelearn.finetune._environment import environment

_CLASSES, _PX, _COPIES = 10, 64, 10

_STEPS = """
import json, sys, time
from tests.bench.fuzz import peak_kib
import scenelearn as sl
found, start = {}, time.monotonic()
def done(name):
    global start
    found[name] = {"seconds": time.monotonic() - start, "peak_mib": peak_kib() / 1024}
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
together = sum(audit.groups[i] == audit.groups[j] for i, j in planted)
pairs = sum(len(g) * (len(g) - 1) // 2 for g in audit.alike)
print(json.dumps({"steps": found, "photos": len(photos), "refused": len(photos.refused),
    "planted": len(planted), "planted_found": int(together), "pairs_found": pairs}))
"""


def path_of(number: int) -> str:
    """Where photo `number` lies."""
    return f"class{number % _CLASSES}/{number // 1000:03d}/{number}.jpg"


def draw(folder: Path, number: int) -> None:
    """Photo `number`: colored waves and a little noise; each tenth is the last one, re-encoded."""
    copy = number % _COPIES == _COPIES - 1
    random = np.random.default_rng(number - 1 if copy else number)
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = coarse.resize((_PX, _PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60 if copy else 90)
    content = buffer.getvalue()
    (folder / path_of(number)).write_bytes(content[:300] if number in (5, 15, 25) else content)


def measured(n: int) -> dict[str, object]:
    """One size: the steps' seconds, peak memory and what was found."""
    with tempfile.TemporaryDirectory(prefix="scenelearn-scale-") as where:
        folder = Path(where, "photos")
        for number in range(0, n, 1000):
            for k in range(_CLASSES):
                (folder / path_of(number + k)).parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(draw, folder), range(n), chunksize=500))
        copies = range(_COPIES - 1, n, _COPIES)
        Path(where, "planted.json").write_text(
            json.dumps([(path_of(number), path_of(number - 1)) for number in copies])
        )
        run = subprocess.run(
            [sys.executable, "-c", _STEPS, str(folder), str(Path(where, "planted.json"))],
            check=True, capture_output=True, text=True,
            env=os.environ | {"SCENELEARN_CACHE": str(Path(where, "cache"))},
        )  # fmt: skip
        shutil.rmtree(folder)
    found: dict[str, object] = json.loads(run.stdout)
    return found


def main() -> None:
    """Measure each size, print it, and write them all."""
    options = argparse.ArgumentParser(prog="python -m tests.bench.scale")
    options.add_argument("--photos", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    sizes = []
    for n in given.photos:
        found = measured(n)
        for step in found["steps"].values():  # type: ignore[attr-defined]
            step["microseconds_per_n_log2_n"] = 1e6 * step["seconds"] / (n * math.log2(n))
        print(json.dumps(found), flush=True)
        sizes.append(found)
    if given.out:
        command = "python -m tests.bench.scale"
        table = {"command": command, "environment": environment(), "sizes": sizes}
        with atomic_write(given.out) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
