"""Metrics of prediction sets and of abstaining (selective classification)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._json import dataclass_json
from scenelearn.errors import ArgumentError
from scenelearn.metrics._intervals import Interval, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveMetrics:
    """Performance of a classifier that predicts sets of classes and may abstain.

    The classifier abstains if the prediction set does not have exactly one member, or if the
    photo is out of distribution (OOD).

    Attributes:
        coverage: fraction of photos whose prediction set contains the true class.
        mean_set_size: mean number of classes per set.
        ood_rate: fraction of photos flagged as out of distribution.
        answer_rate: fraction of photos on which the classifier does not abstain.
        selective_accuracy: accuracy on those photos.
    """

    coverage: Interval
    mean_set_size: float
    ood_rate: Interval
    answer_rate: Interval
    selective_accuracy: Interval

    def __str__(self) -> str:
        return (
            f"prediction sets contain the true class for {self.coverage}\n"
            f"accuracy {self.selective_accuracy} on the {self.answer_rate} without abstaining"
        )

    def __repr__(self) -> str:
        return (
            f"<SelectiveMetrics: coverage {_percent(self.coverage)}, answer rate "
            f"{_percent(self.answer_rate)}, selective accuracy "
            f"{_percent(self.selective_accuracy)}>"
        )

    def to_json(self) -> dict[str, Any]:
        """The five fields as plain values."""
        return dataclass_json(self)


def selective_metrics(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    prediction_sets: npt.ArrayLike,
    is_ood: npt.ArrayLike,
) -> SelectiveMetrics:
    """Compute the coverage of prediction sets, and the accuracy where the classifier answers.

    Args:
        labels: (n,) true classes, integers in [0, n_classes).
        predicted: (n,) most probable classes.
        prediction_sets: (n, n_classes) booleans.
        is_ood: (n,) booleans.

    Returns:
        The metrics with their intervals.

    Raises:
        ArgumentError: if shapes do not match or there are no photos.

    Example:
        >>> selective_metrics(np.array([0, 1]), np.array([0, 0]), [[1, 0], [1, 1]], [0, 0])
        <SelectiveMetrics: coverage 100.0%, answer rate 50.0%, selective accuracy 100.0%>
    """
    sets, flagged = np.asarray(prediction_sets, bool), np.asarray(is_ood, bool)
    n = len(labels)
    if sets.ndim != 2 or len(sets) != n or flagged.shape != (n,) or not n:
        raise ArgumentError(
            "`prediction_sets` must be (n, n_classes) and `is_ood` (n,), with n > 0 labels. "
            f"Received: shapes {sets.shape} and {flagged.shape} for {n} labels. "
            "Pass one row per photo."
        )
    sizes = sets.sum(axis=1)
    answers = (sizes == 1) & ~flagged
    correct = predicted == labels
    return SelectiveMetrics(
        coverage=wilson(int(sets[np.arange(n), labels].sum()), n),
        mean_set_size=float(sizes.mean()),
        ood_rate=wilson(int(flagged.sum()), n),
        answer_rate=wilson(int(answers.sum()), n),
        selective_accuracy=wilson(int((correct & answers).sum()), int(answers.sum())),
    )


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f}%" if interval.n else "–"
