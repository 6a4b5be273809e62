"""Features of photos from the frozen backbone, and the data for the linear probe."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbones
from scenelearn._backend import default_settings
from scenelearn._progress import Progress, show_progress
from scenelearn.backbones._names import find_architecture
from scenelearn.backbones._network import Preprocessing, is_own, load_network
from scenelearn.data import Batches, Photos, Pixels, Splits
from scenelearn.data._pixels import load_pixels
from scenelearn.errors import ArgumentError, TooFewPhotosError
from scenelearn.finetune._feature_cache import (
    FEATURE_BATCH_SIZE,
    compute_features,
    feature_batch_size,
    read_cached_features,
)


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
    report: Callable[[int, int], None] | None = None,
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
    indices = np.concatenate([train.indices, validation.indices])
    batch_size, total = feature_batch_size(train.batch_size), len(indices) + n_train

    def compute(
        indices: npt.NDArray[np.int64], n_before: int, *, mirrored: bool
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        return compute_features(
            model,
            replace(train, indices=indices, batch_size=batch_size),
            hashes,
            backbone,
            mirrored=mirrored,
            use_cache=use_cache,
            report=(lambda done, _: report(n_before + done, total)) if report else None,
        )

    plain, valid = compute(indices, 0, mirrored=False)
    mirrored, mirrored_valid = compute(train.indices, len(indices), mirrored=True)
    train_valid = np.concatenate([valid[:n_train], mirrored_valid])
    train_indices = np.concatenate([train.indices] * 2)[train_valid]
    groups = splits.groups if len(splits.groups) else np.arange(len(hashes))
    labels = splits.photos.labels
    return ProbeData(
        features=np.concatenate([plain[:n_train], mirrored])[train_valid],
        labels=labels[train_indices],
        groups=groups[train_indices],
        validation_features=plain[n_train:][valid[n_train:]],
        validation_labels=labels[validation.indices[valid[n_train:]]],
    )


@default_settings()
def extract_features(
    photos: Photos,
    *,
    backbone: Any = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    preprocessing: Preprocessing = None,
    image_px: int | None = None,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> npt.NDArray[np.float32]:
    """Compute the features of photos with a frozen backbone.

    They are what the linear probe is fitted on, and what ``sl.audit(photos, features=…)`` judges
    labels by.

    Each photo passes the network once, ever: its features are cached in ``features-…`` in
    scenelearn's cache (see ``SCENELEARN_CACHE``), by the content of the file and everything else
    that they depend on, such as the values of the weights. `fit` shares this cache. A run that was
    killed continues where it stopped. On a CPU with JAX, cached features are bit for bit what would
    be computed again. Features of random weights are not cached, and none are if the cache of this
    network would exceed ``SCENELEARN_CACHE_GIB`` gibibytes (default: 64).

    Args:
        photos: from `scan`.
        backbone: a network of keras.applications, see `backbones.names`; None for the one that
            belongs to the weights, see `backbones.default_for`: usually "mobilenet_v3_small". Or a
            network of your own, as for `fit`.
        weights: "imagenet"; "scenelearn" for the bundled weights of "scenelearn_tiny"; the path of
            a weights file without top layers; or None for random weights.
        preprocessing: of a network of your own, as for `fit`.
        image_px: width and height of the network's input, in pixels; None as for `fit`.
        progress: called with (what, done, total) during the work.
        verbose: "auto" shows progress bars on a terminal and in a notebook; True and False show
            them always and never.

    Returns:
        (n, n_features) float32; NaN in the rows of photos that cannot be decoded.

    Raises:
        ArgumentError: if `photos` has the wrong type, the network does not support this image size,
            a network of your own cannot be a backbone, no backbone is named and it cannot be
            inferred from the weights, or `verbose` is not a supported value.
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
        network = load_network(backbone, preprocessing) if is_own(backbone) else None
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
        image_px = int(model.input_shape[1])
        backbones.fast_on_cpu(model)
        use_cache = weights is not None
        if use_cache:
            cached = read_cached_features(model, photos.hashes, name, image_px)
            if cached is not None:
                return cached
        batches = Batches(
            pixels=load_pixels(photos, image_px, report=partial(report, "decoding photos")),
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
    table = np.full((len(photos), features.shape[1]), np.nan, np.float32)
    table[batches.indices] = features
    return table
