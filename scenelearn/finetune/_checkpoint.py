"""The checkpoint of a run: one file, written atomically, that verifies itself when it is read."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._distributed import broadcast_bytes, n_devices, process_count, process_index
from scenelearn._io import atomic_write, cache_path, disk_error, explain_disk_errors
from scenelearn.data import Pixels, Splits
from scenelearn.errors import ArgumentError
from scenelearn.finetune._device import versions
from scenelearn.finetune._settings import FitSettings

INTERVAL_S = 30.0  # how much work a kill can cost, in seconds …
MAX_TIME_FRACTION = 0.02  # … unless writing would take more than this fraction of the time

_MAX_RUNS = 20  # whose checkpoints are kept
_PACKAGE = Path(__file__).resolve().parent.parent
_MAGIC = b"scenelearn checkpoint 1\n"
_DIGEST_BYTES = 32

_log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]


class CheckpointData(NamedTuple):
    """The content of a checkpoint: JSON values, and arrays by name."""

    metadata: dict[str, Any]
    arrays: Arrays


class Checkpoint:
    """The checkpoint of one run.

    Attributes:
        file: its path. A new checkpoint replaces the old one once it is completely on the disk.
        seconds: total time for writing so far.
        n_written: number of checkpoints written so far.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._is_main = process_index() == 0  # of several processes the main one writes
        self.seconds = 0.0
        self.n_written = 0
        self._last_s = 0.0
        self._written_at = -np.inf  # on `time.perf_counter`'s clock
        self._has_warned = False

    def is_due(self, *, epoch_ended: bool = False) -> bool:
        """Whether to write now: at the end of an epoch, and from time to time within it."""
        if not self._is_main:
            return False
        since = time.perf_counter() - self._written_at
        wait = self._last_s / MAX_TIME_FRACTION
        return since >= (wait if epoch_ended else max(wait, INTERVAL_S))

    def write(self, metadata: Mapping[str, Any], arrays: Arrays) -> None:
        """Write a new checkpoint. If that fails, as on a full disk, log a warning and continue.

        The old checkpoint then stays.

        Args:
            metadata: JSON values.
            arrays: by name, of any numeric dtype.
        """
        if not self._is_main:
            return
        start = time.perf_counter()
        try:
            write_checkpoint(self.file, metadata, arrays)
            self.n_written += 1
        except (OSError, ArgumentError) as error:
            (_log.debug if self._has_warned else _log.warning)(
                "Cannot write the checkpoint %s: %s. Training continues, but its progress from "
                "here on would be lost if the process were killed. Free some space, or set "
                "SCENELEARN_CACHE to a folder on a larger disk.",
                self.file,
                error,
            )
            self._has_warned = True
        self._written_at = time.perf_counter()
        self._last_s = self._written_at - start
        self.seconds += self._last_s

    def read(self) -> CheckpointData | None:
        """Read the last checkpoint; None, and a warning, if there is no intact one.

        Of several processes the main one reads, and all get the content.

        Raises:
            DiskError: if there is one that the system cannot read now.
        """
        content: npt.NDArray[np.uint8] | None = None
        try:
            if self._is_main:
                content = np.fromfile(self.file, np.uint8)
                parse_checkpoint(content)
        except FileNotFoundError:
            _log.warning("No run to resume was found. This run starts from the beginning.")
        except OSError as error:  # it may be intact, and would be replaced
            raise disk_error(self.file, error) from None
        except ValueError as error:
            content = None
            _log.warning("This run starts from the beginning: %s: %s", self.file, error)
        content = broadcast_bytes(content)
        return None if content is None else parse_checkpoint(content)

    def remove(self) -> None:
        """Remove the checkpoint, partial files of killed processes, and the oldest other runs."""
        if not self._is_main:
            return
        try:
            for path in (self.file, *self.file.parent.glob(f".{self.file.name}.*")):
                path.unlink(missing_ok=True)
            if self.file.parent.is_dir():
                self.file.parent.rmdir()
            others = self.file.parents[1].glob(f"*/{self.file.name}")
            for file in sorted(others, key=lambda file: file.stat().st_mtime)[:-_MAX_RUNS]:
                shutil.rmtree(file.parent, ignore_errors=True)
        except OSError as error:
            _log.info("Cannot remove the checkpoint %s: %s", self.file, error)


