"""The model that is trained, with its data, and the state in which training starts."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from scenelearn._backend import keras
from scenelearn._distributed import all_reduce_max, broadcast
from scenelearn.augment import policy as resolve_policy
from scenelearn.backbones import fast_on_cpu
from scenelearn.classify._neighbors import MAX_NEIGHBOR_PHOTOS
from scenelearn.finetune import _network
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
from scenelearn.finetune._state import TrainingState, to_arrays
from scenelearn.finetune._training_batches import (
    Augmentation,
    augmented_batches,
)

_N_TIMED_STEPS = 5
_MIN_WARMUP_STEPS = 100  # with pretrained weights
_TEST_OVERHEAD_S = 2.0  # of the test, besides the network: image statistics, calibration, results

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """The model that is trained, with its data.

    Attributes:
        model: from raw pixels to logits.
        datasets: the photos.
        augmentation: how training photos are augmented and mixed.
    """

    model: Any
    datasets: Datasets
    augmentation: Augmentation

    def batches(self, epoch: int, steps: range) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The batches of some steps of an epoch, see `augmented_batches`."""
        return augmented_batches(self.datasets.train, self.augmentation, epoch=epoch, steps=steps)


def build_learner(
    features: Any, to_logits: Any, datasets: Datasets, settings: FitSettings, *, train: bool = True
) -> Learner:
    """Build a learner for the network, compiled, with layers frozen as the settings say.

    Args:
        features: from `backbones.build`.
        to_logits: the same network with its head.
        datasets: the photos.
        settings: of the fit.
        train: False leaves the network as it is, for one that is not trained.

    Returns:
        The learner.
    """
    if train:
        # Layers are frozen before anything is compiled: programs depend on them.
        if settings.weights is not None:
            _network.freeze_layers(features, settings.image_px, settings.recipe.unfreeze)
        compile_learner(features, to_logits, settings)
    augmentation = Augmentation(
        policy=resolve_policy(settings.augmentation),
        recipe=settings.recipe,
        n_classes=to_logits.output_shape[-1],
    )
    return Learner(model=to_logits, datasets=datasets, augmentation=augmentation)


