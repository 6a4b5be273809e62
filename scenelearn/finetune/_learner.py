"""The model that is trained, with its data, and the state in which training starts."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn._distributed import all_reduce_max, broadcast, process_count
from scenelearn.augment import policy as resolve_policy
from scenelearn.backbones import fast_on_cpu
from scenelearn.classify._neighbors import MAX_NEIGHBOR_PHOTOS
from scenelearn.finetune import _network
from scenelearn.finetune._checkpoint import Arrays
from scenelearn.finetune._feature_cache import measure_photo_seconds
from scenelearn.finetune._features import Datasets
from scenelearn.finetune._interpolation import COEFFICIENTS, default_coefficient
from scenelearn.finetune._optimizer import build_optimizer
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._runtime import Clock, StopRequest
from scenelearn.finetune._schedule import (
    Schedule,
    TrainingPlan,
    schedule_for_time,
    uniform_schedule,
)
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._state import TrainingState, restore_variables, to_arrays
from scenelearn.finetune._training_batches import (
    ActivationCache,
    Augmentation,
    activations_as_pixels,
    augmented_batches,
    cached_batches,
)

_N_TIMED_STEPS = 5
_MIN_WARMUP_STEPS = 100  # with pretrained weights
_TEST_OVERHEAD_S = 2.0  # of the test, besides the network: image statistics, calibration, results

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """The model that is trained, with its data.

    Attributes:
        model: from raw pixels to logits, or from the activations of the frozen layers to logits.
        datasets: the photos. If `cache` is set, the validation photos are activations.
        augmentation: how training photos are augmented and mixed.
        cache: of the activations; None if the model is the whole network.
    """

    model: Any
    datasets: Datasets
    augmentation: Augmentation
    cache: ActivationCache | None = None

    def batches(self, epoch: int, steps: range) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The batches of some steps of an epoch, see `augmented_batches`."""
        train, augmentation = self.datasets.train, self.augmentation
        if self.cache is None:
            return augmented_batches(train, augmentation, epoch=epoch, steps=steps)
        return cached_batches(train, self.cache, augmentation, epoch=epoch, steps=steps)

    @property
    def n_new_views(self) -> int:
        """Number of views of the training photos whose activations are not cached yet."""
        return 0 if self.cache is None else self.cache.count_new_views(self.datasets.train.indices)


def build_full_learner(to_logits: Any, datasets: Datasets, settings: FitSettings) -> Learner:
    """A learner for the whole network.

    Args:
        to_logits: from raw pixels to logits.
        datasets: the photos.
        settings: of the fit.
    """
    augmentation = Augmentation(
        policy=resolve_policy(settings.augmentation),
        recipe=settings.recipe,
        n_classes=to_logits.output_shape[-1],
    )
    return Learner(model=to_logits, datasets=datasets, augmentation=augmentation)


def build_learner(
    features: Any, to_logits: Any, datasets: Datasets, settings: FitSettings
) -> Learner:
    """Freeze layers as the settings say, and build a learner for the network or its upper part.

    If the views of a photo repeat and a large part of the network is frozen, only the part above is
    trained, on cached activations. Whether the disk has space for the cache changes nothing in the
    model, so a resumed run continues identically. Mixed photos have no activations of their own,
    and several processes do not use a cache.

    Args:
        features: from `backbones.build`.
        to_logits: the same network with its head.
        datasets: the photos.
        settings: of the fit.

    Returns:
        The learner; its model is still to be compiled.
    """
    learner = build_full_learner(to_logits, datasets, settings)
    if settings.weights is None:
        return learner
    recipe, n_views = settings.recipe, learner.augmentation.n_views
    _network.freeze_layers(features, settings.image_px, recipe.unfreeze)
    if not n_views or recipe.mixup_alpha or recipe.cutmix_alpha or process_count() > 1:
        return learner
    parts = _network.split_at_frozen(features, to_logits)
    if parts is None:
        return learner
    frozen, trained = parts
    n_views = min(n_views, settings.n_runs * settings.max_epochs + 1)  # steps are timed on view 0
    validation = datasets.validation
    cache = ActivationCache(
        frozen,
        n_views=n_views,
        n_photos=len(validation.labels),
        n_rows=n_views * datasets.train.n_photos + validation.n_photos,
        batch_size=settings.batch_size,
    )
    activations = activations_as_pixels(cache, validation.pixels)
    datasets = replace(datasets, validation=replace(validation, pixels=activations))
    return replace(learner, model=trained, datasets=datasets, cache=cache)


