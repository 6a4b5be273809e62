"""Two classifiers on the same photos: which is better, and how sure is that?"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.metrics._checks import checked
from scenelearn.metrics._exact import mcnemar
from scenelearn.metrics._intervals import Interval, bootstrap, wilson
from scenelearn.metrics._measure import mean_recall

_LEVEL = 0.05
# Half a photo to each of: both right, only a, only b, none (A. Agresti, Y. Min, 2005).
_SMOOTH = (0.5, 0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two classifiers, a and b, judged on the same photos.

    Attributes:
        n_photos: how many photos both judged.
        a: accuracy of the first.
        b: accuracy of the second.
        n_only_a: photos that only the first gets right.
        n_only_b: photos that only the second gets right.
        difference: accuracy of b minus that of a, with the interval of a paired bootstrap that
            keeps the sizes of the classes.
        balanced_difference: the same for the mean of the classes' recalls.
        p_value: McNemar's exact test: the chance of a difference at least as large between two
            that are equally good.
    """

    n_photos: int
    a: Interval
    b: Interval
    n_only_a: int
    n_only_b: int
    difference: Interval
    balanced_difference: Interval
    p_value: float

    @property
    def better(self) -> str:
        """Which of the two, "a" or "b", where the p-value is below 5 %; else an empty word."""
        if self.p_value >= _LEVEL:
            return ""
        return "b" if self.n_only_b > self.n_only_a else "a"

    def __str__(self) -> str:
        verdict = {
            "": "no significant difference",
            "a": "the first is better",
            "b": "the second is better",
        }[self.better]
        d = self.difference
        return (
            f"{verdict}: {self.a} against {self.b} on {self.n_photos:,} photos; the second by "
            f"{100 * d.value:+.1f} points ({100 * d.low:+.1f} to {100 * d.high:+.1f}), "
            f"p = {self.p_value:.2g}; only the first is right on {self.n_only_a:,} photos, only "
            f"the second on {self.n_only_b:,}"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers and strings."""
        return {
            "n_photos": self.n_photos,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "n_only_a": self.n_only_a,
            "n_only_b": self.n_only_b,
            "difference": self.difference.to_json(),
            "balanced_difference": self.balanced_difference.to_json(),
            "p_value": self.p_value,
            "better": self.better,
        }

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"


def compare(
    labels: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    class_names: Sequence[str],
) -> Comparison:
    """Compare two classifiers on the same photos, photo by photo.

    Both see the same photos, hard and easy ones; so it is not their two intervals that tell
    whether one is better, but the photos that only one of them gets right.

    Args:
        labels: (n,) integers in [0, n_classes), the true classes.
        a: (n, n_classes) probabilities of the first, columns in the order of `class_names`.
        b: (n, n_classes) those of the second, for the same photos; bring its columns into the
            same order with `reorder`.
        class_names: one name a column.

    Returns:
        Both accuracies, their difference with its interval, and the test.

    Raises:
        ArgumentError: if one of the two is no table of probabilities for these labels.

    Example:
        >>> print(compare([0, 0, 1], [[1, 0], [0, 1], [0, 1]], [[1, 0], [1, 0], [0, 1]], "xy"))
        no significant difference: 66.7 % (20.8 to 93.9) against 100.0 % (43.9 to 100.0) on 3
        photos; the second by +33.3 points (-33.3 to +66.7), p = 1; only the first is right on
        0 photos, only the second on 1

    References:
        T. G. Dietterich (1998), Approximate statistical tests for comparing supervised
        classification learning algorithms. Neural Computation 10, 1895-1923. The half photos
        that smooth the bootstrap: A. Agresti, Y. Min (2005), Simple improved confidence
        intervals for comparing matched proportions. Stat. Med. 24, 729-740.
    """
    truth, first, names = checked(labels, a, class_names)
    _, second, _ = checked(labels, b, class_names)
    right_a, right_b = (table.argmax(axis=1) == truth for table in (first, second))
    outcome = 2 * ~right_a + ~right_b  # both, only a, only b, none
    counts = np.zeros((len(names), 4), np.int64)
    np.add.at(counts, (truth, outcome), 1)
    n_only_a, n_only_b = int(counts[:, 1].sum()), int(counts[:, 2].sum())
    return Comparison(
        n_photos=len(truth),
        a=wilson(int(right_a.sum()), len(truth)),
        b=wilson(int(right_b.sum()), len(truth)),
        n_only_a=n_only_a,
        n_only_b=n_only_b,
        difference=bootstrap(counts, _difference, _SMOOTH),
        balanced_difference=bootstrap(counts, _balanced_difference, _SMOOTH),
        p_value=mcnemar(n_only_a, n_only_b),
    )


def _difference(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    total = counts.sum(axis=(-2, -1))
    share: npt.NDArray[np.float64] = (counts[..., 2] - counts[..., 1]).sum(axis=-1) / total
    return share


def _balanced_difference(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    of_a = np.stack([counts[..., 0] + counts[..., 1], counts[..., 2] + counts[..., 3]], axis=-1)
    of_b = np.stack([counts[..., 0] + counts[..., 2], counts[..., 1] + counts[..., 3]], axis=-1)
    return mean_recall(of_b) - mean_recall(of_a)
