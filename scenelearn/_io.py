"""The cache folder, free disk space, and files that are written atomically."""

from __future__ import annotations

import ctypes
import errno
import functools
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from scenelearn._checks import check_path
from scenelearn.errors import ArgumentError, DiskError, DiskSpaceError, SceneLearnError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_log = logging.getLogger(__name__)

SPARE_BYTES = 64 * 2**20  # always left free on the disk
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk full, quota, limit of the process
_IS_LINUX = sys.platform == "linux"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2, which Python lacks
_ADVICE = dict.fromkeys(
    (errno.EMFILE, errno.ENFILE),
    "Close files that are not needed, or raise the limit, as by `ulimit -n 4096`",
)
# Errors that follow from the name of a file or folder, and not from the state of the system.
_UNUSABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOENT,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EINVAL,
)  # fmt: skip


def name_bytes(name: str) -> bytes:
    r"""A file or class name as bytes, to hash: UTF-8, also of names that are not valid Unicode.

    Python represents undecodable bytes of names on the disk as lone surrogates, which the usual
    encoding refuses. To show such a name, use `scenelearn._display.printable`.

    Args:
        name: any string.

    Returns:
        Different bytes for different names.

    Example:
        >>> name_bytes("sea"), name_bytes("for\udceat")
        (b'sea', b'for\xed\xb3\xaat')
    """
    return name.encode("utf-8", "surrogatepass")


def cache_path() -> Path:
    """The path of the cache folder, which may not exist yet.

    It is ``SCENELEARN_CACHE`` if that is set, else ``scenelearn`` in ``XDG_CACHE_HOME`` or, by
    default, in ``~/.cache``. If there is no home folder, or it is not writable, it is a private
    folder among the system's temporary files.
    """
    if chosen := os.environ.get("SCENELEARN_CACHE"):
        return Path(os.path.expanduser(chosen))  # noqa: PTH111  # pathlib's fails without a home
    parent = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    folder = Path(parent, "scenelearn")
    if folder.is_absolute() and _is_writable(folder):
        return folder
    return _temporary_cache()


def _is_writable(folder: Path) -> bool:
    """Whether a folder is writable; if it does not exist, whether it can be created."""
    existing = (path for path in (folder, *folder.parents) if os.path.lexists(path))
    nearest = next(existing, folder)  # none on a drive that Windows does not have
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def _free_bytes(path: Path) -> int:
    """The free space of the disk that a file or folder is on, or would be on; 0 if unknown."""
    with suppress(OSError):
        return shutil.disk_usage(next(p for p in (path, *path.parents) if p.is_dir())).free
    return 0