def compile_learner(features: Any, model: Any, settings: FitSettings) -> None:
    """Give the model of a learner its loss and optimizer, and prepare random weights."""
    recipe = settings.recipe
    if settings.weights is None:
        _network.prepare_random_weights(features, model)
        recipe = replace(recipe, scale_lr_by_weights=False)
    fast_on_cpu(model)
    loss = keras().losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )
    model.compile(optimizer=build_optimizer(model, recipe, settings.precision), loss=loss)


def restore_learner(
    features: Any, to_logits: Any, datasets: Datasets, settings: FitSettings, arrays: Arrays
) -> Learner:
    """The learner in the state in which a checkpoint was written.

    Args:
        features: from `backbones.build`, with its initial weights.
        to_logits: the same network with any head.
        datasets: the photos.
        settings: of the fit.
        arrays: of the checkpoint.
    """
    learner = build_learner(features, to_logits, datasets, settings)
    compile_learner(features, learner.model, settings)
    restore_variables(learner.model, arrays)
    return learner


def prepare_training(
    features: Any,
    to_logits: Any,
    network: Any,
    datasets: Datasets,
    settings: FitSettings,
    *,
    probe_epoch: Epoch,
    clock: Clock,
    stop: StopRequest,
) -> tuple[Learner, TrainingState]:
    """Build the learner, measure its speed, and plan the epochs: the state before the first step.

    Args:
        features: from `backbones.build`.
        to_logits: the same network with the linear probe.
        network: the final network, from `inference_model`. If the time budget decides, it is
            compiled and timed here, so that its duration is known.
        datasets: the photos.
        settings: of the fit.
        probe_epoch: the linear probe's scores.
        clock: how much time is left.
        stop: whether to stop; if so, no epochs are planned.

    Returns:
        The learner, compiled if any epochs are requested, and the state, with 0 epochs if none are
        requested or none fits.
    """
    learner = build_full_learner(to_logits, datasets, settings)
    time_limited, step_s, predict_s = settings.epochs is None, 0.0, 0.0
    train = settings.epochs != 0 and not stop.requested
    if train:  # before anything is compiled, which depends on the frozen layers
        learner = build_learner(features, to_logits, datasets, settings)
    best_weights = learner.model.get_weights()
    if train:
        compile_learner(features, learner.model, settings)
    validate_s = caching_s = 0.0
    if time_limited:
        predict_s = measure_photo_seconds(network, settings.batch_size)
        validate_s, caching_s = measure_overheads(learner, predict_s)
    n_photos = datasets.train.n_photos, datasets.validation.n_photos, datasets.test.n_photos
    validation_s, interpolation_s, test_s = estimate_validation_seconds(
        validate_s, predict_s, settings, n_photos
    )
    reserve_s = interpolation_s + test_s
    deadline = clock.deadline(reserve_s=reserve_s) if time_limited else math.inf
    if train and all_reduce_max(time.monotonic() > deadline):
        _log.warning(
            "No time is left for fine-tuning. Pass more than minutes=%g.", settings.minutes
        )
        train = False
    if train:
        step_s = measure_step_time(learner, stop, clock.report("compiling and timing"))
    step_s, validation_s, reserve_s = broadcast([step_s, validation_s, reserve_s])
    schedule: Schedule = ()
    if train and not stop.requested:
        left_s = broadcast(deadline - time.monotonic()) if time_limited else math.inf
        schedule = initial_schedule(
            settings,
            left_s,
            n_steps=len(datasets.train),
            step_s=step_s,
            validation_s=validation_s,
            n_caching=learner.n_new_views,
            caching_s=caching_s,
        )
    plan = TrainingPlan(
        schedule=schedule,
        n_runs=settings.n_runs,
        time_limited=time_limited,
        peak_lr=settings.learning_rate,
        min_warmup_steps=0 if settings.weights is None else _MIN_WARMUP_STEPS,
        step_s=step_s,
        validation_s=validation_s,
        caching_s=caching_s,
        reserve_s=reserve_s,
        batch_size=settings.batch_size,
    )
    interpolates = n_interpolations(settings) and schedule
    return learner, TrainingState(
        plan=plan,
        history=[probe_epoch],
        best_weights=best_weights,
        best_loss=probe_epoch.calibrated_loss,
        initial_weights=to_arrays(learner.model.trainable_variables) if interpolates else [],
        default_interpolation=default_coefficient(
            datasets.train.n_photos / to_logits.output_shape[-1]
        ),
    )


