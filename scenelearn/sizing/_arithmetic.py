"""The arithmetic of layers, one function per formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scenelearn._checks import check_choice, check_integer
from scenelearn.errors import ArgumentError


def conv_output_length(
    length: int, kernel_size: int, *, stride: int = 1, padding: str = "valid", dilation: int = 1
) -> int:
    """Return the size of an axis after a convolution or pooling.

    "same" and "causal": ⌈n / s⌉. "valid": ⌊(n − d (k − 1) − 1) / s⌋ + 1.

    Args:
        length: n, the size of the axis, at least 1.
        kernel_size: k, the size of the window.
        stride: s, the step between neighboring windows.
        padding: "valid", "same" or "causal".
        dilation: d, the distance between neighboring taps of the window.

    Returns:
        The output's size along the axis.

    Raises:
        ArgumentError: if a size is not a positive integer, the padding is unknown, or a "valid"
            window is larger than the axis.

    Examples:
        >>> conv_output_length(75, 3, stride=2, padding="same")
        38

    References:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016,
        relationships 6 and 12.
    """
    _check_sizes(length=length, kernel_size=kernel_size, stride=stride, dilation=dilation)
    if check_choice("padding", padding, ("valid", "same", "causal")) != "valid":
        return -(-length // stride)
    window = dilation * (kernel_size - 1) + 1
    if window > length:
        raise ArgumentError(
            'With padding="valid", the window must fit into the input. Received: a window of '
            f'{window} for an axis of {length}. Use padding="same", a smaller window or a larger '
            "input."
        )
    return (length - window) // stride + 1


def same_pads(size: int, out: int, window: int, stride: int) -> tuple[int, int]:
    """Return the "same" padding at both ends of an axis; a dilated window includes its gaps."""
    total = max((out - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def conv_transpose_output_length(
    length: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: str = "valid",
    output_padding: int | None = None,
    dilation: int = 1,
) -> int:
    """Return the size of an axis after a transposed convolution, as Keras computes it.

    "same": n s. "valid": n s + max(k' − s, 0), where k' = d (k − 1) + 1. With output padding p:
    (n − 1) s + k' − 2 q + p, where q is ⌊k' / 2⌋ for "same" and 0 for "valid".

    Args:
        length: n, the size of the axis, at least 1.
        kernel_size: k, the size of the window.
        stride: s, the factor by which the axis grows.
        padding: "valid" or "same".
        output_padding: p, or None for Keras' own choice.
        dilation: d, the distance between neighboring taps of the window.

    Returns:
        The output's size along the axis.

    Raises:
        ArgumentError: if a size is not a positive integer or the padding is unknown.

    Examples:
        >>> conv_transpose_output_length(38, 3, stride=2, padding="same")
        76
    """
    _check_sizes(length=length, kernel_size=kernel_size, stride=stride, dilation=dilation)
    check_choice("padding", padding, ("valid", "same"))
    window = dilation * (kernel_size - 1) + 1
    if output_padding is None:
        return length * stride + (max(window - stride, 0) if padding == "valid" else 0)
    pad = window // 2 if padding == "same" else 0
    return (length - 1) * stride + window - 2 * pad + output_padding


def conv_parameters(
    kernel_size: Sequence[int],
    in_channels: int,
    filters: int,
    *,
    groups: int = 1,
    use_bias: bool = True,
) -> int:
    """Return the number of parameters of a convolution: (k₁ k₂ … C / g + 1) F.

    Args:
        kernel_size: k, the window along each axis.
        in_channels: C, the number of input channels.
        filters: F, the number of output feature maps.
        groups: g, the number of groups into which the channels are split.
        use_bias: whether each feature map has a bias, the + 1.

    Returns:
        The number of weights and biases.

    Raises:
        ArgumentError: if a size is not a positive integer.

    Examples:
        >>> [conv_parameters((3, 3), c, f) for c, f in ((3, 100), (100, 200), (200, 400))]
        [2800, 180200, 720400]

    References:
        Géron, Hands-On Machine Learning, 3rd edition, chapter 14, "Memory requirements".
    """
    _check_sizes(in_channels=in_channels, filters=filters, groups=groups)
    taps = math.prod(check_integer("kernel_size", size, low=1) for size in kernel_size)
    return (taps * in_channels // groups + use_bias) * filters


def receptive_field(
    layers: Sequence[tuple[int, int, int]],
) -> tuple[int, int, float]:
    """Return the receptive field of one element of the last feature map, along one axis.

    Starting from r = 1, j = 1, t = 0, each window of k taps with stride s and p elements of padding
    in front of the axis gives r += (k − 1) j, t += ((k − 1) / 2 − p) j, j *= s.

    Args:
        layers: (k, s, p) of each layer, in order; for a dilated window, k = d (k − 1) + 1.

    Returns:
        (r, j, t): the size of the receptive field, the effective stride between the fields of
        neighboring elements, and the center of the first field. All are in input elements; 0 is
        the center of the first one.

    Raises:
        ArgumentError: if a window or a stride is not a positive integer.

    Examples:
        >>> receptive_field([(3, 2, 0), (3, 2, 0), (3, 2, 0)])
        (15, 8, 7.0)

    References:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
        Distill, 2019.
    """
    size, jump, start = 1, 1, 0.0
    for kernel_size, stride, padding in layers:
        _check_sizes(kernel_size=kernel_size, stride=stride)
        start += ((kernel_size - 1) / 2 - padding) * jump
        size += (kernel_size - 1) * jump
        jump *= stride
    return size, jump, start


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        check_integer(name, size, low=1)
