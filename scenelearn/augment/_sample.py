"""Sampling of augmentation parameters, as a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_integer
from scenelearn.augment._operations import OPERATIONS
from scenelearn.augment._policy import Policy, check_fill
from scenelearn.augment._policy import policy as as_policy
from scenelearn.augment._transforms import N_COLUMNS, POSITIONS, compute_arguments, sample_values
from scenelearn.errors import ArgumentError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NEGLIGIBLE = 0.005  # values below this are left out of captions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Parameters:
    """The augmentation parameters of each photo of a batch.

    Attributes:
        n: number of photos.
        values: for each operation of the policy, (n,) values in its unit, 0 where the photo is
            left unchanged; and the positions that some operations need, as fractions.
        arguments: the same as `apply` uses it, float32: "linear" (n, 2, 2) and "placement"
            (n, 2, 3) or (n, 3, 3), which together form one geometric transform; "color"
            (n, 3, 4); and one array for each filter.
        fill: how to fill the area outside the photo: "reflect", "edge" or a color (r, g, b).
        max_shrink: the largest factor by which zooming shrinks a photo, at least 1.
    """

    n: int
    values: Mapping[str, npt.NDArray[np.float64]]
    arguments: Mapping[str, npt.NDArray[np.float32]]
    fill: str | tuple[float, float, float] = "reflect"
    max_shrink: float = 1.0

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        operations = ", ".join(name for name in self.values if name in OPERATIONS)
        return f"<Parameters: {self.n:,} photos; {operations or 'no operations'}>"

    def __getitem__(self, photos: slice | npt.ArrayLike) -> Parameters:
        """Return the parameters of some of the photos, given as a slice or as positions."""
        rows = photos if isinstance(photos, slice) else np.asarray(photos)
        if not isinstance(rows, slice) and rows.shape == (0,):
            rows = rows.astype(np.int64)
        if not isinstance(rows, slice) and (rows.ndim != 1 or rows.dtype.kind not in "iu"):
            raise ArgumentError(
                "The photos must be a slice or a list of positions. Received: "
                f"{photos!r}. Pass e.g. parameters[:8] or parameters[[0, 3]]."
            )
        return replace(
            self,
            n=len(np.arange(self.n)[rows]),
            values={name: value[rows] for name, value in self.values.items()},
            arguments={name: value[rows] for name, value in self.arguments.items()},
        )

    def caption(self, photo: int) -> str:
        """Describe the augmentation of one photo.

        Args:
            photo: its position in the batch, in [0, n).

        Returns:
            A caption such as "horizontal flip, rotate -3.14 degrees", or "unchanged".
        """
        parts = []
        for name, column in self.values.items():
            value = float(column[photo])
            if name not in OPERATIONS or abs(value) < _NEGLIGIBLE:
                continue
            operation, words = OPERATIONS[name], name.replace("_", " ")
            if operation.unit != "probability":
                sign = "+" if operation.signed else ""
                number = f"{value:{sign}.2f}".rstrip("0").rstrip(".")
                unit = operation.unit.removeprefix("fraction").strip()
                words = f"{words} {number} {unit}".strip()
            parts.append(words)
        return ", ".join(parts) or "unchanged"


def sample(
    policy: str | Policy | Mapping[str, Any],
    seed: int,
    n: int | npt.ArrayLike,
    *,
    epoch: int = 0,
) -> Parameters:
    """Sample augmentation parameters for each photo.

    The parameters of a photo depend on (seed, epoch, index) only: not on the batch, the order or
    the other photos.

    Args:
        policy: a policy, or the name of one.
        seed: random seed, at least 0.
        n: the number of photos, at least 0, which then have the indices 0 … n - 1; or the photos'
            indices, (n,) integers of at least 0.
        epoch: at least 0; each epoch gives different parameters.

    Returns:
        The parameters, in the order of the indices. Uses NumPy only: no backend is loaded.

    Raises:
        ArgumentError: if there is no such policy, or a number is out of range.

    Example:
        >>> ten, last = sample("standard", 0, 10, epoch=1), sample("standard", 0, [9], epoch=1)
        >>> ten.caption(9) == last.caption(0)
        True
    """
    ranges = as_policy(policy)
    seed, epoch = check_integer("seed", seed, low=0), check_integer("epoch", epoch, low=0)
    indices = _as_indices(n)
    values = sample_values(ranges, uniforms(seed, epoch, indices, N_COLUMNS), np)
    return Parameters(
        n=len(indices),
        values=values,
        arguments=_as_float32(compute_arguments(values, np, ranges.blur)),
        fill=ranges.fill,
        max_shrink=1 + float(ranges.zoom),
    )


def fixed(
    n: int,
    *,
    fill: str | tuple[float, float, float] = "reflect",
    **values: float | Sequence[float],
) -> Parameters:
    """Set augmentation parameters by hand, with nothing left to chance.

    Args:
        n: number of photos, at least 0.
        fill: how to fill the area outside the photo, see `Policy`.
        **values: operations by name, each in its unit and within the range of a policy: one number
            for all photos, or n numbers. "crop" also takes the positions "crop_x" and "crop_y",
            "erase" takes "erase_x", "erase_y" and "erase_aspect", each from 0 to 1, by default
            0.5; "noise" takes "noise_seed".

    Returns:
        The parameters.

    Raises:
        ArgumentError: if there is no such operation, or a value is out of range.

    Example:
        >>> fixed(2, rotate=[90, 0], horizontal_flip=1).caption(0)
        'horizontal flip, rotate +90 degrees'
    """
    n = check_integer("n", n, low=0)
    positions = [position for name in values for position in POSITIONS.get(name, ())]
    columns = {
        name: _as_column(name, values.get(name, 0.5), n)
        for name in (*(name for name in OPERATIONS if name in values), *positions)
    }
    unknown = set(values) - set(columns)
    if unknown:
        raise ArgumentError(
            f"An operation must be one of {', '.join(OPERATIONS)}. Received: {min(unknown)!r}. "
            "Positions are accepted with crop, erase and noise only."
        )
    max_blur = max(columns.get("blur", ()), default=0)
    return Parameters(
        n=n,
        values=columns,
        arguments=_as_float32(compute_arguments(columns, np, max_blur)),
        fill=check_fill(fill),
        max_shrink=1 + float(np.max(-columns.get("zoom", np.zeros(0)), initial=0)),
    )


def uniforms(
    seed: int, epoch: int, indices: npt.NDArray[np.int64], n_columns: int
) -> npt.NDArray[np.float64]:
    """Hash (seed, epoch, index, column) to uniform numbers, independent of order and batch.

    Args:
        seed: at least 0.
        epoch: at least 0.
        indices: (n,) indices of photos, at least 0.
        n_columns: how many numbers per photo.

    Returns:
        (n, n_columns) float64 in [0, 1).

    Example:
        >>> a, b = uniforms(0, 1, np.array([5, 9]), 3), uniforms(0, 1, np.array([9]), 4)
        >>> bool((a[1] == b[0, :3]).all())
        True

    References:
        The mixing function is SplitMix64's: G. Steele, D. Lea, C. Flood (2014), Fast splittable
        pseudorandom number generators. OOPSLA.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is intended
        stream = _mix_bits(_mix_bits(_hash_integer(seed)) ^ _hash_integer(epoch))
        photos = _mix_bits(_mix_bits(stream ^ indices.astype(np.uint64)))
        columns = np.arange(1, n_columns + 1, dtype=np.uint64) * _GOLDEN
        hashes = _mix_bits(photos[:, None] + columns)
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hash_integer(number: int) -> npt.NDArray[np.uint64]:
    """Hash an integer of any size to one 64-bit word."""
    word = np.zeros(1, np.uint64)
    while True:
        word = _mix_bits(word ^ np.uint64(number & 0xFFFFFFFFFFFFFFFF))
        number >>= 64
        if not number:
            return word


