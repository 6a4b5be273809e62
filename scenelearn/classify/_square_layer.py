"""The cropping and resampling of `data.to_square` as a layer: the same pixels in any runtime."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras
from scenelearn.data._convert import REDUCING_GAP, RESAMPLER

_MAX_BITS = 22  # of Pillow's weights
_WEIGHT_BITS = 15  # of cykooz-resizer's weights, including the sign


def square_layer(side_px: int, resampler: str = RESAMPLER) -> Any:
    """A Keras layer that crops and resizes images of any size like `data.to_square`.

    It follows that computation step by step. Large images are averaged over blocks of pixels. Then
    columns and rows (Pillow: rows and columns) are weighted by the Catmull-Rom cubic, with weights
    that are integer multiples of a power of two, and rounded after each. Nearly all values are
    identical; about one in thousands differs by one level.

    Args:
        side_px: width and height of the result, in pixels.
        resampler: "cykooz" or "pillow", whose rounding it follows.

    Returns:
        A layer from (batch, height, width, 3) uint8 to (batch, side_px, side_px, 3) float32 with
        integer values 0-255. All images of a batch have the same size.
    """
    k = keras()
    ops = k.ops

    class Square(k.layers.Layer):  # type: ignore[misc, name-defined]  # Keras has none
        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return (shape[0], side_px, side_px, 3)

        def call(self, images: Any) -> Any:
            height, width = ops.shape(images)[1], ops.shape(images)[2]
            side = ops.minimum(height, width)
            block = ops.maximum(1, side // (REDUCING_GAP * side_px))
            odd = (height - side) % 2, (width - side) % 2  # half a pixel is cropped on each side
            x = _average_blocks(images, side, block, odd)
            for axis in (1, 2) if resampler == "cykooz" else (2, 1):
                n = ops.shape(x)[axis]
                i = ops.arange(n, dtype="int32")[None]
                j = ops.arange(side_px, dtype="int32")[:, None]
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

    return Square(name="square")


def _average_blocks(images: Any, side: Any, block: Any, odd: tuple[Any, Any]) -> Any:
    """The central crop, averaged over blocks: (batch, n_rows, n_columns, 3) float32.

    Pillow multiplies a sum by the reciprocal of its number of pixels, rounded down to a multiple of
    2**-24. Where the product falls below the integer quotient, the result is one less.
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


def _weights(distance: Any, reach: Any, resampler: str) -> tuple[Any, Any]:
    """The weight of each input pixel for each output pixel, as integers, and their scale.

    Args:
        distance: (side_px, n) int32, between the centers of both, times `reach`.
        reach: an integer that corresponds to half the width of the cubic.
        resampler: whose scale to use; Pillow's is finer.
    """
    ops = keras().ops
    d = ops.abs(ops.cast(distance, "float64")) / ops.cast(reach, "float64")
    near, far = ((1.5 * d - 2.5) * d) * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    cubic = ops.where(d < 1, near, ops.where(d < 2, far, ops.zeros_like(d)))
    cubic = cubic / ops.sum(cubic, axis=1, keepdims=True)
    powers = ops.convert_to_tensor([2.0**bits for bits in range(_MAX_BITS + 1)], "float64")
    bits = _WEIGHT_BITS if resampler == "cykooz" else _MAX_BITS + 1
    fits = ops.max(cubic) * powers + 0.5 < 2**bits
    unit = ops.max(ops.where(fits, powers, ops.ones_like(powers)))
    return ops.cast(ops.floor(cubic * unit + 0.5), "float32"), ops.cast(unit, "float32")
