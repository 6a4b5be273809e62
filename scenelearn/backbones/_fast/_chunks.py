"""A network run over a few photos at a time, so that what passes between layers stays in the cache.

The maps of 32 photos are tens of megabytes after each layer: every layer reads them from memory
and writes them to memory that the system first has to hand out and clear. Those of four photos stay
in the processor's cache. A loop over fours inside the compiled program gives the same numbers,
since without statistics of the batch each photo is on its own. In training, the loop keeps the
photos only, and runs the network forward again on its way back: more arithmetic, less waiting.
For MobileNetV2-0.35, prediction took 1.9 times less processor time, a training step 1.2 times less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scenelearn._backend import keras
from scenelearn.backbones._fast._fold import uses_batch

_SIZES = (4, 5, 6, 3, 7, 8, 2)  # the first that divides the batch


def chunked(model: Any) -> Callable[..., Any]:
    """The model's `call`, run over a few photos at a time wherever that changes nothing.

    Args:
        model: a functional model, one of those that `can_be_chunked` lets through.

    Returns:
        A function with the parameters of its `call`.
    """
    whole = model.call

    def call(inputs: Any, training: Any = None, mask: Any = None, **named: Any) -> Any:
        size = chunk_size(inputs)
        if size is None or mask is not None or named or not each_alone(model, training):
            return whole(inputs, training=training, mask=mask, **named)
        return _by_chunks(model, whole, inputs, training, size)

    return call


def can_be_chunked(model: Any) -> bool:
    """Whether it is a functional model from images, with no layers but Keras' own."""
    if type(model).__name__ not in ("Functional", "Model", "Sequential"):
        return False
    layers = [layer for layer in model._flatten_layers() if layer is not model]
    own = all(type(layer).__module__.startswith("keras.") for layer in layers)
    losses = any(getattr(layer, "activity_regularizer", None) is not None for layer in layers)
    inputs = getattr(model, "inputs", None) or []
    return own and not losses and len(inputs) == 1 and len(inputs[0].shape) == 4


def chunk_size(inputs: Any) -> int | None:
    """How many photos of a batch to take at a time; None to take all, and outside of tracing."""
    import jax

    return size_of(inputs.shape[0]) if isinstance(inputs, jax.core.Tracer) else None


def size_of(n_photos: int) -> int | None:
    """How many of so many photos to take at a time; None to take all."""
    if keras().distribution.distribution() is not None:
        return None
    return next((n for n in _SIZES if n_photos % n == 0 and n_photos >= 8), None)


def each_alone(model: Any, training: Any) -> bool:
    """Whether no photo's output depends on the others in the batch."""
    norms = keras().layers.BatchNormalization
    return not any(
        isinstance(layer, norms) and uses_batch(layer, training)
        for layer in model._flatten_layers(include_self=False)
    )


def _by_chunks(model: Any, whole: Callable[..., Any], inputs: Any, training: Any, size: int) -> Any:
    import jax

    k = keras()
    variables = list(model.variables)
    values = [variable.value for variable in variables]
    seeds = [n for n, v in enumerate(variables) if v.path.endswith("seed_generator_state")]

    def one(states: list[Any], values: list[Any], images: Any) -> Any:
        current = dict(enumerate(values)) | dict(zip(seeds, states, strict=True))
        pairs = [(variable, current[n]) for n, variable in enumerate(variables)]
        with k.StatelessScope(pairs) as scope:
            outputs = whole(images, training=training)
        return [scope.get_current_value(variables[n]) for n in seeds], outputs

    if training and variables and all(layer.trainable for layer in model.layers):
        one = jax.checkpoint(one, prevent_cse=False)
    images = inputs.reshape(-1, size, *inputs.shape[1:])
    start = [values[n] for n in seeds]
    states, outputs = jax.lax.scan(lambda s, x: one(s, values, x), start, images)
    for n, state in zip(seeds, states, strict=True):
        variables[n].assign(state)
    return jax.tree.map(lambda table: table.reshape(-1, *table.shape[2:]), outputs)
