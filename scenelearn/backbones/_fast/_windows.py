"""What the forms that look through a window share: padding, shifted copies, derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Pads = tuple[tuple[int, int], tuple[int, int]]


def pads_of(padding: str, size: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> Pads:
    """Zeros before and after each of the two axes, as Keras and TensorFlow place them."""
    if padding == "valid":
        return (0, 0), (0, 0)
    totals = [
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel, strict=True)
    ]
    before_after = [(total // 2, total - total // 2) for total in totals]
    return before_after[0], before_after[1]


def shifted(
    x: Any, size: tuple[int, int], stride: int, pads: Pads, around: float = 0.0
) -> list[Any]:
    """What the outputs see at each position of a window, row by row: (b, oh, ow, c) each."""
    import jax.numpy as jnp
    from jax import lax

    kh, kw = size
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=around)
    b, h, w, c = padded.shape
    down, right = (h - kh) // stride * stride + 1, (w - kw) // stride * stride + 1
    return [
        lax.slice(padded, (0, i, j, 0), (b, i + down, j + right, c), (1, stride, stride, 1))
        for i in range(kh)
        for j in range(kw)
    ]


def differentiable(forward: Callable[..., Any], gradients: Callable[..., Any]) -> Any:
    """A convolution (x, kernel, stride, pads) with a derivative of its own.

    Args:
        forward: the same without it.
        gradients: (x, kernel, g, stride, pads) to the gradients by x and by the kernel.
    """
    import jax

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def convolve(x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
        return forward(x, kernel, stride, pads)

    def keep(x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
        return forward(x, kernel, stride, pads), (x, kernel)

    def back(stride: int, pads: Pads, kept: Any, g: Any) -> Any:
        return gradients(*kept, g, stride, pads)

    convolve.defvjp(keep, back)
    return convolve
