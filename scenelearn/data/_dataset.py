"""Hugging Face image datasets on the disk: Parquet and Arrow files whose rows contain photos.

The photos stay where they are. A row counts as a file whose path is the shard's path and the number
of the row, such as ``data/train-00000-of-00002.parquet/0017``, so everything that reads photos by
their path reads those as well.
"""

from __future__ import annotations

import bisect
import errno
import functools
import itertools
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenelearn._threads import n_threads
from scenelearn.data._manifest import SPLIT_OF_NAME, ManifestRow, to_text

SHARD_SUFFIXES = (".parquet", ".arrow")
_ROW = re.compile(r"(.+\.(?:parquet|arrow))/([0-9]{1,12})", re.DOTALL | re.IGNORECASE)
# Of the row groups in memory: those of image datasets usually take 10 to 100 MB. More if threads
# read from different row groups, each of which would otherwise be read again for each photo.
_CACHE_BYTES, _MAX_CACHE_BYTES = 128 * 2**20, 2 * 2**30
_MAX_GROUP_BYTES = 4 * 2**30  # uncompressed; what a file states, before it is read


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shard:
    """An open shard.

    Attributes:
        label: the name of the column of labels; empty if there is none.
        class_names: the names of the labels, if these are integers.
        starts: the first row of each row group, and the number of rows.
        load: from a row group's number to its photos, an array of binary values.
        read_column: from a column's name to its values.
    """

    label: str
    class_names: tuple[str, ...]
    starts: list[int]
    load: Callable[[int], Any]
    read_column: Callable[[str], list[Any]]


def has_photos(file: Path) -> bool:
    """Whether a file is a shard with a column of photos; False if pyarrow is not installed."""
    if file.suffix.lower() not in SHARD_SUFFIXES or not os.path.isfile(file):  # noqa: PTH113
        return False
    try:
        _open(file)
    except (ImportError, OSError):
        return False
    return True


def is_row(root: Path, path: str) -> bool:
    """Whether a path below a folder is that of a row of a shard."""
    match = _ROW.fullmatch(path)
    return match is not None and os.path.isfile(root / match[1])  # noqa: PTH113


def list_rows(root: Path, shard: str) -> list[ManifestRow]:
    """List the photos of a shard with their classes. Only the column of labels is read.

    Args:
        root: the folder.
        shard: the shard's path in it.

    Returns:
        One row per photo, in the file's order. The split is the one that the name of the file, or
        of the nearest folder, contains. Labels that are missing or negative are empty.

    Raises:
        OSError: if the shard is damaged or cannot be read.
        ManifestError: if a label is neither text nor an integer.
    """
    opened = _open(root / shard)
    n, names, split = opened.starts[-1], opened.class_names, _split_of(shard)
    with _damage_is_an_os_error():
        labels = opened.read_column(opened.label) if opened.label else [None] * n
    digits = len(str(n))
    rows = []
    for k, label in enumerate(labels):
        text = to_text(label, f"{shard!r}, row {k}: {opened.label!r}")
        if names and isinstance(label, int):
            text = names[label] if 0 <= label < len(names) else ""
        rows.append(ManifestRow(path=f"{shard}/{k:0{digits}d}", label=text, split=split))
    return rows


def read_row(root: Path, path: str) -> bytes:
    """Read the photo of one row.

    Neighboring rows are read together and kept for a while: at most 128 MiB, or one row group, or
    one for each thread if they take at most 2 GiB.

    Args:
        root: the folder of the shard, or the shard.
        path: the path of the row in `root`.

    Raises:
        OSError: if there is no such row, it has no photo, or the shard cannot be read.
    """
    match = _ROW.fullmatch(f"{root}/{path}")
    if match is None or not os.path.isfile(match[1]):  # noqa: PTH113
        raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
    file, row = Path(match[1]), int(match[2])
    shard = _open(file)
    if row >= shard.starts[-1]:
        raise FileNotFoundError(errno.ENOENT, "no longer in the dataset", path)
    group = bisect.bisect_right(shard.starts, row) - 1
    content = _groups.get(shard, group)[row - shard.starts[group]].as_py()
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "the dataset has a path only, and no bytes", path)
    return bytes(content)


