"""The one place of this room with code for each backend: a derivative by a model's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras


def input_gradient(
    model: Any, inputs: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The derivative of Σ (outputs · weights) by the inputs, as the backend computes it.

    Args:
        model: a `keras.Model` with one output.
        inputs: one batch.
        weights: of the model's outputs, of their shape.

    Returns:
        Of the shape of `inputs`.
    """
    backend = keras().backend.backend()
    by = {"jax": _by_jax, "tensorflow": _by_tensorflow, "torch": _by_torch}[backend]
    return np.asarray(by(model, inputs, weights), np.float32)


def _by_jax(model: Any, inputs: Any, weights: Any) -> Any:
    import jax

    trained = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]

    def total(x: Any) -> Any:
        outputs, _ = model.stateless_call(trained, fixed, x, training=False)
        return (outputs * weights).sum()

    return jax.grad(total)(jax.numpy.asarray(inputs))


def _by_tensorflow(model: Any, inputs: Any, weights: Any) -> Any:
    import tensorflow  # type: ignore[import-untyped,import-not-found,unused-ignore]

    x = tensorflow.convert_to_tensor(inputs)
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        total = tensorflow.reduce_sum(model(x, training=False) * weights)
    return tape.gradient(total, x)


def _by_torch(model: Any, inputs: Any, weights: Any) -> Any:
    import torch

    x = keras().ops.convert_to_tensor(inputs).clone().requires_grad_(True)
    with torch.enable_grad():
        total = (model(x, training=False) * keras().ops.convert_to_tensor(weights)).sum()
        (gradient,) = torch.autograd.grad(total, x)
    return gradient.detach().cpu().numpy()
