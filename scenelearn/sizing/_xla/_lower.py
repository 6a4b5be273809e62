"""Layers as the operations that Keras' JAX backend emits."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable

from scenelearn.errors import UnknownLayerError
from scenelearn.sizing._arithmetic import same_pads
from scenelearn.sizing._xla._activations import ACTIVATIONS, activate, softmax
from scenelearn.sizing._xla._context import LoweringContext, add_bias_and_activation, broadcast_to
from scenelearn.sizing._xla._convolution import convolve, convolve_transpose, pool
from scenelearn.sizing._xla._jaxpr import traced
from scenelearn.sizing._xla._normalization import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    rms_normalization,
)
from scenelearn.sizing._xla._sequence import attention, bidirectional, embed, recurrent
from scenelearn.sizing._xla._trace import Trace


def lower(context: LoweringContext) -> list[int]:
    """Emit a layer's operations and return its output arrays.

    Raises:
        UnknownLayerError: if there is no lowering for the layer.
    """
    kind = type(context.layer).__name__
    lowered = LAYERS.get(re.sub(r"[123]D", "", kind))
    if lowered is None:
        raise UnknownLayerError(
            f'method="xla" does not support the layer "{context.name}" ({kind}). '
            'Use method="textbook".'
        )
    return lowered(context)


def _convolution(context: LoweringContext) -> list[int]:
    layer, trace = context.layer, context.trace
    x = context.inputs[0]
    if layer.padding == "causal":
        reach = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x = trace.pad(x, ((0, 0), (reach, 0), (0, 0)))
    strided = (layer.strides, layer.dilation_rate, layer.padding)
    out = convolve(
        trace, x, context.weights[0], context.shapes[0], groups=layer.groups, strided=strided
    )
    return add_bias_and_activation(context, out)


def _transposed(context: LoweringContext) -> list[int]:
    layer = context.layer
    out = convolve_transpose(
        context.trace,
        context.inputs[0],
        context.weights[0],
        context.shapes[0],
        strides=layer.strides,
    )
    return add_bias_and_activation(context, out)


def _depthwise(context: LoweringContext) -> list[int]:
    return add_bias_and_activation(context, _depthwise_convolution(context))


def _separable(context: LoweringContext) -> list[int]:
    return add_bias_and_activation(
        context,
        convolve(
            context.trace, _depthwise_convolution(context), context.weights[1], context.shapes[0]
        ),
    )


def _depthwise_convolution(context: LoweringContext) -> int:
    """The feature maps of a depthwise convolution."""
    layer, trace = context.layer, context.trace
    x, kernel = context.inputs[0], context.weights[0]
    channels = trace.shape(x)[-1]
    out_channels = channels * layer.depth_multiplier
    return convolve(
        trace,
        x,
        trace.view(kernel, (*trace.shape(kernel)[:-2], 1, out_channels)),
        (*context.shapes[0][:-1], out_channels),
        groups=channels,
        strided=(layer.strides, layer.dilation_rate, layer.padding),
    )


def _global_average(context: LoweringContext) -> list[int]:
    trace, x = context.trace, context.inputs[0]
    shape = trace.shape(x)
    axes = tuple(range(1, len(shape) - 1))
    total = trace.sum(x, axes)
    mean = trace.scale(total, 1 / math.prod(shape[axis] for axis in axes))
    return [trace.view(mean, context.shapes[0])]


def _global_maximum(context: LoweringContext) -> list[int]:
    trace, x = context.trace, context.inputs[0]
    shape = trace.shape(x)
    kept = (0, len(shape) - 1)
    axes = tuple(range(1, len(shape) - 1))
    small = tuple(shape[axis] for axis in kept)
    highest = trace.emit("reduce", small, (x,), (*axes, "max"))

    def back(g: int) -> list[tuple[int, int]]:
        # equal maxima share the gradient, as in JAX
        spread = trace.emit("broadcast", shape, (highest,), kept)
        is_max = trace.elementwise("compare", x, spread, attribute="==", itemsize=1)
        is_max = trace.elementwise("convert", is_max)
        count = trace.emit("reduce", small, (is_max,), axes)
        each = trace.elementwise("divide", g, count)
        part = trace.emit("broadcast", shape, (each,), kept)
        return [(x, trace.elementwise("multiply", part, is_max))]

    return [trace.view(trace.record(highest, (x,), back), context.shapes[0])]


def _upsampling(context: LoweringContext) -> list[int]:
    trace, out = context.trace, context.inputs[0]
    for axis, times in enumerate(context.layer.size, start=1):
        shape = trace.shape(out)
        wide = (*shape[: axis + 1], times, *shape[axis + 1 :])
        others = tuple(at for at in range(len(wide)) if at != axis + 1)
        out = trace.broadcast(out, wide, others)
        out = trace.view(out, (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))
    return [out]


def _dropout(context: LoweringContext) -> list[int]:
    """Random bits from a loop over two arrays, which are kept until the backward pass."""
    trace, x, layer = context.trace, context.inputs[0], context.layer
    if not context.training or not layer.rate:
        return [x]
    shape = trace.shape(x)
    kept = layer.noise_shape or (None,) * len(shape)
    noise = tuple(n if size is None else size for n, size in zip(shape, kept, strict=True))
    words = trace.buffer(noise), trace.buffer(noise)
    loop = trace.emit("while", (), words, "random")
    done = [trace.emit("view", noise, (word, loop), "loop") for word in words]
    bits = trace.elementwise("xor", *done)
    mask = trace.elementwise("compare", bits, trace.full(layer.rate, noise), itemsize=1)
    if noise != shape:
        mask = trace.emit("broadcast", shape, (mask,), tuple(range(len(shape))), itemsize=1)
    zero = trace.full(0.0, shape)
    scaled = trace.scale(x, 1 / (1 - layer.rate) if layer.rate < 1 else 0.0)
    out = trace.elementwise("select", mask, scaled, zero)
    return [
        trace.record(
            out, (scaled,), lambda g: ((scaled, trace.elementwise("select", mask, g, zero)),)
        )
    ]


def _prelu(context: LoweringContext) -> list[int]:
    trace, x = context.trace, context.inputs[0]
    shape = trace.shape(x)
    positive = trace.gate(x, 0.0, None)
    below = trace.gate(trace.negate(x), 0.0, None)
    slope = broadcast_to(trace, trace.negate(context.weights[0]), shape)
    return [trace.add(positive, trace.multiply(slope, below))]


def _pooling(maximum: bool) -> Callable[[LoweringContext], list[int]]:
    def lowered(context: LoweringContext) -> list[int]:
        layer, trace, x = context.layer, context.trace, context.inputs[0]
        shape, out = trace.shape(x), context.shapes[0]
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


def _extreme(kind: str, trace: Trace, a: int, b: int) -> int:
    """The elementwise maximum or minimum; equal elements share the gradient."""
    shape = trace.shape(a)
    out = trace.elementwise(kind, a, b)

    def back(g: int) -> list[tuple[int, int]]:
        zero, half = trace.full(0.0, shape), trace.full(0.5, shape)
        equal = trace.elementwise("compare", a, b, attribute="==", itemsize=1)
        parts = []
        for left, right in ((a, b), (b, a)):
            wins = trace.elementwise("compare", left, right, attribute=kind, itemsize=1)
            slope = trace.elementwise("select", wins, trace.full(1.0, shape), zero)
            slope = trace.elementwise("select", equal, half, slope)
            parts.append((left, trace.elementwise("multiply", g, slope)))
        return parts

    return trace.record(out, (a, b), back)


def _average(context: LoweringContext) -> list[int]:
    (total,) = _fold(Trace.add)(context)
    return [context.trace.scale(total, 1 / len(context.inputs))]


def _padding(context: LoweringContext) -> list[int]:
    return [
        context.trace.pad(context.inputs[0], ((0, 0), *map(tuple, context.layer.padding), (0, 0)))
    ]


def _cropping(context: LoweringContext) -> list[int]:
    starts = (0, *(low for low, _ in context.layer.cropping), 0)
    return [context.trace.slice(context.inputs[0], starts, context.shapes[0])]


def _einsum(context: LoweringContext) -> list[int]:
    """A matrix product; only equations that sum over the last axis are supported."""
    layer, trace, x = context.layer, context.trace, context.inputs[0]
    left, _, rest = layer.equation.replace(" ", "").partition(",")
    right, _, out = rest.partition("->")
    if not (right[0] == left[-1] and out == left[:-1] + right[1:]):
        raise UnknownLayerError(
            f'method="xla" supports EinsumDense only with sums over the last axis. Received: '
            f'equation={layer.equation!r} in "{context.name}". Use method="textbook".'
        )
    kernel = trace.view(context.weights[0], (trace.shape(x)[-1], math.prod(layer.kernel_shape[1:])))
    result = trace.view(trace.dot(x, kernel), context.shapes[0])
    if layer.bias_shape is not None:
        result = trace.add(result, broadcast_to(trace, context.weights[1], context.shapes[0]))
    return [activate(trace, layer.activation, result)]


def _fold(operation: Callable[[Trace, int, int], int]) -> Callable[[LoweringContext], list[int]]:
    def lowered(context: LoweringContext) -> list[int]:
        trace, shape = context.trace, context.shapes[0]
        parts = [broadcast_to(trace, part, shape) for part in context.inputs]
        return [functools.reduce(functools.partial(operation, trace), parts)]

    return lowered


def _operation(context: LoweringContext) -> list[int]:
    trace, kind = context.trace, context.layer.op
    shape = context.shapes[0]
    parts = [broadcast_to(trace, part, shape) for part in context.inputs]
    constant = context.layer.constant
    if kind in {"add", "subtract"}:
        if len(parts) == 1:
            return [trace.shift(parts[0], constant)]
        return [getattr(trace, kind)(*parts)]
    if kind in {"multiply", "divide", "truedivide"}:
        if len(parts) == 1:
            return [trace.scale(parts[0], constant)]
        return [getattr(trace, "multiply" if kind == "multiply" else "divide")(*parts)]
    if kind == "flip":
        return [trace.flip(parts[0], "space")]
    if kind in ACTIVATIONS and len(parts) == 1:
        return [ACTIVATIONS[kind](trace, parts[0])]
    if context.layer.traced is not None:
        return traced(context)
    raise UnknownLayerError(
        f'method="xla" does not support the operation "{context.name}" ({kind}). '
        'Use method="textbook".'
    )


def _map(
    emit: Callable[[LoweringContext, Trace, int], int],
) -> Callable[[LoweringContext], list[int]]:
    """The lowering of a layer with one input and one output."""
    return lambda context: [emit(context, context.trace, context.inputs[0])]


# By class name, without "1D", "2D" or "3D"
LAYERS: dict[str, Callable[[LoweringContext], list[int]]] = {
    "Conv": _convolution,
    "DepthwiseConv": _depthwise,
    "SeparableConv": _separable,
    "Dense": lambda context: add_bias_and_activation(
        context, context.trace.dot(context.inputs[0], context.weights[0])
    ),
    "BatchNormalization": batch_normalization,
    "GlobalAveragePooling": _global_average,
    "MaxPooling": _pooling(True),
    "AveragePooling": _pooling(False),
    "Add": _fold(Trace.add),
    "Multiply": _fold(Trace.multiply),
    "Subtract": _fold(Trace.subtract),
    "Concatenate": lambda context: [
        context.trace.concatenate(context.inputs, context.layer.axis % len(context.shapes[0]))
    ],
    "Activation": _map(lambda context, trace, x: activate(trace, context.layer.activation, x)),
    "ReLU": _map(
        lambda context, trace, x: trace.gate(
            x, 0.0, context.layer.max_value, leak=context.layer.negative_slope
        )
    ),
    "LeakyReLU": _map(
        lambda context, trace, x: trace.gate(x, None, None, leak=context.layer.negative_slope)
    ),
    "Softmax": _map(lambda context, trace, x: softmax(trace, x, context.layer.axis)),
    "Identity": lambda context: list(context.inputs),
    "Rescaling": _map(lambda _, trace, x: trace.shift(trace.scale(x, 0.5), 0.1)),
    "Normalization": _map(lambda _, trace, x: trace.scale(trace.shift(x, 0.1), 0.5)),
    "Flatten": _map(lambda context, trace, x: trace.view(x, context.shapes[0])),
    "Reshape": _map(lambda context, trace, x: trace.view(x, context.shapes[0])),
    "Embedding": _map(
        lambda context, trace, x: embed(trace, x, context.weights[0], context.shapes[0])
    ),
    "MultiHeadAttention": attention,
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), recurrent),
    "LayerNormalization": layer_normalization,
    "LayerScale": _map(
        lambda context, trace, x: trace.multiply(
            x, broadcast_to(trace, context.weights[0], context.shapes[0])
        )
    ),
    "Operation": _operation,
    "Cropping": _cropping,
    "ZeroPadding": _padding,
    "UpSampling": _upsampling,
    "ConvTranspose": _transposed,
    "GlobalMaxPooling": _global_maximum,
    "Permute": _map(lambda context, trace, x: trace.transpose(x, (0, *context.layer.dims))),
    "RepeatVector": _map(lambda context, trace, x: trace.broadcast(x, context.shapes[0], (0, 2))),
    "Maximum": _fold(functools.partial(_extreme, "maximum")),
    "Minimum": _fold(functools.partial(_extreme, "minimum")),
    "Average": _average,
    "ELU": _map(lambda _, trace, x: ACTIVATIONS["elu"](trace, x)),
    "PReLU": _prelu,
    "GroupNormalization": group_normalization,
    "RMSNormalization": rms_normalization,
    "Bidirectional": bidirectional,
    "EinsumDense": _einsum,
    "Dropout": _dropout,
    "Traced": traced,
}
