"""The resizing of `data.to_image` as a layer: the same pixels in any runtime."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras
from scenelearn.data._convert import REDUCING_GAP, RESAMPLER
from scenelearn.data._resize import Resize

_MAX_BITS = 22  # of Pillow's weights
_WEIGHT_BITS = 15  # of cykooz-resizer's weights, including the sign


def resize_layer(resize: Resize, resampler: str = RESAMPLER) -> Any:
    """A Keras layer that crops, pads or squashes images of any size like `data.to_image`.

    It follows that computation step by step. Large images are averaged over blocks of pixels. Then
    columns and rows (Pillow: rows and columns) are weighted by the Catmull-Rom cubic, with weights
    that are integer multiples of a power of two, and rounded after each. Nearly all values are
    identical; about one in thousands differs by one level. Padding has no weights, so it is black.

    Args:
        resize: how photos become images.
        resampler: "cykooz" or "pillow", whose rounding it follows.

    Returns:
        A layer from (batch, height, width, 3) uint8 to images of one size, float32 with integer
        values 0-255. All images of a batch have the same size.
    """
    k = keras()
    ops = k.ops
    target = (resize.height, resize.width)

    class ResizePhotos(k.layers.Layer):  # type: ignore[misc, name-defined]  # Keras has none
        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return (shape[0], *target, 3)

        def call(self, images: Any) -> Any:
            size = ops.shape(images)[1], ops.shape(images)[2]
            part = _largest_inside(size, target) if resize.shape == "crop" else size
            content = _largest_inside(target, size) if resize.shape == "pad" else target
            scales = [n // (REDUCING_GAP * m) for n, m in zip(part, content, strict=True)]
            block = ops.maximum(1, ops.minimum(*scales))
            # Half a pixel is cropped on each side where the rest is odd.
            odd = (size[0] - part[0]) % 2, (size[1] - part[1]) % 2
            x = _average_blocks(images, part, block, odd)
            for axis in (0, 1) if resampler == "cykooz" else (1, 0):
                n, m, n_new = part[axis], content[axis], target[axis]
                i = ops.arange(ops.shape(x)[axis + 1], dtype="int32")[None]
                j = ops.arange(n_new, dtype="int32")[:, None] - (n_new - m) // 2
                distance = (2 * i + 1) * (block * m) - (2 * j + 1) * n - odd[axis] * m
                reach = 2 * ops.maximum(n, block * m)
                inside = ops.logical_and(j >= 0, j < m)
                weights, unit = _weights(distance, reach, inside, resampler)
                if axis == 0:
                    n_columns = ops.shape(x)[2]
                    x = ops.reshape(x, (-1, ops.shape(x)[1], n_columns * 3))
                    x = ops.reshape(ops.matmul(weights, x), (-1, n_new, n_columns, 3))
                else:
                    x = ops.matmul(weights, x)
                x = ops.clip(ops.floor(x / unit + 0.5), 0, 255)
            return x

    return ResizePhotos(name="resize")


def _largest_inside(size: tuple[Any, Any], like: tuple[Any, Any]) -> tuple[Any, Any]:
    """As `_resize.largest_inside`, for tensors."""
    ops = keras().ops
    (height, width), (like_height, like_width) = size, like
    rows = (2 * width * like_height + like_width) // (2 * like_width)
    columns = (2 * height * like_width + like_height) // (2 * like_height)
    return ops.minimum(height, ops.maximum(1, rows)), ops.minimum(width, ops.maximum(1, columns))


def _average_blocks(images: Any, part: tuple[Any, Any], block: Any, odd: tuple[Any, Any]) -> Any:
    """The central part, averaged over blocks: (batch, n_rows, n_columns, 3) float32.

    Pillow multiplies a sum by the reciprocal of its number of pixels, rounded down to a multiple of
    2**-24. Where the product falls below the integer quotient, the result is one less.
    """
    ops = keras().ops
    n_rows, n_columns = part[0] + odd[0], part[1] + odd[1]
    top = (ops.shape(images)[1] - n_rows) // 2
    left = (ops.shape(images)[2] - n_columns) // 2
    central = ops.cast(images[:, top : top + n_rows, left : left + n_columns], "float32")
    below, right = (block - n_rows % block) % block, (block - n_columns % block) % block
    down, across = (n_rows + below) // block, (n_columns + right) // block

    def sums(x: Any) -> Any:
        x = ops.pad(x, [[0, 0], [0, below], [0, right], [0, 0]])
        x = ops.sum(ops.reshape(x, (-1, block, across * block * 3)), axis=1)
        x = ops.sum(ops.reshape(x, (-1, block, 3)), axis=1)
        return ops.cast(ops.reshape(x, (-1, down, across, 3)), "int32")

    n_pixels = sums(ops.ones_like(central))
    total = sums(central) + n_pixels // 2
    quotient = total // n_pixels
    rest = ops.cast(total - quotient * n_pixels, "float32")
    lost = ops.cast(2**24 - n_pixels * (2**24 // n_pixels), "float32")
    less = rest < ops.cast(total, "float32") * lost / 2.0**24
    return ops.cast(quotient, "float32") - ops.cast(less, "float32")


def _weights(distance: Any, reach: Any, inside: Any, resampler: str) -> tuple[Any, Any]:
    """The weight of each input pixel for each output pixel, as integers, and their scale.

    Args:
        distance: (n_new, n) int32, between the centers of both, times `reach`.
        reach: an integer that corresponds to half the width of the cubic.
        inside: (n_new, 1), False for output pixels of the padding, which have no weights.
        resampler: whose scale to use; Pillow's is finer.
    """
    ops = keras().ops
    d = ops.abs(ops.cast(distance, "float64")) / ops.cast(reach, "float64")
    near, far = ((1.5 * d - 2.5) * d) * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    cubic = ops.where(d < 1, near, ops.where(d < 2, far, ops.zeros_like(d)))
    cubic = ops.where(inside, cubic, ops.zeros_like(d))
    total = ops.sum(cubic, axis=1, keepdims=True)
    cubic = cubic / ops.where(inside, total, ops.ones_like(total))
    powers = ops.convert_to_tensor([2.0**bits for bits in range(_MAX_BITS + 1)], "float64")
    bits = _WEIGHT_BITS if resampler == "cykooz" else _MAX_BITS + 1
    fits = ops.max(cubic) * powers + 0.5 < 2**bits
    unit = ops.max(ops.where(fits, powers, ops.ones_like(powers)))
    return ops.cast(ops.floor(cubic * unit + 0.5), "float32"), ops.cast(unit, "float32")
