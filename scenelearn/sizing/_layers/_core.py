"""Dense layers, embeddings, activations, and layers that change values but no shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scenelearn.errors import ArgumentError

from ._checks import positive
from ._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class Dense(Layer):
    """(..., inputs) times a matrix: (..., units); see `keras.layers.Dense`.

    Raises:
        ArgumentError: `units` is not a positive integer.

    Examples:
        >>> Dense(10).n_parameters((50, 400))
        4010
    """

    units: int
    activation: str | None = None
    use_bias: bool = True

    def __post_init__(self) -> None:
        positive("units", self.units)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0][:-1], self.units),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        bias = (Weight("bias", (self.units,)),) if self.use_bias else ()
        return (Weight("kernel", (inputs[0][-1], self.units)), *bias)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(inputs[0]) * self.units


@dataclass(frozen=True, slots=True)
class Embedding(Layer):
    """A row of a table for each token: (..., output_dim); see `keras.layers.Embedding`.

    Raises:
        ArgumentError: A size is not a positive integer.

    Examples:
        >>> Embedding(1000, 16).output_shape((8, 50))
        (8, 50, 16)
    """

    input_dim: int
    output_dim: int

    def __post_init__(self) -> None:
        positive("input_dim", self.input_dim)
        positive("output_dim", self.output_dim)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0], self.output_dim),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        return (Weight("embeddings", (self.input_dim, self.output_dim)),)


@dataclass(frozen=True, slots=True)
class _SameShape(Layer):
    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)


@dataclass(frozen=True, slots=True)
class Activation(_SameShape):
    """A function of each element, by Keras's name; see `keras.layers.Activation`.

    Examples:
        >>> Activation("relu").output_shape((1, 8, 8, 4))
        (1, 8, 8, 4)
    """

    activation: str | None


@dataclass(frozen=True, slots=True)
class ReLU(_SameShape):
    """max(x, 0), up to a highest value; see `keras.layers.ReLU`.

    Examples:
        >>> ReLU(6.0).output_shape((1, 8, 8, 4))
        (1, 8, 8, 4)
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class LeakyReLU(_SameShape):
    """x above 0, a fraction of it below; see `keras.layers.LeakyReLU`.

    Examples:
        >>> LeakyReLU().output_shape((1, 8))
        (1, 8)
    """

    negative_slope: float = 0.3


@dataclass(frozen=True, slots=True)
class ELU(_SameShape):
    """x above 0, alpha (e^x - 1) below; see `keras.layers.ELU`.

    Examples:
        >>> ELU().output_shape((1, 8))
        (1, 8)
    """

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class PReLU(Layer):
    """x above 0, a learned fraction of it below; see `keras.layers.PReLU`.

    Examples:
        >>> PReLU(shared_axes=(1, 2)).n_parameters((1, 8, 8, 4))
        4
    """

    shared_axes: tuple[int, ...] | None = None

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        shared = self.shared_axes or ()
        shape = tuple(
            1 if axis in shared else size for axis, size in enumerate(inputs[0][1:], start=1)
        )
        return (Weight("alpha", shape),)


@dataclass(frozen=True, slots=True)
class Softmax(_SameShape):
    """e^x over the sum of e^x along an axis; see `keras.layers.Softmax`.

    Examples:
        >>> Softmax().output_shape((1, 10))
        (1, 10)
    """

    axis: int = -1


@dataclass(frozen=True, slots=True)
class Dropout(_SameShape):
    """Noise in training, nothing in prediction; see `keras.layers.Dropout`.

    The other layers of noise (GaussianNoise, SpatialDropout2D, ...) are read as this one.

    Attributes:
        rate: The share of elements that are dropped, in [0, 1].
        noise_shape: The shape of what is drawn, None for an axis as long as the input's; None for
            one draw an element.

    Raises:
        ArgumentError: The rate is not in [0, 1].

    Examples:
        >>> Dropout(0.2).output_shape((1, 10))
        (1, 10)
    """

    rate: float
    noise_shape: tuple[int | None, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ArgumentError(f"`rate` must lie between 0 and 1. Received: rate={self.rate!r}.")


@dataclass(frozen=True, slots=True)
class Identity(_SameShape):
    """Its input; see `keras.layers.Identity`.

    Examples:
        >>> Identity().output_shape((1, 10))
        (1, 10)
    """


@dataclass(frozen=True, slots=True)
class Rescaling(_SameShape):
    """x times a scale plus an offset; see `keras.layers.Rescaling`.

    Examples:
        >>> Rescaling(1 / 255).output_shape((1, 8, 8, 3))
        (1, 8, 8, 3)
    """

    scale: Any
    offset: Any = 0.0


@dataclass(frozen=True, slots=True)
class Normalization(Layer):
    """(x - mean) / sqrt(variance); see `keras.layers.Normalization`.

    Adapted to data it has three variables; with a given mean and variance none.

    Examples:
        >>> Normalization().n_parameters((1, 8, 8, 3))
        7
    """

    axis: int | tuple[int, ...] | None = -1
    mean: Any = None
    variance: Any = None

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)

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
class Scale(Layer):
    """x times one learned number for each channel, as the LayerScale of ConvNeXt.

    Examples:
        >>> Scale().n_parameters((1, 8, 8, 96))
        96
    """

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return (Weight("gamma", (inputs[0][-1],)),)
