"""A manifest: a table of photos with their classes, and with sides, groups and hashes if known."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenelearn._display import printable
from scenelearn._io import atomic_write
from scenelearn.errors import ManifestError

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "label", "split", "group", "hash")

# Names of sides, in manifests and of folders: those of common archives, the Intel one's
# seg_train, seg_test, seg_pred among them.
SIDE_NAMES = {
    "train": "train", "training": "train", "seg_train": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "seg_test": "test",
    "pred": "unlabeled", "predict": "unlabeled", "seg_pred": "unlabeled",
    "unlabeled": "unlabeled", "unlabelled": "unlabeled",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One row.

    Attributes:
        path: of the photo, relative to its folder or archive.
        label: the class's name; empty if it has none.
        side: "train", "validation", "test", "unlabeled" or "".
        group: photos of one name belong together; "" for none.
        hash: the file's `content_hash` when it was listed; empty if unknown.
    """

    path: str
    label: str
    side: str = ""
    group: str = ""
    hash: bytes = b""


def read_manifest(file: Path) -> list[Listed]:
    """The rows of a manifest.

    Args:
        file: ``.csv`` with a header line, UTF-8, or ``.parquet``. Columns "path" and "label";
            "split", "group" and "hash" if known; others are passed over.

    Returns:
        The rows, in the file's order.

    Raises:
        ManifestError: if the file cannot be read, a column is missing, a row has no path, a path
            comes twice, or a split or hash is none.
    """
    listed: list[Listed] = []
    line_of: dict[str, int] = {}
    for line, row in enumerate(_rows(file), start=2):
        one = _listed(row, f"{str(file)!r}, line {line}")
        if one.path in line_of:
            raise ManifestError(
                f"{str(file)!r}, line {line}: each photo must be listed once. Received: "
                f"{printable(one.path)!r}, which line {line_of[one.path]} lists as well. "
                "Remove one of the lines."
            )
        line_of[one.path] = line
        listed.append(one)
    return listed


def write_manifest(file: str | os.PathLike[str], listed: Iterable[Listed]) -> Path:
    """Write a manifest as CSV, whole or not at all.

    Args:
        file: a name that ends in ``.csv``.
        listed: the rows.

    Returns:
        The path.

    Raises:
        ArgumentError: if `file` is a folder, or its folder cannot be written to.
        ManifestError: if the name has another ending.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() != ".csv":
        raise ManifestError(
            f"A manifest is written as CSV. Received: {str(path)!r}. Give it a name in '.csv'."
        )
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as text,
    ):
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        for one in listed:
            rows.writerow((one.path, one.label, one.side, one.group, one.hash.hex()))
    return path


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix.lower() == ".parquet":
            yield from _parquet(file)
            return
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
            table = csv.DictReader(text)
            _check_columns(file, table.fieldnames or ())
            yield from table
    except (OSError, csv.Error, UnicodeError) as error:
        raise ManifestError(
            f"{str(file)!r} must be a table of photos. Received: {error}. Mend or replace it."
        ) from None


def _parquet(file: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ManifestError(
            f"Reading {str(file)!r} needs pyarrow, which is not installed. "
            "Run: pip install 'scenelearn[parquet]', or save the table as CSV."
        ) from None
    try:
        schema = parquet.read_schema(file).names
        _check_columns(file, schema)
        wanted = [name for name in COLUMNS if name in schema]
        rows: list[dict[str, Any]] = parquet.read_table(file, columns=wanted).to_pylist()
    except (ArrowException, ValueError) as error:
        if isinstance(error, ManifestError):
            raise
        raise OSError(str(error)) from None
    return rows


def _check_columns(file: Path, names: Iterable[str]) -> None:
    found = list(names)
    missing = [name for name in ("path", "label") if name not in found]
    if missing:
        raise ManifestError(
            f"{str(file)!r} must have the columns 'path' and 'label', and may have 'split', "
            f"'group' and 'hash'. Received: {', '.join(map(repr, found)) or 'none'}. "
            f"Add {' and '.join(map(repr, missing))} to its first line."
        )


def _listed(row: dict[str, Any], where: str) -> Listed:
    cells = {name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS}
    side = cells["split"].strip().lower()
    if not cells["path"]:
        raise ManifestError(f"{where}: 'path' must name a photo. Received: nothing. Fill it in.")
    if side and side not in SIDE_NAMES:
        raise ManifestError(
            f"{where}: 'split' must be empty or one of {', '.join(SIDE_NAMES)}. "
            f"Received: {cells['split']!r}. Change it."
        )
    try:
        known = bytes.fromhex(cells["hash"])
    except ValueError:
        known = b"?"
    if len(known) not in (0, 16):
        raise ManifestError(
            f"{where}: 'hash' must be empty or 32 hexadecimal digits, as `Splits.save` writes it. "
            f"Received: {cells['hash']!r}. Leave the column out if you have no hashes."
        )
    return Listed(
        path=cells["path"].replace("\\", "/") if os.sep == "\\" else cells["path"],
        label=cells["label"],
        side=SIDE_NAMES.get(side, ""),
        group=cells["group"],
        hash=known,
    )
