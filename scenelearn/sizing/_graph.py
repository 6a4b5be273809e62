"""A network as a list of calls in order: what both rules read, whatever it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from scenelearn.errors import ArgumentError

from ._layers import Layer, Shape


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a layer.

    Attributes:
        layer: The layer's description.
        inputs: The values that it reads, as indices into the graph's values.
        outputs: The values that it makes.
        owner: Calls with the same owner share their weights (one layer called twice).
        name: Unique in the graph; for a nested model "outer/inner".
    """

    layer: Layer
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    owner: int
    name: str


@dataclass(frozen=True, slots=True)
class Graph:
    """A network: calls in an order in which each finds its inputs made.

    Attributes:
        name: The network's name.
        calls: Its calls of layers; inputs are values, not calls.
        inputs: The values that are handed in.
        outputs: The values that are handed out.
        n_values: How many values there are.
        input_shapes: The shape of each input without its batch axis; None where it is open.
    """

    name: str
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    n_values: int
    input_shapes: tuple[tuple[int | None, ...], ...]

    def shapes(self, *input_shapes: Shape) -> tuple[Shape, ...]:
        """The shape of every value, from those of the inputs; batch axes are included.

        Raises:
            ArgumentError: There is not one shape for each input, or a layer cannot take what it
                is given; the message names the layer.
        """
        if len(input_shapes) != len(self.inputs):
            raise ArgumentError(
                f"`input_shape` must hold one shape for each of the {len(self.inputs)} inputs. "
                f"Received: {len(input_shapes)}."
            )
        found: list[Shape] = [()] * self.n_values
        for value, shape in zip(self.inputs, input_shapes, strict=True):
            found[value] = shape
        for call in self.calls:
            try:
                shapes = call.layer.output_shapes(*(found[value] for value in call.inputs))
            except ArgumentError as error:
                raise ArgumentError(f'In layer "{call.name}": {error}') from error
            for value, shape in zip(call.outputs, shapes, strict=True):
                found[value] = shape
        return tuple(found)

    def reads(self, call: Call, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of what a call reads."""
        return tuple(shapes[value] for value in call.inputs)

    def owners(self) -> tuple[Call, ...]:
        """The first call of each layer: where its weights are counted."""
        first: dict[int, Call] = {}
        for call in self.calls:
            first.setdefault(call.owner, call)
        return tuple(first.values())
