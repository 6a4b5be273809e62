"""Classes of textures: two patterns, and the way in which one colors the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.bench.pretrain import _fields
from tests.bench.pretrain._color import Floats, palette, ramp, shades


def texture(rng: np.random.Generator) -> Callable[[int, np.random.Generator], Floats]:
    """A class: from the size in pixels and a generator to an image, (px, px, 3), 0 to 1."""
    one, two = _fields.a_class(rng), _fields.a_class(rng)
    colors, way, part = palette(rng), int(rng.integers(4)), rng.uniform(0.15, 0.5)

    def image(px: int, rng: np.random.Generator) -> Floats:
        known = shades(colors, rng)
        a = _fields.an_image(px, rng, one)
        if way == 0:
            return ramp(a, known)
        b = _fields.an_image(px, rng, two)
        if way == 1:
            return ramp((1 - part) * a + part * b, known)
        if way == 2:
            return ramp(a, known[:2]) * (1 - np.float32(part) * b)[..., None]
        mask = a[..., None]
        return mask * known[0] + (1 - mask) * ramp(b, known[1:])

    return image
