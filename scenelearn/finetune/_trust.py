"""What the classifier keeps of training and validation photos, to say how far to trust it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from scenelearn.classify import MOST_PHOTOS, Sight, Trust, gallery, likeness, set_scores
from scenelearn.data import Batches, Photos


def sample_of(train: Batches) -> Batches:
    """At most 2,000 of the training photos, drawn by the seed of their order, in their order."""
    random = np.random.default_rng([train.seed, MOST_PHOTOS])
    chosen = random.permutation(train.indices)[:MOST_PHOTOS]
    return replace(train, indices=np.sort(chosen))


def trust_from(
    photos: Photos,
    known: tuple[Sight, npt.NDArray[np.int64]],
    seen: Sight,
    *,
    calibrated: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int32],
) -> Trust:
    """Put together what training and validation photos tell.

    Args:
        photos: all photos.
        known: what the network makes of training photos, and which they are.
        seen: what it makes of the validation photos.
        calibrated: (n_validation, n_classes) their calibrated probabilities.
        labels: (n_validation,) their true classes.

    Returns:
        What `Classifier.predict` judges new photos by.
    """
    of_training, indices = known
    shown = gallery(
        of_training.features,
        photos.labels[indices],
        tuple(photos.paths[index] for index in indices),
    )
    return Trust(
        scores=set_scores(calibrated, labels).astype(np.float32),
        likeness=likeness(of_training.traits, seen.traits, shown.outside(seen.features)),
        gallery=shown,
    )
