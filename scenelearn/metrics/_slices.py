"""Groups of photos on which a classifier does worse than on the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError
from scenelearn.metrics._exact import fisher, holm
from scenelearn.metrics._intervals import Interval, wilson

_LEVEL = 0.05
_MOST_GROUPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A group of photos, by one property.

    Attributes:
        column: the property.
        group: which photos: a value, or a range of numbers such as "12 to 57".
        accuracy: on these photos.
        rest: accuracy on all other photos.
        p_value: the chance that so low an accuracy, or a lower one, comes by chance; Fisher's
            exact test.
        corrected: the same, corrected for how many groups were looked at (Holm).
        is_worse: whether that is below 5 %.
    """

    column: str
    group: str
    accuracy: Interval
    rest: Interval
    p_value: float
    corrected: float
    is_worse: bool

    def __str__(self) -> str:
        return (
            f"{self.column} {self.group}: {self.accuracy} on {self.accuracy.n:,} photos, "
            f"{self.rest} on the rest (p = {self.corrected:.2g})"
        )

    def to_json(self) -> dict[str, Any]:
        """The seven fields as plain values."""
        return {
            "column": self.column,
            "group": self.group,
            "accuracy": self.accuracy.to_json(),
            "rest": self.rest.to_json(),
            "p_value": self.p_value,
            "corrected": self.corrected,
            "is_worse": self.is_worse,
        }


def slices(
    right: npt.ArrayLike, columns: Mapping[str, npt.ArrayLike], *, n_groups: int = 4
) -> tuple[Slice, ...]:
    """Look for groups of photos on which a classifier does worse than on the rest.

    A column of numbers is cut at its quantiles into groups of about equal size; equal numbers
    stay together. Any other column makes a group of each value. Each group is tested against
    all other photos, and the p-values are corrected for the number of groups of all columns: of
    many groups some look bad by chance alone.

    Args:
        right: (n,) booleans, whether the classifier was right.
        columns: property to (n,) numbers or words; photos whose number is NaN are in no group.
        n_groups: into how many groups numbers are cut, at least 2.

    Returns:
        The groups, the smallest p-value first.

    Raises:
        ArgumentError: if a column has another length, more than two dimensions or more than 50
            different words, or `n_groups` is below 2.

    Example:
        >>> right = [True] * 90 + [False] * 8 + [True] * 2
        >>> light = ["day"] * 90 + ["night"] * 10
        >>> print(slices(right, {"light": light})[0])
        light night: 20.0 % (5.7 to 51.0) on 10 photos, 100.0 % (95.9 to 100.0) on the rest
        (p = 4.8e-10)
    """
    if isinstance(n_groups, bool) or not isinstance(n_groups, int) or n_groups < 2:
        raise ArgumentError(
            f"`n_groups` must be a whole number of at least 2. Received: n_groups={n_groups!r}. "
            "4 is usual."
        )
    hits = np.asarray(right)
    if hits.ndim != 1 or hits.dtype != np.bool_ or not len(hits):
        raise ArgumentError(
            f"`right` must be (n,) booleans, at least one. Received: shape {hits.shape}, dtype "
            f"{hits.dtype}. Pass predicted == labels."
        )
    found = [
        (name, group, int(hits[members].sum()), int(members.sum()))
        for name, values in columns.items()
        for group, members in _groups(name, values, len(hits), n_groups)
    ]
    total_right, total = int(hits.sum()), len(hits)
    p_values = [fisher(n_right, n, total_right - n_right, total - n) for _, _, n_right, n in found]
    made = [
        Slice(
            column=name,
            group=group,
            accuracy=wilson(n_right, n),
            rest=wilson(total_right - n_right, total - n),
            p_value=p_value,
            corrected=corrected,
            is_worse=corrected < _LEVEL,
        )
        for (name, group, n_right, n), p_value, corrected in zip(
            found, p_values, holm(p_values), strict=True
        )
    ]
    return tuple(sorted(made, key=lambda one: one.p_value))


def _groups(
    name: str, values: npt.ArrayLike, n: int, n_groups: int
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """(what it is, which photos) for each group of a column; none where there is only one."""
    column = np.asarray(values)
    if column.shape != (n,):
        raise ArgumentError(
            f"`columns[{name!r}]` must have one value for each of the {n:,} photos. Received: "
            f"shape {column.shape}. Pass a list of the same length."
        )
    if column.dtype.kind in "iuf":
        numbers = column.astype(np.float64)
        usable = np.isfinite(numbers)
        if not usable.any():
            return []
        ends = np.quantile(numbers[usable], np.arange(1, n_groups) / n_groups)
        place = np.searchsorted(np.unique(ends), numbers)
        parts = [usable & (place == k) for k in range(n_groups)]
        groups = [(_range(numbers[part]), part) for part in parts if part.any()]
    else:
        words = np.array([str(value) for value in column.tolist()])
        different = np.unique(words)
        if len(different) > _MOST_GROUPS:
            raise ArgumentError(
                f"`columns[{name!r}]` must be numbers or have at most {_MOST_GROUPS} different "
                f"values. Received: {len(different):,} values. Put rare ones together."
            )
        groups = [(str(word), words == word) for word in different]
    return groups if len(groups) > 1 else []


def _range(numbers: npt.NDArray[np.float64]) -> str:
    low, high = float(numbers.min()), float(numbers.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
