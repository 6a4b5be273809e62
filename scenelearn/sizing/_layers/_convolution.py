"""Convolutions: standard, depthwise, separable and transposed, over one to three axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from scenelearn._checks import check_choice
from scenelearn.errors import ArgumentError
from scenelearn.sizing._arithmetic import conv_output_length, conv_transpose_output_length
from scenelearn.sizing._layers._checks import check_per_axis, check_positive
from scenelearn.sizing._layers._layer import Shape, SpatialLayer, Weight


class _Windowed(SpatialLayer):
    """What all convolutions share; subclasses have the fields."""

    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    filters: int
    kernel_size: Any
    strides: Any
    padding: str
    dilation_rate: Any
    use_bias: bool

    def __post_init__(self) -> None:
        counts = ("filters", "groups", "depth_multiplier")
        check_positive(self, *(name for name in counts if hasattr(self, name)))
        check_per_axis(self, "kernel_size", "strides", "dilation_rate")
        check_choice("padding", self.padding, self.paddings)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ArgumentError(
                "`strides` and `dilation_rate` cannot both exceed 1. Received: "
                f"strides={self.strides}, dilation_rate={self.dilation_rate}. Leave one of them "
                "at 1."
            )

    def space_sizes(self, shape: Shape) -> Shape:
        windows = zip(shape[1:-1], self.kernel_size, self.strides, self.dilation_rate, strict=True)
        return tuple(
            conv_output_length(n, k, stride=s, padding=self.padding, dilation=d)
            for n, k, s, d in windows
        )

    def channels(self, n: int) -> int:  # noqa: ARG002
        return self.filters

    def _with_bias(self, *weights: Weight, size: int) -> tuple[Weight, ...]:
        return (*weights, Weight("bias", (size,))) if self.use_bias else weights

    @property
    def _taps(self) -> int:
        return math.prod(self.kernel_size)


@dataclass(frozen=True, slots=True)
class _Convolution(_Windowed):
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    dilation_rate: Any = 1
    groups: int = 1
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        _Windowed.__post_init__(self)
        if self.filters % self.groups:
            raise ArgumentError(
                f"`filters` must be a multiple of `groups`. Received: filters={self.filters}, "
                f"groups={self.groups}."
            )

    def channels(self, n: int) -> int:
        if n % self.groups:
            raise ArgumentError(
                f"The number of input channels must be a multiple of `groups`. Received: "
                f"{n} channels, groups={self.groups}."
            )
        return self.filters

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        kernel = (*self.kernel_size, inputs[0][-1] // self.groups, self.filters)
        return self._with_bias(Weight("kernel", kernel), size=self.filters)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        out = math.prod(self.output_shape(*inputs))
        return out * self._taps * inputs[0][-1] // self.groups


class Conv1D(_Convolution, n_space_axes=1):
    """A convolution over (batch, steps, channels); see `keras.layers.Conv1D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or `groups` does
            not divide the channels.

    Examples:
        >>> Conv1D(8, 3, padding="causal").output_shape((1, 20, 4))
        (1, 20, 8)
    """

    paddings: ClassVar[tuple[str, ...]] = ("valid", "same", "causal")


class Conv2D(_Convolution, n_space_axes=2):
    """A convolution over (batch, height, width, channels); see `keras.layers.Conv2D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or `groups` does
            not divide the channels.

    Examples:
        >>> layer = Conv2D(100, 3, strides=2, padding="same")
        >>> layer.output_shape((1, 200, 300, 3)), layer.n_parameters((1, 200, 300, 3))
        ((1, 100, 150, 100), 2800)
    """


class Conv3D(_Convolution, n_space_axes=3):
    """A convolution over (batch, depth, height, width, channels); see `keras.layers.Conv3D`.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or `groups` does
            not divide the channels.

    Examples:
        >>> Conv3D(4, 3).output_shape((1, 8, 8, 8, 2))
        (1, 6, 6, 6, 4)
    """


@dataclass(frozen=True, slots=True)
class _Depthwise(_Windowed):
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    depth_multiplier: int = 1
    dilation_rate: Any = 1
    activation: str | None = None
    use_bias: bool = True

    def channels(self, n: int) -> int:
        return n * self.depth_multiplier

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        channels = inputs[0][-1]
        kernel = (*self.kernel_size, channels, self.depth_multiplier)
        return self._with_bias(Weight("kernel", kernel), size=self.channels(channels))

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(self.output_shape(*inputs)) * self._taps


class DepthwiseConv1D(_Depthwise, n_space_axes=1):
    """One kernel per input channel; see `keras.layers.DepthwiseConv1D`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> DepthwiseConv1D(3).n_parameters((1, 20, 4))
        16
    """


class DepthwiseConv2D(_Depthwise, n_space_axes=2):
    """One kernel per input channel; see `keras.layers.DepthwiseConv2D`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> DepthwiseConv2D(3, use_bias=False).n_parameters((1, 32, 32, 16))
        144
    """


@dataclass(frozen=True, slots=True)
class _Separable(_Windowed):
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    dilation_rate: Any = 1
    depth_multiplier: int = 1
    activation: str | None = None
    use_bias: bool = True

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        channels = inputs[0][-1]
        points = (*(1,) * self.n_space_axes, channels * self.depth_multiplier, self.filters)
        return self._with_bias(
            Weight("depthwise_kernel", (*self.kernel_size, channels, self.depth_multiplier)),
            Weight("pointwise_kernel", points),
            size=self.filters,
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        middle = inputs[0][-1] * self.depth_multiplier
        positions = math.prod(self.output_shape(*inputs)[:-1])
        return positions * middle * (self._taps + self.filters)


class SeparableConv1D(_Separable, n_space_axes=1):
    """A depthwise, then a pointwise convolution; see `keras.layers.SeparableConv1D`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> SeparableConv1D(8, 3).n_parameters((1, 20, 4))
        52
    """


class SeparableConv2D(_Separable, n_space_axes=2):
    """A depthwise, then a pointwise convolution; see `keras.layers.SeparableConv2D`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> SeparableConv2D(8, 3).n_parameters((1, 20, 20, 4))
        76
    """


@dataclass(frozen=True, slots=True)
class _Transposed(_Windowed):
    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    output_padding: Any = None
    dilation_rate: Any = 1
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        _Windowed.__post_init__(self)
        if self.output_padding is not None:
            value = self.output_padding
            value = (value,) * self.n_space_axes if isinstance(value, int) else tuple(value)
            object.__setattr__(self, "output_padding", value)

    def space_sizes(self, shape: Shape) -> Shape:
        extra = self.output_padding or (None,) * self.n_space_axes
        windows = zip(
            shape[1:-1], self.kernel_size, self.strides, extra, self.dilation_rate, strict=True
        )
        return tuple(
            conv_transpose_output_length(
                n, k, stride=s, padding=self.padding, output_padding=p, dilation=d
            )
            for n, k, s, p, d in windows
        )

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        kernel = (*self.kernel_size, self.filters, inputs[0][-1])
        return self._with_bias(Weight("kernel", kernel), size=self.filters)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(inputs[0]) * self._taps * self.filters


class Conv1DTranspose(_Transposed, n_space_axes=1):
    """A transposed convolution; see `keras.layers.Conv1DTranspose`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> Conv1DTranspose(8, 3, strides=2, padding="same").output_shape((1, 10, 4))
        (1, 20, 8)
    """


class Conv2DTranspose(_Transposed, n_space_axes=2):
    """A transposed convolution; see `keras.layers.Conv2DTranspose`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> Conv2DTranspose(8, 3, strides=2).output_shape((1, 10, 10, 4))
        (1, 21, 21, 8)
    """


class Conv3DTranspose(_Transposed, n_space_axes=3):
    """A transposed convolution; see `keras.layers.Conv3DTranspose`.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> Conv3DTranspose(2, 3).output_shape((1, 4, 4, 4, 1))
        (1, 6, 6, 6, 2)
    """
