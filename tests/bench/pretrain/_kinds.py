"""The assignment of classes to kinds of generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.pretrain._color import Floats, apply_lighting
from tests.bench.pretrain._fractals import attractor, julia
from tests.bench.pretrain._layouts import layout
from tests.bench.pretrain._textures import texture

# Ten classes in turn; half of them are layouts, which resemble scenes most.
_CYCLE = (layout, texture, layout, attractor, layout, texture, layout, texture, layout, julia)


def _cycle(kinds: Sequence[str]) -> list[Callable[..., Any]]:
    return [generator for generator in _CYCLE if not kinds or generator.__name__ in kinds]


def kind_of(label: int, kinds: Sequence[str] = ()) -> str:
    """Return the kind of a class.

    Args:
        label: the class.
        kinds: names of the kinds that alternate; all if empty.
    """
    turn = _cycle(kinds)
    return turn[label % len(turn)].__name__


def make_generator(
    seed: int, label: int, kinds: Sequence[str] = ()
) -> Callable[[int, np.random.Generator], Floats]:
    """Return the generator of a class, a function of seed, label and kinds."""
    turn = _cycle(kinds)
    draws: Callable[[int, np.random.Generator], Floats] = turn[label % len(turn)](
        np.random.default_rng([seed, label])
    )
    return draws


def render_images(
    seed: int, label: int, indices: range, px: int, kinds: Sequence[str] = ()
) -> npt.NDArray[np.uint8]:
    """Render images of one class, each a function of (seed, label, index, kinds).

    Returns:
        (len(indices), px, px, 3) uint8.
    """
    drawn = make_generator(seed, label, kinds)
    out = np.empty((len(indices), px, px, 3), np.uint8)
    for k, index in enumerate(indices):
        rng = np.random.default_rng([seed, label, index])
        out[k] = apply_lighting(drawn(px, rng), rng)
    return out
