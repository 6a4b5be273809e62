"""The files of the pixel cache: arrays of images, each with the hashes of what they show."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._io import atomic_write
from scenelearn.data._photos import Reason

DECODING = "3-upright-central-square-bicubic"
"""How photos are decoded, in one word: changed whenever the same file gives other pixels."""

Images = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why a content cannot be decoded."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shards:
    """All shards of one image size.

    Attributes:
        folder: where they lie.
        image_px: width and height of an image, in pixels.
        arrays: (n, image_px, image_px, 3) uint8 each, mapped from their files.
        places: for each content's hash its array and row.
        failures: for the hash of each content that is damaged, how.
    """

    folder: Path
    image_px: int
    arrays: list[Images]
    places: dict[bytes, tuple[int, int]]
    failures: dict[bytes, Failure]

    @property
    def n_bytes(self) -> int:
        """What they hold, in bytes."""
        return sum(array.nbytes for array in self.arrays)


def opened(cache: Path, image_px: int) -> Shards:
    """The shards of a cache folder; damaged ones are removed.

    Args:
        cache: the folder of all caches.
        image_px: width and height of an image, in pixels.

    Returns:
        What is there, maybe nothing.
    """
    folder = cache / f"pixels-{DECODING}-{image_px}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = Shards(folder=folder, image_px=image_px, arrays=[], places={}, failures={})
    for notes in sorted(folder.glob("[!.]*.json")):
        add(shards, notes)
    return shards


def write_shard(
    shards: Shards, contents: list[bytes], images: Iterable[Images | Failure]
) -> tuple[Path, dict[bytes, Failure]]:
    """Write one more shard; `add` makes it count. Several threads may write at a time.

    Args:
        shards: those that are there.
        contents: hashes of the contents.
        images: for each its image (image_px, image_px, 3) uint8, or why there is none.

    Returns:
        The shard's notes, and the failures among the contents. Those that follow from the content
        are kept in the shard.

    Raises:
        OSError: if it cannot be written. Nothing is left of it then.
    """
    n, px = len(contents), shards.image_px
    failed: dict[bytes, Failure] = {}
    name = hashlib.blake2b(b"".join(contents), digest_size=16).hexdigest()
    rows = shards.folder / f"{name}.npy"
    with atomic_write(rows) as temporary, temporary.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (n, px, px, 3)}
        np.lib.format.write_array_header_2_0(file, header)
        for content, image in zip(contents, images, strict=True):
            if isinstance(image, Failure):
                failed[content] = image
                file.write(bytes(px * px * 3))
            else:
                file.write(np.ascontiguousarray(image).data)
    lasting = {
        content.hex(): (how.reason.name, how.detail)
        for content, how in failed.items()
        if how.reason is not Reason.UNREADABLE
    }
    hashes = ["" if content in failed else content.hex() for content in contents]
    notes = rows.with_suffix(".json")
    with atomic_write(notes) as temporary:
        temporary.write_text(json.dumps({"hashes": hashes, "failures": lasting}))
    return notes, failed


def add(shards: Shards, notes: Path) -> None:
    """Let a written shard count; a damaged one is removed.

    Args:
        shards: those that count already.
        notes: what lies beside the new shard's array.
    """
    rows, px = notes.with_suffix(".npy"), shards.image_px
    try:
        known = json.loads(notes.read_text())
        hashes = [bytes.fromhex(text) for text in known["hashes"]]
        failures = {
            bytes.fromhex(key): Failure(Reason[reason], str(detail))
            for key, (reason, detail) in known["failures"].items()
        }
        array = np.load(rows, mmap_mode="r")
        if array.shape != (len(hashes), px, px, 3) or array.dtype != np.uint8:
            raise ValueError("not what its notes say")
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.info("A damaged part of the pixel cache is made anew: %s: %s", rows, error)
        notes.unlink(missing_ok=True)  # without its notes a shard does not count
        rows.unlink(missing_ok=True)
        return
    shards.arrays.append(array)
    shards.failures.update(failures)
    for row, content in enumerate(hashes):
        if content:
            shards.places.setdefault(content, (len(shards.arrays) - 1, row))
