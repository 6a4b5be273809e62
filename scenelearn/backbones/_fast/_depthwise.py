"""The depthwise convolution as sums of shifted copies, with derivatives of its own.

For 3×3 on 32 images of 40×40×96, XLA's grouped convolution took 207 ms forward, the sum of shifted
copies 4.6. On one core, for 4 such images, in milliseconds: forward 0.3, input gradient 0.4,
kernel gradient 0.9. How each is done:

- *Forward.* y[r, s] = Σᵢⱼ x[s·r + i, s·s' + j] k[i, j]: the input is padded once, and k² strided
  slices of it, each times one weight a channel, are one loop for XLA, in which the channels are
  the vector.
- *Input gradient.* The same sum with the kernel turned round, over the output gradient with zeros
  about it. Padding once and slicing is five times faster than summing k² padded copies, since a
  padded copy asks at each value whether it lies inside. With a stride, the inputs that a stride
  apart see the same weights are computed as one such sum, and the sums are put between each other.
  (As `_dense` has it, with padding of its own for each sum, a step of MobileNetV3Small took 4 %
  longer.)
- *Kernel gradient.* k² sums over whole arrays, each far larger than the cache, become sums over
  one image at a time. An image and its output gradient are padded to one width and laid out flat,
  so that a shift by (i, j) is a shift by i · width + j, and each product runs over memory without
  a gap. A sum over all of it is one long dependency that no compiler makes a vector of; so eight
  equal parts are multiplied and added into one, and only that one is summed at the end: 2.5 times
  faster than plain sums over an image.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from scenelearn.backbones._fast._windows import Pads, differentiable, shifted

_PARTS = 8  # with 16, XLA no longer makes one loop of them, and it is five times slower


@functools.cache
def depthwise() -> Any:
    """The convolution with its derivative, made once JAX is loaded.

    (x (b, h, w, c), kernel (kh, kw, c), stride, pads) -> (b, oh, ow, c).
    """
    return differentiable(_forward, _gradients)


def _gradients(x: Any, kernel: Any, g: Any, stride: int, pads: Pads) -> tuple[Any, Any]:
    gradient = _input_gradient if stride == 1 else _strided_input_gradient
    return (
        gradient(g, kernel, stride, pads, x.shape[1:3]),
        _kernel_gradient(x, g, kernel, stride, pads),
    )


def _positions(kernel: Any) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _forward(x: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    seen = shifted(x, kernel.shape[:2], stride, pads)
    return sum(one * kernel[at] for one, at in zip(seen, _positions(kernel), strict=True))


def _input_gradient(g: Any, kernel: Any, stride: int, pads: Pads, size: tuple[int, int]) -> Any:
    """At stride 1: a forward pass over `g` with the kernel turned round."""
    kh, kw, _ = kernel.shape
    (top, bottom), (left, right) = pads
    # A row of the input that no output saw, if the padding is "valid", stays without gradient.
    around = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    assert stride == 1
    assert g.shape[1] + sum(around[0]) - kh + 1 == size[0]
    return _forward(g, kernel[::-1, ::-1], 1, around)


def _strided_input_gradient(
    g: Any, kernel: Any, stride: int, pads: Pads, size: tuple[int, int]
) -> Any:
    import jax.numpy as jnp
    from jax import lax

    kh, kw, c = kernel.shape
    b = g.shape[0]
    more_rows, more_columns = (kh - 1) // stride, (kw - 1) // stride
    padded = jnp.pad(g, ((0, 0), (more_rows,) * 2, (more_columns,) * 2, (0, 0)))
    rows, columns = -(-size[0] // stride), -(-size[1] // stride)
    # The last rows may have been seen by no output: then `padded` is too short for them.
    short = (max(0, rows - g.shape[1] + 1), max(0, columns - g.shape[2] + 1))
    padded = jnp.pad(padded, ((0, 0), (0, short[0]), (0, short[1]), (0, 0)))

    def every(a: int, d: int) -> Any:
        """The gradient of the inputs (a + stride · r, d + stride · s)."""
        total = jnp.zeros((b, rows, columns, c), g.dtype)
        for i in range((a + pads[0][0]) % stride, kh, stride):
            for j in range((d + pads[1][0]) % stride, kw, stride):
                y = (a + pads[0][0] - i) // stride + more_rows
                x = (d + pads[1][0] - j) // stride + more_columns
                block = lax.slice(padded, (0, y, x, 0), (b, y + rows, x + columns, c))
                total = total + block * kernel[i, j]
        return total

    zero: Any = jnp.zeros((), g.dtype)
    whole: Any = 0.0
    for a in range(stride):
        for d in range(stride):
            between = ((0, 0, 0), (a, stride - 1 - a, stride - 1), (d, stride - 1 - d, stride - 1))
            whole = whole + lax.pad(every(a, d), zero, (*between, (0, 0, 0)))
    return whole[:, : size[0], : size[1]]


def _kernel_gradient(x: Any, g: Any, kernel: Any, stride: int, pads: Pads) -> Any:
    import jax.numpy as jnp
    from jax import lax

    kh, kw, c = kernel.shape
    out_h, out_w = g.shape[1:3]
    width = out_w + (kw - 1) // stride
    part = -(-((out_h - 1) * width + out_w) // _PARTS)  # positions in one of the eight parts
    furthest = (kh - 1) // stride * width + (kw - 1) // stride
    height = -(-(_PARTS * part + furthest) // width)
    sums = jnp.promote_types(g.dtype, jnp.float32)

    def flat(image: Any, a: int, d: int) -> Any:
        """Every stride-th row and column of the padded image from (a, d) on, laid out flat."""
        vertical = _take(image.shape[0], a, pads[0][0], stride, height)
        horizontal = _take(image.shape[1], d, pads[1][0], stride, width)
        start, stop = (vertical[0], horizontal[0], 0), (vertical[1], horizontal[1], c)
        taken = lax.slice(image, start, stop, (stride, stride, 1))
        zero = jnp.zeros((), image.dtype)
        return lax.pad(taken, zero, (vertical[2], horizontal[2], (0, 0, 0))).reshape(-1)

    firsts = list(itertools.product(range(min(stride, kh)), range(min(stride, kw))))

    def part_of(array: Any, first: int) -> Any:
        return lax.slice(array, (first * c,), ((first + part) * c,))

    def add_image(totals: Any, pair: Any) -> Any:
        image, gradient = pair
        seen = {first: flat(image, *first) for first in firsts}
        around = ((0, height - out_h, 0), (0, width - out_w, 0), (0, 0, 0))
        flat_gradient = lax.pad(gradient, jnp.zeros((), g.dtype), around).reshape(-1)

        def products(i: int, j: int) -> Any:
            source, first = seen[i % stride, j % stride], i // stride * width + j // stride
            starts = [n * part for n in range(_PARTS)]
            pairs = [(part_of(source, first + n), part_of(flat_gradient, n)) for n in starts]
            return sum((u * v).astype(sums) for u, v in pairs)

        return [t + products(*at) for t, at in zip(totals, _positions(kernel), strict=True)], None

    totals, _ = lax.scan(add_image, [jnp.zeros((part * c,), sums)] * (kh * kw), (x, g))
    each = [total.reshape(part, c).sum(0) for total in totals]
    return jnp.stack(each).reshape(kernel.shape).astype(kernel.dtype)


def _take(
    n: int, first: int, zeros: int, stride: int, size: int
) -> tuple[int, int, tuple[int, int, int]]:
    """Where the rows first, first + stride, … of n rows with zeros before them are among the n.

    Returns:
        Start and stop of a slice, and the zeros before and after, with which it has `size` rows.
    """
    before = max(0, -(-(zeros - first) // stride))
    start = stride * before + first - zeros
    count = max(0, min(-(-(n - start) // stride), size - before))
    return start, max(start, start + (count - 1) * stride + 1), (before, size - before - count, 0)
