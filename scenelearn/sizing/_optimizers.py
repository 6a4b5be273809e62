"""What an optimizer keeps for each weight that it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn import _backend
from scenelearn.errors import ArgumentError

from ._layers import Shape
from ._unfilled import without_values

_COPIES = {
    "sgd": 0, "sgd_momentum": 1, "rmsprop": 1, "adagrad": 1, "lion": 1, "adam": 2, "adamw": 2,
    "adamax": 2, "adadelta": 2, "ftrl": 2, "lamb": 2, "nadam": 2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slots:
    """The variables of an optimizer.

    Attributes:
        name: The optimizer's name.
        of_weights: The shapes of the variables kept for weights, over all weights.
        n_scalars: Single numbers: the step, the learning rate and their like, 4 bytes each.
    """

    name: str
    of_weights: tuple[Shape, ...]
    n_scalars: int


def slots_of(optimizer: Any, weights: Sequence[Shape]) -> Slots:
    """The variables that an optimizer makes for weights of these shapes.

    Args:
        optimizer: None or "sgd" for gradient descent without momentum; another name of
            `keras.optimizers`, or "sgd_momentum"; or a Keras optimizer, whose settings
            (momentum, amsgrad, use_ema, gradient accumulation, ...) then count.
        weights: The shape of each weight that is trained.

    Returns:
        Their shapes. A name of the plain optimizers is looked up; all else is asked of Keras,
        which builds the optimizer without giving any variable a value.

    Raises:
        ArgumentError: The name is unknown, or it is no optimizer.

    Examples:
        >>> slots_of("adam", [(3, 3, 3, 100), (100,)]).of_weights
        ((3, 3, 3, 100), (3, 3, 3, 100), (100,), (100,))
    """
    if optimizer is None:
        optimizer = "sgd"
    if isinstance(optimizer, str) and optimizer.lower() in _COPIES:
        name = optimizer.lower()
        copies = _COPIES[name]
        # iterations and learning rate; Nadam also keeps a running product
        n_scalars = 3 if name == "nadam" else 2
        return Slots(name, tuple(shape for shape in weights for _ in range(copies)), n_scalars)
    keras = _backend.keras()
    if isinstance(optimizer, str):
        names = sorted({*_COPIES, "adafactor", "muon"})
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
    if type(optimizer).__name__ in _BY_HAND:
        return _by_hand(optimizer, weights)
    # its scalars are made with values
    fresh = type(optimizer).from_config(optimizer.get_config())
    with without_values(keras):
        fresh.build([_named(keras, shape, place) for place, shape in enumerate(weights)])
        shapes = [tuple(variable.shape) for variable in fresh.variables]
    return Slots(
        optimizer.name,
        tuple(shape for shape in shapes if shape),
        sum(not shape for shape in shapes),
    )


_BY_HAND = ("Adafactor", "Nadam")  # their `build` gives values to scalars, so Keras cannot be asked


def _by_hand(optimizer: Any, weights: Sequence[Shape]) -> Slots:
    """The variables of Keras's optimizers that cannot be built without values.

    Adafactor keeps row and column sums of a matrix and a full average; of a vector two scalars
    stand for the sums. Nadam keeps two averages and a running product.
    """
    shapes: list[Shape] = []
    n_scalars = 2
    for shape in weights:
        if type(optimizer).__name__ == "Nadam":
            shapes += [shape, shape]
        elif len(shape) < 2:
            shapes.append(shape)
            n_scalars += 2
        else:
            shapes += [shape[:-1], (*shape[:-2], shape[-1]), shape]
        shapes += [shape] * (bool(optimizer.use_ema) + bool(optimizer.gradient_accumulation_steps))
    n_scalars += type(optimizer).__name__ == "Nadam"
    return Slots(optimizer.name, tuple(shapes), n_scalars)


def _named(keras: Any, shape: Shape, place: int) -> Any:
    zeros = keras.initializers.Zeros()
    return keras.Variable(zeros, shape=shape, dtype="float32", name=f"weight_{place}")
