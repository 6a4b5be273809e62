"""One call of a layer, and what the lowering of several kinds of layers shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn.sizing._layers import Shape

from ._activations import activate
from ._trace import Trace


@dataclass(slots=True)
class Site:
    """One call of a layer, while it is written down.

    Attributes:
        trace: The program being written.
        layer: The layer's description.
        weights: Its variables, in its order.
        inputs: The arrays that it reads.
        shapes: The shapes of its outputs.
        training: Whether this is a training step.
        updates: Where a layer leaves the new value of a variable that gradients do not move.
        name: What the call is called, for errors.
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
    """Add one number to each channel."""
    shape = trace.shape(x)
    return trace.add(x, trace.broadcast(bias, shape, (len(shape) - 1,)))


def finish(site: Site, out: int) -> list[int]:
    """Add the layer's bias, if it has one, and apply its activation."""
    if site.layer.use_bias:
        out = add_bias(site.trace, out, site.weights[-1])
    return [activate(site.trace, site.layer.activation, out)]


def stretched(trace: Trace, x: int, shape: Shape) -> int:
    """An array repeated along the axes that it lacks, or has as axes of one."""
    old = trace.shape(x)
    if old == shape:
        return x
    return trace.broadcast(x, shape, tuple(range(len(shape) - len(old), len(shape))))
