"""Find photos whose label is probably wrong, by a classifier trained on all other photos."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array
from scenelearn.errors import ArgumentError

_L2 = 10.0 ** np.arange(0, 7)  # candidate penalties; the one with the lowest error is used
_MARGIN = 1.0  # half the distance between the targets 1 and -1
_CHUNK = 4096

Table = npt.NDArray[np.float64]


class LabelIssue(NamedTuple):
    """A photo whose label is probably wrong.

    Attributes:
        position: the photo's position.
        suggested_label: the class that it looks like, an index into `Photos.class_names`.
        margin: how much higher that class scores than the photo's own, above 1. Above 2, the label
            is almost certainly wrong.
    """

    position: int
    suggested_label: int
    margin: float


def find_label_issues(
    features: npt.NDArray[np.floating], labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int64]
) -> tuple[LabelIssue, ...]:
    """Find photos that a linear classifier, trained on all other groups, assigns to another class.

    The classifier is ridge regression on the features, with the target 1 for a photo's own class
    and -1 for the others. Its prediction without a photo, or without a group g of photos, follows
    from the prediction with all of them: with the hat matrix H = Z (ZᵀZ + λI)⁻¹ Zᵀ it is
    Y_g - (I - H_gg)⁻¹ (Y_g - (HY)_g), so nothing is trained twice.

    Args:
        features: (n, n_features); rows that contain NaN are ignored.
        labels: (n,) int32 in [0, n_classes).
        groups: (n,) int64, the same number for photos that show the same picture.

    Returns:
        The label issues, the largest margin first.

    Raises:
        ArgumentError: if `features` does not have one row per photo, or no row is finite.

    References:
        Leave-one-out residuals: D. Allen (1974), The relationship between variable selection and
        data augmentation and a method for prediction. Technometrics 16, equation 1.4.
    """
    features = check_features(features, len(labels))
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    targets = np.where(labels[rows, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    scores = _leave_one_out(features, rows, targets, groups[rows])
    positions = np.arange(len(rows))
    own = scores[positions, labels[rows]].copy()
    scores[positions, labels[rows]] = -np.inf
    other = scores.argmax(axis=1)
    margin = scores[positions, other] - own
    issues = [
        LabelIssue(int(rows[k]), int(other[k]), float(margin[k]))
        for k in np.flatnonzero(margin > _MARGIN)
    ]
    return tuple(sorted(issues, key=lambda issue: (-issue.margin, issue.position)))


def check_features(features: npt.ArrayLike, n_photos: int) -> npt.NDArray[np.floating]:
    """Check that `features` has one row per photo, of which some are finite.

    Raises:
        ArgumentError: if it is something else.
    """
    advice = "Pass scenelearn.finetune.extract_features(photos)."
    array = check_array("features", features, advice=advice)
    if array.ndim != 2 or len(array) != n_photos or array.dtype.kind not in "fiu":
        raise ArgumentError(
            f"`features` must have one row for each of the {n_photos:,} photos. Received: shape "
            f"{array.shape} of {array.dtype}. {advice}"
        )
    if not np.isfinite(array).all(axis=1).any():
        raise ArgumentError(
            "`features` must hold finite numbers. Received: none in any row. Compute them again."
        )
    return array


def _leave_one_out(
    features: npt.NDArray[np.floating],
    rows: npt.NDArray[np.int64],
    targets: Table,
    groups: npt.NDArray[np.int64],
) -> Table:
    """(n, n_classes): each photo's scores by a classifier trained without the photo's group."""
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK)]
    selected = np.zeros((len(features), 1), bool)
    selected[rows] = True
    mean = np.mean(features, axis=0, dtype=np.float64, where=selected)
    deviation = np.std(features, axis=0, dtype=np.float64, where=selected)

    def standardize(part: slice | npt.NDArray[np.int64]) -> Table:
        values = (features[rows[part]] - mean) / (deviation + 1e-6)
        return np.concatenate([values, np.ones((len(values), 1))], axis=1)

    gram = sum(standardize(chunk).T @ standardize(chunk) for chunk in chunks)
    eigenvalues, eigenvectors = np.linalg.eigh(gram)
    correlation = eigenvectors.T @ sum(standardize(c).T @ targets[c] for c in chunks)
    errors = np.zeros(len(_L2))
    scores = np.zeros((len(_L2), *targets.shape))
    for chunk in chunks:
        rotated = standardize(chunk) @ eigenvectors
        for k, l2 in enumerate(_L2):
            inverse = 1 / (np.maximum(eigenvalues, 0) + l2)
            hat = np.minimum((rotated**2 * inverse).sum(axis=1), 1 - 1e-9)[:, None]
            fitted = rotated @ (inverse[:, None] * correlation)
            scores[k, chunk] = (fitted - hat * targets[chunk]) / (1 - hat)
            errors[k] += ((scores[k, chunk] - targets[chunk]) ** 2).sum()
    best = int(errors.argmin())
    inverse = 1 / (np.maximum(eigenvalues, 0) + _L2[best])
    members = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    for group_rows in members.values():
        if len(group_rows) > 1:
            indices = np.array(group_rows)
            rotated = standardize(indices) @ eigenvectors
            left = np.eye(len(indices)) * (1 + 1e-9) - (rotated * inverse) @ rotated.T
            residual = targets[indices] - rotated @ (inverse[:, None] * correlation)
            scores[best, indices] = targets[indices] - np.linalg.solve(left, residual)
    result: Table = scores[best]
    return result
