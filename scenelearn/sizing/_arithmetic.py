"""The arithmetic of layers, one formula a function."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scenelearn.errors import ArgumentError


def output_length(
    length: int, kernel_size: int, *, stride: int = 1, padding: str = "valid", dilation: int = 1
) -> int:
    """How many places a window has along an axis.

    "same" and "causal": ⌈n / s⌉. "valid": ⌊(n − d (k − 1) − 1) / s⌋ + 1.

    Args:
        length: n, the size of the axis, at least 1.
        kernel_size: k, the size of the window.
        stride: s, the step from one place to the next.
        padding: "valid", "same" or "causal".
        dilation: d, the distance between neighboring taps of the window.

    Returns:
        The size of the axis after the convolution or pooling.

    Raises:
        ArgumentError: A size is not a positive integer, the padding is unknown, or a "valid"
            window is larger than the axis.

    Examples:
        >>> output_length(75, 3, stride=2, padding="same")
        38

    References:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016,
        relationships 6 and 12.
    """
    from ._layers._checks import one_of, positive

    for name, value in (
        ("length", length),
        ("kernel_size", kernel_size),
        ("stride", stride),
        ("dilation", dilation),
    ):
        positive(name, value)
    if one_of("padding", padding, ("valid", "same", "causal")) != "valid":
        return -(-length // stride)
    reach = dilation * (kernel_size - 1) + 1
    if reach > length:
        raise ArgumentError(
            f'With padding="valid" the window must fit into the input. Received: a window of '
            f'{reach} on an axis of {length}. Use padding="same", a smaller window or a larger '
            "input."
        )
    return (length - reach) // stride + 1


def same_pads(size: int, out: int, window: int, stride: int) -> tuple[int, int]:
    """The padding of "same" at both ends of an axis; a dilated window counts with its gaps."""
    total = max((out - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def transposed_length(
    length: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: str = "valid",
    output_padding: int | None = None,
    dilation: int = 1,
) -> int:
    """The size of an axis after a transposed convolution, as Keras computes it.

    "same": n s. "valid": n s + max(k' − s, 0), where k' = d (k − 1) + 1. With an output padding
    p: (n − 1) s + k' − 2 q + p, where q is ⌊k' / 2⌋ for "same" and 0 for "valid".

    Args:
        length: n, the size of the axis, at least 1.
        kernel_size: k, the size of the window.
        stride: s, by how much the axis grows.
        padding: "valid" or "same".
        output_padding: p, or None for Keras's own choice.
        dilation: d, the distance between neighboring taps of the window.

    Returns:
        The size of the axis.

    Raises:
        ArgumentError: A size is not a positive integer or the padding is unknown.

    Examples:
        >>> transposed_length(38, 3, stride=2, padding="same")
        76
    """
    from ._layers._checks import one_of, positive

    for name, value in (
        ("length", length),
        ("kernel_size", kernel_size),
        ("stride", stride),
        ("dilation", dilation),
    ):
        positive(name, value)
    one_of("padding", padding, ("valid", "same"))
    reach = dilation * (kernel_size - 1) + 1
    if output_padding is None:
        return length * stride + (max(reach - stride, 0) if padding == "valid" else 0)
    pad = reach // 2 if padding == "same" else 0
    return (length - 1) * stride + reach - 2 * pad + output_padding


def convolution_parameters(
    kernel_size: Sequence[int],
    in_channels: int,
    filters: int,
    *,
    groups: int = 1,
    use_bias: bool = True,
) -> int:
    """The numbers that a convolution learns: (k₁ k₂ … C / g + 1) F.

    Args:
        kernel_size: k, the window along each axis.
        in_channels: C, the channels of the input, not multiplied by anything else.
        filters: F, the feature maps that come out.
        groups: g, into how many groups the channels are split.
        use_bias: Whether each feature map has a bias: the + 1.

    Returns:
        The number of weights and biases.

    Raises:
        ArgumentError: A size is not a positive integer.

    Examples:
        >>> [convolution_parameters((3, 3), c, f) for c, f in ((3, 100), (100, 200), (200, 400))]
        [2800, 180200, 720400]

    References:
        Géron, Hands-On Machine Learning, 3rd edition, chapter 14, "Memory requirements".
    """
    from ._layers._checks import positive

    for name, value in (("in_channels", in_channels), ("filters", filters), ("groups", groups)):
        positive(name, value)
    taps = math.prod(positive("kernel_size", one) for one in kernel_size)
    return (taps * in_channels // groups + use_bias) * filters


def receptive_field(
    layers: Sequence[tuple[int, int, int]],
) -> tuple[int, int, float]:
    """How far one element of the last map sees, along one axis of the input.

    With r₀ = 1, j₀ = 1, t₀ = 0 and for each window of k taps, stride s and p elements of padding
    before: r += (k − 1) j, t += ((k − 1) / 2 − p) j, j *= s.

    Args:
        layers: (k, s, p) of each layer in turn; for a dilated window k = d (k − 1) + 1.

    Returns:
        (r, j, t): the size of the field, the distance between the fields of neighbors
        (effective stride), and the center of the first field, in elements of the input where 0
        is the middle of the first.

    Raises:
        ArgumentError: A window or a stride is not a positive integer.

    Examples:
        >>> receptive_field([(3, 2, 0), (3, 2, 0), (3, 2, 0)])
        (15, 8, 7.0)

    References:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
        Distill, 2019.
    """
    from ._layers._checks import positive

    field, jump, start = 1, 1, 0.0
    for kernel_size, stride, before in layers:
        positive("kernel_size", kernel_size)
        positive("stride", stride)
        start += ((kernel_size - 1) / 2 - before) * jump
        field += (kernel_size - 1) * jump
        jump *= stride
    return field, jump, start
