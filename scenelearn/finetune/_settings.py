"""The settings of a fit, validated before anything runs, and `backbone="auto"`."""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from scenelearn import backbones, sizing
from scenelearn._checks import (
    check_bool,
    check_choice,
    check_image_px,
    check_integer,
    check_number,
    image_size,
)
from scenelearn._distributed import broadcast
from scenelearn._json import dataclass_json
from scenelearn.augment import Policy
from scenelearn.augment import policy as resolve_policy
from scenelearn.backbones._bundled import BUNDLED, BUNDLED_BACKBONE
from scenelearn.backbones._names import find_architecture
from scenelearn.backbones._network import (
    DEFAULT_PX,
    OWN,
    Network,
    Preprocessing,
    Several,
    check_preprocessing,
    is_own,
)
from scenelearn.data import Splits
from scenelearn.data._resize import Resize, check_shape, make_resize
from scenelearn.errors import ArgumentError
from scenelearn.finetune._class_weights import check_class_weight, weigh_classes
from scenelearn.finetune._device import (
    PRECISIONS,
    available_bytes,
    supported_precision,
    training_bytes,
)
from scenelearn.finetune._features import FEATURE_BATCH_SIZE, measure_photo_seconds
from scenelearn.metrics._evaluation import OBJECTIVES
from scenelearn.sizing._networks import build_application

Schedule = tuple[tuple[int, float], ...]
"""For each epoch its number of steps, and the progress of the learning rate schedule after it."""


# Pretrained weights: the best of 3e-5 … 2e-3 on the validation photos of three splits of the Intel
# photos, for MobileNetV2-0.35 with one learning rate for all kernels. Random weights need a higher
# rate, and so do weights learned from rendered images, in all layers: with 500 photos per class,
# their fits reached 83.2% of the validation photos of one split, where the upper layers alone
# reached 81.3%; with 25 photos, the higher rate reached 73.1% and the lower one 71.4%.
_LR_PRETRAINED, _LR_HIGH = 1e-3, 3e-3

# Random weights need more epochs.
_MAX_EPOCHS_PRETRAINED, _MAX_EPOCHS_RANDOM = 40, 120

UNFREEZE = ("stride16", "all", "none")

