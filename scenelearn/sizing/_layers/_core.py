"""Dense layers, embeddings, activations, and other layers that keep the shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scenelearn._checks import check_number
from scenelearn.sizing._layers._checks import check_positive
from scenelearn.sizing._layers._layer import Layer, SameShape, Shape, Weight


@dataclass(frozen=True, slots=True)
class Dense(Layer):
    """Matrix product over the last axis, (..., features) to (..., units); `keras.layers.Dense`.

    Raises:
        ArgumentError: if `units` is not a positive integer.

    Examples:
        >>> Dense(10).n_parameters((50, 400))
        4010
    """

    units: int
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "units")

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0][:-1], self.units),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        bias = (Weight("bias", (self.units,)),) if self.use_bias else ()
        return (Weight("kernel", (inputs[0][-1], self.units)), *bias)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(inputs[0]) * self.units


@dataclass(frozen=True, slots=True)
class Embedding(Layer):
    """A table row per token, (...) to (..., output_dim); see `keras.layers.Embedding`.

    Raises:
        ArgumentError: if a size is not a positive integer.

    Examples:
        >>> Embedding(1000, 16).output_shape((8, 50))
        (8, 50, 16)
    """

    input_dim: int
    output_dim: int

    def __post_init__(self) -> None:
        check_positive(self, "input_dim", "output_dim")

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0], self.output_dim),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        return (Weight("embeddings", (self.input_dim, self.output_dim)),)


@dataclass(frozen=True, slots=True)
class Activation(SameShape):
    """An elementwise function, by its Keras name; see `keras.layers.Activation`.

    Examples:
        >>> Activation("relu").output_shape((1, 8, 8, 4))
        (1, 8, 8, 4)
    """

    activation: str | None


@dataclass(frozen=True, slots=True)
class ReLU(SameShape):
    """max(x, 0), optionally capped; see `keras.layers.ReLU`.

    Examples:
        >>> ReLU(6.0).output_shape((1, 8, 8, 4))
        (1, 8, 8, 4)
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class LeakyReLU(SameShape):
    """x if x > 0, else x times a fixed slope; see `keras.layers.LeakyReLU`.

    Examples:
        >>> LeakyReLU().output_shape((1, 8))
        (1, 8)
    """

    negative_slope: float = 0.3


@dataclass(frozen=True, slots=True)
class ELU(SameShape):
    """x if x > 0, else alpha (e^x - 1); see `keras.layers.ELU`.

    Examples:
        >>> ELU().output_shape((1, 8))
        (1, 8)
    """

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class PReLU(SameShape):
    """x if x > 0, else x times a learned slope; see `keras.layers.PReLU`.

    Examples:
        >>> PReLU(shared_axes=(1, 2)).n_parameters((1, 8, 8, 4))
        4
    """

    shared_axes: tuple[int, ...] | None = None

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        shared = self.shared_axes or ()
        shape = tuple(
            1 if axis in shared else size for axis, size in enumerate(inputs[0][1:], start=1)
        )
        return (Weight("alpha", shape),)


@dataclass(frozen=True, slots=True)
class Softmax(SameShape):
    """e^x divided by its sum along an axis; see `keras.layers.Softmax`.

    Examples:
        >>> Softmax().output_shape((1, 10))
        (1, 10)
    """

    axis: int = -1


@dataclass(frozen=True, slots=True)
class Dropout(SameShape):
    """Random zeros in training, the identity in prediction; see `keras.layers.Dropout`.

    Keras' other noise layers (GaussianNoise, SpatialDropout2D, ...) are read as this one.

    Attributes:
        rate: the fraction of elements to drop, in [0, 1].
        noise_shape: the shape of the random mask, with None for axes as long as the input's; None
            for one random number per element.

    Raises:
        ArgumentError: if `rate` is not in [0, 1].

    Examples:
        >>> Dropout(0.2).output_shape((1, 10))
        (1, 10)
    """

    rate: float
    noise_shape: tuple[int | None, ...] | None = None

    def __post_init__(self) -> None:
        check_number("rate", self.rate, low=0, high=1)


@dataclass(frozen=True, slots=True)
class Identity(SameShape):
    """The input, unchanged; see `keras.layers.Identity`.

    Examples:
        >>> Identity().output_shape((1, 10))
        (1, 10)
    """


@dataclass(frozen=True, slots=True)
class Rescaling(SameShape):
    """x times a scale plus an offset; see `keras.layers.Rescaling`.

    Examples:
        >>> Rescaling(1 / 255).output_shape((1, 8, 8, 3))
        (1, 8, 8, 3)
    """

    scale: Any
    offset: Any = 0.0


@dataclass(frozen=True, slots=True)
class Normalization(SameShape):
    """(x - mean) / sqrt(variance); see `keras.layers.Normalization`.

    Without a given mean and variance, the layer has three non-trainable variables for them.

    Examples:
        >>> Normalization().n_parameters((1, 8, 8, 3))
        7
    """

    axis: int | tuple[int, ...] | None = -1
    mean: Any = None
    variance: Any = None

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        if self.mean is not None:
            return ()
        axes = () if self.axis is None else self.axis
        axes = (axes,) if isinstance(axes, int) else tuple(axes)
        shape = tuple(inputs[0][axis] for axis in axes)
        return (
            Weight("mean", shape, trainable=False),
            Weight("variance", shape, trainable=False),
            Weight("count", (), trainable=False),
        )


@dataclass(frozen=True, slots=True)
class LayerScale(SameShape):
    """x times one learned factor per channel, as in ConvNeXt.

    Examples:
        >>> LayerScale().n_parameters((1, 8, 8, 96))
        96
    """

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return (Weight("gamma", (inputs[0][-1],)),)
