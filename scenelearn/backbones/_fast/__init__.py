"""Convolutions that XLA runs fast on a CPU: the one place with code for a single backend.

XLA's CPU compiler runs grouped convolutions in a naive loop, and that is where a MobileNet on JAX
spends its time. A depthwise convolution is also the sum of k² shifted copies of its input, each
times one weight a channel, which XLA fuses into one pass (`_depthwise`); a 1×1 convolution is a
matrix product. A BatchNormalization that uses its stored statistics is a scale and an offset,
which go into the convolution before it (`_fold`). Weights and results stay the same to rounding.
On other backends and devices no layer is changed, and nothing of this is in a saved model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from scenelearn._backend import forget_programs, keras
from scenelearn.backbones._fast._chunks import can_be_chunked, chunked, each_alone, size_of
from scenelearn.backbones._fast._dense import convolution, patches, product
from scenelearn.backbones._fast._depthwise import depthwise
from scenelearn.backbones._fast._fold import KEEPS_STATISTICS, Linear, fold, source_of
from scenelearn.backbones._fast._halves import by_halves, can_be_halved
from scenelearn.backbones._fast._heap import keep_freed_memory
from scenelearn.backbones._fast._pool import largest
from scenelearn.backbones._fast._relu import ceiling, relu
from scenelearn.backbones._fast._step import loss_by_chunks
from scenelearn.backbones._fast._windows import pads_of, shifted
from scenelearn.backbones._programs import keep_programs

__all__ = ["KEEPS_STATISTICS", "fast_on_cpu", "photos_at_once", "plain"]

_SWITCH = "_scenelearn_fast"  # a layer's attribute: whether its fast form is on
_MANY_VALUES = 25  # of a window that is looked at for its largest, each as a copy of its own
_SMALL = 64  # a first layer's 3·3·3; with 7·7·3 XLA's own convolution is faster


def fast_on_cpu(model: Any) -> Any:
    """Let the model run in a form that is fast on a CPU: its convolutions, and a few photos a time.

    Convolutions, poolings, ReLU and BatchNormalization get other forms, and the network runs over a
    few photos at a time. The training step of `fit` and `train_on_batch` is sped up too, of the
    very model that is passed: its two halves run at the same time. Programs that JAX compiles are
    kept on disk, unless the user has set up its compilation cache otherwise. With glibc the process
    keeps up to a gigabyte that a step gives back for the next, unless the user has set up malloc by
    environment variables (such as MALLOC_TRIM_THRESHOLD_). Does nothing unless Keras runs on JAX;
    and where JAX runs on an accelerator, nothing but keep its programs. Call it before the model is
    first used: programs that were compiled before stay as they are. `plain` undoes it, but for what
    is kept.

    Args:
        model: any `keras.Model`; nested models are gone through too.

    Returns:
        The same model, its layers' weights untouched.
    """
    if keras().backend.backend() != "jax":
        return model
    keep_programs()
    if not _on_cpu():
        return model
    keep_freed_memory()
    linear: dict[int, Linear] = {}
    for layer in model._flatten_layers():
        if _SWITCH in vars(layer):
            object.__setattr__(layer, _SWITCH, True)  # it was made fast before
        elif (form := _linear(layer)) is not None:
            linear[id(layer)] = form
            if form is not _convolution:
                _replace(layer, _alone(layer, form))
        elif (top := ceiling(layer)) is not None:
            _replace(layer, functools.partial(_rectified, top=top))
        elif _pools(layer):
            _replace(layer, functools.partial(_largest, layer))
    for layer in model._flatten_layers(include_self=False):
        source = source_of(layer)
        if source is not None and id(source) in linear and _has_no_activation(source):
            fold(source, layer, linear[id(source)], replace=_replace)
    for layer in model._flatten_layers():
        if _SWITCH not in vars(layer) and can_be_chunked(layer):
            by_chunks = loss_by_chunks(layer)
            _replace(layer, chunked(layer))
            _replace(layer, by_chunks, "compute_loss_and_updates")
            for what in ("train", "predict"):
                _replace(layer, by_halves(layer, what), f"make_{what}_function")
    return model


def plain(model: Any) -> Any:
    """Let the model's layers run as Keras wrote them: undoes `fast_on_cpu`.

    Args:
        model: any `keras.Model`; nested models are gone through too. Programs that its `predict`,
            `fit` and `evaluate` compiled are compiled anew.

    Returns:
        The same model.
    """
    for layer in model._flatten_layers(include_self=True):
        if _SWITCH in vars(layer):
            object.__setattr__(layer, _SWITCH, False)
        forget_programs(layer)
    return model


def photos_at_once(model: Any, batch_size: int) -> int:
    """How many photos of a batch a training step of the model has maps of at one time.

    Args:
        model: a `keras.Model`, after `fast_on_cpu` or as it was made.
        batch_size: photos a step.

    Returns:
        A few where the fast form of the model takes a few at a time; else `batch_size`.
    """
    by_chunks = vars(model).get(_SWITCH, False) and can_be_chunked(model)
    if not by_chunks or not each_alone(model, True):
        return batch_size
    size = size_of(batch_size)
    if size is None:
        return batch_size
    return 2 * size if can_be_halved(batch_size) else size


def _on_cpu() -> bool:
    import jax

    return bool(jax.default_backend() == "cpu")


def _replace(layer: Any, fast: Callable[..., Any], method: str = "call") -> None:
    """Put `fast` in the place of a method of the layer, which the layer's switch brings back."""
    before = getattr(layer, method)

    def call(*arguments: Any, **named: Any) -> Any:
        return (fast if vars(layer)[_SWITCH] else before)(*arguments, **named)

    object.__setattr__(layer, _SWITCH, True)  # past Keras, which would list it as the layer's state
    setattr(layer, method, call)


