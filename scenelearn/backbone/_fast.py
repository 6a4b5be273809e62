"""Convolutions that XLA runs fast on a CPU: the one place with code for a single backend.

XLA's CPU compiler runs grouped convolutions in a naive loop, and that is where a MobileNet on JAX
spends its time. A depthwise convolution is also the sum of k² shifted copies of its input, each
times one weight a channel, which XLA fuses into one pass; a 1×1 convolution is a matrix product.
Weights and results stay the same to rounding. On other backends and devices nothing is changed,
and nothing of this is in a saved model.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from scenelearn._backend import keras

_Pads = tuple[tuple[int, int], tuple[int, int]]


def fast_on_cpu(model: Any) -> Any:
    """Let the model's depthwise and 1×1 convolutions run in a form that is fast on a CPU.

    Does nothing unless Keras runs on JAX and JAX on a CPU. Call it before the model is first
    used or compiled; programs that were compiled before stay as they are.

    Args:
        model: any `keras.Model`; nested models are gone through too.

    Returns:
        The same model, its layers' weights untouched.
    """
    if not _jax_on_cpu():
        return model
    layers = keras().layers
    for layer in model._flatten_layers(include_self=False):
        if type(layer) is layers.DepthwiseConv2D and _plain(layer):
            layer.call = types.MethodType(_depthwise_call, layer)
        elif type(layer) is layers.Conv2D and _plain(layer) and _is_pointwise(layer):
            layer.call = types.MethodType(_pointwise_call, layer)
        elif type(layer) is layers.SeparableConv2D and _plain(layer):
            layer.call = types.MethodType(_separable_call, layer)
    return model


def _jax_on_cpu() -> bool:
    if keras().backend.backend() != "jax":
        return False
    import jax

    return bool(jax.default_backend() == "cpu")


def _plain(layer: Any) -> bool:
    """Whether the layer has none of the rarer options that the fast forms leave out."""
    strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    return (
        layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
        and dilation == (1, 1)
        and strides[0] == strides[1]
    )


def _is_pointwise(layer: Any) -> bool:
    return (
        tuple(layer.kernel_size) == (1, 1) and tuple(layer.strides) == (1, 1) and layer.groups == 1
    )


def _depthwise_call(layer: Any, inputs: Any) -> Any:
    return _finish(layer, _depthwise_2d(layer, inputs, layer.kernel))


def _separable_call(layer: Any, inputs: Any) -> Any:
    between = _depthwise_2d(layer, inputs, layer.depthwise_kernel)
    return _finish(layer, keras().ops.matmul(between, layer.pointwise_kernel[0, 0]))


def _pointwise_call(layer: Any, inputs: Any) -> Any:
    return _finish(layer, keras().ops.matmul(inputs, layer.kernel[0, 0]))


def _finish(layer: Any, outputs: Any) -> Any:
    if layer.use_bias:
        outputs = outputs + layer.bias
    return outputs if layer.activation is None else layer.activation(outputs)


def _depthwise_2d(layer: Any, inputs: Any, kernel: Any) -> Any:
    import jax.numpy as jnp

    x, k = jnp.asarray(inputs), jnp.asarray(kernel)
    stride = int(layer.strides[0])
    pads = _pads(layer.padding, x.shape[1:3], k.shape[:2], stride)
    multiplier = k.shape[3]
    if multiplier > 1:  # each input channel gives several: repeat it, then go on channel by channel
        x = jnp.repeat(x, multiplier, axis=3)
        k = k.reshape(k.shape[0], k.shape[1], -1, 1)
    return _depthwise()(x, k, stride, pads)


def _pads(padding: str, size: tuple[int, ...], kernel: tuple[int, ...], stride: int) -> _Pads:
    """Zeros before and after each of the two axes."""
    if padding == "valid":
        return (0, 0), (0, 0)
    totals = [
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel, strict=True)
    ]
    before_after = [(total // 2, total - total // 2) for total in totals]
    return before_after[0], before_after[1]


@functools.cache
def _depthwise() -> Any:
    """The depthwise convolution with its own derivative, made once JAX is loaded.

    (x (b, h, w, c), kernel (kh, kw, c, 1), stride, pads) -> (b, oh, ow, c).
    """
    import jax
    import jax.numpy as jnp

    lax = jax.lax

    def shifted(padded: Any, out: tuple[int, int], stride: int) -> Any:
        """A function (i, j) -> the inputs that kernel position (i, j) meets, (b, oh, ow, c)."""
        b, h, w, c = padded.shape
        if stride == 1:
            return lambda i, j: lax.slice(padded, (0, i, j, 0), (b, i + out[0], j + out[1], c))
        # Sort rows and columns by their remainder first: then each shift is a plain block.
        rows, columns = -(-h // stride), -(-w // stride)
        more = ((0, 0), (0, rows * stride - h), (0, columns * stride - w), (0, 0))
        sorted_ = jnp.pad(padded, more).reshape(b, rows, stride, columns, stride, c)

        def at(i: int, j: int) -> Any:
            block = sorted_[:, :, i % stride, :, j % stride, :]
            top, left = i // stride, j // stride
            return lax.slice(block, (0, top, left, 0), (b, top + out[0], left + out[1], c))

        return at

    def forward(x: Any, kernel: Any, stride: int, pads: _Pads) -> Any:
        kh, kw = kernel.shape[:2]
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        out = ((padded.shape[1] - kh) // stride + 1, (padded.shape[2] - kw) // stride + 1)
        at = shifted(padded, out, stride)
        return sum(at(i, j) * kernel[i, j, :, 0] for i in range(kh) for j in range(kw))

    def input_gradient(g: Any, kernel: Any, stride: int, pads: _Pads, size: Any) -> Any:
        """Σ over kernel positions of the output gradient, put back to where its input was."""
        kh, kw = kernel.shape[:2]
        b, oh, ow, c = g.shape
        rows = -(-(size[0] + sum(pads[0])) // stride)
        columns = -(-(size[1] + sum(pads[1])) // stride)

        def put_back(i: int, j: int) -> Any:
            top, left = i // stride, j // stride
            config = (
                (0, 0, 0),
                (top, rows - oh - top, 0),
                (left, columns - ow - left, 0),
                (0, 0, 0),
            )
            return lax.pad(g, jnp.zeros((), g.dtype), config) * kernel[i, j, :, 0]

        def remainder(a: int, d: int) -> Any:
            """The gradient of the padded inputs whose row is ≡ a and column ≡ d."""
            parts = [put_back(i, j) for i in range(a, kh, stride) for j in range(d, kw, stride)]
            return sum(parts) if parts else jnp.zeros((b, rows, columns, c), g.dtype)

        by_row = [
            jnp.stack([remainder(a, d) for d in range(stride)], axis=3) for a in range(stride)
        ]
        whole = jnp.stack(by_row, axis=2).reshape(b, rows * stride, columns * stride, c)
        return whole[:, pads[0][0] : pads[0][0] + size[0], pads[1][0] : pads[1][0] + size[1]]

    def kernel_gradient(x: Any, g: Any, kernel: Any, stride: int, pads: _Pads) -> Any:
        """One image at a time, so that its k² products are summed while it is in the cache."""
        kh, kw = kernel.shape[:2]
        out = g.shape[1:3]

        def one(total: Any, pair: Any) -> Any:
            image, gradient = pair
            at = shifted(jnp.pad(image, (*pads, (0, 0)))[None], out, stride)
            sums = [(at(i, j)[0] * gradient).sum((0, 1)) for i in range(kh) for j in range(kw)]
            return total + jnp.stack(sums), None

        total, _ = lax.scan(one, jnp.zeros((kh * kw, x.shape[3]), g.dtype), (x, g))
        return total.reshape(kernel.shape)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
    def depthwise(x: Any, kernel: Any, stride: int, pads: _Pads) -> Any:
        return forward(x, kernel, stride, pads)

    def keep(x: Any, kernel: Any, stride: int, pads: _Pads) -> Any:
        return forward(x, kernel, stride, pads), (x, kernel)

    def gradients(stride: int, pads: _Pads, kept: Any, g: Any) -> Any:
        x, kernel = kept
        return (
            input_gradient(g, kernel, stride, pads, x.shape[1:3]),
            kernel_gradient(x, g, kernel, stride, pads),
        )

    depthwise.defvjp(keep, gradients)
    return depthwise
