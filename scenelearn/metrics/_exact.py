"""Exact tests on counts: no approximation that fails where counts are small."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scenelearn.errors import ArgumentError


def mcnemar(n_first: int, n_second: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    If two classifiers are equally good, a photo that only one of them gets right is as likely
    the one's as the other's. So `n_first` is a draw from a binomial distribution of n_first +
    n_second trials at ½.

    Args:
        n_first: photos that only the first classifier gets right, at least 0.
        n_second: photos that only the second gets right, at least 0.

    Returns:
        The chance of a difference at least as large where there is none, in [0, 1].

    Raises:
        ArgumentError: if a count is below 0.

    Example:
        >>> round(mcnemar(1, 7), 6)
        0.070312

    References:
        Q. McNemar (1947), Note on the sampling error of the difference between correlated
        proportions or percentages. Psychometrika 12, 153-157.
    """
    if n_first < 0 or n_second < 0:
        raise ArgumentError(
            "`n_first` and `n_second` must be at least 0. "
            f"Received: n_first={n_first}, n_second={n_second}. Count photos."
        )
    n, fewer = int(n_first) + int(n_second), min(int(n_first), int(n_second))
    return min(1.0, 2 * math.fsum(_binomial_half(k, n) for k in range(fewer + 1)))


def fisher(n_right: int, n: int, rest_right: int, rest: int) -> float:
    """The exact one-sided p-value that a group does worse than the rest.

    If the group were drawn from all photos by chance, its number of right answers would have a
    hypergeometric distribution. The p-value is the chance of as few or fewer.

    Args:
        n_right: right answers in the group, in [0, n].
        n: photos in the group.
        rest_right: right answers among all other photos, in [0, rest].
        rest: all other photos.

    Returns:
        The p-value, in [0, 1]; 1 where one side is empty.

    Raises:
        ArgumentError: if a count is out of range.

    Example:
        >>> round(fisher(1, 4, 4, 4), 4)
        0.0714

    References:
        R. A. Fisher (1935), The logic of inductive inference. J. R. Stat. Soc. 98, 39-82.
    """
    if not (0 <= n_right <= n and 0 <= rest_right <= rest):
        raise ArgumentError(
            "`n_right` and `rest_right` must be between 0 and `n` and `rest`. Received: "
            f"{n_right} of {n}, {rest_right} of {rest}. Count right answers."
        )
    right, total = n_right + rest_right, n + rest
    fewest = max(0, n - (total - right))
    whole = _log_choose(total, n)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(right, k) + _log_choose(total - right, n - k) - whole)
            for k in range(fewest, int(n_right) + 1)
        ),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many were looked at, by Holm's method.

    Sorted, the k-th of m is multiplied by m − k + 1, and none is below one before it. Calling
    those below 5 % significant is wrong about any of them in at most 5 % of cases, whatever
    their dependence.

    Args:
        p_values: in [0, 1].

    Returns:
        The corrected ones, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        S. Holm (1979), A simple sequentially rejective multiple test procedure. Scand. J. Stat.
        6, 65-70.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for k, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[index]))
        corrected[index] = largest
    return corrected


def _binomial_half(k: int, n: int) -> float:
    return math.exp(_log_choose(n, k) - n * math.log(2))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
