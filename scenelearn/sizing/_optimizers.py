"""The variables that optimizers keep per trained weight (slots)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from scenelearn import _backend
from scenelearn._keras_internals import deferred_initialization
from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers import Shape

_SLOTS_PER_WEIGHT = {
    "sgd": 0, "sgd_momentum": 1, "rmsprop": 1, "adagrad": 1, "lion": 1, "adam": 2, "adamw": 2,
    "adamax": 2, "adadelta": 2, "ftrl": 2, "lamb": 2, "nadam": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OptimizerSlots:
    """The variables of an optimizer.

    Attributes:
        name: the optimizer's name.
        shapes: the shapes of the slots of all weights.
        n_scalars: the number of scalars of 4 bytes each: iteration, learning rate and the like.
    """

    name: str
    shapes: tuple[Shape, ...]
    n_scalars: int


def optimizer_slots(optimizer: Any, weights: Sequence[Shape]) -> OptimizerSlots:
    """Find the variables that an optimizer creates for weights of these shapes.

    Args:
        optimizer: None or "sgd" for SGD without momentum; another name of `keras.optimizers`, or
            "sgd_momentum"; or a Keras optimizer, with its settings (momentum, amsgrad, use_ema,
            gradient accumulation, ...).
        weights: the shape of each trained weight.

    Returns:
        The shapes of the slots. Common names are looked up in a table; for all others, Keras builds
        the optimizer without values.

    Raises:
        ArgumentError: if the name is unknown, or the value is not an optimizer.

    Examples:
        >>> optimizer_slots("adam", [(3, 3, 3, 100), (100,)]).shapes
        ((3, 3, 3, 100), (3, 3, 3, 100), (100,), (100,))
    """
    if optimizer is None:
        optimizer = "sgd"
    if isinstance(optimizer, str) and optimizer.lower() in _SLOTS_PER_WEIGHT:
        name = optimizer.lower()
        shapes = tuple(shape for shape in weights for _ in range(_SLOTS_PER_WEIGHT[name]))
        # iterations and learning rate; Nadam also keeps a running product
        return OptimizerSlots(name, shapes, 3 if name == "nadam" else 2)
    keras = _backend.keras()
    if isinstance(optimizer, str):
        names = sorted({*_SLOTS_PER_WEIGHT, "adafactor", "muon"})
        if optimizer.lower() not in names:
            raise ArgumentError(
                f"`optimizer` must be one of {', '.join(names)}, or a Keras optimizer. Received: "
                f"optimizer={optimizer!r}."
            )
        optimizer = keras.optimizers.get(optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ArgumentError(
            "`optimizer` must be a name or a Keras optimizer. Received: "
            f"{type(optimizer).__name__}."
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(inner, keras.optimizers.Adafactor):
        return _count_adafactor(inner, weights)
    try:
        built = _build(keras, optimizer, weights, deferred_initialization())
    except Exception:  # noqa: BLE001 - Nadam and TensorFlow need values
        built = _build_small(keras, optimizer, weights)
    return OptimizerSlots(
        optimizer.name,
        tuple(shape for shape in built if shape),
        sum(not shape for shape in built),
    )


def _build(
    keras: Any, optimizer: Any, weights: Sequence[Shape], scope: AbstractContextManager[Any]
) -> list[Shape]:
    """The shapes of the variables that an optimizer builds for these weights within a scope."""
    zeros = keras.initializers.Zeros()
    # A new optimizer: the constructor gives its scalars values.
    fresh = type(optimizer).from_config(optimizer.get_config())
    with scope:
        fresh.build(
            [
                keras.Variable(zeros, shape=shape, dtype="float32", name=f"weight_{at}")
                for at, shape in enumerate(weights)
            ]
        )
        return [tuple(variable.shape) for variable in fresh.variables]


def _build_small(keras: Any, optimizer: Any, weights: Sequence[Shape]) -> list[Shape]:
    """The same from small variables in place of the weights, told apart by their first axis."""
    small = [(at + 2, *(1 for _ in shape[1:])) if shape else () for at, shape in enumerate(weights)]
    real = dict(zip(small, weights, strict=True)) | {(): ()}
    built = _build(keras, optimizer, small, nullcontext())
    other = [shape for shape in built if shape not in real]
    if other:
        raise ArgumentError(
            "`optimizer` must keep variables in the shape of the weights, or be built without "
            f"values. Received: {type(optimizer).__name__}, which keeps others. Use KERAS_BACKEND="
            "jax, or pass an optimizer that keeps as much."
        )
    return [real[shape] for shape in built]


def _count_adafactor(optimizer: Any, weights: Sequence[Shape]) -> OptimizerSlots:
    """The variables of Adafactor: row sums, column sums and a full average of each matrix.

    For a vector, two scalars take the place of the sums.
    """
    shapes: list[Shape] = []
    n_scalars = 2
    for shape in weights:
        if len(shape) < 2:
            shapes.append(shape)
            n_scalars += 2
        else:
            shapes += [shape[:-1], (*shape[:-2], shape[-1]), shape]
        shapes += [shape] * (bool(optimizer.use_ema) + bool(optimizer.gradient_accumulation_steps))
    return OptimizerSlots(optimizer.name, tuple(shapes), n_scalars)
