"""Manifests: tables of photos with their labels and, optionally, splits, groups and hashes."""

from __future__ import annotations

import contextlib
import csv
import io
import numbers
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from scenelearn._checks import check_path
from scenelearn._display import printable
from scenelearn._io import atomic_write
from scenelearn.errors import ManifestError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "label", "split", "group", "hash")
_NAMES = "surrogatepass"  # names on the disk that are not valid Unicode

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


def read_manifest(table: Path | pd.DataFrame) -> list[ManifestRow]:
    """Read and check the rows of a manifest.

    Args:
        table: ``.csv`` (UTF-8, with a header line) or ``.parquet``, or a data frame. Columns "path"
            and "label"; "split", "group" and "hash" are optional; other columns are ignored.

    Returns:
        The rows, in the table's order.

    Raises:
        ManifestError: if the file cannot be read, is not valid CSV in UTF-8, or lacks a column; if
            a row has no path, more or fewer cells than the header, or a cell that is not text; if a
            path is listed twice, or a split or hash is invalid.
    """
    name = repr(str(table)) if isinstance(table, Path) else "the data frame"
    places = _read_rows(table, COLUMNS) if isinstance(table, Path) else _read_frame(table)
    rows: list[ManifestRow] = []
    place_of: dict[str, str] = {}
    for place, cells in places:
        row = _parse_row(cells, f"{name}, {place}")
        if row.path in place_of:
            raise ManifestError(
                f"{name}, {place}: each photo must be listed once. Received: "
                f"{printable(row.path)!r}, which is also on {place_of[row.path]}. "
                "Remove one of the lines."
            )
        place_of[row.path] = place
        rows.append(row)
    return rows


def is_frame(value: object) -> TypeGuard[pd.DataFrame]:
    """Whether a value is a ``pandas.DataFrame``. pandas is not imported for it."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def write_manifest(file: str | os.PathLike[str], rows: Iterable[ManifestRow]) -> Path:
    """Write a manifest as CSV, atomically.

    Args:
        file: the file to write or replace; its name ends in ``.csv``.
        rows: the rows.

    Returns:
        The path.

    Raises:
        ArgumentError: if `file` is no path or a folder, or its folder is not writable.
        ManifestError: if the name does not end in ``.csv``.
    """
    path = check_path("file", file, advice="Pass e.g. 'split.csv'.")
    if path.suffix.lower() != ".csv":
        raise ManifestError(
            f"A manifest must be a .csv file. Received: {str(path)!r}. Let its name end in '.csv'."
        )
    cells = ((row.path, row.label, row.split, row.group, row.hash.hex()) for row in rows)
    write_table(path, COLUMNS, cells)
    return path


def write_table(file: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table that `read_table` reads as CSV, atomically.

    Raises:
        ArgumentError: if the folder is not writable.
        DiskSpaceError: if the disk is full.
        DiskError: if the system cannot write the file.
    """
    with (
        atomic_write(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors=_NAMES) as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in (columns, *rows):  # before Python 3.13, a carriage return is not quoted
            (quoting if "\r" in "".join(row) else writer).writerow(row)


def read_table(file: Path, columns: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Read the rows of a manifest as they are, each a dictionary by column.

    Args:
        file: ``.csv`` or ``.parquet``.
        columns: the columns to read from a Parquet file; None for all. CSV rows have all.

    Yields:
        The rows, in the file's order.

    Raises:
        ManifestError: if the file cannot be read, is not valid CSV in UTF-8, has no column "path"
            or "label", or a row with more or fewer cells than the header.
    """
    return (cells for _, cells in _read_rows(file, columns))


def _read_rows(file: Path, columns: Collection[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `read_table`, with the place of each row: its first line in the file, or its number."""
    try:
        if file.suffix.lower() == ".parquet":
            rows = _read_parquet(file, columns)
            yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))
        else:
            yield from _read_csv(file)
    except OSError as error:
        raise ManifestError(
            f"{str(file)!r} must be a table of photos. Received: {error}. Fix or replace it."
        ) from None


