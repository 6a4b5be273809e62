"""What goes into a recurrent layer and what comes out, axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scenelearn.errors import ArgumentError

from . import _layers, _show
from ._layers import Layer, Shape, Weight
from ._layers._checks import one_of, positive


class Axis(NamedTuple):
    """One dimension of an array.

    Attributes:
        name: batch, time, features or units.
        size: How many there are; None where it is open.
        meaning: What it counts.
    """

    name: str
    size: int | None
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentShapes:
    """The dimensions of a recurrent layer's inputs and outputs.

    Attributes:
        cell: "SimpleRNN", "LSTM" or "GRU".
        units: The units of each layer of the stack, the first layer first.
        input: The input's axes: three.
        step: The axes of the input at one time step: two, a slice of the input.
        below: The axes of the output of each layer under the last: three, with time.
        output: The axes of the output.
        states: The axes of each state that is returned as well.
        weights: The variables of the first layer.
        bidirectional: Whether a second layer reads the sequence backwards.
        merge_mode: How the two directions are merged; no meaning without them.
    """

    cell: str
    units: tuple[int, ...]
    input: tuple[Axis, ...]
    step: tuple[Axis, ...]
    below: tuple[tuple[Axis, ...], ...]
    output: tuple[Axis, ...]
    states: tuple[tuple[Axis, ...], ...]
    weights: tuple[Weight, ...]
    bidirectional: bool
    merge_mode: str

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The input's shape; None for an open axis."""
        return tuple(axis.size for axis in self.input)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The output's shape; None for an open axis."""
        return tuple(axis.size for axis in self.output)

    def explanation(self) -> str:
        """The answer in words, as Markdown, from these numbers."""
        lines = [
            f"The input of the {self.cell} layer has **{len(self.input)} dimensions**, "
            f"{_shape(self.input)}:",
            _listed(self.input),
            f"At a single time step the cell sees a slice of it with {len(self.step)} dimensions, "
            f"{_shape(self.step)}: one vector for each sample. That slice is not the whole input: "
            "the time axis is the third dimension.",
            f"The output has **{len(self.output)} dimensions**, {_shape(self.output)}:",
            _listed(self.output),
        ]
        if len(self.output) == 3:
            lines.append("There is one output vector for every time step (return_sequences=True).")
        else:
            lines.append(
                "Only the last time step's vector comes out; with return_sequences=True there "
                "would be one for every step and a third dimension, time."
            )
        if self.states:
            n = len(self.states)
            lines.append(
                f"Beside it {'comes one final state' if n == 1 else f'come {n} final states'} of "
                f"{len(self.states[0])} dimensions{'' if n == 1 else ' each'}, "
                f"{_shape(self.states[0])}: "
                + ("the hidden state h and the cell state c" if self.cell == "LSTM" else "h")
                + (", of each direction." if self.bidirectional else ".")
            )
        if len(self.units) > 1:
            lines.append(
                f"{len(self.units)} layers are stacked: all but the last must return sequences, "
                "because the next one wants three dimensions as well: "
                + " → ".join(map(_sizes, (self.input, *self.below, self.output)))
                + "."
            )
        if self.bidirectional:
            units, wide = self.units[-1], self.output[-1].size
            lines.append(
                "Bidirectional: a second layer reads the sequence from its end, and the two "
                f"outputs of {units} are merged ({self.merge_mode}): "
                + (
                    f"one after the other they are 2 × {units} = {wide}."
                    if self.merge_mode == "concat"
                    else f"number by number they stay {wide}."
                )
            )
        sizes = ", ".join(f"{weight.name} {weight.shape}" for weight in self.weights)
        first = "layer" if len(self.units) == 1 else "first layer"
        lines.append(f"The {first}'s parameters: {self._formula()}. They are {sizes}.")
        return "\n\n".join(lines) + "\n"

    def _formula(self) -> str:
        """How the first layer's parameters are counted, in numbers."""
        features, units = self.input[-1].size, self.units[0]
        kernel = self.weights[0].shape
        gates = kernel[1] // units
        biases = sum(
            weight.n_elements for weight in self.weights if weight.name.endswith("bias")
        ) // (units * gates * (2 if self.bidirectional else 1))
        bias = f"{units}" if biases == 1 else f"{biases} × {units}"
        text = f"({features} + {units}) × {units} + {bias}"
        if gates > 1:
            text = f"{gates} × [{text}]"
        if self.bidirectional:
            text = f"2 × {text}" if gates > 1 else f"2 × [{text}]"
        return f"{text} = {sum(weight.n_elements for weight in self.weights):,}"

    def table(self) -> str:
        """One line for each axis, as aligned text."""
        return _show.aligned(self._lines(), 4)

    def to_json(self) -> dict[str, Any]:
        """All of it as dictionaries, lists, numbers and text."""
        return {
            "cell": self.cell,
            "units": list(self.units),
            "bidirectional": self.bidirectional,
            "merge_mode": self.merge_mode if self.bidirectional else None,
            "input": [axis._asdict() for axis in self.input],
            "step": [axis._asdict() for axis in self.step],
            "below": [[axis._asdict() for axis in layer] for layer in self.below],
            "output": [axis._asdict() for axis in self.output],
            "states": [[axis._asdict() for axis in state] for state in self.states],
            "weights": {weight.name: list(weight.shape) for weight in self.weights},
        }

    def _repr_html_(self) -> str:
        return _show.plain_table(self._lines())

    def _lines(self) -> list[tuple[str, ...]]:
        named = [("input", self.input), ("one step", self.step)]
        named += [(f"layer {at}", layer) for at, layer in enumerate(self.below, start=1)]
        named += [("output", self.output)]
        named += [(f"state {at}", state) for at, state in enumerate(self.states, start=1)]
        return [
            ("array", "axis", "name", "size", "meaning"),
            *(
                (
                    name,
                    str(at),
                    axis.name,
                    "open" if axis.size is None else str(axis.size),
                    axis.meaning,
                )
                for name, axes in named
                for at, axis in enumerate(axes)
            ),
        ]


