"""Dense convolutions with derivatives of their own, as matrix products.

- A 1×1 convolution is one matrix product over all positions. Its kernel gradient, left to automatic
  differentiation, multiplies a transposed copy of the output gradient; asked for as the product
  over the positions that it is, it needs none, and is up to ten times faster; with the narrower
  of the two arrays first, two to three times more.
- The first convolution of a network sees three channels, with which XLA's kernel gradient is slow
  inside a loop: 20 ms for 4 images of 160×160. The k² shifted copies of the input side by side
  make it a matrix product: 1.2 ms.
- Any other convolution is XLA's own on the way forward. Its gradients are not: inside a loop, those
  of 3×3 on 4 maps of 40×40×64 took 11 (inputs) and 215 ms (kernel), where forward takes 2.2. The
  kernel gradient is k² matrix products, one for each shifted copy of the input: 4.3 ms. The input
  gradient is one matrix product to what each output saw, and k² sums: 1.6 ms; but at large maps
  that takes k² times the memory, and a convolution with the kernel turned round, 2.1 ms, takes
  none. (With a stride, inputs that a stride apart see the same weights: one convolution for each.)
"""

from __future__ import annotations

import functools
from typing import Any

from scenelearn.backbones._fast._windows import Pads, differentiable, shifted

_MANY_POSITIONS = 256  # of a map; with fewer, a convolution with the kernel turned round is slower


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


def patches(x: Any, size: tuple[int, int], stride: int, pads: Pads) -> Any:
    """(b, h, w, c) -> (b, oh, ow, kh·kw·c): what each output position sees, kernel order."""
    import jax.numpy as jnp

    return jnp.concatenate(shifted(x, size, stride, pads), axis=-1)


@functools.cache
def convolution() -> Any:
    """The convolution with its derivative, made once JAX is loaded.

    (x (b, h, w, c), kernel (kh, kw, c, n), stride, pads) -> (b, oh, ow, n).
    """
    return differentiable(_forward, _gradients)


def _gradients(x: Any, kernel: Any, g: Any, stride: int, pads: Pads) -> tuple[Any, Any]:
    large = g.shape[1] * g.shape[2] >= _MANY_POSITIONS
    for_x = (_by_turned_kernel if large else _summed)(g, x, kernel, stride, pads)
    return for_x.astype(x.dtype), _kernel_gradient(x, g, kernel, stride, pads)


def _forward(x: Any, kernel: Any, stride: int, pads: Any) -> Any:
    from jax import lax

    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=order)


def _by_turned_kernel(g: Any, x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    """The input gradient as convolutions of `g`: one for the inputs that a stride apart."""
    import jax.numpy as jnp
    from jax import lax

    zero, whole = jnp.zeros((), g.dtype), jnp.zeros(x.shape, g.dtype)
    for row in range(min(stride, x.shape[1])):
        for column in range(min(stride, x.shape[2])):
            # x[row + stride · r] is seen at the kernel's positions start, start + stride, …
            starts = [(at + pad[0]) % stride for at, pad in zip((row, column), pads, strict=True)]
            part = kernel[starts[0] :: stride, starts[1] :: stride]
            if 0 in part.shape:
                continue
            around, between = [], []
            for axis, (at, start) in enumerate(zip((row, column), starts, strict=True)):
                n = len(range(at, x.shape[axis + 1], stride))
                before = part.shape[axis] - 1 - (at + pads[axis][0] - start) // stride
                around.append((before, n - g.shape[axis + 1] - before + part.shape[axis] - 1))
                between.append((at, x.shape[axis + 1] - at - (n - 1) * stride - 1, stride - 1))
            found = _forward(g, part[::-1, ::-1].swapaxes(2, 3), 1, around)
            whole = whole + lax.pad(found, zero, ((0, 0, 0), *between, (0, 0, 0)))
    return whole


def _summed(g: Any, x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    """The input gradient: what goes to each value that an output saw, summed up where it lies."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    along, sums = (((3,), (3,)), ((), ())), jnp.promote_types(g.dtype, jnp.float32)
    towards = lax.dot_general(g, kernel, along, preferred_element_type=sums)
    # `towards` is (b, oh, ow, kh, kw, c)
    seen = jax.ShapeDtypeStruct(x.shape, sums)  # type: ignore[no-untyped-call]
    back = jax.linear_transpose(lambda x: patches(x, kernel.shape[:2], stride, pads), seen)
    return back(towards.reshape(*g.shape[:3], -1))[0]


def _kernel_gradient(x: Any, g: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    import jax.numpy as jnp
    from jax import lax

    outputs, along = g.reshape(-1, g.shape[3]), (((0,), (0,)), ((), ()))
    each = [one.reshape(-1, x.shape[3]) for one in shifted(x, kernel.shape[:2], stride, pads)]
    if x.shape[3] > g.shape[3]:
        products = [lax.dot_general(outputs, one, along).T for one in each]  # the narrow one first
    else:
        products = [lax.dot_general(one, outputs, along) for one in each]
    return jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)