def _mix_bits(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _as_column(name: str, value: object, n: int) -> npt.NDArray[np.float64]:
    """One number per photo."""
    operation = OPERATIONS.get(name)
    high = operation.maximum if operation else 1
    low = -high if operation and operation.signed else 0
    try:
        column = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        column = np.full(1, np.nan)
    is_numeric = column.shape in {(), (n,)} and not isinstance(value, str | bool)
    if not is_numeric or not ((low <= column) & (column <= high)).all():
        raise ArgumentError(
            f"`{name}` must be a number from {low:g} to {high:g}, or {n} such numbers. "
            f"Received: {name}={value!r}."
        )
    return np.broadcast_to(column, (n,)).copy()


def _as_float32(arrays: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def _as_indices(n: int | npt.ArrayLike) -> npt.NDArray[np.int64]:
    if isinstance(n, int | np.integer) and not isinstance(n, bool):
        return np.arange(check_integer("n", n, low=0))
    indices = np.asarray(n)
    if indices.size == 0:
        indices = indices.astype(np.int64)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ArgumentError(
            "`n` must be a number of photos, or a list of the photos' indices, which are integers. "
            f"Received: shape {indices.shape}, dtype {indices.dtype}. Pass e.g. 32 or [5, 9]."
        )
    check_integer("n", min(indices, default=0), low=0)
    return indices.astype(np.int64)