def _read_frame(frame: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a data frame; paths are text, and missing cells are None."""
    _check_columns("the data frame", map(str, frame.columns))
    wanted = frame[[name for name in COLUMNS if name in frame.columns]].astype(object)
    rows = wanted.where(wanted.notna(), None).to_dict("records")
    for number, row in enumerate(rows):
        path = row["path"]
        text = os.fspath(path) if isinstance(path, os.PathLike) else path
        yield f"row {number}", {str(name): cell for name, cell in row.items()} | {"path": text}


def _read_csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig", errors=_NAMES)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"{str(file)!r}, line {line}: the text must be encoded as UTF-8. Received: the byte "
            f"0x{content[error.start]:02x}. Save the table as 'CSV UTF-8'."
        ) from None
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    line, names = 1, list[str]()
    try:
        for cells in table:
            if names and cells and len(cells) != len(names):
                raise ManifestError(
                    f"{str(file)!r}, line {line}: a row must have {len(names)} cells, like the "
                    f"first line. Received: {len(cells)}: {printable(','.join(cells)):.120}. Put "
                    "quotation marks around cells that contain commas."
                )
            if names and cells:
                yield f"line {line}", dict(zip(names, cells, strict=True))
            elif cells:
                names = [name.strip() for name in cells]
                _check_columns(repr(str(file)), names)
            line = table.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{str(file)!r}, line {line}: must be a table of photos in valid CSV. Received: "
            f"{error}. Close each quotation mark that opens a cell; inside a cell, write it twice."
        ) from None
    if not names:
        _check_columns(repr(str(file)), ())


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
        _check_columns(repr(str(file)), names)
        wanted = [name for name in names if columns is None or name in columns]
        rows: list[dict[str, Any]] = parquet.read_table(file, columns=wanted).to_pylist()
    except (ArrowException, ValueError) as error:
        if isinstance(error, ManifestError):
            raise
        raise OSError(str(error)) from None
    return rows


def _check_columns(table: str, names: Iterable[str]) -> None:
    columns = list(names)
    missing = [name for name in ("path", "label") if name not in columns]
    twice = sorted({name for name in COLUMNS if columns.count(name) > 1})
    if missing or twice:
        advice = f"Add {' and '.join(map(repr, missing))} to its first line; separate by commas"
        if twice:
            advice = f"Name only one column {twice[0]!r}"
        shown = [repr(name[:80]) for name in columns[:20]] + ["…"] * (len(columns) > 20)
        raise ManifestError(
            f"{table} must have the columns 'path' and 'label', and may have 'split', "
            f"'group' and 'hash'. Received: {', '.join(shown) or 'none'}. {advice}."
        )


def _parse_row(row: dict[str, Any], where: str) -> ManifestRow:
    cells = {name: to_text(row.get(name), f"{where}: {name!r}") for name in COLUMNS}
    path, split, hex_digits = cells["path"], cells["split"].lower(), cells["hash"]
    if not path.strip() or "\0" in path:
        received = repr(path) if path else "nothing"
        raise ManifestError(f"{where}: 'path' must name a photo. Received: {received}. Fill it in.")
    if split and split not in SPLIT_OF_NAME:
        raise ManifestError(
            f"{where}: 'split' must be empty or one of {', '.join(SPLIT_OF_NAME)}. "
            f"Received: {cells['split']!r}. Change it."
        )
    content_hash = b"?"
    with contextlib.suppress(ValueError):
        content_hash = bytes.fromhex(hex_digits)
    if len(content_hash) not in (0, 16):
        raise ManifestError(
            f"{where}: 'hash' must be empty or 32 hexadecimal digits, as `Splits.save` writes it. "
            f"Received: {hex_digits!r}. Leave the column out if you have no hashes."
        )
    return ManifestRow(
        path=posix_path(path),
        label=cells["label"],
        split=SPLIT_OF_NAME.get(split, ""),
        group=cells["group"],
        hash=content_hash,
    )


def posix_path(path: str) -> str:
    """A path as `scan` lists it, also where a manifest was written on Windows."""
    return path.replace("\\", "/") if os.sep == "\\" else path


def to_text(cell: object, where: str) -> str:
    """A cell as text; all but paths without spaces at the ends.

    Raises:
        ManifestError: if it is neither text nor an integer.
    """
    if cell is None:
        return ""
    if not isinstance(cell, str | numbers.Integral) or isinstance(cell, bool):
        raise ManifestError(
            f"{where} must be text or an integer. Received: {cell!r:.80}. Convert the column to "
            "strings; leave unknown cells empty."
        )
    text = str(cell) if where.endswith("'path'") else str(cell).strip()
    if not where.endswith("'path'") and re.search(r",[^\n]*\n|\n[^\n]*,", text):
        raise ManifestError(
            f"{where} must not contain other rows. Received: {text!r:.80}. A quotation mark is "
            "probably missing, or one too many."
        )
    return text
