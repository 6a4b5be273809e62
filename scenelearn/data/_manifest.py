"""Manifests: tables of photos with their labels and, optionally, splits, groups and hashes."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenelearn._display import printable
from scenelearn._io import atomic_write
from scenelearn.errors import ManifestError

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "label", "split", "group", "hash")

# Names of splits, in manifests and of folders. seg_train, seg_test and seg_pred are those of the
# Intel Image Classification archive.
SPLIT_OF_NAME = {
    "train": "train", "training": "train", "seg_train": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test", "seg_test": "test",
    "pred": "unlabeled", "predict": "unlabeled", "seg_pred": "unlabeled",
    "unlabeled": "unlabeled", "unlabelled": "unlabeled",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One row of a manifest.

    Attributes:
        path: the photo's path, relative to its folder or archive.
        label: the name of its class; empty if it has none.
        split: "train", "validation", "test", "unlabeled" or "".
        group: photos with the same name belong together; "" for none.
        hash: the file's `content_hash` when the manifest was written; empty if unknown.
    """

    path: str
    label: str
    split: str = ""
    group: str = ""
    hash: bytes = b""


def read_manifest(file: Path) -> list[ManifestRow]:
    """Read and check the rows of a manifest.

    Args:
        file: ``.csv`` (UTF-8, with a header line) or ``.parquet``. Columns "path" and "label";
            "split", "group" and "hash" are optional; other columns are ignored.

    Returns:
        The rows, in the file's order.

    Raises:
        ManifestError: if the file cannot be read, a column is missing, a row has no path, a path
            is listed twice, or a split or hash is invalid.
    """
    rows: list[ManifestRow] = []
    line_of: dict[str, int] = {}
    for line, cells in enumerate(read_table(file, COLUMNS), start=2):
        row = _parse_row(cells, f"{str(file)!r}, line {line}")
        if row.path in line_of:
            raise ManifestError(
                f"{str(file)!r}, line {line}: each photo must be listed once. Received: "
                f"{printable(row.path)!r}, which is also on line {line_of[row.path]}. "
                "Remove one of the lines."
            )
        line_of[row.path] = line
        rows.append(row)
    return rows


def write_manifest(file: str | os.PathLike[str], rows: Iterable[ManifestRow]) -> Path:
    """Write a manifest as CSV, atomically.

    Args:
        file: the file to write or replace; its name ends in ``.csv``.
        rows: the rows.

    Returns:
        The path.

    Raises:
        ArgumentError: if `file` is a folder, or its folder is not writable.
        ManifestError: if the name does not end in ``.csv``.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() != ".csv":
        raise ManifestError(
            f"A manifest must be a .csv file. Received: {str(path)!r}. Let its name end in '.csv'."
        )
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow((row.path, row.label, row.split, row.group, row.hash.hex()))
    return path


def read_table(file: Path, columns: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read the rows of a manifest as they are, each a dictionary by column.

    Args:
        file: ``.csv`` or ``.parquet``.
        columns: the columns to read from a Parquet file; None for all. CSV rows have all.

    Yields:
        The rows, in the file's order.

    Raises:
        ManifestError: if the file cannot be read, or has no column "path" or "label".
    """
    try:
        if file.suffix.lower() == ".parquet":
            yield from _read_parquet(file, columns)
            return
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
            table = csv.DictReader(text)
            _check_columns(file, table.fieldnames or ())
            yield from table
    except (OSError, csv.Error, UnicodeError) as error:
        raise ManifestError(
            f"{str(file)!r} must be a table of photos. Received: {error}. Fix or replace it."
        ) from None


def _read_parquet(file: Path, columns: Collection[str] | None) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ManifestError(
            f"Reading {str(file)!r} needs pyarrow, which is not installed. "
            "Run: pip install 'scenelearn[parquet]', or save the table as CSV."
        ) from None
    try:
        names = parquet.read_schema(file).names
        _check_columns(file, names)
        wanted = [name for name in names if columns is None or name in columns]
        rows: list[dict[str, Any]] = parquet.read_table(file, columns=wanted).to_pylist()
    except (ArrowException, ValueError) as error:
        if isinstance(error, ManifestError):
            raise
        raise OSError(str(error)) from None
    return rows


def _check_columns(file: Path, names: Iterable[str]) -> None:
    columns = list(names)
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise ManifestError(
            f"{str(file)!r} must have the columns 'path' and 'label', and may have 'split', "
            f"'group' and 'hash'. Received: {', '.join(map(repr, columns)) or 'none'}. "
            f"Add {' and '.join(map(repr, missing))} to its first line."
        )


def _parse_row(row: dict[str, Any], where: str) -> ManifestRow:
    cells = {name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS}
    split = cells["split"].strip().lower()
    if not cells["path"]:
        raise ManifestError(f"{where}: 'path' must name a photo. Received: nothing. Fill it in.")
    if split and split not in SPLIT_OF_NAME:
        raise ManifestError(
            f"{where}: 'split' must be empty or one of {', '.join(SPLIT_OF_NAME)}. "
            f"Received: {cells['split']!r}. Change it."
        )
    try:
        content_hash = bytes.fromhex(cells["hash"])
    except ValueError:
        content_hash = b"?"
    if len(content_hash) not in (0, 16):
        raise ManifestError(
            f"{where}: 'hash' must be empty or 32 hexadecimal digits, as `Splits.save` writes it. "
            f"Received: {cells['hash']!r}. Leave the column out if you have no hashes."
        )
    return ManifestRow(
        path=cells["path"].replace("\\", "/") if os.sep == "\\" else cells["path"],
        label=cells["label"],
        split=SPLIT_OF_NAME.get(split, ""),
        group=cells["group"],
        hash=content_hash,
    )
