"""The filters: operations that are no matrix, on (n, H, W, 3) float32 images in 0 to 255.

Each takes the images and its (n, …) argument, and returns photos of strength 0 unchanged, bit for
bit. On JAX each is a separate program, for the same reason as in `_geometry`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn.augment._geometry import compile_on_jax

_SMOOTH = ((1, 1, 1), (1, 5, 1), (1, 1, 1))  # divided by 13, as Pillow's ImageFilter.SMOOTH
_MID_GRAY = 127.5

# The quantization tables of ITU-T T.81, annex K: luma, then chroma.
_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
_STEPS = np.stack([_LUMA_STEPS, _CHROMA_STEPS, _CHROMA_STEPS], axis=-1).astype(np.float32)
_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
_FROM_YCC = np.linalg.inv(_TO_YCC.astype(np.float64)).astype(np.float32)
_COSINES = np.array(
    [
        [
            math.sqrt((2 if u else 1) / 8) * math.cos((2 * x + 1) * u * math.pi / 16)
            for x in range(8)
        ]
        for u in range(8)
    ],
    np.float32,
)


def _per_photo(argument: Any) -> Any:
    """(n,) as (n, 1, 1, 1), to broadcast with images."""
    return argument[:, None, None, None]


def _compiled(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Compile the function on its first call, so that importing it does not load Keras."""

    @functools.wraps(function)
    def call(x: Any, argument: Any) -> Any:
        return compile_on_jax(function)(x, argument)

    return call


@_compiled
def autocontrast(x: Any, chosen: Any) -> Any:
    """Stretch each color of the chosen photos from 0 to 255."""
    ops = keras().ops
    low, high = (f(x, axis=(1, 2), keepdims=True) for f in (ops.min, ops.max))
    stretched = (x - low) * (255 / ops.maximum(high - low, 1e-3))
    return ops.where((_per_photo(chosen) > 0.5) & (high > low), stretched, x)


@_compiled
def equalize(x: Any, chosen: Any) -> Any:
    """Equalize the histogram of each color of the chosen photos, as Pillow does."""
    ops = keras().ops
    shape = ops.shape(x)
    n = shape[0]
    is_number = ops.equal(x, x)  # not NaN
    levels = ops.cast(ops.clip(ops.round(ops.where(is_number, x, 0.0)), 0, 255), "int32")
    row = 768 * ops.reshape(ops.arange(n, dtype="int32"), (-1, 1, 1, 1))
    ids = ops.reshape(
        row + 256 * ops.reshape(ops.arange(3, dtype="int32"), (1, 1, 1, 3)) + levels, (-1,)
    )
    ones = ops.ones_like(ids, dtype="float32")
    counts = ops.reshape(ops.segment_sum(ones, ids, num_segments=n * 768), (-1, 3, 256))
    brightest = ops.max(levels, axis=(1, 2))[..., None]
    last = ops.sum(ops.where(ops.arange(256) == brightest, counts, 0.0), axis=2, keepdims=True)
    step = ops.floor((ops.sum(counts, axis=2, keepdims=True) - last) / 255)
    below = ops.cumsum(counts, axis=2) - counts
    table = ops.floor((ops.floor(step / 2) + below) / ops.maximum(step, 1.0))
    table = ops.where(step > 0, ops.minimum(table, 255.0), ops.arange(256, dtype="float32"))
    equal = ops.reshape(ops.take(ops.reshape(table, (-1,)), ids, axis=0), shape)
    return ops.where((_per_photo(chosen) > 0.5) & is_number, equal, x)


@_compiled
def solarize(x: Any, fraction: Any) -> Any:
    """Invert the brightest values: those from 256 · (1 - fraction) up."""
    return keras().ops.where(x >= 256 * (1 - _per_photo(fraction)), 255 - x, x)


@_compiled
def posterize(x: Any, bits: Any) -> Any:
    """Drop this many low bits."""
    ops = keras().ops
    steps = ops.convert_to_tensor(2.0 ** np.arange(8, dtype=np.float32))
    step = _per_photo(ops.take(steps, ops.cast(ops.round(bits), "int32"), axis=0))
    return ops.where(step > 1, ops.floor(x / step) * step, x)


@_compiled
def sharpness(x: Any, fraction: Any) -> Any:
    """Move away from a smoothed copy, or toward it where negative."""
    ops = keras().ops
    h, w = x.shape[1:3]
    padded = _pad_edges(_pad_edges(x, 1, 1), 1, 2)
    smooth = sum(
        padded[:, i : i + h, j : j + w] * (_SMOOTH[i][j] / 13) for i in range(3) for j in range(3)
    )
    sharp = ops.clip(x + _per_photo(fraction) * (x - smooth), 0, 255)
    return ops.where(_per_photo(fraction) == 0, x, sharp)


def blur(x: Any, kernel: Any) -> Any:
    """Convolve rows, then columns, with an (n, 2 r + 1) kernel; the edge is repeated outside."""
    # Two programs: in a single one, XLA would repeat the first pass for each tap of the second.
    convolve = compile_on_jax(_blur_axis, "axis")
    return convolve(convolve(x, kernel, axis=1), kernel, axis=2)


