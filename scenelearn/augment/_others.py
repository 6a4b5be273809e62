"""The operations that fit into no matrix, each on (n, H, W, 3) float32 in 0 to 255.

Each takes the images and its (n, …) argument, and leaves a photo as it is, bit for bit, where its
strength is 0. Each is a program of its own on JAX, for the same reason as in `_geometry`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn.augment._geometry import compiled

_SMOOTH = ((1, 1, 1), (1, 5, 1), (1, 1, 1))  # over 13, as Pillow's ImageFilter.SMOOTH
_MID_GRAY = 127.5

# The quantization tables of ITU-T T.81, annex K: brightness, then color.
_BRIGHTNESS_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_COLOR_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *(((99,) * 8,) * 4),
)
_STEPS = np.stack([_BRIGHTNESS_STEPS, _COLOR_STEPS, _COLOR_STEPS], axis=-1).astype(np.float32)
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


def _each(argument: Any) -> Any:
    return argument[:, None, None, None]


def _program(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The function as a program, once Keras is loaded."""

    @functools.wraps(function)
    def call(x: Any, argument: Any) -> Any:
        return compiled(function)(x, argument)

    return call


@_program
def autocontrast(x: Any, chosen: Any) -> Any:
    """Each color's darkest value to 0 and brightest to 255, in the chosen photos."""
    ops = keras().ops
    low, high = (f(x, axis=(1, 2), keepdims=True) for f in (ops.min, ops.max))
    spread = (x - low) * (255 / ops.maximum(high - low, 1e-3))
    return ops.where((_each(chosen) > 0.5) & (high > low), spread, x)


@_program
def equalize(x: Any, chosen: Any) -> Any:
    """All values of each color about equally frequent, in the chosen photos; as Pillow does it."""
    ops = keras().ops
    shape = ops.shape(x)
    n = shape[0]
    number = ops.equal(x, x)
    levels = ops.cast(ops.clip(ops.round(ops.where(number, x, 0.0)), 0, 255), "int32")
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
    return ops.where((_each(chosen) > 0.5) & number, equal, x)


@_program
def solarize(x: Any, share: Any) -> Any:
    """The brightest values inverted: those from 256 · (1 - share) on."""
    return keras().ops.where(x >= 256 * (1 - _each(share)), 255 - x, x)


@_program
def posterize(x: Any, bits: Any) -> Any:
    """So many low bits dropped."""
    ops = keras().ops
    steps = ops.convert_to_tensor(2.0 ** np.arange(8, dtype=np.float32))
    step = _each(ops.take(steps, ops.cast(ops.round(bits), "int32"), axis=0))
    return ops.where(step > 1, ops.floor(x / step) * step, x)


@_program
def sharpness(x: Any, fraction: Any) -> Any:
    """Further from a smoothed copy, or nearer to it."""
    ops = keras().ops
    h, w = x.shape[1:3]
    padded = _wider(_wider(x, 1, 1), 1, 2)
    smooth = sum(
        padded[:, i : i + h, j : j + w] * (_SMOOTH[i][j] / 13) for i in range(3) for j in range(3)
    )
    sharp = ops.clip(x + _each(fraction) * (x - smooth), 0, 255)
    return ops.where(_each(fraction) == 0, x, sharp)


def blur(x: Any, kernel: Any) -> Any:
    """The mean over rows, then columns, by a (n, 2 r + 1) kernel; the edge goes on outside."""
    along = compiled(_blurred, "axis")  # twice: in one program the second would redo the first
    return along(along(x, kernel, axis=1), kernel, axis=2)


def _blurred(x: Any, kernel: Any, *, axis: int) -> Any:
    radius, n = kernel.shape[1] // 2, x.shape[axis]
    padded = _wider(x, radius, axis)
    shifts = [slice(k, k + n) for k in range(2 * radius + 1)]
    parts = [padded[:, shift] if axis == 1 else padded[:, :, shift] for shift in shifts]
    blurred = sum(part * _each(kernel[:, k]) for k, part in enumerate(parts))
    return keras().ops.where(_each(kernel[:, radius]) == 1, x, blurred)


