"""`decode`: photos to images of one size. Each is decoded once and cached, while space permits.

The cache consists of shards: an array file of a few hundred photos at one size, and next to it
an index file with the hashes of their contents. Photos are found by their content hash, so
renaming, adding and removing files costs nothing. A shard is written atomically and never changed;
what an interrupted run has written serves the next one, and two runs at a time do not disturb each
other.
"""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_choice
from scenelearn._display import first_lines
from scenelearn._distributed import gather, process_count, share
from scenelearn._io import cache_folder, cache_room_bytes, warn_no_room
from scenelearn._progress import Progress, Report, show_progress
from scenelearn._threads import map_ahead, n_threads
from scenelearn.data._decode import STRICT, decode_image, decode_photo
from scenelearn.data._photos import Photos, check_not_empty
from scenelearn.data._rejections import Rejected, RejectionReason
from scenelearn.data._resize import Resize, format_px, make_resize
from scenelearn.data._shards import Failure, Shards, add_shard, open_shards, write_shard
from scenelearn.errors import ArgumentError, NoPhotosError, PhotoError

_MIN_SHARD, _USUAL_SHARD = 64, 256  # photos in a shard; progress is reported after each
_MAX_SHARDS = 1024  # written by one run
_SPARE_BYTES = 2 * 2**30  # left free for all else by a cache that takes only some of the photos
_N_TIMED = 24  # photos

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Pixels:
    """The pixels of all photos at one size, loaded when they are read.

    Attributes:
        resize: how photos become images of this size.
        usable: (n,) bool, False for photos that cannot be decoded.
        load: from (b,) int64 positions to their images, (b, height, width, 3) uint8, and the
            positions of those that could be read, in the same order.
        decode_failures: the photos that cannot be decoded, with the reason.
        read_failures: photos that failed only when they were read, by path.
    """

    resize: Resize
    usable: npt.NDArray[np.bool_]
    load: Callable[[Indices], tuple[Images, Indices]]
    decode_failures: tuple[Rejected, ...] = ()
    read_failures: dict[str, Rejected] = field(default_factory=dict)

    @classmethod
    def from_array(cls, images: npt.NDArray[np.uint8]) -> Pixels:
        """Wrap images that are already an array.

        Args:
            images: (n, height, width, 3) uint8.

        Raises:
            ArgumentError: if `images` has another shape or dtype.

        Example:
            >>> Pixels.from_array(np.zeros((5, 8, 8, 3), np.uint8)).image_px
            8
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ArgumentError(
                "`images` must have the shape (n, height, width, 3) and the dtype uint8. "
                f"Received: shape {images.shape}, dtype {images.dtype}. Convert them."
            )
        return cls(
            resize=Resize(*images.shape[1:3]),
            usable=np.ones(len(images), bool),
            load=partial(_take, images),
        )

    def read(self, indices: npt.ArrayLike) -> tuple[Images, Indices]:
        """Read the images of some photos.

        Args:
            indices: (b,) int, positions of usable photos.

        Returns:
            (images, positions): (m, height, width, 3) uint8, a new array, and (m,) int64.
            m is b less the photos that can no longer be read, which `rejected` lists.
        """
        return self.load(np.asarray(indices, np.int64))

    @property
    def image_px(self) -> int | tuple[int, int]:
        """The side of a square image, or (height, width), in pixels."""
        return self.resize.image_px

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """Every photo that could not be decoded or read so far, with the reason."""
        return self.decode_failures + tuple(self.read_failures.values())

    def __repr__(self) -> str:
        rejected = f", {len(self.rejected):,} rejected" if self.rejected else ""
        n = f"{len(self.usable):,}"
        return f"<Pixels: {n} photos of {format_px(self.image_px)} px{rejected}>"


def decode(
    photos: Photos,
    image_px: int | tuple[int, int],
    *,
    shape: str = "crop",
    broken: str = "skip",
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Pixels:
    """Decode photos to images of one size, or read them from the cache if they were decoded before.

    Photos that cannot be read, or have changed since the scan, are tried again the next time;
    damaged photos are remembered.

    If the cache would exceed ``SCENELEARN_CACHE_GIB`` gibibytes (default: 64) or fill the disk, as
    many photos are cached as fit, the others are decoded each time they are read, and a warning is
    logged.
    If such a photo fails when it is read, it is left out of its batch, logged, and added to
    `Pixels.rejected`.

    Args:
        photos: from `scan`.
        image_px: the side of a square, or (height, width), in pixels, at least 1.
        shape: what happens to photos of other proportions: "crop", "pad" or "squash", as for
            `to_image`.
        broken: "skip" lists photos that cannot be decoded in `Pixels.rejected` and decodes the
            others; "raise" stops at the first one.
        progress: called with ("decoding photos", photos done, photos in total) now and then.
        verbose: "auto" for a progress bar on a terminal and in a notebook, True for one
            everywhere, False for none.

    Returns:
        The pixels.

    Raises:
        ArgumentError: if `image_px`, `shape`, `broken` or `verbose` is out of range, or the cache
            folder cannot be created.
        NoPhotosError: if `photos` is empty, or no photo can be decoded.
        PhotoError: if `broken` is "raise" and a photo cannot be decoded.
    """
    resize = make_resize(image_px, shape)
    with show_progress(progress, verbose) as report:
        return load_pixels(photos, resize, broken=broken, report=partial(report, "decoding photos"))


def load_pixels(
    photos: Photos,
    resize: Resize,
    *,
    broken: str = "skip",
    report: Report | None = None,
) -> Pixels:
    """`decode` for other packages: `report` is called with (photos done, photos in total)."""
    check_broken(broken)
    check_not_empty(photos)
    if process_count() > 1:  # each process decodes a share; then all have it, in a common cache
        _decode_missing(photos, resize, share(len(photos)), report)
        gather([])
    shards, unreadable = _decode_missing(photos, resize, slice(None), report)
    pixels = _to_pixels(photos, shards, unreadable, broken)
    if not pixels.usable.any():
        raise NoPhotosError(
            f"No photo of {str(photos.folder)!r} could be decoded. First: {pixels.rejected[0]}. "
            "Check that the files are still there and intact."
        )
    if pixels.rejected and broken == "raise":
        raise broken_photos_error(pixels.rejected)
    return pixels


def at_other_size(pixels: Pixels, photos: Photos, resize: Resize) -> Pixels:
    """The pixels of the same photos at another size, decoded each time they are read.

    For photos that are read once or twice, so that they take no space on the disk. Those that are
    in the cache are read from there.

    Args:
        pixels: of the photos. Those that could not be read are known.
        photos: from `scan`.
        resize: how photos become images of the other size.
    """
    others = _to_pixels(photos, open_shards(cache_folder(), resize), {}, "skip")
    others.read_failures.update(pixels.read_failures)
    return replace(others, usable=pixels.usable, decode_failures=pixels.decode_failures)


def _decode_missing(
    photos: Photos,
    resize: Resize,
    chosen: slice,
    report: Report | None,
) -> tuple[Shards, dict[bytes, Failure]]:
    """Fill the cache with some of the photos; return it, and what could not be read this time."""
    shards = open_shards(cache_folder(), resize)
    missing: dict[bytes, list[int]] = defaultdict(list)
    for index in range(len(photos))[chosen]:
        key = photos.hashes[index]
        if key not in shards.places and key not in shards.failures:
            missing[key].append(index)
    if not missing:
        return shards, {}
    image_bytes = resize.height * resize.width * 3
    if cache_room_bytes(shards.folder, shards.n_bytes) < image_bytes * len(missing):
        room = cache_room_bytes(shards.folder, shards.n_bytes, _SPARE_BYTES)
        n_cached = max(0, room) // image_bytes if process_count() == 1 else 0
        n_rest = len(missing) - n_cached
        what = f"The pixels of {n_rest:,} photos are not cached, but decoded each time"
        warn_no_room(shards.folder, n_rest * image_bytes, what=what)
        missing = dict(itertools.islice(missing.items(), n_cached))
    return shards, _fill_cache(shards, photos, missing, report)


def estimate_decode_seconds(photos: Photos, resize: Resize) -> float:
    """Estimate how long decoding all photos takes, by decoding a few of them. Caches none.

    Args:
        photos: from `scan`.
        resize: how photos become images.

    Returns:
        Seconds, on all cores.
    """
    sample = np.unique(np.linspace(0, len(photos) - 1, _N_TIMED).astype(int))
    with STRICT:
        start = time.perf_counter()
        for index in sample.tolist():
            decode_photo(photos, index, lambda content: decode_image(content, resize))
        seconds = time.perf_counter() - start
    return seconds / len(sample) * len(photos) / n_threads()


def check_broken(broken: object) -> None:
    """Check that `broken` is "skip" or "raise".

    Raises:
        ArgumentError: if it is something else.
    """
    advice = "Pass 'skip' to continue without broken photos."
    check_choice("broken", broken, ("skip", "raise"), advice=advice)


def broken_photos_error(rejected: tuple[Rejected, ...]) -> PhotoError:
    """The error that reports broken photos: the first with its reason, and how many more."""
    return PhotoError(
        f"Every photo must be intact, since broken='raise'. Received: "
        f"{' '.join(first_lines(rejected, 1))}. "
        "Fix or remove it, or pass broken='skip'."
    )


def _fill_cache(
    shards: Shards,
    photos: Photos,
    missing: dict[bytes, list[int]],
    report: Report | None,
) -> dict[bytes, Failure]:
    """Decode missing photos into new shards; return what could not be read this time."""
    unreadable: dict[bytes, Failure] = {}
    hashes, n_workers = list(missing), n_threads()
    even = min(_USUAL_SHARD, -(-len(hashes) // (4 * n_workers)))  # none waits long at the end
    size = max(_MIN_SHARD, even, -(-len(hashes) // _MAX_SHARDS))
    parts = [hashes[start : start + size] for start in range(0, len(hashes), size)]

    cancel = threading.Event()

    def decode_content(key: bytes) -> Images | Failure:
        if cancel.is_set():
            raise InterruptedError(errno.EINTR, "stopped")  # nothing is left of this shard
        result: Images | Rejected | None = None
        for index in missing[key]:  # the same file under several names: one is enough
            result = decode_photo(photos, index, lambda data: decode_image(data, shards.resize))
            if not isinstance(result, Rejected):
                return result
        assert isinstance(result, Rejected)
        return Failure(result.reason, result.detail)

    def write(number: int) -> tuple[Path, dict[bytes, Failure]]:
        part = parts[number]
        return write_shard(shards, part, map(decode_content, part))

    n_done = len(photos) - len(hashes)
    try:
        with STRICT:  # each core decodes a shard; while one waits for the disk, others continue
            numbers = range(len(parts))
            with closing(map_ahead(write, numbers, n_workers, cancel=cancel)) as written:
                for part, (index_file, failures) in zip(parts, written, strict=True):
                    add_shard(shards, index_file)
                    unreadable |= {
                        key: failure
                        for key, failure in failures.items()
                        if failure.reason is RejectionReason.UNREADABLE
                    }
                    n_done += len(part)
                    if report:
                        report(n_done, len(photos))
    except (ArgumentError, OSError) as error:  # no permission, or a full disk
        _log.warning(
            "The remaining photos are decoded each time: %s cannot be written: %s",
            shards.folder,
            error,
        )
    return unreadable


def _to_pixels(
    photos: Photos, shards: Shards, unreadable: dict[bytes, Failure], broken: str
) -> Pixels:
    """Pixels that are read from the shards; photos in none are decoded when they are read."""
    failures = shards.failures | unreadable
    nowhere = (-1, -1)
    places = np.array([shards.places.get(key, nowhere) for key in photos.hashes], np.int64)
    usable = np.array([key not in failures for key in photos.hashes], bool)
    decode_failures = tuple(
        Rejected(path=path, reason=failures[key].reason, detail=failures[key].detail)
        for path, key in zip(photos.paths, photos.hashes, strict=True)
        if key in failures
    )
    read_failures: dict[str, Rejected] = {}
    return Pixels(
        resize=shards.resize,
        usable=usable,
        load=partial(
            _load,
            photos=photos,
            shards=shards,
            places=places,
            read_failures=read_failures,
            broken=broken,
        ),
        decode_failures=decode_failures,
        read_failures=read_failures,
    )


def _load(
    indices: Indices,
    *,
    photos: Photos,
    shards: Shards,
    places: npt.NDArray[np.int64],
    read_failures: dict[str, Rejected],
    broken: str,
) -> tuple[Images, Indices]:
    """`Pixels.load` for photos that are in the shards, or in none."""
    resize = shards.resize

    def decode_one(index: int) -> Images | Rejected:
        return decode_photo(photos, index, lambda content: decode_image(content, resize))

    images = np.empty((len(indices), resize.height, resize.width, 3), np.uint8)
    readable = np.ones(len(indices), bool)
    shard_of, row_of = places[indices].T
    for shard in np.unique(shard_of[shard_of >= 0]).tolist():
        in_shard = np.flatnonzero(shard_of == shard)
        file = shards.files[shard]
        try:
            file.read(row_of[in_shard].tolist(), (images[k] for k in in_shard))
        except OSError as error:
            _log.warning(
                "Its photos are decoded each time: %s cannot be read anymore: %s", file.path, error
            )
            places[places[:, 0] == shard] = shard_of[in_shard] = -1
    uncached = np.flatnonzero(shard_of < 0)
    if len(uncached):
        with ThreadPoolExecutor(n_threads()) as pool:
            decoded = pool.map(decode_one, indices[uncached].tolist())
            for k, image in zip(uncached, decoded, strict=True):
                readable[k] = not isinstance(image, Rejected)
                if not isinstance(image, Rejected):
                    images[k] = image
                elif broken == "raise":
                    raise broken_photos_error((image,))
                elif image.path not in read_failures:
                    read_failures[image.path] = image
                    _log.warning("Left out: %s", image)
    return (images, indices) if readable.all() else (images[readable], indices[readable])


def _take(images: Images, indices: Indices) -> tuple[Images, Indices]:
    """`Pixels.load` for an array."""
    return images[indices], indices
