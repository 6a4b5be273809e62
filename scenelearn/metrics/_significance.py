"""Exact significance tests on counts, and a correction for multiple testing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scenelearn.errors import ArgumentError


def mcnemar(n_only_a: int, n_only_b: int) -> float:
    """McNemar's exact two-sided test for two classifiers on the same photos.

    If both classifiers are equally good, a photo that only one of them gets right is as likely to
    be a's as b's. So `n_only_a` follows a binomial distribution with n_only_a + n_only_b trials
    and p = ½.

    Args:
        n_only_a: photos that only classifier a gets right, at least 0.
        n_only_b: photos that only classifier b gets right, at least 0.

    Returns:
        The p-value: the probability of a difference at least as large under the null hypothesis.

    Raises:
        ArgumentError: if a count is negative.

    Example:
        >>> round(mcnemar(1, 7), 6)
        0.070312

    References:
        Q. McNemar (1947), Note on the sampling error of the difference between correlated
        proportions or percentages. Psychometrika 12, 153-157.
    """
    if n_only_a < 0 or n_only_b < 0:
        raise ArgumentError(
            "`n_only_a` and `n_only_b` must be at least 0. "
            f"Received: n_only_a={n_only_a}, n_only_b={n_only_b}. Pass counts of photos."
        )
    n, fewer = int(n_only_a) + int(n_only_b), min(int(n_only_a), int(n_only_b))
    return min(1.0, 2 * math.fsum(_binomial_half(k, n) for k in range(fewer + 1)))


def fisher(n_correct: int, n: int, rest_correct: int, rest: int) -> float:
    """Fisher's exact one-sided test that a slice has a lower accuracy than the rest.

    If the slice were a random sample of all photos, its number of correct predictions would
    follow a hypergeometric distribution. The p-value is the probability of as few or fewer.

    Args:
        n_correct: correct predictions in the slice, in [0, n].
        n: photos in the slice.
        rest_correct: correct predictions among all other photos, in [0, rest].
        rest: all other photos.

    Returns:
        The p-value, in [0, 1]. It is 1 if the slice or the rest is empty.

    Example:
        >>> round(fisher(1, 4, 4, 4), 4)
        0.0714

    References:
        R. A. Fisher (1935), The logic of inductive inference. J. R. Stat. Soc. 98, 39-82.
    """
    correct, total = n_correct + rest_correct, n + rest
    fewest = max(0, n - (total - correct))
    all_samples = _log_choose(total, n)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(correct, k) + _log_choose(total - correct, n - k) - all_samples)
            for k in range(fewest, int(n_correct) + 1)
        ),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple testing by Holm's method.

    The k-th smallest of m p-values is multiplied by m − k + 1; the results are made monotone and
    capped at 1. Rejecting where the adjusted p-value is below 5% keeps the family-wise error rate
    at 5%, whatever the dependence between the tests.

    Args:
        p_values: in [0, 1].

    Returns:
        The adjusted p-values, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        S. Holm (1979), A simple sequentially rejective multiple test procedure. Scand. J. Stat.
        6, 65-70.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for k, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _binomial_half(k: int, n: int) -> float:
    return math.exp(_log_choose(n, k) - n * math.log(2))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