def measure_step_time(
    learner: Learner, stop: StopRequest, report: Callable[[int, int], None]
) -> float:
    """Measure the seconds per training step, without compilation.

    The learning rate of the timed steps is 0, so the trainable weights do not change. If
    activations are cached, those of the timed steps are computed before.

    Args:
        learner: its model is compiled and not trained yet.
        stop: whether to stop.
        report: called with (steps done, total).

    Returns:
        The median of five steps, including the preparation of their batches; NaN after a signal.
    """
    steps = range(min(1 + _N_TIMED_STEPS, len(learner.datasets.train)))
    if learner.cache is not None:
        for _ in learner.batches(epoch=0, steps=steps):
            pass
    batches = itertools.cycle(learner.batches(epoch=0, steps=steps))
    seconds = []
    for n_done in range(1 + _N_TIMED_STEPS):
        report(n_done, 1 + _N_TIMED_STEPS)
        if stop.requested:
            return math.nan
        start = time.monotonic()
        learner.model.train_on_batch(*next(batches)[1])
        seconds.append(time.monotonic() - start)
    report(1 + _N_TIMED_STEPS, 1 + _N_TIMED_STEPS)
    return sorted(seconds[1:])[_N_TIMED_STEPS // 2]  # the first one compiles


def measure_overheads(learner: Learner, predict_s: float) -> tuple[float, float]:
    """Measure what takes time besides steps: validation, and computing activations to cache.

    Args:
        learner: what is trained.
        predict_s: seconds per photo for the final network, including test-time augmentation, which
            is not used during training.

    Returns:
        Seconds per validation photo, and seconds per epoch that caches activations.
    """
    cache, n = learner.cache, learner.datasets.train.batch_size
    if cache is None or not cache.has_space:
        return predict_s / (2 if learner.augmentation.recipe.tta else 1), 0.0
    validate_s = measure_photo_seconds(learner.model, n, np.float32)
    return validate_s, measure_photo_seconds(cache.frozen, n) * learner.datasets.train.n_photos


def estimate_validation_seconds(
    validate_s: float, predict_s: float, settings: FitSettings, n_photos: tuple[int, int, int]
) -> tuple[float, float, float]:
    """Estimate the seconds of a validation, of the weight interpolation, and of the test.

    After each epoch, the validation photos are classified; after the last one, by each interpolated
    network; in the end, the final network classifies validation, test and some training photos.

    Args:
        validate_s: seconds per validation photo during training.
        predict_s: seconds per photo for the final network.
        settings: of the fit.
        n_photos: numbers of training, validation and test photos.
    """
    n_train, n_validation, n_test = n_photos
    validation_s = 1.3 * validate_s * n_validation
    n_final = n_validation + n_test + min(n_train, MAX_NEIGHBOR_PHOTOS)
    interpolation_s = n_interpolations(settings) * validation_s
    return validation_s, interpolation_s, 1.3 * predict_s * n_final + _TEST_OVERHEAD_S


def n_interpolations(settings: FitSettings) -> int:
    """Number of networks to validate between the linear probe and the fine-tuned weights."""
    if settings.updates_batchnorm:
        return 0
    return len(COEFFICIENTS) if settings.recipe.interpolate_weights else int(settings.n_runs > 1)


def initial_schedule(
    settings: FitSettings, time_s: float, *, n_steps: int, **seconds: Any
) -> Schedule:
    """The requested schedule, or what fits into the time.

    Args:
        settings: of the fit.
        time_s: seconds that are left for it; only used if `epochs` is None.
        n_steps: steps per full epoch.
        seconds: durations of steps and validations, as for `schedule_for_time`.
    """
    if isinstance(settings.epochs, int):
        return uniform_schedule(settings.epochs, n_steps, settings.n_runs)
    if settings.epochs is not None:
        return settings.epochs
    max_epochs, n_runs = settings.max_epochs, settings.n_runs
    return schedule_for_time(
        time_s, n_steps=n_steps, max_epochs=max_epochs, n_runs=n_runs, **seconds
    )
