"""Checks of layer arguments and input shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenelearn._checks import check_integer
from scenelearn.errors import ArgumentError


def check_positive(layer: Any, *names: str) -> None:
    """Check that these fields of a frozen description are positive integers."""
    for name in names:
        object.__setattr__(layer, name, check_integer(name, getattr(layer, name), low=1))


def check_per_axis(name: str, value: Any, n: int) -> tuple[int, ...]:
    """Return one positive integer per axis, from a single integer or a tuple of n.

    Raises:
        ArgumentError: It is neither.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != n:
            raise ArgumentError(
                f"`{name}` must be a positive integer or a tuple of {n}. "
                f"Received: {name}={value!r}."
            )
        return tuple(check_integer(name, size, low=1) for size in value)
    advice = f"Pass one integer for all axes, or a tuple of {n}."
    return (check_integer(name, value, low=1, advice=advice),) * n


def check_pairs(name: str, value: Any, n: int) -> tuple[tuple[int, int], ...]:
    """Return (before, after) per axis, from one integer, one per axis, or one pair per axis.

    Raises:
        ArgumentError: It is none of these, or a number is negative.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return ((value, value),) * n
    listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if n == 1 and len(listed) == 2 and all(isinstance(size, int) for size in listed):
        listed = [tuple(listed)]
    pairs = [(size, size) if isinstance(size, int) else tuple(size) for size in listed]
    if len(pairs) != n or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        raise ArgumentError(
            f"`{name}` must be an integer, {n} integers, or {n} pairs (before, after), none of "
            f"them negative. Received: {name}={value!r}."
        )
    return tuple((int(before), int(after)) for before, after in pairs)


def check_rank(layer: str, shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Return a shape that must have n axes.

    Raises:
        ArgumentError: It has a different number of axes.
    """
    if len(shape) != n:
        raise ArgumentError(
            f"{layer} needs an input with {n} axes, including batch and channels. "
            f"Received: shape={shape}."
        )
    return shape


def broadcast_shapes(layer: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape that these shapes broadcast to, by NumPy's rules.

    Raises:
        ArgumentError: They do not broadcast.
    """
    out = []
    for axis in range(-max(map(len, shapes)), 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise ArgumentError(
                f"{layer} cannot merge inputs of shapes {' and '.join(map(str, shapes))}: axis "
                f"{axis} differs. Make the shapes equal; axes of size 1 are repeated."
            )
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)
