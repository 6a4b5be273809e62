"""Features of photos, cached by content: each photo passes the frozen backbone once, ever.

A cache file is named by the digest of its content, written atomically, and never changed. So an
interrupted run leaves its features for the next one, two runs at a time do not disturb each other,
and a damaged file is detected when it is read, removed, and its features are computed again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._distributed import (
    broadcast,
    broadcast_array,
    n_devices,
    process_count,
    process_index,
)
from scenelearn._io import atomic_write, cache_folder, has_free_space
from scenelearn._keras_internals import input_tensors_of, nested_layers, producer_of
from scenelearn.classify._inference import predict_batches, predict_images
from scenelearn.data import Batches, Pixels
from scenelearn.data._shards import DECODER_VERSION
from scenelearn.errors import ArgumentError, NoPhotosError
from scenelearn.finetune._device import environment

_VERSION = "1"  # change it whenever the same network and photo give other features

# Photos between two writes: few at first, then as many as take about ten seconds.
_FIRST_PART, _MAX_PART, _WRITE_INTERVAL_S = 64, 512, 10.0
_N_TIMED_BATCHES = 5

FEATURE_BATCH_SIZE = 32
"""Photos per batch for features, unless the training batches are smaller."""

Table = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)


def compute_features(
    model: Any,
    batches: Batches,
    hashes: Sequence[bytes],
    backbone: str,
    *,
    mirrored: bool = False,
    use_cache: bool = True,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Table, npt.NDArray[np.bool_]]:
    """The features of photos, read from the cache where possible.

    New features are written during the computation, so a run that is killed loses about ten
    seconds of work. If the cache has no space left, a warning is logged and nothing is written.

    Args:
        model: from raw pixels to features.
        batches: the photos.
        hashes: content hashes of all photos.
        backbone: name of the network.
        mirrored: whether to mirror the photos.
        use_cache: whether to read and write the cache.
        report: called with (photos done, total) at the start and during the work.

    Returns:
        (m, n_features) float32, one row for each of `batches.indices`, and (m,) whether the row is
        valid: photos that can no longer be read have no features.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    table = np.full((batches.n_photos, model.output.shape[-1]), np.nan, np.float32)
    rows_of: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, index in enumerate(batches.indices.tolist()):
        rows_of[hashes[index]].append(row)
    folder, cached = None, set[bytes]()
    if use_cache:
        px, batch_size = batches.pixels.image_px, batches.batch_size
        folder = feature_folder(model, backbone, px, batch_size, mirrored=mirrored)
        cached, n_bytes = _read_on_all_processes(folder, rows_of, table)
        n_new = len(rows_of) - len(cached)
        if process_index() or not _may_grow(folder, n_bytes, n_new, table.shape[1]):
            folder = None  # of several processes the main one writes
    valid = np.zeros(len(table), bool)
    valid[[row for key in cached for row in rows_of[key]]] = True
    missing = batches.indices[[rows[0] for key, rows in rows_of.items() if key not in cached]]
    pixels = _mirror(batches.pixels) if mirrored else batches.pixels
    n_cached, size, start = len(table) - len(missing), _FIRST_PART, 0
    if report:
        report(n_cached, len(table))
    while start < len(missing):
        part = replace(batches, pixels=pixels, indices=missing[start : start + size])
        begin, base = time.perf_counter(), n_cached + start
        report_part = (lambda n, _, base=base: report(base + n, len(table))) if report else None
        try:
            features, indices = predict_batches(model, part, report_part)
        except NoPhotosError:  # no photo of this part can be read anymore
            features, indices = table[:0], missing[:0]
        for index, row in zip(indices.tolist(), features, strict=True):
            table[rows_of[hashes[index]]] = row
            valid[rows_of[hashes[index]]] = True
        if folder is not None and len(indices):
            folder = _write_part(folder, [hashes[index] for index in indices.tolist()], features)
        start += size
        growth = _WRITE_INTERVAL_S / max(time.perf_counter() - begin, 1e-3)
        n_batches = int(min(max(size * growth, 1), _MAX_PART)) // batches.batch_size
        size = max(1, n_batches) * batches.batch_size
    if report and len(missing):
        report(len(table), len(table))
    return table, valid


