"""Where photos lie: in a folder, or in a ZIP archive that is read in place."""

from __future__ import annotations

import errno
import functools
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_BYTES = 512 * 2**20  # no photo is larger; a stray film would be read into memory


def is_archive(path: Path) -> bool:
    """Whether a path is a ZIP archive, by its content."""
    return path.is_file() and zipfile.is_zipfile(path)


def read_file(root: Path, path: str) -> bytes:
    """The content of a file below a folder or in an archive.

    Args:
        root: the folder or archive.
        path: relative to it, with forward slashes.

    Raises:
        OSError: if it is not there, not a regular file, too large, or cannot be read.
    """
    if not os.path.isfile(root):  # noqa: PTH113  # here as below: pathlib's objects take longer
        with open(os.path.join(root, path), "rb") as file:  # noqa: PTH118, PTH123
            _check_size(os.fstat(file.fileno()).st_size)
            return file.read()
    archive = _opened(root)
    try:
        info = archive.getinfo(path)
        _check_size(info.file_size)
        with archive.open(info) as inside:
            content = inside.read(MAX_FILE_BYTES + 1)  # whatever its header says
        _check_size(len(content))
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, "no longer in the archive", path) from None
    except RuntimeError as error:  # encrypted
        raise OSError(errno.EACCES, str(error), path) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise OSError(errno.EIO, f"damaged in the archive: {error}", path) from None
    return content


def archived(root: Path) -> Iterator[tuple[str, str]]:
    """Each file of an archive, and why it cannot be a photo; empty for one that can.

    Args:
        root: the archive.

    Raises:
        OSError: if the archive cannot be read.
    """
    archive = _opened(root)
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir():
            continue
        if archive.getinfo(info.filename) is not info:
            yield info.filename, "a later file of the archive has the same name"
        elif kind and not stat.S_ISREG(kind):
            yield info.filename, "link or special file in an archive"
        else:
            yield info.filename, ""


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"a file of {n_bytes / 2**20:,.0f} MiB")


def _opened(root: Path) -> zipfile.ZipFile:
    facts = root.stat()
    try:
        return _opened_once(root, facts.st_mtime_ns, facts.st_size)
    except zipfile.BadZipFile as error:
        raise OSError(errno.EIO, f"not a whole ZIP archive: {error}", str(root)) from None


@functools.lru_cache(maxsize=4)
def _opened_once(root: Path, *_: int) -> zipfile.ZipFile:
    """The archive, its directory read once for each time it was changed. Threads may share it."""
    return zipfile.ZipFile(root)
