"""`scan`: find photos. Every file is either used, or rejected with a reason."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenelearn._checks import check_path
from scenelearn._display import first_lines, printable
from scenelearn._distributed import assert_same_on_all_processes, gather, process_count, share
from scenelearn._progress import Progress, Report, show_progress
from scenelearn._threads import map_in_threads
from scenelearn.data._dataset import SHARD_SUFFIXES, has_photos, is_row, list_rows
from scenelearn.data._decisions import FILE_NAME, apply_decisions
from scenelearn.data._decode import STRICT, check_complete, reject_failures
from scenelearn.data._files import content_hash, is_archive, list_archive, read_file
from scenelearn.data._manifest import SPLIT_OF_NAME, SUFFIXES, ManifestRow, is_frame, read_manifest
from scenelearn.data._photos import Photos, check_not_empty
from scenelearn.data._rejections import (
    Rejected,
    RejectedPhotoError,
    RejectionReason,
    rejected_from_json,
)
from scenelearn.errors import ArgumentError, ManifestError, NoPhotosError, PathMissingError

if TYPE_CHECKING:
    import pandas as pd

_SYSTEM_NAMES = {
    "__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "@eadir",
    "dataset_dict.json", "dataset_info.json", "state.json",  # of Hugging Face datasets
    # what scenelearn itself writes, perhaps into the folder of photos
    "index.html", "result.json", "audit.json", "comparison.json", "quarantine.json", "split.csv",
    "model-card.md", FILE_NAME,
}  # fmt: skip

_SMALL_BYTES = 100_000  # below this mean size, one thread reads files 1.5 times as fast as two

_REASONS = {
    errno.EFBIG: RejectionReason.TOO_LARGE,
    errno.ENOENT: RejectionReason.MISSING,
    errno.ENOTDIR: RejectionReason.MISSING,
    errno.ENAMETOOLONG: RejectionReason.MISSING,
}


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file after it was read: its hash, or why it is rejected."""

    path: str
    hash: bytes
    rejected: Rejected | None


