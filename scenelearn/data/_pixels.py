"""The pixels of photos: each photo is decoded once and kept; where there is no room, each time.

The cache holds shards: an array file of some thousand photos at one size, and beside it a file
with the hashes of their contents. A photo is found by its content's hash, so that renaming,
adding and removing files cost nothing. A shard is written whole or not at all, and is never
changed; what an interrupted run has written is there for the next one, and two runs at a time do
each other no harm.
"""

from __future__ import annotations

import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scenelearn._io import cache_folder, has_free_space
from scenelearn._threads import map_ahead
from scenelearn.data._decode import STRICT, of_photo, to_square
from scenelearn.data._photos import Photos, Reason, Refused
from scenelearn.data._shards import Failure, Shards, add, opened, write_shard
from scenelearn.errors import ArgumentError, NoPhotosError, PhotoError

_LEAST, _USUAL, _MOST_SHARDS = 64, 1024, 128  # photos in a shard; shards that one run writes
_TIMED = 24  # photos

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pixels:
    """The pixels of all photos at one size.

    Attributes:
        image_px: width and height of an image, in pixels.
        usable: (n,) bool, False for photos that are known to be no use.
        rows: from (b,) int64 positions to their images, (b, image_px, image_px, 3) uint8, and to
            the positions of those that could be read now, in the same order.
        known: the photos that are no use, with the reason.
        late: those that failed only when they were read, by path.
    """

    image_px: int
    usable: npt.NDArray[np.bool_]
    rows: Callable[[Indices], tuple[Images, Indices]]
    known: tuple[Refused, ...] = ()
    late: dict[str, Refused] = field(default_factory=dict)

    def read(self, indices: npt.ArrayLike) -> tuple[Images, Indices]:
        """The images of some photos.

        Args:
            indices: (b,) int, positions of usable photos.

        Returns:
            (images, positions): (m, image_px, image_px, 3) uint8, a copy of their own, and (m,)
            int64; m is b less the photos that cannot be read any more, which `refused` names.
        """
        return self.rows(np.asarray(indices, np.int64))

    @property
    def refused(self) -> tuple[Refused, ...]:
        """Every photo that is no use, or that failed since, with the reason."""
        return self.known + tuple(self.late.values())


