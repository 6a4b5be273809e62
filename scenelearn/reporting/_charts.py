"""Coordinates of the charts; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The axes of a plot: values to px. On a phone, plots shrink to about four fifths."""

    x_max: float = 1.0
    y_min: float = 0.0
    y_max: float = 1.0
    top: int = 44

    width = 420
    height = 268
    left = 56
    right = width - 16
    bottom = height - 46

    def x(self, value: float) -> float:
        """The horizontal position of a value in [0, x_max]."""
        return self.left + (self.right - self.left) * value / self.x_max

    def y(self, value: float) -> float:
        """The vertical position of a value in [y_min, y_max]."""
        fraction = (value - self.y_min) / (self.y_max - self.y_min)
        return self.bottom - (self.bottom - self.top) * fraction


class Line(NamedTuple):
    """A curve: its name, the path and the dots, if there is space for them."""

    name: str
    path: str
    dots: list[tuple[str, str]]


class Chart(NamedTuple):
    """Curves over the epochs 0, 1, 2, …; ticks are pairs of a value and its label."""

    title: str
    label: str
    axes: Axes
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]


def curves(
    title: str,
    values: Mapping[str, Sequence[float]],
    show: Callable[[float], str],
    *,
    from_zero: bool = False,
    min_step: float,
) -> Chart | None:
    """Plot curves over the epochs; values that are not finite leave a gap.

    Args:
        title: what the figure shows.
        values: names to at least one curve, each with one value per epoch.
        show: formats a value, for the axis and the description.
        from_zero: whether the axis starts at zero.
        min_step: the minimum distance between ticks.

    Returns:
        The chart; None if no value is finite.
    """
    finite = [value for line in values.values() for value in line if math.isfinite(value)]
    if not finite:
        return None
    marks = ticks(0.0 if from_zero else min(finite), max(finite), min_step)
    n_epochs = max(map(len, values.values()))
    last = max(n_epochs - 1, 1)
    axes = Axes(x_max=last, y_min=marks[0], y_max=marks[-1], top=64)
    description = "; ".join(f"{name}: {_describe(line, show)}" for name, line in values.items())
    return Chart(
        title=title,
        label=f"{title} by epoch. {description}.",
        axes=axes,
        x_ticks=[(epoch, str(epoch)) for epoch in range(0, n_epochs, math.ceil(last / 8))],
        y_ticks=[(mark, show(mark)) for mark in marks],
        lines=[_line(name, line, axes) for name, line in values.items()],
    )


def ticks(low: float, high: float, min_step: float) -> list[float]:
    """Three to seven round numbers that enclose both ends, at least `min_step` apart."""
    rough = max((high - low) / 4, min_step)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if last - first < 2:
        first, last = (first - 1, last) if first > 0 else (first, first + 2)
    return [k * step for k in range(first, last + 1)]


def _line(name: str, values: Sequence[float], axes: Axes) -> Line:
    dots = [
        (f"{axes.x(epoch):.1f}", f"{axes.y(value):.1f}") if math.isfinite(value) else None
        for epoch, value in enumerate(values)
    ]
    path = [
        f"{'L' if previous else 'M'}{' '.join(dot)}"
        for previous, dot in zip([None, *dots], dots, strict=False)
        if dot
    ]
    return Line(name, " ".join(path), [dot for dot in dots if dot and len(values) <= 40])


def _describe(values: Sequence[float], show: Callable[[float], str]) -> str:
    finite = [(value, epoch) for epoch, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return "no values"
    (first, start), (last, end) = finite[0], finite[-1]
    (low, low_at), (high, high_at) = min(finite), max(finite)
    return (
        f"{show(first)} at epoch {start}, {show(last)} at epoch {end}, lowest {show(low)} at "
        f"epoch {low_at}, highest {show(high)} at epoch {high_at}, over {len(finite)} "
        f"epoch{'s' if len(finite) > 1 else ''}"
    )
