"""Classes of textures: two patterns and a way to combine them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.bench.pretrain import _fields
from tests.bench.pretrain._color import Floats, palette, ramp, sample_colors


def texture(rng: np.random.Generator) -> Callable[[int, np.random.Generator], Floats]:
    """Create a class: a function of size and random number generator to (px, px, 3) in [0, 1]."""
    first, second = _fields.sample_pattern(rng), _fields.sample_pattern(rng)
    colors, mode, weight = palette(rng), int(rng.integers(4)), rng.uniform(0.15, 0.5)

    def image(px: int, rng: np.random.Generator) -> Floats:
        known = sample_colors(colors, rng)
        a = _fields.render_pattern(px, rng, first)
        if mode == 0:
            return ramp(a, known)
        b = _fields.render_pattern(px, rng, second)
        if mode == 1:
            return ramp((1 - weight) * a + weight * b, known)
        if mode == 2:
            return ramp(a, known[:2]) * (1 - np.float32(weight) * b)[..., None]
        mask = a[..., None]
        return mask * known[0] + (1 - mask) * ramp(b, known[1:])

    return image
