"""Layers with several inputs, and single operations of `keras.ops`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers._checks import broadcast_shapes
from scenelearn.sizing._layers._layer import Layer, Shape

if TYPE_CHECKING:
    from scenelearn.sizing._jaxprs import TracedCall


@dataclass(frozen=True, slots=True)
class _Merge(Layer):
    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        if len(inputs) < 2:
            raise ArgumentError(
                f"{type(self).__name__} merges two or more inputs. Received: {len(inputs)}."
            )
        return (broadcast_shapes(type(self).__name__, inputs),)


class Add(_Merge):
    """The sum of the inputs; see `keras.layers.Add`.

    Raises:
        ArgumentError: if the shapes do not broadcast, or there are fewer than two inputs.

    Examples:
        >>> Add().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


class Average(_Merge):
    """The mean of the inputs; see `keras.layers.Average`.

    Raises:
        ArgumentError: if the shapes do not broadcast, or there are fewer than two inputs.

    Examples:
        >>> Average().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


class Maximum(_Merge):
    """The elementwise maximum of the inputs; see `keras.layers.Maximum`.

    Raises:
        ArgumentError: if the shapes do not broadcast, or there are fewer than two inputs.

    Examples:
        >>> Maximum().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


class Minimum(_Merge):
    """The elementwise minimum of the inputs; see `keras.layers.Minimum`.

    Raises:
        ArgumentError: if the shapes do not broadcast, or there are fewer than two inputs.

    Examples:
        >>> Minimum().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


class Multiply(_Merge):
    """The product of the inputs; see `keras.layers.Multiply`.

    Raises:
        ArgumentError: if the shapes do not broadcast, or there are fewer than two inputs.

    Examples:
        >>> Multiply().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


class Subtract(_Merge):
    """The first input minus the second; see `keras.layers.Subtract`.

    Raises:
        ArgumentError: if the shapes do not broadcast, or there are fewer than two inputs.

    Examples:
        >>> Subtract().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Concatenate(Layer):
    """The inputs joined along an axis; see `keras.layers.Concatenate`.

    Raises:
        ArgumentError: if the inputs differ along another axis.

    Examples:
        >>> Concatenate().output_shape((1, 8, 8, 4), (1, 8, 8, 6))
        (1, 8, 8, 10)
    """

    axis: int = -1

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        axis = self.axis % len(inputs[0])
        others = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
        if len(others) > 1:
            raise ArgumentError(
                f"Concatenate along axis {self.axis} needs inputs with the same size along every "
                f"other axis. Received: shapes {' and '.join(map(str, inputs))}."
            )
        size = sum(shape[axis] for shape in inputs)
        return ((*inputs[0][:axis], size, *inputs[0][axis + 1 :]),)


@dataclass(frozen=True, slots=True)
class Dot(Layer):
    """The products of two inputs, summed over one axis of each; see `keras.layers.Dot`.

    Raises:
        ArgumentError: if the two axes differ in size.

    Examples:
        >>> Dot(axes=1).output_shape((8, 5), (8, 5))
        (8, 1)
    """

    axes: Any

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        left, right = inputs
        first, second = self._axes(left, right)
        rest = (
            *(size for at, size in enumerate(left) if at != first),
            *(size for at, size in enumerate(right) if at not in {0, second}),
        )
        return (rest if len(rest) > 1 else (*rest, 1),)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        first, _ = self._axes(*inputs)
        return math.prod(self.output_shapes(*inputs)[0]) * inputs[0][first]

    def _axes(self, left: Shape, right: Shape) -> tuple[int, int]:
        first, second = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        first, second = first % len(left), second % len(right)
        if left[first] != right[second]:
            raise ArgumentError(
                f"Dot over axes {self.axes} needs axes of equal size. Received: shapes {left} and "
                f"{right}."
            )
        return first, second


@dataclass(frozen=True, slots=True)
class Operation(Layer):
    """A single operation of `keras.ops`, elementwise unless `shape` is given.

    Attributes:
        op: its name in `keras.ops`, such as "add" or "multiply".
        constant: a number or array operand; None if there is none.
        shape: the output's shape where it differs from that of the inputs, batch axis included.
        traced: its call, where it was read from a Keras model.

    Raises:
        ArgumentError: if the shapes do not broadcast.

    Examples:
        >>> Operation("add", constant=3.0).output_shape((1, 8, 8, 4))
        (1, 8, 8, 4)
    """

    op: str
    constant: Any = None
    shape: Shape | None = None
    traced: TracedCall | None = field(default=None, repr=False, compare=False)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        if self.shape is None:
            return (broadcast_shapes(f"The operation {self.op}", inputs),)
        if self.traced is not None:
            return self.traced.output_shapes(inputs)
        return ((inputs[0][0], *self.shape[1:]),)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        if self.shape is None or self.traced is None:
            return 0
        return self.traced.n_multiply_adds(inputs)