AUTO = "auto"
# Top-1 accuracy on ImageNet at 224 px, in percent, from the tables of Keras Applications and of the
# MobileNet papers (M. Sandler et al. 2018; A. Howard et al. 2019; M. Tan, Q. Le 2019 and 2021;
# Z. Liu et al. 2022). In ascending order.
CANDIDATES = {
    "mobilenet_v2_0.35": 60.3,
    "mobilenet_v3_small": 67.4,
    "mobilenet_v2": 71.3,
    "mobilenet_v3_large": 75.2,
    "efficientnet_b0": 77.1,
    "efficientnet_v2_b0": 78.7,
    "efficientnet_v2_s": 83.9,
}
_AUTO_EPOCHS = 4
# Duration of a fit, in forward passes over all photos, 70% of which are training photos: features,
# including mirrored training photos; for each epoch, training at three passes per photo while the
# upper layers are trained, and validation; finally weight interpolation and the test.
_AUTO_PASSES = 1.55 + _AUTO_EPOCHS * (3 * 0.7 + 0.15) + 1.5
_AUTO_TIME_FRACTION = 0.9  # the rest is for decoding, the linear probe and compilation

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Advanced fine-tuning settings, in addition to learning rate and augmentation.

    Attributes:
        unfreeze: which layers of the backbone to train. "stride16": those from the point on where
            all feature maps are at least 16 times smaller than the image. Earlier layers detect
            edges and textures, which transfer unchanged, and their gradients would take most of the
            time. "all": all layers. "none": only the head. With random weights, all layers are
            trained.
        scale_lr_by_weights: whether to scale the learning rate of each channel of a kernel below
            the head by the size of its weights: 100 × root mean square / √(number of inputs),
            clipped to [0.01, 1]. The same peak rate then suits narrow and wide networks, and
            networks whose BatchNormalization is folded into the kernels. Applies to pretrained
            weights only.
        mixup_alpha: both parameters of MixUp's Beta distribution; 0 disables MixUp.
        cutmix_alpha: both parameters of CutMix's Beta distribution; 0 disables CutMix. With both,
            each photo gets one or the other.
        interpolate_weights: whether to interpolate between the linear probe and the fine-tuned
            weights. The coefficient (0, 1/2 or 3/4) depends on the number of photos per class,
            unless another is significantly better on the validation photos. Applies to pretrained
            weights only.
        soup: number of fine-tuning runs whose final weights are averaged into a "model soup", which
            predicts as fast as a single network. Each run starts from the linear probe and sees
            different augmented views in a different order. The runs share the time budget, or train
            for `epochs` each. Applies to pretrained weights without `train_batchnorm`.
        weight_decay: weight decay of AdamW, at least 0.
        train_batchnorm: whether BatchNormalization normalizes by the batch and updates its moving
            statistics, as in training from scratch. Applies to pretrained weights; with random
            weights it always does.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> Recipe(cutmix_alpha=1).to_json()["cutmix_alpha"]
        1.0

    References:
        Learning rates by weight size: N. Shazeer, M. Stern (2018), Adafactor: adaptive learning
        rates with sublinear memory cost. ICML. By number of inputs: G. Yang et al. (2021), Tensor
        programs V: tuning large neural networks via zero-shot hyperparameter transfer. NeurIPS.
        Weight averaging: B. Polyak, A. Juditsky (1992), Acceleration of stochastic approximation by
        averaging. SIAM J. Control Optim. 30.
        Soups: M. Wortsman et al. (2022), Model soups: averaging weights of multiple fine-tuned
        models improves accuracy without increasing inference time. ICML.
        Interpolation: M. Wortsman et al. (2022), Robust fine-tuning of zero-shot models. CVPR.
        Weight decay: I. Loshchilov, F. Hutter (2019), Decoupled weight decay. ICLR.
    """

    unfreeze: str = "stride16"
    scale_lr_by_weights: bool = True
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    interpolate_weights: bool = True
    soup: int = 1
    weight_decay: float = 0.01
    train_batchnorm: bool = False

    def __post_init__(self) -> None:
        check_choice("unfreeze", self.unfreeze, UNFREEZE, advice="The default is 'stride16'.")
        for name in ("scale_lr_by_weights", "interpolate_weights", "train_batchnorm"):
            check_bool(name, getattr(self, name))
        for name, low, high, advice in (
            ("mixup_alpha", 0.0, 100.0, "A typical value is 0.2."),
            ("cutmix_alpha", 0.0, 100.0, "A typical value is 1."),
            ("weight_decay", 0.0, 10.0, "A typical value is 0.01."),
        ):
            value = check_number(name, getattr(self, name), low=low, high=high, advice=advice)
            object.__setattr__(self, name, value)
        soup = check_integer("soup", self.soup, low=1, advice="1 is a single run; 4 is typical.")
        object.__setattr__(self, "soup", soup)

    def to_json(self) -> dict[str, Any]:
        """Return the values by name."""
        return dataclass_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """The settings of a fit.

    Attributes:
        backbone: name of the network in keras.applications; or the path, the preset's name, or
            "model:" with the name of a network of your own. Of several networks, these names.
        weights: "imagenet", "scenelearn" for the bundled weights, the path of a weights file, or
            None for random weights; "own" for those that a network of your own brings along.
        preprocessing: of a network of your own, see `fit`.
        image_px: the side of the network's square input, or its (height, width), in pixels, at
            least 32.
        shape: what happens to photos of other proportions: "crop", "pad" or "squash".
        minutes: time budget of the whole fit in minutes, above 0.
        epochs: number of epochs of fine-tuning, in each run of a soup; None lets the time budget
            decide; 0 for none. If the time budget decided, the settings of the result hold the
            schedule instead: for each epoch its steps and the progress of the learning rate
            schedule after it, from 0 to 1 in the first run, from 1 to 2 in the second.
        batch_size: photos per training step, at least 1.
        learning_rate: peak learning rate of fine-tuning, above 0.
        augmentation: how training photos are augmented: a policy's name, a policy, or its values by
            name. "none" disables augmentation.
        recipe: advanced settings: a `Recipe`, or its values by name.
        teacher: path of the teacher's bundle, or "classifier:" with a digest of the teacher.
        seed: random seed, at least 0.
        precision: "mixed_bfloat16" or "mixed_float16": the network computes in 16 bits, while its
            weights, the head and the loss stay in float32. None for float32 throughout.
        class_weight: how much classes count in training: "balanced", weights by name, or None.
        objective: what is kept, and what the results lead with: "accuracy", "balanced_accuracy" or
            "log_loss".

    Raises:
        ArgumentError: if a value is out of range.
    """

    backbone: str | tuple[str, ...] = backbones.DEFAULT_BACKBONE
    weights: str | None = "imagenet"
    preprocessing: Preprocessing = None
    image_px: int | tuple[int, int] = DEFAULT_PX
    shape: str = "crop"
    minutes: float = 5.0
    epochs: int | Schedule | None = None
    batch_size: int = 32
    learning_rate: float = _LR_PRETRAINED
    augmentation: str | Policy | Mapping[str, Any] = "standard"
    recipe: Recipe = field(default_factory=Recipe)
    teacher: str | None = None
    seed: int = 0
    precision: str | None = None
    class_weight: str | Mapping[str, float] | None = None
    objective: str = "accuracy"

    def __post_init__(self) -> None:
        if self.weights is not None and not isinstance(self.weights, str):
            raise ArgumentError(
                "`weights` must be 'imagenet', 'scenelearn', the path of a weights file, or None. "
                f"Received: weights={self.weights!r}. Pass None for random weights."
            )
        if self.preprocessing is not None:
            self._set("preprocessing", check_preprocessing(self.preprocessing))
        advice = "None (float32) always works."
        check_choice("precision", self.precision, (*PRECISIONS, None), advice=advice)
        if self.teacher is not None and self.epochs == 0:
            raise ArgumentError(
                "`teacher` must be None without fine-tuning: the linear probe learns from the "
                f"labels. Received: teacher={self.teacher!r}, epochs=0. Leave one out."
            )
        advice = "Typical values are 160 and 224."
        self._set("image_px", check_image_px(self.image_px, low=32, advice=advice))
        check_shape(self.shape)
        check_choice("objective", self.objective, OBJECTIVES, advice="The default is 'accuracy'.")
        self._set("class_weight", check_class_weight(self.class_weight))
        policy = resolve_policy(self.augmentation)
        if not isinstance(self.augmentation, str):
            self._set("augmentation", policy)
        if isinstance(self.recipe, Mapping):
            self._set("recipe", _parse_recipe(self.recipe))
        elif not isinstance(self.recipe, Recipe):
            raise ArgumentError(
                f"`recipe` must be a Recipe. Received: recipe={self.recipe!r}. "
                "Pass e.g. sl.finetune.Recipe(cutmix_alpha=1)."
            )
        for name, low, advice in (
            ("batch_size", 1, "A typical value is 32."),
            ("seed", 0, "Pass any fixed integer, such as 0."),
        ):
            self._set(name, check_integer(name, getattr(self, name), low=low, advice=advice))
        if isinstance(self.epochs, list | tuple):
            self._set("epochs", _check_schedule(self.epochs, self.n_runs))
        elif self.epochs is not None:
            advice = "Pass None to let `minutes` decide."
            self._set("epochs", check_integer("epochs", self.epochs, low=0, advice=advice))
        for name, advice in (
            ("minutes", "Pass the time budget, such as minutes=5."),
            ("learning_rate", "A typical value is 0.001."),
        ):
            number = check_number(name, getattr(self, name), low=0, open_low=True, advice=advice)
            self._set(name, number)

    @property
    def resize(self) -> Resize:
        """How photos become images: `image_px` and `shape`."""
        return make_resize(self.image_px, self.shape)

    @property
    def backbone_title(self) -> str:
        """The name of the network, or of each of several."""
        return self.backbone if isinstance(self.backbone, str) else " + ".join(self.backbone)

    @property
    def max_epochs(self) -> int:
        """The maximum number of epochs per run, however much time there is."""
        if self.epochs is None:
            return _MAX_EPOCHS_RANDOM if self.weights is None else _MAX_EPOCHS_PRETRAINED
        return self.epochs if isinstance(self.epochs, int) else -(-len(self.epochs) // self.n_runs)

    @property
    def n_runs(self) -> int:
        """The number of runs of fine-tuning, see `Recipe.soup`."""
        return 1 if self.updates_batchnorm else self.recipe.soup

    @property
    def updates_batchnorm(self) -> bool:
        """Whether BatchNormalization normalizes by the batch and updates its statistics."""
        return self.weights is None or self.recipe.train_batchnorm

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values, by name."""
        return dataclass_json(self)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def resolve_settings(
    splits: object,
    *,
    backbone: Any,
    weights: str | os.PathLike[str] | None,
    image_px: int | tuple[int, int] | None = None,
    learning_rate: float | None,
    recipe: Recipe | Mapping[str, Any] | None,
    network: Network | Several | None = None,
    **others: Any,
) -> FitSettings:
    """The settings from the arguments of `fit` and `plan`, with defaults filled in.

    Raises:
        ArgumentError: if `splits` has the wrong type or has no validation photos, a value is out of
            range, no backbone is named and it cannot be inferred from the weights file, or several
            networks would be fine-tuned.
        UnknownBackboneError: if keras.applications has no such network.
    """
    if not isinstance(splits, Splits):
        raise ArgumentError(
            f"`splits` must come from `split`. Received: splits={splits!r}. "
            "Pass sl.split(sl.scan(folder))."
        )
    if not len(splits.validation):
        raise ArgumentError(
            "`splits` must have validation photos, which decide when to stop and calibrate the "
            f"probabilities. Received: {splits!r}. Pass e.g. sl.split(photos, validation=0.15)."
        )
    class_weight = check_class_weight(others.get("class_weight"))
    weigh_classes(class_weight, splits.photos.class_names, splits.photos.labels)  # checks names
    default_px: int | tuple[int, int] = DEFAULT_PX
    if network is not None:
        backbone, weights = network.name, _own_weights(network, weights)
        default_px = network.default_px
        if isinstance(network, Several):
            others["epochs"] = _check_no_epochs(others["epochs"])
    if backbone == AUTO and weights != "imagenet":
        raise ArgumentError(
            "`backbone` must be the name of a network unless weights='imagenet', since 'auto' "
            "chooses among networks with ImageNet weights. Received: backbone='auto', "
            f"weights={weights!r}. Pass e.g. backbone={backbones.DEFAULT_BACKBONE!r}."
        )
    name = backbones.default_for(weights) if backbone is None else backbone
    is_tiny = weights == BUNDLED or (
        weights not in (None, "imagenet", OWN) and find_architecture(name).name == BUNDLED_BACKBONE
    )
    default_lr = _LR_HIGH if is_tiny or weights is None else _LR_PRETRAINED
    defaults = {"unfreeze": "all"} if is_tiny else {}
    if recipe is None or isinstance(recipe, Mapping):
        recipe = defaults | dict(recipe or {})
    return FitSettings(
        backbone=name,
        weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
        image_px=default_px if image_px is None else image_px,
        learning_rate=default_lr if learning_rate is None else learning_rate,
        recipe=recipe,  # type: ignore[arg-type]
        **others,
    )


