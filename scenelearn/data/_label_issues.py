"""Find photos whose label is probably wrong, by linear probes trained on the other photos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array
from scenelearn._logistic_regression import (
    N_HELD_OUT,
    Floats,
    Table,
    assign_folds,
    build_space,
    search_l2,
    softmax,
    solve_folds,
)
from scenelearn._progress import Report
from scenelearn.errors import ArgumentError

# With 2, 5 and 10% planted errors, 92, 91 and 88% of them are suggested, and 43, 73 and 86% of the
# suggestions are planted (docs/results/label_errors.json).
_RATIO = 5
_BLOCK_ROWS = 1024


class LabelIssue(NamedTuple):
    """A photo whose label is probably wrong.

    Attributes:
        position: the photo's position.
        suggested_label: the most probable class, an index into `Photos.class_names`.
        label_probability: the probability of the photo's own label, by a linear probe that was
            trained on other photos; at most 1/6.
    """

    position: int
    suggested_label: int
    label_probability: float


def find_label_issues(
    features: Table,
    labels: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int64],
    progress: Report | None = None,
) -> tuple[LabelIssue, ...]:
    """Find photos for which another class is at least five times as probable as their own.

    Args:
        features: (n, n_features) float32, from `check_features`; rows that contain NaN are ignored.
        labels: (n,) int32 in [0, n_classes).
        groups: (n,) int64, the same number for photos that show the same picture.
        progress: called with (L2 penalties done, maximum number of penalties).

    Returns:
        The label issues, the lowest probability of the photo's own label first.

    References:
        Ranking by the out-of-fold probability of the label: C. G. Northcutt, L. Jiang, I. L. Chuang
        (2021), Confident learning: estimating uncertainty in dataset labels. JAIR 70.
    """
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))
    if len(rows) < len(features):  # otherwise without a copy
        features, labels, groups = features[rows], labels[rows], groups[rows]
    suggested, own = np.zeros(len(rows), np.int32), np.full(len(rows), np.nan)
    is_suspect = np.zeros(len(rows), bool)
    for block, logits in _out_of_fold_logits(features, labels, groups, progress):
        probabilities = softmax(logits)
        own[block] = probabilities[np.arange(len(block)), labels[block]]
        suggested[block] = probabilities.argmax(axis=1)
        is_suspect[block] = probabilities.max(axis=1) >= _RATIO * own[block]
    suspects = np.flatnonzero(is_suspect)
    return tuple(
        LabelIssue(int(rows[k]), int(suggested[k]), float(own[k]))
        for k in suspects[np.argsort(own[suspects], kind="stable")]
    )


def predict_out_of_fold(
    features: Table,
    labels: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int64],
    progress: Report | None = None,
) -> Floats:
    """Predict each photo by a linear probe that was trained without its fold, of five.

    Args:
        features: (n, n_features) float32, finite.
        labels: (n,) int32 in [0, n_classes).
        groups: (n,) int64, the same number for photos that must be in the same fold.
        progress: called with (L2 penalties done, maximum number of penalties).

    Returns:
        (n, n_classes) probabilities; NaN for photos of a class with a single group, without which
        there is no classifier of the class.
    """
    probabilities = np.full((len(labels), int(labels.max()) + 1), np.nan)
    for block, logits in _out_of_fold_logits(features, labels, groups, progress):
        probabilities[block] = softmax(logits)
    return probabilities


def _out_of_fold_logits(
    features: Table,
    labels: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int64],
    progress: Report | None,
) -> Iterator[tuple[npt.NDArray[np.int64], Table]]:
    """Blocks of photos and their logits, as for `predict_out_of_fold`; none for those without."""
    n_classes = int(labels.max()) + 1
    fold = assign_folds(labels, groups)
    if not (fold >= 0).any():
        return
    space = build_space(features)
    few = assign_folds(labels, groups, n_held_out=N_HELD_OUT)
    l2 = search_l2(space, labels, n_classes, few, progress=progress).l2
    start = np.zeros((space.table.shape[1], fold.max() + 1, n_classes))
    weights = solve_folds(space, labels, fold, l2, start).astype(np.float32)
    for k in range(weights.shape[1]):
        members, of_fold = np.flatnonzero(fold == k), np.ascontiguousarray(weights[:, k])
        for first in range(0, len(members), _BLOCK_ROWS):
            block = members[first : first + _BLOCK_ROWS]
            yield block, space.table[block] @ of_fold


def check_features(features: npt.ArrayLike, n_photos: int) -> Table:
    """Check that `features` has one row per photo, of which some are finite, as float32.

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
    with np.errstate(over="ignore"):
        table = array.astype(np.float32, copy=False)
    if not np.isfinite(table).all(axis=1).any():
        raise ArgumentError(
            "`features` must hold finite numbers. Received: none in any row. Compute them again."
        )
    return table
