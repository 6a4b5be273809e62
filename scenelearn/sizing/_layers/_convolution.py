"""Convolutions: standard, depthwise, separable and transposed, over one to three axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from scenelearn._checks import check_choice
from scenelearn.errors import ArgumentError
from scenelearn.sizing._arithmetic import conv_output_length, conv_transpose_output_length
from scenelearn.sizing._layers._checks import check_per_axis, check_positive, check_rank
from scenelearn.sizing._layers._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class _Convolution(Layer):
    n_space_axes: ClassVar[int] = 0
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    dilation_rate: Any = 1
    groups: int = 1
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "filters", "groups")
        _check_window(self)
        if self.filters % self.groups:
            raise ArgumentError(
                f"`filters` must be a multiple of `groups`. Received: filters={self.filters}, "
                f"groups={self.groups}."
            )

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        check_rank(type(self).__name__, shape, self.n_space_axes + 2)
        if shape[-1] % self.groups:
            raise ArgumentError(
                f"The number of input channels must be a multiple of `groups`. Received: "
                f"{shape[-1]} channels, groups={self.groups}."
            )
        return ((shape[0], *_space_sizes(self, shape), self.filters),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        kernel = (*self.kernel_size, inputs[0][-1] // self.groups, self.filters)
        return (Weight("kernel", kernel), *_bias(self, self.filters))

    def n_multiply_adds(self, *inputs: Shape) -> int:
        (out,) = self.output_shapes(*inputs)
        return math.prod(out) * _taps(self) * inputs[0][-1] // self.groups


def _check_window(layer: Any) -> None:
    for name in ("kernel_size", "strides", "dilation_rate"):
        value = check_per_axis(name, getattr(layer, name), layer.n_space_axes)
        object.__setattr__(layer, name, value)
    check_choice("padding", layer.padding, layer.paddings)
    if max(layer.strides) > 1 and max(layer.dilation_rate) > 1:
        raise ArgumentError(
            "`strides` and `dilation_rate` cannot both exceed 1. Received: "
            f"strides={layer.strides}, dilation_rate={layer.dilation_rate}. Leave one of them at 1."
        )


def _taps(layer: Any) -> int:
    return math.prod(layer.kernel_size)


def _space_sizes(layer: Any, shape: Shape) -> tuple[int, ...]:
    return tuple(
        conv_output_length(n, k, stride=s, padding=layer.padding, dilation=d)
        for n, k, s, d in zip(
            shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
        )
    )


def _bias(layer: Any, size: int) -> tuple[Weight, ...]:
    return (Weight("bias", (size,)),) if layer.use_bias else ()


@dataclass(frozen=True, slots=True)
class Conv1D(_Convolution):
    """A convolution over (batch, steps, channels); see `keras.layers.Conv1D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or `groups` does
            not divide the channels.

    Examples:
        >>> Conv1D(8, 3, padding="causal").output_shape((1, 20, 4))
        (1, 20, 8)
    """

    n_space_axes: ClassVar[int] = 1
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same", "causal")


@dataclass(frozen=True, slots=True)
class Conv2D(_Convolution):
    """A convolution over (batch, height, width, channels); see `keras.layers.Conv2D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or `groups` does
            not divide the channels.

    Examples:
        >>> layer = Conv2D(100, 3, strides=2, padding="same")
        >>> layer.output_shape((1, 200, 300, 3)), layer.n_parameters((1, 200, 300, 3))
        ((1, 100, 150, 100), 2800)
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Conv3D(_Convolution):
    """A convolution over (batch, depth, height, width, channels); see `keras.layers.Conv3D`.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or `groups` does
            not divide the channels.

    Examples:
        >>> Conv3D(4, 3).output_shape((1, 8, 8, 8, 2))
        (1, 6, 6, 6, 4)
    """

    n_space_axes: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class _Depthwise(Layer):
    n_space_axes: ClassVar[int] = 0
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    depth_multiplier: int = 1
    dilation_rate: Any = 1
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "depth_multiplier")
        _check_window(self)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        check_rank(type(self).__name__, shape, self.n_space_axes + 2)
        return ((shape[0], *_space_sizes(self, shape), shape[-1] * self.depth_multiplier),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        channels = inputs[0][-1]
        kernel = (*self.kernel_size, channels, self.depth_multiplier)
        return (Weight("kernel", kernel), *_bias(self, channels * self.depth_multiplier))

    def n_multiply_adds(self, *inputs: Shape) -> int:
        (out,) = self.output_shapes(*inputs)
        return math.prod(out) * _taps(self)


@dataclass(frozen=True, slots=True)
class DepthwiseConv1D(_Depthwise):
    """One kernel per input channel; see `keras.layers.DepthwiseConv1D`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> DepthwiseConv1D(3).n_parameters((1, 20, 4))
        16
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class DepthwiseConv2D(_Depthwise):
    """One kernel per input channel; see `keras.layers.DepthwiseConv2D`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> DepthwiseConv2D(3, use_bias=False).n_parameters((1, 32, 32, 16))
        144
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class _Separable(Layer):
    n_space_axes: ClassVar[int] = 0
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    dilation_rate: Any = 1
    depth_multiplier: int = 1
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "filters", "depth_multiplier")
        _check_window(self)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        check_rank(type(self).__name__, shape, self.n_space_axes + 2)
        return ((shape[0], *_space_sizes(self, shape), self.filters),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        channels = inputs[0][-1]
        middle = channels * self.depth_multiplier
        return (
            Weight("depthwise_kernel", (*self.kernel_size, channels, self.depth_multiplier)),
            Weight("pointwise_kernel", (*(1,) * self.n_space_axes, middle, self.filters)),
            *_bias(self, self.filters),
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        (out,) = self.output_shapes(*inputs)
        middle = inputs[0][-1] * self.depth_multiplier
        return math.prod(out[:-1]) * middle * (_taps(self) + self.filters)


@dataclass(frozen=True, slots=True)
class SeparableConv1D(_Separable):
    """A depthwise, then a pointwise convolution; see `keras.layers.SeparableConv1D`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> SeparableConv1D(8, 3).n_parameters((1, 20, 4))
        52
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class SeparableConv2D(_Separable):
    """A depthwise, then a pointwise convolution; see `keras.layers.SeparableConv2D`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> SeparableConv2D(8, 3).n_parameters((1, 20, 20, 4))
        76
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class _Transposed(Layer):
    n_space_axes: ClassVar[int] = 0
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    filters: int
    kernel_size: Any
    strides: Any = 1
    padding: str = "valid"
    output_padding: Any = None
    dilation_rate: Any = 1
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "filters")
        _check_window(self)
        if self.output_padding is not None:
            value = self.output_padding
            value = (value,) * self.n_space_axes if isinstance(value, int) else tuple(value)
            object.__setattr__(self, "output_padding", value)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (shape,) = inputs
        check_rank(type(self).__name__, shape, self.n_space_axes + 2)
        extra = self.output_padding or (None,) * self.n_space_axes
        lengths = tuple(
            conv_transpose_output_length(
                n, k, stride=s, padding=self.padding, output_padding=p, dilation=d
            )
            for n, k, s, p, d in zip(
                shape[1:-1], self.kernel_size, self.strides, extra, self.dilation_rate, strict=True
            )
        )
        return ((shape[0], *lengths, self.filters),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        kernel = (*self.kernel_size, self.filters, inputs[0][-1])
        return (Weight("kernel", kernel), *_bias(self, self.filters))

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(inputs[0]) * _taps(self) * self.filters


@dataclass(frozen=True, slots=True)
class Conv1DTranspose(_Transposed):
    """A transposed convolution; see `keras.layers.Conv1DTranspose`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> Conv1DTranspose(8, 3, strides=2, padding="same").output_shape((1, 10, 4))
        (1, 20, 8)
    """

    n_space_axes: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Conv2DTranspose(_Transposed):
    """A transposed convolution; see `keras.layers.Conv2DTranspose`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> Conv2DTranspose(8, 3, strides=2).output_shape((1, 10, 10, 4))
        (1, 21, 21, 8)
    """

    n_space_axes: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Conv3DTranspose(_Transposed):
    """A transposed convolution; see `keras.layers.Conv3DTranspose`.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> Conv3DTranspose(2, 3).output_shape((1, 4, 4, 4, 1))
        (1, 6, 6, 6, 2)
    """

    n_space_axes: ClassVar[int] = 3
