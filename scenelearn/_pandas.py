"""Tables as data frames, where pandas is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scenelearn.errors import MissingExtraError


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
