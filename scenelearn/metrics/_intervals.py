"""Confidence intervals for proportions, F1 and any statistic of counts."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array, check_integer
from scenelearn._json import dataclass_json
from scenelearn.errors import ArgumentError

_Z95 = 1.959963984540054  # the 97.5th percentile of the standard normal distribution
_MORE_PHOTOS = 2  # of each class in `bootstrap`: at least 7/8 of the variance, however few it has


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interval:
    """A measured proportion, or a difference of two, with its 95% confidence interval.

    An interval acts as its `value` in ``float()``, ``format()``, comparisons and hashing. So
    intervals with the same value are equal, whatever their ends.

    Attributes:
        value: the estimate: a proportion in [0, 1], or a difference in [-1, 1]. NaN if n is 0.
        low: the lower end of the interval.
        high: the upper end of the interval.
        n: the number of cases that it was measured on.

    Example:
        >>> accuracy = wilson(90, 100)
        >>> accuracy
        <Interval: 90.0% (82.6 to 94.5), n=100>
        >>> float(accuracy), f"{accuracy:.1%}", accuracy > 0.85, accuracy > wilson(7, 10)
        (0.9, '90.0%', True, True)
    """

    value: float
    low: float
    high: float
    n: int

    __array_ufunc__ = None  # NumPy's scalars leave comparisons to this class

    def __float__(self) -> float:
        return float(self.value)

    def __format__(self, spec: str) -> str:
        """Format the value by `spec`; without one, the same as ``str``."""
        return format(self.value, spec) if spec else str(self)

    def __eq__(self, other: object) -> bool:
        value = _value(other)
        return NotImplemented if value is None else self.value == value

    def __lt__(self, other: object) -> bool:
        value = _value(other)
        return NotImplemented if value is None else self.value < value

    def __le__(self, other: object) -> bool:
        value = _value(other)
        return NotImplemented if value is None else self.value <= value

    def __gt__(self, other: object) -> bool:
        value = _value(other)
        return NotImplemented if value is None else self.value > value

    def __ge__(self, other: object) -> bool:
        value = _value(other)
        return NotImplemented if value is None else self.value >= value

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        """As a percentage, e.g. ``90.0% (87.9 to 91.8)``."""
        if self.n == 0:
            return "no photos"
        return f"{100 * self.value:.1f}% ({100 * self.low:.1f} to {100 * self.high:.1f})"

    def __repr__(self) -> str:
        return f"<Interval: {self}, n={self.n}>"

    def to_json(self) -> dict[str, Any]:
        """The four numbers as plain values. A value of NaN becomes None."""
        return dataclass_json(self)


def wilson(n_successes: int, n: int) -> Interval:
    """Wilson's 95% score interval for a proportion.

    The interval contains every proportion p that a two-sided score test at 5% does not reject:
    |p̂ − p| ≤ z √(p (1 − p) / n). Unlike p̂ ± z √(p̂ (1 − p̂) / n), it never leaves [0, 1] and keeps
    its coverage near 0 and 1 and for small n.

    Args:
        n_successes: the number of successes, in [0, n].
        n: the number of trials, at least 0. For 0 the value is NaN and the interval [0, 1].

    Returns:
        The proportion with its interval.

    Raises:
        ArgumentError: if `n` is negative or `n_successes` is not in [0, n].

    Example:
        >>> print(wilson(90, 100))
        90.0% (82.6 to 94.5)

    References:
        E. B. Wilson (1927), Probable inference, the law of succession, and statistical
        inference. J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= n_successes <= n:
        raise ArgumentError(
            "`n_successes` must be between 0 and `n`. "
            f"Received: n_successes={n_successes}, n={n}. Count successes among n trials."
        )
    n = int(n)  # n² would overflow in NumPy's small integers
    if n == 0:
        return Interval(value=math.nan, low=0.0, high=1.0, n=0)
    p = float(n_successes) / n
    shrink = 1 + _Z95**2 / n
    center = (p + _Z95**2 / (2 * n)) / shrink
    half = _Z95 / shrink * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n**2))
    low = 0.0 if n_successes == 0 else max(0.0, center - half)
    high = 1.0 if n_successes == n else min(1.0, center + half)
    return Interval(value=p, low=low, high=high, n=n)


def f1_interval(n_correct: int, n_photos: int, n_predicted: int) -> Interval:
    """F1 score of one class with its 95% interval.

    Let p be the fraction of true positives among the m photos that belong to the class or were
    predicted as it. F1 = 2p/(1 + p) increases with p, so Wilson's interval for p in m trials
    maps to an interval for F1.

    Args:
        n_correct: true positives, at most the other counts.
        n_photos: photos of the class.
        n_predicted: photos predicted as the class.

    Returns:
        F1, the harmonic mean of precision and recall, with its interval. The value is 0 if the
        class has neither photos nor predictions.

    Example:
        >>> print(f1_interval(80, 100, 90))
        84.2% (77.9 to 89.0)
    """
    p = wilson(n_correct, n_photos + n_predicted - n_correct)
    if not p.n:
        return Interval(value=0.0, low=0.0, high=1.0, n=0)
    value, low, high = (2 * x / (1 + x) for x in (p.value, p.low, p.high))
    return Interval(value=value, low=low, high=high, n=p.n)


