"""Features of photos: each passes the frozen backbone once, ever, and then comes from a cache.

A cache file is named by the digest of its content, written atomically, and never changed. So an
interrupted run leaves its features for the next one, two runs at a time do not disturb each other,
and a damaged file is detected when it is read, removed, and its features are computed again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import time
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbones
from scenelearn._backend import default_settings, keras
from scenelearn._distributed import (
    broadcast,
    broadcast_rows,
    n_devices,
    process_count,
    process_index,
)
from scenelearn._io import atomic_write, cache_folder, has_free_space
from scenelearn._keras_internals import first_inputs_of, nested_layers, producer_of
from scenelearn._progress import Progress, Report, show_progress
from scenelearn.backbones._names import find_architecture
from scenelearn.backbones._network import Preprocessing, load_if_own
from scenelearn.classify._inference import predict_batches
from scenelearn.data import Batches, Photos, Pixels, Splits
from scenelearn.data._pixels import load_pixels
from scenelearn.data._resize import Resize, make_resize
from scenelearn.data._shards import DECODER_VERSION
from scenelearn.errors import ArgumentError, NoPhotosError, TooFewPhotosError
from scenelearn.finetune._device import environment

_VERSION = "1"  # change it whenever the same network and photo give other features

# Photos between two writes: few at first, then as many as take about ten seconds.
_FIRST_PART, _MAX_PART, _WRITE_INTERVAL_S = 64, 512, 10.0

FEATURE_BATCH_SIZE = 32
"""Photos per batch for features, unless the training batches are smaller."""

Table = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Datasets:
    """The photos of each split, in batches."""

    train: Batches
    validation: Batches
    test: Batches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ProbeData:
    """The features that the linear probe is fitted and validated on.

    Attributes:
        features: (n, n_features) float32, the training photos, then their mirror images.
        labels: (n,) int32, their classes.
        groups: (n,) int64, equal for a photo and its mirror image, and for photos that belong
            together.
        validation_features: (n_validation, n_features) float32.
        validation_labels: (n_validation,) int32.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    groups: npt.NDArray[np.int64]
    validation_features: npt.NDArray[np.float32]
    validation_labels: npt.NDArray[np.int32]


