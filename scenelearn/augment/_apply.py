"""Application of parameters: one resampling for all geometry, one color matrix, then filters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scenelearn._backend import keras
from scenelearn._checks import check_image_px, image_size
from scenelearn.augment import _geometry as geometry
from scenelearn.augment._filters import FILTERS
from scenelearn.augment._geometry import compile_on_jax
from scenelearn.augment._sample import Parameters
from scenelearn.errors import ArgumentError

_TOLERANCE = 0.25  # bilinear interpolation is close enough to a mean down to 1/1.25 of the size
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def apply(
    images: Any, parameters: Parameters, *, image_px: int | tuple[int, int] | None = None
) -> Any:
    """Augment a batch of images.

    All geometry is a single bilinear resampling, straight to the new size. Where that shrinks the
    images, each new pixel is the mean of several samples. Color follows as one matrix, and then the
    filters; for their order see `OPERATIONS`. Operations that the parameters do not contain cost
    nothing.

    Uses `keras.ops` only, so that it is differentiable and can be part of a compiled model. Called
    outside of a model on JAX, it runs as a few compiled programs, the same for all batches of one
    size.

    Args:
        images: (n, height, width, 3), uint8, or floats in 0 to 255. NaN and infinity stay where
            they are, or spread to pixels computed from them.
        parameters: from `sample` or `fixed`, for n images.
        image_px: height and width of the new images in pixels, or one number for both; None to
            keep the size.

    Returns:
        (n, height, width, 3), a tensor of the backend, of the dtype of `images`; float32 for
        float64.

    Raises:
        ArgumentError: if the shapes do not match, the dtype is not supported, or `image_px` is out
            of range.
        BackendError: if no Keras backend is installed.

    Example:
        >>> import numpy as np
        >>> from scenelearn import augment
        >>> image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
        >>> flipped = np.asarray(apply(image, augment.fixed(1, horizontal_flip=1)))
        >>> bool((flipped == image[:, :, ::-1]).all())
        True
    """
    if not isinstance(parameters, Parameters):
        raise ArgumentError(
            "`parameters` must come from `sample` or `fixed`. Received: "
            f'{type(parameters).__name__}. Pass augment.sample("standard", seed, n).'
        )
    size = check_images(images, len(parameters))
    if image_px is not None:
        size = image_size(check_image_px(image_px))
    return apply_arguments(
        images,
        parameters.arguments,
        size=size,
        fill=parameters.fill,
        max_shrink=parameters.max_shrink,
    )


def apply_arguments(
    images: Any,
    arguments: Mapping[str, Any],
    *,
    size: tuple[int, int],
    fill: str | tuple[float, float, float],
    max_shrink: float,
) -> Any:
    """Do the work of `apply`, without checks; `arguments` may be tensors."""
    ops = keras().ops
    images = ops.convert_to_tensor(images)
    arguments = {name: ops.convert_to_tensor(value) for name, value in arguments.items()}
    dtype = keras().backend.standardize_dtype(images.dtype)
    is_uint8 = dtype == "uint8"
    if not is_uint8:
        images = ops.cast(images, "float32")
    source = int(images.shape[1]), int(images.shape[2])
    color = arguments.get("color")
    if images.shape[0] == 0:
        images = ops.zeros((0, *size, 3), images.dtype)
    elif "placement" in arguments or size != source:
        images = _resample(images, arguments, source, size, fill=fill, max_shrink=max_shrink)
    elif color is not None:
        images = compile_on_jax(_apply_color, "is_uint8")(images, color, is_uint8=is_uint8)
    filters = {name: value for name, value in arguments.items() if name in FILTERS}
    if filters and images.shape[0] != 0:
        images = _apply_filters(images, filters, is_uint8)
    return images if is_uint8 else ops.cast(images, "float32" if dtype == "float64" else dtype)


def _resample(
    images: Any,
    arguments: Mapping[str, Any],
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    fill: str | tuple[float, float, float],
    max_shrink: float,
) -> Any:
    ops = keras().ops
    n, is_uint8 = ops.shape(images)[0], keras().backend.standardize_dtype(images.dtype) == "uint8"
    linear = arguments["linear"] if "linear" in arguments else ops.eye(2, 2)[None]
    placement = arguments["placement"] if "placement" in arguments else ops.eye(2, 3)[None]
    color = arguments.get("color")
    is_packed = is_uint8 and keras().backend.backend() == "jax"
    pixels = compile_on_jax(geometry.pack)(images) if is_packed else ops.reshape(images, (-1, 3))
    locate = compile_on_jax(geometry.sample_positions, "n", "source", "target", "fill")
    n_samples = [
        max(1, math.ceil(max_shrink * old / new - _TOLERANCE))
        for old, new in zip(source, target, strict=True)
    ]
    options: dict[str, Any] = {"source": source, "fill": fill}

    def positions(row: int, column: int) -> Any:
        """Where one of the samples within each pixel is taken."""
        offset = [(k + 0.5) / m - 0.5 for k, m in zip((row, column), n_samples, strict=True)]
        return locate(
            linear, placement, ops.array(offset, "float32"), n=n, target=target, **options
        )

    if n_samples == [1, 1]:
        interpolate = compile_on_jax(geometry.interpolate_and_color, "source", "fill", "is_uint8")
        new = interpolate(pixels, positions(0, 0), color, **options, is_uint8=is_uint8)
    else:
        interpolate = compile_on_jax(geometry.interpolate, "source", "fill")
        total = interpolate(pixels, positions(0, 0), **options)
        add = compile_on_jax(geometry.interpolate_and_add, "source", "fill")
        for k in range(1, math.prod(n_samples)):
            total = add(total, pixels, positions(*divmod(k, n_samples[1])), **options)
        mean = compile_on_jax(_mean_and_color, "n", "is_uint8")
        new = mean(total, color, n=math.prod(n_samples), is_uint8=is_uint8)
    return compile_on_jax(geometry.unpack)(new) if is_packed else new


def _mean_and_color(planes: list[Any], color: Any, *, n: int, is_uint8: bool) -> Any:
    return geometry.finish([plane / n for plane in planes], color, is_uint8)


def _apply_color(images: Any, color: Any, *, is_uint8: bool) -> Any:
    return geometry.finish([keras().ops.cast(images, "float32")], color, is_uint8)


def _apply_filters(images: Any, arguments: Mapping[str, Any], is_uint8: bool) -> Any:
    """Apply the filters one after the other, each as a program of its own."""
    x = keras().ops.cast(images, "float32")
    for name, apply_filter in FILTERS.items():
        if name in arguments:
            x = apply_filter(x, arguments[name])
    return compile_on_jax(_round_to_uint8)(x) if is_uint8 else x


def _round_to_uint8(x: Any) -> Any:
    ops = keras().ops
    return ops.cast(ops.clip(ops.round(x), 0, 255), "uint8")


def check_images(images: Any, n: int) -> tuple[int, int]:
    """Check that `images` is a batch of `n` images, and return their height and width.

    Raises:
        ArgumentError: if it is something else.
    """
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or shape[3] != 3 or shape[0] != n or 0 in shape[1:3]:
        raise ArgumentError(
            f"`images` must have the shape ({n}, height, width, 3), since the parameters were "
            f"sampled for {n} images. Received: {shape}. Sample with the indices of these images."
        )
    dtype = str(getattr(images.dtype, "name", images.dtype)).removeprefix("torch.")
    if dtype != "uint8" and dtype not in _FLOATS:
        raise ArgumentError(
            f"`images` must be uint8, or floats in 0 to 255. Received: dtype {dtype}. "
            "Convert them, e.g. images.astype('float32')."
        )
    return int(shape[1]), int(shape[2])
