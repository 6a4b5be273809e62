"""The base class of all layer descriptions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from scenelearn.sizing._layers._checks import check_rank

Shape: TypeAlias = tuple[int, ...]
"""The size of each axis of an array, the batch axis first: (batch, height, width, channels)."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One variable of a layer.

    Attributes:
        name: Keras' name for it within the layer: kernel, bias, gamma, moving_mean.
        shape: the size of each axis.
        trainable: False for variables that gradients do not update, such as the moving averages of
            batch normalization.
    """

    name: str
    shape: Shape
    trainable: bool = True

    @property
    def n_elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer's configuration: Keras' name and arguments, without any arrays.

    Attributes:
        name: the layer's name in results; by default its class name in lower case, numbered.
        trainable: whether training updates its trainable weights.
    """

    name: str = ""
    trainable: bool = True

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        """Return the shape of each output for these input shapes, batch axes included."""
        raise NotImplementedError

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        """Return the layer's variables, in the order in which Keras creates them."""
        return ()

    def output_shape(self, *inputs: Shape) -> Shape:
        """Return the shape of the first output."""
        return self.output_shapes(*inputs)[0]

    def n_parameters(self, *inputs: Shape) -> int:
        """Return the number of parameters, trainable or not."""
        return sum(weight.n_elements for weight in self.weights(*inputs))

    def n_multiply_adds(self, *inputs: Shape) -> int:  # noqa: ARG002
        """Return the multiply-adds of one forward pass over the whole batch.

        Only convolutions and matrix products count; elementwise operations do not.
        """
        return 0

    def n_working(self, *inputs: Shape) -> int:  # noqa: ARG002
        """Return the most elements that a prediction holds inside the layer at the same time."""
        return 0

    def n_kept(self, *inputs: Shape) -> int:  # noqa: ARG002
        """Return the number of elements inside the layer that training keeps for the gradients."""
        return 0

    @property
    def type_name(self) -> str:
        """The layer's class, as results show it."""
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class SameShape(Layer):
    """A layer whose output has the shape of its first input."""

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)


@dataclass(frozen=True, slots=True)
class SpatialLayer(Layer):
    """A layer whose first input is (batch, one to three space axes, channels)."""

    n_space_axes: ClassVar[int] = 0

    def __init_subclass__(cls, n_space_axes: int = 0) -> None:
        if n_space_axes:
            cls.n_space_axes = n_space_axes

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        shape = check_rank(type(self).__name__, inputs[0], self.n_space_axes + 2)
        return ((shape[0], *self.space_sizes(shape), self.channels(shape[-1])),)

    def space_sizes(self, shape: Shape) -> Shape:
        """Return the sizes of the output's space axes for this input shape."""
        raise NotImplementedError

    def channels(self, n: int) -> int:
        """Return the number of output channels for `n` input channels."""
        return n