@_program
def noise(x: Any, given: Any) -> Any:
    """About normal, of a standard deviation: the sum of four bytes of a hash of seed and place.

    The hash's constants are those of "lowbias32", C. Wellons (2018).
    """
    ops = keras().ops
    h, w = x.shape[1:3]
    place = ops.reshape(ops.arange(h * w * 3, dtype="int32"), (1, h, w, 3))
    seed = ops.cast(ops.floor(_each(given[:, 1]) * 2.0**24), "int32")
    bits = (place + seed * np.int32(0x9E3779B1 - 2**32)) * np.int32(0x85EBCA6B - 2**32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32), (16, 1)):
        down = ops.bitwise_and(ops.right_shift(bits, shift), 2 ** (32 - shift) - 1)
        bits = ops.bitwise_xor(bits, down) * np.int32(factor)
    total = sum(
        ops.cast(ops.bitwise_and(ops.right_shift(bits, shift), 255), "float32")
        for shift in (0, 8, 16, 24)
    )
    deviation = math.sqrt(4 * (256**2 - 1) / 12)
    noisy = ops.clip(x + _each(given[:, 0]) * ((total - 510) / deviation), 0, 255)
    return ops.where(_each(given[:, 0]) == 0, x, noisy)


@_program
def blocks(x: Any, multiple: Any) -> Any:
    """Blocks of 8×8 pixels, their cosine coefficients in steps, as a JPEG without subsampling.

    A multiple of 1 is quality 50, of 2 is quality 25, of 5 is quality 10.
    """
    ops = keras().ops
    h, w = x.shape[1:3]
    high, wide = -(-h // 8), -(-w // 8)
    padded = x
    for axis, more in ((1, high * 8 - h), (2, wide * 8 - w)):
        edge = padded[:, -1:] if axis == 1 else padded[:, :, -1:]
        padded = ops.concatenate([padded, ops.repeat(edge, more, axis=axis)], axis)
    middle = ops.convert_to_tensor(np.array([128, 0, 0], np.float32))
    ycc = ops.matmul(padded, ops.convert_to_tensor(_TO_YCC.T)) - middle
    tiles = ops.reshape(ycc, (-1, high, 8, wide, 8, 3))
    cosines = ops.convert_to_tensor(_COSINES)
    found = ops.einsum("nhawbc,ua,vb->nhuwvc", tiles, cosines, cosines)
    steps = ops.convert_to_tensor(_STEPS)[None, None, :, None]
    steps = ops.clip(ops.floor(steps * multiple[:, None, None, None, None, None] + 0.5), 1, 255)
    found = ops.round(found / steps) * steps
    tiles = ops.einsum("nhuwvc,ua,vb->nhawbc", found, cosines, cosines)
    ycc = ops.reshape(tiles, (-1, high * 8, wide * 8, 3)) + middle
    back = ops.clip(ops.matmul(ycc, ops.convert_to_tensor(_FROM_YCC.T)), 0, 255)[:, :h, :w]
    return ops.where(_each(multiple) == 0, x, back)


@_program
def erase(x: Any, box: Any) -> Any:
    """Mid-gray where a pixel's middle lies in the box: left, top, right, bottom, in shares."""
    ops = keras().ops
    h, w = x.shape[1:3]
    y = ops.reshape((ops.arange(h, dtype="float32") + 0.5) / h, (1, -1, 1, 1))
    x_ = ops.reshape((ops.arange(w, dtype="float32") + 0.5) / w, (1, 1, -1, 1))
    left, top, right, bottom = (_each(box[:, k]) for k in range(4))
    return ops.where((x_ >= left) & (x_ < right) & (y >= top) & (y < bottom), _MID_GRAY, x)


def _wider(x: Any, radius: int, axis: int) -> Any:
    """With its border repeated `radius` times on both sides of an axis."""
    ops = keras().ops
    first, last = (x[:, :1], x[:, -1:]) if axis == 1 else (x[:, :, :1], x[:, :, -1:])
    repeated = [ops.repeat(edge, radius, axis=axis) for edge in (first, last)]
    return ops.concatenate([repeated[0], x, repeated[1]], axis)


others: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        autocontrast, equalize, solarize, posterize, sharpness, blur, noise, blocks, erase,
    )
}  # fmt: skip
