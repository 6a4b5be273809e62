"""Checks of labels and predicted probabilities."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError, ClassMismatchError

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def check_predictions(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_names: Sequence[str]
) -> tuple[Labels, Probabilities, tuple[str, ...]]:
    """Check that labels, probabilities and class names fit together.

    Args:
        labels: (n,) integers in [0, n_classes).
        probabilities: (n, n_classes), rows that sum to 1.
        class_names: one unique name per column.

    Returns:
        (n,) int64 labels, (n, n_classes) float64 probabilities, and the class names.

    Raises:
        ArgumentError: if an argument is invalid or the shapes do not match.
    """
    y_true = _array("labels", labels, None)
    y_prob = _array("probabilities", probabilities, np.float64)
    names = tuple(class_names)
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise ArgumentError(
            "`class_names` must not contain duplicates. Received more than once: "
            f"{', '.join(repeated)}. Give each column its own name."
        )
    if y_true.ndim != 1 or y_prob.shape != (len(y_true), len(names)):
        raise ArgumentError(
            "`probabilities` must have one row per label and one column per class. "
            f"Received: labels of shape {y_true.shape}, probabilities of shape {y_prob.shape}, "
            f"{len(names)} class names. Pass arrays of shapes (n,) and (n, n_classes)."
        )
    if not len(y_true):
        raise ArgumentError(
            "`labels` must not be empty. Received: 0 labels. Pass at least one photo."
        )
    is_integer = np.issubdtype(y_true.dtype, np.integer)
    if not is_integer or y_true.min() < 0 or y_true.max() >= len(names):
        values = f", values from {y_true.min()} to {y_true.max()}" if is_integer else ""
        raise ArgumentError(
            f"`labels` must be integers in [0, {len(names)}). Received: dtype {y_true.dtype}"
            f"{values}. Pass indices into `class_names`."
        )
    sums = y_prob.sum(axis=1)
    if not (np.isfinite(y_prob).all() and y_prob.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
        raise ArgumentError(
            "`probabilities` must be non-negative, with rows that sum to 1. Received: row sums "
            f"from {sums.min():.4g} to {sums.max():.4g}, smallest entry {y_prob.min():.4g}. "
            "Apply a softmax to logits first."
        )
    return y_true.astype(np.int64), y_prob, names


def reorder_columns(
    probabilities: npt.ArrayLike, class_names: Sequence[str], target_names: Sequence[str]
) -> npt.NDArray[Any]:
    """Reorder the columns of probabilities by class name.

    Args:
        probabilities: (n, n_classes).
        class_names: the current names of the columns.
        target_names: the same names in the wanted order.

    Returns:
        (n, n_classes), with columns in the order of `target_names`.

    Raises:
        ClassMismatchError: if the two sets of names differ.

    Example:
        >>> reorder_columns([[0.9, 0.1]], ["street", "sea"], ["sea", "street"]).tolist()
        [[0.1, 0.9]]
    """
    names, target = list(class_names), list(target_names)
    columns = class_positions(target, names)
    if None in columns or len(set(columns)) < max(len(names), len(target)):
        differences = [
            f"{what} {', '.join(sorted(extra))}"
            for what, extra in (
                ("only in the first", set(names) - set(target)),
                ("only in the second", set(target) - set(names)),
            )
            if extra
        ]
        raise ClassMismatchError(
            f"Both must have the same classes. Received: {', '.join(names)} and "
            f"{', '.join(target)} ({'; '.join(differences) or 'duplicate names'}). "
            "Only classifiers with the same classes can be compared."
        )
    return np.asarray(probabilities)[:, np.array(columns, np.intp)]


def class_positions(names: Sequence[str], class_names: Sequence[str]) -> list[int | None]:
    """Find names among class names, whichever way their accents are encoded.

    Spaces at the ends do not matter.

    Args:
        names: the names to find.
        class_names: the names among which to find them.

    Returns:
        The position of each name; None if it is missing. The same characters match; otherwise so do
        characters of the same meaning: "é" is one character on Linux and Windows, and two on macOS.

    Example:
        >>> class_positions(["sea", "foret", "fore\u0302t"], ["for\u00eat", "sea"])
        [1, None, 0]
    """
    positions: dict[str, int] = {}
    for k, name in enumerate(class_names):
        positions.setdefault(_normalize(name), k)
    positions |= {name: k for k, name in enumerate(class_names)}
    return [positions.get(name, positions.get(_normalize(name))) for name in names]


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _array(name: str, values: npt.ArrayLike, dtype: type | None) -> npt.NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"`{name}` must be an array of numbers. Received: {type(values).__name__}, which NumPy "
            f"cannot convert: {error} Pass arrays of shapes (n,) and (n, n_classes)."
        ) from None
