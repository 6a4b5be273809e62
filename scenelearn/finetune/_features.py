"""The frozen backbone, run once over each photo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbone as backbones
from scenelearn.classify import judge, outputs
from scenelearn.data import Batches, Photos, Pixels, Splits, decode
from scenelearn.errors import TooFewPhotosError

_BATCH = 32
Labelled = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The photos of each side, in batches."""

    train: Batches
    validation: Batches
    test: Batches


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
    model: Any, sides: Sides, progress: Callable[[int, int], None] | None = None
) -> tuple[Labelled, Labelled]:
    """Features and labels for solving a head.

    Args:
        model: from raw pixels to features.
        sides: the photos.
        progress: called with (photos done, photos in all); a mirrored one counts as one more.

    Returns:
        For training: (2 n_train, n_features) float32, the photos as they are and then mirrored,
        with their labels. For validation: (n_validation, n_features), with theirs.
    """
    passes = ((sides.train, False), (sides.train, True), (sides.validation, False))
    labels: list[list[npt.NDArray[np.int32]]] = [[] for _ in passes]

    def seen() -> Iterator[npt.NDArray[np.uint8]]:
        for (batches, mirrored), of_pass in zip(passes, labels, strict=True):
            for images, of_batch, _ in batches.in_order():
                of_pass.append(of_batch)
                yield images[:, :, ::-1] if mirrored else images

    total = sum(batches.n_photos for batches, _ in passes)
    table = outputs(model, seen(), sides.train.batch_size, total=total, progress=progress)
    train_labels = np.concatenate(labels[0] + labels[1])
    n_train = len(train_labels)
    return (table[:n_train], train_labels), (table[n_train:], np.concatenate(labels[2]))


def features(
    photos: Photos,
    *,
    backbone: str = "mobilenet_v2_0.35",
    weights: str | os.PathLike[str] | None = "imagenet",
    image_px: int = 160,
    progress: Callable[[str, int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """What a frozen backbone makes of each photo: the numbers that a head is solved on.

    ``sl.audit(photos, features=…)`` judges labels by them.

    Args:
        photos: from `scan`.
        backbone: a network of keras.applications, see `backbone.names`.
        weights: "imagenet", the path of a weights file without top layers, or None.
        image_px: width and height at which the network sees a photo, in pixels.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        (n, n_features) float32; NaN in the rows of photos that cannot be decoded.

    Raises:
        ArgumentError: if the network cannot have this image size.
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
    model = backbones.build(
        backbone,
        weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
        image_px=image_px,
        seed=0,
    )
    backbones.fast_on_cpu(model)
    batches = Batches(
        pixels=decode(photos, image_px, progress=decoding),
        labels=photos.labels,
        indices=np.arange(len(photos)),
        batch_size=_BATCH,
    )
    found, indices = judge(model, batches, progress=running)
    table = np.full((len(photos), found.shape[1]), np.nan, np.float32)
    table[indices] = found
    return table
