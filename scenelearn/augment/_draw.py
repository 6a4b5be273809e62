"""What happens to which photo: drawn apart from applied, as a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.augment._operations import OPERATIONS
from scenelearn.augment._policy import Policy, checked_fill
from scenelearn.augment._policy import policy as _named
from scenelearn.augment._random import uniforms
from scenelearn.augment._values import N_COLUMNS, PLACES, arguments, drawn
from scenelearn.errors import ArgumentError

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """What happens to each photo of a batch.

    Attributes:
        n: photos.
        values: for each operation that was asked for, (n,) in its unit, 0 where nothing happens;
            and the places that some need, in shares.
        arguments: the same as `apply` computes with it, float32: "turn" (n, 2, 2) and "place"
            (n, 2, 3) or (n, 3, 3), one geometry; "color" (n, 3, 4); and one array for each
            further operation.
        fill: what lies outside the photo: "reflect", "edge" or a color (r, g, b).
        shrunk: by how much, at most, the photos are made smaller by zooming, at least 1.
    """

    n: int
    values: Mapping[str, Numbers]
    arguments: Mapping[str, npt.NDArray[np.float32]]
    fill: str | tuple[float, float, float] = "reflect"
    shrunk: float = 1.0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, photos: slice | npt.ArrayLike) -> Draws:
        """The draws of some of the photos: a slice, or positions."""
        rows = photos if isinstance(photos, slice) else np.asarray(photos, np.int64)
        if not isinstance(rows, slice) and rows.ndim != 1:
            raise ArgumentError(
                "The photos must be a slice or a list of positions. Received: "
                f"{photos!r}. Pass e.g. draws[:8] or draws[[0, 3]]."
            )
        return replace(
            self,
            n=len(np.arange(self.n)[rows]),
            values={name: value[rows] for name, value in self.values.items()},
            arguments={name: value[rows] for name, value in self.arguments.items()},
        )

    def caption(self, photo: int) -> str:
        """What happens to one photo, in words.

        Args:
            photo: its position, in [0, n).

        Returns:
            E.g. "mirror, rotate -3.14 degrees"; "as it is" where nothing happens.
        """
        said = []
        for name, column in self.values.items():
            value = float(column[photo])
            if name not in OPERATIONS or abs(value) < 0.005:
                continue
            operation = OPERATIONS[name]
            words = name.replace("_", " ")
            if operation.unit == "probability":
                said.append(words)
            else:
                sign = "+" if operation.signed else ""
                unit = operation.unit.replace("share", "").replace("fraction", "").strip()
                number = f"{value:{sign}.2f}".rstrip("0").rstrip(".")
                said.append(f"{words} {number} {unit}".strip())
        return ", ".join(said) or "as it is"


def draw(
    policy: str | Policy | Mapping[str, Any],
    seed: int,
    n: int | npt.ArrayLike,
    *,
    epoch: int = 0,
) -> Draws:
    """Draw what happens to each photo: a function of (seed, epoch, index) and nothing else.

    Args:
        policy: a policy, or the name of one.
        seed: of the run, at least 0.
        n: how many photos, at least 0: those with the indices 0 … n - 1; or their indices, (n,)
            whole numbers of at least 0.
        epoch: at least 0; another epoch, another draw.

    Returns:
        The draws, in the order of the indices. NumPy only: no backend is loaded.

    Raises:
        ArgumentError: if there is no such policy, or a number is out of range.

    Example:
        >>> all_ten, last = draw("standard", 0, 10, epoch=1), draw("standard", 0, [9], epoch=1)
        >>> all_ten.caption(9) == last.caption(0)
        True
    """
    bounds = _named(policy)
    check_whole("seed", seed)
    check_whole("epoch", epoch)
    indices = _indices(n)
    values = drawn(bounds, uniforms(int(seed), int(epoch), indices, N_COLUMNS), np)
    return Draws(
        n=len(indices),
        values=values,
        arguments=_arguments(values, bounds.blur),
        fill=bounds.fill,
        shrunk=1 + float(bounds.zoom),
    )


def exactly(
    n: int,
    *,
    fill: str | tuple[float, float, float] = "reflect",
    **values: float | Sequence[float],
) -> Draws:
    """Draws with nothing left to chance: to look at one operation, or to do it on purpose.

    Args:
        n: photos, at least 0.
        fill: what lies outside the photo.
        **values: operations by name, each in its unit and within what a policy may ask for, one
            number for all photos or n of them. With "crop" also "crop_x" and "crop_y", with "erase"
            also "erase_x", "erase_y" and "erase_aspect", places from 0 to 1, 0.5 unless given;
            with "noise" its "noise_seed".

    Returns:
        The draws.

    Raises:
        ArgumentError: if there is no such operation, or a value is out of range.

    Example:
        >>> exactly(2, rotate=[90, 0], mirror=1).caption(0)
        'mirror, rotate +90 degrees'
    """
    check_whole("n", n)
    places = [place for name in values for place in PLACES.get(name, ())]
    columns: dict[str, Numbers] = {}
    for name in (*(name for name in OPERATIONS if name in values), *places):
        columns[name] = _column(name, values.get(name, 0.5), n)
    unknown = set(values) - set(columns)
    if unknown:
        raise ArgumentError(
            f"An operation must be one of {', '.join(OPERATIONS)}. Received: {min(unknown)!r}. "
            "Places go with crop, erase and noise only."
        )
    return Draws(
        n=n,
        values=columns,
        arguments=_arguments(columns, max(columns.get("blur", ()), default=0)),
        fill=checked_fill(fill),
        shrunk=1 + float(np.max(-columns.get("zoom", np.zeros(0)), initial=0)),
    )


def _column(name: str, value: object, n: int) -> Numbers:
    """One number for each photo."""
    operation = OPERATIONS.get(name)
    most = operation.most if operation else 1
    least = -most if operation and operation.signed else 0
    try:
        column = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        column = np.full(1, np.nan)
    right = column.shape in {(), (n,)} and not isinstance(value, str | bool)
    if not right or not ((least <= column) & (column <= most)).all():
        raise ArgumentError(
            f"`{name}` must be a number from {least:g} to {most:g}, or {n} of them. "
            f"Received: {name}={value!r}."
        )
    return np.broadcast_to(column, (n,)).copy()


def _arguments(
    values: Mapping[str, Numbers], most_blur: float
) -> dict[str, npt.NDArray[np.float32]]:
    found = arguments(values, np, most_blur)
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def _indices(n: int | npt.ArrayLike) -> npt.NDArray[np.int64]:
    if isinstance(n, int) and not isinstance(n, bool):
        check_whole("n", n)
        return np.arange(n)
    indices = np.asarray(n)
    if indices.size == 0:
        indices = indices.astype(np.int64)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ArgumentError(
            "`n` must be a number of photos, or the photos' indices: whole numbers in one row. "
            f"Received: shape {indices.shape}, dtype {indices.dtype}. Pass e.g. 32 or [5, 9]."
        )
    check_whole("n", int(min(indices, default=0)))
    return indices.astype(np.int64)


def check_whole(name: str, value: object, least: int = 0) -> None:
    """See that a number is whole and at least `least`.

    Raises:
        ArgumentError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(
            f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}. "
            f"Count from {least} upwards."
        )
