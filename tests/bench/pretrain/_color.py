"""Color palettes of classes and images, and lighting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colors of a class.

    Attributes:
        colors: (n, 3) hue, saturation and value, each 0 to 1.
        free: whether each image has its own colors, so that only shape identifies the class.
    """

    colors: Floats
    free: bool


def palette(rng: np.random.Generator, n: int = 5) -> Palette:
    """Sample colors around one or two hues, with different values."""
    hues = rng.random() + np.where(rng.random(n) < 0.5, 0, rng.uniform(0.2, 0.6))
    colors = np.stack([
        hues + rng.normal(0, 0.05, n),
        np.clip(rng.beta(1.5, 2, n), 0, 1),
        rng.permutation(np.linspace(0.15, 0.95, n)),
    ], axis=1)  # fmt: skip
    return Palette(colors=colors.astype(np.float32), free=bool(rng.random() < 0.5))


def sample_colors(known: Palette, rng: np.random.Generator) -> Floats:
    """Sample the colors of one image: (n, 3) RGB in [0, 1]."""
    hsv = palette(rng, len(known.colors)).colors if known.free else known.colors
    hue, saturation, value = (hsv + rng.normal(0, (0.03, 0.08, 0.08), hsv.shape)).T
    k = (np.array([[5.0], [3.0], [1.0]]) + hue * 6) % 6
    saturation, value = np.clip(saturation, 0, 1), np.clip(value, 0.02, 1)
    return (value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))).T.astype(np.float32)


def ramp(field: Floats, colors: Floats) -> Floats:
    """Map values in [0, 1] to colors by linear interpolation, (..., 3)."""
    at = np.clip(field, 0, 1) * (len(colors) - 1)
    low = np.minimum(at.astype(np.int32), len(colors) - 2)
    part = (at - low)[..., None]
    return colors[low] * (1 - part) + colors[low + 1] * part


def apply_lighting(image: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Apply light from one side, exposure, a color cast, blur and noise.

    Args:
        image: (height, width, 3) in [0, 1].
        rng: random number generator.
    """
    h, w = image.shape[:2]
    turn, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, w, dtype=np.float32)[None]
    light = 1 + np.float32(strength) * (np.float32(np.sin(turn)) * y + np.float32(np.cos(turn)) * x)
    cast = (2 ** rng.normal(0, 0.3) * 2 ** rng.normal(0, 0.08, 3)).astype(np.float32)
    image = image * light[..., None] * cast
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        image = _blur(image)
    image = image + rng.standard_normal((h, w, 1), np.float32) * np.float32(rng.uniform(0, 0.04))
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _blur(image: Floats) -> Floats:
    wide = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
