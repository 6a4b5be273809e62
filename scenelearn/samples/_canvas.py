"""Canvas: colors, noise fields and small array helpers.

Coordinates are fractions of the canvas, x to the right and y down. A canvas has shape
(3, SIDE, SIDE), a color shape (3, 1, 1), both with RGB in [0, 1]. With the channels first, arrays
of shape (SIDE, SIDE) broadcast against both, ten times faster than with the channels last.
Everything random takes a random number generator.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator
Points = Sequence[tuple[float, float]]

SIDE = 160
"""Width and height of the canvas in pixels; the camera crops and resizes it to a photo."""

_AXIS: Array = ((np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
U: Array = _AXIS[None, :]
"""x of each column, shape (1, SIDE)."""
V: Array = _AXIS[:, None]
"""y of each row, shape (SIDE, 1)."""


def color(red: float, green: float, blue: float) -> Array:
    """Return a color as an array."""
    return np.array([[[red]], [[green]], [[blue]]], np.float32)


def jitter(rng: Rng, base: Array, amount: float = 0.05) -> Array:
    """Return `base` with random changes in brightness and in each channel."""
    draws = rng.standard_normal(4, np.float32)
    shift = np.float32(amount) * (draws[0] + np.float32(0.6) * draws[1:, None, None])
    jittered: Array = np.minimum(np.maximum(base + shift, np.float32(0.01)), np.float32(1))
    return jittered


@functools.lru_cache(maxsize=256)
def _palette(choices: str) -> tuple[Array, ...]:
    percents = (choice.split() for choice in choices.split(","))
    return tuple(color(*(int(percent) / 100 for percent in choice)) for choice in percents)


def random_color(rng: Rng, choices: str, amount: float) -> Array:
    """Return one of `choices`, "red green blue, ..." in percent, with random changes."""
    colors = _palette(choices)
    return jitter(rng, colors[int(rng.integers(len(colors)))], amount)


def mix(first: Array, second: Array, weight: npt.NDArray[Any] | float) -> Array:
    """Blend two colors or images; weights of shape (rows, columns) are broadcast."""
    blended: Array = (second - first) * np.asarray(weight, np.float32)
    return blended + first


def smoothstep(low: float, high: float, values: Array) -> Array:
    """Interpolate smoothly from 0 at `low` to 1 at `high`."""
    t = (values - low) * np.float32(1 / (high - low))
    np.clip(t, 0, 1, out=t)
    risen: Array = t * t * (3 - 2 * t)
    return risen


def below(edge: Array | float, soft: float = 1.0) -> Array:
    """Return 1 below an edge and 0 above, with a transition over `soft` pixels."""
    cover: Array = np.clip((V - edge) * SIDE / soft, 0, 1)
    return cover


@functools.lru_cache(maxsize=64)
def _spectrum(side: int, power: float, stretch: float, lowest: float) -> Array:
    rows = np.fft.fftfreq(side)[:, None] * side / np.sqrt(stretch)
    columns = np.fft.rfftfreq(side)[None, :] * side * np.sqrt(stretch)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    amplitude = np.where(frequency >= lowest, frequency**-power, 0)
    amplitude[0, 0] = 0
    return amplitude.astype(np.float32)


def noise(
    rng: Rng, power: float, stretch: float = 1.0, *, side: int = SIDE, lowest: float = 0.0
) -> Array:
    """Sample periodic fractal noise with mean 0 and standard deviation 1.

    Args:
        rng: random number generator.
        power: amplitudes fall with frequency to this power; 0 is white, 2 is smooth.
        stretch: aspect ratio of the features, width over height.
        side: width and height, in pixels.
        lowest: lowest frequency, in waves per side.

    Returns:
        Array of shape (side, side).
    """
    amplitude = _spectrum(side, power, stretch, lowest)
    draws = rng.random((*amplitude.shape, 2), np.float32) - np.float32(0.5)
    spectrum = draws.view(np.complex64)[..., 0] * amplitude
    field: Array = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32, copy=False)
    field *= side / (np.linalg.norm(field) + np.float32(1e-9))  # its mean is 0
    return field


def noise_line(rng: Rng, power: float, n_points: int = SIDE) -> Array:
    """Sample fractal noise of `n_points` values, mean 0 and standard deviation 1."""
    # half of a line twice as long does not need to be periodic
    frequency = np.arange(n_points + 1, dtype=np.float32)
    frequency[0] = 1
    amplitude = frequency**-power
    amplitude[0] = 0
    draws = rng.standard_normal((2, n_points + 1), dtype=np.float32)
    line = np.fft.irfft((draws[0] + 1j * draws[1]) * amplitude)[:n_points].astype(np.float32)
    line -= line.mean()
    line /= line.std() + np.float32(1e-9)
    return line


def sample(field: Array, x: Array, y: Array) -> Array:
    """Sample a periodic field at fractional positions, with bilinear interpolation."""
    side = field.shape[0]
    column, row = x * side, y * side
    left, top = np.floor(column), np.floor(row)
    tx, ty = column - left, row - top
    padded = np.pad(field, ((0, 1), (0, 1)), mode="wrap").ravel()
    at = (top.astype(np.intp) % side) * (side + 1) + left.astype(np.intp) % side
    upper: Array = padded[at]
    lower: Array = padded[at + (side + 1)]
    upper += (padded[at + 1] - upper) * tx
    lower += (padded[at + (side + 2)] - lower) * tx
    upper += (lower - upper) * ty
    return upper


def relief(field: Array, right: float, down: float) -> Array:
    """Shade a field like a surface lit from one side; the result has mean 0."""
    padded = np.pad(field, 1, mode="wrap")
    slope: Array = np.float32(right) * (padded[1:-1, :-2] - padded[1:-1, 2:])
    slope += np.float32(down) * (padded[:-2, 1:-1] - padded[2:, 1:-1])
    return slope


def from_image(image: Image.Image) -> Array:
    """Convert an image to an array of shape (channels, rows, columns) in [0, 1]."""
    planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return planes.astype(np.float32) * np.float32(1 / 255)


def to_image(planes: Array) -> Image.Image:
    """Convert an array of shape (3, rows, columns) to an image."""
    pixels = (np.clip(planes, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def rgba(shade: Array, alpha: float = 1.0) -> tuple[int, ...]:
    """Convert a color to RGBA integers for Pillow."""
    return *(int(255 * min(max(part, 0.0), 1.0)) for part in shade.ravel().tolist()), int(
        255 * alpha
    )
