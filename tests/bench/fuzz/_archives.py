"""ZIP archives: every file in them is used or rejected, and damaged ones are refused."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from pathlib import Path

import scenelearn as sl
from scenelearn.data._decode import decode_photo, to_image
from tests.bench.fuzz._cases import Case, damage, odd_text
from tests.helpers.photo_files import photo

_METHODS = (
    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA,
)  # fmt: skip
_PREFIXES = ("", "", "", "./", "/", "a//", "photos/", "train/", "../", "C:\\", "__MACOSX/")


def archives(folder: Path) -> Case:
    """Scan an archive, whole or damaged, and read each photo in it."""
    contents = [photo(k, kind, 8) for k, kind in enumerate(("PNG", "JPEG", "BMP", "GIF", "WEBP"))]
    contents += [b"", b"no image", contents[1][:90]]
    file = folder / "photos.zip"

    def case(random: random.Random) -> str:
        names = [_name(random) for _ in range(random.randint(1, 6))]
        buffer = io.BytesIO(b"#!/bin/sh\n" * (random.random() < 0.1))
        buffer.seek(0, io.SEEK_END)
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "a") as archive:
            archive.comment = random.randbytes(3 * random.randrange(2))
            for name in names:
                info = zipfile.ZipInfo(name)
                info.compress_type = random.choice(_METHODS) if random.random() < 0.5 else 0
                mode = random.choice((0, 0o100644, 0o100000, 0o120777, 0o40755, 0o10644))
                info.external_attr = mode << 16 if random.random() < 0.2 else 0
                archive.writestr(info, random.choice(contents))
            n_files = sum(
                not (info.is_dir() or info.filename.endswith("\\") or info.external_attr >> 28 == 4)
                for info in archive.infolist()
            )
        content, is_whole = buffer.getvalue(), random.random() < 0.3
        if not is_whole:
            content = damage(content, contents[0], random)
        file.write_bytes(content)
        photos = sl.scan(file, verbose=False)
        total = len(photos) + len(photos.unlabeled) + len(photos.rejected)
        assert not is_whole or total == n_files, f"{total} of {n_files} files: {names}"
        for index in range(len(photos)):
            pixels = decode_photo(photos, index, lambda data: to_image(data, 8))
            assert getattr(pixels, "shape", None) == (8, 8, 3), f"{pixels}"
        return "scanned" if is_whole else "damaged, but scanned"

    return case


def _name(random: random.Random) -> str:
    """The name of an entry; `zipfile` encodes names as UTF-8, so without lone surrogates."""
    parts = [
        random.choice(("sea", "street", odd_text(random))) for _ in range(random.randint(1, 3))
    ]
    name = random.choice(_PREFIXES) + random.choice("//\\").join(parts)
    long = "x" * 300 if random.random() < 0.02 else ""
    return (name + long).encode("utf-8", "replace").decode() + random.choice((".png", ".png", "/"))
