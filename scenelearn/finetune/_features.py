"""The frozen backbone, run once over each photo."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbones
from scenelearn.data import Batches, Photos, Pixels, Splits, decode
from scenelearn.errors import TooFewPhotosError
from scenelearn.finetune._feature_rows import FEATURE_BATCH, feature_batch, kept, rows_of
from scenelearn.finetune._settings import FitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The photos of each side, in batches."""

    train: Batches
    validation: Batches
    test: Batches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """What a head is solved and judged on.

    Attributes:
        train: (n, n_features) float32, the training photos as they are and then mirrored.
        labels: (n,) int32, their classes.
        groups: (n,) int64, equal for copies of a photo and for photos that belong together.
        validation: (n_validation, n_features) float32.
        validation_labels: (n_validation,) int32.
    """

    train: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    groups: npt.NDArray[np.int64]
    validation: npt.NDArray[np.float32]
    validation_labels: npt.NDArray[np.int32]


def sides_of(splits: Splits, pixels: Pixels, batch_size: int, seed: int) -> Sides:
    """Cut each side into batches.

    Args:
        splits: which photo is on which side.
        pixels: of all photos.
        batch_size: photos a batch.
        seed: of the orders.

    Returns:
        The three sides; photos that cannot be decoded are left out.

    Raises:
        TooFewPhotosError: if nothing is left of a side.
    """

    def cut(name: str, indices: npt.NDArray[np.int64]) -> Batches:
        batches = Batches(
            pixels=pixels,
            labels=splits.photos.labels,
            indices=indices,
            batch_size=batch_size,
            seed=seed,
        )
        if not batches.n_photos:
            raise TooFewPhotosError(
                f"The {name} photos must hold at least one that can be decoded. Received: "
                f"{len(indices)}, all refused. First: {next(iter(pixels.refused), 'none')}. "
                "Mend or add photos."
            )
        return batches

    return Sides(
        train=cut("train", splits.train),
        validation=cut("validation", splits.validation),
        test=cut("test", splits.test),
    )


def features_of(
    model: Any,
    sides: Sides,
    splits: Splits,
    settings: FitSettings,
    progress: Callable[[int, int], None] | None = None,
) -> Known:
    """Features and labels for solving a head, from the cache where they were computed before.

    Training photos are also seen mirrored, but not varied in other ways: of one, two and four more
    views, drawn as for training, none made the head's accuracy on validation photos better than
    chance explains (Intel photos, 25, 100 and 500 a class), and each costs a pass over the photos.

    Args:
        model: from raw pixels to features.
        sides: the photos.
        splits: what the sides were cut from.
        settings: of the fit. Features of random weights are not kept.
        progress: called with (photos done, photos in all); a mirrored one counts as one more.

    Returns:
        The features of the training photos, as they are and mirrored, and of those that validate.
    """
    n_train, hashes = sides.train.n_photos, splits.photos.hashes
    indices = np.concatenate([sides.train.indices, sides.validation.indices])
    size = feature_batch(sides.train.batch_size)
    once, both = (
        replace(sides.train, indices=one, batch_size=size) for one in (sides.train.indices, indices)
    )
    total = len(indices) + n_train
    keep = settings.weights is not None
    plain, there = rows_of(
        model,
        both,
        hashes,
        settings.backbone,
        keep=keep,
        progress=_part_of(progress, 0, total),
    )
    mirrored, again = rows_of(
        model,
        once,
        hashes,
        settings.backbone,
        mirrored=True,
        keep=keep,
        progress=_part_of(progress, len(indices), total),
    )
    known = np.concatenate([there[:n_train], again])
    trained = np.concatenate([sides.train.indices] * 2)[known]
    groups = splits.groups if len(splits.groups) else np.arange(len(hashes))
    checked = there[n_train:]
    labels = splits.photos.labels
    return Known(
        train=np.concatenate([plain[:n_train], mirrored])[known],
        labels=labels[trained],
        groups=groups[trained],
        validation=plain[n_train:][checked],
        validation_labels=labels[sides.validation.indices[checked]],
    )


def features(
    photos: Photos,
    *,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_px: int = 160,
    progress: Callable[[str, int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """What a frozen backbone makes of each photo: the numbers that a head is solved on.

    ``sl.audit(photos, features=…)`` judges labels by them.

    Each photo is seen once, ever: its features are kept in ``features-…`` in scenelearn's cache
    (see ``SCENELEARN_CACHE``), by the content of the file and all that they depend on, the values
    of the weights among it. `fit` finds them there, and keeps those of its own there; both go on
    where they were killed. On a CPU with JAX they are, to the bit, what would be computed anew.
    Features of random weights are not kept, and none where the cache of this network would grow
    beyond ``SCENELEARN_CACHE_GIB`` gibibytes (64 unless set).

    Args:
        photos: from `scan`.
        backbone: a network of keras.applications, see `backbones.names`; None for the one that goes
            with the weights, see `backbones.default_for`: usually "mobilenet_v3_small".
        weights: "imagenet"; "scenelearn", those in the package, for the backbone "scenelearn_tiny";
            the path of a weights file without top layers; or None.
        image_px: width and height at which the network sees a photo, in pixels.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        (n, n_features) float32; NaN in the rows of photos that cannot be decoded.

    Raises:
        ArgumentError: if the network cannot have this image size, or none is named and the weights
            file does not tell it.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `weights` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network.
        WeightsUnavailableError: if the ImageNet weights cannot be downloaded.
        NoPhotosError: if no photo can be decoded.
        BackendError: if no backend of Keras is installed.
    """
    decoding, running = (
        partial(progress, what) if progress else None for what in ("decoding photos", "features")
    )
    name = backbones.default_for(weights) if backbone is None else backbones.find(backbone).name
    model = backbones.build(
        name,
        weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
        image_px=image_px,
        seed=0,
    )
    backbones.fast_on_cpu(model)
    keep = weights is not None
    if keep and (table := kept(model, photos.hashes, name, image_px)) is not None:
        return table
    batches = Batches(
        pixels=decode(photos, image_px, progress=decoding),
        labels=photos.labels,
        indices=np.arange(len(photos)),
        batch_size=FEATURE_BATCH,
    )
    rows, _ = rows_of(model, batches, photos.hashes, name, keep=keep, progress=running)
    table = np.full((len(photos), rows.shape[1]), np.nan, np.float32)
    table[batches.indices] = rows
    return table


def _part_of(
    progress: Callable[[int, int], None] | None, begun: int, total: int
) -> Callable[[int, int], None] | None:
    """The progress of one part of a work, said as that of the whole."""
    return (lambda done, _: progress(begun + done, total)) if progress else None
