"""Damaged image files: each is decoded or rejected, fast and in bounds."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from scenelearn.data._decode import check_complete, to_image, to_thumbnail
from scenelearn.data._rejections import RejectedPhotoError
from tests.bench.fuzz._cases import Case, damage


def images(_folder: Path) -> Case:
    """Decode a file; without damage it gives the same pixels each time."""
    files = intact_files()
    expected = [to_image(content, 32) for content in files]

    def case(random: random.Random) -> str:
        k = random.randrange(len(files))
        if random.random() < 0.02:
            check_complete(files[k])
            assert np.array_equal(to_image(files[k], 32), expected[k])
            return "intact"
        content = damage(files[k], random.choice(files), random)
        pixels = to_image(content, 32)  # or a rejection
        for read in (check_complete, lambda data: to_thumbnail(data, 32)):
            try:
                read(content)
            except RejectedPhotoError:
                raise AssertionError("to_image accepts what another step rejects") from None
        assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
        return "decoded"

    return case


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
