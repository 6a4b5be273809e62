"""How results show themselves: safe text, and HTML for notebooks."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence


def printable(name: str) -> str:
    r"""Replace control characters, so that a file name cannot steer a terminal.

    Args:
        name: a file or class name, as it came from the disk.

    Returns:
        The name, with each unprintable character as its Python escape.

    Example:
        >>> printable("sea\x1b[2J")
        'sea\\x1b[2J'
    """
    return "".join(c if is_printable(c) else ascii(c)[1:-1] for c in name)


def is_printable(text: str) -> bool:
    """Whether a text has no control characters; spaces of all kinds are fine, unlike in Python."""
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


def printable_lines(text: str) -> str:
    """A text of several lines, of which each is `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def first_lines(entries: Sequence[object], n: int) -> list[str]:
    """The first n entries as text, and how many more there are.

    Example:
        >>> first_lines(["a.jpg", "b.jpg", "c.jpg"], 2)
        ['a.jpg', 'b.jpg', 'and 1 more']
    """
    lines = [str(entry) for entry in entries[:n]]
    return [*lines, f"and {len(entries) - n:,} more"] if entries[n:] else lines


def html_text(result: object) -> str:
    """``str(result)`` as preformatted HTML, for ``_repr_html_``.

    Args:
        result: anything whose ``str`` is a page of text.

    Returns:
        One escaped ``<pre>`` element.

    Example:
        >>> html_text("a < b")
        '<pre>a &lt; b</pre>'
    """
    return f"<pre>{html.escape(str(result))}</pre>"
