"""What predictions must be before anything is counted on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError, ClassMismatchError

Labels = npt.NDArray[np.int64]
Table = npt.NDArray[np.float64]


def checked(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_names: Sequence[str]
) -> tuple[Labels, Table, tuple[str, ...]]:
    """Labels, probabilities and class names that fit together.

    Args:
        labels: (n,) integers in [0, n_classes).
        probabilities: (n, n_classes), rows that sum to 1.
        class_names: one name a column, each another.

    Returns:
        The three as arrays and a tuple.

    Raises:
        ArgumentError: if they are something else.
    """
    truth = _array("labels", labels, None)
    table = _array("probabilities", probabilities, np.float64)
    names = tuple(class_names)
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise ArgumentError(
            f"`class_names` must name each class once. Received: {', '.join(twice)} more than "
            "once. Give each column a name of its own."
        )
    if truth.ndim != 1 or table.shape != (len(truth), len(names)):
        raise ArgumentError(
            "`probabilities` must have one row for each label and one column for each class. "
            f"Received: labels of shape {truth.shape}, probabilities of shape {table.shape}, "
            f"{len(names)} class names. Pass arrays of shapes (n,) and (n, n_classes)."
        )
    if not len(truth):
        raise ArgumentError(
            "`labels` must hold at least one photo. Received: 0. Pass photos to judge on."
        )
    integers = np.issubdtype(truth.dtype, np.integer)
    if not integers or truth.min() < 0 or truth.max() >= len(names):
        range_ = f", from {truth.min()} to {truth.max()}" if integers else ""
        raise ArgumentError(
            f"`labels` must be integers in [0, {len(names)}). Received: dtype {truth.dtype}"
            f"{range_}. Number the classes as in `class_names`."
        )
    sums = table.sum(axis=1)
    if not (np.isfinite(table).all() and table.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
        raise ArgumentError(
            "`probabilities` must be rows of numbers ≥ 0 that sum to 1. Received: row sums from "
            f"{sums.min():.4g} to {sums.max():.4g}, smallest entry {table.min():.4g}. "
            "Apply a softmax to logits first."
        )
    return truth.astype(np.int64), table, names


def reorder(
    probabilities: npt.ArrayLike, class_names: Sequence[str], wanted: Sequence[str]
) -> npt.NDArray[Any]:
    """Bring the columns of probabilities into another order of the same classes, by name.

    Args:
        probabilities: (n, n_classes).
        class_names: the columns' names.
        wanted: the same names in the order that is asked for.

    Returns:
        (n, n_classes), columns in the order of `wanted`.

    Raises:
        ClassMismatchError: if the names are not the same.

    Example:
        >>> reorder([[0.9, 0.1]], ["street", "sea"], ["sea", "street"]).tolist()
        [[0.1, 0.9]]
    """
    have, want = list(class_names), list(wanted)
    if sorted(have) != sorted(want):
        only = [
            f"{what} {', '.join(sorted(names))}"
            for what, names in (
                ("here only", set(have) - set(want)),
                ("there only", set(want) - set(have)),
            )
            if names
        ]
        raise ClassMismatchError(
            f"Both must know the same classes: {', '.join(want)}. Received: {', '.join(have)} "
            f"({'; '.join(only) or 'some more than once'}). Compare what tells the same things "
            "apart."
        )
    return np.asarray(probabilities)[:, [have.index(name) for name in want]]


def _array(name: str, values: npt.ArrayLike, dtype: type | None) -> npt.NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"`{name}` must be an array of numbers. Received: {type(values).__name__}, which NumPy "
            f"cannot take: {error} Pass arrays of shapes (n,) and (n, n_classes)."
        ) from None
