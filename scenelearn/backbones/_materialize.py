"""Build a model without running initializers first.

Keras fills each weight with random values before it loads pretrained weights over them. On JAX,
that costs one compilation per shape of weight: 11 s for a MobileNetV2. Here a model is built with
empty variables, and each is assigned its value once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._keras_internals import (
    deferred_initialization,
    initialize_variable,
    initializer_of,
)


def materialize(make: Callable[[], Any], seed: int | None = 0) -> Any:
    """Build a model with empty variables, then assign each its value.

    A variable gets the value that was loaded into it while the model was built; otherwise the value
    of its initializer, computed with NumPy for the usual kinds.

    Args:
        make: builds and returns a `keras.Model`; it may load weights.
        seed: random seed of random values; None if all weights must have been loaded.

    Returns:
        The model, ready for use.

    Raises:
        ValueError: if `seed` is None and a weight was not loaded.
    """
    with deferred_initialization() as scope:
        model = make()
        values = {id(v): scope.get_current_value(v) for v in model.variables}
    rng = np.random.default_rng(seed)
    weights = {id(variable) for variable in model.weights}  # not the states of random generators
    for variable in model.variables:
        value = values[id(variable)]
        if value is None and seed is None and id(variable) in weights:
            raise ValueError(f"no weights {variable.path!r}")
        initialize_variable(variable, _initial_value(variable, rng) if value is None else value)
    return model


def find_non_finite(model: Any) -> str | None:
    """Return the path of the first weight that has NaN or infinite values; None if all are finite.

    Args:
        model: a `keras.Model`.
    """
    for variable in model.variables:
        if not keras().backend.is_float_dtype(variable.dtype):
            continue
        values = keras().ops.convert_to_numpy(variable)
        if not np.isfinite(values.astype(np.float32, copy=False)).all():
            return str(variable.path)
    return None


def _initial_value(variable: Any, rng: np.random.Generator) -> npt.NDArray[Any] | None:
    """The initializer's value, computed with NumPy; None for other kinds of initializers."""
    initializer, shape = initializer_of(variable), tuple(variable.shape)
    if variable.path.endswith("seed_generator_state"):  # of Dropout layers
        return rng.integers(0, 2**31, shape).astype(np.uint32)
    kind = type(initializer).__name__
    if kind == "Zeros":
        return np.zeros(shape, np.float32)
    if kind == "Ones":
        return np.ones(shape, np.float32)
    if not isinstance(initializer, keras().initializers.VarianceScaling):
        return None
    fan_in, fan_out = _fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    variance = initializer.scale / max(1.0, fan[initializer.mode])
    if initializer.distribution == "uniform":
        limit = np.sqrt(3 * variance)
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    values = rng.standard_normal(shape)
    if initializer.distribution == "truncated_normal":
        while (outside := np.abs(values) > 2).any():
            values[outside] = rng.standard_normal(int(outside.sum()))
        values /= 0.87962566103423978  # the standard deviation of a normal truncated at ±2
    return np.asarray(values * np.sqrt(variance), np.float32)


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """The fan-in and fan-out of a kernel, as Keras counts them."""
    if len(shape) < 2:
        n = float(shape[0]) if shape else 1.0
        return n, n
    field = float(np.prod(shape[:-2]))
    return shape[-2] * field, shape[-1] * field
