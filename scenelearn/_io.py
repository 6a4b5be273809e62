"""The cache folder, free disk space, and files that are written atomically."""

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

SPARE_BYTES = 64 * 2**20  # always left free on the disk


def cache_path() -> Path:
    """The path of the cache folder, which may not exist yet.

    It is ``SCENELEARN_CACHE`` if that is set, else ``scenelearn`` in ``XDG_CACHE_HOME`` or, by
    default, in ``~/.cache``.
    """
    from_environment = os.environ.get("SCENELEARN_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(from_environment).expanduser() if from_environment else base / "scenelearn"


def cache_folder() -> Path:
    """The folder for pixels, sample scenes and compiled programs; safe to delete at any time.

    See `cache_path` for where it is. It is created if it does not exist.

    Raises:
        ArgumentError: if it cannot be created.
    """
    folder = cache_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            "`SCENELEARN_CACHE` must name a folder that exists or can be created. Received: "
            f"{str(folder)!r}: {error.strerror}. Set this environment variable to another folder."
        ) from None
    return folder


def cache_limit_bytes() -> int:
    """The size limit of each part of the cache: the pixels of one size, the features of a network.

    It is ``SCENELEARN_CACHE_GIB`` gibibytes, by default 64.

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
            f"Received: {text!r}. Set this environment variable to e.g. 64; 0 caches nothing."
        )
    return int(gib * 2**30)


def has_free_space(folder: Path, used_bytes: int, new_bytes: int, *, what: str) -> bool:
    """Whether a part of the cache may grow; logs a warning if not.

    Args:
        folder: the folder of that part; it exists.
        used_bytes: its current size.
        new_bytes: how much would be added.
        what: a sentence that says what is not cached then, without its period.

    Raises:
        ArgumentError: if ``SCENELEARN_CACHE_GIB`` is not a number of at least 0.
    """
    limit = cache_limit_bytes()
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    if used_bytes + new_bytes <= limit and new_bytes <= free:
        return True
    _log.warning(
        "%s (%d MiB): the limit of %s is %d MiB, and its disk has %d MiB free. Set "
        "SCENELEARN_CACHE to a folder on a larger disk, or SCENELEARN_CACHE_GIB to a higher limit.",
        what,
        new_bytes / 2**20,
        folder,
        limit / 2**20,
        free / 2**20,
    )
    return False


def require_free_space(folder: Path, n_bytes: int, *, advice: str) -> None:
    """Check that `n_bytes` can be written below `folder`.

    Args:
        folder: an existing folder.
        n_bytes: how much will be written.
        advice: what else the user can do, for the message.

    Raises:
        DiskSpaceError: if less than that, plus a small reserve, is free.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes + SPARE_BYTES:
        raise DiskSpaceError(
            f"{str(folder)!r} needs {n_bytes / 2**20:,.0f} MiB of free space. Received: "
            f"{free / 2**20:,.0f} MiB free. Free some space, or {advice}."
        )


def ensure_folder(folder: str | os.PathLike[str]) -> Path:
    """Create a folder to write into if it does not exist.

    Args:
        folder: its path.

    Returns:
        The path.

    Raises:
        ArgumentError: if a file has that name, or `folder` is not a path.
        OSError: if the folder cannot be created or written to.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ArgumentError(
            f"`folder` must be a path. Received: folder={folder!r}. Pass a string or a "
            "pathlib.Path."
        )
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next((p for p in (path, *path.parents) if p.is_file()), path)
        raise ArgumentError(
            "`folder` must be an existing or a new folder. Received: "
            f"{str(path)!r}, but {str(file)!r} is a file. Pass another name."
        ) from None
    with tempfile.TemporaryFile(dir=path):
        return path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file to a temporary path; rename it to `path` only if nothing failed.

    The folder is created if it does not exist. The file is flushed to the disk before it is
    renamed, so that after a crash `path` has either the complete old or the complete new content.

    Args:
        path: the file to write or replace.

    Yields:
        The temporary path, in the same folder. It is deleted in the end, whatever happens.

    Raises:
        ArgumentError: if `path` is a folder, or its folder cannot be created or written to.
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
    except OSError as error:  # a file of that name, no permission, …
        raise ArgumentError(
            f"`path` must be in a writable folder. Received: {str(target)!r}: "
            f"{error.strerror}. Choose another folder."
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _apply_umask(temporary, 0o666)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: Path) -> Iterator[Path]:
    """As `atomic_write`, for a folder; an existing one is replaced.

    Args:
        path: the folder to write or replace.

    Yields:
        The temporary folder. It is deleted in the end, whatever happens.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        _apply_umask(temporary, 0o777)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _apply_umask(path: Path, mode: int) -> None:
    """Give what `tempfile` made private the permissions of any new file."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)