def _check_no_epochs(epochs: object) -> int:
    """The setting `epochs` for several networks, on which only a linear probe is fitted."""
    if epochs not in (None, 0) or isinstance(epochs, bool):
        raise ArgumentError(
            "`epochs` must be 0 or left out for several networks, which are not fine-tuned: only "
            f"the linear probe is fitted on all their features. Received: epochs={epochs!r:.100}. "
            "Fine-tune a single network."
        )
    return 0


def _own_weights(network: Network | Several, weights: object) -> str | None:
    """The setting `weights` for networks that bring their weights along."""
    if isinstance(network, Several) and weights not in (OWN, "imagenet"):
        raise ArgumentError(
            "`weights` must be left out for several networks: those of keras.applications get "
            f"their pretrained weights, others bring theirs along. Received: weights={weights!r}. "
            "For a weights file, pass sl.backbones.build(name, weights=file) in place of the name."
        )
    if weights not in (None, OWN, "imagenet"):
        raise ArgumentError(
            "`weights` must be left out for a network of your own, whose own weights are used, or "
            f"None to train it like random weights. Received: weights={weights!r} for "
            f"backbone={network.name!r}. Load them into the network first."
        )
    return None if weights is None else OWN


def adapt_to_machine(settings: FitSettings, n_photos: int) -> FitSettings:
    """Fill in what depends on this machine.

    The backbone gets its canonical name, "auto" is replaced by a backbone, and an unsupported
    precision is dropped with a warning.

    Raises:
        UnknownBackboneError: if keras.applications has no such network.
    """
    name = settings.backbone
    if not isinstance(name, str) or is_own(name):
        return replace(settings, precision=supported_precision(settings.precision))
    if name == AUTO:
        name = choose_backbone(n_photos, settings.image_px, settings.minutes, settings.batch_size)
    return replace(
        settings,
        backbone=find_architecture(name).name,
        precision=supported_precision(settings.precision),
    )


