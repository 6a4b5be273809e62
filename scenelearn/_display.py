"""How results show themselves: safe text, HTML for notebooks, pandas where it is installed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from scenelearn.errors import MissingExtraError


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
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def printable_lines(text: str) -> str:
    """A text of several lines, of which each is `printable`."""
    return "\n".join(map(printable, text.split("\n")))


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


def to_pandas(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A ``pandas.DataFrame`` of plain rows. pandas is imported only here.

    Args:
        rows: one mapping per row, all with the same keys.

    Returns:
        The table, one column per key.

    Raises:
        MissingExtraError: if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError(
            "`to_pandas` needs pandas. Received: no installed pandas. Install it with "
            "`pip install pandas`, or use `to_rows()`, which returns plain rows."
        ) from None
    table = list(rows)
    try:
        return pd.DataFrame(table)
    except UnicodeEncodeError:  # PyArrow's strings cannot hold names that are not valid Unicode
        names = list(table[0])
        columns = [[row[name] for row in table] for name in names]
        plain = [
            pd.Series(values, dtype=object if isinstance(values[0], str) else None)
            for values in columns
        ]
        return pd.concat(plain, axis=1, keys=pd.Index(names, dtype=object))
