"""Convolutions and pooling with their gradients, as XLA:CPU lowers them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from scenelearn.sizing._layers import Shape
from scenelearn.sizing._xla._trace import Trace


def convolve(
    trace: Trace, x: int, kernel: int, out: Shape, *, groups: int = 1, strided: Any = None
) -> int:
    """Emit a convolution of (batch, *space, channels) with (*space, channels / groups, filters).

    The backward pass has two convolutions. The one for the input reads a reversed, transposed copy
    of the kernel. The one for the kernel convolves the input with the gradient, with batch and
    channels swapped: XLA:CPU first copies both into that order. With groups, the kernel's gradient
    is computed densely, for every pair of channels, and masked.
    """
    program = trace.program
    shape, kernel_shape = trace.shape(x), trace.shape(kernel)
    rank = len(shape)
    space = rank - 2
    source = x
    if program.kind[x] == "pad" and program.attribute[x][1] == 0.0:
        source = program.inputs[x][0]  # padding with zeros folds into the convolution
    attribute = ("forward", groups, strided)
    if _is_swapped(
        trace.shape(source)[1:-1], kernel_shape[:space], strided, groups, padded=source != x
    ):
        reads = (trace.emit("reverse", kernel_shape, (kernel,)), source)
        result = trace.emit("convolution", out, reads, ("swapped", groups, strided))
    else:
        result = trace.emit("convolution", out, (source, kernel), attribute)

    def back(g: int) -> Iterable[tuple[int, int]]:
        if x in trace.differentiable:
            turned_shape = (*kernel_shape[:space], kernel_shape[-1] // groups, shape[-1])
            if math.prod(kernel_shape[:space]) == 1 and 1 in kernel_shape[space:]:
                turned = trace.view(kernel, turned_shape)
            else:
                turned = trace.emit("transpose", turned_shape, (kernel,), "reversed")
            yield x, trace.emit("convolution", shape, (g, turned), ("input", groups, strided))
        if kernel in trace.differentiable:
            yield (
                kernel,
                kernel_gradient(trace, x, g, kernel_shape, groups=groups, strided=strided),
            )

    return trace.record(result, (x, kernel), back)


def convolve_transpose(trace: Trace, x: int, kernel: int, out: Shape, *, strides: Any) -> int:
    """Emit a transposed convolution: the input gradient of a convolution.

    The kernel is (*space, filters, channels). JAX reads it reversed, with the last axes swapped.
    """
    kernel_shape = trace.shape(kernel)
    turned = trace.emit(
        "transpose", (*kernel_shape[:-2], kernel_shape[-1], kernel_shape[-2]), (kernel,), "reversed"
    )
    result = trace.emit("convolution", out, (x, turned), ("input", 1, strides))

    def back(g: int) -> Iterable[tuple[int, int]]:
        if x in trace.differentiable:
            yield x, trace.emit("convolution", trace.shape(x), (g, kernel), ("forward", 1, strides))
        if kernel in trace.differentiable:
            yield kernel, kernel_gradient(trace, g, x, kernel_shape, groups=1, strided=strides)

    return trace.record(result, (x, kernel), back)


def _is_swapped(image: Shape, window: Shape, strided: Any, groups: int, *, padded: bool) -> bool:
    """AlgebraicSimplifier::SwapConvOperands: whether the kernel is larger than the image."""
    if groups > 1:
        return False
    strides, dilations, padding = strided or ((1,) * len(window), (1,) * len(window), "valid")
    kernel_size = image_size = 1
    for size, width, stride, dilation in zip(image, window, strides, dilations, strict=True):
        if (
            size == width
            and stride == 1
            and dilation == 1
            and not padded
            and (padding == "valid" or width == 1)
        ):
            continue  # the whole axis is summed
        kernel_size *= width
        image_size *= size
    return kernel_size > image_size


def kernel_gradient(
    trace: Trace, x: int, g: int, kernel_shape: Shape, *, groups: int, strided: Any
) -> int:
    """Emit the gradient of a convolution's kernel from its input and its output's gradient."""
    rank = len(kernel_shape)
    space = rank - 2
    axes = tuple(range(1, rank - 1))
    channels, filters = trace.shape(x)[-1], kernel_shape[-1]
    by_channel = trace.transpose(x, (rank - 1, *axes, 0))
    by_place = trace.transpose(g, (*axes, 0, rank - 1))
    dense = trace.emit(
        "convolution",
        (channels, *kernel_shape[:space], filters),
        (by_channel, by_place),
        ("kernel", strided, kernel_shape),
    )
    order = (*range(1, space + 1), 0, space + 1)
    if groups == 1:
        return trace.transpose(dense, order)
    turned = trace.transpose(dense, order)
    shape = trace.shape(turned)
    mask = trace.emit(
        "compare", shape, (trace.emit("iota", shape, (), "groups"),), groups, itemsize=1
    )
    masked = trace.elementwise("select", mask, turned, trace.full(0.0, shape))
    wide = trace.view(masked, (*kernel_shape[:space], groups, channels // groups, filters))
    return trace.emit("reduce", kernel_shape, (wide,), (space,))


def scatter_into_maxima(trace: Trace, x: int, g: int, attribute: tuple[Any, ...]) -> int:
    """Emit the gradient of the maxima of windows; see `pool`."""
    shape, out, every = trace.shape(x), trace.shape(g), attribute[2]
    padded = x
    if any(map(any, every)):
        wide = tuple(size + sum(pad) for size, pad in zip(shape, every, strict=True))
        padded = trace.emit("pad", wide, (x,), (every, -math.inf))
    whole = trace.shape(padded)
    coordinates = tuple(trace.emit("iota", whole, (), axis) for axis in range(len(whole)))
    windows = trace.emit(
        "reduce_window_tuple", (1 + len(whole), *out), (padded, *coordinates), attribute
    )
    n = math.prod(out)
    table = trace.emit("concatenate_tuple", (n, len(whole)), (windows,))
    column = trace.emit("copy", (n, 1), (g,), "column")
    scattered = trace.emit("scatter", whole, (trace.full(0.0, whole), table, column))
    if whole == shape:
        return scattered
    starts = tuple(low for low, _ in every)
    return trace.emit("slice", shape, (scattered,), (starts, (1,) * len(shape)))


def pool(
    trace: Trace,
    x: int,
    out: Shape,
    *,
    window: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    maximum: bool,
) -> int:
    """Emit the maximum or mean of each window.

    For the gradient of a maximum, XLA:CPU searches each window for its maximum again, with its four
    coordinates (SelectAndScatterExpander), and scatters into a padded feature map.
    """
    shape = trace.shape(x)
    every = ((0, 0), *pads, (0, 0))
    attribute = (tuple(window), tuple(strides), every, maximum)
    if maximum:
        result = trace.emit("reduce_window", out, (x,), attribute)

        def back_maximum(g: int) -> Iterable[tuple[int, int]]:
            yield x, scatter_into_maxima(trace, x, g, attribute)

        return trace.record(result, (x,), back_maximum)

    summed = trace.emit("reduce_window", out, (x,), attribute)

    def back_sum(g: int) -> Iterable[tuple[int, int]]:
        # the gradient dilated with zeros, then summed over the window again
        spread = tuple(
            (size - 1) * stride + 1 + 2 * (width - 1)
            for size, stride, width in zip(out, (1, *strides, 1), (1, *window, 1), strict=True)
        )
        dilated = trace.emit("pad", spread, (g,), ("spread", 0.0))
        yield (
            x,
            trace.emit(
                "reduce_window", shape, (dilated,), (window, (1,) * len(window), attribute, "back")
            ),
        )

    trace.record(summed, (x,), back_sum)
    if any(map(any, pads)):
        small = (1, *out[1:-1], 1)
        count = trace.emit("constant_array", small, (), ("count", attribute))
        count = trace.broadcast(count, out, tuple(range(len(out))))
        return trace.divide(summed, count)
    return trace.scale(summed, 1 / math.prod(window))
