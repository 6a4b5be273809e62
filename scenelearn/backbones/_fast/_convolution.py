"""Dense convolutions with their own derivatives, as matrix products.

- A 1×1 convolution is one matrix product over all positions. Automatic differentiation computes its
  kernel gradient with a transposed copy of the output gradient. Written as the product over the
  positions that it is, it needs no copy and is up to ten times faster; with the narrower of the two
  arrays first, another two to three times.
- The first convolution of a network has three input channels, for which XLA's kernel gradient is
  slow inside a loop: 20 ms for 4 images of 160×160. With the k² shifted copies of the input side by
  side, it is a matrix product: 1.2 ms.
- Other convolutions use XLA's own forward pass, but not its gradients: inside a loop, those of a
  3×3 convolution on 4 feature maps of 40×40×64 took 11 ms (inputs) and 215 ms (kernel), where the
  forward pass takes 2.2 ms. The kernel gradient is k² matrix products, one for each shifted copy of
  the input: 4.3 ms. The input gradient is one matrix product to what each output saw, and k² sums:
  1.6 ms. On large feature maps that takes k² times the memory; a convolution with the flipped
  kernel, 2.1 ms, does not. (With a stride, inputs that are a stride apart see the same weights, so
  there is one convolution for each offset.)
"""

from __future__ import annotations

import functools
from typing import Any

from scenelearn.backbones._fast._windows import Pads, shift_windows, with_gradients

_MANY_POSITIONS = 256  # with fewer, the convolution with the flipped kernel is slower


@functools.cache
def scaled_matmul() -> Any:
    """Return the function (x (…, m), w (m, n), scale (n,)) -> x @ (w · scale), (…, n)."""
    import jax
    from jax import lax

    @jax.custom_vjp
    def multiply(x: Any, w: Any, scale: Any) -> Any:
        return x @ (w * scale)

    def forward(x: Any, w: Any, scale: Any) -> Any:
        return x @ (w * scale), (x, w, scale)

    def backward(residuals: Any, g: Any) -> Any:
        x, w, scale = residuals
        inputs, outputs = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        axes = (((0,), (0,)), ((), ()))
        if len(w) > w.shape[1]:
            kernel = lax.dot_general(outputs, inputs, axes)  # faster with the narrow one first
            w_gradient, scale_gradient = (kernel * scale[:, None]).T, (kernel * w.T).sum(1)
        else:
            kernel = lax.dot_general(inputs, outputs, axes)
            w_gradient, scale_gradient = kernel * scale, (kernel * w).sum(0)
        return g @ (w * scale).T, w_gradient.astype(w.dtype), scale_gradient.astype(scale.dtype)

    multiply.defvjp(forward, backward)
    return multiply


def extract_patches(x: Any, size: tuple[int, int], stride: int, pads: Pads) -> Any:
    """Extract what each output sees: (b, h, w, c) -> (b, oh, ow, kh·kw·c), in kernel order."""
    import jax.numpy as jnp

    return jnp.concatenate(shift_windows(x, size, stride, pads), axis=-1)


@functools.cache
def convolution() -> Any:
    """Return the convolution with its derivative, created once JAX is loaded.

    (x (b, h, w, c), kernel (kh, kw, c, n), stride, pads) -> (b, oh, ow, n).
    """
    return with_gradients(_forward, _gradients)


def _gradients(x: Any, kernel: Any, g: Any, stride: int, pads: Pads) -> tuple[Any, Any]:
    is_large = g.shape[1] * g.shape[2] >= _MANY_POSITIONS
    x_gradient = (_convolve_flipped if is_large else _sum_patches)(g, x, kernel, stride, pads)
    return x_gradient.astype(x.dtype), _kernel_gradient(x, g, kernel, stride, pads)


def _forward(x: Any, kernel: Any, stride: int, pads: Any) -> Any:
    from jax import lax

    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=order)


def _convolve_flipped(g: Any, x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    """The input gradient as convolutions of `g`, one per offset of inputs a stride apart."""
    import jax.numpy as jnp
    from jax import lax

    zero, gradient = jnp.zeros((), g.dtype), jnp.zeros(x.shape, g.dtype)
    for row in range(min(stride, x.shape[1])):
        for column in range(min(stride, x.shape[2])):
            # x[row + stride · r] is seen at kernel positions start, start + stride, …
            starts = [(at + pad[0]) % stride for at, pad in zip((row, column), pads, strict=True)]
            part = kernel[starts[0] :: stride, starts[1] :: stride]
            if 0 in part.shape:
                continue
            conv_pads, spread = [], []
            for axis, (at, start) in enumerate(zip((row, column), starts, strict=True)):
                n = len(range(at, x.shape[axis + 1], stride))
                before = part.shape[axis] - 1 - (at + pads[axis][0] - start) // stride
                conv_pads.append((before, n - g.shape[axis + 1] - before + part.shape[axis] - 1))
                spread.append((at, x.shape[axis + 1] - at - (n - 1) * stride - 1, stride - 1))
            part_gradient = _forward(g, part[::-1, ::-1].swapaxes(2, 3), 1, conv_pads)
            gradient = gradient + lax.pad(part_gradient, zero, ((0, 0, 0), *spread, (0, 0, 0)))
    return gradient


def _sum_patches(g: Any, x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    """The input gradient: the gradients of all patches, summed where they overlap."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    axes, sum_dtype = (((3,), (3,)), ((), ())), jnp.promote_types(g.dtype, jnp.float32)
    # The patches' gradients have the shape (b, oh, ow, kh, kw, c).
    patch_gradients = lax.dot_general(g, kernel, axes, preferred_element_type=sum_dtype)
    like = jax.ShapeDtypeStruct(x.shape, sum_dtype)  # type: ignore[no-untyped-call]
    transpose = jax.linear_transpose(
        lambda x: extract_patches(x, kernel.shape[:2], stride, pads), like
    )
    return transpose(patch_gradients.reshape(*g.shape[:3], -1))[0]


def _kernel_gradient(x: Any, g: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    import jax.numpy as jnp
    from jax import lax

    outputs, axes = g.reshape(-1, g.shape[3]), (((0,), (0,)), ((), ()))
    windows = shift_windows(x, kernel.shape[:2], stride, pads)
    inputs = [window.reshape(-1, x.shape[3]) for window in windows]
    if x.shape[3] > g.shape[3]:
        products = [lax.dot_general(outputs, part, axes).T for part in inputs]  # narrow one first
    else:
        products = [lax.dot_general(part, outputs, axes) for part in inputs]
    return jnp.stack(products).reshape(kernel.shape).astype(kernel.dtype)
