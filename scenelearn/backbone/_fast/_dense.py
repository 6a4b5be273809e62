"""1×1 and other small dense convolutions as matrix products, with kernel gradients of their own.

- A 1×1 convolution is one matrix product over all positions. Its kernel gradient, left to automatic
  differentiation, multiplies a transposed copy of the output gradient; asked for as the product
  over the positions that it is, it needs none, and is up to ten times faster; with the narrower
  of the two arrays first, two to three times more.
- The first convolution of a network sees three channels, with which XLA's kernel gradient is slow
  inside a loop: 20 ms for 4 images of 160×160. The k² shifted copies of the input side by side
  make it a matrix product: 1.2 ms.
"""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def product() -> Any:
    """(x (…, m), w (m, n), scale (n,)) -> (…, n): x @ (w · scale), made once JAX is loaded."""
    import jax
    from jax import lax

    @jax.custom_vjp
    def multiply(x: Any, w: Any, scale: Any) -> Any:
        return x @ (w * scale)

    def keep(x: Any, w: Any, scale: Any) -> Any:
        return x @ (w * scale), (x, w, scale)

    def gradients(kept: Any, g: Any) -> Any:
        x, w, scale = kept
        inputs, outputs = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        along = (((0,), (0,)), ((), ()))
        if len(w) > w.shape[1]:
            kernel = lax.dot_general(outputs, inputs, along)  # XLA wants the narrow one first
            for_w, for_scale = (kernel * scale[:, None]).T, (kernel * w.T).sum(1)
        else:
            kernel = lax.dot_general(inputs, outputs, along)
            for_w, for_scale = kernel * scale, (kernel * w).sum(0)
        return g @ (w * scale).T, for_w.astype(w.dtype), for_scale.astype(scale.dtype)

    multiply.defvjp(keep, gradients)
    return multiply


def patches(x: Any, size: tuple[int, int], stride: int, pads: Any) -> Any:
    """(b, h, w, c) -> (b, oh, ow, kh·kw·c): what each output position sees, kernel order."""
    import jax.numpy as jnp
    from jax import lax

    kh, kw = size
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    b, h, w, c = padded.shape
    down, right = (h - kh) // stride * stride + 1, (w - kw) // stride * stride + 1
    seen = [
        lax.slice(padded, (0, i, j, 0), (b, i + down, j + right, c), (1, stride, stride, 1))
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(seen, axis=-1)
