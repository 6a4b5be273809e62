"""The settings of a fit, validated before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from scenelearn import backbones
from scenelearn._checks import (
    check_bool,
    check_choice,
    check_image_px,
    check_integer,
    check_number,
)
from scenelearn._json import dataclass_json
from scenelearn.augment import Policy
from scenelearn.augment import policy as resolve_policy
from scenelearn.backbones._bundled import BUNDLED, BUNDLED_BACKBONE
from scenelearn.backbones._names import check_no_preprocessing, find_architecture
from scenelearn.backbones._network import (
    DEFAULT_PX,
    OWN,
    Network,
    NetworkList,
    Preprocessing,
    check_preprocessing,
)
from scenelearn.data import Splits
from scenelearn.data._resize import Resize, check_shape, make_resize
from scenelearn.errors import ArgumentError
from scenelearn.finetune._class_weights import check_class_weight, weigh_classes
from scenelearn.finetune._device import PRECISIONS
from scenelearn.finetune._schedule import Schedule, parse_schedule
from scenelearn.metrics._evaluation import OBJECTIVES

# Pretrained weights: the best of 3e-5 … 2e-3 on the validation photos of three splits of the Intel
# photos, for MobileNetV2-0.35 with one learning rate for all kernels. Random weights need a higher
# rate, and so do weights learned from rendered images, in all layers: with 500 photos per class,
# their fits reached 83.2% of the validation photos of one split, where the upper layers alone
# reached 81.3%; with 25 photos, the higher rate reached 73.1% and the lower one 71.4%.
_LR_PRETRAINED, _LR_HIGH = 1e-3, 3e-3

# With a teacher there is enough to learn for all layers, with a lower rate: after 30 epochs,
# MobileNetV2-0.35 at 96 pixels had a validation log loss of 0.265 on one split, and 0.275 with the
# upper layers and 1e-3. About mixed photos a teacher says what the labels do not.
_LR_TEACHER = 7e-4
_TEACHER_RECIPE = {"unfreeze": "all", "mixup_alpha": 0.2, "cutmix_alpha": 1.0}

# Random weights need more epochs.
_MAX_EPOCHS_PRETRAINED, _MAX_EPOCHS_RANDOM = 40, 120

_MIN_TRAIN_PX = 160  # of the default of `train_px`

UNFREEZE = ("stride16", "all", "none")

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Advanced fine-tuning settings, in addition to learning rate and augmentation.

    Attributes:
        unfreeze: which layers of the backbone to train. "stride16": those from the point on where
            all feature maps are at least 16 times smaller than the image. Earlier layers detect
            edges and textures, which transfer unchanged, and their gradients would take most of the
            time. "all": all layers. "none": only the head. With random weights, all layers are
            trained.
        lora_rank: None, or the rank of LoRA; a typical value is 8. In place of what `unfreeze`
            says, low-rank updates of the kernels of all dense layers are trained, with the biases
            of these layers and the head. Gradients and moments take less memory so. The updates
            are added to the kernels in the end. Applies to pretrained weights, without
            `soup` and `train_batchnorm`.
        scale_lr_by_weights: whether to scale the learning rate of each channel of a kernel below
            the head by the size of its weights: 100 × root mean square / √(number of inputs),
            clipped to [0.01, 1]. The same peak rate then suits narrow and wide networks, and
            networks whose BatchNormalization is folded into the kernels. Applies to pretrained
            weights only.
        mixup_alpha: both parameters of MixUp's Beta distribution; 0 disables MixUp.
        cutmix_alpha: both parameters of CutMix's Beta distribution; 0 disables CutMix. With both,
            each photo gets one or the other. With a teacher, `fit` has 0.2 and 1 as defaults.
        interpolate_weights: whether to interpolate between the linear probe and the fine-tuned
            weights. The coefficient (0, 1/2 or 3/4) depends on the number of photos per class,
            unless another is significantly better on the validation photos. Applies to pretrained
            weights only.
        soup: number of learning rate cycles whose final weights are averaged into a "model soup",
            which predicts as fast as a single network. Each cycle starts from the linear probe and
            sees different augmented views in a different order. The cycles share the time budget,
            or train for `epochs` each. Applies to pretrained weights without `train_batchnorm`.
        weight_decay: weight decay of AdamW, at least 0.
        train_px: the side of the images that the network is trained on, or their (height, width),
            in pixels; None for `FitSettings.image_px`. Where a network for images of any size is
            fine-tuned on squares, `fit` replaces None by 5/7 of `image_px`, rounded up to a
            multiple of 32, but at least 160: 160 for 224. Linear probe and fine-tuning are at this
            size; calibration, test and prediction at `image_px`. A step at 160 pixels takes half as
            long as at 224, and since augmentation enlarges objects, whole photos of more pixels
            suit the network better. Applies to pretrained weights, without `lora_rank`.
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
        LoRA: E. Hu et al. (2022), LoRA: low-rank adaptation of large language models. ICLR.
        Weight averaging: B. Polyak, A. Juditsky (1992), Acceleration of stochastic approximation by
        averaging. SIAM J. Control Optim. 30.
        Soups: M. Wortsman et al. (2022), Model soups: averaging weights of multiple fine-tuned
        models improves accuracy without increasing inference time. ICML.
        Interpolation: M. Wortsman et al. (2022), Robust fine-tuning of zero-shot models. CVPR.
        Training on smaller images: H. Touvron et al. (2019), Fixing the train-test resolution
        discrepancy. NeurIPS.
        Weight decay: I. Loshchilov, F. Hutter (2019), Decoupled weight decay. ICLR.
    """

    unfreeze: str = "stride16"
    lora_rank: int | None = None
    scale_lr_by_weights: bool = True
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    interpolate_weights: bool = True
    soup: int = 1
    weight_decay: float = 0.01
    train_px: int | tuple[int, int] | None = None
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
        if self.train_px is not None:
            advice = "A typical value is 160; None trains at the size of the prediction."
            train_px = check_image_px(self.train_px, low=32, advice=advice, name="train_px")
            object.__setattr__(self, "train_px", train_px)
        soup = check_integer("soup", self.soup, low=1, advice="1 is a single cycle; 4 is typical.")
        object.__setattr__(self, "soup", soup)
        if self.lora_rank is None:
            return
        advice = "A typical value is 8; None trains the layers that `unfreeze` says."
        rank = check_integer("lora_rank", self.lora_rank, low=1, advice=advice)
        object.__setattr__(self, "lora_rank", rank)
        if soup > 1 or self.train_batchnorm:
            raise ArgumentError(
                "`lora_rank` must be None with a soup or train_batchnorm=True. Received: "
                f"lora_rank={rank}, soup={soup}, train_batchnorm={self.train_batchnorm}. "
                "Leave one out."
            )
        if self.train_px is not None:
            raise ArgumentError(
                "`lora_rank` must be None with a `train_px`. Received: "
                f"lora_rank={rank}, train_px={self.train_px}. Leave one out."
            )

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
        epochs: number of epochs of fine-tuning, in each cycle of a soup; None lets the time budget
            decide; 0 for none. If the time budget decided, the settings of the result hold the
            schedule instead: for each epoch its steps and the progress of the learning rate
            schedule after it, from 0 to 1 in the first cycle, from 1 to 2 in the second.
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
        objective: what the results lead with: "accuracy", "balanced_accuracy" or "log_loss". With
            "balanced_accuracy", each class counts the same in the choice of the weights.

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
        if self.recipe.lora_rank is not None and self.weights is None:
            raise ArgumentError(
                "`lora_rank` must be None with random weights, all of which are trained. Received: "
                f"lora_rank={self.recipe.lora_rank}, weights=None. Leave one out."
            )
        for name, low, advice in (
            ("batch_size", 1, "A typical value is 32."),
            ("seed", 0, "Pass any fixed integer, such as 0."),
        ):
            self._set(name, check_integer(name, getattr(self, name), low=low, advice=advice))
        if isinstance(self.epochs, list | tuple):
            self._set("epochs", _check_schedule(self.epochs, self.n_cycles))
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
    def train_px(self) -> int | tuple[int, int]:
        """The size of the images that the network is trained on, see `Recipe.train_px`."""
        if self.weights is None or self.recipe.train_px is None:
            return self.image_px
        return self.recipe.train_px

    @property
    def train_resize(self) -> Resize:
        """How photos become images to train on: `train_px` and `shape`."""
        return make_resize(self.train_px, self.shape)

    @property
    def backbone_title(self) -> str:
        """The name of the network, or of each of several."""
        return self.backbone if isinstance(self.backbone, str) else " + ".join(self.backbone)

    @property
    def max_epochs(self) -> int:
        """The maximum number of epochs per cycle, however much time there is."""
        if self.epochs is None:
            return _MAX_EPOCHS_RANDOM if self.weights is None else _MAX_EPOCHS_PRETRAINED
        return (
            self.epochs if isinstance(self.epochs, int) else -(-len(self.epochs) // self.n_cycles)
        )

    @property
    def n_cycles(self) -> int:
        """The number of learning rate cycles, see `Recipe.soup`."""
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
    network: Network | NetworkList | None = None,
    has_teacher: bool = False,
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
        if isinstance(network, NetworkList):
            others["epochs"] = _check_no_epochs(others["epochs"])
    if backbone == AUTO and weights != "imagenet":
        raise ArgumentError(
            "`backbone` must be the name of a network unless weights='imagenet', since 'auto' "
            "chooses among networks with ImageNet weights. Received: backbone='auto', "
            f"weights={weights!r}. Pass e.g. backbone={backbones.DEFAULT_BACKBONE!r}."
        )
    name = backbones.default_for(weights) if backbone is None else backbone
    if network is None and others.get("preprocessing") is not None and name != AUTO:
        check_no_preprocessing(find_architecture(name).name, others["preprocessing"])
    is_tiny = weights == BUNDLED or (
        weights not in (None, "imagenet", OWN) and find_architecture(name).name == BUNDLED_BACKBONE
    )
    default_lr = _LR_TEACHER if has_teacher else _LR_PRETRAINED
    if is_tiny or weights is None:
        default_lr = _LR_HIGH
    defaults: dict[str, Any] = {"unfreeze": "all"} if is_tiny else {}
    if has_teacher:
        defaults |= _TEACHER_RECIPE
    if recipe is None or isinstance(recipe, Mapping):
        recipe = defaults | dict(recipe or {})
    settings = FitSettings(
        backbone=name,
        weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
        image_px=default_px if image_px is None else image_px,
        learning_rate=default_lr if learning_rate is None else learning_rate,
        recipe=recipe,  # type: ignore[arg-type]
        **others,
    )
    if isinstance(network, Network) and not network.takes_any_size:
        return settings
    if weights is None or settings.epochs == 0 or settings.recipe.lora_rank is not None:
        return settings
    return replace(settings, recipe=_with_train_px(settings.recipe, settings.image_px))


def _with_train_px(recipe: Recipe, image_px: int | tuple[int, int]) -> Recipe:
    """Fill in the size of the images that a network for any size is trained on."""
    if recipe.train_px is not None or isinstance(image_px, tuple) or image_px <= _MIN_TRAIN_PX:
        return recipe
    multiple = -(-image_px * 5 // (7 * 32)) * 32
    return replace(recipe, train_px=max(_MIN_TRAIN_PX, multiple))


def _check_no_epochs(epochs: object) -> int:
    """The setting `epochs` for several networks, on which only a linear probe is fitted."""
    if epochs not in (None, 0) or isinstance(epochs, bool):
        raise ArgumentError(
            "`epochs` must be 0 or left out for several networks, which are not fine-tuned: only "
            f"the linear probe is fitted on all their features. Received: epochs={epochs!r:.100}. "
            "Fine-tune a single network."
        )
    return 0


def _own_weights(network: Network | NetworkList, weights: object) -> str | None:
    """The setting `weights` for networks that bring their weights along."""
    if isinstance(network, NetworkList) and weights not in (OWN, "imagenet"):
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


def _parse_recipe(values: Mapping[str, Any]) -> Recipe:
    names = {one.name for one in fields(Recipe)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ArgumentError(
            f"`recipe` must have the names of a Recipe: {', '.join(sorted(names))}. "
            f"Received: {', '.join(map(str, unknown))}. Correct or remove it."
        )
    return Recipe(**values)


def _check_schedule(value: Sequence[Sequence[float]], n_cycles: int) -> Schedule:
    schedule = parse_schedule(value, n_cycles)
    if schedule is None:
        raise ArgumentError(
            "`epochs` must be an integer of at least 0, None, or the schedule of a result: pairs "
            f"of steps and a progress that increases to at most {n_cycles}, the number of cycles. "
            f"Received: epochs={value!r}. Pass None to let `minutes` decide."
        )
    return schedule