def checkpoint_path(
    settings: FitSettings, splits: Splits, pixels: Pixels, features: Any, *, teacher: str = ""
) -> Path:
    """The path of a run's checkpoint. It differs for runs that would not continue identically.

    Args:
        settings: with the network that was chosen for "auto". `minutes` may differ: a run may be
            resumed with more time.
        splits: the photos, by content and order, their classes and splits.
        pixels: which of the photos can be decoded.
        features: the network before any training; its weights count, not their file name.
        teacher: what identifies the teacher, if there is one.

    Returns:
        A path below ``runs`` in scenelearn's cache.
    """
    requested = settings.to_json()
    del requested["minutes"]
    requested["weights"] = settings.weights is not None
    key = hashlib.blake2b(digest_size=12)
    names = splits.photos.class_names
    facts = [requested, versions(), names, n_devices(), process_count(), teacher]
    key.update(json.dumps(facts, sort_keys=True).encode())
    for source in sorted(_PACKAGE.rglob("*.py")):  # a version number does not identify a checkout
        with explain_disk_errors(source):
            key.update(source.read_bytes())
    for content in splits.photos.hashes:
        key.update(content)
    indices = splits.train, splits.validation, splits.test
    for array in (splits.photos.labels, pixels.usable, *indices, *features.get_weights()):
        key.update(f"{array.shape}{array.dtype}".encode())
        key.update(_bytes_of(array))
    return cache_path() / "runs" / key.hexdigest() / "state"


def write_checkpoint(file: Path, metadata: Mapping[str, Any], arrays: Arrays) -> None:
    """Write JSON values and arrays to one file: a header, the arrays' bytes, and a digest.

    Args:
        file: its path; its folder is created if needed.
        metadata: JSON values; NaN and infinity are allowed.
        arrays: by name.

    Raises:
        DiskError: if the file cannot be written. An earlier file is then unchanged.
        ArgumentError: if its folder cannot be created or written to.
    """
    layout = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
    header = json.dumps({"metadata": metadata, "arrays": layout}).encode()
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def parts() -> Iterator[bytes | memoryview]:
        yield _MAGIC
        yield len(header).to_bytes(8, "little")
        yield header
        for array in arrays.values():
            yield _bytes_of(array)

    with atomic_write(file) as temporary, temporary.open("wb") as out:
        for part in parts():
            digest.update(part)
            out.write(part)
        out.write(digest.digest())


def read_checkpoint(file: Path) -> CheckpointData:
    """Read a file written by `write_checkpoint`.

    Args:
        file: its path.

    Returns:
        The JSON values and the arrays.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged or of another version.
    """
    return parse_checkpoint(np.fromfile(file, np.uint8))  # not bytes: Torch needs writable arrays


def parse_checkpoint(content: npt.NDArray[np.uint8]) -> CheckpointData:
    """Parse the bytes of a checkpoint.

    Args:
        content: (n,) uint8.

    Raises:
        ValueError: if they are damaged or of another version.
    """
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if body[: len(_MAGIC)].tobytes() != _MAGIC:
        raise ValueError("not a checkpoint of this version of scenelearn")
    if hashlib.blake2b(_bytes_of(body), digest_size=_DIGEST_BYTES).digest() != digest.tobytes():
        raise ValueError("damaged: the content does not match its checksum")
    start = len(_MAGIC) + 8
    n_header = int.from_bytes(body[len(_MAGIC) : start].tobytes(), "little")
    header = json.loads(body[start : start + n_header].tobytes())
    start += n_header
    arrays: Arrays = {}
    for name, dtype_name, shape in header["arrays"]:
        dtype = np.dtype(dtype_name)
        n_values = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, dtype, n_values, start).reshape(shape)
        start += n_values * dtype.itemsize
    return CheckpointData(header["metadata"], arrays)


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array of any dtype in C order, without a copy if it has that order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
