"""Run classifiers on labeled photos, to evaluate them and to calibrate them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._progress import Progress, Report
from scenelearn.classify._calibration import DEFAULT_COVERAGE, Calibration, conformal_scores
from scenelearn.classify._inference import Outputs, readable_images, stream_outputs
from scenelearn.classify._neighbors import MAX_NEIGHBOR_PHOTOS, build_neighbor_index
from scenelearn.classify._ood import fit_ood_detector
from scenelearn.classify._slice_columns import image_statistics, short_sides
from scenelearn.data import Batches, Photos
from scenelearn.data._pixels import load_pixels
from scenelearn.data._resize import Resize
from scenelearn.errors import ClassMismatchError
from scenelearn.metrics._inputs import class_positions

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LabeledOutputs:
    """The outputs of the inference model for n labeled photos.

    Attributes:
        outputs: n rows.
        labels: (n,) int64, the true classes, in the classifier's order.
        indices: (n,) int64, the indices of the photos. Photos that cannot be decoded are missing.
        image_statistics: "brightness", "contrast", "sharpness" and "short side" (in pixels), each
            (n,); empty if they were not measured.
        is_ood: (n,) booleans, the photos that are flagged; None without a calibration.
        embeddings: (n, n_components) float16, as in `NeighborIndex`; no columns without a
            calibration.
    """

    outputs: Outputs
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    image_statistics: dict[str, npt.NDArray[np.float64]]
    is_ood: npt.NDArray[np.bool_] | None
    embeddings: npt.NDArray[np.float16]

    def __repr__(self) -> str:
        return f"<LabeledOutputs: {len(self.labels):,} photos>"


def predict_photos(
    network: Any,
    batches: Batches,
    report: Report | None = None,
    *,
    calibration: Calibration | None = None,
    measure: bool = True,
) -> LabeledOutputs:
    """Run an inference model on labeled photos, and measure the photos on the way.

    Args:
        network: from `inference_model`.
        batches: the photos with their classes.
        report: called with (photos done, total).
        calibration: flags photos as out of distribution. Only the principal components of their
            features are kept then, which saves 1 GB for 200,000 photos with 1,280 features.
        measure: whether to compute the statistics of the images.

    Returns:
        One row per photo that can still be read, in the order of `batches`, without the "short
        side".

    Raises:
        NoPhotosError: if no photo can be read anymore.
    """
    indices: list[npt.NDArray[np.int64]] = []
    statistics: list[dict[str, npt.NDArray[np.float64]]] = []

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for batch in readable_images(batches, indices):
            statistics.append(image_statistics(batch) if measure else {})
            yield batch

    parts: list[Outputs] = []
    is_ood: list[npt.NDArray[np.bool_]] = []
    embeddings: list[npt.NDArray[np.float16]] = []
    total = batches.n_photos
    for part in stream_outputs(network, images(), batches.batch_size, total=total, report=report):
        if calibration is None:
            parts.append(part)
        else:
            is_ood.append(calibration.is_ood(part))
            embeddings.append(calibration.neighbor_index.embed(part.features).astype(np.float16))
            empty = {"features": part.features[:, :0], "ood_features": part.ood_features[:, :0]}
            parts.append(replace(part, **empty))
    chosen = np.concatenate(indices)
    return LabeledOutputs(
        outputs=Outputs.concatenate(parts),
        labels=batches.labels[chosen].astype(np.int64),
        indices=chosen,
        image_statistics={
            name: np.concatenate([part[name] for part in statistics]) for name in statistics[0]
        },
        is_ood=np.concatenate(is_ood) if is_ood else None,
        embeddings=(
            np.concatenate(embeddings) if embeddings else np.empty((len(chosen), 0), np.float16)
        ),
    )


def match_labels(
    photos: Photos, class_names: tuple[str, ...], *, advice: str
) -> npt.NDArray[np.int32]:
    """The class of each photo among those of a classifier, matched by name.

    Args:
        photos: with classes.
        class_names: of the classifier.
        advice: what to do if there is another class, for the error.

    Raises:
        ClassMismatchError: if the photos have a class that is not in `class_names`.
    """
    columns = class_positions(photos.class_names, class_names)
    unknown = [n for n, column in zip(photos.class_names, columns, strict=True) if column is None]
    if unknown:
        raise ClassMismatchError(
            f"The classes of {str(photos.folder)!r} must be among those of the classifier: "
            f"{', '.join(class_names)}. Received also: {', '.join(unknown)}. {advice}"
        )
    return np.array(columns, np.int32)[photos.labels]


def predict_labeled(
    network: Any,
    class_names: tuple[str, ...],
    photos: Photos,
    *,
    resize: Resize,
    calibration: Calibration | None,
    batch_size: int,
    measure: bool,
    progress: Progress,
) -> LabeledOutputs:
    """`predict_photos` for all photos of a scan. Classes are matched by name.

    Raises:
        ArgumentError: if `batch_size` is out of range.
        ClassMismatchError: if the photos have a class that is not in `class_names`.
        NoPhotosError: if no photo can be decoded.
    """
    labels = match_labels(photos, class_names, advice="Rename these folders, or remove them.")
    decoding = partial(progress, "decoding photos")
    batches = Batches(
        pixels=load_pixels(photos, resize, report=decoding),
        labels=labels,
        indices=np.arange(len(photos)),
        batch_size=batch_size,
    )
    result = predict_photos(
        network,
        batches,
        partial(progress, "predicting"),
        calibration=calibration,
        measure=measure,
    )
    if not measure:
        return result
    short = {"short side": short_sides(photos, result.indices)}
    return replace(result, image_statistics=result.image_statistics | short)


def sample_training_photos(train: Batches) -> Batches:
    """At most 2,000 of the training photos, sampled by their seed, in their order."""
    random = np.random.default_rng([train.seed, MAX_NEIGHBOR_PHOTOS])
    chosen = random.permutation(train.indices)[:MAX_NEIGHBOR_PHOTOS]
    return replace(train, indices=np.sort(chosen))


def build_calibration(
    photos: Photos,
    training: LabeledOutputs,
    validation: LabeledOutputs,
    probabilities: npt.NDArray[np.float64],
) -> Calibration:
    """Calibrate prediction sets, out-of-distribution detection and nearest neighbors.

    Args:
        photos: all photos.
        training: outputs for training photos.
        validation: outputs for the validation photos.
        probabilities: (n_validation, n_classes), their calibrated probabilities.
    """
    index = build_neighbor_index(
        training.outputs.features,
        training.labels.astype(np.int32),
        tuple(photos.paths[index] for index in training.indices),
    )
    residuals = index.residuals(validation.outputs.features)
    calibration = Calibration(
        conformal_scores=conformal_scores(probabilities, validation.labels).astype(np.float32),
        ood_detector=fit_ood_detector(
            training.outputs.ood_features, validation.outputs.ood_features, residuals
        ),
        neighbor_index=index,
    )
    if not calibration.detects_ood:
        sets = "Also, each prediction set has all classes, so the classifier always abstains. "
        _log.warning(
            "%d validation photos are too few: photos unlike the training photos are not detected."
            " %sUse at least 33 validation photos.",
            len(validation.labels),
            "" if calibration.guarantees(DEFAULT_COVERAGE) else sets,
        )
    return calibration
