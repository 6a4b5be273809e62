"""Apply what was drawn: one look-up for all geometry, one matrix for all color, then the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scenelearn._backend import keras
from scenelearn.augment import _geometry as geometry
from scenelearn.augment._draw import Draws
from scenelearn.augment._geometry import compiled
from scenelearn.augment._others import others
from scenelearn.errors import ArgumentError

_TOLERATED = 0.25  # up to 1.25 times smaller, a look-up of four pixels is close enough to a mean
FLOATS = ("float16", "bfloat16", "float32", "float64")


def apply(images: Any, draws: Draws, *, image_px: int | tuple[int, int] | None = None) -> Any:
    """Vary a batch of images as drawn.

    All geometry is one bilinear look-up straight to the new size; where that is smaller, or the
    draws zoom out, the mean of several look-ups for each pixel. Then color as one matrix, then
    the operations that fit into neither, in the order of `OPERATIONS`. What was not asked for
    costs nothing.

    Only `keras.ops` are used, so that a gradient can pass and a compiled model can hold it; called
    from outside of one, on JAX it runs as a few compiled programs, the same for all batches of a
    size.

    Args:
        images: (n, height, width, 3), uint8, or floats in 0 to 255. Values that are not finite
            stay where they are, or spread to pixels that are made of them.
        draws: from `draw`, one for each image.
        image_px: height and width of the new images, in pixels, or one number for both; None for
            those of the old.

    Returns:
        (n, height, width, 3), a tensor of the backend, of the same dtype as `images`; float64 as
        float32.

    Raises:
        ArgumentError: if the shapes do not fit together, the dtype is another, or `image_px` is
            out of range.
        BackendError: if no backend of Keras is installed.

    Example:
        >>> import numpy as np
        >>> from scenelearn import augment
        >>> image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
        >>> mirrored = np.asarray(apply(image, augment.exactly(1, mirror=1)))
        >>> bool((mirrored == image[:, :, ::-1]).all())
        True
    """
    size = _check(images, draws, image_px)
    return run(images, draws.arguments, size=size, fill=draws.fill, shrunk=draws.shrunk)


def run(
    images: Any,
    arguments: Mapping[str, Any],
    *,
    size: tuple[int, int],
    fill: str | tuple[float, float, float],
    shrunk: float,
) -> Any:
    """What `apply` does, once everything is checked; `arguments` may be tensors."""
    ops = keras().ops
    images = ops.convert_to_tensor(images)
    arguments = {name: ops.convert_to_tensor(value) for name, value in arguments.items()}
    dtype = keras().backend.standardize_dtype(images.dtype)
    whole = dtype == "uint8"
    if not whole:
        images = ops.cast(images, "float32")
    source = int(images.shape[1]), int(images.shape[2])
    color = arguments.get("color")
    if images.shape[0] == 0:
        images = ops.zeros((0, *size, 3), images.dtype)
    elif "place" in arguments or size != source:
        images = _looked_up(images, arguments, source, size, fill=fill, shrunk=shrunk)
    elif color is not None:
        images = compiled(_colored, "whole")(images, color, whole=whole)
    further = {name: value for name, value in arguments.items() if name in others}
    if further and images.shape[0] != 0:
        images = _further(images, further, whole)
    return images if whole else ops.cast(images, "float32" if dtype == "float64" else dtype)


def _looked_up(
    images: Any,
    arguments: Mapping[str, Any],
    source: tuple[int, int],
    size: tuple[int, int],
    *,
    fill: str | tuple[float, float, float],
    shrunk: float,
) -> Any:
    ops = keras().ops
    n, whole = ops.shape(images)[0], keras().backend.standardize_dtype(images.dtype) == "uint8"
    turn = arguments["turn"] if "turn" in arguments else ops.eye(2, 2)[None]
    place = arguments["place"] if "place" in arguments else ops.eye(2, 3)[None]
    color = arguments.get("color")
    packs = whole and keras().backend.backend() == "jax"
    pixels = compiled(geometry.packed)(images) if packs else ops.reshape(images, (-1, 3))
    find = compiled(geometry.places, "n", "source", "target", "fill")
    parts = [
        max(1, math.ceil(shrunk * old / new - _TOLERATED))
        for old, new in zip(source, size, strict=True)
    ]
    given: dict[str, Any] = {"source": source, "fill": fill}

    def where(row: int, column: int) -> Any:
        offset = [(k + 0.5) / of - 0.5 for k, of in zip((row, column), parts, strict=True)]
        return find(turn, place, ops.array(offset, "float32"), n=n, target=size, **given)

    if parts == [1, 1]:
        look = compiled(geometry.looked_up, "source", "fill", "whole")
        found = look(pixels, where(0, 0), color, **given, whole=whole)
    else:
        total = compiled(geometry.colors_at, "source", "fill")(pixels, where(0, 0), **given)
        add = compiled(geometry.added_up, "source", "fill")
        for k in range(1, math.prod(parts)):
            total = add(total, pixels, where(*divmod(k, parts[1])), **given)
        found = compiled(_mean, "n", "whole")(total, color, n=math.prod(parts), whole=whole)
    return compiled(geometry.unpacked)(found) if packs else found


def _mean(planes: list[Any], color: Any, *, n: int, whole: bool) -> Any:
    return geometry.finished([plane / n for plane in planes], color, whole)


def _colored(images: Any, color: Any, *, whole: bool) -> Any:
    return geometry.finished([keras().ops.cast(images, "float32")], color, whole)


def _further(images: Any, given: Mapping[str, Any], whole: bool) -> Any:
    """The operations of kind "other" that were asked for, one after the other, a program each."""
    x = keras().ops.cast(images, "float32")
    for name, operation in others.items():
        if name in given:
            x = operation(x, given[name])
    return compiled(_rounded)(x) if whole else x


def _rounded(x: Any) -> Any:
    ops = keras().ops
    return ops.cast(ops.clip(ops.round(x), 0, 255), "uint8")


def check_images(images: Any, n: int) -> tuple[int, int]:
    """See that images are a batch of `n`; their height and width.

    Raises:
        ArgumentError: if they are not.
    """
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or shape[3] != 3 or shape[0] != n or 0 in shape[1:3]:
        raise ArgumentError(
            f"`images` must have the shape ({n}, height, width, 3), as many as were drawn for. "
            f"Received: {shape}. Draw with the indices of these images."
        )
    dtype = str(getattr(images.dtype, "name", images.dtype)).removeprefix("torch.")
    if dtype != "uint8" and dtype not in FLOATS:
        raise ArgumentError(
            f"`images` must be uint8, or floats in 0 to 255. Received: dtype {dtype}. "
            "Convert them, e.g. images.astype('float32')."
        )
    return int(shape[1]), int(shape[2])


def _check(images: Any, draws: Draws, image_px: int | tuple[int, int] | None) -> tuple[int, int]:
    """See that all fits together; the new height and width."""
    if not isinstance(draws, Draws):
        raise ArgumentError(
            f"`draws` must come from `draw`. Received: {type(draws).__name__}. "
            'Pass augment.draw("standard", seed, n).'
        )
    old = check_images(images, len(draws))
    if image_px is None:
        return old
    size = (image_px, image_px) if isinstance(image_px, int) else image_px
    right = isinstance(size, tuple) and len(size) == 2
    if not right or not all(type(side) is int and side >= 1 for side in size):
        raise ArgumentError(
            "`image_px` must be a whole number of at least 1, or a (height, width) of such. "
            f"Received: image_px={image_px!r}. Pass e.g. 160."
        )
    return size
