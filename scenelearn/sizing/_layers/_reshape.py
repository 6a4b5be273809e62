"""Layers that rearrange values: flatten, pad, crop, repeat, resize."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers._checks import (
    check_pairs,
    check_per_axis,
    check_positive,
    check_rank,
)
from scenelearn.sizing._layers._layer import Layer, Shape, SpatialLayer


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """One vector per sample; see `keras.layers.Flatten`.

    Examples:
        >>> Flatten().output_shape((8, 5, 5, 4))
        (8, 100)
    """

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((inputs[0][0], math.prod(inputs[0][1:])),)


@dataclass(frozen=True, slots=True)
class Reshape(Layer):
    """The same values in a different shape; see `keras.layers.Reshape`.

    Raises:
        ArgumentError: if the target shape holds a different number of values.

    Examples:
        >>> Reshape((-1, 4)).output_shape((8, 5, 5, 4))
        (8, 25, 4)
    """

    target_shape: tuple[int, ...]

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        size = math.prod(inputs[0][1:])
        known = math.prod(length for length in self.target_shape if length != -1)
        n_open = self.target_shape.count(-1)
        if n_open > 1 or (size % known if n_open else size != known):
            raise ArgumentError(
                f"Reshape cannot turn {inputs[0][1:]} ({size} values) into {self.target_shape}."
            )
        return ((inputs[0][0], *(size // known if s == -1 else s for s in self.target_shape)),)


@dataclass(frozen=True, slots=True)
class Permute(Layer):
    """The axes in a different order, counted from 1; see `keras.layers.Permute`.

    Raises:
        ArgumentError: if `dims` is not a permutation of the axes.

    Examples:
        >>> Permute((2, 1)).output_shape((8, 5, 4))
        (8, 4, 5)
    """

    dims: tuple[int, ...]

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        if sorted(self.dims) != list(range(1, len(inputs[0]))):
            raise ArgumentError(
                f"`dims` must name every axis except the batch axis once. Received: "
                f"dims={self.dims} for shape {inputs[0]}."
            )
        return ((inputs[0][0], *(inputs[0][axis] for axis in self.dims)),)


@dataclass(frozen=True, slots=True)
class RepeatVector(Layer):
    """A vector repeated n times, to (batch, n, features); see `keras.layers.RepeatVector`.

    Raises:
        ArgumentError: if `n` is not a positive integer, or the input has more than two axes.

    Examples:
        >>> RepeatVector(3).output_shape((8, 5))
        (8, 3, 5)
    """

    n: int

    def __post_init__(self) -> None:
        check_positive(self, "n")

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        check_rank("RepeatVector", inputs[0], 2)
        return ((inputs[0][0], self.n, inputs[0][1]),)


@dataclass(frozen=True, slots=True)
class _Padding(SpatialLayer):
    padding: Any = 1

    def __post_init__(self) -> None:
        check_pairs(self, "padding")

    def space_sizes(self, shape: Shape) -> Shape:
        return tuple(n + sum(pad) for n, pad in zip(shape[1:-1], self.padding, strict=True))


@dataclass(frozen=True, slots=True)
class _Cropping(SpatialLayer):
    cropping: Any = 1

    def __post_init__(self) -> None:
        check_pairs(self, "cropping")

    def space_sizes(self, shape: Shape) -> Shape:
        sizes = tuple(n - sum(crop) for n, crop in zip(shape[1:-1], self.cropping, strict=True))
        if min(sizes) < 1:
            raise ArgumentError(
                f"{type(self).__name__} must leave at least one element per axis. Received: "
                f"cropping={self.cropping} for shape {shape}."
            )
        return sizes


@dataclass(frozen=True, slots=True)
class _UpSampling(SpatialLayer):
    size: Any = 2

    def __post_init__(self) -> None:
        check_per_axis(self, "size")

    def space_sizes(self, shape: Shape) -> Shape:
        return tuple(n * factor for n, factor in zip(shape[1:-1], self.size, strict=True))


@dataclass(frozen=True, slots=True)
class Resizing(SpatialLayer):
    """Images resized to (height, width); see `keras.layers.Resizing`.

    Raises:
        ArgumentError: if a size is not a positive integer, or the input is not a batch of images.

    Examples:
        >>> Resizing(32, 48).output_shape((8, 100, 100, 3))
        (8, 32, 48, 3)
    """

    n_space_axes: ClassVar[int] = 2

    height: int
    width: int

    def __post_init__(self) -> None:
        check_positive(self, "height", "width")

    def space_sizes(self, shape: Shape) -> Shape:  # noqa: ARG002
        return (self.height, self.width)


class ZeroPadding1D(_Padding, n_space_axes=1):
    """Zeros around each feature map; see `keras.layers.ZeroPadding1D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> ZeroPadding1D().output_shape((1, 6, 4))
        (1, 8, 4)
    """


class ZeroPadding2D(_Padding, n_space_axes=2):
    """Zeros around each feature map; see `keras.layers.ZeroPadding2D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> ZeroPadding2D().output_shape((1, 6, 8, 4))
        (1, 8, 10, 4)
    """


class ZeroPadding3D(_Padding, n_space_axes=3):
    """Zeros around each feature map; see `keras.layers.ZeroPadding3D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> ZeroPadding3D().output_shape((1, 6, 8, 8, 4))
        (1, 8, 10, 10, 4)
    """


class Cropping1D(_Cropping, n_space_axes=1):
    """Each feature map without its borders; see `keras.layers.Cropping1D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> Cropping1D().output_shape((1, 6, 4))
        (1, 4, 4)
    """


class Cropping2D(_Cropping, n_space_axes=2):
    """Each feature map without its borders; see `keras.layers.Cropping2D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> Cropping2D().output_shape((1, 6, 8, 4))
        (1, 4, 6, 4)
    """


class Cropping3D(_Cropping, n_space_axes=3):
    """Each feature map without its borders; see `keras.layers.Cropping3D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> Cropping3D().output_shape((1, 6, 8, 8, 4))
        (1, 4, 6, 6, 4)
    """


class UpSampling1D(_UpSampling, n_space_axes=1):
    """Each element repeated along each axis; see `keras.layers.UpSampling1D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> UpSampling1D().output_shape((1, 6, 4))
        (1, 12, 4)
    """


class UpSampling2D(_UpSampling, n_space_axes=2):
    """Each element repeated along each axis; see `keras.layers.UpSampling2D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> UpSampling2D().output_shape((1, 6, 8, 4))
        (1, 12, 16, 4)
    """


class UpSampling3D(_UpSampling, n_space_axes=3):
    """Each element repeated along each axis; see `keras.layers.UpSampling3D`.

    Raises:
        ArgumentError: if an argument is out of range, or the input has the wrong number of axes.

    Examples:
        >>> UpSampling3D().output_shape((1, 6, 8, 8, 4))
        (1, 12, 16, 16, 4)
    """
