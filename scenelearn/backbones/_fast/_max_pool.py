"""Max pooling as the maximum of shifted copies, with its own derivative.

For 3×3 windows of stride 2 on 4 feature maps of 82×82×64, XLA's own form took 1.9 ms forward and
22 ms backward; this takes 0.2 and 2.3. The gradient goes to the same value of each window as in
XLA: to the first of the maxima, row by row. (In a window with a NaN it goes nowhere.)
"""

from __future__ import annotations

import functools
from typing import Any

from scenelearn.backbones._fast._windows import Pads, shift_windows


@functools.cache
def max_pool() -> Any:
    """Return the pooling function with its derivative, created once JAX is loaded.

    (x (b, h, w, c), (kh, kw), stride, pads) -> (b, oh, ow, c).
    """
    import jax
    import jax.numpy as jnp

    def windows(x: Any, size: tuple[int, int], stride: int, pads: Pads) -> list[Any]:
        return shift_windows(x, size, stride, pads, -jnp.inf)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
    def pool(x: Any, size: tuple[int, int], stride: int, pads: Pads) -> Any:
        return functools.reduce(jnp.maximum, windows(x, size, stride, pads))

    def forward(x: Any, size: tuple[int, int], stride: int, pads: Pads) -> Any:
        y = pool(x, size, stride, pads)
        return y, (x, y)

    def backward(size: tuple[int, int], stride: int, pads: Pads, residuals: Any, g: Any) -> Any:
        x, y = residuals
        shifted, transpose = jax.vjp(lambda x: windows(x, size, stride, pads), x)
        is_taken, gradients = jnp.zeros(y.shape, bool), []
        for window in shifted:
            is_maximum = (window == y) & ~is_taken
            is_taken = is_taken | is_maximum
            gradients.append(jnp.where(is_maximum, g, 0))
        return transpose(gradients)

    pool.defvjp(forward, backward)
    return pool
