"""From a folder to its photos: every file is used, or refused with a reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenelearn.data._decode import RefusedPhoto, check_whole
from scenelearn.data._photos import Photos, Reason, Refused, content_hash
from scenelearn.errors import NoPhotosError, PathMissingError

# Folder names that name a side rather than a class: those of common archives, the Intel one's
# seg_train, seg_test, seg_pred among them.
_SIDE_FOLDERS = {
    "train": "train", "training": "train", "seg_train": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "seg_test": "test",
    "pred": "unlabelled", "predict": "unlabelled", "seg_pred": "unlabelled",
    "unlabelled": "unlabelled", "unlabeled": "unlabelled",
}  # fmt: skip
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "@eadir"}
_MAX_FILE_BYTES = 512 * 2**20  # no photo is larger; a stray film would be read into memory


@dataclass(frozen=True, slots=True)
class _Found:
    """A regular file and what reading it told: its hash, or why it is refused."""

    path: str
    hash: bytes
    refused: Refused | None


def scan(
    folder: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> Photos:
    """Find the photos of a folder and their classes; account for every file in it.

    A photo's class is the first folder on its way from `folder`, once these are taken off: the
    one folder that all class folders lie in (an unpacked archive's own), and folders that name a
    side (``train``, ``valid``, ``test``, ``seg_train`` …, also doubled as in the Intel archive).
    So ``photos/sea/1.jpg``, ``photos/train/sea/1.jpg`` and
    ``photos/seg_train/seg_train/sea/1.jpg`` are all of class "sea". Photos below ``seg_pred`` have
    no class and are listed apart.

    A file is judged by its content, not its name: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF. Symbolic
    links to files are followed, links to folders and special files are refused.

    Args:
        folder: holds one folder a class.
        progress: called with (files done, files in all) now and then.

    Returns:
        The photos, in the order of their paths, and what was refused.

    Raises:
        PathMissingError: if `folder` does not exist or is not a folder.
        NoPhotosError: if there is no usable photo in a class folder.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(sl.scan(sl.sample_scenes(folder, per_class=2)))
        12 photos in 6 classes
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise PathMissingError(
            f"`folder` must be an existing folder of photos. Received: {str(root)!r}, where there "
            f"is {what}. Check the path; it should hold one folder for each class."
        )
    files, refused = _walk(root)
    found = _read_all(root, files, progress)
    refused += [item.refused for item in found if item.refused]
    usable = [item for item in found if not item.refused]
    return _label(root, usable, refused)


def _walk(root: Path) -> tuple[list[str], list[Refused]]:
    """All regular files below `root` that are not hidden, sorted; the rest refused."""
    files: list[str] = []
    refused: list[Refused] = []
    for entry, path in _entries(root, ""):
        if isinstance(entry, OSError):
            why = entry.strerror or str(entry)
            refused.append(Refused(path=path, reason=Reason.UNREADABLE, detail=why))
        elif entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES:
            detail = _holds(entry) if entry.is_dir(follow_symlinks=False) else ""
            refused.append(Refused(path=path, reason=Reason.SYSTEM_FILE, detail=detail))
        elif not entry.is_dir(follow_symlinks=False):
            kind = _kind(entry)
            if kind:
                refused.append(Refused(path=path, reason=Reason.SPECIAL_FILE, detail=kind))
            else:
                files.append(path)
    return sorted(files), refused


def _entries(folder: Path, prefix: str) -> Iterator[tuple[os.DirEntry[str] | OSError, str]]:
    """Every entry below `folder` with its relative path, without descending where we refuse."""
    waiting = [(folder, prefix)]
    while waiting:
        here, before = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            yield error, before or "."
            continue
        for entry in entries:
            path = f"{before}/{entry.name}" if before else entry.name
            yield entry, path
            hidden = entry.name.startswith(".") or entry.name.lower() in _SYSTEM_NAMES
            if entry.is_dir(follow_symlinks=False) and not hidden:
                waiting.append((Path(entry.path), path))


def _holds(folder: os.DirEntry[str]) -> str:
    n_files = sum(len(names) for _, _, names in os.walk(folder.path))
    return f"a folder with {n_files:,} file{'s' if n_files != 1 else ''} in it"


def _kind(entry: os.DirEntry[str]) -> str:
    """Why an entry is not a regular file that may be opened; empty for one that is."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:  # of a file that is no link, reading it will say why
        return f"broken link ({error.strerror})" if entry.is_symlink() else ""
    if stat.S_ISDIR(mode):
        return "link to a folder"
    return "" if stat.S_ISREG(mode) else "pipe, socket or device"


def _read_all(
    root: Path, files: list[str], progress: Callable[[int, int], None] | None
) -> list[_Found]:
    found: list[_Found] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and decoding release the GIL
        for item in pool.map(lambda path: _read(root, path), files):
            found.append(item)
            if progress and (len(found) % 64 == 0 or len(found) == len(files)):
                progress(len(found), len(files))
    return found


def _read(root: Path, path: str) -> _Found:
    try:
        size = (root / path).stat().st_size
        if size > _MAX_FILE_BYTES:
            raise RefusedPhoto(Reason.TOO_LARGE, f"a file of {size / 2**20:,.0f} MiB")
        content = (root / path).read_bytes()
        check_whole(content)
    except RefusedPhoto as error:
        return _Found(path, b"", Refused(path=path, reason=error.reason, detail=error.detail))
    except OSError as error:
        why = error.strerror or str(error)
        return _Found(path, b"", Refused(path=path, reason=Reason.UNREADABLE, detail=why))
    return _Found(path, content_hash(content), None)


def _label(root: Path, usable: list[_Found], refused: list[Refused]) -> Photos:
    """Read side and class of each usable file off its folders."""
    ways = [tuple(item.path.split("/")[:-1]) for item in usable]
    n_wrappers = _n_wrappers(ways)
    kept: list[tuple[_Found, str, str]] = []
    unlabelled: list[str] = []
    for item, way in zip(usable, ways, strict=True):
        side, rest = _side(way[n_wrappers:])
        if side == "unlabelled":
            unlabelled.append(item.path)
        elif rest:
            kept.append((item, side, rest[0]))
        else:
            detail = f"{way[-1]!r} is taken as a side, not as a class" if side else ""
            refused.append(Refused(path=item.path, reason=Reason.NO_CLASS_FOLDER, detail=detail))
    if not kept:
        raise _no_photos(root, refused)
    names = tuple(sorted({name for _, _, name in kept}))
    position = {name: k for k, name in enumerate(names)}
    return Photos(
        folder=root,
        paths=tuple(item.path for item, _, _ in kept),
        labels=np.array([position[name] for _, _, name in kept], dtype=np.int32),
        class_names=names,
        hashes=tuple(item.hash for item, _, _ in kept),
        sides=tuple(side for _, side, _ in kept),
        unlabelled=tuple(unlabelled),
        refused=tuple(sorted(refused, key=lambda refusal: refusal.path)),
    )


def _n_wrappers(ways: list[tuple[str, ...]]) -> int:
    """How many leading folders hold all class folders, and are neither a side nor a class.

    A photo or two that lie beside the class folders do not make a class of what holds them all.
    """
    n = 0
    while True:
        names = {way[n] for way in ways if len(way) > n}
        n_beside = sum(len(way) == n + 1 for way in ways)
        n_deeper = sum(len(way) > n + 1 for way in ways)
        if len(names) != 1 or names.pop().lower() in _SIDE_FOLDERS or n_deeper <= n_beside:
            return n
        n += 1


def _side(way: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Take the folders that name a side off the front of a photo's way."""
    if not way or way[0].lower() not in _SIDE_FOLDERS:
        return "", way
    name, rest = way[0].lower(), way[1:]
    if rest and rest[0].lower() == name:  # seg_train/seg_train/…
        rest = rest[1:]
    return _SIDE_FOLDERS[name], rest


def _no_photos(root: Path, refused: list[Refused]) -> NoPhotosError:
    shown = "; ".join(str(refusal) for refusal in refused[:5])
    more = f"; and {len(refused) - 5:,} more" if len(refused) > 5 else ""
    received = f"{len(refused):,} refused: {shown}{more}" if refused else "an empty folder"
    return NoPhotosError(
        f"No usable photo in a class folder of {str(root)!r}. Expected one folder for each class "
        f"with its photos inside. Received: {received}. "
        "Put the photos of each class into a folder named after it, e.g. sea/ and street/."
    )
