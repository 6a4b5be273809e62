"""L-BFGS on many smooth convex problems side by side, each with steps of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_MEMORY = 12  # pairs of steps that are remembered
_MOST_STEPS = 300
_SUFFICIENT = 1e-4  # share of the promised decrease that a step must bring (Armijo)
_ROUNDING = 3e-7  # relative: a loss of float32 logits is not known better
_SHORTEST = 1e-4  # a step that must be made shorter than that ends the descent


def descend(
    value_and_slope: Callable[[Floats], tuple[Floats, Floats]],
    preconditioned: Callable[[Floats], Floats],
    start: Floats,
    tolerance: float,
) -> Floats:
    """The lowest points of p problems, of which one call tells all values and slopes.

    Args:
        value_and_slope: from (m, p, k) points to (p,) values and (m, p, k) slopes.
        preconditioned: a slope times about the inverse Hessian, (m, p, k) both.
        start: (m, p, k), where to begin.
        tolerance: a problem is solved when the next step promises to lower it by less.

    Returns:
        (m, p, k).

    Example:
        >>> from functools import partial
        >>> goal = np.array([[[1.0], [2.0]]])
        >>> def parabolas(x):
        ...     return ((x - goal) ** 2).sum(axis=(0, 2)), 2 * (x - goal)
        >>> descend(parabolas, partial(np.multiply, 0.5), np.zeros((1, 2, 1)), 1e-9).ravel()
        array([1., 2.])

    References:
        J. Nocedal, S. J. Wright (2006), Numerical optimization, 2nd edition, algorithms 7.4, 7.5.
    """
    x, size = start.copy(), np.ones(start.shape[1])
    value, slope = value_and_slope(x)
    steps: list[tuple[Floats, Floats, Floats]] = []
    direction = -preconditioned(slope)
    promised = _dot(slope, direction)
    going = promised < -2 * tolerance
    for _ in range(_MOST_STEPS):
        if not going.any():
            break
        tried = x + np.where(going, size, 0)[:, None] * direction
        new_value, new_slope = value_and_slope(tried)
        enough = value + _SUFFICIENT * size * promised + _ROUNDING * np.abs(value)
        good = going & (new_value <= enough)
        # Who went too far tries half as far, while the others go on from where they are.
        size = np.where(going & ~good, size / 2, 1.0)
        going &= good | (size > _SHORTEST)
        if not good.any():
            continue
        moved = np.where(good[:, None], tried - x, 0)
        change = np.where(good[:, None], new_slope - slope, 0)
        curve = _dot(moved, change)
        told = curve > 1e-12 * np.sqrt(_dot(moved, moved) * _dot(change, change))
        steps = [*steps[1 - _MEMORY :], (moved, change, told / np.where(told, curve, 1))]
        x += moved
        slope = slope + change
        value = np.where(good, new_value, value)
        direction = np.where(good[:, None], _down(steps, slope, preconditioned), direction)
        promised = _dot(slope, direction)
        going &= promised < -2 * tolerance
    return x


def _down(
    steps: list[tuple[Floats, Floats, Floats]],
    slope: Floats,
    preconditioned: Callable[[Floats], Floats],
) -> Floats:
    """Minus the inverse Hessian, as the steps tell it, times the slope."""
    q = slope.copy()
    shares = []
    for moved, change, inverse in reversed(steps):
        shares.append(inverse * _dot(moved, q))
        q -= shares[-1][:, None] * change
    q = preconditioned(q)
    for (moved, change, inverse), share in zip(steps, reversed(shares), strict=True):
        q += (share - inverse * _dot(change, q))[:, None] * moved
    down: Floats = -q
    return down


def _dot(a: Floats, b: Floats) -> Floats:
    """For each problem, the inner product."""
    found: Floats = np.einsum("mpk,mpk->p", a, b)
    return found
