"""The variables that optimizers keep per trained weight (slots)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn import _backend
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
    if type(optimizer).__name__ == "Adafactor":
        return _count_adafactor(optimizer, weights)
    fresh = type(optimizer).from_config(optimizer.get_config())
    # Small variables in place of the weights, told apart by their first axis.
    fresh.build([_small_variable(keras, shape, at) for at, shape in enumerate(weights)])
    first_axes = [(*variable.shape, 0)[0] for variable in fresh.variables]  # 0 for scalars
    return OptimizerSlots(
        optimizer.name,
        tuple(tuple(weights[axis - 2]) for axis in first_axes if axis),
        sum(not axis for axis in first_axes),
    )


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


def _small_variable(keras: Any, shape: Shape, at: int) -> Any:
    zeros, small = keras.initializers.Zeros(), (at + 2, *(1 for _ in shape[1:])) if shape else ()
    return keras.Variable(zeros, shape=small, dtype="float32", name=f"weight_{at}")
