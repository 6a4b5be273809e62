"""The settings of a fit, checked before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from scenelearn import backbones
from scenelearn.augment import Policy
from scenelearn.augment import policy as policy_of
from scenelearn.data import Splits
from scenelearn.errors import ArgumentError
from scenelearn.finetune._choose import AUTO, check_auto, chosen_backbone
from scenelearn.finetune._course import Course, course_of
from scenelearn.finetune._precision import PRECISIONS, usable
from scenelearn.finetune._recipe import Recipe, whole

# Stored weights: the best of 3e-5 … 2e-3 on validation photos of three splits of the Intel photos,
# for MobileNetV2-0.35 by one rate for all kernels. Random weights have further to go, and so have
# those that were learned from drawn images, in all layers: with 500 photos a class their fits
# reached 83.2 % of the validation photos of one split where the upper layers alone reached 81.3 %,
# and with 25 photos 73.1 % by the higher rate where all layers reached 71.4 % by the lower one.
_PEAK_STORED, _PEAK_FAR = 1e-3, 3e-3

# Random weights have further to go.
_MOST_EPOCHS_STORED, _MOST_EPOCHS_RANDOM = 40, 120


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """What a fit is asked to do.

    Attributes:
        backbone: the network's name in keras.applications.
        weights: "imagenet", "scenelearn" for those in the package, a path to a weights file, or
            None for random weights.
        image_px: width and height at which the network sees a photo, in pixels, at least 32.
        minutes: wall-clock budget of the whole fit, in minutes, above 0.
        epochs: exactly so many epochs of fine-tuning, in each run of a soup; None lets the budget
            decide; 0 for none. The settings of a result of which the budget decided hold its course
            instead: for each epoch its steps and how far the schedule was after it, from 0 to 1 in
            the first run, from 1 to 2 in the second.
        batch_size: photos a training step, at least 1.
        learning_rate: peak rate of fine-tuning, above 0.
        augmentation: how training photos are varied while fine-tuning: the name of a policy, or a
            policy; its values by name become one. "none" leaves them as they are.
        recipe: the finer points of fine-tuning, or its values by name.
        seed: of everything random.
        precision: "mixed_bfloat16" or "mixed_float16": the network computes in 16 bits; its
            weights, the head and the loss stay in 32. None for 32 bits throughout.
    """

    backbone: str = backbones.DEFAULT
    weights: str | None = "imagenet"
    image_px: int = 160
    minutes: float = 5.0
    epochs: int | Course | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3  # the default from stored weights, see `fit`
    augmentation: str | Policy | Mapping[str, Any] = "standard"
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not isinstance(self.weights, str):
            raise ArgumentError(
                "`weights` must be 'imagenet', 'scenelearn', the path of a weights file, or None. "
                f"Received: weights={self.weights!r}."
            )
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ArgumentError(
                "`precision` must be 'mixed_bfloat16', 'mixed_float16' or None. Received: "
                f"precision={self.precision!r}. None, for 32 bits, is sure."
            )
        bounds = policy_of(self.augmentation)
        if not isinstance(self.augmentation, str):
            object.__setattr__(self, "augmentation", bounds)
        if isinstance(self.recipe, Mapping):
            object.__setattr__(self, "recipe", _recipe(self.recipe))
        elif not isinstance(self.recipe, Recipe):
            raise ArgumentError(
                f"`recipe` must be a Recipe. Received: recipe={self.recipe!r}. "
                "Pass e.g. sl.finetune.Recipe(label_smoothing=0.1)."
            )
        whole("image_px", self.image_px, 32, "Most photos do well at 160 or 224.")
        whole("batch_size", self.batch_size, 1, "32 is usual.")
        whole("seed", self.seed, 0, "Any fixed number will do, e.g. 0.")
        if isinstance(self.epochs, list | tuple):
            object.__setattr__(self, "epochs", _course(self.epochs, self.n_runs))
        elif self.epochs is not None:
            whole("epochs", self.epochs, 0, "Pass None to let `minutes` decide.")
        _above_zero("minutes", self.minutes, "Pass the time you have, e.g. minutes=5.")
        _above_zero("learning_rate", self.learning_rate, "0.001 is usual.")

    @property
    def most_epochs(self) -> int:
        """The most epochs that each run of the fit makes, however much time it has."""
        if self.epochs is None:
            return _MOST_EPOCHS_RANDOM if self.weights is None else _MOST_EPOCHS_STORED
        return self.epochs if isinstance(self.epochs, int) else -(-len(self.epochs) // self.n_runs)

    @property
    def n_runs(self) -> int:
        """How often fine-tuning starts from the solved head, see `Recipe.soup`."""
        return 1 if self.moves_statistics else self.recipe.soup

    @property
    def moves_statistics(self) -> bool:
        """Whether BatchNormalization normalizes by the batch, and moves what it has stored."""
        return self.weights is None or self.recipe.batch_statistics

    def to_json(self) -> dict[str, Any]:
        """The settings as plain values, by name."""
        plain = asdict(self)
        if isinstance(self.augmentation, Policy):
            plain["augmentation"] = self.augmentation.to_json()
        return plain


def asked(
    splits: object,
    *,
    backbone: str | None,
    weights: str | os.PathLike[str] | None,
    learning_rate: float | None,
    recipe: Recipe | Mapping[str, Any] | None,
    **others: Any,
) -> FitSettings:
    """The settings that the arguments of `fit` and `plan` ask for, with defaults filled in.

    Raises:
        ArgumentError: if `splits` is something else, a value is out of range, or no backbone is
            named and the name of the weights file does not tell it.
        UnknownBackboneError: if keras.applications has no such network.
    """
    if not isinstance(splits, Splits):
        raise ArgumentError(
            f"`splits` must come from `split`. Received: {type(splits).__name__}. "
            "Pass sl.split(sl.scan(folder))."
        )
    if backbone == AUTO:
        check_auto(weights)
    network = backbones.default_for(weights) if backbone is None else backbone
    tiny = weights == backbones.STORED or (
        weights not in (None, "imagenet") and backbones.find(network).name == backbones.TINY
    )
    peak = _PEAK_FAR if tiny or weights is None else _PEAK_STORED
    usual = {"trained": "all"} if tiny else {}
    if recipe is None or isinstance(recipe, Mapping):
        recipe = usual | dict(recipe or {})
    return FitSettings(
        backbone=network,
        weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
        learning_rate=peak if learning_rate is None else learning_rate,
        recipe=recipe,  # type: ignore[arg-type]
        **others,
    )


def with_backbone(settings: FitSettings, n_photos: int) -> FitSettings:
    """The settings as this machine can have them.

    The network gets its canonical name, and "auto" becomes one. A precision of 16 bits
    that the device does not have is left out, with a warning in the log.

    Raises:
        UnknownBackboneError: if keras.applications has no such network.
    """
    name = settings.backbone
    if name == AUTO:
        name = chosen_backbone(n_photos, settings.image_px, settings.minutes)
    return replace(
        settings, backbone=backbones.find(name).name, precision=usable(settings.precision)
    )


def _recipe(values: Mapping[str, Any]) -> Recipe:
    known = {one.name for one in fields(Recipe)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ArgumentError(
            f"`recipe` must have the names of a Recipe: {', '.join(sorted(known))}. "
            f"Received: {', '.join(map(str, unknown))}."
        )
    return Recipe(**values)


def _course(value: Sequence[Sequence[float]], n_runs: int) -> Course:
    course = course_of(value, n_runs)
    if course is None:
        raise ArgumentError(
            "`epochs` must be a whole number of at least 0, None, or the course of a result: pairs "
            f"of steps and a share that rises to at most {n_runs}, the number of runs. "
            f"Received: epochs={value!r}. Pass None to let `minutes` decide."
        )
    return course


def _above_zero(name: str, value: object, advice: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(float(value)) or float(value) <= 0:  # type: ignore[arg-type]
        raise ArgumentError(
            f"`{name}` must be a number above 0. Received: {name}={value!r}. " + advice
        )
