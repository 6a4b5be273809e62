"""Which labels look wrong, judged by everything but the photo itself and its copies."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError

_STRENGTHS = 10.0 ** np.arange(0, 7)  # of the penalty; the one that predicts best is taken
_MARGIN = 1.0  # half of what lies between a certain yes (1) and a certain no (-1)
_CHUNK = 4096

Table = npt.NDArray[np.float64]


class Suspect(NamedTuple):
    """A photo whose label looks wrong.

    Attributes:
        photo: its position.
        label: the class that it looks like instead, in [0, n_classes).
        margin: by how much that class scores higher than its own; from 1 on, 2 and more is plain.
    """

    photo: int
    label: int
    margin: float


def suspects(
    features: npt.NDArray[np.floating], labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int64]
) -> tuple[Suspect, ...]:
    """Photos that a linear classifier, trained on all photos of other groups, gives another class.

    The classifier is ridge regression on the features, with a target of 1 for a photo's own class
    and -1 for the others. Its answer without a photo, or without a group g of them, follows from
    the answer with all of them: with the hat matrix H = Z (ZᵀZ + λI)⁻¹ Zᵀ it is
    Y_g - (I - H_gg)⁻¹ (Y_g - (HY)_g), so nothing is trained twice.

    Args:
        features: (n, n_features); rows with a NaN are passed over.
        labels: (n,) int32 in [0, n_classes).
        groups: (n,) int64, one number for photos of the same picture.

    Returns:
        The suspects, the plainest first.

    Raises:
        ArgumentError: if `features` does not hold one row a photo, or not one of them is finite.

    References:
        Leaving one out: D. Allen (1974), The relationship between variable selection and data
        augmentation and a method for prediction. Technometrics 16, equation 1.4.
    """
    if features.ndim != 2 or len(features) != len(labels):
        raise ArgumentError(
            f"`features` must hold one row for each of {len(labels):,} photos. Received: shape "
            f"{features.shape}. Pass scenelearn.finetune.features(photos)."
        )
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if not len(rows):
        raise ArgumentError(
            "`features` must hold finite numbers. Received: none in any row. Compute them again."
        )
    truth = np.where(labels[rows, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    scores = _without_itself(features, rows, truth, groups[rows])
    at = np.arange(len(rows))
    own = scores[at, labels[rows]].copy()
    scores[at, labels[rows]] = -np.inf
    other = scores.argmax(axis=1)
    margin = scores[at, other] - own
    found = [
        Suspect(int(rows[k]), int(other[k]), float(margin[k]))
        for k in np.flatnonzero(margin > _MARGIN)
    ]
    return tuple(sorted(found, key=lambda one: (-one.margin, one.photo)))


def _without_itself(
    features: npt.NDArray[np.floating],
    rows: npt.NDArray[np.int64],
    truth: Table,
    groups: npt.NDArray[np.int64],
) -> Table:
    """(n, n_classes): each photo's scores by a classifier that has not seen its group."""
    parts = [slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK)]
    mean = np.mean(features, axis=0, dtype=np.float64, where=_among(features, rows))
    spread = np.std(features, axis=0, dtype=np.float64, where=_among(features, rows))

    def scaled(part: slice | npt.NDArray[np.int64]) -> Table:
        values = (features[rows[part]] - mean) / (spread + 1e-6)
        return np.concatenate([values, np.ones((len(values), 1))], axis=1)

    square = sum(scaled(part).T @ scaled(part) for part in parts)
    values, vectors = np.linalg.eigh(square)
    target = vectors.T @ sum(scaled(part).T @ truth[part] for part in parts)
    errors = np.zeros(len(_STRENGTHS))
    scores = np.zeros((len(_STRENGTHS), *truth.shape))
    for part in parts:
        turned = scaled(part) @ vectors
        for k, strength in enumerate(_STRENGTHS):
            shrunk = 1 / (np.maximum(values, 0) + strength)
            hat = np.minimum((turned**2 * shrunk).sum(axis=1), 1 - 1e-9)[:, None]
            fitted = turned @ (shrunk[:, None] * target)
            scores[k, part] = (fitted - hat * truth[part]) / (1 - hat)
            errors[k] += ((scores[k, part] - truth[part]) ** 2).sum()
    best = int(errors.argmin())
    shrunk = 1 / (np.maximum(values, 0) + _STRENGTHS[best])
    members = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    for alike in members.values():
        if len(alike) > 1:
            some = np.array(alike)
            turned = scaled(some) @ vectors
            left = np.eye(len(some)) * (1 + 1e-9) - (turned * shrunk) @ turned.T
            wrong = truth[some] - turned @ (shrunk[:, None] * target)
            scores[best, some] = truth[some] - np.linalg.solve(left, wrong)
    without: Table = scores[best]
    return without


def _among(
    features: npt.NDArray[np.floating], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    chosen = np.zeros((len(features), 1), bool)
    chosen[rows] = True
    return chosen
