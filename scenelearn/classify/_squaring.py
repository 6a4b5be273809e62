"""The cutting and resampling of `data.square`, as a layer: the same pixels from any runtime."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras
from scenelearn.data import RESAMPLER

_REDUCING_GAP = 4  # as in the room of photos, which reduces large ones by averaging first
_MOST_BITS = 22
_WEIGHT_BITS = 15  # of the resizer's weights, sign included


def squaring(side_px: int, resampler: str = RESAMPLER) -> Any:
    """A Keras layer from images of any size to what `data.square` makes of them.

    It computes as the room of photos does, step by step: large images averaged over whole blocks
    of pixels; then columns and after them rows (Pillow: rows first) weighed by Catmull and Rom's
    cubic, with weights that are whole multiples of a power of two, and rounded after each. Nearly
    always each value is the same; now and then one of thousands is a level off.

    Args:
        side_px: width and height of the result, in pixels.
        resampler: "cykooz" or "pillow", whose rounding it follows.

    Returns:
        A layer from (batch, height, width, 3) uint8 to (batch, side_px, side_px, 3) float32 of
        whole values 0-255. Images of a batch have one size.
    """
    k = keras()
    ops = k.ops

    class Squaring(k.layers.Layer):  # type: ignore[misc, name-defined]  # Keras has none
        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return (shape[0], side_px, side_px, 3)

        def call(self, images: Any) -> Any:
            height, width = ops.shape(images)[1], ops.shape(images)[2]
            side = ops.minimum(height, width)
            block = ops.maximum(1, side // (_REDUCING_GAP * side_px))
            odd = (height - side) % 2, (width - side) % 2  # half a pixel is cut off on each side
            x = _averaged(images, side, block, odd)
            for axis in (1, 2) if resampler == "cykooz" else (2, 1):
                n = ops.shape(x)[axis]
                i, j = _numbers(n)[None], _numbers(side_px)[:, None]
                distance = (2 * i + 1) * (block * side_px) - (2 * j + 1) * side
                distance = distance - odd[axis - 1] * side_px
                reach = 2 * ops.maximum(side, block * side_px)
                weights, unit = _weights(distance, reach, resampler)
                if axis == 1:
                    x = ops.reshape(x, (-1, n, ops.shape(x)[2] * 3))
                    x = ops.reshape(ops.matmul(weights, x), (-1, side_px, ops.shape(x)[2] // 3, 3))
                else:
                    x = ops.matmul(weights, x)
                x = ops.clip(ops.floor(x / unit + 0.5), 0, 255)
            return x

    return Squaring(name="square")


def _averaged(images: Any, side: Any, block: Any, odd: tuple[Any, Any]) -> Any:
    """The central part, averaged over blocks: (batch, n_rows, n_columns, 3) float32.

    Pillow multiplies a sum by the rounded-down reciprocal of its number of pixels, in units of
    2**-24. Where that comes out below the quotient's next whole number, it is one less.
    """
    ops = keras().ops
    n_rows, n_columns = side + odd[0], side + odd[1]
    top = (ops.shape(images)[1] - n_rows) // 2
    left = (ops.shape(images)[2] - n_columns) // 2
    part = ops.cast(images[:, top : top + n_rows, left : left + n_columns], "float32")
    below, right = (block - n_rows % block) % block, (block - n_columns % block) % block
    down, across = (n_rows + below) // block, (n_columns + right) // block

    def sums(x: Any) -> Any:
        x = ops.pad(x, [[0, 0], [0, below], [0, right], [0, 0]])
        x = ops.sum(ops.reshape(x, (-1, block, across * block * 3)), axis=1)
        x = ops.sum(ops.reshape(x, (-1, block, 3)), axis=1)
        return ops.cast(ops.reshape(x, (-1, down, across, 3)), "int32")

    n_pixels = sums(ops.ones_like(part))
    total = sums(part) + n_pixels // 2
    quotient = total // n_pixels
    rest = ops.cast(total - quotient * n_pixels, "float32")
    lost = ops.cast(2**24 - n_pixels * (2**24 // n_pixels), "float32")
    less = rest < ops.cast(total, "float32") * lost / 2.0**24
    return ops.cast(quotient, "float32") - ops.cast(less, "float32")


def _numbers(n: Any) -> Any:
    return keras().ops.arange(n, dtype="int32")


def _weights(distance: Any, reach: Any, resampler: str) -> tuple[Any, Any]:
    """What each pixel counts for each result, in whole units, and the unit.

    Args:
        distance: (side_px, n) int32, between the centers of both, times `reach`.
        reach: of half the cubic's width, as a whole number.
        resampler: whose units; Pillow's are finer.
    """
    ops = keras().ops
    d = ops.abs(ops.cast(distance, "float64")) / ops.cast(reach, "float64")
    near, far = ((1.5 * d - 2.5) * d) * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    cubic = ops.where(d < 1, near, ops.where(d < 2, far, ops.zeros_like(d)))
    cubic = cubic / ops.sum(cubic, axis=1, keepdims=True)
    powers = ops.convert_to_tensor([2.0**bits for bits in range(_MOST_BITS + 1)], "float64")
    bits = _WEIGHT_BITS if resampler == "cykooz" else _MOST_BITS + 1
    fits = ops.max(cubic) * powers + 0.5 < 2**bits
    unit = ops.max(ops.where(fits, powers, ops.ones_like(powers)))
    return ops.cast(ops.floor(cubic * unit + 0.5), "float32"), ops.cast(unit, "float32")
