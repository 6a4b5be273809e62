"""Decode randomly damaged image files: each must be decoded or rejected, fast and in bounds.

    python -m tests.bench.fuzz [--minutes 10] [--seed 0] [--keep FOLDER]

Prints one JSON line: files tried, outcomes by reason, the slowest, peak memory. Fails on any other
exception, on a file that takes more than ten seconds and on a peak above one GiB.
"""

from __future__ import annotations

import collections
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from scenelearn.data._decode import check_complete, to_square, to_thumbnail
from scenelearn.data._rejections import RejectedPhotoError
from tests.bench._common import bench_parser

_MAX_S, _MAX_KIB = 10, 2**20


def intact_files() -> list[bytes]:
    """Intact files of every format in many variants."""
    y, x = np.mgrid[0:48, 0:64]
    color = np.stack([4 * x % 256, 5 * y % 256, (x * y) % 256], -1).astype(np.uint8)
    rgb = Image.fromarray(color)
    alpha = Image.fromarray(np.dstack([color, color[:, :, :1]]))
    wide = Image.fromarray(color[:, :, 0].astype(np.uint16) * 257)
    gray, palette, cmyk = rgb.convert("L"), rgb.convert("P"), rgb.convert("CMYK")
    frames = [rgb.rotate(30 * k) for k in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    variants = [
        *((image, "JPEG", {"quality": q}) for image in (rgb, gray, cmyk) for q in (20, 95)),
        (rgb, "JPEG", {"progressive": True, "exif": exif}),
        (rgb, "JPEG", {"optimize": True, "subsampling": 0, "restart_marker_blocks": 2}),
        *((image, "PNG", {}) for image in (rgb, gray, alpha, palette, wide, rgb.convert("1"))),
        (rgb, "PNG", {"save_all": True, "append_images": frames, "exif": exif}),
        (rgb, "WEBP", {"lossless": True}),
        (alpha, "WEBP", {"quality": 50}),
        (rgb, "WEBP", {"save_all": True, "append_images": frames}),
        *(
            (image, "TIFF", {"compression": how})
            for image in (rgb, gray, palette, cmyk, wide)
            for how in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "TIFF", {"save_all": True, "append_images": frames, "exif": exif}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        *((image, "BMP", {}) for image in (rgb, gray, palette, alpha)),
        (palette, "GIF", {"transparency": 3}),
        (rgb, "GIF", {"save_all": True, "append_images": frames}),
        (rgb, "AVIF", {}),
        (alpha, "AVIF", {"quality": 30}),
    ]
    files = []
    for image, kind, options in variants:
        file = io.BytesIO()
        image.save(
            file, kind, **{key: value for key, value in options.items() if value is not None}
        )
        files.append(file.getvalue())
    return files


def damage(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One file with one to eight defects, half of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(random.integers(1, 9)):
        end = min(len(data), 200) if random.random() < 0.5 else len(data)
        at = int(random.integers(0, max(end, 1)))
        kind = random.integers(0, 8)
        n = int(random.integers(1, 9))
        if kind == 0:
            data[at : at + n] = random.bytes(n)
        elif kind == 1:
            data[at : at + n] = b"\xff" * n
        elif kind == 2:
            data[at : at + n] = bytes(n)
        elif kind == 3:
            del data[at : at + int(random.integers(1, 64))]
        elif kind == 4:
            data[at:at] = data[at : at + int(random.integers(1, 400))] * int(random.integers(1, 30))
        elif kind == 5:
            data = data[:at] + other[int(random.integers(0, len(other))) :]
        elif kind == 6:
            del data[max(at, 8) :]
        else:
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << n % 8])
    return bytes(data)


def peak_kib() -> int:
    """Peak resident memory of this process in KiB, on Linux.

    `resource.getrusage` would include what its parent used when it started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def main() -> int:
    """Try files until the time is up; 1 if any failed."""
    parser = bench_parser("fuzz", __doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="(default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where to save files that fail")
    options = parser.parse_args()
    random, files = np.random.default_rng(options.seed), intact_files()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, failures, n = 0.0, [], 0
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        first, second = random.integers(0, len(files), 2)
        content = damage(files[first], files[second], random)
        start, n = time.monotonic(), n + 1
        for read in (
            check_complete,
            lambda data: to_square(data, 32),
            lambda data: to_thumbnail(data, 32),
        ):
            try:
                read(content)
                outcomes["decoded"] += 1
            except RejectedPhotoError as error:
                outcomes[error.reason.value] += 1
            except Exception as error:  # noqa: BLE001  # this is what the bench looks for
                failures.append(f"file {n}: {type(error).__name__}: {error}")
        seconds = time.monotonic() - start
        slowest = max(slowest, seconds)
        if seconds > _MAX_S:
            failures.append(f"file {n}: {seconds:.1f} s")
        if options.keep and failures and failures[-1].startswith(f"file {n}:"):
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / str(n)).write_bytes(content)
    kib = peak_kib()
    if kib > _MAX_KIB:
        failures.append(f"a peak of {kib} KiB")
    result = {"files": n, "outcomes": dict(outcomes.most_common()), "slowest_s": round(slowest, 3)}
    result |= {"peak_mib": kib // 1024, "seed": options.seed, "failures": failures[:20]}
    print(json.dumps(result))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