def _parse_recipe(values: Mapping[str, Any]) -> Recipe:
    names = {one.name for one in fields(Recipe)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ArgumentError(
            f"`recipe` must have the names of a Recipe: {', '.join(sorted(names))}. "
            f"Received: {', '.join(map(str, unknown))}. Correct or remove it."
        )
    return Recipe(**values)


def _check_schedule(value: Sequence[Sequence[float]], n_runs: int) -> Schedule:
    schedule = parse_schedule(value, n_runs)
    if schedule is None:
        raise ArgumentError(
            "`epochs` must be an integer of at least 0, None, or the schedule of a result: pairs "
            f"of steps and a progress that increases to at most {n_runs}, the number of runs. "
            f"Received: epochs={value!r}. Pass None to let `minutes` decide."
        )
    return schedule


def parse_schedule(value: Sequence[Sequence[float]], n_runs: int = 1) -> Schedule | None:
    """A schedule from plain lists, as in JSON; None if it is not a valid one for `n_runs` runs."""
    try:
        schedule = tuple((int(size), float(after)) for size, after in value)
    except (TypeError, ValueError):
        return None
    progress = [0.0, *(after for _, after in schedule)]
    increases = all(a < b <= min(n_runs, int(a) + 1) for a, b in itertools.pairwise(progress))
    return schedule if increases and all(size >= 1 for size, _ in schedule) else None


def choose_backbone(
    n_photos: int, image_px: int | tuple[int, int], minutes: float, batch_size: int
) -> str:
    """Choose the network that "auto" stands for.

    The most accurate candidate whose training fits into free memory, and for which features and
    four epochs fit into the time budget, by the measured prediction time per photo on this machine.
    Candidates that would not fit even if their time grew only with the size of their feature maps
    are not measured. The choice itself uses up part of the budget.

    Args:
        n_photos: number of photos.
        image_px: the side of the square input, or its (height, width).
        minutes: the time budget.
        batch_size: photos per step.

    Returns:
        A name for `backbones.build`; the smallest network if none fits.
    """
    best, *larger = CANDIDATES
    start, n_passes = time.perf_counter(), _AUTO_PASSES * n_photos
    free_bytes = float(broadcast(available_bytes() or math.inf))

    def fit_seconds(network: Any) -> float:
        return float(n_passes * broadcast(measure_photo_seconds(network, FEATURE_BATCH_SIZE)))

    def left_s() -> float:
        return float(
            broadcast(_AUTO_TIME_FRACTION * (60 * minutes - (time.perf_counter() - start)))
        )

    smallest = _build_untrained(best, image_px)
    best_s = fit_seconds(smallest)
    seconds_per_byte = best_s / _activation_bytes(smallest)
    for name in reversed(larger):
        application = find_architecture(name).build.__name__
        unbuilt = build_application(application, (*image_size(image_px), 3))
        if seconds_per_byte * _activation_bytes(unbuilt) > left_s():
            continue
        network = _build_untrained(name, image_px)
        if training_bytes(network, batch_size) > free_bytes:
            continue
        fit_s = fit_seconds(network)
        if fit_s <= left_s():
            best, best_s = name, fit_s
            break
    _log.info(
        "backbone 'auto' is %s: the most accurate of %d candidates on ImageNet (%.1f %%) for which "
        "features of %d photos and %d epochs fit into %g minutes (about %.1f)",
        best, len(CANDIDATES), CANDIDATES[best], n_photos, _AUTO_EPOCHS, minutes, best_s / 60,
    )  # fmt: skip
    return best


def _build_untrained(name: str, image_px: int | tuple[int, int]) -> Any:
    return backbones.fast_on_cpu(backbones.build(name, weights=None, image_px=image_px))


def _activation_bytes(network: Any) -> int:
    """The size of all activations of one photo."""
    return sum(row.activation_bytes for row in sizing.estimate(network).layers)
