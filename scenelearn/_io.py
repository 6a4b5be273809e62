"""The cache folder, and files that are written whole or not at all."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scenelearn.errors import ArgumentError, DiskSpaceError

_log = logging.getLogger(__name__)

SPARE_BYTES = 64 * 2**20  # left free on the disk beyond what is asked for


def cache_path() -> Path:
    """``SCENELEARN_CACHE`` where that is set, else ``scenelearn`` in the user's cache folder.

    That is ``XDG_CACHE_HOME``, or ``~/.cache``. The folder may not exist yet.
    """
    named = os.environ.get("SCENELEARN_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named).expanduser() if named else base / "scenelearn"


def cache_folder() -> Path:
    """The folder for pixels, sample scenes and compiled programs; safe to delete at any time.

    It is ``SCENELEARN_CACHE`` where that is set, else ``scenelearn`` in ``XDG_CACHE_HOME`` or in
    ``~/.cache``. It is created if need be.

    Raises:
        ArgumentError: if it cannot be created.
    """
    folder = cache_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            "`SCENELEARN_CACHE` must name a folder that exists or can be made. Received: "
            f"{str(folder)!r}: {error.strerror}. Set this environment variable to another folder."
        ) from None
    return folder


def cache_limit_bytes() -> int:
    """How much the pixels of one size, the features of one network, or kept maps may take.

    That is ``SCENELEARN_CACHE_GIB`` gibibytes, else 64.

    Raises:
        ArgumentError: if that is not a number of at least 0.
    """
    text = os.environ.get("SCENELEARN_CACHE_GIB") or "64"
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not gib >= 0 or math.isinf(gib):
        raise ArgumentError(
            "`SCENELEARN_CACHE_GIB` must be a number of gibibytes, at least 0. "
            f"Received: {text!r}. Set this environment variable to e.g. 64; 0 keeps nothing."
        )
    return int(gib * 2**30)


def has_free_space(folder: Path, held_bytes: int, more_bytes: int, *, what: str) -> bool:
    """Whether a part of the cache may grow; where it may not, that is logged as a warning.

    Args:
        folder: the part, an existing folder.
        held_bytes: what it holds.
        more_bytes: what it would hold beside that.
        what: a sentence on what is not kept then, without its end.

    Raises:
        ArgumentError: if ``SCENELEARN_CACHE_GIB`` is not a number of at least 0.
    """
    limit = cache_limit_bytes()
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if held_bytes + more_bytes <= limit and more_bytes <= free:
        return True
    _log.warning(
        "%s, %d MiB: the cache %s may hold %d MiB, and its disk has %d MiB free. Set "
        "SCENELEARN_CACHE to a folder on a larger disk, or SCENELEARN_CACHE_GIB to a higher limit.",
        what,
        more_bytes / 2**20,
        folder,
        limit / 2**20,
        free / 2**20,
    )
    return False


def require_free_space(folder: Path, n_bytes: int, *, advice: str) -> None:
    """See that `n_bytes` can be written below `folder`.

    Args:
        folder: an existing folder.
        n_bytes: how much is to be written.
        advice: what else than freeing some can be done, for the message.

    Raises:
        DiskSpaceError: if the disk has less free than that, and a little to spare.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes + SPARE_BYTES:
        raise DiskSpaceError(
            f"{str(folder)!r} needs {n_bytes / 2**20:,.0f} MiB of free space. Received: "
            f"{free / 2**20:,.0f} MiB free. Free some, or {advice}."
        )


def ensure_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder to write into, made if need be.

    Args:
        folder: its path.

    Returns:
        The path.

    Raises:
        ArgumentError: if a file is in the way.
        OSError: if it cannot be made, or not be written into.
    """
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        in_the_way = next((p for p in (path, *path.parents) if p.is_file()), path)
        raise ArgumentError(
            "`folder` must be a folder, or a name that is still free, to write into. Received: "
            f"{str(path)!r}, but {str(in_the_way)!r} is a file. Pass another name."
        ) from None
    with tempfile.TemporaryFile(dir=path):
        return path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` only when all went well.

    The folder is created if need be. The file is flushed to the disk before it is renamed, so
    that after a crash `path` holds either the old content or the new, whole.

    Args:
        path: the file to write or replace.

    Yields:
        The temporary path. It is gone afterwards, whatever happened.

    Raises:
        ArgumentError: if `path` is an existing folder, or its folder cannot be made or written to.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        raise ArgumentError(
            f"`path` must name a file. Received: {str(target)!r}, which is a folder. "
            "Add a file name to it."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name[:40]}.", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:  # a file in the way, no permission, …
        raise ArgumentError(
            f"`path` must lie in a folder that can be written to. Received: {str(target)!r}: "
            f"{error.strerror}. Choose another place."
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _open_to_others(temporary, 0o666)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: Path) -> Iterator[Path]:
    """As `atomic_write`, for a folder, which takes the place of an older one.

    Args:
        path: the folder to write or replace.

    Yields:
        The temporary folder. It is gone afterwards, whatever happened.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    old = made.with_name(made.name + ".old")
    try:
        yield made
        _open_to_others(made, 0o777)
        if path.exists():
            path.rename(old)
        made.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _open_to_others(path: Path, mode: int) -> None:
    """What `tempfile` has made private gets the mode that any new file has."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)
