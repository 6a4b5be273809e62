"""Layers that XLA runs fast on a CPU. The only code for a single backend.

XLA's CPU compiler runs grouped convolutions in a naive loop, where a MobileNet on JAX spends most
of its time. A depthwise convolution is also the sum of k² shifted copies of its input, each times
one weight per channel, which XLA fuses into one pass (`_depthwise`); a 1×1 convolution is a matrix
product (`_convolution`). A BatchNormalization with moving statistics is a scale and an offset,
which are folded into the convolution before it (`_batchnorm`). The gradient of a transformer's
tokens is a sum over all later layers. XLA computes it again in each layer that uses it, unless a
barrier before each LayerNormalization stops that: a training step of a small one took 1.4 to 1.7
times as long without it. The network runs in microbatches (`_microbatch`), and the parts of a batch
on all cores (`_parallel`). Weights stay the same, and results up to rounding. Other backends and
devices are not affected, and nothing of this is stored in saved models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn._keras_internals import (
    forget_programs,
    has_training_internals,
    nested_layers,
)
from scenelearn._threads import n_threads
from scenelearn.backbones._compilation_cache import keep_programs
from scenelearn.backbones._fast._batchnorm import (
    FROZEN_BATCHNORM,
    Linear,
    fold_batchnorm,
    input_layer_of,
)
from scenelearn.backbones._fast._convolution import convolution, extract_patches, scaled_matmul
from scenelearn.backbones._fast._depthwise import depthwise
from scenelearn.backbones._fast._malloc import keep_freed_memory
from scenelearn.backbones._fast._max_pool import max_pool
from scenelearn.backbones._fast._microbatch import (
    microbatched_call,
    photos_are_independent,
    supports_microbatches,
)
from scenelearn.backbones._fast._parallel import (
    MICROBATCH,
    PART,
    is_distributed,
    make_parallel_function,
    part_size,
)
from scenelearn.backbones._fast._relu import relu, relu_maximum
from scenelearn.backbones._fast._windows import compute_pads, shift_windows

__all__ = [
    "FROZEN_BATCHNORM",
    "MICROBATCH",
    "batches_at_once",
    "fast_on_cpu",
    "part_size",
    "runs_in_parts",
    "undo_fast",
]

_SWITCH = "_scenelearn_fast"  # a layer's attribute: whether its fast form is on
_MAX_WINDOW = 25  # values of a pooling window, each of which is a shifted copy
_MAX_BATCHES = 16  # to predict at once; their images are in memory
_MAX_PATCH = 64  # a first layer's 3·3·3; for 7·7·3, XLA's own convolution is faster


def fast_on_cpu(model: Any) -> Any:
    """Make a model run fast on a CPU with JAX.

    Convolutions, poolings, ReLU and BatchNormalization run in faster forms, and the network runs in
    microbatches. `predict` of this very model, and its training steps in `fit` and
    `train_on_batch`, use one core for every 16 photos of a batch. JAX's compiled programs are kept
    on disk, unless the user has configured its compilation cache. With glibc, the process keeps up
    to a gigabyte of memory that a step frees for the next one, unless the user has configured
    malloc by environment variables such as MALLOC_TRIM_THRESHOLD_.

    Does nothing unless Keras runs on JAX; with an accelerator, only keeps its programs. Call it
    before the model is first used: programs that are compiled already stay as they are. `undo_fast`
    reverts it, except for kept programs and memory.

    Args:
        model: any `keras.Model`; nested models are included.

    Returns:
        The same model, with the same weights.
    """
    if keras().backend.backend() != "jax":
        return model
    keep_programs()
    if not _on_cpu() or not has_training_internals(model):
        return model
    keep_freed_memory()
    linear: dict[int, Linear] = {}
    layers = nested_layers(model, include_self=True)
    for layer in layers:
        if _SWITCH in vars(layer):
            object.__setattr__(layer, _SWITCH, True)  # was made fast before
        elif (form := _linear_form(layer)) is not None:
            linear[id(layer)] = form
            if form is not _keras_convolution:
                _replace(layer, _full_call(layer, form))
        elif (maximum := relu_maximum(layer)) is not None:
            _replace(layer, functools.partial(_call_relu, maximum=maximum))
        elif _is_max_pooling(layer):
            _replace(layer, functools.partial(_call_max_pool, layer))
        elif type(layer) is keras().layers.LayerNormalization:
            _replace(layer, functools.partial(_call_behind_barrier, layer.call))
    for layer in nested_layers(model):
        source = input_layer_of(layer)
        if source is not None and id(source) in linear and _has_no_activation(source):
            fold_batchnorm(source, layer, linear[id(source)], replace=_replace)
    for layer in layers:
        if _SWITCH not in vars(layer) and supports_microbatches(layer):
            _replace(layer, microbatched_call(layer))
            for what in ("train", "predict"):
                _replace(layer, make_parallel_function(layer, what), f"make_{what}_function")
    return model


def undo_fast(model: Any) -> Any:
    """Undo `fast_on_cpu`: make the model's layers run as Keras wrote them.

    Args:
        model: any `keras.Model`; nested models are included. Its compiled programs are dropped.

    Returns:
        The same model.
    """
    for layer in nested_layers(model, include_self=True):
        if _SWITCH in vars(layer):
            object.__setattr__(layer, _SWITCH, False)
        forget_programs(layer)
    return model


def runs_in_parts(model: Any) -> bool:
    """Return whether a training step of this `keras.Model` runs in parts, in microbatches."""
    is_fast = vars(model).get(_SWITCH, False) and supports_microbatches(model)
    return is_fast and photos_are_independent(model, True)


def batches_at_once(model: Any, batch_size: int) -> int:
    """How many batches `predict_on_batch` should be given at once to use all cores.

    Their photos are computed in the same parts of 16 as those of single batches, so the outputs are
    the same bit for bit.

    Args:
        model: any `keras.Model`.
        batch_size: photos per batch.

    Returns:
        1 to 16; 1 if the model does not run in parts, or one batch has enough of them.
    """
    runs_fast = vars(model).get(_SWITCH, False) and supports_microbatches(model)
    if not runs_fast or batch_size % PART or is_distributed():
        return 1
    return min(max(n_threads() * PART // batch_size, 1), _MAX_BATCHES)


def _on_cpu() -> bool:
    import jax

    return bool(jax.default_backend() == "cpu")


def _replace(layer: Any, fast: Callable[..., Any], method: str = "call") -> None:
    """Replace a method of the layer by `fast`, as long as the layer's switch is on."""
    original = getattr(layer, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        return (fast if vars(layer)[_SWITCH] else original)(*args, **kwargs)

    object.__setattr__(layer, _SWITCH, True)  # bypass Keras' attribute tracking
    setattr(layer, method, call)


def _linear_form(layer: Any) -> Linear | None:
    """The fast form of a convolution without bias and activation; None for other layers."""
    layers = keras().layers
    kind = type(layer)
    if kind not in (layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2D):
        return None
    if not layer.built or layer.data_format != "channels_last":
        return None
    if kind is layers.Conv2D and not _is_grouped_by_channel(layer):
        if layer.groups > 1 or not _is_supported(layer):
            return _keras_convolution
        if tuple(layer.kernel_size) == (1, 1):
            return _pointwise_convolution
        is_disjoint = max(layer.kernel_size) <= layer.strides[0]  # patches do not overlap
        is_small = np.prod(layer.kernel.shape[:3]) <= _MAX_PATCH
        return _patch_convolution if is_disjoint or is_small else _spatial_convolution
    if not _is_supported(layer):
        return None
    return _separable_convolution if kind is layers.SeparableConv2D else _depthwise_convolution


def _is_grouped_by_channel(layer: Any) -> bool:
    """Whether a Conv2D is a depthwise convolution, as in ConvNeXt."""
    return bool(layer.groups > 1 and layer.kernel.shape[2] == 1)


def _full_call(layer: Any, linear: Linear) -> Callable[[Any], Any]:
    """The layer's `call`, with bias and activation."""

    def call(inputs: Any) -> Any:
        outputs = linear(layer, inputs, None)
        if layer.use_bias:
            outputs = outputs + layer.bias
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _keras_convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    """Keras' own convolution: in groups, dilated, or with different strides."""
    return layer.convolution_op(inputs, _scaled(layer.kernel, scale))


def _pointwise_convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    stride = int(layer.strides[0])
    (window,) = shift_windows(jnp.asarray(inputs), (1, 1), stride, ((0, 0), (0, 0)))
    return _matmul(window, keras().ops.convert_to_tensor(layer.kernel)[0, 0], scale)


def _spatial_convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    size, window = inputs.shape[1:3], tuple(layer.kernel_size)
    if not _is_static(size) or (layer.padding == "valid" and np.any(np.less(size, window))):
        return _keras_convolution(layer, inputs, scale)  # it raises an error for small images
    kernel, stride = jnp.asarray(_scaled(layer.kernel, scale)), int(layer.strides[0])
    pads = compute_pads(layer.padding, size, window, stride)
    return convolution()(jnp.asarray(inputs, kernel.dtype), kernel, stride, pads)


def _patch_convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    x, kernel = jnp.asarray(inputs), jnp.asarray(layer.kernel)
    size, stride = (kernel.shape[0], kernel.shape[1]), int(layer.strides[0])
    pads = compute_pads(layer.padding, x.shape[1:3], size, stride)
    patches = extract_patches(x, size, stride, pads)
    return _matmul(patches, kernel.reshape(-1, kernel.shape[3]), scale)


def _matmul(x: Any, kernel: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    ones = jnp.ones(kernel.shape[1], kernel.dtype)  # XLA removes the product with ones
    return scaled_matmul()(x, kernel, ones if scale is None else scale)


def _separable_convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    x = _convolve_depthwise(layer, inputs, layer.depthwise_kernel)
    return _matmul(x, keras().ops.convert_to_tensor(layer.pointwise_kernel)[0, 0], scale)


def _depthwise_convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    k = keras().ops
    kernel = layer.kernel
    if type(layer) is keras().layers.Conv2D:  # one channel per group
        kernel = k.reshape(kernel, (*kernel.shape[:2], inputs.shape[-1], -1))
    if scale is not None:
        kernel = kernel * k.reshape(scale, kernel.shape[2:])
    return _convolve_depthwise(layer, inputs, kernel)


def _call_relu(inputs: Any, maximum: float) -> Any:
    return relu()(inputs, maximum)


def _is_max_pooling(layer: Any) -> bool:
    """Whether a layer is a max pooling with small windows and equal strides."""
    is_pooling = type(layer) is keras().layers.MaxPooling2D
    is_last = is_pooling and layer.data_format == "channels_last"
    is_small = is_last and np.prod(layer.pool_size) <= _MAX_WINDOW
    return bool(is_small and layer.strides[0] == layer.strides[1])


def _call_max_pool(layer: Any, inputs: Any) -> Any:
    import jax.numpy as jnp

    x, size, stride = jnp.asarray(inputs), tuple(layer.pool_size), int(layer.strides[0])
    if not jnp.issubdtype(x.dtype, jnp.floating) or not _is_static(x.shape[1:3]):
        return keras().ops.max_pool(inputs, size, stride, layer.padding, layer.data_format)
    return max_pool()(x, size, stride, compute_pads(layer.padding, x.shape[1:3], size, stride))


def _call_behind_barrier(call: Callable[[Any], Any], inputs: Any) -> Any:
    """A layer's `call`; XLA computes its inputs and their gradient once, not again in each use."""
    import jax

    barrier: Any = jax.lax.optimization_barrier  # has no types
    return call(barrier(inputs))


def _is_static(size: tuple[Any, ...]) -> bool:
    """Whether height and width are numbers, not symbolic."""
    return all(isinstance(n, int) for n in size)


def _scaled(kernel: Any, scale: Any) -> Any:
    """The kernel, with the output channels on its last axis scaled."""
    return keras().ops.convert_to_tensor(kernel) if scale is None else kernel * scale


def _convolve_depthwise(layer: Any, inputs: Any, kernel: Any) -> Any:
    import jax.numpy as jnp

    x, k = jnp.asarray(inputs), jnp.asarray(kernel)
    stride = int(layer.strides[0])
    pads = compute_pads(layer.padding, x.shape[1:3], k.shape[:2], stride)
    if k.shape[3] > 1:  # repeat each input channel, then convolve channel by channel
        x = jnp.repeat(x, k.shape[3], axis=3)
    return depthwise()(x, k.reshape(*k.shape[:2], -1), stride, pads)


def _has_no_activation(layer: Any) -> bool:
    return layer.activation in (None, keras().activations.linear)


def _is_supported(layer: Any) -> bool:
    """Whether a convolution has equal strides and no dilation."""
    return bool(
        layer.padding in ("same", "valid")
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.strides[0] == layer.strides[1]
    )
