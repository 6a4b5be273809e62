"""The shards of the pixel cache: arrays of images, each with the hashes of their files."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._io import atomic_write
from scenelearn.data._rejections import RejectionReason
from scenelearn.data._resize import Resize

DECODER_VERSION = "4-upright-central-square-bicubic"
"""Names the way photos are decoded; changes whenever the same file gives other pixels."""

Images = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """A file of images of one size, which follow each other.

    Images are read, not memory-mapped: mapped pages would count as memory of the process, and the
    system would kill it for reading one that is no longer in the file.

    Attributes:
        path: of the file.
        offset: where the first image begins, in bytes.
        n_bytes: the size of all images.
    """

    path: Path
    offset: int
    n_bytes: int

    def read(self, rows: Iterable[int], images: Iterable[Images]) -> None:
        """Read some images.

        Args:
            rows: their positions in the file.
            images: arrays (height, width, 3) uint8, which are filled.

        Raises:
            OSError: if the file cannot be read, or has become shorter.
        """
        with self.path.open("rb") as file:
            for row, image in zip(rows, images, strict=True):
                file.seek(self.offset + row * image.nbytes)
                if file.readinto(image.data) != image.nbytes:
                    raise OSError(errno.EIO, "an image is cut off", str(self.path))


class Failure(NamedTuple):
    """Why a file cannot be decoded."""

    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shards:
    """All shards of one image size and shape.

    Attributes:
        folder: the folder of their files.
        resize: how photos become images of this size.
        files: of the images.
        places: file and row of each content hash.
        failures: why damaged files cannot be decoded, by content hash.
    """

    folder: Path
    resize: Resize
    files: list[ImageFile]
    places: dict[bytes, tuple[int, int]]
    failures: dict[bytes, Failure]

    @property
    def n_bytes(self) -> int:
        """The size of all images, in bytes."""
        return sum(file.n_bytes for file in self.files)


def open_shards(cache: Path, resize: Resize) -> Shards:
    """Open the shards in a cache folder; damaged ones are deleted.

    Args:
        cache: the folder of all caches.
        resize: how photos become images.

    Returns:
        The shards; maybe none.
    """
    folder = cache / f"pixels-{DECODER_VERSION}-{resize}"
    shards = Shards(folder=folder, resize=resize, files=[], places={}, failures={})
    for index_file in sorted(folder.glob("[!.]*.json")):
        add_shard(shards, index_file)
    return shards


def write_shard(
    shards: Shards, hashes: list[bytes], images: Iterable[Images | Failure]
) -> tuple[Path, dict[bytes, Failure]]:
    """Write one more shard, for `add_shard`. Several threads may write at the same time.

    Args:
        shards: the existing shards.
        hashes: content hashes of the files.
        images: for each its image (height, width, 3) uint8, or why it cannot be decoded.

    Returns:
        The shard's index file, and the failures. Those that follow from the content alone are
        recorded in the shard.

    Raises:
        OSError: if the shard cannot be written; then nothing of it is left.
    """
    shape = (shards.resize.height, shards.resize.width, 3)
    failed: dict[bytes, Failure] = {}
    name = hashlib.blake2b(b"".join(hashes), digest_size=16).hexdigest()
    array_file = shards.folder / f"{name}.npy"
    with atomic_write(array_file) as temporary, temporary.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(hashes), *shape)}
        np.lib.format.write_array_header_2_0(file, header)
        for key, image in zip(hashes, images, strict=True):
            if isinstance(image, Failure):
                failed[key] = image
                file.write(bytes(math.prod(shape)))
            else:
                file.write(np.ascontiguousarray(image).data)
    permanent = {
        key.hex(): (failure.reason.name, failure.detail)
        for key, failure in failed.items()
        if failure.reason is not RejectionReason.UNREADABLE
    }
    keys = ["" if key in failed else key.hex() for key in hashes]
    index_file = array_file.with_suffix(".json")
    with atomic_write(index_file) as temporary:
        temporary.write_text(json.dumps({"hashes": keys, "failures": permanent}))
    return index_file, failed


def add_shard(shards: Shards, index_file: Path) -> None:
    """Add a shard that was written; delete it if it is damaged.

    Args:
        shards: changed in place.
        index_file: the JSON file next to the shard's array.
    """
    array_file = index_file.with_suffix(".npy")
    shape = (shards.resize.height, shards.resize.width, 3)
    try:
        index = json.loads(index_file.read_text())
        hashes = [bytes.fromhex(text) for text in index["hashes"]]
        failures = {
            bytes.fromhex(key): Failure(RejectionReason[reason], str(detail))
            for key, (reason, detail) in index["failures"].items()
        }
        images = _open_images(array_file, (len(hashes), *shape))
    except OSError as error:  # too many open files, say: nothing is wrong with the shard
        _log.warning("Part of the pixel cache is not used: %s: %s", array_file, error)
        return
    except (EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.info(
            "Part of the pixel cache is damaged and is built again: %s: %s", array_file, error
        )
        for file in (index_file, array_file):  # a shard without its index does not count
            with suppress(OSError):
                file.unlink()
        return
    shards.files.append(images)
    shards.failures.update(failures)
    for row, key in enumerate(hashes):
        if key:
            shards.places.setdefault(key, (len(shards.files) - 1, row))


def _open_images(file: Path, shape: tuple[int, ...]) -> ImageFile:
    """Check the header and the size of a file of images.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it does not contain images of this shape, (n, height, width, 3).
    """
    with file.open("rb") as content:
        if np.lib.format.read_magic(content) != (2, 0):
            raise ValueError("an unexpected version of the format")
        found, _, dtype = np.lib.format.read_array_header_2_0(content)
        offset, n_bytes = content.tell(), math.prod(shape)
    if found != shape or dtype != np.uint8 or file.stat().st_size != offset + n_bytes:
        raise ValueError("array and index do not match")
    return ImageFile(file, offset, n_bytes)
