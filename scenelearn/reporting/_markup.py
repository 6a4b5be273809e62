"""Text and numbers as safe HTML: whatever comes from the disk passes through `text`."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

NONE = "–"  # stands where a number is not defined
_NBSP = "\N{NO-BREAK SPACE}"


def text(value: object) -> str:
    r"""Any string, safe as HTML text, in a quoted attribute and in SVG.

    Markup is escaped. Characters that do not print (line breaks, other controls, writing-direction
    overrides, undecodable bytes) are shown as Python would write them, e.g. ``\n``.

    Example:
        >>> text("<b>\n'")
        '&lt;b&gt;\\n&#x27;'
    """
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return html.escape("".join(shown), quote=True)


def spoken(value: object) -> str:
    """A sentence of ours as the label of a figure; its no-break spaces become plain ones."""
    return text(str(value).replace(_NBSP, " "))


def name(value: object) -> str:
    """A name from the disk amid other text; right-to-left names do not reorder what follows."""
    return f"<bdi>{text(value)}</bdi>"


def path(value: object) -> str:
    """A path from the disk as code that breaks, where it must, after a folder."""
    return f"<code>{text(value).replace('/', '/<wbr>')}</code>"


def percent(share: float) -> str:
    """A proportion as ``90.3 %``; the none-sign where it is not a number."""
    return f"{100 * share:.1f}{_NBSP}%" if math.isfinite(share) else NONE


def span(low: float, high: float) -> str:
    """The ends of an interval as ``86.4 to 93.2 %``."""
    return f"{100 * low:.1f} to {100 * high:.1f}{_NBSP}%"


def number(value: float, digits: int = 3) -> str:
    """A plain number with so many decimals; the none-sign where it is not one."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def count(n: int, one: str, many: str = "") -> str:
    """A number of things: ``1 photo``, ``1,200 photos``."""
    return f"{n:,}{_NBSP}{one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 07 s`` or ``1 h 05 min``."""
    if not math.isfinite(seconds):
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f}{_NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_NBSP}min{_NBSP}{rest:02d}{_NBSP}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{_NBSP}h{_NBSP}{minutes:02d}{_NBSP}min"


def section(anchor: str, title: str, body: str) -> str:
    """One part of the page under its heading. `title` and `body` are HTML."""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{title}</h2>\n{body}\n</section>\n'
    )


def region(label: str, body: str, kind: str = "") -> str:
    """A box that scrolls by itself, also with the keyboard. `label` is plain text."""
    return (
        f'<div class="scroll {kind}" role="region" aria-label="{text(label)}" tabindex="0">'
        f"{body}</div>"
    )


def figure(body: str, caption: str, kind: str = "") -> str:
    """A figure with its caption; both are HTML."""
    return f'<figure class="{kind}">{body}<figcaption>{caption}</figcaption></figure>'


def table(
    label: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    align: str,
    foot: Sequence[str] = (),
) -> str:
    """A table in a box of its own that scrolls sideways; each row's first cell is its heading.

    Args:
        label: what the table shows, plain text.
        columns: headings, HTML.
        rows: cells, HTML.
        align: one letter a column: "l" for words, "n" for numbers.
        foot: a last row, of totals.
    """

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        return (
            f'<tr><th scope="row" class="{align[0]}">{first}</th>'
            + "".join(f'<td class="{a}">{c}</td>' for a, c in zip(align[1:], rest, strict=True))
            + "</tr>\n"
        )

    heads = zip(align, columns, strict=True)
    head = "".join(f'<th scope="col" class="{a}">{column}</th>' for a, column in heads)
    body = "".join(line(cells) for cells in rows)
    end = f"<tfoot>{line(foot)}</tfoot>" if foot else ""
    return region(
        label,
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>{end}</table>",
    )
