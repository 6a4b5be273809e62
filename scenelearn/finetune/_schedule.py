"""The epochs that fit into a time budget, by their measured costs, and their learning rates.

`measure_costs` times a step; `make_schedule` decides the epochs: those requested, or what fits into
the time (`schedule_for_time`). `TrainingPlan.learning_rate` follows `lr_multiplier`. Elsewhere: the
highest rate and the maximum number of epochs in `_settings`, rates per layer in `_model`, and the
update of the schedule after each epoch in `_trainer`.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from scenelearn._distributed import all_reduce_max, broadcast
from scenelearn.classify._neighbors import MAX_NEIGHBOR_PHOTOS
from scenelearn.finetune._learner import Learner
from scenelearn.finetune._model import COEFFICIENTS
from scenelearn.finetune._runtime import StopRequest
from scenelearn.finetune._settings import FitSettings, Schedule

WARMUP = 0.1  # minimum fraction of the schedule during which the learning rate rises
_MIN_EPOCH = 0.1  # of a full epoch: less is not worth a validation


_N_TIMED_STEPS = 5
_TEST_OVERHEAD_S = 2.0  # of the test, besides the network: image statistics, calibration, results

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How to fine-tune.

    Attributes:
        schedule: for each epoch its steps and the progress after it; empty for no epochs.
        n_runs: number of runs through the learning rate schedule, each from the initial weights.
        time_limited: whether the time budget decides the number of epochs. If so, the schedule is
            updated after each epoch.
        peak_lr: the highest learning rate.
        min_warmup_steps: minimum number of steps during which the learning rate rises.
        step_s: seconds per step, as measured before training.
        reserve_s: seconds of the budget reserved for what comes after training.
        batch_size: photos per step.
    """

    schedule: Schedule
    n_runs: int
    time_limited: bool
    peak_lr: float
    min_warmup_steps: int
    step_s: float
    reserve_s: float
    batch_size: int

    @property
    def n_epochs(self) -> int:
        """Number of epochs."""
        return len(self.schedule)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return sum(size for size, _ in self.schedule)

    def learning_rate(self, epoch: int, step: float) -> float:
        """The learning rate after some steps of an epoch; epochs are counted from 1."""
        steps_per_run = self.n_steps / self.schedule[-1][1]
        warmup = max(WARMUP, self.min_warmup_steps / steps_per_run)
        progress = schedule_progress(self.schedule, epoch, step)
        return self.peak_lr * lr_multiplier(progress % 1, warmup)

    def ends_run(self, epoch: int) -> bool:
        """Whether this epoch is the last of a run."""
        return self.schedule[epoch - 1][1] % 1 == 0


def uniform_schedule(n_epochs: int, n_steps: int, n_runs: int = 1) -> Schedule:
    """A schedule of full epochs.

    Args:
        n_epochs: number of epochs per run, at least 0.
        n_steps: steps per epoch.
        n_runs: number of runs.

    Returns:
        For each epoch its steps and the progress after it, in (0, 1] during the first run, in
        (1, 2] during the second, and so on.

    Example:
        >>> uniform_schedule(2, 10)
        ((10, 0.5), (10, 1.0))
    """
    return tuple(
        (n_steps, run + (k + 1) / n_epochs) for run in range(n_runs) for k in range(n_epochs)
    )


def schedule_for_time(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    validation_s: float,
    max_epochs: int,
    n_runs: int = 1,
    done: Schedule = (),
) -> Schedule:
    """A schedule that ends when the time does, as a continuation of the epochs already done.

    The remaining runs share the time, or as many of them as have time for a tenth of an epoch. Each
    run has as many full epochs as fit, then a shorter one if a tenth of an epoch fits. The learning
    rate schedule stretches or shrinks accordingly: the rate falls to 0 at the end of each run.

    Args:
        time_s: seconds from now on.
        n_steps: steps per full epoch.
        step_s: seconds per step.
        validation_s: seconds for the validation after an epoch.
        max_epochs: maximum number of epochs per run, including those done.
        n_runs: number of runs.
        done: the epochs already done.

    Returns:
        `done`, followed by the epochs that fit. Only `done` if none fits, or if the last run has
        ended: its learning rate is already 0. If there are several runs, one that has started is
        finished as long as there is any time, however short its last epoch is.

    Example:
        Twenty steps fit into the first epochs, and ten more are worth one of their own:

        >>> schedule_for_time(36.0, n_steps=10, step_s=1.0, validation_s=1.0, max_epochs=9)
        ((10, 0.3125), (10, 0.625), (10, 0.9375), (2, 1.0))
        >>> schedule_for_time(
        ...     36.0, n_steps=10, step_s=1.0, validation_s=1.0, max_epochs=9, n_runs=2
        ... )
        ((10, 0.625), (6, 1.0), (10, 1.625), (6, 2.0))
    """
    schedule, left_s, progress = done, time_s, done[-1][1] if done else 0.0
    for run in range(int(progress), n_runs):
        has_started = progress > run
        for last in (n_runs,) if has_started else range(n_runs, run, -1):
            sizes, used_s = _epoch_sizes(
                left_s * (run + 1 - progress) / (last - progress),
                n_steps=n_steps,
                step_s=step_s,
                validation_s=validation_s,
                max_epochs=max_epochs - sum(after > run for _, after in schedule),
            )
            if sizes:
                break
        if not sizes and has_started and n_runs > 1 and left_s > 0:
            shortest = math.ceil(_MIN_EPOCH * n_steps)
            sizes = [max(1, min(shortest, int((left_s - validation_s) / step_s)))]
            used_s = sizes[0] * step_s + validation_s
        if not sizes:
            break
        cumulative = itertools.accumulate(sizes)
        after = (progress + (run + 1 - progress) * n / sum(sizes) for n in cumulative)
        schedule = (*schedule, *zip(sizes[:-1], after, strict=False), (sizes[-1], run + 1.0))
        left_s, progress = left_s - used_s, run + 1.0
    return schedule


