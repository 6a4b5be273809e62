"""The pixel cache: each photo is decoded once, and is a row of one uint8 file from then on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scenelearn.data._decode import of_photo, to_square
from scenelearn.data._files import cache_folder, need_space, written_whole
from scenelearn.data._photos import Photos, Reason, Refused
from scenelearn.errors import ArgumentError, NoPhotosError

_RECIPE = "1: upright, central square, bicubic"  # change it whenever decoding gives other pixels
_CHUNK = 256  # photos decoded before they are written


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pixels:
    """The pixels of all photos at one size.

    Attributes:
        images: (n, image_px, image_px, 3) uint8, mapped from the cache file: read rows, not all.
        usable: (n,) bool, False where decoding failed; such a row is black and never used.
        refused: the photos where it failed, with the reason.
    """

    images: npt.NDArray[np.uint8]
    usable: npt.NDArray[np.bool_]
    refused: tuple[Refused, ...]

    @property
    def image_px(self) -> int:
        """Width and height in pixels."""
        return int(self.images.shape[1])


def decode(
    photos: Photos, image_px: int, *, progress: Callable[[int, int], None] | None = None
) -> Pixels:
    """The photos' pixels, from the cache where they were decoded before.

    The cache file is keyed on the content of the photos, their order and the size; so it is
    never stale. It is written whole or not at all. A photo that cannot be read, or has changed
    since the scan, is tried again the next time.

    Args:
        photos: from `scan`.
        image_px: width and height, in pixels, at least 1.
        progress: called with (photos done, photos in all) while decoding.

    Returns:
        The pixels. Photos that cannot be decoded are named in `refused`, and the rest goes on.

    Raises:
        ArgumentError: if `image_px` is out of range or the cache folder cannot be created.
        NoPhotosError: if not one photo can be decoded.
        DiskSpaceError: if the disk has too little free space for the cache file.
    """
    if isinstance(image_px, bool) or not isinstance(image_px, int) or image_px < 1:
        raise ArgumentError(
            f"`image_px` must be a whole number of at least 1. Received: image_px={image_px!r}. "
            "Pass e.g. 160."
        )
    key = hashlib.blake2b(f"{_RECIPE} {image_px}".encode(), digest_size=16)
    for photo_hash in photos.hashes:
        key.update(photo_hash)
    rows = cache_folder() / f"pixels-{key.hexdigest()}.npy"
    notes = rows.with_suffix(".json")
    try:
        failures = [(int(k), str(why), str(how)) for k, why, how in json.loads(notes.read_text())]
        images = np.load(rows, mmap_mode="r")
    except (OSError, EOFError, ValueError):  # not there, or damaged
        notes.unlink(missing_ok=True)  # without its notes the cache file does not count
        need_space(
            rows.parent,
            len(photos) * image_px * image_px * 3,
            advice="set the environment variable SCENELEARN_CACHE to a folder on a larger disk",
        )
        failures = _write(photos, image_px, rows, progress)
        if all(reason != Reason.UNREADABLE.name for _, reason, _ in failures):
            with written_whole(notes) as temporary:
                temporary.write_text(json.dumps(failures))
        images = np.load(rows, mmap_mode="r")
    usable = np.ones(len(photos), dtype=bool)
    refused = []
    for index, reason, detail in failures:
        usable[index] = False
        refused.append(Refused(path=photos.paths[index], reason=Reason[reason], detail=detail))
    if not usable.any():
        raise NoPhotosError(
            f"No photo of {str(photos.folder)!r} could be decoded. First: {refused[0]}. "
            "Check that the files are still there and whole."
        )
    return Pixels(images=images, usable=usable, refused=tuple(refused))


def _write(
    photos: Photos, image_px: int, rows: Path, progress: Callable[[int, int], None] | None
) -> list[tuple[int, str, str]]:
    """Decode all photos in order into `rows`; return (index, reason, detail) of the failures."""
    failures: list[tuple[int, str, str]] = []

    def one(index: int) -> npt.NDArray[np.uint8]:
        found = of_photo(photos, index, lambda content: to_square(content, image_px))
        if not isinstance(found, Refused):
            return found
        failures.append((index, found.reason.name, found.detail))
        return np.zeros((image_px, image_px, 3), np.uint8)

    n = len(photos)
    with (
        written_whole(rows) as temporary,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        temporary.open("wb") as file,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, image_px, image_px, 3)}
        np.lib.format.write_array_header_2_0(file, header)
        for start in range(0, n, _CHUNK):
            stop = min(start + _CHUNK, n)
            for image in pool.map(one, range(start, stop)):
                file.write(image.tobytes())
            if progress:
                progress(stop, n)
    return sorted(failures)