def scan(
    folder: str | os.PathLike[str] | pd.DataFrame,
    manifest: str | os.PathLike[str] | pd.DataFrame | None = None,
    *,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Photos:
    """Find the photos of a folder and their classes, and account for every file in it.

    The class of a photo is the first folder in its path below `folder`, not counting a single
    folder that contains all class folders (as unpacked archives have) and folders that name a split
    (``train``, ``valid``, ``test``, ``seg_train``, …; also nested twice, as in the Intel archive).
    Beside other folders, such names are classes, unless two of them have the same class folders.
    So ``photos/sea/1.jpg``, ``photos/train/sea/1.jpg`` and ``photos/seg_train/seg_train/sea/1.jpg``
    all have the class "sea". Photos in ``seg_pred`` have no class and are listed separately.

    Files are recognized by their content, not their name: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF
    and PPM (also PGM and PBM). Symbolic links to files are followed; links to folders and special
    files are rejected. ``.zip`` files are read in place, without unpacking.

    With a manifest, the photos are those that it lists, and nothing else is read. A manifest is a
    ``.csv`` or ``.parquet`` table with the columns "path" (relative to `folder`) and "label", and
    optionally "split" (train, validation, test), "group" (`split` keeps photos of one group
    together) and "hash" (as written by `Splits.save`; photos that have changed are rejected). A
    ``pandas.DataFrame`` with these columns is a manifest, too.

    A Hugging Face image dataset is read in place, row by row: the folder of its Parquet files as
    they are downloaded, or what ``save_to_disk`` wrote, or a single one of these files. Splits are
    taken from their names, classes from the first column of type ``ClassLabel``, or from the column
    "label". The path of a photo is that of its file and the number of its row. This needs pyarrow.

    Where Keras has a distribution over several processes, each of them reads a share of the files
    and gets the photos of all. All must call `scan` with the same files.

    Decisions that `scenelearn clean` saved next to the photos are honored: photos are relabeled, or
    rejected as in quarantine, unless their content or label has changed since.

    Args:
        folder: a folder that contains one folder per class; a ``.zip`` file of one; a dataset; or a
            manifest. The paths of a manifest file are relative to its own folder, those of a data
            frame to the current one.
        manifest: the table that lists the photos of `folder`.
        progress: called with ("scanning photos", files done, files in total) now and then.
        verbose: "auto" for a progress bar on a terminal and in a notebook, True for one
            everywhere, False for none.

    Returns:
        The photos, sorted by path, and the rejected files.

    Raises:
        PathMissingError: if `folder` or `manifest` does not exist, or `folder` is another kind of
            file.
        ManifestError: if the manifest, or the file of decisions, cannot be read or is invalid.
        NoPhotosError: if there is no usable photo in a class folder, or a ZIP file is damaged.
        DiskError: if the system cannot read a ZIP file.
        DeviceError: if several processes scan different files.
        ArgumentError: if `folder` or `manifest` cannot be a path, or `verbose` is of another type.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sl.scan(sl.sample_scenes(folder, per_class=2))
        <Photos: 12 photos, 6 classes>
    """
    if is_frame(folder):
        if manifest is not None:
            raise ArgumentError(
                "`folder` must be a path if there is a manifest. Received: two tables. Pass "
                "sl.scan(frame) or sl.scan(folder, frame)."
            )
        root, rows = _root_of(read_manifest(folder))
        with show_progress(progress, verbose) as report_all:
            return _scan_rows(root, rows, partial(report_all, "scanning photos"))
    root = check_path("folder", folder).absolute()
    table = (
        manifest
        if manifest is None or is_frame(manifest)
        else check_path("manifest", manifest).absolute()
    )
    shard = root.name if table is None and has_photos(root) else ""
    if shard:
        root = root.parent
    # Unlike methods of `Path`, these return False in a folder that may not be searched.
    if table is None and root.suffix.lower() in SUFFIXES and os.path.isfile(root):  # noqa: PTH113
        root, table = root.parent, root
    if not (os.path.isdir(root) or is_archive(root)):  # noqa: PTH112
        is_there = os.path.exists(root)  # noqa: PTH110
        what = "is another kind of file" if is_there else "does not exist or cannot be reached"
        raise PathMissingError(
            f"`folder` must be an existing folder of photos, a ZIP file of one, or a manifest. "
            f"Received: {str(root)!r}, which {what}. Check the path; the folder should contain one "
            "folder per class."
        )
    if isinstance(table, Path) and not os.path.isfile(table):  # noqa: PTH113
        raise PathMissingError(
            f"`manifest` must be a .csv or .parquet file. Received: {str(table)!r}, which does not "
            "exist or cannot be reached. Check the path."
        )
    with show_progress(progress, verbose) as report_all:
        report = partial(report_all, "scanning photos")
        if table is not None:
            return _scan_rows(root, read_manifest(table), report)
        if shard:
            return _scan_rows(root, _list_rows(root, [shard]), report)
        paths, rejected = _list_archive(root) if root.is_file() else _list_folder(root)
        shards = [path for path in paths if path.lower().endswith(SHARD_SUFFIXES)]
        shards = [path for path in shards if has_photos(root / path)]
        if shards:
            rejected += _reject_all(root, sorted({*paths} - {*shards}))
            return _scan_rows(root, _list_rows(root, shards), report, rejected)
        files = _read_all(root, paths, report)
    rejected += [file.rejected for file in files if file.rejected]
    usable = [file for file in files if not file.rejected]
    return _label_by_folder(root, usable, rejected)


def as_photos(photos: Photos | str | os.PathLike[str], progress: Progress | None = None) -> Photos:
    """Return photos as they are, and scan a path.

    Raises:
        ArgumentError: if `photos` is of another type.
        NoPhotosError: if `photos` is empty.
        DataError: if the path cannot be scanned; see `scan`.
    """
    if isinstance(photos, Photos):
        check_not_empty(photos)
        return photos
    if isinstance(photos, str | os.PathLike):
        return scan(photos, progress=progress)
    raise ArgumentError(
        "`photos` must be the result of `scan`, or the path of a folder. "
        f"Received: {type(photos).__name__}. Pass sl.scan(folder)."
    )


def _root_of(rows: list[ManifestRow]) -> tuple[Path, list[ManifestRow]]:
    """The folder that contains all photos of a data frame, and their paths in it."""
    files = [Path(row.path).absolute() for row in rows]
    try:
        root = Path(os.path.commonpath([file.parent for file in files] or [Path.cwd()]))
    except ValueError as error:  # on Windows
        raise ManifestError(
            f"The photos of a data frame must be on one disk. Received: {error}. Scan those of "
            "each disk, or copy them."
        ) from None
    paths = [file.relative_to(root).as_posix() for file in files]
    return root, [replace(row, path=path) for row, path in zip(rows, paths, strict=True)]


def _scan_rows(
    root: Path,
    rows: list[ManifestRow],
    report: Report,
    rejected: Iterable[Rejected] = (),
) -> Photos:
    rows = sorted(rows, key=lambda row: row.path)
    rejected = list(rejected)
    usable: list[tuple[_File, ManifestRow]] = []
    files = _read_all(root, [row.path for row in rows], report)
    for row, file in zip(rows, files, strict=True):
        if file.rejected:
            rejected.append(file.rejected)
        elif row.hash and row.hash != file.hash:
            detail = f"its hash was {row.hash.hex()}, and is now {file.hash.hex()}"
            changed = Rejected(path=row.path, reason=RejectionReason.CHANGED, detail=detail)
            rejected.append(changed)
        else:
            usable.append((file, row))
    return _to_photos(root, usable, rejected, "a manifest without photos")


def _list_rows(root: Path, shards: list[str]) -> list[ManifestRow]:
    """The photos of a dataset."""
    try:
        return [row for shard in shards for row in list_rows(root, shard)]
    except OSError as error:
        raise ManifestError(
            f"{str(root)!r} must be a complete dataset. Received: {error.strerror or error}. "
            "Download or save it again."
        ) from None


def _reject_all(root: Path, paths: list[str]) -> Iterator[Rejected]:
    """Reject the files next to the shards of a dataset."""
    for file in _read_all(root, paths, lambda *_: None):
        reason, detail = RejectionReason.NO_CLASS_FOLDER, "a file next to a dataset"
        yield file.rejected or Rejected(path=file.path, reason=reason, detail=detail)


def _list_archive(root: Path) -> tuple[list[str], list[Rejected]]:
    """As `_list_folder`, for an archive."""
    files: list[str] = []
    rejected: list[Rejected] = []
    for path, problem in list_archive(root):
        if any(_is_hidden(name) for name in path.split("/")):
            rejected.append(Rejected(path=path, reason=RejectionReason.SYSTEM_FILE))
        elif problem:
            reason = RejectionReason.SPECIAL_FILE
            rejected.append(Rejected(path=path, reason=reason, detail=problem))
        else:
            files.append(path)
    return sorted(files), rejected


def _is_hidden(name: str) -> bool:
    folded = name.lower()
    if folded.startswith("cache-") and folded.endswith(".arrow"):  # a result of `Dataset.map`
        return True
    return folded.startswith(".") or folded.endswith(".keras") or folded in _SYSTEM_NAMES


def _list_folder(root: Path) -> tuple[list[str], list[Rejected]]:
    """All regular files below `root` that are not hidden, sorted, and everything else, rejected."""
    files: list[str] = []
    rejected: list[Rejected] = []

    def reject(path: str, reason: RejectionReason, detail: str) -> None:
        rejected.append(Rejected(path=path, reason=reason, detail=detail))

    for entry, path in _entries(root):
        if isinstance(entry, OSError):
            reject(path, RejectionReason.UNREADABLE, entry.strerror or str(entry))
        elif _is_hidden(entry.name):
            is_folder = entry.is_dir(follow_symlinks=False)
            reject(path, RejectionReason.SYSTEM_FILE, _count_files(entry) if is_folder else "")
        elif not entry.is_dir(follow_symlinks=False):
            problem = _find_problem(entry)
            if problem:
                reject(path, RejectionReason.SPECIAL_FILE, problem)
            else:
                files.append(path)
    return sorted(files), rejected


def _entries(root: Path) -> Iterator[tuple[os.DirEntry[str] | OSError, str]]:
    """Every entry below `root` with its relative path, except inside hidden folders."""
    waiting = [(root, "")]
    while waiting:
        current, parent = waiting.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            yield error, parent or "."
            continue
        for entry in entries:
            path = f"{parent}/{entry.name}" if parent else entry.name
            yield entry, path
            if entry.is_dir(follow_symlinks=False) and not _is_hidden(entry.name):
                waiting.append((Path(entry.path), path))


def _count_files(folder: os.DirEntry[str]) -> str:
    n_files = sum(len(names) for _, _, names in os.walk(folder.path))
    return f"a folder of {n_files:,} file{'s' if n_files != 1 else ''}"


def _find_problem(entry: os.DirEntry[str]) -> str:
    """Why an entry is not a regular file that may be opened; empty if it is one."""
    try:
        mode = entry.stat().st_mode
    except OSError as error:  # if it is not a link, reading it gives the reason
        return f"broken link ({error.strerror})" if entry.is_symlink() else ""
    if stat.S_ISDIR(mode):
        return "link to a folder"
    return "" if stat.S_ISREG(mode) else "pipe, socket or device"


def _read_all(root: Path, paths: list[str], report: Report) -> list[_File]:
    """Read all files; of several processes each reads its share, and all get the result."""
    own, files = paths[share(len(paths))], list[_File]()
    with STRICT:
        read = partial(_read, root)
        for file in map(read, own) if _are_small(root, own) else map_in_threads(read, own):
            files.append(file)
            if len(files) % 64 == 0 or len(files) == len(own):
                report(len(files), len(own))
    if process_count() == 1:
        return files
    names = "\0".join(paths).encode(errors="surrogatepass")
    assert_same_on_all_processes(content_hash(names).hex(), "files to scan")
    rows = gather([[file.hash.hex(), file.rejected and file.rejected.to_json()] for file in files])
    return [
        _File(path, bytes.fromhex(digest), rejected and rejected_from_json(rejected))
        for path, (digest, rejected) in zip(paths, rows, strict=True)
    ]


def _are_small(root: Path, paths: list[str]) -> bool:
    """Whether files are read so quickly that threads would mostly wait for each other."""
    sizes = []
    for path in paths[:: max(1, len(paths) // 64)]:
        with suppress(OSError, ValueError):
            sizes.append((root / path).stat().st_size)
    return sum(sizes) < _SMALL_BYTES * len(sizes)


def _read(root: Path, path: str) -> _File:
    def read_and_check() -> bytes:
        is_file = root.is_dir() and not is_row(root, path)
        if is_file and not stat.S_ISREG((root / path).stat().st_mode):
            detail = "a folder, pipe, socket or device"
            raise RejectedPhotoError(RejectionReason.SPECIAL_FILE, detail)
        content = read_file(root, path)
        check_complete(content)
        return content_hash(content)

    result = reject_failures(path, read_and_check, _REASONS)
    return _File(path, b"", result) if isinstance(result, Rejected) else _File(path, result, None)


def _label_by_folder(root: Path, files: list[_File], rejected: list[Rejected]) -> Photos:
    """Take the split and the class of each usable file from its folders."""
    folders = [tuple(file.path.split("/")[:-1]) for file in files]
    n_wrappers = _count_wrappers(folders)
    split_folders = _find_split_folders([names[n_wrappers:] for names in folders])
    usable: list[tuple[_File, ManifestRow]] = []
    for file, names in zip(files, folders, strict=True):
        split, rest = "", names[n_wrappers:]
        prefix = next((rest[:k] for k in (2, 1) if rest[:k] in split_folders), ())
        if prefix:
            split, rest = SPLIT_OF_NAME[prefix[0].lower()], rest[len(prefix) :]
        if rest or split == "unlabeled":
            label = "" if split == "unlabeled" else rest[0]
            usable.append((file, ManifestRow(path=file.path, label=label, split=split)))
        else:
            detail = f"{printable(names[-1])!r} names a split, not a class" if split else ""
            reason = RejectionReason.NO_CLASS_FOLDER
            rejected.append(Rejected(path=file.path, reason=reason, detail=detail))
    return _to_photos(root, usable, rejected, "an empty folder")


def _find_split_folders(folders: list[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Which first folders of photos, or first two, are splits and not classes.

    Names like "valid" or "test" may also be classes. They are splits if all folders next to them
    are splits, or if two of them share the name of a class folder. ``train/train`` is one split, as
    in the Intel archive, if the inner folder contains the class folders.
    """
    inside: defaultdict[str, set[str]] = defaultdict(set)  # the folders in each first folder
    for names in folders:
        if names:
            inside[names[0]].update(names[1:2])
    of_name = {
        name: SPLIT_OF_NAME[name.lower()] for name in inside if name.lower() in SPLIT_OF_NAME
    }
    labeled = [name for name, split in of_name.items() if split != "unlabeled"]
    others = set().union(*(inside[name] for name in inside if name not in of_name))
    shared = any((inside[a] & inside[b]) - others for a, b in itertools.combinations(labeled, 2))
    if len(of_name) < len(inside) and not shared:
        of_name = {name: "" for name, split in of_name.items() if split == "unlabeled"}
    found: set[tuple[str, ...]] = set()
    for name in of_name:
        found.add((name,))
        for inner in inside[name]:
            if inner.lower() != name.lower():
                continue
            paths = [names for names in folders if names[:2] == (name, inner)]
            classes, siblings = {names[2] for names in paths if names[2:]}, inside[name] - {inner}
            has_classes = sum(len(names) > 2 for names in paths) > len(paths) / 2
            if has_classes and (not siblings or classes & siblings):
                found.add((name, inner))
    return found


def _to_photos(
    root: Path, usable: list[tuple[_File, ManifestRow]], rejected: list[Rejected], empty: str
) -> Photos:
    def label_of(row: ManifestRow) -> str:
        # The same name may be stored as é or as e and an accent: by macOS, for example.
        return "" if row.split == "unlabeled" else unicodedata.normalize("NFC", row.label.strip())

    unlabeled = [row.path for _, row in usable if not label_of(row)]
    labeled = [(file, row) for file, row in usable if label_of(row)]
    if not labeled:
        raise _no_photos_error(root, unlabeled, rejected, empty)
    labels = [label_of(row) for _, row in labeled]
    names = tuple(sorted(set(labels)))
    position = {name: k for k, name in enumerate(names)}
    has_groups = any(row.group for _, row in labeled)
    photos = Photos(
        folder=root,
        paths=tuple(row.path for _, row in labeled),
        labels=np.array([position[label] for label in labels], dtype=np.int32),
        class_names=names,
        hashes=tuple(file.hash for file, _ in labeled),
        splits=tuple(row.split for _, row in labeled),
        unlabeled=tuple(unlabeled),
        rejected=tuple(sorted(rejected, key=lambda file: file.path)),
        groups=tuple(row.group for _, row in labeled) if has_groups else (),
    )
    return apply_decisions(photos)


def _count_wrappers(folders: list[tuple[str, ...]]) -> int:
    """How many leading folders contain all class folders, and are neither a split nor a class.

    A few photos next to the class folders do not turn their common folder into a class.
    """
    n = 0
    while True:
        names = {path[n] for path in folders if len(path) > n}
        n_at_this_depth = sum(len(path) == n + 1 for path in folders)
        n_deeper = sum(len(path) > n + 1 for path in folders)
        is_split = names and next(iter(names)).lower() in SPLIT_OF_NAME
        if len(names) != 1 or is_split or n_deeper <= n_at_this_depth:
            return n
        n += 1


def _no_photos_error(
    root: Path, unlabeled: list[str], rejected: list[Rejected], empty: str
) -> NoPhotosError:
    shown = "; ".join(first_lines(rejected, 5))
    parts = [f"{len(rejected):,} rejected: {shown}"] if rejected else []
    if unlabeled:
        parts.insert(0, f"{len(unlabeled):,} unlabeled, such as {printable(unlabeled[0])!r}")
    return NoPhotosError(
        f"{str(root)!r} has no usable photo with a class. Expected one folder per class, with "
        "its photos inside, or a manifest with labels. "
        f"Received: {'; '.join(parts) or empty}. "
        "Put the photos of each class into a folder named after it, e.g. sea/ and street/."
    )
