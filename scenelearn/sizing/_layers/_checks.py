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


def check_per_axis(layer: Any, *names: str) -> None:
    """Make these fields one positive integer per space axis, from an integer or a tuple.

    Raises:
        ArgumentError: if a field is neither.
    """
    n = layer.n_space_axes
    for name in names:
        value = getattr(layer, name)
        sizes = value if isinstance(value, list | tuple) else (value,) * n
        if len(sizes) != n:
            raise ArgumentError(
                f"`{name}` must be a positive integer or a tuple of {n}. "
                f"Received: {name}={value!r}."
            )
        advice = "" if sizes is value else f"Pass one integer for all axes, or a tuple of {n}."
        checked = tuple(check_integer(name, size, low=1, advice=advice) for size in sizes)
        object.__setattr__(layer, name, checked)


def check_pairs(layer: Any, name: str) -> None:
    """Make a field (before, after) per space axis, from an integer, one or a pair per axis.

    Raises:
        ArgumentError: if it is none of these, or a number is negative.
    """
    value, n = getattr(layer, name), layer.n_space_axes
    listed = list(value) if isinstance(value, list | tuple) else [value] * n
    if n == 1 and len(listed) == 2:
        listed = [tuple(listed)]
    pairs = [pair if isinstance(pair, list | tuple) else (pair, pair) for pair in listed]
    try:
        if [len(pair) for pair in pairs] != [2] * n:
            raise ArgumentError
        checked = tuple(tuple(check_integer(name, size, low=0) for size in pair) for pair in pairs)
    except ArgumentError:
        raise ArgumentError(
            f"`{name}` must be an integer, {n} integers, or {n} pairs (before, after), none of "
            f"them negative. Received: {name}={value!r}."
        ) from None
    object.__setattr__(layer, name, checked)


def check_rank(layer: str, shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Return a shape that must have n axes.

    Raises:
        ArgumentError: if it has a different number of axes.
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
        ArgumentError: if they do not broadcast.
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
