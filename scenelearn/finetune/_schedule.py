"""The schedule of fine-tuning: how many steps each epoch has, and the learning rate of each step.

`uniform_schedule` has full epochs, `schedule_for_time` those that fit into a time. The learning
rate follows `lr_multiplier`. Elsewhere: the time that is left in `_budget`, the highest rate and
the maximum number of epochs in `_settings`, rates per layer in `_model`, and the update of the
schedule after each epoch in `_trainer`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Schedule = tuple[tuple[int, float], ...]
"""For each epoch its number of steps, and the progress of the learning rate schedule after it."""

WARMUP = 0.1  # minimum fraction of the schedule during which the learning rate rises
_MIN_EPOCH = 0.1  # of a full epoch: less is not worth a validation


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSchedule:
    """The epochs of fine-tuning and their learning rates, with what they were chosen by.

    Attributes:
        epochs: for each epoch its steps and the progress after it; empty for no fine-tuning.
        n_cycles: number of learning rate cycles, each from the initial weights.
        time_limited: whether the time budget decides the number of epochs. If so, they are updated
            after each epoch.
        peak_lr: the highest learning rate.
        min_warmup_steps: minimum number of steps during which the learning rate rises.
        step_s: seconds per step, as measured before training.
        reserve_s: seconds of the budget reserved for what comes after training.
        batch_size: photos per step.
    """

    epochs: Schedule
    n_cycles: int
    time_limited: bool
    peak_lr: float
    min_warmup_steps: int
    step_s: float
    reserve_s: float
    batch_size: int

    @property
    def n_epochs(self) -> int:
        """Number of epochs."""
        return len(self.epochs)

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return sum(size for size, _ in self.epochs)

    def learning_rate(self, epoch: int, step: float) -> float:
        """The learning rate after some steps of an epoch; epochs are counted from 1."""
        steps_per_cycle = self.n_steps / self.epochs[-1][1]
        warmup = max(WARMUP, self.min_warmup_steps / steps_per_cycle)
        progress = schedule_progress(self.epochs, epoch, step)
        return self.peak_lr * lr_multiplier(progress % 1, warmup)

    def ends_cycle(self, epoch: int) -> bool:
        """Whether this epoch is the last of a cycle."""
        return self.epochs[epoch - 1][1] % 1 == 0


def uniform_schedule(n_epochs: int, n_steps: int, n_cycles: int = 1) -> Schedule:
    """A schedule of full epochs.

    Args:
        n_epochs: number of epochs per cycle, at least 0.
        n_steps: steps per epoch.
        n_cycles: number of learning rate cycles.

    Returns:
        For each epoch its steps and the progress after it, in (0, 1] during the first cycle, in
        (1, 2] during the second, and so on.

    Example:
        >>> uniform_schedule(2, 10)
        ((10, 0.5), (10, 1.0))
    """
    return tuple(
        (n_steps, cycle + (k + 1) / n_epochs) for cycle in range(n_cycles) for k in range(n_epochs)
    )


def schedule_for_time(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    validation_s: float,
    max_epochs: int,
    n_cycles: int = 1,
    done: Schedule = (),
) -> Schedule:
    """A schedule that ends when the time does, as a continuation of the epochs already done.

    The remaining cycles share the time, or as many of them as have time for a tenth of an epoch.
    Each has as many full epochs as fit, then a shorter one if a tenth of an epoch fits. The
    learning rate schedule stretches or shrinks accordingly: the rate falls to 0 at the end of each
    cycle.

    Args:
        time_s: seconds from now on.
        n_steps: steps per full epoch.
        step_s: seconds per step.
        validation_s: seconds for the validation after an epoch.
        max_epochs: maximum number of epochs per cycle, including those done.
        n_cycles: number of learning rate cycles.
        done: the epochs already done.

    Returns:
        `done`, followed by the epochs that fit. Only `done` if none fits, or if the last cycle
        has ended: its learning rate is already 0. If there are several cycles, one that has started
        is finished as long as there is any time, however short its last epoch is.

    Example:
        Twenty steps fit into the first epochs, and ten more are worth one of their own:

        >>> schedule_for_time(36.0, n_steps=10, step_s=1.0, validation_s=1.0, max_epochs=9)
        ((10, 0.3125), (10, 0.625), (10, 0.9375), (2, 1.0))
        >>> schedule_for_time(
        ...     36.0, n_steps=10, step_s=1.0, validation_s=1.0, max_epochs=9, n_cycles=2
        ... )
        ((10, 0.625), (6, 1.0), (10, 1.625), (6, 2.0))
    """
    schedule, left_s, progress = done, time_s, done[-1][1] if done else 0.0
    for cycle in range(int(progress), n_cycles):
        has_started = progress > cycle
        for last in (n_cycles,) if has_started else range(n_cycles, cycle, -1):
            sizes, used_s = _epoch_sizes(
                left_s * (cycle + 1 - progress) / (last - progress),
                n_steps=n_steps,
                step_s=step_s,
                validation_s=validation_s,
                max_epochs=max_epochs - sum(after > cycle for _, after in schedule),
            )
            if sizes:
                break
        if not sizes and has_started and n_cycles > 1 and left_s > 0:
            shortest = math.ceil(_MIN_EPOCH * n_steps)
            sizes = [max(1, min(shortest, int((left_s - validation_s) / step_s)))]
            used_s = sizes[0] * step_s + validation_s
        if not sizes:
            break
        cumulative = itertools.accumulate(sizes)
        after = (progress + (cycle + 1 - progress) * n / sum(sizes) for n in cumulative)
        schedule = (*schedule, *zip(sizes[:-1], after, strict=False), (sizes[-1], cycle + 1.0))
        left_s, progress = left_s - used_s, cycle + 1.0
    return schedule


def _epoch_sizes(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    validation_s: float,
    max_epochs: int,
) -> tuple[list[int], float]:
    """The steps of each epoch of a cycle that fits into the time, and the seconds they take."""
    left_s, sizes = time_s, list[int]()
    while len(sizes) < max_epochs and (not sizes or sizes[-1] == n_steps):
        size = min(n_steps, int((left_s - validation_s) / step_s))
        if size < max(1, _MIN_EPOCH * n_steps):
            break
        sizes.append(size)
        left_s -= size * step_s + validation_s
    return sizes, time_s - left_s


def schedule_progress(schedule: Schedule, epoch: int, step: float) -> float:
    """The progress of the schedule after some steps of an epoch: from 0 to 1 in the first cycle.

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


def parse_schedule(value: Sequence[Sequence[float]], n_cycles: int = 1) -> Schedule | None:
    """A schedule from plain lists, as in JSON; None if it is not a valid one for so many cycles."""
    try:
        schedule = tuple((int(size), float(after)) for size, after in value)
    except (TypeError, ValueError):
        return None
    progress = [0.0, *(after for _, after in schedule)]
    increases = all(a < b <= min(n_cycles, int(a) + 1) for a, b in itertools.pairwise(progress))
    return schedule if increases and all(size >= 1 for size, _ in schedule) else None
