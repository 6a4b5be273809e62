"""What the classifier keeps of training and validation photos, to say how far to trust it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from scenelearn.classify import MOST_PHOTOS, Labeled, Trust, gallery, likeness, set_scores
from scenelearn.data import Batches, Photos


def sample_of(train: Batches) -> Batches:
    """At most 2,000 of the training photos, drawn by the seed of their order, in their order."""
    random = np.random.default_rng([train.seed, MOST_PHOTOS])
    chosen = random.permutation(train.indices)[:MOST_PHOTOS]
    return replace(train, indices=np.sort(chosen))


def trust_from(
    photos: Photos, known: Labeled, checked: Labeled, calibrated: npt.NDArray[np.float64]
) -> Trust:
    """Put together what training and validation photos tell.

    Args:
        photos: all photos.
        known: what the network makes of training photos.
        checked: what it makes of the validation photos.
        calibrated: (n_validation, n_classes), their calibrated probabilities.

    Returns:
        What `Classifier.predict` judges new photos by.
    """
    shown = gallery(
        known.seen.features,
        known.labels.astype(np.int32),
        tuple(photos.paths[index] for index in known.indices),
    )
    outside = shown.outside(checked.seen.features)
    return Trust(
        scores=set_scores(calibrated, checked.labels).astype(np.float32),
        likeness=likeness(known.seen.traits, checked.seen.traits, outside),
        gallery=shown,
    )
