"""What each layer becomes: the operations that Keras's JAX backend asks for."""

from __future__ import annotations

import math
from collections.abc import Callable

from scenelearn.errors import UnknownLayerError
from scenelearn.sizing._arithmetic import same_pads

from ._activations import ACTIVATIONS, activate, softmax
from ._convolution import convolve, convolve_back, pool
from ._normalize import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    rms_normalization,
)
from ._sequence import attention, bidirectional, embed, recurrent
from ._site import Site, finish, stretched


def lower(site: Site) -> list[int]:
    """Write a layer's operations; the arrays of its outputs."""
    kind = type(site.layer).__name__
    if kind not in LAYERS:
        raise UnknownLayerError(
            f'The XLA rule does not know the layer "{site.name}" ({kind}). Use rule="textbook".'
        )
    return LAYERS[kind](site)


# Layers


def _convolution(site: Site) -> list[int]:
    layer, trace = site.layer, site.trace
    x = site.inputs[0]
    if layer.padding == "causal":
        reach = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
        x = trace.pad(x, ((0, 0), (reach, 0), (0, 0)))
    strided = (layer.strides, layer.dilation_rate, layer.padding)
    out = convolve(trace, x, site.weights[0], site.shapes[0], groups=layer.groups, strided=strided)
    return finish(site, out)


def _transposed(site: Site) -> list[int]:
    layer = site.layer
    out = convolve_back(
        site.trace, site.inputs[0], site.weights[0], site.shapes[0], strides=layer.strides
    )
    return finish(site, out)


def _depthwise(site: Site) -> list[int]:
    return finish(site, _each_channel(site))


def _separable(site: Site) -> list[int]:
    return finish(site, convolve(site.trace, _each_channel(site), site.weights[1], site.shapes[0]))


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
    return finish(site, site.trace.dot(site.inputs[0], site.weights[0]))


def _gap(site: Site) -> list[int]:
    trace, x = site.trace, site.inputs[0]
    shape = trace.shape(x)
    axes = tuple(range(1, len(shape) - 1))
    total = trace.sum(x, axes)
    mean = trace.scale(total, 1 / math.prod(shape[axis] for axis in axes))
    return [trace.view(mean, site.shapes[0])]


def _global_maximum(site: Site) -> list[int]:
    trace, x = site.trace, site.inputs[0]
    shape = trace.shape(x)
    kept = (0, len(shape) - 1)
    axes = tuple(range(1, len(shape) - 1))
    small = tuple(shape[axis] for axis in kept)
    highest = trace.emit("reduce", small, (x,), (*axes, "max"))

    def back(g: int) -> list[tuple[int, int]]:
        # the winners share the gradient, as in JAX
        spread = trace.emit("broadcast", shape, (highest,), kept)
        wins = trace.elementwise("compare", x, spread, attribute="==", itemsize=1)
        wins = trace.elementwise("convert", wins)
        count = trace.emit("reduce", small, (wins,), axes)
        share = trace.elementwise("divide", g, count)
        part = trace.emit("broadcast", shape, (share,), kept)
        return [(x, trace.elementwise("multiply", part, wins))]

    return [trace.view(trace.record(highest, (x,), back), site.shapes[0])]


def _upsampling(site: Site) -> list[int]:
    trace, out = site.trace, site.inputs[0]
    for axis, times in enumerate(site.layer.size, start=1):
        shape = trace.shape(out)
        wide = (*shape[: axis + 1], times, *shape[axis + 1 :])
        others = tuple(at for at in range(len(wide)) if at != axis + 1)
        out = trace.broadcast(out, wide, others)
        out = trace.view(out, (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))
    return [out]


def _repeated(site: Site) -> list[int]:
    return [site.trace.broadcast(site.inputs[0], site.shapes[0], (0, 2))]


def _dropout(site: Site) -> list[int]:
    """Random words by a loop over two arrays, which are kept until the gradient has passed."""
    trace, x, layer = site.trace, site.inputs[0], site.layer
    if not site.training or not layer.rate:
        return [x]
    shape = trace.shape(x)
    kept = layer.noise_shape or (None,) * len(shape)
    noise = tuple(n if one is None else one for n, one in zip(shape, kept, strict=True))
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


def _prelu(site: Site) -> list[int]:
    trace, x = site.trace, site.inputs[0]
    shape = trace.shape(x)
    positive = trace.gate(x, 0.0, None)
    below = trace.gate(trace.negate(x), 0.0, None)
    slope = stretched(trace, trace.negate(site.weights[0]), shape)
    return [trace.add(positive, trace.multiply(slope, below))]


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


def _extreme(kind: str) -> Callable[[Site], list[int]]:
    """The largest or the smallest of several arrays; equal ones share the gradient."""

    def lowered(site: Site) -> list[int]:
        trace, shape = site.trace, site.shapes[0]
        parts = [stretched(trace, part, shape) for part in site.inputs]
        out = parts[0]
        for part in parts[1:]:
            out = _two(site, kind, out, part)
        return [out]

    return lowered


