"""ReLU whose derivative looks at its output, which the next layer keeps anyway.

The usual one looks at its input, which is then kept or computed a second time as well, and at
ReLU6's corners it divides the derivative in halves, which takes several comparisons. One look at
the output instead made a training step of MobileNetV2-0.35 20 % shorter. Where ReLU has no
derivative, at its corners, this one is 0, as in TensorFlow.
"""

from __future__ import annotations

import functools
from typing import Any

from scenelearn._backend import keras


def ceiling(layer: Any) -> float | None:
    """The largest output of a layer that is nothing but a ReLU; None if it is another layer."""
    k = keras()
    if type(layer) is k.layers.Activation:
        return {k.activations.relu: float("inf"), k.activations.relu6: 6.0}.get(layer.activation)
    if type(layer) is not k.layers.ReLU or layer.negative_slope or layer.threshold:
        return None
    return float("inf") if layer.max_value is None else float(layer.max_value)


@functools.cache
def relu() -> Any:
    """(x, ceiling) -> x between 0 and the ceiling, with its derivative."""
    import jax
    import jax.numpy as jnp

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def rectify(x: Any, top: float) -> Any:
        return jnp.clip(x, 0, None if top == float("inf") else top)

    def keep(x: Any, top: float) -> Any:
        y = rectify(x, top)
        return y, y

    def gradient(top: float, y: Any, g: Any) -> Any:
        return (jnp.where((y > 0) & (y < top), g, 0),)

    rectify.defvjp(keep, gradient)
    return rectify
