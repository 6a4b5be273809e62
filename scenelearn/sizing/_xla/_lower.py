"""What each layer becomes: the operations that Keras's JAX backend asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn.errors import UnknownLayerError
from scenelearn.sizing._layers import Shape

from ._activations import ACTIVATIONS, activate, softmax
from ._convolution import convolve, pool
from ._sequence import attend, embed, recur
from ._trace import Trace

_MOMENTUM = 0.99  # of batch normalisation; any other costs the same


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


def lower(site: Site) -> list[int]:
    """Write a layer's operations; the arrays of its outputs."""
    kind = type(site.layer).__name__
    if kind not in LAYERS:
        raise UnknownLayerError(
            f'The XLA rule does not know the layer "{site.name}" ({kind}). Use rule="textbook".'
        )
    return LAYERS[kind](site)


def same_pads(size: int, out: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The padding of "same" at both ends of an axis."""
    total = max((out - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


# Layers


def add_bias(trace: Trace, x: int, bias: int) -> int:
    """Add one number to each channel."""
    shape = trace.shape(x)
    return trace.add(x, trace.broadcast(bias, shape, (len(shape) - 1,)))


def _finish(site: Site, out: int) -> list[int]:
    if site.layer.use_bias:
        out = add_bias(site.trace, out, site.weights[-1])
    return [activate(site.trace, site.layer.activation, out)]


def _convolution(site: Site) -> list[int]:
    layer, trace = site.layer, site.trace
    x = site.inputs[0]
    if layer.padding == "causal":
        reach = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x = trace.pad(x, ((0, 0), (reach, 0), (0, 0)))
    strided = (layer.strides, layer.dilation_rate, layer.padding)
    out = convolve(trace, x, site.weights[0], site.shapes[0], groups=layer.groups, strided=strided)
    return _finish(site, out)


def _depthwise(site: Site) -> list[int]:
    return _finish(site, _each_channel(site))


def _separable(site: Site) -> list[int]:
    return _finish(site, convolve(site.trace, _each_channel(site), site.weights[1], site.shapes[0]))


def _each_channel(site: Site) -> int:
    """The maps that the depthwise kernel makes of each channel."""
    layer, trace = site.layer, site.trace
    x, kernel = site.inputs[0], site.weights[0]
    channels = trace.shape(x)[-1]
    made = channels * layer.depth_multiplier
    return convolve(
        trace,
        x,
        trace.view(kernel, (*trace.shape(kernel)[:-2], 1, made)),
        (*site.shapes[0][:-1], made),
        groups=channels,
        strided=(layer.strides, layer.dilation_rate, layer.padding),
    )


def _dense(site: Site) -> list[int]:
    return _finish(site, site.trace.dot(site.inputs[0], site.weights[0]))


def _batch_normalization(site: Site) -> list[int]:
    layer, trace = site.layer, site.trace
    x = site.inputs[0]
    shape = trace.shape(x)
    axis = layer.axis % len(shape)
    small = (shape[axis],)
    weights = list(site.weights)
    gamma = weights.pop(0) if layer.scale else None
    beta = weights.pop(0) if layer.center else None
    moving = weights
    if site.training and layer.trainable:
        axes = tuple(at for at in range(len(shape)) if at != axis)
        n = math.prod(shape) // small[0]
        mean = trace.scale(trace.sum(x, axes), 1 / n)
        variance = _variance(trace, x, axes, n)
        for variable, value in zip(moving, (mean, variance), strict=True):
            old = trace.elementwise("multiply", variable, trace.full(_MOMENTUM, small))
            new = trace.elementwise("multiply", value, trace.full(1 - _MOMENTUM, small))
            site.updates[variable] = trace.elementwise("add", old, new)
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
    """The mean over some axes, without a gradient."""
    small = tuple(size for at, size in enumerate(trace.shape(x)) if at not in axes)
    return trace.elementwise(
        "multiply", trace.emit("reduce", small, (x,), axes), trace.full(1 / n, small)
    )


def _variance(trace: Trace, x: int, axes: tuple[int, ...], n: int) -> int:
    """The mean square distance from the mean, with the gradient that jax.numpy.var has."""
    shape = trace.shape(x)
    mean = _mean(trace, x, axes, n)
    small = trace.shape(mean)
    kept = tuple(at for at in range(len(shape)) if at not in axes)
    centred = trace.elementwise("subtract", x, trace.emit("broadcast", shape, (mean,), kept))
    square = trace.elementwise("multiply", centred, centred)
    out = _mean(trace, square, axes, n)

    def back(g: int) -> list[tuple[int, int]]:
        twice = trace.elementwise("multiply", centred, trace.full(2, shape))
        each = trace.elementwise("divide", g, trace.full(n, small))
        part = trace.elementwise("multiply", trace.emit("broadcast", shape, (each,), kept), twice)
        total = trace.emit("reduce", small, (trace.elementwise("negate", part),), axes)
        share = trace.elementwise("divide", total, trace.full(n, small))
        return [(x, trace.elementwise("add", part, trace.emit("broadcast", shape, (share,), kept)))]

    return trace.record(out, (x,), back)


def _rsqrt(trace: Trace, x: int) -> int:
    out = trace.elementwise("rsqrt", x)

    def back(g: int) -> list[tuple[int, int]]:
        slope = trace.elementwise(
            "multiply", trace.elementwise("divide", out, x), trace.full(-0.5, trace.shape(x))
        )
        return [(x, trace.elementwise("multiply", g, slope))]

    return trace.record(out, (x,), back)


def _gap(site: Site) -> list[int]:
    trace, x = site.trace, site.inputs[0]
    shape = trace.shape(x)
    axes = tuple(range(1, len(shape) - 1))
    total = trace.sum(x, axes)
    mean = trace.scale(total, 1 / math.prod(shape[axis] for axis in axes))
    return [trace.view(mean, site.shapes[0])]


def _pooling(maximum: bool) -> Callable[[Site], list[int]]:
    def lowered(site: Site) -> list[int]:
        layer, trace, x = site.layer, site.trace, site.inputs[0]
        shape, out = trace.shape(x), site.shapes[0]
        space = len(shape) - 2
        window, strides = layer.pool_size, layer.strides
        pads: list[tuple[int, int]] = [(0, 0)] * space
        if layer.padding == "same":
            pads = [
                same_pads(size, n, width, stride)
                for size, n, width, stride in zip(
                    shape[1:-1], out[1:-1], window, strides, strict=True
                )
            ]
        return [pool(trace, x, out, window=window, strides=strides, pads=pads, maximum=maximum)]

    return lowered


def _fold(operation: str) -> Callable[[Site], list[int]]:
    def lowered(site: Site) -> list[int]:
        trace = site.trace
        shape = site.shapes[0]
        parts = [_stretched(trace, part, shape) for part in site.inputs]
        out = parts[0]
        for part in parts[1:]:
            out = getattr(trace, operation)(out, part)
        return [out]

    return lowered


def _stretched(trace: Trace, x: int, shape: Shape) -> int:
    old = trace.shape(x)
    if old == shape:
        return x
    return trace.broadcast(x, shape, tuple(range(len(shape) - len(old), len(shape))))


def _layer_normalization(site: Site) -> list[int]:
    layer, trace, x = site.layer, site.trace, site.inputs[0]
    shape = trace.shape(x)
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    axis %= len(shape)
    rest = tuple(at for at in range(len(shape)) if at != axis)
    n = shape[axis]
    weights = list(site.weights)
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


def _attention(site: Site) -> list[int]:
    layer = site.layer
    query, value, *rest = site.inputs
    return [
        attend(
            site.trace,
            query,
            value,
            rest[0] if rest else value,
            site.weights,
            heads=layer.num_heads,
            depth=layer.key_dim,
            value_depth=layer.value_dim or layer.key_dim,
            use_bias=layer.use_bias,
        )
    ]


def _recurrent(site: Site) -> list[int]:
    layer, trace = site.layer, site.trace
    every, last = recur(
        trace,
        site.inputs[0],
        site.weights,
        cell=type(layer).__name__,
        units=layer.units,
        sequences=layer.return_sequences,
        reverse=layer.go_backwards,
    )
    out = every if layer.return_sequences else last
    return [out, *([last] * (len(site.shapes) - 1))]


def _operation(site: Site) -> list[int]:
    trace, kind = site.trace, site.layer.kind
    shape = site.shapes[0]
    parts = [_stretched(trace, part, shape) for part in site.inputs]
    constant = site.layer.constant
    if kind in {"add", "subtract"}:
        if len(parts) == 1:
            return [trace.shift(parts[0], constant)]
        return [getattr(trace, kind)(*parts)]
    if kind in {"multiply", "divide", "truedivide"}:
        if len(parts) == 1:
            return [trace.scale(parts[0], constant)]
        return [getattr(trace, "multiply" if kind == "multiply" else "divide")(*parts)]
    if kind in ACTIVATIONS and len(parts) == 1:
        return [ACTIVATIONS[kind](trace, parts[0])]
    raise UnknownLayerError(
        f'The XLA rule does not know the operation "{site.name}" ({kind}). Use rule="textbook".'
    )


def _same(site: Site) -> list[int]:
    return list(site.inputs)


LAYERS: dict[str, Callable[[Site], list[int]]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "BatchNormalization": _batch_normalization,
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"), _gap
    ),
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D", "MaxPooling3D"), _pooling(True)),
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D", "AveragePooling3D"), _pooling(False)),
    "Add": _fold("add"),
    "Multiply": _fold("multiply"),
    "Subtract": _fold("subtract"),
    "Concatenate": lambda site: [
        site.trace.concatenate(site.inputs, site.layer.axis % len(site.shapes[0]))
    ],
    "Activation": lambda site: [activate(site.trace, site.layer.activation, site.inputs[0])],
    "ReLU": lambda site: [
        site.trace.gate(site.inputs[0], 0.0, site.layer.max_value, leak=site.layer.negative_slope)
    ],
    "LeakyReLU": lambda site: [
        site.trace.gate(site.inputs[0], None, None, leak=site.layer.negative_slope)
    ],
    "Softmax": lambda site: [softmax(site.trace, site.inputs[0], site.layer.axis)],
    **dict.fromkeys(
        (
            "Identity",
            "InputLayer",
            "ActivityRegularization",
            "Dropout",
            "SpatialDropout2D",
            "StochasticDepth",
        ),
        _same,
    ),
    "Rescaling": lambda site: [site.trace.shift(site.trace.scale(site.inputs[0], 0.5), 0.1)],
    "Normalization": lambda site: [site.trace.scale(site.trace.shift(site.inputs[0], 0.1), 0.5)],
    **dict.fromkeys(
        ("Flatten", "Reshape"), lambda site: [site.trace.view(site.inputs[0], site.shapes[0])]
    ),
    "Embedding": lambda site: [embed(site.trace, site.inputs[0], site.weights[0], site.shapes[0])],
    "MultiHeadAttention": _attention,
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), _recurrent),
    "LayerNormalization": _layer_normalization,
    "Scale": lambda site: [
        site.trace.multiply(site.inputs[0], _stretched(site.trace, site.weights[0], site.shapes[0]))
    ],
    "Operation": _operation,
    "Cropping2D": lambda site: [
        site.trace.slice(
            site.inputs[0], (0, *(low for low, _ in site.layer.cropping), 0), site.shapes[0]
        )
    ],
    "ZeroPadding2D": lambda site: [
        site.trace.pad(site.inputs[0], ((0, 0), *map(tuple, site.layer.padding), (0, 0)))
    ],
}