def _two(site: Site, kind: str, a: int, b: int) -> int:
    trace = site.trace
    shape = trace.shape(a)
    out = trace.elementwise(kind, a, b)

    def back(g: int) -> list[tuple[int, int]]:
        zero, half = trace.full(0.0, shape), trace.full(0.5, shape)
        equal = trace.elementwise("compare", a, b, attribute="==", itemsize=1)
        found = []
        for one, other in ((a, b), (b, a)):
            wins = trace.elementwise("compare", one, other, attribute=kind, itemsize=1)
            share = trace.elementwise("select", wins, trace.full(1.0, shape), zero)
            share = trace.elementwise("select", equal, half, share)
            found.append((one, trace.elementwise("multiply", g, share)))
        return found

    return trace.record(out, (a, b), back)


def _average(site: Site) -> list[int]:
    (total,) = _fold("add")(site)
    return [site.trace.scale(total, 1 / len(site.inputs))]


def _padding(site: Site) -> list[int]:
    return [site.trace.pad(site.inputs[0], ((0, 0), *map(tuple, site.layer.padding), (0, 0)))]


def _cropping(site: Site) -> list[int]:
    starts = (0, *(low for low, _ in site.layer.cropping), 0)
    return [site.trace.slice(site.inputs[0], starts, site.shapes[0])]


def _einsum(site: Site) -> list[int]:
    """An equation that sums over the last axis alone is a product of matrices."""
    layer, trace, x = site.layer, site.trace, site.inputs[0]
    left, _, rest = layer.equation.replace(" ", "").partition(",")
    right, _, out = rest.partition("->")
    if not (right[0] == left[-1] and out == left[:-1] + right[1:]):
        raise UnknownLayerError(
            f'The XLA rule knows of EinsumDense only products with the last axis. "{site.name}" '
            f'is {layer.equation!r}. Use rule="textbook".'
        )
    kernel = trace.view(site.weights[0], (trace.shape(x)[-1], math.prod(layer.kernel_shape[1:])))
    made = trace.view(trace.dot(x, kernel), site.shapes[0])
    if layer.bias_shape is not None:
        made = trace.add(made, stretched(trace, site.weights[1], site.shapes[0]))
    return [activate(trace, layer.activation, made)]


def _fold(operation: str) -> Callable[[Site], list[int]]:
    def lowered(site: Site) -> list[int]:
        trace = site.trace
        shape = site.shapes[0]
        parts = [stretched(trace, part, shape) for part in site.inputs]
        out = parts[0]
        for part in parts[1:]:
            out = getattr(trace, operation)(out, part)
        return [out]

    return lowered


def _operation(site: Site) -> list[int]:
    trace, kind = site.trace, site.layer.kind
    shape = site.shapes[0]
    parts = [stretched(trace, part, shape) for part in site.inputs]
    constant = site.layer.constant
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
    "BatchNormalization": batch_normalization,
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
        ),
        _same,
    ),
    "Rescaling": lambda site: [site.trace.shift(site.trace.scale(site.inputs[0], 0.5), 0.1)],
    "Normalization": lambda site: [site.trace.scale(site.trace.shift(site.inputs[0], 0.1), 0.5)],
    **dict.fromkeys(
        ("Flatten", "Reshape"), lambda site: [site.trace.view(site.inputs[0], site.shapes[0])]
    ),
    "Embedding": lambda site: [embed(site.trace, site.inputs[0], site.weights[0], site.shapes[0])],
    "MultiHeadAttention": attention,
    **dict.fromkeys(("SimpleRNN", "LSTM", "GRU"), recurrent),
    "LayerNormalization": layer_normalization,
    "Scale": lambda site: [
        site.trace.multiply(site.inputs[0], stretched(site.trace, site.weights[0], site.shapes[0]))
    ],
    "Operation": _operation,
    **dict.fromkeys(("Cropping1D", "Cropping2D", "Cropping3D"), _cropping),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"), _padding),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D", "UpSampling3D"), _upsampling),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(
        ("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"), _global_maximum
    ),
    "Permute": lambda site: [site.trace.transpose(site.inputs[0], (0, *site.layer.dims))],
    "RepeatVector": _repeated,
    "Maximum": _extreme("maximum"),
    "Minimum": _extreme("minimum"),
    "Average": _average,
    "ELU": lambda site: [ACTIVATIONS["elu"](site.trace, site.inputs[0])],
    "PReLU": _prelu,
    "GroupNormalization": group_normalization,
    "RMSNormalization": rms_normalization,
    "Bidirectional": bidirectional,
    "EinsumDense": _einsum,
    "Dropout": _dropout,
}
