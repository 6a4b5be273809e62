"""Normalization layers as the operations that Keras' JAX backend emits."""

from __future__ import annotations

import math

from scenelearn.sizing._xla._context import LoweringContext
from scenelearn.sizing._xla._trace import Trace

_MOMENTUM = 0.99  # of the moving averages; the memory does not depend on it


def batch_normalization(context: LoweringContext) -> list[int]:
    """Normalize each channel by its mean and variance over the batch."""
    layer, trace = context.layer, context.trace
    x = context.inputs[0]
    shape = trace.shape(x)
    axis = layer.axis % len(shape)
    small = (shape[axis],)
    weights = list(context.weights)
    gamma = weights.pop(0) if layer.scale else None
    beta = weights.pop(0) if layer.center else None
    moving = weights
    if context.training and layer.trainable:
        axes = tuple(at for at in range(len(shape)) if at != axis)
        n = math.prod(shape) // small[0]
        mean = trace.scale(trace.sum(x, axes), 1 / n)
        variance = _variance(trace, x, axes, n)
        for variable, value in zip(moving, (mean, variance), strict=True):
            old = trace.elementwise("multiply", variable, trace.full(_MOMENTUM, small))
            new = trace.elementwise("multiply", value, trace.full(1 - _MOMENTUM, small))
            context.updates[variable] = trace.elementwise("add", old, new)
    else:
        mean, variance = moving
    inverse = _rsqrt(trace, trace.shift(variance, 1e-3))
    if gamma is not None:
        inverse = trace.multiply(inverse, gamma)
    offset = trace.multiply(trace.negate(mean), inverse)
    if beta is not None:
        offset = trace.add(offset, beta)
    scaled = trace.multiply(x, trace.broadcast(inverse, shape, (axis,)))
    return [trace.add(scaled, trace.broadcast(offset, shape, (axis,)))]


def _mean(trace: Trace, x: int, axes: tuple[int, ...], n: int) -> int:
    """The mean over axes, without a gradient."""
    small = tuple(size for at, size in enumerate(trace.shape(x)) if at not in axes)
    return trace.elementwise(
        "multiply", trace.emit("reduce", small, (x,), axes), trace.full(1 / n, small)
    )


def _variance(trace: Trace, x: int, axes: tuple[int, ...], n: int) -> int:
    """The variance over axes, with the gradient of jax.numpy.var."""
    shape = trace.shape(x)
    mean = _mean(trace, x, axes, n)
    small = trace.shape(mean)
    kept = tuple(at for at in range(len(shape)) if at not in axes)
    centered = trace.elementwise("subtract", x, trace.emit("broadcast", shape, (mean,), kept))
    square = trace.elementwise("multiply", centered, centered)
    out = _mean(trace, square, axes, n)

    def back(g: int) -> list[tuple[int, int]]:
        twice = trace.elementwise("multiply", centered, trace.full(2, shape))
        each = trace.elementwise("divide", g, trace.full(n, small))
        part = trace.elementwise("multiply", trace.emit("broadcast", shape, (each,), kept), twice)
        total = trace.emit("reduce", small, (trace.elementwise("negate", part),), axes)
        mean_part = trace.emit(
            "broadcast", shape, (trace.elementwise("divide", total, trace.full(n, small)),), kept
        )
        return [(x, trace.elementwise("add", part, mean_part))]

    return trace.record(out, (x,), back)


def _rsqrt(trace: Trace, x: int) -> int:
    out = trace.elementwise("rsqrt", x)

    def back(g: int) -> list[tuple[int, int]]:
        slope = trace.elementwise(
            "multiply", trace.elementwise("divide", out, x), trace.full(-0.5, trace.shape(x))
        )
        return [(x, trace.elementwise("multiply", g, slope))]

    return trace.record(out, (x,), back)


def layer_normalization(context: LoweringContext) -> list[int]:
    """Normalize each sample by its mean and variance along an axis."""
    layer, trace, x = context.layer, context.trace, context.inputs[0]
    shape = trace.shape(x)
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    axis %= len(shape)
    rest = tuple(at for at in range(len(shape)) if at != axis)
    n = shape[axis]
    weights = list(context.weights)
    mean = trace.scale(trace.sum(x, (axis,)), 1 / n)
    variance = _variance(trace, x, (axis,), n)
    inverse = _rsqrt(trace, trace.shift(variance, 1e-3))
    inverse = trace.broadcast(inverse, shape, rest)
    if layer.scale:
        inverse = trace.multiply(inverse, trace.broadcast(weights.pop(0), shape, (axis,)))
    offset = trace.multiply(trace.broadcast(trace.negate(mean), shape, rest), inverse)
    if layer.center:
        offset = trace.add(offset, trace.broadcast(weights.pop(0), shape, (axis,)))
    return [trace.add(trace.multiply(x, inverse), offset)]


def group_normalization(context: LoweringContext) -> list[int]:
    """Normalize each group of channels of a sample by its mean and variance."""
    layer, trace, x = context.layer, context.trace, context.inputs[0]
    shape = trace.shape(x)
    at = layer.axis % len(shape)
    groups = shape[at] if layer.groups == -1 else layer.groups
    wide = (*shape[:at], groups, shape[at] // groups, *shape[at + 1 :])
    grouped = trace.view(x, wide)
    axes = tuple(axis for axis in range(1, len(wide)) if axis != at)
    n = math.prod(wide[axis] for axis in axes)
    mean = trace.scale(trace.sum(grouped, axes), 1 / n)
    variance = _variance(trace, grouped, axes, n)
    small = (shape[0], *wide[at : at + 2])  # one value per sample and channel
    inverse = trace.broadcast(_rsqrt(trace, trace.shift(variance, 1e-3)), small, (0, 1))
    weights = [trace.view(weight, small[1:]) for weight in context.weights]
    if layer.scale:
        inverse = trace.multiply(inverse, trace.broadcast(weights.pop(0), small, (1, 2)))
    offset = trace.multiply(trace.broadcast(trace.negate(mean), small, (0, 1)), inverse)
    if layer.center:
        offset = trace.add(offset, trace.broadcast(weights.pop(0), small, (1, 2)))
    places = (0, at, at + 1)
    scaled = trace.multiply(grouped, trace.broadcast(inverse, wide, places))
    return [trace.view(trace.add(scaled, trace.broadcast(offset, wide, places)), shape)]


def rms_normalization(context: LoweringContext) -> list[int]:
    """Divide each sample by its root mean square along an axis."""
    layer, trace, x = context.layer, context.trace, context.inputs[0]
    shape = trace.shape(x)
    axis = (layer.axis if isinstance(layer.axis, int) else layer.axis[0]) % len(shape)
    rest = tuple(at for at in range(len(shape)) if at != axis)
    square = trace.scale(trace.sum(trace.multiply(x, x), (axis,)), 1 / shape[axis])
    inverse = trace.broadcast(_rsqrt(trace, trace.shift(square, 1e-3)), shape, rest)
    scaled = trace.multiply(x, inverse)
    return [trace.multiply(scaled, trace.broadcast(context.weights[0], shape, (axis,)))]
