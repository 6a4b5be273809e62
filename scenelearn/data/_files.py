"""The files of photos: in a folder, or in a ZIP archive or dataset that is read in place."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from scenelearn._io import disk_error, is_disk_error
from scenelearn.data._dataset import SHARD_SUFFIXES, is_row, read_row
from scenelearn.errors import NoPhotosError

_MAX_DETAIL = 200  # characters of an error that a message repeats
MAX_FILE_BYTES = 512 * 2**20  # larger than any photo; keeps a stray video out of memory

_Archive = tuple[zipfile.ZipFile, dict[str, list[zipfile.ZipInfo]]]  # members by path, last valid


class _DamagedArchiveError(OSError):
    """A file that is not a complete archive."""


def content_hash(content: bytes) -> bytes:
    """The 16-byte BLAKE2b hash of a file's content."""
    return hashlib.blake2b(content, digest_size=16).digest()


def is_archive(path: Path) -> bool:
    """Whether a path is a ZIP archive, by its content."""
    return os.path.isfile(path) and zipfile.is_zipfile(path)  # noqa: PTH113


def read_file(root: Path, path: str) -> bytes:
    """Read a file from a folder or an archive, or a row of a dataset.

    Args:
        root: the folder, archive or shard of a dataset.
        path: relative to it, with forward slashes.

    Raises:
        OSError: if the file is missing, not regular, too large, or unreadable.
    """
    if not os.path.isfile(root):  # noqa: PTH113  # here and below: pathlib's objects take longer
        try:
            file = open(os.path.join(root, path), "rb")  # noqa: PTH118, PTH123, SIM115
        except (FileNotFoundError, NotADirectoryError):
            if not is_row(root, path):
                raise
            return _read_row(root, path)
        with file:
            _check_size(os.fstat(file.fileno()).st_size)
            return file.read()
    if root.suffix.lower() in SHARD_SUFFIXES:
        return _read_row(root, path)
    archive, members = _open_archive(root)
    try:
        info = members[_normalize(path)][-1]
        _check_size(info.file_size)
        with archive.open(info) as member:
            content = member.read(MAX_FILE_BYTES + 1)  # the header may state a smaller size
        _check_size(len(content))
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "no longer in the archive", path) from None
    except Exception as error:  # zipfile raises many types for damaged members
        if is_disk_error(error):
            raise
        code = errno.EACCES if "encrypted" in str(error) else errno.EIO
        detail = str(error)[:_MAX_DETAIL]  # zipfile may repeat the whole name
        raise OSError(code, f"damaged in the archive: {detail}", path) from None
    return content


def list_archive(root: Path) -> Iterator[tuple[str, str]]:
    """List the files of an archive.

    Args:
        root: the archive.

    Yields:
        Each file's path, and why it cannot be a photo; empty if it can.

    Raises:
        NoPhotosError: if it is not a complete ZIP archive.
        DiskError: if the system cannot read it.
    """
    try:
        _, members = _open_archive(root)
    except _DamagedArchiveError as error:
        raise NoPhotosError(
            f"{str(root)!r} must be a complete ZIP archive of photos. Received: {error.strerror}. "
            "Copy or download it again, or unpack it."
        ) from None
    except OSError as error:
        raise disk_error(root, error) from None
    for path, same_name in members.items():
        for _ in same_name[1:]:
            yield path, "a later file in the archive has the same name"
        kind = stat.S_IFMT(same_name[-1].external_attr >> 16)
        yield path, "" if kind in (0, stat.S_IFREG) else "link or special file in an archive"


def _read_row(root: Path, path: str) -> bytes:
    content = read_row(root, path)
    _check_size(len(content))
    return content


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"a file of {n_bytes / 2**20:,.0f} MiB")


def _open_archive(root: Path) -> _Archive:
    info = root.stat()
    try:
        return _open_version(root, info.st_mtime_ns, info.st_size)
    except Exception as error:  # zipfile raises many types for damaged directories
        if is_disk_error(error):
            raise
        raise _DamagedArchiveError(
            errno.EIO, f"not complete: {str(error)[:_MAX_DETAIL]}", str(root)
        ) from None


@functools.lru_cache(maxsize=4)
def _open_version(root: Path, *_: int) -> _Archive:
    """Open an archive; its directory is read once per version. Threads may share the result."""
    archive = zipfile.ZipFile(root)
    members: dict[str, list[zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        is_folder = info.filename.endswith(("/", "\\")) or stat.S_ISDIR(info.external_attr >> 16)
        if not is_folder:
            members.setdefault(_normalize(info.filename), []).append(info)
    return archive, members


def _normalize(path: str) -> str:
    r"""The path of a file in an archive: archivers write it as a/b, ./a/b, /a//b or a\b."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))
