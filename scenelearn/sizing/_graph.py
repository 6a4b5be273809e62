"""A network as an ordered list of layer calls: the input of both estimation methods."""

from __future__ import annotations

from dataclasses import dataclass

from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer.

    Attributes:
        layer: the layer's description.
        inputs: the values that it reads, as indices into the graph's values.
        outputs: the values that it produces.
        layer_id: calls with the same id share their weights: one layer called more than once.
        name: unique within the graph; "outer/inner" in a nested model.
    """

    layer: Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Graph:
    """A network: its layer calls in topological order.

    Attributes:
        name: the network's name.
        calls: the layer calls. The network's inputs are values, not calls.
        inputs: the values that are passed in.
        outputs: the values that are returned.
        n_values: the number of values.
        input_shapes: the shape of each input without its batch axis; None for unknown sizes.
    """

    name: str
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    n_values: int
    input_shapes: tuple[tuple[int | None, ...], ...]

    def infer_shapes(self, *input_shapes: Shape) -> tuple[Shape, ...]:
        """Infer the shape of every value from the input shapes, batch axes included.

        Raises:
            ArgumentError: if the number of shapes is not the number of inputs, or a layer cannot
                process its input; the message names the layer.
        """
        if len(input_shapes) != len(self.inputs):
            raise ArgumentError(
                f"`input_shape` must hold one shape for each of the {len(self.inputs)} inputs. "
                f"Received: {len(input_shapes)} shapes."
            )
        shapes: list[Shape] = [()] * self.n_values
        for value, shape in zip(self.inputs, input_shapes, strict=True):
            shapes[value] = shape
        for call in self.calls:
            try:
                made = call.layer.output_shapes(*(shapes[value] for value in call.inputs))
            except ArgumentError as error:
                raise ArgumentError(f'In layer "{call.name}": {error}') from error
            for value, shape in zip(call.outputs, made, strict=True):
                shapes[value] = shape
        return tuple(shapes)

    def call_input_shapes(self, call: Call, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """Return the shapes of the values that a call reads."""
        return tuple(shapes[value] for value in call.inputs)

    def weights(self, call: Call, shapes: tuple[Shape, ...]) -> tuple[Weight, ...]:
        """Return the variables of the layer that a call calls."""
        return call.layer.weights(*self.call_input_shapes(call, shapes))

    def unique_layers(self) -> tuple[Call, ...]:
        """Return the first call of each layer, where its weights are counted."""
        first: dict[int, Call] = {}
        for call in self.calls:
            first.setdefault(call.layer_id, call)
        return tuple(first.values())