def recurrent_shapes(
    *,
    units: int | Sequence[int],
    batch: int | None = None,
    time: int | None = None,
    features: int,
    return_sequences: bool = False,
    return_state: bool = False,
    cell: str = "LSTM",
    bidirectional: bool = False,
    merge_mode: str = "concat",
) -> RecurrentShapes:
    """How many dimensions a recurrent layer's inputs and outputs have, and what each means.

    Args:
        units: The size of the state; a list for layers on top of each other, the first first.
        batch: Sequences in a batch; None leaves it open.
        time: Steps in a sequence; None leaves it open.
        features: Numbers at each step.
        return_sequences: Whether the (last) layer gives an output for every step.
        return_state: Whether it gives its final states as well.
        cell: "SimpleRNN", "LSTM" or "GRU".
        bidirectional: Whether a second layer reads the sequence backwards.
        merge_mode: How the two directions are merged: "concat", "sum", "mul" or "ave".

    Returns:
        The axes, with their sizes and meanings.

    Raises:
        ArgumentError: A size is not a positive integer, or the cell or the merging is unknown.

    Examples:
        >>> shapes = recurrent_shapes(units=64, batch=8, time=50, features=10)
        >>> shapes.input_shape, shapes.output_shape
        ((8, 50, 10), (8, 64))

    References:
        Géron, Hands-On Machine Learning, 3rd edition, chapter 15, "Processing sequences using
        RNNs and CNNs". Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation
        9(8), 1997. Cho et al., "Learning phrase representations using RNN encoder-decoder for
        statistical machine translation", EMNLP 2014. The shapes are those of `keras.layers.LSTM`
        and its sisters.
    """
    one_of("cell", cell, ("SimpleRNN", "LSTM", "GRU"))
    one_of("merge_mode", merge_mode, ("concat", "sum", "mul", "ave"))
    positive("features", features)
    for name, size in (("batch", batch), ("time", time)):
        if size is not None:
            positive(name, size)
    stack = _stack(units)
    shape: Shape = (batch or 1, time or 1, features)
    weights: tuple[Weight, ...] = ()
    shapes: tuple[Shape, ...] = ()
    widths = []
    for place, size in enumerate(stack):
        last = place == len(stack) - 1
        layer: Layer = getattr(_layers, cell)(
            size,
            return_sequences=return_sequences if last else True,
            return_state=return_state and last,
        )
        if bidirectional:
            layer = _layers.Bidirectional(layer, merge_mode=merge_mode)
        weights = weights or layer.weights(shape)
        shapes = layer.output_shapes(shape)
        shape = shapes[0]
        widths.append(shape[-1])
    batches = Axis("batch", batch, "the sequences that go in together")
    times = Axis("time", time, "the steps of each sequence, in order")
    wide = Axis("features", features, "the numbers that describe each step")
    both = f", {merge_mode} of both directions" if bidirectional else ""
    outs = [
        Axis("units", n, f"the numbers that the layer computes: its hidden state{both}")
        for n in widths
    ]
    names = ("hidden state h", "cell state c") if cell == "LSTM" else ("hidden state h",)
    ways = ("", " of the way back") if bidirectional else ("",)
    finals = [f"the {name}{way} after its last step" for way in ways for name in names]
    sequence = len(shapes[0]) == 3
    return RecurrentShapes(
        cell=cell,
        units=stack,
        input=(batches, times, wide),
        step=(batches, wide),
        below=tuple((batches, times, out) for out in outs[:-1]),
        output=(batches, times, outs[-1]) if sequence else (batches, outs[-1]),
        states=tuple(
            (batches, Axis("units", state[-1], meaning))
            for state, meaning in zip(shapes[1:], finals, strict=False)
        ),
        weights=weights,
        bidirectional=bidirectional,
        merge_mode=merge_mode,
    )


def _stack(units: Any) -> tuple[int, ...]:
    """The units of each layer, from one number or a list."""
    if not isinstance(units, Sequence) or isinstance(units, str):
        return (positive("units", units),)
    if not units:
        raise ArgumentError(
            f"`units` must hold one size for each layer. Received: units={units!r}. Give at least "
            "one."
        )
    return tuple(positive("units", size) for size in units)


def _shape(axes: Sequence[Axis]) -> str:
    return f"({', '.join(axis.name for axis in axes)}) = {_sizes(axes)}"


def _sizes(axes: Sequence[Axis]) -> str:
    return f"({', '.join('any' if axis.size is None else str(axis.size) for axis in axes)})"


def _listed(axes: Sequence[Axis]) -> str:
    return "\n".join(
        f"{at}. **{axis.name}** ({'any number' if axis.size is None else axis.size}): "
        f"{axis.meaning}"
        for at, axis in enumerate(axes, start=1)
    )
