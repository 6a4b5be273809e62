"""Which class is drawn by which kind of generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.pretrain._color import Floats, lit
from tests.bench.pretrain._fractals import attractor, julia
from tests.bench.pretrain._layouts import layout
from tests.bench.pretrain._textures import texture

# In every ten classes: half of them layouts, which come closest to what a scene is.
_TURN = (layout, texture, layout, attractor, layout, texture, layout, texture, layout, julia)


def _turn(kinds: Sequence[str]) -> list[Callable[..., Any]]:
    return [drawn for drawn in _TURN if not kinds or drawn.__name__ in kinds]


def kind_of(label: int, kinds: Sequence[str] = ()) -> str:
    """The name of a class's kind.

    Args:
        label: the number of the class.
        kinds: names of those that take turns; all if empty.
    """
    turn = _turn(kinds)
    return turn[label % len(turn)].__name__


def a_class(
    seed: int, label: int, kinds: Sequence[str] = ()
) -> Callable[[int, np.random.Generator], Floats]:
    """What draws images of a class: the same for the same seed, label and kinds."""
    turn = _turn(kinds)
    draws: Callable[[int, np.random.Generator], Floats] = turn[label % len(turn)](
        np.random.default_rng([seed, label])
    )
    return draws


def images(
    seed: int, label: int, indices: range, px: int, kinds: Sequence[str] = ()
) -> npt.NDArray[np.uint8]:
    """Images of one class, each a function of (seed, label, index, kinds).

    Returns:
        (len(indices), px, px, 3) uint8.
    """
    drawn = a_class(seed, label, kinds)
    out = np.empty((len(indices), px, px, 3), np.uint8)
    for k, index in enumerate(indices):
        rng = np.random.default_rng([seed, label, index])
        out[k] = lit(drawn(px, rng), rng)
    return out
