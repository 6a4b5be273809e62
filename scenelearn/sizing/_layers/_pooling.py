"""Pooling: windows over a map, and the whole map at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scenelearn.sizing._arithmetic import output_length

from ._checks import one_of, per_axis, rank
from ._layer import Layer, Shape


@dataclass(frozen=True, slots=True)
class _Pooling(Layer):
    space: ClassVar[int] = 0

    pool_size: Any = 2
    strides: Any = None
    padding: str = "valid"

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool_size", per_axis("pool_size", self.pool_size, self.space))
        strides = self.pool_size if self.strides is None else self.strides
        object.__setattr__(self, "strides", per_axis("strides", strides, self.space))
        one_of("padding", self.padding, ("valid", "same"))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        rank(type(self).__name__, shape, self.space + 2)
        lengths = tuple(
            output_length(n, k, stride=s, padding=self.padding)
            for n, k, s in zip(shape[1:-1], self.pool_size, self.strides, strict=True)
        )
        return ((shape[0], *lengths, shape[-1]),)


@dataclass(frozen=True, slots=True)
class _GlobalPooling(Layer):
    space: ClassVar[int] = 0

    keepdims: bool = False

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        rank(type(self).__name__, shape, self.space + 2)
        middle = (1,) * self.space if self.keepdims else ()
        return ((shape[0], *middle, shape[-1]),)


@dataclass(frozen=True, slots=True)
class AveragePooling1D(_Pooling):
    """The mean of each window; see `keras.layers.AveragePooling1D`.

    Raises:
        ArgumentError: A size is not positive, the padding is unknown, or a "valid" window is
            larger than its input.

    Examples:
        >>> AveragePooling1D(2).output_shape((1, 20, 4))
        (1, 10, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class AveragePooling2D(_Pooling):
    """The mean of each window; see `keras.layers.AveragePooling2D`.

    Raises:
        ArgumentError: A size is not positive, the padding is unknown, or a "valid" window is
            larger than its input.

    Examples:
        >>> AveragePooling2D(2).output_shape((1, 20, 30, 4))
        (1, 10, 15, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class AveragePooling3D(_Pooling):
    """The mean of each window; see `keras.layers.AveragePooling3D`.

    Raises:
        ArgumentError: A size is not positive, the padding is unknown, or a "valid" window is
            larger than its input.

    Examples:
        >>> AveragePooling3D(2).output_shape((1, 4, 20, 30, 4))
        (1, 2, 10, 15, 4)
    """

    space: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class MaxPooling1D(_Pooling):
    """The maximum of each window; see `keras.layers.MaxPooling1D`.

    Raises:
        ArgumentError: A size is not positive, the padding is unknown, or a "valid" window is
            larger than its input.

    Examples:
        >>> MaxPooling1D(2).output_shape((1, 20, 4))
        (1, 10, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class MaxPooling2D(_Pooling):
    """The maximum of each window; see `keras.layers.MaxPooling2D`.

    Raises:
        ArgumentError: A size is not positive, the padding is unknown, or a "valid" window is
            larger than its input.

    Examples:
        >>> MaxPooling2D(2).output_shape((1, 20, 30, 4))
        (1, 10, 15, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class MaxPooling3D(_Pooling):
    """The maximum of each window; see `keras.layers.MaxPooling3D`.

    Raises:
        ArgumentError: A size is not positive, the padding is unknown, or a "valid" window is
            larger than its input.

    Examples:
        >>> MaxPooling3D(2).output_shape((1, 4, 20, 30, 4))
        (1, 2, 10, 15, 4)
    """

    space: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class GlobalAveragePooling1D(_GlobalPooling):
    """The mean of each channel's whole map; see `keras.layers.GlobalAveragePooling1D`.

    Raises:
        ArgumentError: The input has another number of axes.

    Examples:
        >>> GlobalAveragePooling1D().output_shape((1, 20, 4))
        (1, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each channel's whole map; see `keras.layers.GlobalAveragePooling2D`.

    Raises:
        ArgumentError: The input has another number of axes.

    Examples:
        >>> GlobalAveragePooling2D().output_shape((1, 20, 30, 4))
        (1, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class GlobalAveragePooling3D(_GlobalPooling):
    """The mean of each channel's whole map; see `keras.layers.GlobalAveragePooling3D`.

    Raises:
        ArgumentError: The input has another number of axes.

    Examples:
        >>> GlobalAveragePooling3D().output_shape((1, 4, 20, 30, 4))
        (1, 4)
    """

    space: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class GlobalMaxPooling1D(_GlobalPooling):
    """The maximum of each channel's whole map; see `keras.layers.GlobalMaxPooling1D`.

    Raises:
        ArgumentError: The input has another number of axes.

    Examples:
        >>> GlobalMaxPooling1D().output_shape((1, 20, 4))
        (1, 4)
    """

    space: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class GlobalMaxPooling2D(_GlobalPooling):
    """The maximum of each channel's whole map; see `keras.layers.GlobalMaxPooling2D`.

    Raises:
        ArgumentError: The input has another number of axes.

    Examples:
        >>> GlobalMaxPooling2D().output_shape((1, 20, 30, 4))
        (1, 4)
    """

    space: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class GlobalMaxPooling3D(_GlobalPooling):
    """The maximum of each channel's whole map; see `keras.layers.GlobalMaxPooling3D`.

    Raises:
        ArgumentError: The input has another number of axes.

    Examples:
        >>> GlobalMaxPooling3D().output_shape((1, 4, 20, 30, 4))
        (1, 4)
    """

    space: ClassVar[int] = 3
