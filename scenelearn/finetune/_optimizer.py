"""The optimizer: AdamW, with a rate of its own for each variable, and an average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scenelearn._backend import keras
from scenelearn.finetune._precision import scaled
from scenelearn.finetune._rates import shares
from scenelearn.finetune._recipe import Recipe
from scenelearn.finetune._state import arrays_of, assign


def optimizer_of(model: Any, recipe: Recipe, precision: str | None = None) -> Any:
    """AdamW for what trains of a model; its learning rate is set before each step.

    Args:
        model: to logits; its layers are frozen or not already.
        recipe: `weight_decay`, `average`, `layer_decay` and `relative_rates` of it.
        precision: of the network's arithmetic, see `FitSettings`.

    Returns:
        A Keras optimizer, not built yet.
    """
    adamw = keras().optimizers.AdamW
    by_place = shares(model, decay=recipe.layer_decay, relative=recipe.relative_rates)

    class OwnRatesAdamW(adamw):  # type: ignore[misc, valid-type]
        """Each variable learns at its share of the rate."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            # by its place, as Keras' optimizers do: TensorFlow passes variables without a path
            share = by_place[self._get_variable_index(variable)]
            share = keras().ops.convert_to_tensor(share, learning_rate.dtype)
            super().update_step(gradient, variable, learning_rate * share)

    optimizer = (OwnRatesAdamW if by_place else adamw)(
        learning_rate=0.0,
        weight_decay=recipe.weight_decay,
        use_ema=recipe.average > 0,
        ema_momentum=recipe.average or 0.99,
    )
    return scaled(optimizer, precision)


def forget(model: Any) -> None:
    """Let a model's optimizer be as before its first step; a loss scale stays as it has grown."""
    optimizer = _unscaled(model)
    for variable in optimizer.variables:
        variable.assign(keras().ops.zeros(variable.shape, variable.dtype))


@contextmanager
def averaged(model: Any) -> Iterator[None]:
    """Inside, the model has the running average of its weights, if its optimizer keeps one."""
    optimizer = _unscaled(model)
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    own = arrays_of(variables)
    optimizer.finalize_variable_values(variables)
    # a copy: JAX deletes arrays that a prediction was given
    assign(variables, arrays_of(variables))
    try:
        yield
    finally:
        assign(variables, own)


def _unscaled(model: Any) -> Any:
    """The optimizer itself, where another one around it scales the loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)
