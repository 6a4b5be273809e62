"""Recurrent layers and layer wrappers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from scenelearn._checks import check_choice
from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers._checks import check_positive, check_rank
from scenelearn.sizing._layers._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class _Recurrent(Layer):
    """(batch, time, features) to (batch, units), or (batch, time, units) with `return_sequences`.

    Further inputs, such as initial states and masks, count no multiply-adds.
    """

    n_gates: ClassVar[int] = 1
    n_states: ClassVar[int] = 1

    units: int
    activation: str | None = "tanh"
    use_bias: bool = True
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    unroll: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "units")

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        batch, time, _ = check_rank(type(self).__name__, inputs[0], 3)
        out = (batch, time, self.units) if self.return_sequences else (batch, self.units)
        states = ((batch, self.units),) * self.n_states if self.return_state else ()
        return (out, *states)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        width = self.units * self.n_gates
        return (
            Weight("kernel", (inputs[0][-1], width)),
            Weight("recurrent_kernel", (self.units, width)),
            *((Weight("bias", self._bias_shape()),) if self.use_bias else ()),
        )

    def _bias_shape(self) -> Shape:
        return (self.units * self.n_gates,)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        batch, time, features = inputs[0]
        return batch * time * (features + self.units) * self.units * self.n_gates


class SimpleRNN(_Recurrent):
    """The simple recurrence h = tanh(x W + h U + b); see `keras.layers.SimpleRNN`.

    Raises:
        ArgumentError: if `units` is not a positive integer, or the input does not have three axes.

    Examples:
        >>> SimpleRNN(32).output_shape((8, 50, 10)), SimpleRNN(32).n_parameters((8, 50, 10))
        ((8, 32), 1376)
    """


class LSTM(_Recurrent):
    """Long short-term memory, with four gates and the states h and c; see `keras.layers.LSTM`.

    Raises:
        ArgumentError: if `units` is not a positive integer, or the input does not have three axes.

    Examples:
        >>> LSTM(32, return_state=True).output_shapes((8, 50, 10))
        ((8, 32), (8, 32), (8, 32))

    References:
        Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997.
    """

    n_gates: ClassVar[int] = 4
    n_states: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class GRU(_Recurrent):
    """A gated recurrent unit, with three gates and one state; see `keras.layers.GRU`.

    With `reset_after`, Keras' default, the bias has two rows: one for the input and one for the
    state.

    Raises:
        ArgumentError: if `units` is not a positive integer, or the input does not have three axes.

    Examples:
        >>> GRU(32).n_parameters((8, 50, 10)), GRU(32, reset_after=False).n_parameters((8, 50, 10))
        (4224, 4128)

    References:
        Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.
    """

    n_gates: ClassVar[int] = 3

    reset_after: bool = True

    def _bias_shape(self) -> Shape:
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)


@dataclass(frozen=True, slots=True)
class Bidirectional(Layer):
    """One recurrent layer per direction; see `keras.layers.Bidirectional`.

    Attributes:
        layer: the forward layer: `SimpleRNN`, `LSTM` or `GRU`.
        merge_mode: "concat", "sum", "mul" or "ave"; None returns both outputs.
        backward_layer: the backward layer, with `go_backwards=True`; None for a copy of `layer`.

    Raises:
        ArgumentError: if the merge mode is unknown, a layer is not recurrent, both have the same
            direction, they return different outputs, or their sizes cannot be merged.

    Examples:
        >>> Bidirectional(LSTM(32)).output_shape((8, 50, 10))
        (8, 64)

    References:
        Schuster and Paliwal, "Bidirectional recurrent neural networks", IEEE Transactions on
        Signal Processing 45(11), 1997.
    """

    layer: Layer
    merge_mode: str | None = "concat"
    backward_layer: Layer | None = None

    def __post_init__(self) -> None:
        check_choice("merge_mode", self.merge_mode, ("concat", "sum", "mul", "ave", None))
        forward = _recurrent("layer", self.layer)
        if self.backward_layer is None:
            if forward.go_backwards:
                raise ArgumentError(
                    "`layer` must be the forward layer, without go_backwards=True. Received: "
                    "go_backwards=True. The backward layer is a reversed copy of it."
                )
            return
        backward = _recurrent("backward_layer", self.backward_layer)
        if forward.go_backwards == backward.go_backwards:
            raise ArgumentError(
                "`layer` and `backward_layer` must have opposite directions. Received: "
                f"go_backwards={forward.go_backwards} for both. Set "
                f"go_backwards={not forward.go_backwards} for one of them."
            )
        for name in ("return_sequences", "return_state"):
            if getattr(forward, name) != getattr(backward, name):
                raise ArgumentError(
                    f"`layer` and `backward_layer` must have the same `{name}`. Received: "
                    f"{getattr(forward, name)} and {getattr(backward, name)}."
                )
        if self.merge_mode in {"sum", "mul", "ave"} and forward.units != backward.units:
            raise ArgumentError(
                f"merge_mode={self.merge_mode!r} needs two layers with equally many units. "
                f"Received: units={forward.units} and units={backward.units}. "
                "Use merge_mode='concat'."
            )

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        out, *states = self.layer.output_shapes(*inputs)
        back, *back_states = self._backward().output_shapes(*inputs)
        if self.merge_mode is None:
            merged: tuple[Shape, ...] = (out, back)
        elif self.merge_mode == "concat":
            merged = ((*out[:-1], out[-1] + back[-1]),)
        else:
            merged = (out,)
        return (*merged, *states, *back_states)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        layers = (("forward", self.layer), ("backward", self._backward()))
        return tuple(
            replace(weight, name=f"{direction}_{weight.name}")
            for direction, layer in layers
            for weight in layer.weights(*inputs)
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return self.layer.n_multiply_adds(*inputs) + self._backward().n_multiply_adds(*inputs)

    def _backward(self) -> Layer:
        return self.backward_layer or self.layer


@dataclass(frozen=True, slots=True)
class TimeDistributed(Layer):
    """A layer applied to every time step; see `keras.layers.TimeDistributed`.

    Attributes:
        layer: the layer to apply: at each step of (batch, time, ...) it reads (batch, ...).

    Raises:
        ArgumentError: if `layer` is not a layer description, or the input has fewer than three
            axes.

    Examples:
        >>> from scenelearn.sizing import Dense
        >>> TimeDistributed(Dense(3)).output_shape((8, 50, 10))
        (8, 50, 3)
    """

    layer: Layer

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer):
            raise ArgumentError(
                "`layer` must be a layer description such as sizing.Dense(3). "
                f"Received: layer={self.layer!r}."
            )

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        shapes = self.layer.output_shapes(_step(inputs[0]))
        return tuple((shape[0], inputs[0][1], *shape[1:]) for shape in shapes)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return self.layer.weights(_step(inputs[0]))

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return inputs[0][1] * self.layer.n_multiply_adds(_step(inputs[0]))


def _recurrent(name: str, layer: Any) -> _Recurrent:
    if isinstance(layer, _Recurrent):
        return layer
    raise ArgumentError(f"`{name}` must be a SimpleRNN, LSTM or GRU. Received: {name}={layer!r}.")


def _step(shape: Shape) -> Shape:
    """The shape of one time step: without the second axis."""
    if len(shape) < 3:
        raise ArgumentError(
            "TimeDistributed needs an input with at least three axes, (batch, time, ...). "
            f"Received: shape={shape}."
        )
    return (shape[0], *shape[2:])
