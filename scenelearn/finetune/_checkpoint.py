"""A run's checkpoint: one file, whole or not there, that says itself whether it is whole."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._devices import process, shared_bytes
from scenelearn._io import atomic_write
from scenelearn.errors import ArgumentError

EVERY_S = 30.0  # what a kill can cost, in seconds of work …
MOST_SHARE = 0.02  # … unless writing would take more than this share of the time

_MAGIC = b"scenelearn checkpoint 1\n"
_N_DIGEST = 32

_log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]


class Saved(NamedTuple):
    """What a checkpoint holds: JSON values, and arrays by name."""

    about: dict[str, Any]
    arrays: Arrays


class Checkpoint:
    """The one checkpoint of one run.

    Attributes:
        file: where it lies. A new one takes the place of the old one when it is whole on the disk.
        seconds: that writing has taken so far.
        n_written: how many have been written.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._mine = process()[0] == 0  # of several processes the first one writes
        self.seconds = 0.0
        self.n_written = 0
        self._last_s = 0.0
        self._written = -np.inf  # when, on `time.monotonic`'s clock
        self._warned = False

    def is_due(self, *, epoch_ended: bool = False) -> bool:
        """Whether to write now: at an epoch's end, and at times within it."""
        if not self._mine:
            return False
        since = time.monotonic() - self._written
        wait = self._last_s / MOST_SHARE
        return since >= (wait if epoch_ended else max(wait, EVERY_S))

    def write(self, about: Mapping[str, Any], arrays: Arrays) -> None:
        """Write a new one. Where that fails, as on a full disk, the old one stays.

        The reason is logged, and training goes on.

        Args:
            about: JSON values.
            arrays: by name, of any dtype of numbers.
        """
        if not self._mine:
            return
        start = time.monotonic()
        try:
            write(self.file, about, arrays)
            self.n_written += 1
        except (OSError, ArgumentError) as error:
            (_log.debug if self._warned else _log.warning)(
                "No checkpoint could be written to %s: %s. Training goes on, but what it learns "
                "from here on would be lost with the process. Free some space, or set "
                "SCENELEARN_CACHE to a folder on a larger disk.",
                self.file,
                error,
            )
            self._warned = True
        self._written = time.monotonic()
        self._last_s = self._written - start
        self.seconds += self._last_s

    def read(self) -> Saved | None:
        """What was written last; None, and a line in the log, if there is nothing whole.

        Of several processes the first one reads, and all get it.
        """
        content: npt.NDArray[np.uint8] | None = None
        try:
            if self._mine:
                content = np.fromfile(self.file, np.uint8)
                parsed(content)
        except FileNotFoundError:
            _log.warning("There is no run to go on with: this one starts from the beginning.")
        except (OSError, ValueError) as error:
            content = None
            _log.warning("The run starts from the beginning: %s: %s", self.file, error)
        content = shared_bytes(content)
        return None if content is None else parsed(content)

    def remove(self) -> None:
        """Take it away, and what a killed process left of half-written ones."""
        if not self._mine:
            return
        try:
            for path in (self.file, *self.file.parent.glob(f".{self.file.name}.*")):
                path.unlink(missing_ok=True)
            if self.file.parent.is_dir():
                self.file.parent.rmdir()
        except OSError as error:
            _log.info("The checkpoint %s stays: %s", self.file, error)


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array in C order, of any dtype, not copied where it has that order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write(file: Path, about: Mapping[str, Any], arrays: Arrays) -> None:
    """Write JSON values and arrays as one file: what it holds, its bytes, and a digest of them.

    Args:
        file: its path; its folder is made if need be.
        about: JSON values; NaN and infinity are allowed.
        arrays: by name.

    Raises:
        OSError: if it cannot be written. An earlier file is still there then.
        ArgumentError: if its folder cannot be made or written to.
    """
    layout = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
    header = json.dumps({"about": about, "arrays": layout}).encode()
    digest = hashlib.blake2b(digest_size=_N_DIGEST)

    def parts() -> Iterator[bytes | memoryview]:
        yield _MAGIC
        yield len(header).to_bytes(8, "little")
        yield header
        for array in arrays.values():
            yield bytes_of(array)

    with atomic_write(file) as temporary, temporary.open("wb") as out:
        for part in parts():
            digest.update(part)
            out.write(part)
        out.write(digest.digest())


def read(file: Path) -> Saved:
    """Read what `write` wrote.

    Args:
        file: its path.

    Returns:
        The JSON values and the arrays.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not whole, or of another version.
    """
    return parsed(np.fromfile(file, np.uint8))  # not read_bytes: Torch wants to write to arrays


def parsed(content: npt.NDArray[np.uint8]) -> Saved:
    """What the bytes of a checkpoint say.

    Args:
        content: (n,) uint8.

    Raises:
        ValueError: if they are not whole, or of another version.
    """
    body, digest = content[:-_N_DIGEST], content[-_N_DIGEST:]
    if body[: len(_MAGIC)].tobytes() != _MAGIC:
        raise ValueError("not a checkpoint of this version of scenelearn")
    if hashlib.blake2b(bytes_of(body), digest_size=_N_DIGEST).digest() != digest.tobytes():
        raise ValueError("damaged: its content is not what was written")
    start = len(_MAGIC) + 8
    n_header = int.from_bytes(body[len(_MAGIC) : start].tobytes(), "little")
    header = json.loads(body[start : start + n_header].tobytes())
    start += n_header
    arrays: Arrays = {}
    for name, dtype, shape in header["arrays"]:
        kind = np.dtype(dtype)
        n_values = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, kind, n_values, start).reshape(shape)
        start += n_values * kind.itemsize
    return Saved(header["about"], arrays)
