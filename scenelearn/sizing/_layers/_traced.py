"""Layers without a description, traced by JAX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scenelearn.sizing._layers._layer import Layer, Shape, Weight

if TYPE_CHECKING:
    from scenelearn.sizing._jaxprs import TracedCall


@dataclass(frozen=True, slots=True)
class Traced(Layer):
    """A layer without a description: the program that JAX traces of its call stands for it.

    Attributes:
        keras_type: the layer's class.
        traced: its call.
        variables: its weights.
    """

    keras_type: str
    traced: TracedCall = field(repr=False)
    variables: tuple[Weight, ...] = ()

    @property
    def type_name(self) -> str:
        return f"{self.keras_type}, traced"

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return self.traced.output_shapes(inputs)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        return self.variables

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return self.traced.n_multiply_adds(inputs)

    def n_working(self, *inputs: Shape) -> int:
        return self.traced.n_working(inputs)

    def n_kept(self, *inputs: Shape) -> int:
        return self.traced.n_kept(inputs)
