"""Pooling over windows, and over whole feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scenelearn._checks import check_choice
from scenelearn.sizing._arithmetic import conv_output_length
from scenelearn.sizing._layers._checks import check_per_axis
from scenelearn.sizing._layers._layer import Shape, SpatialLayer


@dataclass(frozen=True, slots=True)
class _Pooling(SpatialLayer):
    pool_size: Any = 2
    strides: Any = None
    padding: str = "valid"

    def __post_init__(self) -> None:
        check_per_axis(self, "pool_size")
        if self.strides is None:
            object.__setattr__(self, "strides", self.pool_size)
        check_per_axis(self, "strides")
        check_choice("padding", self.padding, ("valid", "same"))

    def space_sizes(self, shape: Shape) -> Shape:
        return tuple(
            conv_output_length(n, k, stride=s, padding=self.padding)
            for n, k, s in zip(shape[1:-1], self.pool_size, self.strides, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _GlobalPooling(SpatialLayer):
    keepdims: bool = False

    def space_sizes(self, shape: Shape) -> Shape:
        return (1,) * len(shape[1:-1]) if self.keepdims else ()


class AveragePooling1D(_Pooling, n_space_axes=1):
    """The mean of each window; see `keras.layers.AveragePooling1D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> AveragePooling1D(2).output_shape((1, 20, 4))
        (1, 10, 4)
    """


class AveragePooling2D(_Pooling, n_space_axes=2):
    """The mean of each window; see `keras.layers.AveragePooling2D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> AveragePooling2D(2).output_shape((1, 20, 30, 4))
        (1, 10, 15, 4)
    """


class AveragePooling3D(_Pooling, n_space_axes=3):
    """The mean of each window; see `keras.layers.AveragePooling3D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> AveragePooling3D(2).output_shape((1, 4, 20, 30, 4))
        (1, 2, 10, 15, 4)
    """


class MaxPooling1D(_Pooling, n_space_axes=1):
    """The maximum of each window; see `keras.layers.MaxPooling1D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> MaxPooling1D(2).output_shape((1, 20, 4))
        (1, 10, 4)
    """


class MaxPooling2D(_Pooling, n_space_axes=2):
    """The maximum of each window; see `keras.layers.MaxPooling2D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> MaxPooling2D(2).output_shape((1, 20, 30, 4))
        (1, 10, 15, 4)
    """


class MaxPooling3D(_Pooling, n_space_axes=3):
    """The maximum of each window; see `keras.layers.MaxPooling3D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or the input is
            smaller than a "valid" window.

    Examples:
        >>> MaxPooling3D(2).output_shape((1, 4, 20, 30, 4))
        (1, 2, 10, 15, 4)
    """


class GlobalAveragePooling1D(_GlobalPooling, n_space_axes=1):
    """The mean of each feature map; see `keras.layers.GlobalAveragePooling1D`.

    Raises:
        ArgumentError: if the input has the wrong number of axes.

    Examples:
        >>> GlobalAveragePooling1D().output_shape((1, 20, 4))
        (1, 4)
    """


class GlobalAveragePooling2D(_GlobalPooling, n_space_axes=2):
    """The mean of each feature map; see `keras.layers.GlobalAveragePooling2D`.

    Raises:
        ArgumentError: if the input has the wrong number of axes.

    Examples:
        >>> GlobalAveragePooling2D().output_shape((1, 20, 30, 4))
        (1, 4)
    """


class GlobalAveragePooling3D(_GlobalPooling, n_space_axes=3):
    """The mean of each feature map; see `keras.layers.GlobalAveragePooling3D`.

    Raises:
        ArgumentError: if the input has the wrong number of axes.

    Examples:
        >>> GlobalAveragePooling3D().output_shape((1, 4, 20, 30, 4))
        (1, 4)
    """


class GlobalMaxPooling1D(_GlobalPooling, n_space_axes=1):
    """The maximum of each feature map; see `keras.layers.GlobalMaxPooling1D`.

    Raises:
        ArgumentError: if the input has the wrong number of axes.

    Examples:
        >>> GlobalMaxPooling1D().output_shape((1, 20, 4))
        (1, 4)
    """


class GlobalMaxPooling2D(_GlobalPooling, n_space_axes=2):
    """The maximum of each feature map; see `keras.layers.GlobalMaxPooling2D`.

    Raises:
        ArgumentError: if the input has the wrong number of axes.

    Examples:
        >>> GlobalMaxPooling2D().output_shape((1, 20, 30, 4))
        (1, 4)
    """


class GlobalMaxPooling3D(_GlobalPooling, n_space_axes=3):
    """The maximum of each feature map; see `keras.layers.GlobalMaxPooling3D`.

    Raises:
        ArgumentError: if the input has the wrong number of axes.

    Examples:
        >>> GlobalMaxPooling3D().output_shape((1, 4, 20, 30, 4))
        (1, 4)
    """
