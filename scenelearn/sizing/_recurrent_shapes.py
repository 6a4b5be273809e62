"""The shapes of the inputs, outputs and states of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn._checks import check_choice, check_integer
from scenelearn._json import dataclass_json
from scenelearn.errors import ArgumentError
from scenelearn.sizing import _format, _layers
from scenelearn.sizing._layers import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an array.

    Attributes:
        name: "batch", "time", "features" or "units".
        size: the size of the axis; None if it is not fixed.
        meaning: what the axis holds.
    """

    name: str
    size: int | None
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RecurrentShapes:
    """The shapes of a recurrent layer, or of a stack of them.

    Attributes:
        cell: "SimpleRNN", "LSTM" or "GRU".
        units: the units of each layer, from first to last.
        input: the three axes of the input.
        step: the two axes of the input at a single time step.
        intermediate_outputs: the axes of the output of each layer before the last.
        output: the axes of the last layer's output.
        states: the axes of each returned state.
        weights: the variables of the first layer.
        bidirectional: whether a second layer reads the sequence in reverse.
        merge_mode: how the outputs of the two directions are merged, if bidirectional.
    """

    cell: str
    units: tuple[int, ...]
    input: tuple[Axis, ...]
    step: tuple[Axis, ...]
    intermediate_outputs: tuple[tuple[Axis, ...], ...]
    output: tuple[Axis, ...]
    states: tuple[tuple[Axis, ...], ...]
    weights: tuple[Weight, ...]
    bidirectional: bool
    merge_mode: str

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The input's shape, with None for axes that are not fixed."""
        return tuple(axis.size for axis in self.input)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The output's shape, with None for axes that are not fixed."""
        return tuple(axis.size for axis in self.output)

    def explanation(self) -> str:
        """Explain the shapes in words, as Markdown."""
        lines = [
            f"The input of the {self.cell} layer has **{len(self.input)} dimensions**, "
            f"{_shape(self.input)}:",
            _listed(self.input),
            f"At a single time step, the cell reads a slice with {len(self.step)} dimensions, "
            f"{_shape(self.step)}: one vector per sample. The slice is not the whole input: time "
            "is the third dimension.",
            f"The output has **{len(self.output)} dimensions**, {_shape(self.output)}:",
            _listed(self.output),
        ]
        if len(self.output) == 3:
            lines.append("There is one output vector per time step (return_sequences=True).")
        else:
            lines.append(
                "Only the vector of the last time step is returned. With return_sequences=True, "
                "there is one per time step, and time is a third dimension."
            )
        if self.states:
            n = len(self.states)
            lines.append(
                f"With return_state=True, {'one state' if n == 1 else f'{n} states'} with "
                f"{len(self.states[0])} dimensions, {_shape(self.states[0])}, "
                f"{'is' if n == 1 else 'are'} returned as well: "
                + ("the hidden state h and the cell state c" if self.cell == "LSTM" else "h")
                + (" of each direction." if self.bidirectional else ".")
            )
        if len(self.units) > 1:
            lines.append(
                f"{len(self.units)} layers are stacked. All but the last return sequences, because "
                "the next layer needs three dimensions as well: "
                + " → ".join(map(_sizes, (self.input, *self.intermediate_outputs, self.output)))
                + "."
            )
        if self.bidirectional:
            units, width = self.units[-1], self.output[-1].size
            lines.append(
                "Bidirectional: a second layer reads the sequence in reverse, and the two outputs "
                f"of {units} units are "
                + (
                    f"concatenated to 2 × {units} = {width} units."
                    if self.merge_mode == "concat"
                    else f"merged elementwise ({self.merge_mode}) to {width} units."
                )
            )
        shapes = ", ".join(f"{weight.name} {weight.shape}" for weight in self.weights)
        layer = "layer" if len(self.units) == 1 else "first layer"
        lines.append(f"The {layer} has {self._formula()} parameters: {shapes}.")
        return "\n\n".join(lines) + "\n"

    def _formula(self) -> str:
        """The number of the first layer's parameters, with its calculation."""
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

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        merge_mode = self.merge_mode if self.bidirectional else None
        return {**dataclass_json(self), "merge_mode": merge_mode}

    def __repr__(self) -> str:
        stack = " → ".join(map(_sizes, (self.input, *self.intermediate_outputs, self.output)))
        return f"<RecurrentShapes: {self.cell}, {stack}>"

    def __str__(self) -> str:
        """One line per axis."""
        return _format.aligned(self._lines(), 5)

    def _repr_html_(self) -> str:
        return _format.html_table(self._lines())

    def _lines(self) -> list[tuple[str, ...]]:
        named = [("input", self.input), ("time step", self.step)]
        named += [
            (f"output of layer {at}", layer)
            for at, layer in enumerate(self.intermediate_outputs, start=1)
        ]
        named += [("output", self.output)]
        named += [(f"state {at}", state) for at, state in enumerate(self.states, start=1)]
        return [
            ("array", "axis", "name", "size", "meaning"),
            *(
                (
                    name,
                    str(at),
                    axis.name,
                    "any" if axis.size is None else str(axis.size),
                    axis.meaning,
                )
                for name, axes in named
                for at, axis in enumerate(axes)
            ),
        ]


