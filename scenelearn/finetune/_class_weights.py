"""Weights of classes: how much each counts in training, calibration and the choice of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_choice, check_number
from scenelearn.errors import ArgumentError

BALANCED = "balanced"

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassWeights:
    """How much each class counts; None where all photos count the same.

    Attributes:
        training: (n_classes,) in the loss of the linear probe and of fine-tuning, and in the
            calibration of probabilities; the mean over the training photos is 1.
        choice: (n_classes,) in the validation loss that decides what is kept.
    """

    training: Weights | None = None
    choice: Weights | None = None


UNWEIGHTED = ClassWeights()


def check_class_weight(value: Any) -> str | dict[str, float] | None:
    """Check the argument `class_weight` of `fit`.

    Raises:
        ArgumentError: if it is neither None, "balanced" nor a mapping from names to numbers above
            0.
    """
    if isinstance(value, Mapping):
        return {
            str(name): check_number(f"class_weight[{name!r}]", weight, low=0, open_low=True)
            for name, weight in value.items()
        }
    advice = "Or pass the weights of classes by name, such as {'sea': 2}."
    checked: str | None = check_choice("class_weight", value, (BALANCED, None), advice=advice)
    return checked


def weigh_classes(
    class_weight: str | Mapping[str, float] | None,
    class_names: Sequence[str],
    labels: npt.NDArray[np.integer[Any]],
) -> Weights | None:
    """The weight of each class, scaled so that the mean over the photos is 1.

    Args:
        class_weight: "balanced" for n / (n_classes · n_c), where n_c is the number of photos of
            the class; weights by name, where classes that are not named have 1; or None.
        class_names: the classes.
        labels: (n,) of the photos.

    Returns:
        (n_classes,), or None.

    Raises:
        ArgumentError: if a name is not that of a class.

    Example:
        >>> weigh_classes("balanced", ["sea", "sky"], np.array([0, 0, 0, 1])).round(3).tolist()
        [0.667, 2.0]
    """
    if class_weight is None:
        return None
    counts = np.bincount(labels, minlength=len(class_names))
    if isinstance(class_weight, str):
        weights = 1 / np.maximum(counts, 1)
    else:
        unknown = [name for name in class_weight if name not in class_names]
        if unknown:
            raise ArgumentError(
                f"`class_weight` must map classes to weights: {', '.join(class_names)}. Received "
                f"also: {', '.join(map(repr, unknown))}. Check the names."
            )
        weights = np.array([class_weight.get(name, 1.0) for name in class_names])
    scaled: Weights = weights * (len(labels) / (weights @ counts))
    return scaled


def build_class_weights(
    class_weight: str | Mapping[str, float] | None,
    objective: str,
    class_names: Sequence[str],
    *,
    train_labels: npt.NDArray[np.integer[Any]],
    validation_labels: npt.NDArray[np.integer[Any]],
) -> ClassWeights:
    """The weights of a fit.

    With the objective "balanced_accuracy", each class of the validation photos counts the same in
    the choice of what is kept. Otherwise, it counts there as in training.

    Raises:
        ArgumentError: if `class_weight` names an unknown class.
    """
    training = weigh_classes(class_weight, class_names, train_labels)
    choice = training
    if objective == "balanced_accuracy":
        choice = weigh_classes(BALANCED, class_names, validation_labels)
    return ClassWeights(training=training, choice=choice)


def photo_weights(weights: Weights | None, labels: npt.NDArray[np.integer[Any]]) -> Weights | None:
    """The weight of each photo by its class, scaled to a mean of 1; None if all count the same."""
    if weights is None:
        return None
    of_photo: Weights = weights[labels]
    of_photo /= of_photo.mean()
    return of_photo