@functools.cache
def _temporary_cache() -> Path:
    """A cache folder among the temporary files, the same for all processes of a user."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    with explain_disk_errors(Path(os.environ.get("TMPDIR", os.curdir))):
        folder = Path(tempfile.gettempdir(), f"scenelearn-{user}")
        folder.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and (folder.is_symlink() or folder.stat().st_uid != user):
            folder = Path(tempfile.mkdtemp(prefix="scenelearn-"))  # somebody else made it
    _log.warning(
        "The cache is in %s, since the home folder is missing or not writable. "
        "Set SCENELEARN_CACHE to a folder that lasts.",
        folder,
    )
    return folder


def cache_folder() -> Path:
    """The folder for pixels, sample scenes and compiled programs; safe to delete at any time.

    See `cache_path` for where it is. It is created if it does not exist.

    Raises:
        ArgumentError: if it cannot be created or is not writable.
    """
    folder = cache_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_writable(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        raise ArgumentError(
            "`SCENELEARN_CACHE` must name a writable folder, or one that can be created. Received: "
            f"{str(folder)!r}: {getattr(error, 'strerror', None) or error}. Set this environment "
            "variable to another folder."
        ) from None
    return folder


@contextmanager
def temporary_array(shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.uint8]]:
    """An array of bytes in a temporary file in the cache folder, which needs no memory.

    Args:
        shape: of the array.

    Yields:
        The array, uint8, filled with zeros. Its space on the disk is reserved, since the system
        kills a process that writes to a mapped file for which the disk has no space.

    Raises:
        ArgumentError: if the cache folder cannot be created or is not writable.
        DiskSpaceError: if its disk has not enough space.
        DiskError: if the file cannot be created or mapped.
    """
    import numpy as np  # here, so that `import scenelearn.sizing` stays light

    folder, n_bytes = cache_folder(), math.prod(shape)
    with ExitStack() as stack:
        with explain_disk_errors(folder, n_bytes):
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            try:
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            except (AttributeError, OSError) as error:
                if getattr(error, "errno", None) in _FULL:
                    raise
                for start in range(0, n_bytes, 2**20):  # where the system cannot reserve space
                    file.write(bytes(min(2**20, n_bytes - start)))
                file.flush()
            array = np.memmap(file, np.uint8, "r+", shape=shape)
        yield array


@contextmanager
def explain_disk_errors(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Make errors of the system say which file is meant, and what to do.

    Args:
        path: what is being read or written.
        n_bytes: how much is being written, if it is known.

    Raises:
        DiskSpaceError: instead of an `OSError` about a full disk, a quota or a size limit.
        DiskError: instead of any other `OSError`.
    """
    try:
        yield
    except SceneLearnError:
        raise
    except OSError as error:
        raise disk_error(path, error, n_bytes) from None


def disk_error(path: Path, error: OSError, n_bytes: int | None = None) -> DiskError:
    """The error that `explain_disk_errors` raises in place of an error of the system."""
    reason = error.strerror or str(error)
    if error.errno not in _FULL:
        advice = _ADVICE.get(error.errno or 0, "Check its disk and permissions, and try again")
        return DiskError(f"{str(path)!r} must be accessible. Received: {reason}. {advice}.")
    size = "more" if n_bytes is None else f"{n_bytes / 2**20:,.1f} MiB of"
    return DiskSpaceError(
        f"{str(path)!r} needs {size} free space. Received: {reason}, "
        f"{_free_bytes(path) / 2**20:,.1f} MiB free. Free some space, or use a folder on "
        "another disk; SCENELEARN_CACHE sets the one of the cache."
    )