def recurrent_shapes(
    *,
    units: int | Sequence[int],
    batch_size: int | None = None,
    timesteps: int | None = None,
    features: int,
    return_sequences: bool = False,
    return_state: bool = False,
    cell: str = "LSTM",
    bidirectional: bool = False,
    merge_mode: str = "concat",
) -> RecurrentShapes:
    """Return the dimensions of a recurrent layer's inputs and outputs, and what each one means.

    Args:
        units: the size of the state; a list for stacked layers, from first to last.
        batch_size: sequences per batch; None if it is not fixed.
        timesteps: time steps per sequence; None if it is not fixed.
        features: values per time step.
        return_sequences: whether the last layer returns an output for every time step.
        return_state: whether the last layer returns its final states as well.
        cell: "SimpleRNN", "LSTM" or "GRU".
        bidirectional: whether a second layer reads the sequence in reverse.
        merge_mode: how the two directions are merged: "concat", "sum", "mul" or "ave".

    Returns:
        The axes, with their sizes and meanings.

    Raises:
        ArgumentError: if a size is not a positive integer, or the cell or merge mode is unknown.

    Examples:
        >>> shapes = recurrent_shapes(units=64, batch_size=8, timesteps=50, features=10)
        >>> shapes.input_shape, shapes.output_shape
        ((8, 50, 10), (8, 64))

    References:
        Géron, Hands-On Machine Learning, 3rd edition, chapter 15, "Processing sequences using
        RNNs and CNNs". Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation
        9(8), 1997. Cho et al., "Learning phrase representations using RNN encoder-decoder for
        statistical machine translation", EMNLP 2014. The shapes are those of
        `keras.layers.SimpleRNN`, `LSTM` and `GRU`.
    """
    check_choice("cell", cell, ("SimpleRNN", "LSTM", "GRU"))
    check_choice("merge_mode", merge_mode, ("concat", "sum", "mul", "ave"))
    check_integer("features", features, low=1)
    for name, size in (("batch_size", batch_size), ("timesteps", timesteps)):
        if size is not None:
            check_integer(name, size, low=1)
    stack = _stack(units)
    shape: Shape = (batch_size or 1, timesteps or 1, features)
    weights: tuple[Weight, ...] = ()
    shapes: tuple[Shape, ...] = ()
    widths = []
    for at, size in enumerate(stack):
        last = at == len(stack) - 1
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
    batches = Axis("batch", batch_size, "the sequences of the batch")
    times = Axis("time", timesteps, "the time steps of each sequence, in order")
    inputs = Axis("features", features, "the values of each time step")
    both = f", {merge_mode} of both directions" if bidirectional else ""
    outs = [Axis("units", n, f"the values of the hidden state{both}") for n in widths]
    names = ("hidden state h", "cell state c") if cell == "LSTM" else ("hidden state h",)
    directions = ("", " of the reverse direction") if bidirectional else ("",)
    finals = [f"the {name}{which} after its last step" for which in directions for name in names]
    sequence = len(shapes[0]) == 3
    return RecurrentShapes(
        cell=cell,
        units=stack,
        input=(batches, times, inputs),
        step=(batches, inputs),
        intermediate_outputs=tuple((batches, times, out) for out in outs[:-1]),
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
    """The units of each layer, from an integer or a list."""
    if not isinstance(units, Sequence) or isinstance(units, str):
        return (check_integer("units", units, low=1),)
    if not units:
        raise ArgumentError(
            f"`units` must hold one size per layer. Received: units={units!r}. Pass at least one."
        )
    return tuple(check_integer("units", size, low=1) for size in units)


def _shape(axes: Sequence[Axis]) -> str:
    return f"({', '.join(axis.name for axis in axes)}) = {_sizes(axes)}"


def _sizes(axes: Sequence[Axis]) -> str:
    return f"({', '.join('any' if axis.size is None else str(axis.size) for axis in axes)})"


def _listed(axes: Sequence[Axis]) -> str:
    return "\n".join(
        f"{at}. **{axis.name}** ({'any size' if axis.size is None else axis.size}): {axis.meaning}"
        for at, axis in enumerate(axes, start=1)
    )
