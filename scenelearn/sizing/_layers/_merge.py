"""Layers with several inputs, and single operations of `keras.ops`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scenelearn.errors import ArgumentError

from ._checks import equal_shapes
from ._layer import Layer, Shape


@dataclass(frozen=True, slots=True)
class _Merge(Layer):
    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        if len(inputs) < 2:
            raise ArgumentError(
                f"{type(self).__name__} merges two or more inputs. Received: {len(inputs)}."
            )
        return (equal_shapes(type(self).__name__, inputs),)


@dataclass(frozen=True, slots=True)
class Add(_Merge):
    """The sum of its inputs; see `keras.layers.Add`.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Add().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Average(_Merge):
    """The mean of its inputs; see `keras.layers.Average`.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Average().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Maximum(_Merge):
    """The largest of its inputs, element by element; see `keras.layers.Maximum`.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Maximum().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Minimum(_Merge):
    """The smallest of its inputs, element by element; see `keras.layers.Minimum`.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Minimum().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Multiply(_Merge):
    """The product of its inputs; see `keras.layers.Multiply`.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Multiply().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Subtract(_Merge):
    """The first input less the second; see `keras.layers.Subtract`.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Subtract().output_shape((1, 8, 8, 4), (1, 1, 1, 4))
        (1, 8, 8, 4)
    """


@dataclass(frozen=True, slots=True)
class Concatenate(Layer):
    """Its inputs side by side along an axis; see `keras.layers.Concatenate`.

    Raises:
        ArgumentError: The other axes differ.

    Examples:
        >>> Concatenate().output_shape((1, 8, 8, 4), (1, 8, 8, 6))
        (1, 8, 8, 10)
    """

    axis: int = -1

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        axis = self.axis % len(inputs[0])
        others = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
        if len(others) > 1:
            listed = " and ".join(map(str, inputs))
            raise ArgumentError(
                f"Concatenate along axis {self.axis} needs inputs that are alike in every other "
                f"axis. Received: shapes {listed}."
            )
        size = sum(shape[axis] for shape in inputs)
        return ((*inputs[0][:axis], size, *inputs[0][axis + 1 :]),)


@dataclass(frozen=True, slots=True)
class Dot(Layer):
    """Products of two inputs summed over an axis of each; see `keras.layers.Dot`.

    Raises:
        ArgumentError: The axes have different sizes.

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
                f"Dot over axes {self.axes} needs equal sizes there. Received: shapes {left} and "
                f"{right}."
            )
        return first, second


@dataclass(frozen=True, slots=True)
class Operation(Layer):
    """An elementwise operation of `keras.ops` on its inputs, and perhaps a constant.

    Attributes:
        kind: Its name in `keras.ops`, as "add" or "multiply".
        constant: A number or array that it takes as well; None for none.
        shape: The shape of its output where it is not that of its inputs; the batch axis first.

    Raises:
        ArgumentError: The shapes do not match.

    Examples:
        >>> Operation("add", constant=3.0).output_shape((1, 8, 8, 4))
        (1, 8, 8, 4)
    """

    kind: str
    constant: Any = None
    shape: Shape | None = None

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        if self.shape is not None:
            return ((inputs[0][0], *self.shape[1:]),)
        return (equal_shapes(f"The operation {self.kind}", inputs),)
