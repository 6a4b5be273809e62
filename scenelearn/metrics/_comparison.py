"""Comparison of two classifiers on the same photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._display import html_text
from scenelearn._json import dataclass_json
from scenelearn.metrics._evaluation import mean_recall
from scenelearn.metrics._inputs import check_predictions
from scenelearn.metrics._intervals import Interval, bootstrap, wilson
from scenelearn.metrics._significance import mcnemar

_LEVEL = 0.05
# Half a photo each for: both correct, only a, only b, neither (A. Agresti, Y. Min, 2005).
_PSEUDOCOUNTS = (0.5, 0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Paired comparison of two classifiers, a and b, on the same photos.

    Attributes:
        n_photos: number of photos.
        accuracy_a: accuracy of the first classifier.
        accuracy_b: accuracy of the second classifier.
        n_only_a_correct: photos that only the first gets right.
        n_only_b_correct: photos that only the second gets right.
        accuracy_difference: accuracy of b minus accuracy of a, with a paired, stratified bootstrap
            interval.
        balanced_accuracy_difference: the same for balanced accuracy.
        p_value: McNemar's exact test.
    """

    n_photos: int
    accuracy_a: Interval
    accuracy_b: Interval
    n_only_a_correct: int
    n_only_b_correct: int
    accuracy_difference: Interval
    balanced_accuracy_difference: Interval
    p_value: float

    @property
    def winner(self) -> str | None:
        """The significantly better classifier, "a" or "b"; None if the p-value is at least 5%."""
        if self.p_value >= _LEVEL:
            return None
        return "b" if self.n_only_b_correct > self.n_only_a_correct else "a"

    def __str__(self) -> str:
        d = self.accuracy_difference
        return (
            f"{self._verdict()} (p = {self.p_value:.2g})\n"
            f"accuracy of a: {self.accuracy_a}\n"
            f"accuracy of b: {self.accuracy_b}\n"
            f"b minus a: {100 * d.value:+.1f} points ({100 * d.low:+.1f} to {100 * d.high:+.1f})\n"
            f"of {self.n_photos:,} photos, only a is correct on {self.n_only_a_correct:,}, "
            f"only b on {self.n_only_b_correct:,}"
        )

    def __repr__(self) -> str:
        return (
            f"<Comparison: {self._verdict()}, b minus a "
            f"{100 * self.accuracy_difference.value:+.1f} points, p = {self.p_value:.2g}, "
            f"{self.n_photos:,} photos>"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields and the winner as plain values."""
        return dataclass_json(self) | {"winner": self.winner}

    def _verdict(self) -> str:
        return f"{self.winner} is better" if self.winner else "no significant difference"

    def _repr_html_(self) -> str:
        return html_text(self)


def compare(
    labels: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    class_names: Sequence[str],
) -> Comparison:
    """Compare two classifiers on the same photos.

    The comparison is paired: what counts is the photos that only one of the two gets right. Their
    separate confidence intervals may overlap although one is significantly better.

    Args:
        labels: (n,) integers in [0, n_classes), the true classes.
        a: (n, n_classes) probabilities of the first classifier, columns in the order of
            `class_names`.
        b: (n, n_classes) probabilities of the second, for the same photos and in the same order.
        class_names: one name per column.

    Returns:
        Both accuracies, their difference with its interval, and the p-value.

    Raises:
        ArgumentError: if `a` or `b` does not hold probabilities for these labels.

    Example:
        >>> print(compare([0, 0, 1], [[1, 0], [0, 1], [0, 1]], [[1, 0], [1, 0], [0, 1]], "xy"))
        no significant difference (p = 1)
        accuracy of a: 66.7% (20.8 to 93.9)
        accuracy of b: 100.0% (43.9 to 100.0)
        b minus a: +33.3 points (-33.1 to +66.9)
        of 3 photos, only a is correct on 0, only b on 1

    References:
        T. G. Dietterich (1998), Approximate statistical tests for comparing supervised
        classification learning algorithms. Neural Computation 10, 1895-1923. Pseudocounts:
        A. Agresti, Y. Min (2005), Simple improved confidence intervals for comparing matched
        proportions. Stat. Med. 24, 729-740.
    """
    y_true, prob_a, names = check_predictions(labels, a, class_names)
    _, prob_b, _ = check_predictions(labels, b, class_names)
    correct_a, correct_b = (prob.argmax(axis=1) == y_true for prob in (prob_a, prob_b))
    outcome = 2 * ~correct_a + ~correct_b  # both, only a, only b, neither
    counts = np.zeros((len(names), 4), np.int64)
    np.add.at(counts, (y_true, outcome), 1)
    n_only_a, n_only_b = int(counts[:, 1].sum()), int(counts[:, 2].sum())
    return Comparison(
        n_photos=len(y_true),
        accuracy_a=wilson(int(correct_a.sum()), len(y_true)),
        accuracy_b=wilson(int(correct_b.sum()), len(y_true)),
        n_only_a_correct=n_only_a,
        n_only_b_correct=n_only_b,
        accuracy_difference=bootstrap(counts, _accuracy_difference, _PSEUDOCOUNTS),
        balanced_accuracy_difference=bootstrap(
            counts, _balanced_accuracy_difference, _PSEUDOCOUNTS
        ),
        p_value=mcnemar(n_only_a, n_only_b),
    )


def _accuracy_difference(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    total = counts.sum(axis=(-2, -1))
    fraction: npt.NDArray[np.float64] = (counts[..., 2] - counts[..., 1]).sum(axis=-1) / total
    return fraction


def _balanced_accuracy_difference(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    both, only_a, only_b, neither = np.moveaxis(counts, -1, 0)
    outcomes_a = np.stack([both + only_a, only_b + neither], axis=-1)
    outcomes_b = np.stack([both + only_b, only_a + neither], axis=-1)
    return mean_recall(outcomes_b) - mean_recall(outcomes_a)
