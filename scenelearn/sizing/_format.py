"""Estimates as text, HTML and figures."""

from __future__ import annotations

import html as _html
from collections.abc import Sequence
from dataclasses import dataclass

from scenelearn._display import printable
from scenelearn._json import dataclass_json
from scenelearn.sizing._bytes import format_bytes
from scenelearn.sizing._memory import MemoryPoint
from scenelearn.sizing._values import EstimateValues, LayerEstimate

_HEADING = ("layer", "type", "output shape", "parameters", "multiply-adds", "activations")
_COLORS = {"forward": "#3b7ea1", "backward": "#c4820e", "update": "#6b8e23"}


@dataclass(frozen=True, slots=True, repr=False)
class Figure:
    """A figure with a caption; notebooks display it, and `str(figure)` is its HTML.

    Attributes:
        svg: the drawing.
        caption: what it shows, in words.
    """

    svg: str
    caption: str

    def __repr__(self) -> str:
        return f"<Figure: {self.caption}>"

    def __str__(self) -> str:
        """The figure as HTML."""
        return f"<figure>{self.svg}<figcaption>{_html.escape(self.caption)}</figcaption></figure>"

    def _repr_html_(self) -> str:
        return str(self)


def aligned(lines: Sequence[Sequence[str]], n_left: int) -> str:
    """Format a table as text: the first `n_left` columns aligned left, the others right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < n_left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html_table(lines: Sequence[Sequence[str]], caption: str = "") -> str:
    """Format a table as HTML; the first line is the heading."""
    heading, *body = (
        "".join(f"<{tag}>{_html.escape(printable(cell))}</{tag}>" for cell in line)
        for line, tag in zip(lines, ["th"] + ["td"] * (len(lines) - 1), strict=True)
    )
    rows = "".join(f"<tr>{line}</tr>" for line in body)
    title = f"<caption>{_html.escape(printable(caption))}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table>"


def table(estimate: EstimateValues) -> str:
    """Format an estimate as text: one line per layer, then the memory."""
    parts = [printable(_title(estimate)), aligned(_lines(estimate), 3)]
    parts.append(aligned([(name, _amount(n, unit)) for name, n, unit in _memory(estimate)], 1))
    return "\n\n".join([*parts, estimate.note] if estimate.note else parts)


def html(estimate: EstimateValues) -> str:
    """Format an estimate as HTML: one table of layers, one of memory."""
    memory = [(name.strip(), _amount(n, unit)) for name, n, unit in _memory(estimate)]
    layers = html_table(_lines(estimate), _title(estimate))
    note = f"<p>{_html.escape(estimate.note)}</p>" if estimate.note else ""
    return layers + html_table([("memory", "bytes"), *memory]) + note


def comparison(estimate: EstimateValues, other: EstimateValues) -> str:
    """Format the totals of two estimates next to each other."""
    names = [f"{item.name} ({item.method})" for item in (estimate, other)]
    lines = [("", *names, "ratio")]
    for (name, left, unit), (_, right, _) in zip(_totals(estimate), _totals(other), strict=True):
        ratio = f"{right / left:.2f}" if left else "–"
        lines.append((name, _amount(left, unit), _amount(right, unit), ratio))
    return aligned(lines, 1)


def _title(estimate: EstimateValues) -> str:
    return f"{estimate.name}, batch of {estimate.batch_size}, method: {estimate.method}"


def _lines(estimate: EstimateValues) -> list[tuple[str, ...]]:
    layers = [
        (
            layer.name,
            layer.layer_type,
            "×".join(map(str, layer.output_shape)),
            *_costs(layer, layer.activation_bytes),
        )
        for layer in estimate.layers
    ]
    activations = sum(layer.activation_bytes for layer in estimate.layers)
    return [_HEADING, *layers, ("total", "", "", *_costs(estimate, activations))]


def _costs(item: EstimateValues | LayerEstimate, activation_bytes: int) -> tuple[str, str, str]:
    counts = f"{item.n_parameters:,}", f"{item.n_multiply_adds:,}"
    return (*counts, format_bytes(activation_bytes))


def _totals(estimate: EstimateValues) -> list[tuple[str, int, str]]:
    parts = estimate.training
    return [
        ("parameters", estimate.n_parameters, ""),
        ("trainable parameters", estimate.n_trainable_parameters, ""),
        ("multiply-adds", estimate.n_multiply_adds, ""),
        ("prediction", estimate.prediction_bytes, "B"),
        ("prediction, all activations kept", estimate.prediction_bytes_without_reuse, "B"),
        ("training step", estimate.training_bytes, "B"),
        *((f"  {name.replace('_', ' ')}", n, "B") for name, n in dataclass_json(parts).items()),
    ]


def _memory(estimate: EstimateValues) -> list[tuple[str, int, str]]:
    """The totals in bytes, with those of the process where they are known."""
    process = (
        ("process memory for prediction, at most", estimate.prediction_resident_bytes),
        ("process memory for training, at most", estimate.training_resident_bytes),
    )
    known = [(name, n_bytes, "B") for name, n_bytes in process if n_bytes is not None]
    return [total for total in _totals(estimate) if total[2] == "B"] + known


def _amount(value: int, unit: str) -> str:
    return f"{value:,} B ({format_bytes(value)})" if unit else f"{value:,}"


def plot(estimate: EstimateValues, timeline: tuple[MemoryPoint, ...]) -> Figure:
    """Draw one bar per point of the timeline."""
    width, height, left, bottom = 720, 260, 76, 26
    tallest = height - bottom - 14
    highest = max((point.n_bytes for point in timeline), default=1)
    step = (width - left) / max(1, len(timeline))
    bars = []
    for at, point in enumerate(timeline):
        tall = point.n_bytes / highest * tallest
        title = f"{point.layer} ({point.phase}): {format_bytes(point.n_bytes)}"
        bars.append(
            f'<rect x="{left + at * step:.2f}" y="{height - bottom - tall:.2f}" '
            f'width="{max(step * 0.92, 0.3):.2f}" height="{tall:.2f}" '
            f'fill="{_COLORS[point.phase]}"><title>{_html.escape(title)}</title></rect>'
        )
    legend = "".join(
        f'<rect x="{left + 110 * at}" y="{height - 14}" width="10" height="10" '
        f'fill="{_COLORS[phase]}"/>'
        f'<text x="{left + 14 + 110 * at}" y="{height - 5}">{phase}</text>'
        for at, phase in enumerate(dict.fromkeys(point.phase for point in timeline))
    )
    scale = "".join(
        f'<text x="{left - 6}" y="{height - bottom - fraction * tallest + 4:.1f}" '
        f'text-anchor="end">{format_bytes(round(highest * fraction))}</text>'
        for fraction in (0, 0.5, 1)
    )
    caption = (
        f"Memory of one step of {printable(estimate.name)}, batch of {estimate.batch_size}, "
        f"method {estimate.method}, layer by layer"
    )
    if timeline:
        peak = max(timeline, key=lambda point: point.n_bytes)
        caption += f"; peak at {printable(peak.layer)} ({peak.phase}): {format_bytes(peak.n_bytes)}"
    caption += "."
    svg = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_html.escape(caption)}" '
        'style="max-width:100%;font:11px sans-serif;fill:currentColor">'
        f"{''.join(bars)}{scale}{legend}</svg>"
    )
    return Figure(svg, caption)
