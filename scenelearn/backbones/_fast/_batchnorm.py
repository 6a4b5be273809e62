"""BatchNormalization with moving statistics, folded into the convolution before it.

With moving statistics it is y = s·z + o for each channel of the convolution's output z = x ∗ W,
which equals x ∗ (s·W) + o. That saves the pass over z and, in training, two derivatives over arrays
of its size. The derivatives with respect to s and W follow from the one with respect to s·W, which
is as small as the kernel. Where the kernel is larger than the output, as in ResNet's last blocks, z
is scaled instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scenelearn._backend import keras
from scenelearn._keras_internals import input_tensors_of, is_traced, producer_of

FROZEN_BATCHNORM = "_scenelearn_frozen_batchnorm"  # an attribute of a BatchNormalization

Linear = Callable[[Any, Any, Any], Any]  # (layer, inputs, scale or None) -> outputs without bias


def input_layer_of(layer: Any) -> Any:
    """Return the layer before a BatchNormalization over channels; None for other layers."""
    if type(layer) is not keras().layers.BatchNormalization:
        return None
    tensors = input_tensors_of(layer)
    if tensors is None or layer.compute_dtype != "float32":
        return None
    return producer_of(tensors[0]) if layer.axis in (-1, len(tensors[0].shape) - 1) else None


def fold_batchnorm(
    source: Any, norm: Any, linear: Linear, *, replace: Callable[[Any, Any], None]
) -> None:
    """Let `norm` compute the convolution `source` and itself in one step.

    The convolution still computes its own outputs when called. Nothing uses them, so the compiled
    program omits them. Outside of tracing, and in training with batch statistics, both layers do
    what they usually do.

    Args:
        source: a convolution without activation; its `call` is wrapped.
        norm: the BatchNormalization of its outputs; its `call` is replaced.
        linear: computes the convolution with a scaled kernel.
        replace: replaces the `call` of a layer.
    """
    convolve, normalize = source.call, norm.call
    traced: list[Any] = []  # outputs and inputs of the last traced call of the convolution

    def record(inputs: Any) -> Any:
        outputs = convolve(inputs)
        traced[:] = [outputs, inputs] if is_traced(outputs) else []
        return outputs

    def convolve_and_normalize(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        outputs, x = traced or (None, None)
        traced.clear()
        if outputs is not inputs or mask is not None or uses_batch_statistics(norm, training):
            return normalize(inputs, training=training, mask=mask)
        scale, offset = _scale_and_offset(norm)
        if source.use_bias:
            offset = offset + scale * source.bias
        # A symbolic batch size counts as 1.
        output_size = math.prod(n for n in outputs.shape if isinstance(n, int))
        if sum(math.prod(weight.shape) for weight in source.weights) <= output_size:
            return linear(source, x, scale) + offset
        return linear(source, x, None) * scale + offset  # the output is smaller than the kernel

    replace(source, record)
    replace(norm, convolve_and_normalize)


def uses_batch_statistics(norm: Any, training: Any) -> bool:
    """Return whether a BatchNormalization normalizes with the statistics of the batch."""
    is_frozen = vars(norm).get(FROZEN_BATCHNORM, False)
    return bool(training) and bool(norm.trainable) and not is_frozen


def _scale_and_offset(norm: Any) -> tuple[Any, Any]:
    ops = keras().ops
    scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.scale:
        scale = scale * norm.gamma
    offset = -norm.moving_mean * scale
    return scale, offset + norm.beta if norm.center else offset
