"""What sets of classes and abstaining are worth, on photos whose labels are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError
from scenelearn.metrics._intervals import Interval, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustScore:
    """How a classifier fares that may name several classes, or abstain.

    It abstains where its set holds more than one class, or the photo is unlike the training
    photos.

    Attributes:
        coverage: share of photos whose set holds the true class.
        mean_set_size: classes in a set, on average.
        unlike: share of photos flagged as unlike the training photos.
        answered: share of photos on which it does not abstain.
        accuracy_answered: of these, the share of right answers.
    """

    coverage: Interval
    mean_set_size: float
    unlike: Interval
    answered: Interval
    accuracy_answered: Interval

    def __str__(self) -> str:
        return (
            f"sets hold the true class for {self.coverage}; answers {self.answered} of the "
            f"photos, of which right {self.accuracy_answered}"
        )

    def to_json(self) -> dict[str, Any]:
        """The five fields as plain values."""
        return {
            "coverage": self.coverage.to_json(),
            "mean_set_size": self.mean_set_size,
            "unlike": self.unlike.to_json(),
            "answered": self.answered.to_json(),
            "accuracy_answered": self.accuracy_answered.to_json(),
        }


def trust_score(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    sets: npt.ArrayLike,
    unlike: npt.ArrayLike,
) -> TrustScore:
    """Count how often sets hold the truth, and how good the answers are that are given.

    Args:
        labels: (n,) true classes, integers in [0, n_classes).
        predicted: (n,) most probable classes.
        sets: (n, n_classes) booleans.
        unlike: (n,) booleans, photos that are flagged.

    Returns:
        The counts as shares with their intervals.

    Raises:
        ArgumentError: if shapes do not fit together.

    Example:
        >>> score = trust_score(np.array([0, 1]), np.array([0, 0]), [[1, 0], [1, 1]], [0, 0])
        >>> score.coverage.value, score.answered.value, score.accuracy_answered.value
        (1.0, 0.5, 1.0)
    """
    chosen, flagged = np.asarray(sets, bool), np.asarray(unlike, bool)
    n = len(labels)
    if chosen.ndim != 2 or len(chosen) != n or flagged.shape != (n,) or not n:
        raise ArgumentError(
            "`sets` must be (n, n_classes) and `unlike` (n,) for n labels, at least one. Received: "
            f"shapes {chosen.shape} and {flagged.shape} for {n} labels. Pass what belongs together."
        )
    sizes = chosen.sum(axis=1)
    answers = (sizes == 1) & ~flagged
    right = predicted == labels
    return TrustScore(
        coverage=wilson(int(chosen[np.arange(n), labels].sum()), n),
        mean_set_size=float(sizes.mean()),
        unlike=wilson(int(flagged.sum()), n),
        answered=wilson(int(answers.sum()), n),
        accuracy_answered=wilson(int((right & answers).sum()), int(answers.sum())),
    )
