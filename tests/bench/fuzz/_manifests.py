"""Manifests: valid tables are read exactly, all others are refused by line."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import random
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

import scenelearn as sl
from scenelearn.data._manifest import SPLIT_OF_NAME, ManifestRow, read_manifest
from tests.bench.fuzz._cases import Case, damage, odd_text
from tests.helpers.photo_files import put_all

_SPLITS = ("", "train", "Val", "TEST", "dev", "seg_pred", "unlabelled")
_OPTIONAL = ("split", "group", "hash")


def manifests(folder: Path) -> Case:
    """Read a CSV or Parquet file, valid or damaged."""
    photos = [f"{name}/{k}.png" for name in ("sea", "street") for k in range(2)]
    put_all(folder, photos)
    csv_file, parquet_file = folder / "photos.csv", folder / "photos.parquet"

    def case(random: random.Random) -> str:
        kind = random.randrange(20)
        if kind == 0:
            return _parquet(parquet_file, random)
        if kind == 1:
            return _scan(folder, csv_file, photos, random)
        rows = _rows(random)
        content = _csv(rows, random)
        if kind < 8:
            csv_file.write_bytes(content)
            assert read_manifest(csv_file) == rows
            return "read"
        content, is_invalid = _break(content, random)
        csv_file.write_bytes(content)
        found = read_manifest(csv_file)
        assert not is_invalid, f"accepted {content!r:.300}"
        text = content.decode("utf-8-sig", "surrogatepass")
        text += text.replace('""', '"')  # a quoted cell doubles its quotation marks
        assert all(row.path in text and row.label in text for row in found)
        assert len({row.path for row in found}) == len(found)
        return "damaged, but valid"

    return case


def _rows(random: random.Random) -> list[ManifestRow]:
    """Rows with odd, but valid cells."""
    paths = {f"{odd_text(random)}{k}" for k in range(random.randint(1, 5))}
    return [
        ManifestRow(
            path=path,
            label=odd_text(random).strip(),
            split=SPLIT_OF_NAME.get(random.choice(_SPLITS).lower(), ""),
            group=random.choice(("", odd_text(random).strip())),
            hash=random.choice((b"", random.randbytes(16))),
        )
        for path in sorted(paths)
    ]


def _csv(rows: list[ManifestRow], random: random.Random) -> bytes:
    """A table as programs write it: columns in any order, and with any quotation marks."""
    columns = ["path", "label", *_OPTIONAL, *random.sample(("width", "note", ""), 2)]
    random.shuffle(columns)
    text = io.StringIO(newline="")
    writer = csv.writer(
        text,
        lineterminator=random.choice(("\n", "\r\n")),
        quoting=random.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC)),
    )
    writer.writerow([random.choice(("", " ")) + name for name in columns])
    for row in rows:
        cells = {name: getattr(row, name) for name in ("path", "label", "group")}
        cells |= {"hash": row.hash.hex(), "note": odd_text(random), "width": 3}
        cells["split"] = random.choice((row.split, row.split.upper()))
        writer.writerow([cells.get(name, "") for name in columns])
        if random.random() < 0.1:
            text.write("\n")  # an empty line
    mark = random.choice((b"", b"\xef\xbb\xbf"))
    return mark + text.getvalue().encode("utf-8", "surrogatepass")


def _break(content: bytes, random: random.Random) -> tuple[bytes, bool]:
    """Damage a table; also return whether it certainly is not valid anymore."""
    lines = content.splitlines(keepends=True)
    kind = random.randrange(7)
    if kind == 0:
        return content.replace(b",", random.choice((b";", b"\t", b"|")), 1), False
    if kind == 1:  # another encoding
        text = content.decode("utf-8", "surrogatepass").replace("\ufeff", "").strip() + "\u00e9\n"
        name = random.choice(("latin-1", "utf-16", "cp1252", "utf-16-be"))
        return text.encode(name, "replace"), True
    if kind == 2:  # a line twice, or a cell more
        line = random.choice(lines)
        return content + b"\n" + random.choice((line, line.strip() + b",more")), False
    if kind == 3:  # a quotation mark too many
        at = random.randrange(len(content) + 1)
        return content[:at] + b'"' + content[at:], False
    if kind == 4:  # no header, or a part of it
        return b"".join(lines[1:]), False
    if kind == 5:
        return content.replace(b"label", random.choice((b"path", b"class", b"Label"))), False
    return damage(content, b"".join(reversed(lines)), random), False


def _scan(folder: Path, file: Path, photos: list[str], random: random.Random) -> str:
    """Scan the photos that a table lists: each is used, or rejected with a reason."""
    listed = random.sample(photos, random.randint(0, len(photos)))
    missing = [name for name in (odd_text(random, longest=300) + "x",) if random.random() < 0.5]
    rows = [(path, odd_text(random).strip()) for path in (*listed, *missing)]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("path", "label"), *rows])
    file.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    found = sl.scan(folder, file, verbose=False)
    assert sorted([*found.paths, *found.unlabeled]) == sorted(listed)
    assert [each.path for each in found.rejected] == missing
    labels = {path: unicodedata.normalize("NFC", label) for path, label in rows}
    names = [found.class_names[k] for k in found.labels]
    assert names == [labels[path] for path in found.paths]
    return "scanned"


def _parquet(file: Path, random: random.Random) -> str:
    """Columns of any type: text and integers are read exactly, all others refused."""
    n = random.randint(0, 3)
    values: dict[str, Any] = {
        "text": lambda: odd_text(random).strip().encode("utf-8", "replace").decode(),
        "integer": lambda: random.randint(-9, 9),
        "unsigned": lambda: random.randint(0, 2**64 - 1),
        "none": lambda: None,
        "float": lambda: random.choice((1.0, float("nan"), 2.5)),
        "bool": lambda: random.random() < 0.5,
        "bytes": lambda: odd_text(random).encode("utf-8", "replace"),
        "date": lambda: datetime.date(2020, 1, 2),
        "decimal": lambda: decimal.Decimal("1.5"),
        "list": lambda: ["sea"],
        "struct": lambda: {"a": 1},
    }
    kind = random.choice(list(values))
    labels = [values[kind]() for _ in range(n)]
    column = pa.array(labels, pa.uint64()) if kind == "unsigned" else pa.array(labels)
    if kind == "text" and random.random() < 0.5:
        column = column.dictionary_encode()
    columns = {"path": pa.array([f"{k}.png" for k in range(n)], pa.string()), "label": column}
    if random.random() < 0.1:
        columns["split"] = pa.array([random.choice(_SPLITS) for _ in range(n)], pa.string())
    parquet.write_table(pa.table(columns), file)
    if random.random() < 0.4:
        content = file.read_bytes()
        file.write_bytes(damage(content, content, random))
        read_manifest(file)
        return "damaged, but valid"
    rows = read_manifest(file)
    assert not n or kind in ("text", "integer", "unsigned", "none"), f"accepted {labels}"
    assert [row.label for row in rows] == ["" if x is None else str(x).strip() for x in labels]
    return "read"
