"""Figures of the pages, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scenelearn.metrics import Interval
from scenelearn.reporting._html import aria, count, escape, percent, percent_range

_MIN_DISTANCE = 10  # percentage points between two labels that do not overlap, even on a phone

# Size of the plots in px. On a phone they shrink to about four fifths.
WIDTH, HEIGHT = 420, 268
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 64, 46


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A curve: its name, its style ("a" or "b") and one value per epoch, NaN for a gap."""

    name: str
    style: str
    values: Sequence[float]


def accuracy_scale(accuracy: Interval, baseline: float) -> str:
    """The accuracy with its interval and the baseline, on a scale from 0 to 100%."""
    marks = "".join(
        f'<line class="grid" x1="{x}%" x2="{x}%" y1="44" y2="60"/>'
        f'<text x="{x}%" y="79" text-anchor="{_anchor(x)}">{x}%</text>'
        for x in (0, 25, 50, 75, 100)
    )
    at, at_baseline = 100 * accuracy.value, 100 * baseline
    top = 22 if abs(at - at_baseline) > _MIN_DISTANCE else 40  # keep clear of the label
    label = (
        f"Accuracy {percent(accuracy.value)}, 95% confidence interval "
        f"{percent_range(accuracy.low, accuracy.high)}; baseline {percent(baseline)}."
    )
    return (
        f'<svg class="ruler" role="img" aria-label="{aria(label)}" width="100%" height="84">'
        f'{marks}<rect class="track" x="0" y="49" width="100%" height="6" rx="3"/>'
        f'<line class="tick" x1="{at_baseline:.2f}%" x2="{at_baseline:.2f}%" y1="{top}" y2="60"/>'
        f'<text x="{at_baseline:.2f}%" y="14" text-anchor="{_anchor(at_baseline)}">'
        f"baseline {percent(baseline)}</text>"
        f'<rect class="band" x="{100 * accuracy.low:.2f}%" y="43" height="18" rx="4" '
        f'width="{100 * (accuracy.high - accuracy.low):.2f}%"/>'
        f'<circle class="dot" cx="{at:.2f}%" cy="52" r="6"/>'
        f'<text class="strong" x="{at:.2f}%" y="33" text-anchor="{_anchor(at)}">'
        f"{percent(accuracy.value)}</text></svg>"
    )


def interval_bar(interval: Interval) -> str:
    """A small bar from 0 to 100% with an interval and its value."""
    if not interval.n:
        return ""
    low, high, at = (100 * x for x in (interval.low, interval.high, interval.value))
    return (
        '<svg class="bar" aria-hidden="true" width="120" height="14" viewBox="-4 0 108 14" '
        'preserveAspectRatio="none"><rect class="track" x="0" y="5.5" width="100" height="3" '
        f'rx="1.5"/><rect class="band" x="{low:.2f}" y="2" width="{high - low:.2f}" height="10" '
        f'rx="2"/><rect class="dot" x="{at - 1.25:.2f}" y="1" width="2.5" height="12" rx="1"/>'
        "</svg>"
    )


def difference_bar(interval: Interval, limit: float) -> str:
    """A small bar from -limit to +limit with an interval and its value; zero is marked."""
    low, high, at = (50 + 50 * x / limit for x in (interval.low, interval.high, interval.value))
    return (
        '<svg class="bar" aria-hidden="true" width="120" height="14" viewBox="-4 0 108 14" '
        'preserveAspectRatio="none"><rect class="track" x="0" y="5.5" width="100" height="3" '
        f'rx="1.5"/><rect class="band" x="{low:.2f}" y="2" width="{high - low:.2f}" height="10" '
        f'rx="2"/><line class="tick" x1="50" x2="50" y1="0" y2="14"/>'
        f'<rect class="dot" x="{at - 1.25:.2f}" y="1" width="2.5" height="12" rx="1"/></svg>'
    )


def fraction_bar(fraction: float) -> str:
    """A small bar for a fraction."""
    width = 100 * min(max(fraction, 0.0), 1.0) if math.isfinite(fraction) else 0.0
    return (
        '<svg class="bar" aria-hidden="true" width="120" height="10">'
        '<rect class="track" width="100%" height="10" rx="3"/>'
        f'<rect class="dot" width="{width:.2f}%" height="10" rx="3"/></svg>'
    )


def curves(
    title: str, lines: Sequence[Line], show: Callable[[float], str], *, from_zero: bool, step: float
) -> str:
    """Plot curves over the epochs 0, 1, 2, …; values that are not finite leave a gap.

    Args:
        title: what the figure shows.
        lines: at least one, each with one value per epoch.
        show: formats a value, for the axis and the description.
        from_zero: whether the axis starts at zero.
        step: the minimum distance between ticks.
    """
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    marks = ticks(0.0 if from_zero else min(finite), max(finite), step)
    low, high = marks[0], marks[-1]
    n_epochs = len(lines[0].values)

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(n_epochs - 1, 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = [f'<text class="strong" x="14" y="25">{escape(title)}</text>']
    for tick in marks:
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text x="{LEFT - 8}" y="{y(tick) + 4.5:.1f}" '
            f'text-anchor="end">{show(tick)}</text>'
        )
    every = max(1, math.ceil((n_epochs - 1) / 8))
    for epoch in range(0, n_epochs, every):
        parts.append(
            f'<text x="{x(epoch):.1f}" y="{HEIGHT - BOTTOM + 20}" '
            f'text-anchor="middle">{epoch}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 9}" text-anchor="middle">epoch</text>')
    for place, line in enumerate(lines):
        if len(lines) > 1:
            parts.append(_legend(line, 14 + 118 * place))
        parts.append(_path(line, x, y, marks=n_epochs <= 40))
    description = "; ".join(f"{line.name}: {_describe(line.values, show)}" for line in lines)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{aria(f"{title} by epoch. {description}.")}">{"".join(parts)}</svg>'
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


def _anchor(at: float) -> str:
    return "start" if at < 12 else "end" if at > 88 else "middle"


def _legend(line: Line, x: int) -> str:
    return (
        f'<path class="line {line.style}" d="M{x} 42h26"/>'
        f'<text x="{x + 33}" y="46">{escape(line.name)}</text>'
    )


def _path(
    line: Line, x: Callable[[float], float], y: Callable[[float], float], *, marks: bool
) -> str:
    steps, dots, connected = [], [], False
    for epoch, value in enumerate(line.values):
        if not math.isfinite(value):
            connected = False
            continue
        place = f"{x(epoch):.1f} {y(value):.1f}"
        steps.append(f"{'L' if connected else 'M'}{place}")
        connected = True
        if marks:
            dots.append(
                f'<circle class="mark {line.style}" cx="{x(epoch):.1f}" cy="{y(value):.1f}" '
                f'r="3.2"/>'
            )
    return f'<path class="line {line.style}" d="{" ".join(steps)}"/>{"".join(dots)}'


def _describe(values: Sequence[float], show: Callable[[float], str]) -> str:
    finite = [(value, epoch) for epoch, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return "no values"
    (first, start), (last, end) = finite[0], finite[-1]
    (low, low_at), (high, high_at) = min(finite), max(finite)
    return (
        f"{show(first)} at epoch {start}, {show(last)} at epoch {end}, lowest {show(low)} at "
        f"epoch {low_at}, highest {show(high)} at epoch {high_at}, over "
        f"{count(len(finite), 'epoch')}"
    )
