"""Estimates as text, HTML, figures and JSON."""

from __future__ import annotations

import dataclasses
import html as _html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._bytes import megabytes
from ._memory import Moment

if TYPE_CHECKING:
    from ._result import Estimate

_HEAD = ("layer", "kind", "output", "parameters", "multiply-adds", "maps")


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with a caption, as HTML; `str()` gives it, a notebook shows it.

    Attributes:
        svg: The drawing.
        caption: What it shows, in words.
    """

    svg: str
    caption: str

    def __str__(self) -> str:
        """The figure as HTML."""
        return f"<figure>{self.svg}<figcaption>{_html.escape(self.caption)}</figcaption></figure>"

    def _repr_html_(self) -> str:
        return str(self)


def _lines(estimate: Estimate) -> list[tuple[str, ...]]:
    rows = [
        (
            row.name,
            row.kind,
            "×".join(map(str, row.output_shape)),
            f"{row.n_parameters:,}",
            f"{row.n_multiply_adds:,}",
            megabytes(row.activation_bytes),
        )
        for row in estimate.rows
    ]
    total = sum(row.activation_bytes for row in estimate.rows)
    last = (
        "total",
        "",
        "",
        f"{estimate.n_parameters:,}",
        f"{estimate.n_multiply_adds:,}",
        megabytes(total),
    )
    return [*rows, last]


def aligned(lines: Sequence[Sequence[str]], n_left: int) -> str:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < n_left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _totals(estimate: Estimate) -> list[tuple[str, int, str]]:
    parts = estimate.training
    return [
        ("parameters", estimate.n_parameters, "n"),
        ("trained parameters", estimate.n_trainable, "n"),
        ("multiply-adds", estimate.n_multiply_adds, "n"),
        ("prediction", estimate.prediction_bytes, "b"),
        ("prediction, all maps kept", estimate.prediction_bytes_all_kept, "b"),
        ("training", estimate.training_bytes, "b"),
        ("  parameters", parts.parameters, "b"),
        ("  gradients", parts.gradients, "b"),
        ("  optimizer", parts.optimizer, "b"),
        ("  inputs", parts.inputs, "b"),
        ("  activations", parts.activations, "b"),
        ("  temporaries", parts.temporaries, "b"),
    ]


def _amount(value: int, unit: str) -> str:
    return f"{value:,}" if unit == "n" else f"{value:,} B ({megabytes(value)})"


def table(estimate: Estimate) -> str:
    """One line for each layer and the totals, as aligned text."""
    totals = [(name, _amount(value, unit)) for name, value, unit in _totals(estimate)[3:]]
    for name, most in (
        ("a process that predicts, at most", estimate.prediction_resident_bytes),
        ("a process that trains, at most", estimate.training_resident_bytes),
    ):
        if most is not None:
            totals.append((name, _amount(most, "b")))
    head = f"{estimate.name}, batch of {estimate.batch_size}, rule: {estimate.rule}"
    return "\n\n".join([head, aligned([_HEAD, *_lines(estimate)], 3), aligned(totals, 1)])


def beside(one: Estimate, other: Estimate) -> str:
    """Two estimates side by side."""
    lines = [("", f"{one.name} ({one.rule})", f"{other.name} ({other.rule})", "ratio")]
    for (name, left, unit), (_, right, _) in zip(_totals(one), _totals(other), strict=True):
        ratio = f"{right / left:.2f}" if left else "–"
        lines.append((name, _amount(left, unit), _amount(right, unit), ratio))
    return aligned(lines, 1)


def as_json(estimate: Estimate) -> dict[str, Any]:
    """An estimate as dictionaries, lists, numbers and text."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(estimate):
        if field.name.startswith("_"):
            continue
        value = getattr(estimate, field.name)
        if field.name == "rows":
            value = [dataclasses.asdict(row) for row in value]
        elif field.name == "training":
            value = {**dataclasses.asdict(value), "total": value.total}
        elif field.name.endswith("_moments"):
            value = [moment._asdict() for moment in value]
        found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def html(estimate: Estimate) -> str:
    """The table as HTML."""

    def row(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{_html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    lines = "".join(row(line, "td") for line in _lines(estimate))
    totals = "".join(
        row((name.strip(), _amount(value, unit)), "td")
        for name, value, unit in _totals(estimate)[3:]
    )
    caption = f"{estimate.name}, batch of {estimate.batch_size}, rule: {estimate.rule}"
    return (
        f"<table><caption>{_html.escape(caption)}</caption><thead>{row(_HEAD, 'th')}</thead>"
        f"<tbody>{lines}</tbody></table><table><tbody>{totals}</tbody></table>"
    )


_COLORS = {"forward": "#3b7ea1", "backward": "#c4820e", "update": "#6b8e23"}


def plot(estimate: Estimate, moments: tuple[Moment, ...]) -> Figure:
    """Bars of memory over a step, one for each moment."""
    width, height, left, bottom = 720, 260, 76, 26
    highest = max((moment.n_bytes for moment in moments), default=1)
    step = (width - left) / max(1, len(moments))
    bars = []
    for at, moment in enumerate(moments):
        tall = moment.n_bytes / highest * (height - bottom - 14)
        title = f"{moment.name} ({moment.phase}): {megabytes(moment.n_bytes)}"
        bars.append(
            f'<rect x="{left + at * step:.2f}" y="{height - bottom - tall:.2f}" '
            f'width="{max(step * 0.92, 0.3):.2f}" height="{tall:.2f}" '
            f'fill="{_COLORS[moment.phase]}"><title>{_html.escape(title)}</title></rect>'
        )
    peak = max(moments, key=lambda moment: moment.n_bytes) if moments else None
    phases = list(dict.fromkeys(moment.phase for moment in moments))
    legend = "".join(
        f'<rect x="{left + 110 * at}" y="{height - 14}" width="10" height="10" '
        f'fill="{_COLORS[phase]}"/>'
        f'<text x="{left + 14 + 110 * at}" y="{height - 5}">{phase}</text>'
        for at, phase in enumerate(phases)
    )
    scale = "".join(
        f'<text x="{left - 6}" y="{height - bottom - share * (height - bottom - 14) + 4:.1f}" '
        f'text-anchor="end">{megabytes(round(highest * share))}</text>'
        for share in (0, 0.5, 1)
    )
    what = "" if peak is None else f"most at {peak.name} ({peak.phase}): {megabytes(peak.n_bytes)}"
    caption = (
        f"Memory of one step of {estimate.name}, batch of {estimate.batch_size}, "
        f"rule {estimate.rule}, layer by layer; {what}."
    )
    svg = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_html.escape(caption)}" '
        'style="max-width:100%;font:11px sans-serif;fill:currentColor">'
        f"{''.join(bars)}{scale}{legend}</svg>"
    )
    return Figure(svg, caption)


def plain_table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first being the head, as an HTML table."""
    head, *rest = (
        "".join(f"<{tag}>{_html.escape(cell)}</{tag}>" for cell in line)
        for line, tag in zip(lines, ["th"] + ["td"] * (len(lines) - 1), strict=True)
    )
    body = "".join(f"<tr>{line}</tr>" for line in rest)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