def compile_learner(features: Any, model: Any, settings: FitSettings) -> None:
    """Give the model of a learner its loss and optimizer, and prepare random weights."""
    recipe = settings.recipe
    if settings.weights is None:
        _network.prepare_random_weights(features, model)
        recipe = replace(recipe, scale_lr_by_weights=False)
    fast_on_cpu(model)
    loss = keras().losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=build_optimizer(model, recipe, settings.precision), loss=loss)


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
    time_limited, best_weights = settings.epochs is None, to_logits.get_weights()
    train = settings.epochs != 0 and not stop.requested
    learner = build_learner(features, to_logits, datasets, settings, train=train)
    costs = measure_costs(
        learner,
        settings,
        predict_s=measure_photo_seconds(network, settings.batch_size) if time_limited else 0.0,
        deadline=clock.deadline() if time_limited else math.inf,
        stop=stop,
        report=clock.report("compiling and timing"),
    )
    schedule: Schedule = ()
    if costs.step_s and not stop.requested:
        deadline = clock.deadline(reserve_s=costs.reserve_s)
        left_s = broadcast(deadline - time.perf_counter()) if time_limited else math.inf
        schedule = make_schedule(settings, left_s, len(datasets.train), costs)
    plan = TrainingPlan(
        schedule=schedule,
        n_runs=settings.n_runs,
        time_limited=time_limited,
        peak_lr=settings.learning_rate,
        min_warmup_steps=0 if settings.weights is None else _MIN_WARMUP_STEPS,
        step_s=costs.step_s,
        validation_s=costs.validation_s,
        reserve_s=costs.reserve_s,
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


class Costs(NamedTuple):
    """What fine-tuning and the rest of a fit take, in seconds.

    Attributes:
        step_s: a training step, including the preparation of its batch; 0 if there are none.
        validation_s: the validation after an epoch.
        interpolation_s: the validation of each interpolated network, after the last epoch.
        test_s: calibration and test.
    """

    step_s: float
    validation_s: float
    interpolation_s: float
    test_s: float

    @property
    def reserve_s(self) -> float:
        """What comes after training."""
        return self.interpolation_s + self.test_s


def measure_costs(
    learner: Learner,
    settings: FitSettings,
    *,
    predict_s: float,
    deadline: float,
    stop: StopRequest,
    report: Callable[[int, int], None],
) -> Costs:
    """Measure what fine-tuning will take.

    Args:
        learner: not trained yet; compiled if any epochs are requested.
        settings: of the fit.
        predict_s: seconds per photo of the final network.
        deadline: when the fit should end, on `time.perf_counter`'s clock. If no time is left for
            training, no step is timed, and a warning is logged.
        stop: whether to stop; if so, no step is timed.
        report: called with (timed steps done, total).
    """
    datasets = learner.datasets
    validation_s = 1.3 * predict_s * datasets.validation.n_photos
    n_known = min(datasets.train.n_photos, MAX_NEIGHBOR_PHOTOS)
    n_final = datasets.validation.n_photos + datasets.test.n_photos + n_known
    costs = Costs(
        step_s=0.0,
        validation_s=validation_s,
        interpolation_s=n_interpolations(settings) * validation_s,
        test_s=1.3 * predict_s * n_final + _TEST_OVERHEAD_S,
    )
    train = settings.epochs != 0 and not stop.requested
    if train and all_reduce_max(time.perf_counter() > deadline - costs.reserve_s):
        _log.warning(
            "No time is left for fine-tuning. Pass more than minutes=%g.", settings.minutes
        )
    elif train:
        costs = costs._replace(step_s=measure_step_time(learner, stop, report))
    return Costs(*broadcast(list(costs)))


def make_schedule(settings: FitSettings, time_s: float, n_steps: int, costs: Costs) -> Schedule:
    """The requested schedule, or what fits into the time.

    Args:
        settings: of the fit.
        time_s: seconds that are left for it; only used if `epochs` is None.
        n_steps: steps per full epoch.
        costs: seconds per step and validation.
    """
    if isinstance(settings.epochs, int):
        return uniform_schedule(settings.epochs, n_steps, settings.n_runs)
    if settings.epochs is not None:
        return settings.epochs
    return schedule_for_time(
        time_s,
        n_steps=n_steps,
        step_s=costs.step_s,
        validation_s=costs.validation_s,
        max_epochs=settings.max_epochs,
        n_runs=settings.n_runs,
    )


def measure_step_time(
    learner: Learner, stop: StopRequest, report: Callable[[int, int], None]
) -> float:
    """Measure the seconds per training step, without compilation.

    The learning rate of the timed steps is 0, so the trainable weights do not change.

    Args:
        learner: its model is compiled and not trained yet.
        stop: whether to stop.
        report: called with (steps done, total).

    Returns:
        The median of five steps, including the preparation of their batches; NaN after a signal.
    """
    steps = range(min(1 + _N_TIMED_STEPS, len(learner.datasets.train)))
    batches = itertools.cycle(learner.batches(epoch=0, steps=steps))
    seconds = []
    for n_done in range(1 + _N_TIMED_STEPS):
        report(n_done, 1 + _N_TIMED_STEPS)
        if stop.requested:
            return math.nan
        start = time.perf_counter()
        learner.model.train_on_batch(*next(batches)[1])
        seconds.append(time.perf_counter() - start)
    report(1 + _N_TIMED_STEPS, 1 + _N_TIMED_STEPS)
    return sorted(seconds[1:])[_N_TIMED_STEPS // 2]  # the first one compiles


def n_interpolations(settings: FitSettings) -> int:
    """Number of networks to validate between the linear probe and the fine-tuned weights."""
    if settings.updates_batchnorm:
        return 0
    return len(COEFFICIENTS) if settings.recipe.interpolate_weights else int(settings.n_runs > 1)