def _linear(layer: Any) -> Linear | None:
    """How to compute the layer without bias and activation; None if it is no convolution."""
    layers = keras().layers
    kind = type(layer)
    if kind not in (layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Conv2D):
        return None
    if not layer.built or layer.data_format != "channels_last":
        return None
    if kind is layers.Conv2D and not _has_a_group_a_channel(layer):
        if layer.groups > 1 or not _is_usual(layer):
            return _convolution
        if tuple(layer.kernel_size) == (1, 1):
            return _pointwise
        apart = max(layer.kernel_size) <= layer.strides[0]  # what the outputs see does not overlap
        return _first if apart or np.prod(layer.kernel.shape[:3]) <= _SMALL else _spatial
    if not _is_usual(layer):
        return None
    return _separable if kind is layers.SeparableConv2D else _by_channel


def _has_a_group_a_channel(layer: Any) -> bool:
    """Whether a convolution is a depthwise one, as ConvNeXt writes them."""
    return bool(layer.groups > 1 and layer.kernel.shape[2] == 1)


def _alone(layer: Any, linear: Linear) -> Callable[[Any], Any]:
    """The layer's `call`, bias and activation included."""

    def call(inputs: Any) -> Any:
        outputs = linear(layer, inputs, None)
        if layer.use_bias:
            outputs = outputs + layer.bias
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _convolution(layer: Any, inputs: Any, scale: Any) -> Any:
    """A convolution in groups, dilated, or of unlike strides: as Keras has it."""
    return layer.convolution_op(inputs, _scaled(layer.kernel, scale))


