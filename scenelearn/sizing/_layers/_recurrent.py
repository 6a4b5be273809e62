"""Recurrent layers, and layers that wrap another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ._checks import one_of, positive, rank
from ._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class _Recurrent(Layer):
    """(batch, time, features) to (batch, units), or (batch, time, units) with sequences."""

    n_gates: ClassVar[int] = 1
    n_states: ClassVar[int] = 1

    units: int
    activation: str | None = "tanh"
    use_bias: bool = True
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False

    def __post_init__(self) -> None:
        positive("units", self.units)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        batch, time, _ = rank(type(self).__name__, inputs[0], 3)
        out = (batch, time, self.units) if self.return_sequences else (batch, self.units)
        states = ((batch, self.units),) * self.n_states if self.return_state else ()
        return (out, *states)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        wide = self.units * self.n_gates
        return (
            Weight("kernel", (inputs[0][-1], wide)),
            Weight("recurrent_kernel", (self.units, wide)),
            *((Weight("bias", self._bias_shape()),) if self.use_bias else ()),
        )

    def _bias_shape(self) -> Shape:
        return (self.units * self.n_gates,)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        batch, time, features = inputs[0]
        return batch * time * (features + self.units) * self.units * self.n_gates


@dataclass(frozen=True, slots=True)
class SimpleRNN(_Recurrent):
    """h = tanh(x W + h U + b) at each step; see `keras.layers.SimpleRNN`.

    Raises:
        ArgumentError: `units` is not positive or the input has not three axes.

    Examples:
        >>> SimpleRNN(32).output_shape((8, 50, 10)), SimpleRNN(32).n_parameters((8, 50, 10))
        ((8, 32), 1376)
    """


@dataclass(frozen=True, slots=True)
class LSTM(_Recurrent):
    """Four gates and two states, h and c; see `keras.layers.LSTM`.

    Raises:
        ArgumentError: `units` is not positive or the input has not three axes.

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
    """Three gates and one state; see `keras.layers.GRU`.

    With `reset_after` (Keras's default) input and state have a bias each: two rows.

    Raises:
        ArgumentError: `units` is not positive or the input has not three axes.

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
    """A recurrent layer forwards and another backwards; see `keras.layers.Bidirectional`.

    Raises:
        ArgumentError: The way of merging is unknown.

    Examples:
        >>> Bidirectional(LSTM(32)).output_shape((8, 50, 10))
        (8, 64)
    """

    layer: Layer
    merge_mode: str | None = "concat"
    backward_layer: Layer | None = None

    def __post_init__(self) -> None:
        one_of("merge_mode", self.merge_mode, ("concat", "sum", "mul", "ave", None))

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
        named = (("forward", self.layer), ("backward", self._backward()))
        return tuple(
            replace(weight, name=f"{side}_{weight.name}")
            for side, layer in named
            for weight in layer.weights(*inputs)
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return self.layer.n_multiply_adds(*inputs) + self._backward().n_multiply_adds(*inputs)

    def _backward(self) -> Layer:
        return self.backward_layer or self.layer


@dataclass(frozen=True, slots=True)
class TimeDistributed(Layer):
    """A layer at every time step, with the same weights; see `keras.layers.TimeDistributed`.

    Examples:
        >>> from scenelearn.sizing import Dense
        >>> TimeDistributed(Dense(3)).output_shape((8, 50, 10))
        (8, 50, 3)
    """

    layer: Layer

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        batch, time, *rest = inputs[0]
        return tuple(
            (batch, time, *shape[1:]) for shape in self.layer.output_shapes((batch, *rest))
        )

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return self.layer.weights((inputs[0][0], *inputs[0][2:]))

    def n_multiply_adds(self, *inputs: Shape) -> int:
        batch, time, *rest = inputs[0]
        return time * self.layer.n_multiply_adds((batch, *rest))
