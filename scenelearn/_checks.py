"""Checks of single arguments that all packages share. Each error names argument and remedy."""

from __future__ import annotations

import errno
import math
import numbers
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelearn.errors import ArgumentError

if TYPE_CHECKING:
    import numpy.typing as npt


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


def check_image_px(
    value: Any, *, low: int = 1, advice: str = "Pass e.g. 160.", name: str = "image_px"
) -> int | tuple[int, int]:
    """Check that a size of images is the side of a square, or a pair (height, width).

    Args:
        value: what was passed.
        low: the smallest side allowed, in pixels.
        advice: the message's last sentence: what to pass instead.
        name: of the argument.

    Returns:
        The side as a Python int; the pair if its sides differ.

    Raises:
        ArgumentError: if it is something else.

    Example:
        >>> check_image_px((120, 180)), check_image_px([64, 64])
        ((120, 180), 64)
    """
    if not isinstance(value, list | tuple):
        return check_integer(name, value, low=low, advice=advice)
    if len(value) != 2:
        raise ArgumentError(_message(name, "an integer, or a pair (height, width)", value, advice))
    height, width = (check_integer(name, side, low=low, advice=advice) for side in value)
    return height if height == width else (height, width)


def image_size(image_px: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of the images, in pixels, from a valid `image_px`."""
    return image_px if isinstance(image_px, tuple) else (image_px, image_px)


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
        value: what was passed; NumPy bools are accepted, 0 and 1 are not.
        advice: the message's last sentence.

    Returns:
        The value as a Python bool.

    Raises:
        ArgumentError: if it is something else.
    """
    if not _is_bool(value):
        raise ArgumentError(_message(name, "True or False", value, advice))
    return bool(value)


def check_choice(name: str, value: Any, choices: Iterable[Any], *, advice: str = "") -> Any:
    """Check that an argument is one of a few values.

    Args:
        name: the argument's name.
        value: what was passed; NumPy bools and subclasses of str are accepted.
        choices: the values allowed.
        advice: the message's last sentence.

    Returns:
        The choice that equals the value.

    Raises:
        ArgumentError: if it is something else.
    """
    plain = bool(value) if _is_bool(value) else str(value) if isinstance(value, str) else value
    allowed = list(choices)
    for choice in allowed:
        if type(plain) is type(choice) and plain == choice:
            return choice
    expected = f"one of {', '.join(map(repr, allowed))}"
    raise ArgumentError(_message(name, expected, value, advice))


def check_path(name: str, value: Any, *, advice: str = "Pass e.g. 'photos/'.") -> Path:
    """Check that an argument is a path that could exist, and expand a leading ``~``.

    Args:
        name: the argument's name.
        value: what was passed: a string, or an object with ``__fspath__``.
        advice: the message's last sentence: what to pass instead.

    Returns:
        The path. A ``~`` that names no user is part of a file name.

    Raises:
        ArgumentError: if it is of another type, empty, too long or contains a null character.

    Example:
        >>> check_path("file", "~none.jpg").name
        '~none.jpg'
    """
    problem = ""
    try:
        text = os.fspath(value)
        if not isinstance(text, str):
            raise TypeError
        if text:
            path = Path(text)
            # On Windows, "~name" would be a folder next to the home, whether it exists or not.
            if os.name != "nt" or text == "~" or text.startswith(("~/", "~\\")):
                path = Path(os.path.expanduser(text))  # noqa: PTH111  # pathlib's needs a home
            os.lstat(path)
            return path
        problem = " that is not empty"
    except TypeError:
        pass
    except ValueError:
        problem = " without null characters and lone surrogates"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return path
        problem = " that is not too long for the file system"
    shown = f"{value!r:.80}" if problem else type(value).__name__
    raise ArgumentError(f"`{name}` must be a path{problem}. Received: {name}={shown}. {advice}")


def check_array(name: str, value: Any, *, advice: str = "") -> npt.NDArray[Any]:
    """Check that an argument is an array, or nested lists of one shape.

    Args:
        name: the argument's name.
        value: what was passed.
        advice: the message's last sentence: what to pass instead.

    Returns:
        The array; its shape and dtype are not checked.

    Raises:
        ArgumentError: if it has no shape, such as lists of different lengths.
    """
    import numpy as np  # here, so that `import scenelearn.sizing` stays light

    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        received = type(value).__name__
        raise ArgumentError(_message(name, "an array of one shape", received, advice)) from None


def _is_bool(value: Any) -> bool:
    """Whether a value is a Python or NumPy bool; NumPy is not imported for it."""
    return isinstance(value, bool) or (
        type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")
    )


def _message(name: str, expected: str, value: Any, advice: str) -> str:
    return f"`{name}` must be {expected}. Received: {name}={value!r}. {advice}".rstrip()
