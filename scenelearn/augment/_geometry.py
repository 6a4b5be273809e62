"""All geometry as one look-up: where each pixel comes from, and what is read there.

Each function here is one program on JAX. They are programs apart because XLA, given them as one,
computes the places anew for each of the four pixels that are read and for each color.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from scenelearn._backend import keras

_LEAST_NEAR = 0.1  # perspective: a point that is ten times as near is near enough


@functools.cache
def compiled(function: Callable[..., Any], *static: str) -> Callable[..., Any]:
    """The function as one compiled program on JAX, as it is elsewhere.

    Args:
        function: of tensors, and of settings by name.
        *static: names of the settings.
    """
    if keras().backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function, static_argnames=static)


def packed(images: Any) -> Any:
    """Each pixel as one number, so that one look-up reads three colors: for JAX, and uint8.

    Args:
        images: (n, h, w, 3) uint8.

    Returns:
        (n · h · w,) int32.
    """
    ops = keras().ops
    return ops.reshape(ops.view(ops.pad(images, ((0, 0),) * 3 + ((0, 1),)), "int32"), (-1,))


def unpacked(pixels: Any) -> Any:
    """From (n, H, W) int32 to (n, H, W, 3) uint8."""
    ops = keras().ops
    return ops.view(pixels[..., None], "uint8")[..., :3]


def places(
    turn: Any,
    place: Any,
    offset: Any,
    n: Any,
    *,
    source: tuple[int, int],
    target: tuple[int, int],
    fill: str | tuple[float, float, float],
) -> dict[str, Any]:
    """Where each pixel of the new images comes from.

    Args:
        turn: (n or 1, 2, 2), see `arguments`.
        place: (n or 1, 2 or 3, 3), likewise.
        offset: (2,) within the pixel, down and right, from its middle.
        n: images.
        source: height and width of the old images.
        target: and of the new ones.
        fill: what lies outside.

    Returns:
        "first": (n, H, W) int32, the upper left one of the four pixels that are read, in the row of
        all pixels of all images; "right" and "down": float32, the weights of its neighbors in
        [0, 1]; and, if `fill` is a color, "inside": bool.
    """
    ops = keras().ops
    (h, w), (height, width) = source, target
    y = ops.reshape(ops.arange(height, dtype="float32") + (0.5 - height / 2), (1, -1, 1))
    x = ops.reshape(ops.arange(width, dtype="float32") + (0.5 - width / 2), (1, 1, -1))
    y, x = y + offset[0], x + offset[1]

    def line(row: int, across: float, down: float, middle: float) -> Any:
        """One row of the product of both matrices, in pixels, at each pixel."""
        a, b, c = (place[:, row, k, None, None] for k in range(3))
        (ta, tb), (tc, td) = ([turn[:, i, k, None, None] for k in range(2)] for i in range(2))
        a, b = a * across, b * down
        return (a * ta + b * tc) * x + ((a * tb + b * td) * y + c * middle)

    from_left = line(0, w / width, w / height, w / 2)
    from_top = line(1, h / width, h / height, h / 2)
    if place.shape[1] == 3:
        near = ops.maximum(line(2, 2 / width, 2 / height, 1.0), _LEAST_NEAR)
        from_left, from_top = from_left / near, from_top / near
    from_left, from_top = from_left + w / 2, from_top + h / 2

    found: dict[str, Any] = {}
    if not isinstance(fill, str):
        found["inside"] = (from_left >= 0) & (from_left <= w) & (from_top >= 0) & (from_top <= h)
    first_x, found["right"] = _neighbors(from_left, w, fill)
    first_y, found["down"] = _neighbors(from_top, h, fill)
    start = ops.reshape(ops.arange(n, dtype="int32") * (h * w), (-1, 1, 1))
    found["first"] = start + (first_y * w + first_x)
    return found


def _neighbors(at: Any, n: int, fill: str | tuple[float, float, float]) -> tuple[Any, Any]:
    """The pixel before a place on an axis of n pixels, and the weight of the one after it."""
    ops = keras().ops
    if fill == "reflect":  # once; further out lies the edge
        at = n - ops.abs(n - ops.abs(at))
    at = ops.clip(at - 0.5, 0, n - 1)
    first = ops.minimum(ops.floor(at), max(n - 2, 0))
    return ops.cast(first, "int32"), at - first


def colors_at(
    pixels: Any,
    where: dict[str, Any],
    *,
    source: tuple[int, int],
    fill: str | tuple[float, float, float],
) -> list[Any]:
    """What is read: four pixels each, by their weights.

    Args:
        pixels: (n · h · w,) int32 from `packed`; or (n · h · w, 3) uint8 or float.
        where: from `places`.
        source: height and width of the old images.
        fill: what lies outside.

    Returns:
        float32: of packed pixels red, green and blue, each (n, H, W); else one (n, H, W, 3).
    """
    ops = keras().ops
    h, w = source
    right, down, first = where["right"], where["down"], where["first"]
    step_x, step_y = int(w > 1), w * int(h > 1)
    weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    at = [first, first + step_x, first + step_y, first + (step_x + step_y)]
    read = [_taken(pixels, index) for index in at]
    if len(pixels.shape) == 1:
        shades = [[ops.bitwise_and(ops.right_shift(p, s), 255) for p in read] for s in (0, 8, 16)]
        planes = [_sum(of, weights) for of in shades]
    else:
        planes = [_sum(read, [weight[..., None] for weight in weights])]
    if isinstance(fill, str):
        return planes
    inside = where["inside"]
    if len(planes) == 1:
        return [ops.where(inside[..., None], planes[0], ops.array(fill, "float32"))]
    return [ops.where(inside, plane, shade) for plane, shade in zip(planes, fill, strict=True)]


def _taken(pixels: Any, index: Any) -> Any:
    if keras().backend.backend() == "jax":  # every index is within: no need to look
        return pixels.at[index].get(mode="promise_in_bounds")
    return keras().ops.take(pixels, index, axis=0)


def _sum(values: list[Any], weights: list[Any]) -> Any:
    ops = keras().ops
    parts = [ops.cast(v, "float32") * weight for v, weight in zip(values, weights, strict=True)]
    if "float" in keras().backend.standardize_dtype(values[0].dtype):
        # A pixel of no weight counts nothing even where it is not a number.
        parts = [ops.where(of == 0, 0.0, part) for part, of in zip(parts, weights, strict=True)]
    return parts[0] + parts[1] + (parts[2] + parts[3])


def finished(planes: list[Any], color: Any, whole: bool) -> Any:
    """Color, and back to pixels.

    Args:
        planes: from `colors_at`, in 0 to 255.
        color: (n, 3, 4), or None.
        whole: whether the result is whole numbers.

    Returns:
        (n, H, W, 3) uint8 or float32; of three planes (n, H, W) int32, for `unpacked`.
    """
    ops = keras().ops
    if len(planes) == 1:
        (x,) = planes
        if color is not None:
            mixed = ops.matmul(x, ops.transpose(color[:, None, :, :3], (0, 1, 3, 2)))
            x = ops.clip(mixed + color[:, None, None, :, 3], 0, 255)
        return ops.cast(ops.round(x), "uint8") if whole else x
    if color is not None:
        rows = [[color[:, i, k, None, None] for k in range(4)] for i in range(3)]
        r, g, b = planes
        planes = [ops.clip(a * r + c * g + d * b + e, 0, 255) for a, c, d, e in rows]
    red, green, blue = (ops.cast(ops.round(plane), "int32") for plane in planes)
    return red + green * 256 + blue * 65536


def looked_up(
    pixels: Any,
    where: dict[str, Any],
    color: Any,
    *,
    source: tuple[int, int],
    fill: str | tuple[float, float, float],
    whole: bool,
) -> Any:
    """`colors_at` and `finished` as one program."""
    return finished(colors_at(pixels, where, source=source, fill=fill), color, whole)


def added_up(
    total: list[Any],
    pixels: Any,
    where: dict[str, Any],
    *,
    source: tuple[int, int],
    fill: str | tuple[float, float, float],
) -> list[Any]:
    """`colors_at`, added to what was read before."""
    read = colors_at(pixels, where, source=source, fill=fill)
    return [a + b for a, b in zip(total, read, strict=True)]
