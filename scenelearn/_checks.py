"""Checks of single arguments that all packages share. Each error names argument and remedy."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

from scenelearn.errors import ArgumentError


def check_integer(
    name: str, value: Any, *, low: int, high: int | None = None, advice: str = ""
) -> int:
    """Check that an argument is an integer in a range.

    Args:
        name: the argument's name.
        value: what was passed; NumPy integers are accepted, bools are not.
        low: the lowest value allowed.
        high: the highest value allowed; None for no limit.
        advice: the message's last sentence: what to pass instead.

    Returns:
        The value as a Python int.

    Raises:
        ArgumentError: if it is something else.

    Example:
        >>> check_integer("n", 3, low=1)
        3
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        span = f"of at least {low:,}" if high is None else f"from {low:,} to {high:,}"
        raise ArgumentError(_message(name, f"an integer {span}", value, advice))
    return int(value)


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    advice: str = "",
) -> float:
    """Check that an argument is a finite number in a range.

    Args:
        name: the argument's name.
        value: what was passed; NumPy numbers are accepted, bools are not.
        low: the lower end.
        high: the upper end.
        open_low: whether `low` itself is excluded.
        open_high: whether `high` itself is excluded.
        advice: the message's last sentence: what to pass instead.

    Returns:
        The value as a Python float.

    Raises:
        ArgumentError: if it is something else.

    Example:
        >>> check_number("coverage", 0.9, low=0, high=1, open_low=True, open_high=True)
        0.9
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if (
        not number
        or not math.isfinite(value)
        or not (low < value if open_low else low <= value)
        or not (value < high if open_high else value <= high)
    ):
        if open_low and open_high and math.isfinite(high):
            span = f"between {low:g} and {high:g}, both excluded"
        elif math.isinf(high):
            span = f"{'above' if open_low else 'of at least'} {low:g}"
        else:
            ends = f"{low:g} to {high:g}"
            excluded = f", {low:g} excluded" if open_low else f", {high:g} excluded"
            span = f"from {ends}" + (excluded if open_low or open_high else "")
        raise ArgumentError(_message(name, f"a number {span}", value, advice))
    return float(value)


def check_bool(name: str, value: Any, *, advice: str = "") -> bool:
    """Check that an argument is True or False.

    Args:
        name: the argument's name.
        value: what was passed; NumPy bools are not accepted.
        advice: the message's last sentence.

    Returns:
        The value.

    Raises:
        ArgumentError: if it is something else.
    """
    if not isinstance(value, bool):
        raise ArgumentError(_message(name, "True or False", value, advice))
    return value


def check_choice(name: str, value: Any, choices: Iterable[Any], *, advice: str = "") -> Any:
    """Check that an argument is one of a few values.

    Args:
        name: the argument's name.
        value: what was passed.
        choices: the values allowed.
        advice: the message's last sentence.

    Returns:
        The value.

    Raises:
        ArgumentError: if it is something else.
    """
    allowed = list(choices)
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        expected = f"one of {', '.join(map(repr, allowed))}"
        raise ArgumentError(_message(name, expected, value, advice))
    return value


def _message(name: str, expected: str, value: Any, advice: str) -> str:
    return f"`{name}` must be {expected}. Received: {name}={value!r}. {advice}".rstrip()
