"""All geometry as one resampling: where each pixel comes from, and bilinear interpolation there.

On JAX each function here is compiled as a separate program. As a single program, XLA would compute
the positions again for each of the four neighbors and for each color.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from scenelearn._backend import keras

_MIN_DEPTH = 0.1  # perspective: limits the magnification to a factor of ten


@functools.cache
def compile_on_jax(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """Compile a function on JAX; return it unchanged on other backends.

    Args:
        function: a function of tensors, and of settings passed by name.
        *static: the names of the settings.
    """
    if keras().backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function, static_argnames=static)


def pack(images: Any) -> Any:
    """Pack each pixel into one integer, so that a single gather reads three colors, on JAX.

    Args:
        images: (n, h, w, 3) uint8.

    Returns:
        (n · h · w,) int32.
    """
    ops = keras().ops
    return ops.reshape(ops.view(ops.pad(images, ((0, 0),) * 3 + ((0, 1),)), "int32"), (-1,))


def unpack(pixels: Any) -> Any:
    """Unpack (n, H, W) int32 to (n, H, W, 3) uint8."""
    ops = keras().ops
    return ops.view(pixels[..., None], "uint8")[..., :3]


def sample_positions(
    linear: Any,
    placement: Any,
    offset: Any,
    n: Any,
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    fill: str | tuple[float, float, float],
) -> dict[str, Any]:
    """Compute where each pixel of the new images comes from.

    Args:
        linear: (n or 1, 2, 2), see `compute_arguments`.
        placement: (n or 1, 2 or 3, 3), likewise.
        offset: (2,) down and right, the offset within the pixel, from its center.
        n: number of images.
        source: height and width of the old images.
        target: height and width of the new images.
        fill: how to fill the area outside the photo.

    Returns:
        "first": (n, H, W) int32, the index of the upper left one of the four neighbors among all
        pixels of all images; "right" and "down": float32 in [0, 1], the weights of the right and
        lower neighbors; and, if `fill` is a color, "inside": bool.
    """
    ops = keras().ops
    (h, w), (height, width) = source, target
    y = ops.reshape(ops.arange(height, dtype="float32") + (0.5 - height / 2), (1, -1, 1))
    x = ops.reshape(ops.arange(width, dtype="float32") + (0.5 - width / 2), (1, 1, -1))
    y, x = y + offset[0], x + offset[1]

    def transform_row(row: int, across: float, down: float, center: float) -> Any:
        """Apply one row of the product of both matrices to each pixel, in pixels."""
        a, b, c = (placement[:, row, k, None, None] for k in range(3))
        (ta, tb), (tc, td) = ([linear[:, i, k, None, None] for k in range(2)] for i in range(2))
        a, b = a * across, b * down
        return (a * ta + b * tc) * x + ((a * tb + b * td) * y + c * center)

    from_left = transform_row(0, w / width, w / height, w / 2)
    from_top = transform_row(1, h / width, h / height, h / 2)
    if placement.shape[1] == 3:
        depth = ops.maximum(transform_row(2, 2 / width, 2 / height, 1.0), _MIN_DEPTH)
        from_left, from_top = from_left / depth, from_top / depth
    from_left, from_top = from_left + w / 2, from_top + h / 2

    positions: dict[str, Any] = {}
    if not isinstance(fill, str):
        positions["inside"] = (
            (from_left >= 0) & (from_left <= w) & (from_top >= 0) & (from_top <= h)
        )
    first_x, positions["right"] = _neighbors(from_left, w, fill)
    first_y, positions["down"] = _neighbors(from_top, h, fill)
    start = ops.reshape(ops.arange(n, dtype="int32") * (h * w), (-1, 1, 1))
    positions["first"] = start + (first_y * w + first_x)
    return positions


def _neighbors(at: Any, n: int, fill: str | tuple[float, float, float]) -> tuple[Any, Any]:
    """The pixel before a position on an axis of n pixels, and the weight of the next pixel."""
    ops = keras().ops
    if fill == "reflect":  # once; the edge is repeated farther out
        at = n - ops.abs(n - ops.abs(at))
    at = ops.clip(at - 0.5, 0, n - 1)
    first = ops.minimum(ops.floor(at), max(n - 2, 0))
    return ops.cast(first, "int32"), at - first


def interpolate(
    pixels: Any,
    positions: dict[str, Any],
    *,
    source: tuple[int, int],
    fill: str | tuple[float, float, float],
) -> list[Any]:
    """Interpolate bilinearly between four neighbors.

    Args:
        pixels: (n · h · w,) int32 from `pack`; or (n · h · w, 3) uint8 or float.
        positions: from `sample_positions`.
        source: height and width of the old images.
        fill: how to fill the area outside the photo.

    Returns:
        float32 arrays: for packed pixels three (n, H, W) for red, green and blue; otherwise one
        (n, H, W, 3).
    """
    ops = keras().ops
    h, w = source
    right, down, first = positions["right"], positions["down"], positions["first"]
    step_x, step_y = int(w > 1), w * int(h > 1)
    weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    indices = [first, first + step_x, first + step_y, first + (step_x + step_y)]
    neighbors = [_gather(pixels, index) for index in indices]
    if len(pixels.shape) == 1:
        planes = [
            _weighted_sum(
                [ops.bitwise_and(ops.right_shift(p, shift), 255) for p in neighbors], weights
            )
            for shift in (0, 8, 16)
        ]
    else:
        planes = [_weighted_sum(neighbors, [weight[..., None] for weight in weights])]
    if isinstance(fill, str):
        return planes
    inside = positions["inside"]
    if len(planes) == 1:
        return [ops.where(inside[..., None], planes[0], ops.array(fill, "float32"))]
    return [ops.where(inside, plane, shade) for plane, shade in zip(planes, fill, strict=True)]


def _gather(pixels: Any, index: Any) -> Any:
    if keras().backend.backend() == "jax":  # every index is in bounds
        return pixels.at[index].get(mode="promise_in_bounds")
    return keras().ops.take(pixels, index, axis=0)


def _weighted_sum(values: list[Any], weights: list[Any]) -> Any:
    ops = keras().ops
    parts = [ops.cast(v, "float32") * weight for v, weight in zip(values, weights, strict=True)]
    if "float" in keras().backend.standardize_dtype(values[0].dtype):
        # A pixel of weight 0 must not contribute even if it is NaN.
        parts = [
            ops.where(weight == 0, 0.0, part) for part, weight in zip(parts, weights, strict=True)
        ]
    return parts[0] + parts[1] + (parts[2] + parts[3])


def finish(planes: list[Any], color: Any, is_uint8: bool) -> Any:
    """Apply the color matrix and convert planes back to pixels.

    Args:
        planes: from `interpolate`, in 0 to 255.
        color: (n, 3, 4), or None.
        is_uint8: whether to round to integers.

    Returns:
        (n, H, W, 3) uint8 or float32; for three planes (n, H, W) int32, see `unpack`.
    """
    ops = keras().ops
    if len(planes) == 1:
        (x,) = planes
        if color is not None:
            mixed = ops.matmul(x, ops.transpose(color[:, None, :, :3], (0, 1, 3, 2)))
            x = ops.clip(mixed + color[:, None, None, :, 3], 0, 255)
        return ops.cast(ops.round(x), "uint8") if is_uint8 else x
    if color is not None:
        rows = [[color[:, i, k, None, None] for k in range(4)] for i in range(3)]
        r, g, b = planes
        planes = [ops.clip(a * r + c * g + d * b + e, 0, 255) for a, c, d, e in rows]
    red, green, blue = (ops.cast(ops.round(plane), "int32") for plane in planes)
    return red + green * 256 + blue * 65536


def interpolate_and_color(
    pixels: Any,
    positions: dict[str, Any],
    color: Any,
    *,
    source: tuple[int, int],
    fill: str | tuple[float, float, float],
    is_uint8: bool,
) -> Any:
    """Run `interpolate` and `finish` as one program."""
    return finish(interpolate(pixels, positions, source=source, fill=fill), color, is_uint8)


def interpolate_and_add(
    total: list[Any],
    pixels: Any,
    positions: dict[str, Any],
    *,
    source: tuple[int, int],
    fill: str | tuple[float, float, float],
) -> list[Any]:
    """Run `interpolate` and add the result to `total`."""
    planes = interpolate(pixels, positions, source=source, fill=fill)
    return [a + b for a, b in zip(total, planes, strict=True)]
