"""Building blocks of the pages. Whatever comes from the disk passes through `escape`."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence

from scenelearn.reporting._style import STYLE

NONE = "–"  # stands for an undefined number
_NBSP = "\N{NO-BREAK SPACE}"


def escape(value: object) -> str:
    r"""Escape a string for HTML text, quoted attributes and SVG.

    Unprintable characters (line breaks, other controls, writing-direction overrides, undecodable
    bytes) become their Python escapes, e.g. ``\n``.

    Example:
        >>> escape("<b>\n'")
        '&lt;b&gt;\\n&#x27;'
    """
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return html.escape("".join(shown), quote=True)


def aria(value: object) -> str:
    """Escape a sentence for use as an ARIA label, with no-break spaces made plain."""
    return escape(str(value).replace(_NBSP, " "))


def name(value: object) -> str:
    """A name from the disk within other text, isolated from the text's direction."""
    return f"<bdi>{escape(value)}</bdi>"


def path(value: object) -> str:
    """A path from the disk as code that may wrap after each folder."""
    return f"<code>{escape(value).replace('/', '/<wbr>')}</code>"


def percent(fraction: float) -> str:
    """A fraction as ``90.3%``; a dash if it is not finite."""
    return f"{100 * fraction:.1f}%" if math.isfinite(fraction) else NONE


def percent_range(low: float, high: float) -> str:
    """The ends of an interval as ``86.4 to 93.2%``."""
    return f"{100 * low:.1f} to {100 * high:.1f}%"


def number(value: float, digits: int = 3) -> str:
    """A number with a fixed number of decimals; a dash if it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else NONE


def count(n: int, singular: str, plural: str = "") -> str:
    """A number of things: ``1 photo``, ``1,200 photos``."""
    return f"{n:,}{_NBSP}{singular if n == 1 else plural or singular + 's'}"


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
    """A section of the page with its heading. `title` and `body` are HTML."""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{title}</h2>\n{body}\n</section>\n'
    )


def region(label: str, body: str, kind: str = "") -> str:
    """A box that scrolls, also by keyboard. `label` is plain text."""
    return (
        f'<div class="scroll {kind}" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"{body}</div>"
    )


def figure(body: str, caption: str, kind: str = "") -> str:
    """A figure with its caption. Both are HTML."""
    return f'<figure class="{kind}">{body}<figcaption>{caption}</figcaption></figure>'


def table(
    label: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    align: str,
    foot: Sequence[str] = (),
) -> str:
    """A table in a box that scrolls sideways. The first cell of each row is its heading.

    Args:
        label: what the table shows, plain text.
        columns: headings, HTML.
        rows: cells, HTML.
        align: one letter per column: "l" for text, "n" for numbers.
        foot: a last row with totals.
    """

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        return (
            f'<tr><th scope="row" class="{align[0]}">{first}</th>'
            + "".join(f'<td class="{a}">{c}</td>' for a, c in zip(align[1:], rest, strict=True))
            + "</tr>\n"
        )

    headings = zip(align, columns, strict=True)
    head = "".join(f'<th scope="col" class="{a}">{column}</th>' for a, column in headings)
    body = "".join(line(cells) for cells in rows)
    end = f"<tfoot>{line(foot)}</tfoot>" if foot else ""
    return region(
        label,
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>{end}</table>",
    )


def document(title: str, body: str, script: str = "") -> str:
    """A complete page that needs no other file and is not allowed to request one.

    Args:
        title: HTML.
        body: HTML, from ``<main>`` on.
        script: the only JavaScript that the page may run.

    Returns:
        The page.
    """
    scripts = f"script-src {_source_hash(script)}; " if script else ""
    policy = (
        f"default-src 'none'; style-src {_source_hash(STYLE)}; {scripts}img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def _source_hash(content: str) -> str:
    """The source expression of an inline style or script in the content security policy."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
