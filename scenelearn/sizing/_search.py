"""Search for the largest size that fits."""

from __future__ import annotations

from collections.abc import Callable


def largest_that_fits(fits: Callable[[int], bool], limit: int) -> int:
    """Return the largest n from 1 to `limit` that fits, by doubling and bisection; 0 if none does.

    Assumes that everything below a size that fits also fits.
    """
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
