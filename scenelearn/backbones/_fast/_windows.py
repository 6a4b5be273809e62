"""What layers with sliding windows share: padding, shifted copies, derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Pads = tuple[tuple[int, int], tuple[int, int]]


def compute_pads(padding: str, size: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> Pads:
    """Compute the zeros before and after each axis, as Keras and TensorFlow place them."""
    if padding == "valid":
        return (0, 0), (0, 0)
    totals = [
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel, strict=True)
    ]
    before_after = [(total // 2, total - total // 2) for total in totals]
    return before_after[0], before_after[1]


def shift_windows(
    x: Any, size: tuple[int, int], stride: int, pads: Pads, padding_value: float = 0.0
) -> list[Any]:
    """Return what the outputs see at each position of a window: (b, oh, ow, c) each, by row."""
    import jax.numpy as jnp
    from jax import lax

    kh, kw = size
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=padding_value)
    b, h, w, c = padded.shape
    down, right = (h - kh) // stride * stride + 1, (w - kw) // stride * stride + 1
    return [
        lax.slice(padded, (0, i, j, 0), (b, i + down, j + right, c), (1, stride, stride, 1))
        for i in range(kh)
        for j in range(kw)
    ]


def with_gradients(forward: Callable[..., Any], gradients: Callable[..., Any]) -> Any:
    """Give a convolution (x, kernel, stride, pads) its own derivative.

    Args:
        forward: the convolution.
        gradients: a function from (x, kernel, g, stride, pads) to the gradients with respect to x
            and to the kernel.
    """
    import jax

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def convolve(x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
        return forward(x, kernel, stride, pads)

    def keep_inputs(x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
        return forward(x, kernel, stride, pads), (x, kernel)

    def backward(stride: int, pads: Pads, inputs: Any, g: Any) -> Any:
        return gradients(*inputs, g, stride, pads)

    convolve.defvjp(keep_inputs, backward)
    return convolve
