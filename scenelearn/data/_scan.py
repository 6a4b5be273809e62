"""From a folder to its photos: every file is used, or refused with a reason."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scenelearn._threads import map_in_threads
from scenelearn.data._decode import STRICT, check_whole
from scenelearn.data._manifest import SIDE_NAMES, SUFFIXES, Listed, read_manifest
from scenelearn.data._photos import Photos, Reason, Refused, content_hash
from scenelearn.data._refusals import RefusedPhoto
from scenelearn.data._store import archived, is_archive, read_file
from scenelearn.errors import NoPhotosError, PathMissingError

_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "@eadir"}

_SMALL_BYTES = 100_000  # files that one thread reads 1.5 times as fast as two


@dataclass(frozen=True, slots=True)
class _Found:
    """A regular file and what reading it told: its hash, or why it is refused."""

    path: str
    hash: bytes
    refused: Refused | None


def scan(
    folder: str | os.PathLike[str],
    manifest: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Photos:
    """Find the photos of a folder and their classes; account for every file in it.

    A photo's class is the first folder on its way from `folder`, once these are taken off: the
    one folder that all class folders lie in (an unpacked archive's own), and folders that name a
    side (``train``, ``valid``, ``test``, ``seg_train`` …, also doubled as in the Intel archive).
    So ``photos/sea/1.jpg``, ``photos/train/sea/1.jpg`` and
    ``photos/seg_train/seg_train/sea/1.jpg`` are all of class "sea". Photos below ``seg_pred`` have
    no class and are listed apart.

    A file is judged by its content, not its name: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF. Symbolic
    links to files are followed, links to folders and special files are refused. A ``.zip`` file
    is read in place; nothing of it is unpacked.

    With a manifest, the photos are those that it lists, and nothing else is looked at. It is a
    table, ``.csv`` or ``.parquet``, with the columns "path" (from `folder` on) and "label", and,
    if known, "split" (train, validation, test), "group" (`split` keeps photos of one group
    together) and "hash" (as `Splits.save` writes it: a photo that has changed is refused).

    Args:
        folder: holds one folder a class; or a ``.zip`` file that does; or a manifest whose paths
            begin where it lies itself.
        manifest: the table that lists the photos of `folder`.
        progress: called with (files done, files in all) now and then.

    Returns:
        The photos, in the order of their paths, and what was refused.

    Raises:
        PathMissingError: if `folder` or `manifest` does not exist, or `folder` is some other file.
        ManifestError: if the manifest cannot be followed.
        NoPhotosError: if there is no usable photo in a class folder.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(sl.scan(sl.sample_scenes(folder, per_class=2)))
        12 photos in 6 classes
    """
    root = Path(folder).expanduser().absolute()
    table = None if manifest is None else Path(manifest).expanduser().absolute()
    if table is None and root.suffix.lower() in SUFFIXES and root.is_file():
        root, table = root.parent, root
    if not (root.is_dir() or is_archive(root)):
        what = "a file" if root.exists() else "nothing"
        raise PathMissingError(
            f"`folder` must be an existing folder of photos, a ZIP of one, or a manifest. "
            f"Received: {str(root)!r}, where there is {what}. Check the path; it should hold one "
            "folder for each class."
        )
    if table is not None:
        return _of_manifest(root, table, progress)
    files, refused = _walk_archive(root) if root.is_file() else _walk(root)
    found = _read_all(root, files, progress)
    refused += [item.refused for item in found if item.refused]
    return _label(root, [item for item in found if not item.refused], refused)


def _of_manifest(root: Path, table: Path, progress: Callable[[int, int], None] | None) -> Photos:
    if not table.is_file():
        raise PathMissingError(
            f"`manifest` must be a .csv or .parquet file. Received: {str(table)!r}, where there "
            "is none. Check the path."
        )
    rows = sorted(read_manifest(table), key=lambda row: row.path)
    refused: list[Refused] = []
    kept: list[tuple[_Found, Listed]] = []
    for row, item in zip(rows, _read_all(root, [row.path for row in rows], progress), strict=True):
        if item.refused:
            refused.append(item.refused)
        elif row.hash and row.hash != item.hash:
            detail = f"its hash was {row.hash.hex()} and is {item.hash.hex()}"
            refused.append(Refused(path=row.path, reason=Reason.CHANGED, detail=detail))
        else:
            kept.append((item, row))
    return _photos(root, kept, refused)


def _walk_archive(root: Path) -> tuple[list[str], list[Refused]]:
    """As `_walk`, of an archive."""
    files: list[str] = []
    refused: list[Refused] = []
    for path, why in archived(root):
        if any(_is_hidden(name) for name in path.split("/")):
            refused.append(Refused(path=path, reason=Reason.SYSTEM_FILE))
        elif why:
            refused.append(Refused(path=path, reason=Reason.SPECIAL_FILE, detail=why))
        else:
            files.append(path)
    return sorted(files), refused


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def _walk(root: Path) -> tuple[list[str], list[Refused]]:
    """All regular files below `root` that are not hidden, sorted; the rest refused."""
    files: list[str] = []
    refused: list[Refused] = []
    for entry, path in _entries(root, ""):
        if isinstance(entry, OSError):
            why = entry.strerror or str(entry)
            refused.append(Refused(path=path, reason=Reason.UNREADABLE, detail=why))
        elif _is_hidden(entry.name):
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
            if entry.is_dir(follow_symlinks=False) and not _is_hidden(entry.name):
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
    with STRICT:
        read = partial(_read, root)
        for item in map(read, files) if _are_small(root, files) else map_in_threads(read, files):
            found.append(item)
            if progress and (len(found) % 64 == 0 or len(found) == len(files)):
                progress(len(found), len(files))
    return found


def _are_small(root: Path, files: list[str]) -> bool:
    """Whether files are read so quickly that threads would mostly wait for each other."""
    some = files[:: max(1, len(files) // 64)]
    sizes = [(root / path).stat().st_size for path in some if (root / path).is_file()]
    return sum(sizes) < _SMALL_BYTES * len(sizes)


def _read(root: Path, path: str) -> _Found:
    try:
        if root.is_dir() and not stat.S_ISREG((root / path).stat().st_mode):
            raise RefusedPhoto(Reason.SPECIAL_FILE, "a folder, pipe, socket or device")
        content = read_file(root, path)
        check_whole(content)
    except RefusedPhoto as error:
        return _Found(path, b"", Refused(path=path, reason=error.reason, detail=error.detail))
    except OSError as error:
        reasons = {errno.EFBIG: Reason.TOO_LARGE, errno.ENOENT: Reason.MISSING}
        reason = reasons.get(error.errno or 0, Reason.UNREADABLE)
        why = error.strerror or str(error)
        return _Found(path, b"", Refused(path=path, reason=reason, detail=why))
    return _Found(path, content_hash(content), None)


def _label(root: Path, usable: list[_Found], refused: list[Refused]) -> Photos:
    """Read side and class of each usable file off its folders."""
    ways = [tuple(item.path.strip("/").split("/")[:-1]) for item in usable]
    n_wrappers = _n_wrappers(ways)
    kept: list[tuple[_Found, Listed]] = []
    for item, way in zip(usable, ways, strict=True):
        side, rest = _side(way[n_wrappers:])
        if rest or side == "unlabeled":
            label = "" if side == "unlabeled" else rest[0]
            kept.append((item, Listed(path=item.path, label=label, side=side)))
        else:
            detail = f"{way[-1]!r} is taken as a side, not as a class" if side else ""
            refused.append(Refused(path=item.path, reason=Reason.NO_CLASS_FOLDER, detail=detail))
    return _photos(root, kept, refused)


def _photos(root: Path, kept: list[tuple[_Found, Listed]], refused: list[Refused]) -> Photos:
    """Column by column what was found of each photo, and what is known of it."""
    unlabeled = [row.path for _, row in kept if row.side == "unlabeled" or not row.label]
    labeled = [(item, row) for item, row in kept if row.side != "unlabeled" and row.label]
    if not labeled:
        raise _no_photos(root, refused)
    names = tuple(sorted({row.label for _, row in labeled}))
    position = {name: k for k, name in enumerate(names)}
    grouped = any(row.group for _, row in labeled)
    return Photos(
        folder=root,
        paths=tuple(row.path for _, row in labeled),
        labels=np.array([position[row.label] for _, row in labeled], dtype=np.int32),
        class_names=names,
        hashes=tuple(item.hash for item, _ in labeled),
        sides=tuple(row.side for _, row in labeled),
        unlabeled=tuple(unlabeled),
        refused=tuple(sorted(refused, key=lambda refusal: refusal.path)),
        groups=tuple(row.group for _, row in labeled) if grouped else (),
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
        if len(names) != 1 or names.pop().lower() in SIDE_NAMES or n_deeper <= n_beside:
            return n
        n += 1


def _side(way: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Take the folders that name a side off the front of a photo's way."""
    if not way or way[0].lower() not in SIDE_NAMES:
        return "", way
    name, rest = way[0].lower(), way[1:]
    if rest and rest[0].lower() == name:  # seg_train/seg_train/…
        rest = rest[1:]
    return SIDE_NAMES[name], rest


def _no_photos(root: Path, refused: list[Refused]) -> NoPhotosError:
    shown = "; ".join(str(refusal) for refusal in refused[:5])
    more = f"; and {len(refused) - 5:,} more" if len(refused) > 5 else ""
    received = f"{len(refused):,} refused: {shown}{more}" if refused else "an empty folder"
    return NoPhotosError(
        f"No usable photo in a class folder of {str(root)!r}. Expected one folder for each class "
        f"with its photos inside. Received: {received}. "
        "Put the photos of each class into a folder named after it, e.g. sea/ and street/."
    )
