"""The calibration of a classifier, from its outputs for validation and training photos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from scenelearn.classify import Calibration
from scenelearn.classify._calibration import conformal_scores
from scenelearn.classify._labeled_outputs import LabeledOutputs
from scenelearn.classify._neighbors import MAX_NEIGHBOR_PHOTOS, build_neighbor_index
from scenelearn.classify._ood import fit_ood_detector
from scenelearn.data import Batches, Photos


def sample_training_photos(train: Batches) -> Batches:
    """At most 2,000 of the training photos, sampled by their seed, in their order."""
    random = np.random.default_rng([train.seed, MAX_NEIGHBOR_PHOTOS])
    chosen = random.permutation(train.indices)[:MAX_NEIGHBOR_PHOTOS]
    return replace(train, indices=np.sort(chosen))


def build_calibration(
    photos: Photos,
    known: LabeledOutputs,
    checked: LabeledOutputs,
    probabilities: npt.NDArray[np.float64],
) -> Calibration:
    """Calibrate prediction sets, out-of-distribution detection and nearest neighbors.

    Args:
        photos: all photos.
        known: outputs for training photos.
        checked: outputs for the validation photos.
        probabilities: (n_validation, n_classes), their calibrated probabilities.
    """
    index = build_neighbor_index(
        known.outputs.features,
        known.labels.astype(np.int32),
        tuple(photos.paths[index] for index in known.indices),
    )
    residuals = index.residuals(checked.outputs.features)
    return Calibration(
        conformal_scores=conformal_scores(probabilities, checked.labels).astype(np.float32),
        ood_detector=fit_ood_detector(
            known.outputs.ood_features, checked.outputs.ood_features, residuals
        ),
        neighbor_index=index,
    )