class _RowGroups:
    """The row groups that were read last, for several threads that read neighboring rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrays: OrderedDict[tuple[int, int], tuple[_Shard, Any]] = OrderedDict()

    def get(self, shard: _Shard, group: int) -> Any:
        """The photos of a row group. One is read at a time, so that memory stays bounded."""
        with self._lock:
            key = (id(shard), group)
            if key in self._arrays:
                self._arrays.move_to_end(key)
            else:
                self._make_room(0)
                with _damage_is_an_os_error():
                    self._arrays[key] = shard, shard.load(group)
                self._make_room(1)
            return self._arrays[key][1]

    def _make_room(self, n_kept: int) -> None:
        n_bytes = sum(array.nbytes for _, array in self._arrays.values())
        while (n_groups := len(self._arrays)) > n_kept:
            if n_bytes <= (_CACHE_BYTES if n_groups > n_threads() else _MAX_CACHE_BYTES):
                break
            _, (_, array) = self._arrays.popitem(last=False)
            n_bytes -= array.nbytes


_groups = _RowGroups()


def _open(file: Path) -> _Shard:
    info = file.stat()
    with _damage_is_an_os_error():
        return _open_version(file, info.st_mtime_ns, info.st_size)


@functools.lru_cache(maxsize=16)
def _open_version(file: Path, *_: int) -> _Shard:
    """Open a shard; its schema is read once per version."""
    return _open_parquet(file) if file.suffix.lower() == ".parquet" else _open_arrow(file)


def _open_parquet(file: Path) -> _Shard:
    from pyarrow import parquet

    opened = parquet.ParquetFile(file)
    image, label, names = _find_columns(opened.schema_arrow)
    groups = [opened.metadata.row_group(k) for k in range(opened.metadata.num_row_groups)]

    def load(group: int) -> Any:
        sizes = (groups[group].column(k) for k in range(groups[group].num_columns))
        leaf = f"{image}.bytes"
        n_bytes = sum(c.total_uncompressed_size for c in sizes if c.path_in_schema == leaf)
        if n_bytes > _MAX_GROUP_BYTES:
            raise OSError(errno.EFBIG, f"a row group of {n_bytes / 2**30:,.0f} GiB", str(file))
        return _photos_of(opened.read_row_group(group, columns=[leaf]).column(image))

    return _Shard(
        label=label,
        class_names=names,
        starts=[0, *itertools.accumulate(group.num_rows for group in groups)],
        load=load,
        read_column=lambda name: list(opened.read(columns=[name]).column(name).to_pylist()),
    )


def _open_arrow(file: Path) -> _Shard:
    """Map a file into memory, as `save_to_disk` writes it; nothing of it is copied."""
    import pyarrow as pa

    source = pa.memory_map(str(file))
    if source.read(6) == b"ARROW1":
        opened = pa.ipc.open_file(source)
        batches = [opened.get_batch(k) for k in range(opened.num_record_batches)]
    else:
        source.seek(0)
        opened = pa.ipc.open_stream(source)
        batches = list(opened)
    image, label, names = _find_columns(opened.schema)
    return _Shard(
        label=label,
        class_names=names,
        starts=[0, *itertools.accumulate(batch.num_rows for batch in batches)],
        load=lambda group: _photos_of(batches[group].column(image)),
        read_column=lambda name: [v for batch in batches for v in batch.column(name).to_pylist()],
    )


def _photos_of(column: Any) -> Any:
    """The field "bytes" of a column of images."""
    from pyarrow import compute

    return compute.struct_field(column, "bytes")


def _find_columns(schema: Any) -> tuple[str, str, tuple[str, ...]]:
    """The columns of photos and of labels, and the names of the labels.

    The label is the column of type `ClassLabel`; of several the one named "label", or the first.
    Without one, it is the column named "label".

    Raises:
        OSError: if there is no column of photos.
    """
    from pyarrow import types

    def is_image(kind: Any) -> bool:
        fields = [kind.field(k) for k in range(kind.num_fields)] if types.is_struct(kind) else []
        binary = [f for f in fields if types.is_binary(f.type) or types.is_large_binary(f.type)]
        return any(field.name == "bytes" for field in binary)

    images = [field.name for field in schema if is_image(field.type)]
    if not images:
        raise OSError(errno.EINVAL, "no column of photos")
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    class_names = {
        name: tuple(map(str, feature["names"]))
        for name in schema.names
        if isinstance(feature := features.get(name), dict)  # of a list, it may be a list
        and feature.get("_type") == "ClassLabel"
    }
    candidates = [name for name in ("label", *class_names) if name in (class_names or schema.names)]
    label = candidates[0] if candidates else ""
    return images[0], label, class_names.get(label, ())


def _split_of(shard: str) -> str:
    """The split that a shard's name, or the nearest folder's, contains as a word.

    Example:
        >>> _split_of("data/train-00000-of-00002.parquet"), _split_of("test/data-0.arrow")
        ('train', 'test')
    """
    for part in reversed(shard.split("/")):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in SPLIT_OF_NAME:
                return SPLIT_OF_NAME[word]
    return ""


@contextmanager
def _damage_is_an_os_error() -> Iterator[None]:
    """Turn what a damaged shard raises into an error that names the damage."""
    try:
        yield
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001  # pyarrow and json raise many types
        raise OSError(errno.EIO, f"damaged in the dataset: {str(error)[:200]}") from None
