"""Damage image files at random and see that each is decoded or refused, quickly and in bounds.

    python -m tests.bench.fuzz --minutes 10 --seed 0

Prints one JSON line: files tried, outcomes by reason, the slowest, peak memory. Fails on any other
exception, on a file that takes more than ten seconds and on a peak of more than a gibibyte.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from scenelearn.data import RefusedPhoto, to_square
from scenelearn.data._decode import check_whole, to_gray

_MAX_S, _MAX_KIB = 10, 2**20


def seeds() -> list[bytes]:
    """Whole files of every format in many of its kinds."""
    y, x = np.mgrid[0:48, 0:64]
    color = np.stack([4 * x % 256, 5 * y % 256, (x * y) % 256], -1).astype(np.uint8)
    rgb = Image.fromarray(color)
    alpha = Image.fromarray(np.dstack([color, color[:, :, :1]]))
    wide = Image.fromarray(color[:, :, 0].astype(np.uint16) * 257)
    gray, palette, cmyk = rgb.convert("L"), rgb.convert("P"), rgb.convert("CMYK")
    several = [rgb.rotate(30 * k) for k in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [
        *((image, "JPEG", {"quality": q}) for image in (rgb, gray, cmyk) for q in (20, 95)),
        (rgb, "JPEG", {"progressive": True, "exif": exif}),
        (rgb, "JPEG", {"optimize": True, "subsampling": 0, "restart_marker_blocks": 2}),
        *((image, "PNG", {}) for image in (rgb, gray, alpha, palette, wide, rgb.convert("1"))),
        (rgb, "PNG", {"save_all": True, "append_images": several, "exif": exif}),
        (rgb, "WEBP", {"lossless": True}),
        (alpha, "WEBP", {"quality": 50}),
        (rgb, "WEBP", {"save_all": True, "append_images": several}),
        *(
            (image, "TIFF", {"compression": how})
            for image in (rgb, gray, palette, cmyk, wide)
            for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "TIFF", {"save_all": True, "append_images": several, "exif": exif}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        *((image, "BMP", {}) for image in (rgb, gray, palette, alpha)),
        (palette, "GIF", {"transparency": 3}),
        (rgb, "GIF", {"save_all": True, "append_images": several}),
        (rgb, "AVIF", {}),
        (alpha, "AVIF", {"quality": 30}),
    ]
    files = []
    for image, kind, options in kinds:
        file = io.BytesIO()
        image.save(
            file, kind, **{key: value for key, value in options.items() if value is not None}
        )
        files.append(file.getvalue())
    return files


def damaged(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One file with one to eight damages, half of them near the front, where headers lie."""
    data = bytearray(content)
    for _ in range(random.integers(1, 9)):
        reach = min(len(data), 200) if random.random() < 0.5 else len(data)
        at = int(random.integers(0, max(reach, 1)))
        way = random.integers(0, 8)
        n = int(random.integers(1, 9))
        if way == 0:
            data[at : at + n] = random.bytes(n)
        elif way == 1:
            data[at : at + n] = b"\xff" * n
        elif way == 2:
            data[at : at + n] = bytes(n)
        elif way == 3:
            del data[at : at + int(random.integers(1, 64))]
        elif way == 4:
            data[at:at] = data[at : at + int(random.integers(1, 400))] * int(random.integers(1, 30))
        elif way == 5:
            data = data[:at] + other[int(random.integers(0, len(other))) :]
        elif way == 6:
            del data[max(at, 8) :]
        else:
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << n % 8])
    return bytes(data)


def peak_kib() -> int:
    """The most memory that this process has held, in KiB; Linux.

    `resource.getrusage` would count what its parent held when it started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def main() -> int:
    """Try files for so many minutes."""
    options = argparse.ArgumentParser(prog="python -m tests.bench.fuzz")
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--keep", type=Path, help="folder for files that fail")
    given = options.parse_args()
    random, files = np.random.default_rng(given.seed), seeds()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, wrong, n = 0.0, [], 0
    end = time.monotonic() + 60 * given.minutes
    while time.monotonic() < end:
        first, second = random.integers(0, len(files), 2)
        content = damaged(files[first], files[second], random)
        start, n = time.monotonic(), n + 1
        for read in (check_whole, lambda data: to_square(data, 32), lambda data: to_gray(data, 32)):
            try:
                read(content)
                outcomes["decoded"] += 1
            except RefusedPhoto as error:
                outcomes[error.reason.value] += 1
            except Exception as error:  # noqa: BLE001  # that is what is looked for
                wrong.append(f"file {n}: {type(error).__name__}: {error}")
        seconds = time.monotonic() - start
        slowest = max(slowest, seconds)
        if seconds > _MAX_S:
            wrong.append(f"file {n}: {seconds:.1f} s")
        if given.keep and wrong and wrong[-1].startswith(f"file {n}:"):
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / str(n)).write_bytes(content)
    kib = peak_kib()
    if kib > _MAX_KIB:
        wrong.append(f"a peak of {kib} KiB")
    found = {"files": n, "outcomes": dict(outcomes.most_common()), "slowest_s": round(slowest, 3)}
    print(json.dumps({**found, "peak_mib": kib // 1024, "seed": given.seed, "wrong": wrong[:20]}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
