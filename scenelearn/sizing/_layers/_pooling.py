"""Pooling over windows, and over whole feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from scenelearn._checks import check_choice
from scenelearn.sizing._arithmetic import conv_output_length
from scenelearn.sizing._layers._checks import check_per_axis, check_rank
from scenelearn.sizing._layers._layer import Layer, Shape


@dataclass(frozen=True, slots=True)
class _Pooling(Layer):
    n_space_axes: ClassVar[int] = 0

    pool_size: Any = 2
    strides: Any = None
    padding: str = "valid"

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "pool_size", check_per_axis("pool_size", self.pool_size, self.n_space_axes)
        )
        strides = self.pool_size if self.strides is None else self.strides
        object.__setattr__(self, "strides", check_per_axis("strides", strides, self.n_space_axes))
        check_choice("padding", self.padding, ("valid", "same"))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        check_rank(type(self).__name__, shape, self.n_space_axes + 2)
        lengths = tuple(
            conv_output_length(n, k, stride=s, padding=self.padding)
            for n, k, s in zip(shape[1:-1], self.pool_size, self.strides, strict=True)
        )
        return ((shape[0], *lengths, shape[-1]),)


@dataclass(frozen=True, slots=True)
class _GlobalPooling(Layer):
    n_space_axes: ClassVar[int] = 0

    keepdims: bool = False

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        check_rank(type(self).__name__, shape, self.n_space_axes + 2)
        middle = (1,) * self.n_space_axes if self.keepdims else ()
        return ((shape[0], *middle, shape[-1]),)


@dataclass(frozen=True, slots=True)
class AveragePooling1D(_Pooling):
    """The mean of each window; see `keras.layers.AveragePooling1D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> AveragePooling1D(2).output_shape((1, 20, 4))
        (1, 10, 4)
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class AveragePooling2D(_Pooling):
    """The mean of each window; see `keras.layers.AveragePooling2D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> AveragePooling2D(2).output_shape((1, 20, 30, 4))
        (1, 10, 15, 4)
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class AveragePooling3D(_Pooling):
    """The mean of each window; see `keras.layers.AveragePooling3D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> AveragePooling3D(2).output_shape((1, 4, 20, 30, 4))
        (1, 2, 10, 15, 4)
    """

    n_space_axes: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class MaxPooling1D(_Pooling):
    """The maximum of each window; see `keras.layers.MaxPooling1D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> MaxPooling1D(2).output_shape((1, 20, 4))
        (1, 10, 4)
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class MaxPooling2D(_Pooling):
    """The maximum of each window; see `keras.layers.MaxPooling2D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> MaxPooling2D(2).output_shape((1, 20, 30, 4))
        (1, 10, 15, 4)
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class MaxPooling3D(_Pooling):
    """The maximum of each window; see `keras.layers.MaxPooling3D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> MaxPooling3D(2).output_shape((1, 4, 20, 30, 4))
        (1, 2, 10, 15, 4)
    """

    n_space_axes: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class GlobalAveragePooling1D(_GlobalPooling):
    """The mean of each feature map; see `keras.layers.GlobalAveragePooling1D`.

    Raises:
        ArgumentError: The input has the wrong number of axes.

    Examples:
        >>> GlobalAveragePooling1D().output_shape((1, 20, 4))
        (1, 4)
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class GlobalAveragePooling2D(_GlobalPooling):
    """The mean of each feature map; see `keras.layers.GlobalAveragePooling2D`.

    Raises:
        ArgumentError: The input has the wrong number of axes.

    Examples:
        >>> GlobalAveragePooling2D().output_shape((1, 20, 30, 4))
        (1, 4)
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class GlobalAveragePooling3D(_GlobalPooling):
    """The mean of each feature map; see `keras.layers.GlobalAveragePooling3D`.

    Raises:
        ArgumentError: The input has the wrong number of axes.

    Examples:
        >>> GlobalAveragePooling3D().output_shape((1, 4, 20, 30, 4))
        (1, 4)
    """

    n_space_axes: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class GlobalMaxPooling1D(_GlobalPooling):
    """The maximum of each feature map; see `keras.layers.GlobalMaxPooling1D`.

    Raises:
        ArgumentError: The input has the wrong number of axes.

    Examples:
        >>> GlobalMaxPooling1D().output_shape((1, 20, 4))
        (1, 4)
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class GlobalMaxPooling2D(_GlobalPooling):
    """The maximum of each feature map; see `keras.layers.GlobalMaxPooling2D`.

    Raises:
        ArgumentError: The input has the wrong number of axes.

    Examples:
        >>> GlobalMaxPooling2D().output_shape((1, 20, 30, 4))
        (1, 4)
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class GlobalMaxPooling3D(_GlobalPooling):
    """The maximum of each feature map; see `keras.layers.GlobalMaxPooling3D`.

    Raises:
        ArgumentError: The input has the wrong number of axes.

    Examples:
        >>> GlobalMaxPooling3D().output_shape((1, 4, 20, 30, 4))
        (1, 4)
    """

    n_space_axes: ClassVar[int] = 3