def is_disk_error(error: BaseException) -> TypeGuard[OSError]:
    """Whether the system could not read a file, rather than that the file is damaged.

    A damaged archive may point to before its start; to seek there is an invalid argument.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


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


def cache_room_bytes(folder: Path, used_bytes: int, spare_bytes: int = SPARE_BYTES) -> int:
    """By how much a part of the cache may grow; below 0 if it is too large already.

    Args:
        folder: the folder of that part, which may not exist yet.
        used_bytes: its current size.
        spare_bytes: what must stay free on the disk.

    Raises:
        ArgumentError: if ``SCENELEARN_CACHE_GIB`` is not a number of at least 0.
    """
    return int(min(cache_limit_bytes() - used_bytes, _free_bytes(folder) - spare_bytes))


def has_free_space(folder: Path, used_bytes: int, new_bytes: int, *, what: str) -> bool:
    """Whether a part of the cache may grow; logs a warning if not.

    Args:
        folder: the folder of that part, which may not exist yet.
        used_bytes: its current size.
        new_bytes: how much would be added.
        what: a sentence that says what is not cached then, without its period.

    Raises:
        ArgumentError: if ``SCENELEARN_CACHE_GIB`` is not a number of at least 0.
    """
    if new_bytes <= cache_room_bytes(folder, used_bytes):
        return True
    warn_no_room(folder, new_bytes, what=what)
    return False


def warn_no_room(folder: Path, n_bytes: int, *, what: str) -> None:
    """Log a warning that a part of the cache cannot grow by so much.

    Args:
        folder: the folder of that part, which may not exist yet.
        n_bytes: how much would have been added.
        what: a sentence that says what is not cached, without its period.
    """
    _log.warning(
        "%s (%d MiB): the limit of %s is %d MiB, and its disk has %d MiB free. Set "
        "SCENELEARN_CACHE to a folder on a larger disk, or SCENELEARN_CACHE_GIB to a higher limit.",
        what,
        n_bytes / 2**20,
        folder,
        cache_limit_bytes() / 2**20,
        max(_free_bytes(folder) - SPARE_BYTES, 0) / 2**20,
    )


def require_free_space(folder: Path, n_bytes: int, *, advice: str) -> None:
    """Check that `n_bytes` can be written below `folder`.

    Args:
        folder: an existing folder.
        n_bytes: how much will be written.
        advice: what else the user can do, for the message.

    Raises:
        DiskSpaceError: if less than that, plus a small reserve, is free.
    """
    free = _free_bytes(folder)
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
        ArgumentError: if `folder` is not a path, or cannot be created or written to.
        DiskError: if the system fails otherwise.
    """
    path = check_path("folder", folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise disk_error(path, error) from None
        file = next((p for p in (path, *path.parents) if os.path.isfile(p)), None)  # noqa: PTH113
        reason = f"but {str(file)!r} is a file" if file else error.strerror
        raise ArgumentError(
            "`folder` must be an existing or a new folder that can be written to. Received: "
            f"{str(path)!r}, {reason}. Pass another name."
        ) from None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let processes that change files of one folder wait for each other, where the system can."""
    with ExitStack() as stack:
        if fcntl is not None:
            with suppress(OSError):  # some network file systems have no locks
                folder.mkdir(parents=True, exist_ok=True)
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)  # which also unlocks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield


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
        ArgumentError: if `path` is no path or a folder, its folder cannot be created or written to,
            or the file cannot be replaced.
        DiskSpaceError: if the disk becomes full; then nothing is left of what was written.
        DiskError: if the system fails otherwise.
    """
    target = check_path("path", path, advice="Pass the name of a file.")
    if os.path.isdir(target):  # noqa: PTH112
        raise ArgumentError(
            f"`path` must name a file. Received: {str(target)!r}, which is a folder. "
            "Add a file name to it."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name[:40]}.", suffix=target.suffix, dir=target.parent
        )
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise disk_error(target, error) from None
        raise ArgumentError(
            f"`path` must be in a writable folder. Received: {str(target)!r}: "
            f"{error.strerror}. Choose another folder."
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        with explain_disk_errors(target):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            _apply_umask(temporary, 0o666)
            with _explain_refusal(target):
                temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: Path) -> Iterator[Path]:
    """As `atomic_write`, for a folder; an existing one is replaced.

    Args:
        path: the folder to write or replace.

    Yields:
        The temporary folder. It is deleted in the end, whatever happens.

    Raises:
        ArgumentError: if an existing folder cannot be replaced.
        DiskSpaceError: if the disk becomes full.
        DiskError: if it cannot be written for another reason.
    """
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        try:
            yield temporary
            _apply_umask(temporary, 0o777)
            with _explain_refusal(path):
                if path.exists():
                    _exchange(temporary, path)
                else:
                    temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Exchange two folders: in one step on Linux, elsewhere by three renames."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if _IS_LINUX else None
    names = [(_AT_FDCWD, os.fsencode(path)) for path in (new, old)]
    if rename and not rename(*names[0], *names[1], _RENAME_EXCHANGE):
        return
    aside = new.with_name(new.name + ".old")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    aside.rename(new)


@contextmanager
def _explain_refusal(path: Path) -> Iterator[None]:
    """Say what to do if a file or folder cannot be replaced, as on Windows while it is open."""
    try:
        yield
    except PermissionError as error:
        raise ArgumentError(
            f"`path` must name something that can be replaced. Received: {str(path)!r}: "
            f"{error.strerror}. Close it in other programs, or choose another name."
        ) from None


def _apply_umask(path: Path, mode: int) -> None:
    """Give what `tempfile` made private the permissions of any new file."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)
