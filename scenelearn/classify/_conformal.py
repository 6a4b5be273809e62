"""Conformal prediction: sets of classes that hold the truth as often as was asked for."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError


def set_scores(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How little the true class was expected: 1 − its probability.

    Args:
        probabilities: (n, n_classes), rows that sum to 1.
        labels: (n,) integers in [0, n_classes).

    Returns:
        (n,) in [0, 1], sorted: what `set_threshold` takes.

    Example:
        >>> set_scores([[0.75, 0.25], [0.5, 0.5]], [0, 1]).tolist()
        [0.25, 0.5]
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    return np.sort(1 - p[np.arange(len(y)), y])


def set_threshold(scores: npt.NDArray[np.floating], coverage: float) -> float:
    """The largest score that a class may have to be in the set: a quantile of the validation's.

    Of n scores in order it is the ⌈(n + 1) · coverage⌉-th: the "+ 1" stands for the new photo,
    and makes the guarantee hold for every n, not only for large ones.

    Args:
        scores: (n,), sorted, from `set_scores` on photos that were not trained on.
        coverage: how often the set is to hold the truth, between 0 and 1.

    Returns:
        The threshold; infinity, and so every class in every set, where n is too small to promise
        this coverage.

    Raises:
        ArgumentError: if `coverage` is not between 0 and 1.

    Example:
        >>> scores = np.arange(1, 10) / 10
        >>> set_threshold(scores, 0.8), set_threshold(scores, 0.95)
        (0.8, inf)
    """
    number = isinstance(coverage, int | float) and not isinstance(coverage, bool)
    if not number or not 0 < coverage < 1:
        raise ArgumentError(
            f"`coverage` must be a number between 0 and 1. Received: coverage={coverage!r}. "
            "Pass e.g. 0.95: the set then holds the true class 95 times in 100."
        )
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def prediction_sets(probabilities: npt.ArrayLike, threshold: float) -> npt.NDArray[np.bool_]:
    """Which classes are in each photo's set: all with 1 − probability up to the threshold.

    The guarantee: if new photos come from where the validation photos came from, the sets hold
    the true class at least as often as the coverage that the threshold is for, whatever the
    network, on average over all photos; not in each class, and not on photos of another kind.
    Of all sets with this guarantee those by probability are the smallest on average. The most
    probable class is always in the set, which makes it hold the truth more often at most.

    Args:
        probabilities: (n, n_classes).
        threshold: from `set_threshold`.

    Returns:
        (n, n_classes).

    Example:
        >>> prediction_sets([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55]], 0.6).tolist()
        [[True, False], [True, True], [True, True]]

    References:
        M. Sadinle, J. Lei, L. Wasserman (2019), Least ambiguous set-valued classifiers with
        bounded error levels. J. Am. Stat. Assoc. 114, 223-234. Split conformal prediction: V. Vovk,
        A. Gammerman, G. Shafer (2005), Algorithmic learning in a random world. Springer.
    """
    p = np.asarray(probabilities, np.float64)
    sets: npt.NDArray[np.bool_] = 1 - p <= threshold
    sets[np.arange(len(p)), p.argmax(axis=1)] = True
    return sets
