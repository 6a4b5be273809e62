"""The largest number for which something holds."""

from __future__ import annotations

from collections.abc import Callable


def largest_that_fits(fits: Callable[[int], bool], limit: int) -> int:
    """The largest n from 1 to a limit that fits, found by doubling and halving; 0 for none.

    What fits at n is taken to fit at every smaller number.
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


def scaled(high: int, height: int, width: int) -> int:
    """The width that goes with a height, in given proportions; at least 1."""
    return max(1, round(high * width / height))
