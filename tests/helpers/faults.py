"""Faults of the disk: the n-th call that changes a folder fails, or the process dies there.

Python's own files, the functions of `os`, memory maps, and what Pillow and NumPy write past them
are covered. A death is a disk on which nothing changes anymore: the work is abandoned there, and no
cleaning up has an effect.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from PIL import ImageFile

from scenelearn.errors import ArgumentError, DiskError, DiskSpaceError, SceneLearnError

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="file names come from /proc")
KILL = -1
"""Instead of an error number: the process dies."""
ERRORS = {
    "open": (errno.EMFILE, errno.EACCES, errno.ENOSPC, errno.EIO),
    "read": (errno.EMFILE, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO),
    "mkdir": (errno.ENOSPC, errno.EACCES, errno.EIO),
    "rename": (errno.EACCES, errno.ENOSPC, errno.EIO),
    "fsync": (errno.ENOSPC, errno.EIO),
    "allocate": (errno.ENOSPC, errno.EIO),
    "map": (errno.ENOMEM, errno.EMFILE),
    "remove": (errno.EACCES, errno.EIO),
    "chmod": (errno.EPERM,),
}
"""What each kind of call can fail with."""
_KINDS = {
    "mkdir": "mkdir", "rename": "rename", "replace": "rename", "link": "rename",
    "fsync": "fsync", "fdatasync": "fsync", "truncate": "allocate", "ftruncate": "allocate",
    "posix_fallocate": "allocate", "unlink": "remove", "remove": "remove", "rmdir": "remove",
    "chmod": "chmod", "sendfile": "write", "copy_file_range": "write",
}  # fmt: skip
_FILLS = ("open", "write", "mkdir", "allocate")  # fail for good on a full disk
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """The process would be dead."""


class Call(NamedTuple):
    """One call: its kind, as in `ERRORS`, and the path relative to the folder."""

    kind: str
    path: str


class Disk:
    """A folder whose n-th call fails.

    Attributes:
        calls: all calls so far, in order.
    """

    def __init__(
        self, folder: Path, n: int | None = None, error: int = errno.EIO, *, skip: str = "\0"
    ) -> None:
        self.calls: list[Call] = []
        self._folder, self._n, self._error, self._skip = str(folder), n, error, skip
        self._is_dead = False
        self._lock = threading.Lock()

    def call(self, kind: str, path: object) -> bool:
        """Count a call; False if it must have no effect, since the process is dead."""
        name = self.name(path)
        if not name.startswith(self._folder) or (kind == "read" and self._skip in name):
            return True
        with self._lock:
            if self._is_dead:
                if kind in ("open", "read", "mkdir", "rename", "map"):
                    raise Killed
                return False
            self.calls.append(Call(kind, name.removeprefix(self._folder).lstrip("/")))
            k = len(self.calls) - 1
            if k == self._n and self._error == KILL:
                self._is_dead = True
                raise Killed
            is_full = self._error == errno.ENOSPC and self._n is not None and k > self._n
            if k == self._n or (is_full and kind in _FILLS):
                raise OSError(self._error, os.strerror(self._error), name)
            return True

    @staticmethod
    def name(path: object) -> str:
        if not isinstance(path, int):
            return str(Path(os.fsdecode(path)).absolute())  # type: ignore[arg-type]
        try:
            return str(Path(f"/proc/self/fd/{path}").readlink())
        except OSError:
            return ""


@contextlib.contextmanager
def faults(
    folder: Path, n: int | None = None, error: int = errno.EIO, *, skip: str = "\0"
) -> Iterator[Disk]:
    """Count the calls that change files below a folder, or read them, and let the n-th one fail.

    Args:
        folder: an absolute path.
        n: from 0; None for no failure.
        error: the error's number, or `KILL`. A full disk stays full.
        skip: do not count reading files with this in their path.

    Yields:
        The calls, counted while the context is open.
    """
    disk = Disk(folder, n, error, skip=skip)
    with contextlib.ExitStack() as stack:

        def patch(target: Any, name: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(target, name, value))

        for name, kind in _KINDS.items():
            if hasattr(os, name):
                patch(os, name, _checked(disk, kind, getattr(os, name)))
        patch(os, "open", _checked_open(disk, os.open))
        opened = _file_open(disk)
        patch(io, "open", opened)
        patch(builtins, "open", opened)
        patch(mmap, "mmap", _checked(disk, "map", mmap.mmap))
        encode = ImageFile._encode_tile
        patch(ImageFile, "_encode_tile", lambda *a: encode(*a[:4], None, *a[5:]))
        if hasattr(np.lib, "_format_impl"):
            patch(np.lib._format_impl, "isfileobj", lambda _: False)
        yield disk


def _checked(disk: Disk, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        place = options.get("dir_fd")
        full = path if place is None else f"{disk.name(place)}/{os.fsdecode(path)}"
        return function(path, *arguments, **options) if disk.call(kind, full) else None

    return call


def _checked_open(disk: Disk, function: Callable[..., int]) -> Callable[..., int]:
    def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & _WRITING and options.get("dir_fd") is None:
            disk.call("open", path)
        return function(path, flags, *arguments, **options)

    return call


def _file_open(disk: Disk) -> Callable[..., Any]:
    """The builtin `open`, of files whose every write is counted."""
    original = io.open

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            size = memoryview(data).nbytes
            return int(super().write(data) or 0) if disk.call("write", self.fileno()) else size

        def truncate(self, size: int | None = None) -> int:
            return super().truncate(size) if disk.call("allocate", self.fileno()) else 0

    def call(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        is_ours = disk.name(file).startswith(disk._folder)
        if not is_ours or not set(mode) & set("wax+"):
            if is_ours and not isinstance(file, int):
                disk.call("read", file)
            return original(file, mode, buffering, *rest, **options)
        options |= dict(
            zip(("encoding", "errors", "newline", "closefd", "opener"), rest, strict=False)
        )
        closefd, opener = options.pop("closefd", True), options.pop("opener", None)
        if not isinstance(file, int) and opener is None:
            disk.call("open", file)
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        raw.name = raw.name if isinstance(file, int) else file  # type: ignore[misc]
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, **options)
        text.mode = mode  # type: ignore[misc]
        return text

    return call


def inject_all(folder: Path, work: Callable[[], object], check: Callable[[], None]) -> int:
    """Let each call of `work` fail in each way; check what is left, and do it again."""
    with faults(folder) as disk:
        work()
    n_faults = 0
    for n, call in enumerate(disk.calls):
        for error in (*ERRORS[call.kind], KILL):
            problem: Exception | None = None
            with faults(folder, n, error), contextlib.suppress(Killed):
                try:
                    work()
                except (DiskError, ArgumentError) as raised:
                    problem = raised
            if problem:
                kinds = {errno.EACCES: SceneLearnError, errno.ENOSPC: DiskSpaceError}
                assert isinstance(problem, kinds.get(error, DiskError))
                assert str(folder) in str(problem)
            check()
            work()
            n_faults += 1
    return n_faults
