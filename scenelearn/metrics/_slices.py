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
        columns: column name to (n,) numbers or strings. Photos with NaN, None or an empty string
            are in no slice.
        n_bins: the number of bins for numeric columns, at least 2.

    Returns:
        All slices, the smallest p-value first.

    Raises:
        ArgumentError: if `correct` is not (n,) booleans, `columns` is no mapping, a column does
            not have shape (n,) or has more than 50 distinct strings, or `n_bins` is not an integer
            of at least 2.

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
    check_columns(columns, len(hits))
    groups = [
        (name, group, int(hits[members].sum()), int(members.sum()))
        for name, values in columns.items()
        for group, members in _groups(as_column(values), n_bins)
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


def check_columns(columns: Any, n_photos: int) -> None:
    """Check that `columns` maps names to one number or word per photo.

    Raises:
        ArgumentError: as `find_slices`.
    """
    if not isinstance(columns, Mapping) and not hasattr(columns, "items"):
        raise ArgumentError(
            "`columns` must map names to values. Received: "
            f"{type(columns).__name__}. Pass e.g. {{'place': [...]}}."
        )
    for name, values in columns.items():
        shape = check_array(f"columns[{name!r}]", values).shape
        if shape != (n_photos,):
            raise ArgumentError(
                f"`columns[{name!r}]` must have one value for each of the {n_photos:,} photos. "
                f"Received: shape {shape}. Pass a list of the same length."
            )
        column = as_column(values)
        n_values = 0 if _as_numbers(column) is not None else len(_distinct(_as_words(column)))
        if n_values > _MAX_CATEGORIES:
            raise ArgumentError(
                f"`columns[{name!r}]` must be numeric or have at most {_MAX_CATEGORIES} distinct "
                f"values. Received: {n_values:,} values. Merge rare values."
            )


def as_column(values: Any) -> npt.NDArray[Any]:
    """Values as an array; of a list, NumPy would turn numbers and None into words."""
    return np.asarray(values, object) if isinstance(values, list | tuple) else np.asarray(values)


def _as_numbers(column: npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
    """A column as numbers, NaN where one is missing; None if it has anything else."""
    if column.dtype.kind in "iuf":
        return column.astype(np.float64)
    if column.dtype.kind != "O":
        return None
    values = [None if _is_missing(value) else value for value in column.tolist()]
    if any(isinstance(value, bool | np.bool_ | str | bytes) for value in values):
        return None
    try:
        return np.array([np.nan if value is None else float(value) for value in values])
    except (TypeError, ValueError):
        return None


def _as_words(column: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """A column as words, empty where one is missing."""
    if column.dtype.kind in "mM":  # dates and durations
        return np.where(np.isnat(column), "", column.astype(str))
    return np.array(["" if _is_missing(value) else str(value) for value in column.tolist()])


def _is_missing(value: Any) -> bool:
    """Whether a cell is None, NaN, an empty string, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return (isinstance(value, float) and value != value) or (isinstance(value, str) and not value)


def _distinct(words: npt.NDArray[np.str_]) -> list[str]:
    return [str(word) for word in np.unique(words) if word]


def _groups(column: npt.NDArray[Any], n_bins: int) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """(group, mask of its photos) for each group of a column; empty if there is only one."""
    numbers = _as_numbers(column)
    if numbers is not None:
        finite = np.isfinite(numbers)
        if not finite.any():
            return []
        edges = np.quantile(numbers[finite], np.arange(1, n_bins) / n_bins)
        bins = np.searchsorted(np.unique(edges), numbers)
        masks = [finite & (bins == k) for k in range(n_bins)]
        masks = [mask for mask in masks if mask.any()]
        groups = list(zip(_ranges([numbers[mask] for mask in masks]), masks, strict=True))
    else:
        words = _as_words(column)
        groups = [(word, words == word) for word in _distinct(words)]
    return groups if len(groups) > 1 else []


def _ranges(bins: list[npt.NDArray[np.float64]]) -> list[str]:
    """The ranges of numbers, with as many digits as tell them apart."""
    ends = [(float(one.min()), float(one.max())) for one in bins]
    for digits in range(4, 18):
        texts = [tuple(_format(end, digits) for end in pair) for pair in ends]
        if len(set(texts)) == len(texts):
            break
    return [low if low == high else f"{low} to {high}" for low, high in texts]


def _format(number: float, digits: int) -> str:
    """A number with some digits; whole numbers, such as dates, with all of theirs."""
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:.{digits}g}"