def read_cached_features(
    model: Any, hashes: Sequence[bytes], backbone: str, image_px: int
) -> Table | None:
    """The features of photos if the cache has all of them, so that none need be decoded.

    Args:
        model: from raw pixels to features.
        hashes: content hashes of the photos.
        backbone: name of the network.
        image_px: width and height of its input.

    Returns:
        (n, n_features) float32; None if one is missing.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    table = np.empty((len(hashes), model.output.shape[-1]), np.float32)
    rows_of: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(hashes):
        rows_of[key].append(row)
    folder = feature_folder(model, backbone, image_px, FEATURE_BATCH_SIZE, mirrored=False)
    cached, _ = _read_on_all_processes(folder, rows_of, table)
    return table if len(cached) == len(rows_of) else None


def feature_batch_size(batch_size: int) -> int:
    """The batch size for features, given that of training."""
    return min(batch_size, FEATURE_BATCH_SIZE * n_devices())


def measure_photo_seconds(model: Any, batch_size: int, dtype: npt.DTypeLike = np.uint8) -> float:
    """Measure the prediction time per photo, without compilation.

    The median of a few blank batches.

    Args:
        model: from raw pixels or from activations.
        batch_size: photos per batch.
        dtype: of the model's input.
    """
    batch, seconds = np.zeros((batch_size, *model.input_shape[1:]), dtype), []
    for _ in range(1 + _N_TIMED_BATCHES):
        start = time.perf_counter()
        predict_images(model, [batch], batch_size)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:])) / batch_size  # the first one compiles


# Cache files


def feature_folder(
    model: Any, backbone: str, image_px: int, batch_size: int, *, mirrored: bool
) -> Path:
    """The cache folder for a network's features of photos at one size.

    Its name depends on everything that the features depend on except the photo: the version of the
    decoder, the network's layers and the values of its weights, the versions of Keras and its
    backend, the device, the precision, and the batch size. With JAX on a CPU the batch size can
    change the last bits; a photo's position in the batch does not.

    Args:
        model: from raw pixels to features.
        backbone: name of the network.
        image_px: width and height of its input.
        batch_size: photos per batch.
        mirrored: whether the photos are mirrored.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    facts = environment()
    versions = [facts[name] for name in ("keras", "backend", facts["backend"], "device")]
    batch = str(batch_size) if n_devices() == 1 else f"{batch_size}/{n_devices()}"
    policies = {layer.dtype_policy.name for layer in nested_layers(model, include_self=True)}
    parts = [_VERSION, DECODER_VERSION, backbone, str(image_px), batch, *sorted(policies)]
    digest = hashlib.blake2b("\n".join([*parts, *versions]).encode(), digest_size=12)
    for weight in model.weights:
        value = np.asarray(keras().ops.convert_to_numpy(weight))
        digest.update(f"\n{value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(_describe_layers(model).encode())
    name = re.sub(r"[^\w.-]", "_", backbone)[:60]  # of a file or a preset, too
    view = "mirrored" if mirrored else "plain"
    return cache_folder() / f"features-{name}-{image_px}-{digest.hexdigest()}-{view}"


def _describe_layers(model: Any) -> str:
    """The kind, arguments and inputs of each layer, without names, which count up in a process."""
    layers = nested_layers(model)
    positions = {id(layer): position for position, layer in enumerate(layers)}
    lines = []
    for layer in layers:
        config: dict[str, Any] = {}
        if not getattr(layer, "layers", None):
            with suppress(AttributeError, NotImplementedError):  # then part of an outer layer's
                config = dict(layer.get_config())
        config.pop("name", None)
        sources = [positions.get(id(producer_of(t)), -1) for t in input_tensors_of(layer) or ()]
        lines.append(f"{type(layer).__name__} {sources} {sorted(config.items(), key=str)}")
    return "\n".join(lines)


def read_features(
    folder: Path, rows_of: Mapping[bytes, Sequence[int]], table: Table
) -> tuple[set[bytes], int]:
    """Read cached features into a table, and remove damaged files.

    Args:
        folder: from `feature_folder`; it may not exist yet.
        rows_of: for each content hash the rows of `table` to fill.
        table: (n, n_features) float32, to be filled.

    Returns:
        The content hashes that were found, and the size of the folder in bytes.
    """
    found: set[bytes] = set()
    n_bytes = 0
    for file in sorted(folder.glob("[!.]*.npy")):
        try:
            content = file.read_bytes()
            if _digest(content) != file.stem:
                raise ValueError("the content does not match the file name")
            records = np.load(io.BytesIO(content), allow_pickle=False)
            if records.dtype != _record_dtype(table.shape[1]):
                raise ValueError(f"unexpected dtype {records.dtype}")
        except OSError as error:  # too many open files, say: nothing is wrong with the file
            _log.warning("A file of the feature cache is not used: %s: %s", file, error)
            continue
        except (EOFError, ValueError) as error:
            _log.info("Removing a damaged file of the feature cache: %s: %s", file, error)
            with suppress(OSError):
                file.unlink()
            continue
        n_bytes += len(content)
        for k, key in enumerate(records["photo"].tolist()):
            if key in rows_of and key not in found:
                found.add(key)
                table[rows_of[key]] = records["features"][k]
    return found, n_bytes


def write_features(folder: Path, hashes: Sequence[bytes], features: Table) -> None:
    """Add features to the cache.

    Args:
        folder: from `feature_folder`.
        hashes: content hashes of the photos.
        features: (n, n_features) float32, of these photos.

    Raises:
        OSError: if the file cannot be written. No partial file is left.
        ArgumentError: if the folder cannot be created.
    """
    records = np.empty(len(hashes), _record_dtype(features.shape[1]))
    records["photo"] = np.frombuffer(b"".join(hashes), "V16")
    records["features"] = features
    buffer = io.BytesIO()
    np.save(buffer, records, allow_pickle=False)
    content = buffer.getvalue()
    with atomic_write(folder / f"{_digest(content)}.npy") as temporary:
        temporary.write_bytes(content)


def _read_on_all_processes(
    folder: Path, rows_of: Mapping[bytes, Sequence[int]], table: Table
) -> tuple[set[bytes], int]:
    """As `read_features`; several processes get what the main one reads."""
    found, n_bytes = set[bytes](), 0
    if process_index() == 0:
        found, n_bytes = read_features(folder, rows_of, table)
    if process_count() > 1:
        table[:] = broadcast_array(table)
        found = {bytes.fromhex(key) for key in broadcast([key.hex() for key in found])}
    return found, n_bytes


def _may_grow(folder: Path, n_bytes: int, n_new: int, n_features: int) -> bool:
    if not n_new:
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("Features are not cached: cannot create %s: %s", folder, error)
        return False
    what = f"The features of {n_new:,} photos are not cached, but computed each time"
    return has_free_space(folder, n_bytes, n_new * (4 * n_features + 16), what=what)


def _write_part(folder: Path, hashes: list[bytes], features: Table) -> Path | None:
    """Write some features; if that fails, log a warning and return None."""
    try:
        write_features(folder, hashes, features)
    except (OSError, ArgumentError) as error:
        _log.warning("The remaining features are not cached: %s: %s", folder, error)
        return None
    return folder


def _mirror(pixels: Pixels) -> Pixels:
    def load(
        indices: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        images, found = pixels.load(indices)
        return images[:, :, ::-1], found

    return replace(pixels, load=load)


def _record_dtype(n_features: int) -> np.dtype[Any]:
    return np.dtype([("photo", "V16"), ("features", "<f4", (n_features,))])


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