def _pointwise(layer: Any, inputs: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    stride = int(layer.strides[0])
    (seen,) = shifted(jnp.asarray(inputs), (1, 1), stride, ((0, 0), (0, 0)))
    return _product(seen, keras().ops.convert_to_tensor(layer.kernel)[0, 0], scale)


def _spatial(layer: Any, inputs: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    size, window = inputs.shape[1:3], tuple(layer.kernel_size)
    if not _known(size) or (layer.padding == "valid" and np.any(np.less(size, window))):
        return _convolution(layer, inputs, scale)  # Keras has the words for what is too small
    kernel, stride = jnp.asarray(_scaled(layer.kernel, scale)), int(layer.strides[0])
    pads = pads_of(layer.padding, size, window, stride)
    return convolution()(jnp.asarray(inputs, kernel.dtype), kernel, stride, pads)


def _first(layer: Any, inputs: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    x, kernel = jnp.asarray(inputs), jnp.asarray(layer.kernel)
    size, stride = (kernel.shape[0], kernel.shape[1]), int(layer.strides[0])
    seen = patches(x, size, stride, pads_of(layer.padding, x.shape[1:3], size, stride))
    return _product(seen, kernel.reshape(-1, kernel.shape[3]), scale)


def _product(x: Any, kernel: Any, scale: Any) -> Any:
    import jax.numpy as jnp

    ones = jnp.ones(kernel.shape[1], kernel.dtype)  # which XLA leaves out
    return product()(x, kernel, ones if scale is None else scale)


def _separable(layer: Any, inputs: Any, scale: Any) -> Any:
    between = _shifted(layer, inputs, layer.depthwise_kernel)
    return _product(between, keras().ops.convert_to_tensor(layer.pointwise_kernel)[0, 0], scale)


def _by_channel(layer: Any, inputs: Any, scale: Any) -> Any:
    k = keras().ops
    kernel = layer.kernel
    if type(layer) is keras().layers.Conv2D:  # the same, of one channel a group
        kernel = k.reshape(kernel, (*kernel.shape[:2], inputs.shape[-1], -1))
    if scale is not None:
        kernel = kernel * k.reshape(scale, kernel.shape[2:])
    return _shifted(layer, inputs, kernel)


def _rectified(inputs: Any, top: float) -> Any:
    return relu()(inputs, top)


def _pools(layer: Any) -> bool:
    """Whether a layer takes the largest of each window, with like strides and not of too many."""
    usual = type(layer) is keras().layers.MaxPooling2D and layer.data_format == "channels_last"
    few = usual and np.prod(layer.pool_size) <= _MANY_VALUES
    return bool(few and layer.strides[0] == layer.strides[1])


def _largest(layer: Any, inputs: Any) -> Any:
    import jax.numpy as jnp

    x, size, stride = jnp.asarray(inputs), tuple(layer.pool_size), int(layer.strides[0])
    if not jnp.issubdtype(x.dtype, jnp.floating) or not _known(x.shape[1:3]):
        return keras().ops.max_pool(inputs, size, stride, layer.padding, layer.data_format)
    return largest()(x, size, stride, pads_of(layer.padding, x.shape[1:3], size, stride))


def _known(size: tuple[Any, ...]) -> bool:
    """Whether height and width are numbers, not symbols of a program for any size."""
    return all(isinstance(n, int) for n in size)


def _scaled(kernel: Any, scale: Any) -> Any:
    """The kernel with its last axis, that of the outputs, scaled."""
    return keras().ops.convert_to_tensor(kernel) if scale is None else kernel * scale


def _shifted(layer: Any, inputs: Any, kernel: Any) -> Any:
    import jax.numpy as jnp

    x, k = jnp.asarray(inputs), jnp.asarray(kernel)
    stride = int(layer.strides[0])
    pads = pads_of(layer.padding, x.shape[1:3], k.shape[:2], stride)
    if k.shape[3] > 1:  # each input channel gives several: repeat it, then go channel by channel
        x = jnp.repeat(x, k.shape[3], axis=3)
    return depthwise()(x, k.reshape(*k.shape[:2], -1), stride, pads)


def _has_no_activation(layer: Any) -> bool:
    return layer.activation in (None, keras().activations.linear)


def _is_usual(layer: Any) -> bool:
    """Whether a convolution has like strides and leaves nothing out."""
    return bool(
        layer.padding in ("same", "valid")
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.strides[0] == layer.strides[1]
    )
