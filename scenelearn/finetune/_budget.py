"""What fits into the time budget, by durations measured on this machine: epochs, and "auto".

`measure_durations` times a step and a prediction. `choose_schedule` decides the epochs before
training, and `make_schedule` again after each epoch. `choose_backbone` decides what "auto" stands
for.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from scenelearn import backbones, sizing
from scenelearn._checks import image_size
from scenelearn._distributed import all_reduce_max, broadcast
from scenelearn._progress import Report
from scenelearn.backbones._names import find_architecture
from scenelearn.backbones._network import is_own
from scenelearn.classify._inference import predict_images
from scenelearn.classify._neighbors import MAX_NEIGHBOR_PHOTOS
from scenelearn.data import Photos
from scenelearn.data._pixels import estimate_decode_seconds
from scenelearn.finetune._candidates import CANDIDATES
from scenelearn.finetune._device import available_bytes, supported_precision, training_bytes
from scenelearn.finetune._features import FEATURE_BATCH_SIZE
from scenelearn.finetune._learner import BLOCK_STEPS, N_PASSES, Learner, teacher_bytes
from scenelearn.finetune._model import COEFFICIENTS
from scenelearn.finetune._runtime import Clock, StopRequest
from scenelearn.finetune._schedule import (
    Schedule,
    TrainingSchedule,
    schedule_for_time,
    uniform_schedule,
)
from scenelearn.finetune._settings import AUTO, FitSettings
from scenelearn.finetune._teacher import Teacher
from scenelearn.sizing._networks import build_application

_MIN_WARMUP_STEPS = 100  # with pretrained weights
_N_TIMED_STEPS = _N_TIMED_BATCHES = 5
# Batches of photos take longer than the blank ones that are timed: they are read, and the last one
# may be smaller. A safety margin, not a measured value.
_PREDICTION_MARGIN = 1.3
_TEST_OVERHEAD_S = 2.0  # of the test, besides the network: image statistics, calibration, results

_AUTO_EPOCHS = 4
_TRAIN_FRACTION = 0.7
# Duration of a fit, in forward passes over all photos, 70% of which are training photos: features,
# including mirrored training photos; for each epoch, training at three passes per photo while the
# upper layers are trained, and validation; finally weight interpolation and the test.
_AUTO_TRAINING_PASSES = _AUTO_EPOCHS * 3 * _TRAIN_FRACTION
_AUTO_PASSES = 1.55 + _AUTO_TRAINING_PASSES + _AUTO_EPOCHS * 0.15 + 1.5
_AUTO_TIME_FRACTION = 0.9  # the rest is for decoding, the linear probe and compilation

_log = logging.getLogger(__name__)


# Durations


class Durations(NamedTuple):
    """What fine-tuning and the rest of a fit take, in seconds.

    Attributes:
        step_s: a training step, including the preparation of its batch; 0 if there are none.
        validation_s: the validation after an epoch.
        interpolation_s: the validation of each interpolated network, after the last epoch.
        test_s: calibration and test.
    """

    step_s: float
    validation_s: float
    interpolation_s: float = 0.0
    test_s: float = 0.0

    @property
    def reserve_s(self) -> float:
        """What comes after training."""
        return self.interpolation_s + self.test_s


def measure_durations(
    learner: Learner,
    settings: FitSettings,
    *,
    predict_s: float,
    final_predict_s: float,
    left_s: float,
    stop: StopRequest,
    report: Report,
) -> Durations:
    """Measure what fine-tuning will take.

    Args:
        learner: not trained yet; compiled if any epochs are requested.
        settings: of the fit.
        predict_s: seconds per photo of the network that is trained.
        final_predict_s: seconds per photo of the final network. If its images have another size,
            they are decoded again, which counts.
        left_s: seconds of the time budget that are left. If none are for training, no step is
            timed, and a warning is logged.
        stop: whether to stop; if so, no step is timed.
        report: called with (timed steps done, total).
    """
    datasets = learner.datasets
    validation_s = _PREDICTION_MARGIN * predict_s * datasets.validation.n_photos
    n_known = min(datasets.train.n_photos, MAX_NEIGHBOR_PHOTOS)
    n_final = datasets.validation.n_photos + datasets.test.n_photos + n_known
    durations = Durations(
        step_s=0.0,
        validation_s=validation_s,
        interpolation_s=n_interpolations(settings) * validation_s,
        test_s=_PREDICTION_MARGIN * final_predict_s * n_final + _TEST_OVERHEAD_S,
    )
    train = settings.epochs != 0 and not stop.requested
    if train and all_reduce_max(left_s < durations.reserve_s):
        _log.warning(
            "No time is left for fine-tuning. Pass more than minutes=%g.", settings.minutes
        )
    elif train:
        durations = durations._replace(step_s=measure_step_time(learner, stop, report))
    return Durations(*broadcast(list(durations)))


def measure_photo_seconds(model: Any, batch_size: int) -> float:
    """Measure the prediction time per photo, without compilation.

    The median of a few blank batches.

    Args:
        model: from raw pixels.
        batch_size: photos per batch.
    """
    batch, seconds = np.zeros((batch_size, *model.input_shape[1:]), np.uint8), []
    for _ in range(1 + _N_TIMED_BATCHES):
        start = time.perf_counter()
        predict_images(model, [batch], batch_size)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:])) / batch_size  # the first one compiles


def measure_prediction(
    network: Any, training_model: Any, settings: FitSettings, photos: Photos
) -> tuple[float, float]:
    """Measure the prediction times per photo, for `measure_durations`.

    Args:
        network: the final network.
        training_model: the network that is trained.
        settings: of the fit.
        photos: of the fit.

    Returns:
        `predict_s` and `final_predict_s`.
    """
    final_predict_s = measure_photo_seconds(network, settings.batch_size)
    if settings.train_px == settings.image_px:
        return final_predict_s, final_predict_s
    decode_s = estimate_decode_seconds(photos, settings.resize) / len(photos)
    predict_s = measure_photo_seconds(training_model, settings.batch_size)
    return predict_s, final_predict_s + decode_s


def measure_step_time(learner: Learner, stop: StopRequest, report: Report) -> float:
    """Measure the seconds per training step, without compilation.

    The learning rate of the timed steps is 0, so the trainable weights do not change; the state of
    the optimizer does. Steps are timed also where the schedule is given, so that a repetition of a
    run starts from the same state.

    Args:
        learner: its network is compiled and not trained yet.
        stop: whether to stop.
        report: called with (steps done, total).

    Returns:
        The median of five steps, each with the time to make a batch divided by how often it is
        learned. With a teacher, batches are made in groups, see `Augmentation.group_size`. NaN
        after a signal.
    """
    n_passes = learner.augmentation.n_passes
    group_size = learner.augmentation.group_size(learner.datasets.train.batch_size)
    n_timed = group_size * (1 + _N_TIMED_STEPS)
    n_whole = BLOCK_STEPS // group_size * group_size  # of the first pass over a block
    n_batches = min(n_timed, n_whole, len(learner.datasets.train))
    rounds = (
        itertools.islice(learner.batches(epoch=0, steps=range(n_passes * n_batches)), n_batches)
        for _ in range(n_timed)
    )
    batches = itertools.chain.from_iterable(rounds)
    seconds = []
    for n_done in range(1 + _N_TIMED_STEPS):
        report(n_done, 1 + _N_TIMED_STEPS)
        if stop.requested:
            return math.nan
        start = time.perf_counter()
        group = list(itertools.islice(batches, group_size))
        group_s = time.perf_counter() - start
        learner.model.train_on_batch(*group[0][1])
        trained_s = time.perf_counter() - start - group_s
        seconds.append(group_s / group_size / n_passes + trained_s)
    report(1 + _N_TIMED_STEPS, 1 + _N_TIMED_STEPS)
    return sorted(seconds[1:])[_N_TIMED_STEPS // 2]  # the first one compiles


def n_interpolations(settings: FitSettings) -> int:
    """Number of networks to validate between the linear probe and the fine-tuned weights."""
    if settings.updates_batchnorm:
        return 0
    return len(COEFFICIENTS) if settings.recipe.interpolate_weights else int(settings.n_cycles > 1)


# Epochs


def choose_schedule(
    learner: Learner,
    settings: FitSettings,
    *,
    predict_s: float,
    final_predict_s: float,
    clock: Clock,
    stop: StopRequest,
) -> TrainingSchedule:
    """Measure the durations, and choose the epochs before the first step.

    Args:
        learner: not trained yet; compiled if any epochs are requested.
        settings: of the fit.
        predict_s: as for `measure_durations`; only used if the time budget decides.
        final_predict_s: likewise.
        clock: how much time is left.
        stop: whether to stop.

    Returns:
        The schedule, without epochs if none are requested, none fits, or a signal has come.
    """
    time_limited = settings.epochs is None
    durations = measure_durations(
        learner,
        settings,
        predict_s=predict_s,
        final_predict_s=final_predict_s,
        left_s=clock.left_s(),
        stop=stop,
        report=clock.report("compiling and timing"),
    )
    epochs: Schedule = ()
    if durations.step_s and not stop.requested:
        left_s = broadcast(clock.left_s(reserve_s=durations.reserve_s))
        epochs = make_schedule(settings, left_s, learner.n_steps, durations)
    most = max((size for size, _ in epochs), default=0)
    if most > learner.n_steps:
        _log.warning(
            "`epochs` has %d steps per epoch, but these photos have only %d: the others are "
            "skipped, and the learning rate is not as planned. Pass a number of epochs, or None.",
            most, learner.n_steps,
        )  # fmt: skip
    return TrainingSchedule(
        epochs=epochs,
        n_cycles=settings.n_cycles,
        time_limited=time_limited,
        peak_lr=settings.learning_rate,
        min_warmup_steps=0 if settings.weights is None else _MIN_WARMUP_STEPS,
        step_s=durations.step_s,
        reserve_s=durations.reserve_s,
        batch_size=settings.batch_size,
    )


def make_schedule(
    settings: FitSettings, time_s: float, n_steps: int, durations: Durations, done: Schedule = ()
) -> Schedule:
    """The requested schedule, or what fits into the time.

    Args:
        settings: of the fit.
        time_s: seconds that are left for it; only used if `epochs` is None.
        n_steps: steps per full epoch.
        durations: of a step and a validation.
        done: the epochs already done, if the time decides.
    """
    requested = requested_schedule(settings, n_steps)
    if requested is not None:
        return requested
    return schedule_for_time(
        time_s,
        n_steps=n_steps,
        step_s=durations.step_s,
        validation_s=durations.validation_s,
        max_epochs=settings.max_epochs,
        n_cycles=settings.n_cycles,
        done=done,
    )


def requested_schedule(settings: FitSettings, n_steps: int) -> Schedule | None:
    """The schedule that `epochs` asks for; None if the time decides."""
    if isinstance(settings.epochs, int):
        return uniform_schedule(settings.epochs, n_steps, settings.n_cycles)
    return settings.epochs


# The network of "auto"


def adapt_to_machine(
    settings: FitSettings, n_photos: int, teacher: Teacher | None = None
) -> FitSettings:
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
        name = choose_backbone(
            n_photos, settings.train_px, settings.minutes, settings.batch_size, teacher
        )
    return replace(
        settings,
        backbone=find_architecture(name).name,
        precision=supported_precision(settings.precision),
    )


def choose_backbone(
    n_photos: int,
    image_px: int | tuple[int, int],
    minutes: float,
    batch_size: int,
    teacher: Teacher | None = None,
) -> str:
    """Choose the network that "auto" stands for.

    The most accurate candidate whose training fits into free memory, and for which features and
    four epochs fit into the time budget, by the measured prediction time per photo on this machine.
    Candidates that would not fit even if their time grew only with the size of their feature maps
    are not measured. The choice itself uses up part of the budget.

    Args:
        n_photos: number of photos.
        image_px: the side of the square images to train on, or their (height, width).
        minutes: the time budget.
        batch_size: photos per step.
        teacher: it predicts the images of each epoch, which are learned twice; if there is one.

    Returns:
        A name for `backbones.build`; the smallest network if none fits.
    """

    def photo_seconds(network: Any) -> float:
        return float(broadcast(measure_photo_seconds(network, FEATURE_BATCH_SIZE)))

    best, *larger = (candidate.name for candidate in CANDIDATES)
    start, teacher_s, n_passes = time.perf_counter(), 0.0, _AUTO_PASSES
    if teacher is not None:
        teacher_s = n_photos * _AUTO_EPOCHS * _TRAIN_FRACTION * photo_seconds(teacher.network)
        n_passes += (N_PASSES - 1) * _AUTO_TRAINING_PASSES
    available = available_bytes()
    free_bytes = float(broadcast(math.inf if available is None else available))

    def fit_seconds(network: Any) -> float:
        return n_photos * n_passes * photo_seconds(network)

    def left_s() -> float:
        left = 60 * minutes - (time.perf_counter() - start)
        return float(broadcast(_AUTO_TIME_FRACTION * left)) - teacher_s

    smallest = _build_untrained(best, image_px)
    best_s = fit_seconds(smallest)
    seconds_per_byte = best_s / _activation_bytes(smallest)
    for name in reversed(larger):
        application = find_architecture(name).build.__name__
        unbuilt = build_application(application, (*image_size(image_px), 3))
        if seconds_per_byte * _activation_bytes(unbuilt) > left_s():
            continue
        network = _build_untrained(name, image_px)
        needed_bytes = training_bytes(network, batch_size)
        if needed_bytes + teacher_bytes(teacher, image_px, batch_size) > free_bytes:
            continue
        fit_s = fit_seconds(network)
        if fit_s <= left_s():
            best, best_s = name, fit_s
            break
    top1 = next(candidate.top1 for candidate in CANDIDATES if candidate.name == best)
    _log.info(
        "backbone 'auto' is %s: the most accurate of %d candidates on ImageNet (%.1f %%) for which "
        "features of %d photos and %d epochs fit into %g minutes (about %.1f)",
        best, len(CANDIDATES), 100 * top1, n_photos, _AUTO_EPOCHS, minutes,
        (best_s + teacher_s) / 60,
    )  # fmt: skip
    return best


def _build_untrained(name: str, image_px: int | tuple[int, int]) -> Any:
    return backbones.fast_on_cpu(backbones.build(name, weights=None, image_px=image_px))


def _activation_bytes(network: Any) -> int:
    """The size of all activations of one photo."""
    return sum(row.activation_bytes for row in sizing.estimate(network).layers)