def decode(
    photos: Photos,
    image_px: int,
    *,
    broken: str = "skip",
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """The photos' pixels, from the cache where they were decoded before.

    A photo that cannot be read, or has changed since the scan, is tried again the next time; one
    that is damaged stays known as such.

    Where the cache would grow beyond ``SCENELEARN_CACHE_GIB`` gibibytes (64 unless set) or the
    disk has too little space, what is not cached yet is decoded whenever it is read. A warning is
    logged. A photo that fails only then is left out of its batch, logged and named in `refused`.

    Args:
        photos: from `scan`.
        image_px: width and height, in pixels, at least 1.
        broken: "skip" names photos that cannot be decoded in `refused`, and the rest goes on;
            "raise" stops at the first.
        progress: called with (photos done, photos in all) while decoding.

    Returns:
        The pixels.

    Raises:
        ArgumentError: if `image_px` or `broken` is out of range or the cache folder cannot be
            created.
        NoPhotosError: if not one photo can be decoded.
        PhotoError: if `broken` is "raise" and a photo cannot be decoded.
    """
    if isinstance(image_px, bool) or not isinstance(image_px, int) or image_px < 1:
        raise ArgumentError(
            f"`image_px` must be a whole number of at least 1. Received: image_px={image_px!r}. "
            "Pass e.g. 160."
        )
    check_broken(broken)
    shards = opened(cache_folder(), image_px)
    missing: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, content in enumerate(photos.hashes):
        if content not in shards.places and content not in shards.failures:
            missing[content].append(index)
    unread: dict[bytes, Failure] = {}
    n_bytes = len(missing) * image_px**2 * 3
    what = f"The pixels of {len(missing):,} photos are not kept but decoded each time"
    if missing and has_free_space(shards.folder, shards.n_bytes, n_bytes, what=what):
        unread = _fill(shards, photos, missing, progress)
    pixels = _pixels(photos, shards, unread, broken)
    if not pixels.usable.any():
        raise NoPhotosError(
            f"No photo of {str(photos.folder)!r} could be decoded. First: {pixels.refused[0]}. "
            "Check that the files are still there and whole."
        )
    if pixels.refused and broken == "raise":
        raise broken_photos(pixels.refused)
    return pixels


def seconds_to_decode(photos: Photos, image_px: int) -> float:
    """How long decoding all photos would take, by decoding a few of them; none is kept.

    Args:
        photos: from `scan`.
        image_px: width and height, in pixels.

    Returns:
        Seconds, if all cores decode.
    """
    few = np.unique(np.linspace(0, len(photos) - 1, _TIMED).astype(int))
    with STRICT:
        start = time.perf_counter()
        for index in few.tolist():
            of_photo(photos, index, lambda data: to_square(data, image_px))
        took_s = time.perf_counter() - start
    return took_s / len(few) * len(photos) / (os.cpu_count() or 1)


def check_broken(broken: object) -> None:
    """See that `broken` is one of its two values.

    Raises:
        ArgumentError: if it is not.
    """
    if broken not in ("skip", "raise"):
        raise ArgumentError(
            f"`broken` must be 'skip' or 'raise'. Received: broken={broken!r}. Pass 'skip' to go "
            "on without broken photos."
        )


def broken_photos(refused: tuple[Refused, ...]) -> PhotoError:
    """The error that names broken photos, the first of them with its reason."""
    more = f" and {len(refused) - 1:,} more" if refused[1:] else ""
    return PhotoError(
        f"Every photo must be whole, since broken='raise'. Received: {refused[0]}{more}. "
        "Mend or remove it, or pass broken='skip'."
    )


def _fill(
    shards: Shards,
    photos: Photos,
    missing: dict[bytes, list[int]],
    progress: Callable[[int, int], None] | None,
) -> dict[bytes, Failure]:
    """Decode what is missing into new shards; return what could not be read this time."""
    unread: dict[bytes, Failure] = {}
    contents, n_cores = list(missing), os.cpu_count() or 1
    even = min(_USUAL, -(-len(contents) // (4 * n_cores)))  # so that no core waits long at the end
    at_once = max(_LEAST, even, -(-len(contents) // _MOST_SHARDS))
    parts = [contents[start : start + at_once] for start in range(0, len(contents), at_once)]

    def one(content: bytes) -> Images | Failure:
        found: Images | Refused | None = None
        for index in missing[content]:  # the same file under several names: one will do
            found = of_photo(photos, index, lambda data: to_square(data, shards.image_px))
            if not isinstance(found, Refused):
                return found
        assert isinstance(found, Refused)
        return Failure(found.reason, found.detail)

    def written(number: int) -> tuple[Path, dict[bytes, Failure]]:
        part = parts[number]
        return write_shard(shards, part, map(one, part))

    n_done = len(photos) - len(contents)
    try:
        with STRICT:  # each core decodes a shard: while one waits for the disk, others go on
            made = map_ahead(written, range(len(parts)), n_cores)
            for part, (notes, failed) in zip(parts, made, strict=True):
                add(shards, notes)
                unread |= {k: how for k, how in failed.items() if how.reason is Reason.UNREADABLE}
                n_done += len(part)
                if progress:
                    progress(n_done, len(photos))
    except OSError as error:
        _log.warning(
            "The rest of the photos is decoded each time: %s cannot be written: %s",
            shards.folder,
            error,
        )
    return unread


def _pixels(photos: Photos, shards: Shards, unread: dict[bytes, Failure], broken: str) -> Pixels:
    """The photos as rows of the shards; what is in none is decoded when it is read."""
    failures = shards.failures | unread
    nowhere = (-1, -1)
    places = np.array([shards.places.get(key, nowhere) for key in photos.hashes], np.int64)
    usable = np.array([key not in failures for key in photos.hashes], bool)
    known = tuple(
        Refused(path=path, reason=failures[key].reason, detail=failures[key].detail)
        for path, key in zip(photos.paths, photos.hashes, strict=True)
        if key in failures
    )
    late: dict[str, Refused] = {}
    px = shards.image_px

    def rows(indices: Indices) -> tuple[Images, Indices]:
        images = np.empty((len(indices), px, px, 3), np.uint8)
        there = np.ones(len(indices), bool)
        shard_of, row_of = places[indices].T
        for shard in np.unique(shard_of[shard_of >= 0]).tolist():
            mine = shard_of == shard
            images[mine] = shards.arrays[shard][row_of[mine]]
        streamed = np.flatnonzero(shard_of < 0)
        if len(streamed):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(
                    lambda k: of_photo(photos, int(indices[k]), lambda data: to_square(data, px)),
                    streamed,
                )
                for k, image in zip(streamed, found, strict=True):
                    there[k] = not isinstance(image, Refused)
                    if not isinstance(image, Refused):
                        images[k] = image
                    elif broken == "raise":
                        raise broken_photos((image,))
                    elif image.path not in late:
                        late[image.path] = image
                        _log.warning("Left out: %s", image)
        return (images, indices) if there.all() else (images[there], indices[there])

    return Pixels(image_px=px, usable=usable, rows=rows, known=known, late=late)
