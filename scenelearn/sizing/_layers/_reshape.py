"""Layers that move values: flatten, pad, crop, repeat, resize."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from scenelearn.errors import ArgumentError

from ._checks import pairs, per_axis, positive, rank
from ._layer import Layer, Shape


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """Each sample as one vector; see `keras.layers.Flatten`.

    Examples:
        >>> Flatten().output_shape((8, 5, 5, 4))
        (8, 100)
    """

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((inputs[0][0], math.prod(inputs[0][1:])),)


@dataclass(frozen=True, slots=True)
class Reshape(Layer):
    """The same values under another shape; see `keras.layers.Reshape`.

    Raises:
        ArgumentError: The shape holds another number of values.

    Examples:
        >>> Reshape((-1, 4)).output_shape((8, 5, 5, 4))
        (8, 25, 4)
    """

    target_shape: tuple[int, ...]

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        size = math.prod(inputs[0][1:])
        known = math.prod(one for one in self.target_shape if one != -1)
        open_axes = [one for one in self.target_shape if one == -1]
        if len(open_axes) > 1 or (size % known if open_axes else size != known):
            raise ArgumentError(
                f"Reshape cannot turn {inputs[0][1:]} ({size} values) into {self.target_shape}."
            )
        return ((inputs[0][0], *(size // known if s == -1 else s for s in self.target_shape)),)


@dataclass(frozen=True, slots=True)
class Permute(Layer):
    """The axes in another order, the first being 1; see `keras.layers.Permute`.

    Raises:
        ArgumentError: `dims` is not an order of the axes.

    Examples:
        >>> Permute((2, 1)).output_shape((8, 5, 4))
        (8, 4, 5)
    """

    dims: tuple[int, ...]

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        if sorted(self.dims) != list(range(1, len(inputs[0]))):
            raise ArgumentError(
                f"`dims` must name each axis but the batch once. Received: dims={self.dims} for "
                f"shape {inputs[0]}."
            )
        return ((inputs[0][0], *(inputs[0][axis] for axis in self.dims)),)


@dataclass(frozen=True, slots=True)
class RepeatVector(Layer):
    """A vector n times: (batch, n, features); see `keras.layers.RepeatVector`.

    Raises:
        ArgumentError: `n` is not positive or the input is no vector.

    Examples:
        >>> RepeatVector(3).output_shape((8, 5))
        (8, 3, 5)
    """

    n: int

    def __post_init__(self) -> None:
        positive("n", self.n)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        rank("RepeatVector", inputs[0], 2)
        return ((inputs[0][0], self.n, inputs[0][1]),)


@dataclass(frozen=True, slots=True)
class _Padding(Layer):
    space: ClassVar[int] = 0

    padding: Any = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", pairs("padding", self.padding, self.space))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        shape = rank(type(self).__name__, inputs[0], self.space + 2)
        sizes = (n + sum(pad) for n, pad in zip(shape[1:-1], self.padding, strict=True))
        return ((shape[0], *sizes, shape[-1]),)


@dataclass(frozen=True, slots=True)
class _Cropping(Layer):
    space: ClassVar[int] = 0

    cropping: Any = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "cropping", pairs("cropping", self.cropping, self.space))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        shape = rank(type(self).__name__, inputs[0], self.space + 2)
        sizes = tuple(n - sum(crop) for n, crop in zip(shape[1:-1], self.cropping, strict=True))
        if min(sizes) < 1:
            raise ArgumentError(
                f"{type(self).__name__} leaves nothing of {shape}. Received: "
                f"cropping={self.cropping}."
            )
        return ((shape[0], *sizes, shape[-1]),)


@dataclass(frozen=True, slots=True)
class _UpSampling(Layer):
    space: ClassVar[int] = 0

    size: Any = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", per_axis("size", self.size, self.space))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        shape = rank(type(self).__name__, inputs[0], self.space + 2)
        sizes = (n * times for n, times in zip(shape[1:-1], self.size, strict=True))
        return ((shape[0], *sizes, shape[-1]),)


@dataclass(frozen=True, slots=True)
class Resizing(Layer):
    """Images of another size; see `keras.layers.Resizing`.

    Raises:
        ArgumentError: A size is not positive or the input is no batch of images.

    Examples:
        >>> Resizing(32, 48).output_shape((8, 100, 100, 3))
        (8, 32, 48, 3)
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        positive("height", self.height)
        positive("width", self.width)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        shape = rank("Resizing", inputs[0], 4)
        return ((shape[0], self.height, self.width, shape[-1]),)


@dataclass(frozen=True, slots=True)
class ZeroPadding1D(_Padding):
    """Zeros around each map; see `keras.layers.ZeroPadding1D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> ZeroPadding1D().output_shape((1, 6, 4))
        (1, 8, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ZeroPadding2D(_Padding):
    """Zeros around each map; see `keras.layers.ZeroPadding2D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> ZeroPadding2D().output_shape((1, 6, 8, 4))
        (1, 8, 10, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class ZeroPadding3D(_Padding):
    """Zeros around each map; see `keras.layers.ZeroPadding3D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> ZeroPadding3D().output_shape((1, 6, 8, 8, 4))
        (1, 8, 10, 10, 4)
    """

    space: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Cropping1D(_Cropping):
    """Each map without its edges; see `keras.layers.Cropping1D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> Cropping1D().output_shape((1, 6, 4))
        (1, 4, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Cropping2D(_Cropping):
    """Each map without its edges; see `keras.layers.Cropping2D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> Cropping2D().output_shape((1, 6, 8, 4))
        (1, 4, 6, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Cropping3D(_Cropping):
    """Each map without its edges; see `keras.layers.Cropping3D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> Cropping3D().output_shape((1, 6, 8, 8, 4))
        (1, 4, 6, 6, 4)
    """

    space: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class UpSampling1D(_UpSampling):
    """Each element several times; see `keras.layers.UpSampling1D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> UpSampling1D().output_shape((1, 6, 4))
        (1, 12, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class UpSampling2D(_UpSampling):
    """Each element several times; see `keras.layers.UpSampling2D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> UpSampling2D().output_shape((1, 6, 8, 4))
        (1, 12, 16, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class UpSampling3D(_UpSampling):
    """Each element several times; see `keras.layers.UpSampling3D`.

    Raises:
        ArgumentError: A number is out of range or the input has another number of axes.

    Examples:
        >>> UpSampling3D().output_shape((1, 6, 8, 8, 4))
        (1, 12, 16, 16, 4)
    """

    space: ClassVar[int] = 3