def _blur_axis(x: Any, kernel: Any, *, axis: int) -> Any:
    radius, n = kernel.shape[1] // 2, x.shape[axis]
    padded = _pad_edges(x, radius, axis)
    shifts = [slice(k, k + n) for k in range(2 * radius + 1)]
    parts = [padded[:, shift] if axis == 1 else padded[:, :, shift] for shift in shifts]
    blurred = sum(part * _per_photo(kernel[:, k]) for k, part in enumerate(parts))
    return keras().ops.where(_per_photo(kernel[:, radius]) == 1, x, blurred)


@_compiled
def noise(x: Any, deviation_and_seed: Any) -> Any:
    """Add noise that is close to normal: the sum of four bytes of a hash of seed and position.

    The constants of the hash are those of "lowbias32", C. Wellons (2018).
    """
    ops = keras().ops
    h, w = x.shape[1:3]
    position = ops.reshape(ops.arange(h * w * 3, dtype="int32"), (1, h, w, 3))
    seed = ops.cast(ops.floor(_per_photo(deviation_and_seed[:, 1]) * 2.0**24), "int32")
    bits = (position + seed * np.int32(0x9E3779B1 - 2**32)) * np.int32(0x85EBCA6B - 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1)):
        down = ops.bitwise_and(ops.right_shift(bits, shift), 2 ** (32 - shift) - 1)
        bits = ops.bitwise_xor(bits, down) * np.int32(factor)
    total = sum(
        ops.cast(ops.bitwise_and(ops.right_shift(bits, shift), 255), "float32")
        for shift in (0, 8, 16, 24)
    )
    deviation = math.sqrt(4 * (256**2 - 1) / 12)
    noisy = ops.clip(x + _per_photo(deviation_and_seed[:, 0]) * ((total - 510) / deviation), 0, 255)
    return ops.where(_per_photo(deviation_and_seed[:, 0]) == 0, x, noisy)


@_compiled
def jpeg_blocks(x: Any, multiple: Any) -> Any:
    """Quantize the cosine coefficients of 8×8 blocks, as JPEG does without chroma subsampling.

    A multiple of 1 corresponds to quality 50, 2 to quality 25, 5 to quality 10.
    """
    ops = keras().ops
    h, w = x.shape[1:3]
    high, wide = -(-h // 8), -(-w // 8)
    padded = x
    for axis, missing in ((1, high * 8 - h), (2, wide * 8 - w)):
        edge = padded[:, -1:] if axis == 1 else padded[:, :, -1:]
        padded = ops.concatenate([padded, ops.repeat(edge, missing, axis=axis)], axis)
    center = ops.convert_to_tensor(np.array([128, 0, 0], np.float32))
    ycc = ops.matmul(padded, ops.convert_to_tensor(_TO_YCC.T)) - center
    tiles = ops.reshape(ycc, (-1, high, 8, wide, 8, 3))
    cosines = ops.convert_to_tensor(_COSINES)
    coefficients = ops.einsum("nhawbc,ua,vb->nhuwvc", tiles, cosines, cosines)
    steps = ops.convert_to_tensor(_STEPS)[None, None, :, None]
    steps = ops.clip(ops.floor(steps * multiple[:, None, None, None, None, None] + 0.5), 1, 255)
    coefficients = ops.round(coefficients / steps) * steps
    tiles = ops.einsum("nhuwvc,ua,vb->nhawbc", coefficients, cosines, cosines)
    ycc = ops.reshape(tiles, (-1, high * 8, wide * 8, 3)) + center
    back = ops.clip(ops.matmul(ycc, ops.convert_to_tensor(_FROM_YCC.T)), 0, 255)[:, :h, :w]
    return ops.where(_per_photo(multiple) == 0, x, back)


@_compiled
def erase(x: Any, box: Any) -> Any:
    """Set pixels whose centers lie in the box to mid-gray.

    The box is left, top, right and bottom, as fractions.
    """
    ops = keras().ops
    h, w = x.shape[1:3]
    y = ops.reshape((ops.arange(h, dtype="float32") + 0.5) / h, (1, -1, 1, 1))
    x_ = ops.reshape((ops.arange(w, dtype="float32") + 0.5) / w, (1, 1, -1, 1))
    left, top, right, bottom = (_per_photo(box[:, k]) for k in range(4))
    return ops.where((x_ >= left) & (x_ < right) & (y >= top) & (y < bottom), _MID_GRAY, x)


def _pad_edges(x: Any, radius: int, axis: int) -> Any:
    """Repeat the border `radius` times on both sides of an axis."""
    ops = keras().ops
    first, last = (x[:, :1], x[:, -1:]) if axis == 1 else (x[:, :, :1], x[:, :, -1:])
    repeated = [ops.repeat(edge, radius, axis=axis) for edge in (first, last)]
    return ops.concatenate([repeated[0], x, repeated[1]], axis)


FILTERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        autocontrast, equalize, solarize, posterize, sharpness, blur, noise, jpeg_blocks, erase,
    )
}  # fmt: skip
"""The filters by name, in the order in which they are applied."""
