"""Decisions of least expected cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array, check_number
from scenelearn.errors import ArgumentError
from scenelearn.metrics._inputs import class_positions

Costs = Mapping[str, Mapping[str, float]] | npt.ArrayLike
"""What each mistake costs, see `Classifier.predict`."""

_ADVICE = "Pass e.g. {'sea': {'street': 5}}: a photo of class sea that is predicted as street."


def cost_matrix(costs: Any, class_names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """The cost of each true class (row) and predicted class (column).

    Args:
        costs: a matrix; or numbers by true and by predicted class, where correct predictions that
            are not named cost 0 and mistakes 1.
        class_names: the classes.

    Returns:
        (n_classes, n_classes), at least 0.

    Raises:
        ArgumentError: if `costs` has another shape, an unknown class, or a number below 0.

    Example:
        >>> cost_matrix({"sea": {"sky": 5}}, ("sea", "sky")).tolist()
        [[0.0, 5.0], [1.0, 0.0]]
    """
    n = len(class_names)
    if not isinstance(costs, Mapping):
        matrix = check_array("costs", costs, advice=_ADVICE)
        if matrix.shape != (n, n) or matrix.dtype.kind not in "iuf":
            raise ArgumentError(
                f"`costs` must have the shape ({n}, {n}): a row per true class and a column per "
                f"predicted class. Received: shape {matrix.shape}, dtype {matrix.dtype}. {_ADVICE}"
            )
        values = matrix.astype(np.float64)
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ArgumentError(
                f"`costs` must be finite and at least 0. Received: {costs!r:.200}. {_ADVICE}"
            )
        return values
    values = 1 - np.eye(n)
    for true, row in costs.items():
        if not isinstance(row, Mapping):
            raise ArgumentError(
                "`costs` must map true classes to mappings from predicted classes to numbers. "
                f"Received: {true!r}: {row!r:.80}. {_ADVICE}"
            )
        for predicted, cost in row.items():
            if not isinstance(true, str) or not isinstance(predicted, str):
                raise ArgumentError(
                    f"`costs` must use class names as keys. Received: {true!r}: "
                    f"{{{predicted!r}: …}}. {_ADVICE}"
                )
            i, j = class_positions([true, predicted], class_names)
            if i is None or j is None:
                raise ArgumentError(
                    f"`costs` must be of the classes {', '.join(class_names)}. Received: "
                    f"{true!r}: {{{predicted!r}: …}}. Check the names."
                )
            name = f"costs[{true!r}][{predicted!r}]"
            values[i, j] = check_number(name, cost, low=0, advice="Correct predictions cost 0.")
    return values
