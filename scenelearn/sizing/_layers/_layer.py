"""What every description of a layer answers, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]
"""The size of every axis of an array, the batch first: (batch, height, width, channels)."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One variable of a layer.

    Attributes:
        name: As Keras names it in the layer: kernel, bias, gamma, moving_mean.
        shape: The size of each axis.
        trainable: False for what training moves by other means than gradients, such as the
            moving averages of batch normalization.
    """

    name: str
    shape: Shape
    trainable: bool = True

    @property
    def n_elements(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The description of a layer: Keras's name, Keras's arguments, and no array.

    Attributes:
        name: How results call it; empty for its kind and a number.
        trainable: Whether training moves its trainable weights.
    """

    name: str = ""
    trainable: bool = True

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        """The shape of each output, given those of the inputs; batch axes are included."""
        raise NotImplementedError

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        """Its variables, in Keras's order of creation."""
        return ()

    def output_shape(self, *inputs: Shape) -> Shape:
        """The shape of its output, the first where there are several."""
        return self.output_shapes(*inputs)[0]

    def n_parameters(self, *inputs: Shape) -> int:
        """How many numbers its variables hold, trainable or not."""
        return sum(weight.n_elements for weight in self.weights(*inputs))

    def n_multiply_adds(self, *inputs: Shape) -> int:  # noqa: ARG002
        """Multiplications that are added up, over the whole batch, in one forward pass.

        Only convolutions and matrix products count; elementwise work does not.
        """
        return 0
