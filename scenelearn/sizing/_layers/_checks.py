"""Checks that every description makes of its arguments, and the errors that they raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenelearn.errors import ArgumentError


def positive(name: str, value: Any) -> int:
    """A whole number of at least one; ArgumentError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}. Give 1 or more."
        )
    return value


def per_axis(name: str, value: Any, n: int) -> tuple[int, ...]:
    """One positive whole number for each of n axes, from one for all or one each."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (positive(name, value),) * n
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != n:
        raise ArgumentError(
            f"`{name}` must be a positive integer or a tuple of {n}. Received: {name}={value!r}."
        )
    return tuple(positive(name, one) for one in value)


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """One of the allowed values; ArgumentError otherwise."""
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise ArgumentError(f"`{name}` must be one of {names}. Received: {name}={value!r}.")
    return value


def pairs(name: str, value: Any, n: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each of n axes, from one number, one for each axis, or pairs."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return ((value, value),) * n
    listed = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if n == 1 and len(listed) == 2 and all(isinstance(one, int) for one in listed):
        listed = [tuple(listed)]
    found = [(one, one) if isinstance(one, int) else tuple(one) for one in listed]
    if len(found) != n or any(len(one) != 2 or min(one) < 0 for one in found):
        raise ArgumentError(
            f"`{name}` must be a number, {n} of them, or {n} pairs (before, after), none negative. "
            f"Received: {name}={value!r}."
        )
    return tuple((int(low), int(high)) for low, high in found)


def rank(layer: str, shape: tuple[int, ...], n: int) -> tuple[int, ...]:
    """A shape with n axes; ArgumentError otherwise."""
    if len(shape) != n:
        raise ArgumentError(
            f"{layer} needs an input of {n} axes, the batch and the channels included. "
            f"Received: shape={shape}."
        )
    return shape


def equal_shapes(layer: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What shapes broadcast to, as NumPy does it; ArgumentError where they do not."""
    width = max(map(len, shapes))
    out = []
    for axis in range(-width, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            listed = " and ".join(map(str, shapes))
            raise ArgumentError(
                f"{layer} cannot merge inputs of shapes {listed}: axis {axis} differs. "
                "Give inputs of one shape, or axes of size 1 to repeat."
            )
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)
