"""Slices: groups of photos on which a classifier performs worse than on the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array, check_integer
from scenelearn._json import dataclass_json
from scenelearn.errors import ArgumentError
from scenelearn.metrics._intervals import Interval, wilson
from scenelearn.metrics._significance import fisher, holm

_LEVEL = 0.05
_MAX_CATEGORIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A group of photos that share a value, or a range of values, of one column.

    Attributes:
        column: the column.
        group: the value, or the range of numbers such as "12 to 57".
        accuracy: accuracy on these photos.
        rest_accuracy: accuracy on all other photos.
        p_value: probability of an accuracy this low or lower by chance; Fisher's exact test.
        adjusted_p_value: the p-value adjusted for the number of slices (Holm's method).
        is_worse: whether the adjusted p-value is below 5%.
    """

    column: str
    group: str
    accuracy: Interval
    rest_accuracy: Interval
    p_value: float
    adjusted_p_value: float
    is_worse: bool

    def __str__(self) -> str:
        return (
            f"{self.column} {self.group}: {self.accuracy} on {self.accuracy.n:,} photos, "
            f"{self.rest_accuracy} on the rest (p = {self.adjusted_p_value:.2g})"
        )

    def __repr__(self) -> str:
        return f"<Slice {self}>"

    def to_json(self) -> dict[str, Any]:
        """The seven fields as plain values."""
        return dataclass_json(self)


def find_slices(
    correct: npt.ArrayLike, columns: Mapping[str, npt.ArrayLike], *, n_bins: int = 4
) -> tuple[Slice, ...]:
    """Find slices of photos on which a classifier performs worse than on the rest.

    Numeric columns are binned at their quantiles, with equal values in the same bin. Any other
    column gives one slice per distinct value. Each slice is tested against all other photos.
    P-values are adjusted for the number of slices over all columns, because some of many slices
    look bad by chance.

    Args:
        correct: (n,) booleans, whether each prediction was correct.
        columns: column name to (n,) numbers or strings. Photos with NaN are in no slice.
        n_bins: the number of bins for numeric columns, at least 2.

    Returns:
        All slices, the smallest p-value first.

    Raises:
        ArgumentError: if `correct` is not (n,) booleans, a column does not have shape (n,) or has
            more than 50 distinct strings, or `n_bins` is not an integer of at least 2.

    Example:
        >>> correct = [True] * 90 + [False] * 8 + [True] * 2
        >>> light = ["day"] * 90 + ["night"] * 10
        >>> print(find_slices(correct, {"light": light})[0])
        light night: 20.0% (5.7 to 51.0) on 10 photos, 100.0% (95.9 to 100.0) on the rest
        (p = 4.8e-10)
    """
    check_integer("n_bins", n_bins, low=2, advice="The default is 4.")
    hits = np.asarray(correct)
    if hits.ndim != 1 or hits.dtype != np.bool_ or not len(hits):
        raise ArgumentError(
            f"`correct` must be (n,) booleans, not empty. Received: shape {hits.shape}, dtype "
            f"{hits.dtype}. Pass predicted == labels."
        )
    groups = [
        (name, group, int(hits[members].sum()), int(members.sum()))
        for name, values in columns.items()
        for group, members in _groups(name, values, len(hits), n_bins)
    ]
    total_correct, total = int(hits.sum()), len(hits)
    p_values = [
        fisher(n_correct, n, total_correct - n_correct, total - n) for _, _, n_correct, n in groups
    ]
    slices = [
        Slice(
            column=name,
            group=group,
            accuracy=wilson(n_correct, n),
            rest_accuracy=wilson(total_correct - n_correct, total - n),
            p_value=p_value,
            adjusted_p_value=adjusted,
            is_worse=adjusted < _LEVEL,
        )
        for (name, group, n_correct, n), p_value, adjusted in zip(
            groups, p_values, holm(p_values), strict=True
        )
    ]
    return tuple(sorted(slices, key=lambda slice_: slice_.p_value))


def _groups(
    name: str, values: npt.ArrayLike, n: int, n_bins: int
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """(group, mask of its photos) for each group of a column; empty if there is only one."""
    column = check_array(f"columns[{name!r}]", values)
    if column.shape != (n,):
        raise ArgumentError(
            f"`columns[{name!r}]` must have one value for each of the {n:,} photos. Received: "
            f"shape {column.shape}. Pass a list of the same length."
        )
    if column.dtype.kind in "iuf":
        numbers = column.astype(np.float64)
        finite = np.isfinite(numbers)
        if not finite.any():
            return []
        edges = np.quantile(numbers[finite], np.arange(1, n_bins) / n_bins)
        bins = np.searchsorted(np.unique(edges), numbers)
        masks = [finite & (bins == k) for k in range(n_bins)]
        groups = [(_range(numbers[mask]), mask) for mask in masks if mask.any()]
    else:
        strings = np.array([str(value) for value in column.tolist()])
        distinct = np.unique(strings)
        if len(distinct) > _MAX_CATEGORIES:
            raise ArgumentError(
                f"`columns[{name!r}]` must be numeric or have at most {_MAX_CATEGORIES} distinct "
                f"values. Received: {len(distinct):,} values. Merge rare values."
            )
        groups = [(str(value), strings == value) for value in distinct]
    return groups if len(groups) > 1 else []


def _range(numbers: npt.NDArray[np.float64]) -> str:
    low, high = float(numbers.min()), float(numbers.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
