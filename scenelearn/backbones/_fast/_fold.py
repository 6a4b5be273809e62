"""BatchNormalization with stored statistics, as part of the convolution before it.

With them it is y = s·z + o for each channel of the convolution's output z = x ∗ W, and that is
x ∗ (s·W) + o: the pass over z and, in training, its two derivatives over arrays of that size are
gone. The derivatives for s and W follow from the one for s·W, which is as small as the kernel.
Where the kernel is larger than what comes out, as in ResNet's last blocks, z is scaled instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from scenelearn._backend import keras

KEEPS_STATISTICS = "_scenelearn_keeps_statistics"  # a BatchNormalization's attribute

Linear = Callable[[Any, Any, Any], Any]  # (layer, inputs, scale or None) -> without bias


def source_of(layer: Any) -> Any:
    """The layer whose output a BatchNormalization over channels takes, or None."""
    if type(layer) is not keras().layers.BatchNormalization or len(layer._inbound_nodes) != 1:
        return None
    tensors = layer._inbound_nodes[0].input_tensors
    if layer.axis not in (-1, len(tensors[0].shape) - 1) or layer.compute_dtype != "float32":
        return None
    return tensors[0]._keras_history.operation


def fold(source: Any, norm: Any, linear: Linear, *, replace: Callable[[Any, Any], None]) -> None:
    """Let `norm` compute the convolution `source` and itself in one.

    The convolution is still asked for its own outputs, but as nothing uses them, they are
    not computed: while a program is traced, that costs nothing. Outside of tracing, and in
    training with the statistics of the batch, both layers do what they always do.

    Args:
        source: a convolution without activation; its `call` is wrapped.
        norm: the BatchNormalization that takes its outputs; its `call` is replaced.
        linear: how to compute the convolution with its kernel scaled.
        replace: puts a new `call` in a layer's place.
    """
    convolve, normalize = source.call, norm.call
    last: list[Any] = []  # outputs and inputs of the convolution when it was last traced

    def note(inputs: Any) -> Any:
        outputs = convolve(inputs)
        last[:] = [outputs, inputs] if _traced(outputs) else []
        return outputs

    def both(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        outputs, before = last or (None, None)
        last.clear()
        if outputs is not inputs or mask is not None or uses_batch(norm, training):
            return normalize(inputs, training=training, mask=mask)
        scale, offset = _scale_and_offset(norm)
        if source.use_bias:
            offset = offset + scale * source.bias
        known = [n for n in outputs.shape if isinstance(n, int)]  # a batch may be symbolic
        if _n_weights(source) <= math.prod(known):
            return linear(source, before, scale) + offset
        return linear(source, before, None) * scale + offset  # fewer to scale, and to keep

    replace(source, note)
    replace(norm, both)


def _n_weights(layer: Any) -> int:
    return sum(math.prod(weight.shape) for weight in layer.weights)


def uses_batch(norm: Any, training: Any) -> bool:
    """Whether a BatchNormalization normalizes by the batch at hand."""
    kept = vars(norm).get(KEEPS_STATISTICS, False)
    return bool(training) and bool(norm.trainable) and not kept


def _traced(tensor: Any) -> bool:
    import jax

    return isinstance(tensor, jax.core.Tracer)


def _scale_and_offset(norm: Any) -> tuple[Any, Any]:
    ops = keras().ops
    scale = ops.rsqrt(norm.moving_variance + norm.epsilon)
    if norm.scale:
        scale = scale * norm.gamma
    offset = -norm.moving_mean * scale
    return scale, offset + norm.beta if norm.center else offset