@default_settings()
def extract_features(
    photos: Photos,
    *,
    backbone: Any = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    preprocessing: Preprocessing = None,
    image_px: int | tuple[int, int] | None = None,
    shape: str = "crop",
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> npt.NDArray[np.float32]:
    """Compute the features of photos with a frozen backbone.

    They are what the linear probe is fitted on, and what ``sl.audit(photos, features=…)`` judges
    labels by.

    Each photo is processed once: its features are cached in ``features-…`` in
    scenelearn's cache (see ``SCENELEARN_CACHE``), by the content of the file and everything else
    that they depend on, such as the values of the weights. `fit` shares this cache. A run that was
    killed continues where it stopped. On a CPU with JAX, cached features are bit for bit what would
    be computed again. Features of random weights are not cached, and none are if the cache of this
    network would exceed ``SCENELEARN_CACHE_GIB`` gibibytes (default: 64).

    Args:
        photos: from `scan`.
        backbone: a network of keras.applications, see `backbones.names`; None for the one that
            belongs to the weights, see `backbones.default_for`: usually "mobilenet_v3_small". Or a
            network of your own, or a list, as for `fit`.
        weights: "imagenet"; "scenelearn" for the bundled weights of "scenelearn_tiny"; the path of
            a weights file without top layers; or None for random weights.
        preprocessing: of a network of your own, as for `fit`.
        image_px: the side of the network's square input, or its (height, width), in pixels; None as
            for `fit`.
        shape: what happens to photos of other proportions: "crop", "pad" or "squash", as for `fit`.
        progress: called with (what, done, total) during the work.
        verbose: "auto" shows progress bars on a terminal and in a notebook; True and False show
            them always and never.

    Returns:
        (n, n_features) float32; NaN in the rows of photos that cannot be decoded.

    Raises:
        ArgumentError: if `photos` has the wrong type, the network does not support this image size,
            a network of your own cannot be a backbone, no backbone is named and it cannot be
            inferred from the weights, or `shape` or `verbose` is not a supported value.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `backbone` or `weights` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network, or the file of a network
            cannot be loaded.
        WeightsUnavailableError: if the ImageNet weights or a preset cannot be downloaded.
        MissingExtraError: if the network needs KerasHub, which is not installed.
        NoPhotosError: if no photo can be decoded.
        BackendError: if no Keras backend is installed, or it finds no device.
        ForkError: if this process was forked after Keras had started.
    """
    if not isinstance(photos, Photos):
        raise ArgumentError(
            f"`photos` must come from `scan`. Received: photos={photos!r}. Pass sl.scan(folder)."
        )
    with show_progress(progress, verbose) as report:
        network = load_if_own(backbone, preprocessing)
        if network is not None:
            name = network.title
        elif backbone is None:
            name = backbones.default_for(weights)
        else:
            name = find_architecture(backbone).name
        model = backbones.build(
            name if network is None else network,
            weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
            preprocessing=None if network else preprocessing,
            image_px=image_px,
            seed=0,
        )
        resize = make_resize(tuple(model.input_shape[1:3]), shape)
        backbones.fast_on_cpu(model)
        use_cache = weights is not None
        if use_cache:
            cached = read_cached_features(model, photos.hashes, name, resize)
            if cached is not None:
                return cached
        batches = Batches(
            pixels=load_pixels(photos, resize, report=partial(report, "decoding photos")),
            labels=photos.labels,
            indices=np.arange(len(photos)),
            batch_size=FEATURE_BATCH_SIZE,
        )
        features, _ = compute_features(
            model,
            batches,
            photos.hashes,
            name,
            use_cache=use_cache,
            report=partial(report, "extracting features"),
        )
    if len(features) == len(photos):  # without a copy
        return features
    table = np.full((len(photos), features.shape[1]), np.nan, np.float32)
    table[batches.indices] = features
    return table


def make_datasets(splits: Splits, pixels: Pixels, batch_size: int, seed: int) -> Datasets:
    """Divide the photos of each split into batches.

    Args:
        splits: which photo is in which split.
        pixels: of all photos.
        batch_size: photos per batch.
        seed: random seed of the orders.

    Returns:
        The three splits, without photos that cannot be decoded.

    Raises:
        TooFewPhotosError: if no photo of a split can be decoded.
    """

    def batches_of(name: str, indices: npt.NDArray[np.int64]) -> Batches:
        batches = Batches(
            pixels=pixels,
            labels=splits.photos.labels,
            indices=indices,
            batch_size=batch_size,
            seed=seed,
        )
        if not batches.n_photos:
            raise TooFewPhotosError(
                f"The {name} split must contain at least one photo that can be decoded. Received: "
                f"{len(indices)}, all rejected. First: {next(iter(pixels.rejected), 'none')}. "
                "Repair the photos or add others."
            )
        return batches

    return Datasets(
        train=batches_of("train", splits.train),
        validation=batches_of("validation", splits.validation),
        test=batches_of("test", splits.test),
    )


def compute_probe_data(
    model: Any,
    datasets: Datasets,
    splits: Splits,
    backbone: str,
    *,
    use_cache: bool,
    report: Report | None = None,
) -> ProbeData:
    """Compute the features and labels for the linear probe, or read them from the cache.

    Training photos are also mirrored, but not augmented in other ways: of one, two and four more
    views, augmented as for training, none improved the validation accuracy of the linear probe
    significantly (Intel photos, 25, 100 and 500 per class), and each costs a pass over the photos.

    Args:
        model: from raw pixels to features.
        datasets: the photos.
        splits: the splits they come from.
        backbone: name of the network.
        use_cache: whether to read and write the cache.
        report: called with (photos done, total); a mirror image counts as one photo.

    Returns:
        The features of the training photos, their mirror images, and the validation photos.
    """
    train, validation = datasets.train, datasets.validation
    n_train, hashes = train.n_photos, splits.photos.hashes
    n_validation, batch_size = validation.n_photos, feature_batch_size(train.batch_size)
    indices = np.concatenate([validation.indices, train.indices, train.indices])
    n_plain = n_validation + n_train
    table = np.full((len(indices), model.output.shape[-1]), np.nan, np.float32)  # filled in place
    valid = np.zeros(len(indices), bool)

    def report_after(n_before: int) -> Report | None:
        return (lambda done, _: report(n_before + done, len(indices))) if report else None

    for rows, mirrored in ((slice(n_plain), False), (slice(n_plain, None), True)):
        _, valid[rows] = compute_features(
            model,
            replace(train, indices=indices[rows], batch_size=batch_size),
            hashes,
            backbone,
            table=table[rows],
            mirrored=mirrored,
            use_cache=use_cache,
            report=report_after(rows.start or 0),
        )
    if not valid.all():
        table, indices = table[valid], indices[valid]
        n_validation = int(valid[:n_validation].sum())
    groups = splits.groups if len(splits.groups) else np.arange(len(hashes))
    labels = splits.photos.labels[indices]
    return ProbeData(
        features=table[n_validation:],
        labels=labels[n_validation:],
        groups=groups[indices[n_validation:]],
        validation_features=table[:n_validation],
        validation_labels=labels[:n_validation],
    )


# The cache


def compute_features(
    model: Any,
    batches: Batches,
    hashes: Sequence[bytes],
    backbone: str,
    *,
    table: Table | None = None,
    mirrored: bool = False,
    use_cache: bool = True,
    report: Report | None = None,
) -> tuple[Table, npt.NDArray[np.bool_]]:
    """The features of photos, read from the cache where possible.

    New features are written during the computation, so a run that is killed loses about ten
    seconds of work. If the cache has no space left, a warning is logged and nothing is written.

    Args:
        model: from raw pixels to features.
        batches: the photos.
        hashes: content hashes of all photos.
        backbone: name of the network.
        table: (m, n_features) float32 of NaN to fill; None for a new one.
        mirrored: whether to mirror the photos.
        use_cache: whether to read and write the cache.
        report: called with (photos done, total) at the start and during the work.

    Returns:
        (m, n_features) float32, one row for each of `batches.indices`, and (m,) whether the row is
        valid: photos that can no longer be read have no features.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    if table is None:
        table = np.full((batches.n_photos, model.output.shape[-1]), np.nan, np.float32)
    rows_of: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, index in enumerate(batches.indices.tolist()):
        rows_of[hashes[index]].append(row)
    folder, cached = None, set[bytes]()
    if use_cache:
        resize, batch_size = batches.pixels.resize, batches.batch_size
        folder = feature_folder(model, backbone, resize, batch_size, mirrored=mirrored)
        cached, n_bytes = read_on_all_processes(folder, rows_of, table)
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
    model: Any, hashes: Sequence[bytes], backbone: str, resize: Resize
) -> Table | None:
    """The features of photos if the cache has all of them, so that none need be decoded.

    Args:
        model: from raw pixels to features.
        hashes: content hashes of the photos.
        backbone: name of the network.
        resize: how photos become its input.

    Returns:
        (n, n_features) float32; None if one is missing.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    table = np.empty((len(hashes), model.output.shape[-1]), np.float32)
    rows_of: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(hashes):
        rows_of[key].append(row)
    folder = feature_folder(model, backbone, resize, FEATURE_BATCH_SIZE, mirrored=False)
    cached, _ = read_on_all_processes(folder, rows_of, table)
    return table if len(cached) == len(rows_of) else None


def feature_batch_size(batch_size: int) -> int:
    """The batch size for features, given that of training."""
    return min(batch_size, FEATURE_BATCH_SIZE * n_devices())


# Cache files


def feature_folder(
    model: Any, backbone: str, resize: Resize, batch_size: int, *, mirrored: bool
) -> Path:
    """The cache folder for a network's features of photos at one size and shape.

    Its name depends on everything that the features depend on except the photo: the version of the
    decoder, the network's layers and the values of its weights, the versions of Keras and its
    backend, the device, the precision, and the batch size. With JAX on a CPU the batch size can
    change the last bits; a photo's position in the batch does not.

    Args:
        model: from raw pixels to features.
        backbone: name of the network.
        resize: how photos become its input.
        batch_size: photos per batch.
        mirrored: whether the photos are mirrored.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    facts = environment()
    versions = [facts[name] for name in ("keras", "backend", facts["backend"], "device")]
    batch = str(batch_size) if n_devices() == 1 else f"{batch_size}/{n_devices()}"
    policies = {layer.dtype_policy.name for layer in nested_layers(model, include_self=True)}
    parts = [_VERSION, DECODER_VERSION, backbone, str(resize), batch, *sorted(policies)]
    digest = hashlib.blake2b("\n".join([*parts, *versions]).encode(), digest_size=12)
    for weight in model.weights:
        value = np.asarray(keras().ops.convert_to_numpy(weight))
        digest.update(f"\n{value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(describe_layers(model).encode())
    name = re.sub(r"[^\w.-]", "_", backbone)[:60]  # of a file or a preset, too
    view = "mirrored" if mirrored else "plain"
    return cache_folder() / f"features-{name}-{resize}-{digest.hexdigest()}-{view}"


def describe_layers(model: Any) -> str:
    """The kind, arguments and inputs of each layer, without names, which count up in a process."""
    layers = nested_layers(model)
    positions = {id(layer): position for position, layer in enumerate(layers)}
    lines = []
    for layer in layers:
        config: dict[str, Any] = {}
        if not getattr(layer, "layers", None):
            # Without a configuration of its own, it is part of an outer layer's. Keras warns of
            # lambdas, which layers inside KerasHub's MobileNetV5 have; this is never loaded.
            with (
                suppress(AttributeError, NotImplementedError, TypeError),
                warnings.catch_warnings(action="ignore"),
            ):
                config = dict(layer.get_config())
        config.pop("name", None)
        # Of the first call: a prediction calls layers of the head once more.
        sources = [positions.get(id(producer_of(t)), -1) for t in first_inputs_of(layer)]
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


def read_on_all_processes(
    folder: Path, rows_of: Mapping[bytes, Sequence[int]], table: Table
) -> tuple[set[bytes], int]:
    """As `read_features`; several processes get what the main one reads."""
    found, n_bytes = set[bytes](), 0
    if process_index() == 0:
        found, n_bytes = read_features(folder, rows_of, table)
    if process_count() > 1:
        keys = [bytes.fromhex(key) for key in broadcast([key.hex() for key in found])]
        broadcast_rows(table, np.array([row for key in keys for row in rows_of[key]], np.int64))
        found = set(keys)
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
