"""The frozen backbone run over photos: over each once, ever."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._devices import n_devices, process, shared, shared_array
from scenelearn._io import has_free_space
from scenelearn.classify import judge, outputs
from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError, NoPhotosError
from scenelearn.finetune._feature_files import Table, folder_of, put, take

# Photos between two writings: some at first, then as many as take about ten seconds.
_FIRST, _MOST, _WRITE_EVERY_S = 64, 512, 10.0
_TIMED = 5  # batches

FEATURE_BATCH = 32
"""Photos that a network sees at once for features, unless training takes fewer at once."""

_log = logging.getLogger(__name__)


def rows_of(
    model: Any,
    batches: Batches,
    hashes: Sequence[bytes],
    backbone: str,
    *,
    mirrored: bool = False,
    keep: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Table, npt.NDArray[np.bool_]]:
    """The features of photos, from the cache where they were computed before.

    What is new is written as the work goes on, so that a run that is killed loses some ten
    seconds. Where the cache has no room, that is logged and nothing is written.

    Args:
        model: from raw pixels to features.
        batches: the photos.
        hashes: of the content of all photos.
        backbone: the network's name.
        mirrored: whether it sees the photos mirrored.
        keep: whether to read and write the cache.
        progress: called with (photos done, photos in all) at the start and as the work goes on.

    Returns:
        (m, n_features) float32, one row for each of `batches.indices`, and (m,) whether there is
        one: photos that cannot be read any more have none.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    table = np.full((batches.n_photos, model.output.shape[-1]), np.nan, np.float32)
    wanted: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, index in enumerate(batches.indices.tolist()):
        wanted[hashes[index]].append(row)
    folder, found = None, set[bytes]()
    if keep:
        px, at_once = batches.pixels.image_px, batches.batch_size
        folder = folder_of(model, backbone, px, at_once, mirrored=mirrored)
        found, n_bytes = taken(folder, wanted, table)
        n_more = len(wanted) - len(found)
        if process()[0] or not _may_grow(folder, n_bytes, n_more, table.shape[1]):
            folder = None  # of several processes the first one writes
    there = np.zeros(len(table), bool)
    there[[row for key in found for row in wanted[key]]] = True
    missing = batches.indices[[rows[0] for key, rows in wanted.items() if key not in found]]
    pixels = _mirrored(batches.pixels) if mirrored else batches.pixels
    n_done, size, start = len(table) - len(missing), _FIRST, 0
    if progress:
        progress(n_done, len(table))
    while start < len(missing):
        part = replace(batches, pixels=pixels, indices=missing[start : start + size])
        begin, base = time.monotonic(), n_done + start
        report = (lambda n, _, base=base: progress(base + n, len(table))) if progress else None
        try:
            features, indices = judge(model, part, report)
        except NoPhotosError:  # the photos of this part are gone
            features, indices = table[:0], missing[:0]
        for index, row in zip(indices.tolist(), features, strict=True):
            table[wanted[hashes[index]]] = row
            there[wanted[hashes[index]]] = True
        if folder is not None and len(indices):
            folder = _written(folder, [hashes[index] for index in indices.tolist()], features)
        start += size
        share = _WRITE_EVERY_S / max(time.monotonic() - begin, 1e-3)
        whole = int(min(max(size * share, 1), _MOST)) // batches.batch_size
        size = max(1, whole) * batches.batch_size
    if progress and len(missing):
        progress(len(table), len(table))
    return table, there


def kept(model: Any, hashes: Sequence[bytes], backbone: str, image_px: int) -> Table | None:
    """The features of photos where the cache has them all, so that none need be decoded.

    Args:
        model: from raw pixels to features.
        hashes: of the photos' contents.
        backbone: the network's name.
        image_px: width and height at which it sees a photo.

    Returns:
        (n, n_features) float32; None where one is missing.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    table = np.empty((len(hashes), model.output.shape[-1]), np.float32)
    wanted: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(hashes):
        wanted[key].append(row)
    folder = folder_of(model, backbone, image_px, FEATURE_BATCH, mirrored=False)
    found, _ = taken(folder, wanted, table)
    return table if len(found) == len(wanted) else None


def taken(
    folder: Path, wanted: Mapping[bytes, Sequence[int]], table: Table
) -> tuple[set[bytes], int]:
    """As `take`; several processes take what the first one finds."""
    found, n_bytes = take(folder, wanted, table) if process()[0] == 0 else (set[bytes](), 0)
    if process()[1] > 1:
        table[:] = shared_array(table)
        there = shared([key.hex() for key in found])
        found = {bytes.fromhex(key) for key in there}
    return found, n_bytes


def feature_batch(batch_size: int) -> int:
    """Photos that a network sees at once for features where training takes so many at once."""
    return min(batch_size, FEATURE_BATCH * n_devices())


def seconds_a_photo(model: Any, n: int, dtype: npt.DTypeLike = np.uint8) -> float:
    """How long the network takes to see one of n photos, after compilation.

    The median of a few blank batches.

    Args:
        model: from raw pixels, or from maps.
        n: photos at once.
        dtype: of what it sees.
    """
    batch, seconds = np.zeros((n, *model.input_shape[1:]), dtype), []
    for _ in range(1 + _TIMED):
        start = time.monotonic()
        outputs(model, [batch], n)
        seconds.append(time.monotonic() - start)
    return float(np.median(seconds[1:])) / n  # the first one compiles


def _mirrored(pixels: Pixels) -> Pixels:
    def rows(
        indices: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        images, there = pixels.rows(indices)
        return images[:, :, ::-1], there

    return replace(pixels, rows=rows)


def _may_grow(folder: Path, held_bytes: int, n_more: int, n_features: int) -> bool:
    if not n_more:
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("Features are not kept: %s cannot be made: %s", folder, error)
        return False
    what = f"The features of {n_more:,} photos are not kept but computed each time"
    return has_free_space(folder, held_bytes, n_more * (4 * n_features + 16), what=what)


def _written(folder: Path, contents: list[bytes], features: Table) -> Path | None:
    """Write a part; None, and a warning, where that cannot be done."""
    try:
        put(folder, contents, features)
    except (OSError, ArgumentError) as error:
        _log.warning("The rest of the features is not kept: %s: %s", folder, error)
        return None
    return folder
