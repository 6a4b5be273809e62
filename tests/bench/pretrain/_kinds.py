"""Which class is drawn by which kind of generator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tests.bench.pretrain._colour import Floats, lit
from tests.bench.pretrain._fractals import attractor, julia
from tests.bench.pretrain._layouts import layout
from tests.bench.pretrain._textures import texture

# In every ten classes: half of them layouts, which come closest to what a scene is.
_TURN = (layout, texture, layout, attractor, layout, texture, layout, texture, layout, julia)


def kind_of(label: int) -> str:
    """The name of a class's kind."""
    return _TURN[label % len(_TURN)].__name__


def a_class(seed: int, label: int) -> Callable[[int, np.random.Generator], Floats]:
    """What draws images of a class: the same for the same seed and label."""
    return _TURN[label % len(_TURN)](np.random.default_rng([seed, label]))


def images(seed: int, label: int, indices: range, px: int) -> npt.NDArray[np.uint8]:
    """Images of one class, each a function of (seed, label, index).

    Returns:
        (len(indices), px, px, 3) uint8.
    """
    drawn, out = a_class(seed, label), np.empty((len(indices), px, px, 3), np.uint8)
    for k, index in enumerate(indices):
        rng = np.random.default_rng([seed, label, index])
        out[k] = lit(drawn(px, rng), rng)
    return out