def bootstrap(
    counts: npt.ArrayLike,
    statistic: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    pseudocounts: npt.ArrayLike,
    *,
    n_resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Stratified percentile bootstrap: a 95% interval for any statistic of counts.

    Row k of `counts` holds how many photos of class k had each outcome. Each resample draws as
    many photos per class as there are, with replacement, so class sizes stay fixed. The interval
    spans the 2.5th to the 97.5th percentile of the statistic. The result depends only on the
    counts and the seed, not on the order of the photos.

    Before resampling, `pseudocounts` are added, spread evenly over the classes with photos.
    Without them, a class with no errors would have none in any resample: with 10 photos per
    class, intervals for an accuracy of 98% would cover the true value in only 88% of cases.
    Resamples of a class with n photos vary by (n − 1)/n as much as new photos would, and those of
    a single photo not at all. So each class is resampled as if it had two more photos, with the
    outcomes of all photos; the mean that this adds to the statistic is subtracted again.

    Args:
        counts: (n_classes, n_outcomes) non-negative integers.
        statistic: maps counts of shape (..., n_classes, n_outcomes) to values of shape (...). It is
            also called with expected counts, which are fractions, and with counts where all
            outcomes are the same.
        pseudocounts: (n_outcomes,) non-negative numbers.
        n_resamples: the number of resamples.
        seed: the random seed.

    Returns:
        The statistic of the original counts with its interval. `n` is the number of photos.

    Raises:
        ArgumentError: if `counts` is not such an array or all zero, `pseudocounts` is not such an
            array, or `n_resamples` or `seed` is out of range.

    Example:
        >>> correct_and_wrong = [[45, 5], [48, 2]]
        >>> accuracy = lambda c: c[..., 0].sum(-1) / c.sum((-2, -1))
        >>> print(bootstrap(correct_and_wrong, accuracy, [2, 2]))
        93.0% (86.0 to 96.0)

    References:
        B. Efron, R. Tibshirani (1993), An introduction to the bootstrap. Chapman & Hall.
        Pseudocounts: A. Agresti, B. A. Coull (1998), Approximate is better than "exact" for
        interval estimation of binomial proportions. Am. Stat. 52, 119-126.
    """
    check_integer("n_resamples", n_resamples, low=1, advice="The default is 4000.")
    check_integer("seed", seed, low=0, advice="The default is 0.")
    table = np.asarray(counts)
    is_integer = table.ndim == 2 and np.issubdtype(table.dtype, np.integer)
    if not is_integer or not table.size or table.min() < 0 or not table.sum():
        raise ArgumentError(
            "`counts` must be (n_classes, n_outcomes) non-negative integers, not all 0. "
            f"Received: shape {table.shape}, dtype {table.dtype}. Count photos by class and "
            "outcome."
        )
    added = check_array("pseudocounts", pseudocounts)
    is_numeric = added.shape == table.shape[1:] and added.dtype.kind in "iuf"
    if not is_numeric or not (added >= 0).all():
        raise ArgumentError(
            f"`pseudocounts` must be {table.shape[1]} non-negative numbers, one per outcome. "
            f"Received: {pseudocounts!r:.80}. Pass e.g. {[2] * table.shape[1]}."
        )
    table = table.astype(np.int64)
    n = table.sum(axis=1, keepdims=True)
    has_photos = n[:, 0] > 0
    smoothed = np.where(n > 0, table + added / has_photos.sum(), 0)
    pooled = smoothed.sum(axis=0) / smoothed.sum()
    own, drawn = (
        np.divide(each, each.sum(axis=1, keepdims=True), out=np.zeros(table.shape), where=n > 0)
        for each in (smoothed, smoothed + _MORE_PHOTOS * pooled)
    )
    random = np.random.default_rng(seed)
    resamples = np.zeros((n_resamples, *table.shape), np.int64)
    for k in np.flatnonzero(has_photos):
        resamples[:, k] = random.multinomial(n[k, 0], drawn[k], size=n_resamples)
    value, values = float(statistic(table)), statistic(resamples)
    # The range of the statistic, as far as it is known: as if all outcomes were the same, too.
    with np.errstate(divide="ignore", invalid="ignore"):
        same = [statistic(n * one) for one in np.eye(table.shape[1], dtype=np.int64)]
    low, high = np.clip(
        np.quantile(values, (0.025, 0.975)) + float(statistic(n * own) - statistic(n * drawn)),
        np.nanmin([values.min(), *same]),
        np.nanmax([values.max(), *same]),
    )
    return Interval(
        value=value, low=min(float(low), value), high=max(float(high), value), n=int(n.sum())
    )


def _value(other: object) -> Any:
    """The number to compare with; None if it is not a number."""
    if isinstance(other, Interval):
        return other.value
    return other if isinstance(other, numbers.Real) else None