def _epoch_sizes(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    validation_s: float,
    max_epochs: int,
) -> tuple[list[int], float]:
    """The steps of each epoch of a run that fits into the time, and the seconds they take."""
    left_s, sizes = time_s, list[int]()
    while len(sizes) < max_epochs and (not sizes or sizes[-1] == n_steps):
        size = min(n_steps, int((left_s - validation_s) / step_s))
        if size < max(1, _MIN_EPOCH * n_steps):
            break
        sizes.append(size)
        left_s -= size * step_s + validation_s
    return sizes, time_s - left_s


def schedule_progress(schedule: Schedule, epoch: int, step: float) -> float:
    """The progress of the schedule after some steps of an epoch: from 0 to 1 in the first run.

    Args:
        schedule: for each epoch its steps and the progress after it.
        epoch: number of the epoch, counted from 1.
        step: steps done in this epoch; fractions are allowed.

    Example:
        >>> schedule_progress(((10, 0.5), (5, 1.0)), 2, 2.5)
        0.75
    """
    size, after = schedule[epoch - 1]
    if step == size:
        return after
    before = schedule[epoch - 2][1] if epoch > 1 else 0.0
    return before + (after - before) * step / size


def lr_multiplier(progress: float, warmup: float = WARMUP) -> float:
    """The learning rate as a fraction of its peak: linear warmup times a half cosine.

    The rate rises over the first tenth, or longer where there are few steps: Adam's first steps are
    large and in uncertain directions, and must not move pretrained weights far away.

    Args:
        progress: progress of the schedule, in [0, 1].
        warmup: fraction of the schedule during which the rate rises; above 1, it never reaches
            its peak.

    References:
        I. Loshchilov, F. Hutter (2017), SGDR: stochastic gradient descent with warm restarts. ICLR.
        J. Ma, D. Yarats (2021), On the adequacy of untuned warmup for adaptive optimization. AAAI.
    """
    return min(1.0, progress / warmup) * (1 + math.cos(math.pi * progress)) / 2


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
    interpolation_s: float = 0.0
    test_s: float = 0.0

    @property
    def reserve_s(self) -> float:
        """What comes after training."""
        return self.interpolation_s + self.test_s


def measure_costs(
    learner: Learner,
    settings: FitSettings,
    *,
    predict_s: float,
    left_s: float,
    stop: StopRequest,
    report: Callable[[int, int], None],
) -> Costs:
    """Measure what fine-tuning will take.

    Args:
        learner: not trained yet; compiled if any epochs are requested.
        settings: of the fit.
        predict_s: seconds per photo of the final network.
        left_s: seconds of the time budget that are left. If none are for training, no step is
            timed, and a warning is logged.
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
    if train and all_reduce_max(left_s < costs.reserve_s):
        _log.warning(
            "No time is left for fine-tuning. Pass more than minutes=%g.", settings.minutes
        )
    elif train:
        costs = costs._replace(step_s=measure_step_time(learner, stop, report))
    return Costs(*broadcast(list(costs)))


def make_schedule(
    settings: FitSettings, time_s: float, n_steps: int, costs: Costs, done: Schedule = ()
) -> Schedule:
    """The requested schedule, or what fits into the time.

    Args:
        settings: of the fit.
        time_s: seconds that are left for it; only used if `epochs` is None.
        n_steps: steps per full epoch.
        costs: seconds per step and validation.
        done: the epochs already done, if the time decides.
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
        done=done,
    )


def measure_step_time(
    learner: Learner, stop: StopRequest, report: Callable[[int, int], None]
) -> float:
    """Measure the seconds per training step, without compilation.

    The learning rate of the timed steps is 0, so the trainable weights do not change; the state of
    the optimizer does. Steps are timed also where the schedule is given, so that a repetition of a
    run starts from the same state.

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
