"""Intervals for proportions: how far to trust an accuracy that was measured on n photos."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scenelearn.errors import ArgumentError

_Z95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A measured proportion with its 95 % confidence interval.

    Attributes:
        value: the proportion that was measured, in [0, 1]; NaN where nothing was counted.
        low: lower end of the interval, in [0, 1].
        high: upper end of the interval, in [0, 1].
        n: how many cases the proportion was measured on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """As a percentage, e.g. ``90.0 % (87.9 to 91.8)``."""
        if self.n == 0:
            return "no photos"
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"

    def to_json(self) -> dict[str, float | int | None]:
        """The four numbers; NaN becomes None, which JSON can hold."""
        value = None if math.isnan(self.value) else self.value
        return {"value": value, "low": self.low, "high": self.high, "n": self.n}


def wilson(n_right: int, n: int) -> Interval:
    """Wilson's 95 % score interval for `n_right` successes in `n` trials.

    It is the set of true proportions p that a two-sided score test at 5 % would not reject:
    |p̂ − p| ≤ z √(p (1 − p) / n). Unlike p̂ ± z √(p̂ (1 − p̂) / n) it never leaves [0, 1] and
    stays honest near 0 and 1 and for few photos.

    Args:
        n_right: successes, 0 ≤ n_right ≤ n.
        n: trials, at least 0. With 0 the interval is all of [0, 1] and the value NaN.

    Returns:
        The proportion and its interval.

    Raises:
        ArgumentError: if `n` is negative or `n_right` is not within [0, n].

    Example:
        >>> print(wilson(90, 100))
        90.0 % (82.6 to 94.5)

    References:
        E. B. Wilson (1927), Probable inference, the law of succession, and statistical
        inference. J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= n_right <= n:
        raise ArgumentError(
            "`n_right` must be between 0 and `n`. "
            f"Received: n_right={n_right}, n={n}. Count successes among the n trials."
        )
    if n == 0:
        return Interval(value=math.nan, low=0.0, high=1.0, n=0)
    share = n_right / n
    shrink = 1 + _Z95**2 / n
    centre = (share + _Z95**2 / (2 * n)) / shrink
    half = _Z95 / shrink * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n**2))
    low = 0.0 if n_right == 0 else max(0.0, centre - half)
    high = 1.0 if n_right == n else min(1.0, centre + half)
    return Interval(value=float(share), low=float(low), high=float(high), n=int(n))
