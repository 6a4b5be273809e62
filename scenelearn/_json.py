"""Results as plain values that `json.dumps` accepts."""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_MAX_LISTED = 2_000_000  # numbers in a table: as text, more would take over 50 MB and a second


def table_json(table: npt.NDArray[np.float32]) -> list[list[float]] | list[str]:
    """The rows of a table (n, k) as lists; of a large one as base64 of little-endian float32.

    Example:
        >>> import numpy as np
        >>> table_json(np.array([[0.5, 0.5]], np.float32))
        [[0.5, 0.5]]
    """
    if table.size <= _MAX_LISTED:
        rows: list[list[float]] = table.tolist()
        return rows
    return [base64.b64encode(row.astype("<f4").tobytes()).decode("ascii") for row in table]


def table_from_json(rows: list[Any]) -> npt.NDArray[np.float64]:
    """The table (n, k) of rows from `table_json`.

    Raises:
        ValueError: if the rows are no numbers, or differ in length.
    """
    import numpy as np  # here, so that `import scenelearn.sizing` stays light

    decoded = [
        np.frombuffer(base64.b64decode(row, validate=True), "<f4") if isinstance(row, str) else row
        for row in rows
    ]
    return np.array(decoded, np.float64)


def plain(value: Any) -> Any:
    """Convert a value to what `json.dumps(..., allow_nan=False)` accepts.

    Args:
        value: None, a bool, number, string, enum member or path; a NumPy scalar or array; an object
            with ``to_json``; a dataclass; or a mapping, list, tuple or set of these.

    Returns:
        Plain Python values. NaN and infinity become None, arrays lists, paths strings.

    Raises:
        TypeError: if the value is of another kind.

    Example:
        >>> import numpy as np
        >>> plain({"loss": float("nan"), "labels": np.array([0, 1])})
        {'loss': None, 'labels': [0, 1]}
    """
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    import numpy as np  # here, so that `import scenelearn.sizing` stays light

    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclass_json(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def dataclass_json(result: Any, *, omit: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass as plain values, by name.

    Args:
        result: a dataclass instance.
        omit: fields to leave out. Fields whose names begin with an underscore are left out anyway.

    Returns:
        A dictionary in the order of the fields.

    Raises:
        TypeError: if a field holds a value of another kind than `plain` accepts.
    """
    return {
        field.name: plain(getattr(result, field.name))
        for field in dataclasses.fields(result)
        if field.name not in omit and not field.name.startswith("_")
    }
