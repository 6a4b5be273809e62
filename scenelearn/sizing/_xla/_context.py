"""The context in which a layer call is lowered, and helpers of several layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn.sizing._layers import Shape
from scenelearn.sizing._xla._activations import activate
from scenelearn.sizing._xla._trace import Trace


@dataclass(slots=True)
class LoweringContext:
    """One layer call that is being lowered.

    Attributes:
        trace: the program to emit operations into.
        layer: the layer's description.
        weights: the layer's variables, in order.
        inputs: the arrays that it reads.
        shapes: the shapes of its outputs.
        training: whether this is a training step.
        updates: receives the new values of variables that gradients do not update.
        name: the call's name, for error messages.
    """

    trace: Trace
    layer: Any
    weights: Sequence[int]
    inputs: Sequence[int]
    shapes: Sequence[Shape]
    training: bool
    updates: dict[int, int]
    name: str = ""


def add_bias(trace: Trace, x: int, bias: int) -> int:
    """Add a bias per channel."""
    shape = trace.shape(x)
    return trace.add(x, trace.broadcast(bias, shape, (len(shape) - 1,)))


def add_bias_and_activation(context: LoweringContext, out: int) -> list[int]:
    """Add the layer's bias, if any, and apply its activation function."""
    if context.layer.use_bias:
        out = add_bias(context.trace, out, context.weights[-1])
    return [activate(context.trace, context.layer.activation, out)]


def broadcast_to(trace: Trace, x: int, shape: Shape) -> int:
    """Broadcast an array to a shape, as NumPy does."""
    old = trace.shape(x)
    if old == shape:
        return x
    return trace.broadcast(x, shape, tuple(range(len(shape) - len(old), len(shape))))
