"""The course of fine-tuning: the steps of each epoch, and how far the schedule is after it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Course = tuple[tuple[int, float], ...]

WARM_UP = 0.1  # share of the schedule in which the rate rises, at the least
_SHORTEST = 0.1  # of an epoch: less is not worth judging


def even(n_epochs: int, n_steps: int, n_runs: int = 1) -> Course:
    """So many epochs of so many steps, the schedule going on by the same share in each.

    Args:
        n_epochs: of a run, at least 0.
        n_steps: of an epoch.
        n_runs: how often the schedule is gone through.

    Returns:
        For each epoch its steps and how far the schedule is after it, in (0, 1] in the first run,
        in (1, 2] in the second.

    Example:
        >>> even(2, 10)
        ((10, 0.5), (10, 1.0))
    """
    return tuple(
        (n_steps, run + (k + 1) / n_epochs) for run in range(n_runs) for k in range(n_epochs)
    )


def fitting(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    judging_s: float,
    most: int,
    n_runs: int = 1,
    done: Course = (),
    n_slow: int = 0,
    slow_s: float = 0.0,
) -> Course:
    """The course that ends when the time does, going on from what is done of it.

    The runs that are left share the time, or as many of them as a tenth of an epoch each fits for.
    In each, whole epochs as long as they fit, then a shorter one if a tenth of an epoch fits. The
    schedule stretches or shrinks with them: its rate falls to 0 just at the end of each run.

    Args:
        time_s: seconds from now on.
        n_steps: of a whole epoch.
        step_s: seconds a step.
        judging_s: seconds for judging the validation photos after an epoch.
        most: the most epochs of a run, those that are done included.
        n_runs: how often the schedule is gone through.
        done: the epochs behind.
        n_slow: how many of the next epochs take longer.
        slow_s: by so many seconds, if they are whole.

    Returns:
        `done`, and what fits. Only `done` if that is nothing, or the schedule is through: its
        last steps were the slow ones that nothing should follow. One of several runs that is begun
        comes to its end while there is any time, however short its last epoch is.

    Example:
        Twenty steps fit into the first epochs, and ten more are worth one of their own:

        >>> fitting(36.0, n_steps=10, step_s=1.0, judging_s=1.0, most=9)
        ((10, 0.3125), (10, 0.625), (10, 0.9375), (2, 1.0))
        >>> fitting(36.0, n_steps=10, step_s=1.0, judging_s=1.0, most=9, n_runs=2)
        ((10, 0.625), (6, 1.0), (10, 1.625), (6, 2.0))
    """
    course, left_s, gone = done, time_s, done[-1][1] if done else 0.0
    for run in range(int(gone), n_runs):
        is_begun = gone > run
        for last in (n_runs,) if is_begun else range(n_runs, run, -1):
            sizes, used_s = _sizes(
                left_s * (run + 1 - gone) / (last - gone),
                n_steps=n_steps,
                step_s=step_s,
                judging_s=judging_s,
                most=most - sum(share > run for _, share in course),
                n_slow=n_slow - (len(course) - len(done)),
                slow_s=slow_s,
            )
            if sizes:
                break
        if not sizes and is_begun and n_runs > 1 and left_s > 0:
            shortest = math.ceil(_SHORTEST * n_steps)
            sizes = [max(1, min(shortest, int((left_s - judging_s) / step_s)))]
            used_s = sizes[0] * step_s + judging_s
        if not sizes:
            break
        so_far = itertools.accumulate(sizes)
        shares = (gone + (run + 1 - gone) * n / sum(sizes) for n in so_far)
        course = (*course, *zip(sizes[:-1], shares, strict=False), (sizes[-1], run + 1.0))
        left_s, gone = left_s - used_s, run + 1.0
    return course


def _sizes(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    judging_s: float,
    most: int,
    n_slow: int,
    slow_s: float,
) -> tuple[list[int], float]:
    """The steps of each epoch of a run that fits into the time, and the seconds they take."""
    left_s, sizes = time_s, list[int]()
    while len(sizes) < most and (not sizes or sizes[-1] == n_steps):
        a_step_s = step_s + (slow_s / n_steps if len(sizes) < n_slow else 0.0)
        size = min(n_steps, int((left_s - judging_s) / a_step_s))
        if size < max(1, _SHORTEST * n_steps):
            break
        sizes.append(size)
        left_s -= size * a_step_s + judging_s
    return sizes, time_s - left_s


def share_done(course: Course, epoch: int, step: float) -> float:
    """How far the schedule is after some steps of an epoch: from 0 to 1 in the first run.

    Args:
        course: of the run.
        epoch: its number, from 1 on.
        step: done in it; halves are in the middle of a step.

    Example:
        >>> share_done(((10, 0.5), (5, 1.0)), 2, 2.5)
        0.75
    """
    size, after = course[epoch - 1]
    if step == size:
        return after
    before = course[epoch - 2][1] if epoch > 1 else 0.0
    return before + (after - before) * step / size


def share_of_peak(done: float, warm_up: float = WARM_UP) -> float:
    """The learning rate after a share of the schedule, as a share of its peak.

    It rises over the first tenth, or over more where the steps are few: Adam's first steps are
    large ones in uncertain directions, and a network that is known to be good must not be thrown
    off its place by them. And it falls to 0 along a half cosine.

    Args:
        done: share of the schedule that is done, in [0, 1].
        warm_up: share in which the rate rises; above 1, it never reaches its peak.

    References:
        I. Loshchilov, F. Hutter (2017), SGDR: stochastic gradient descent with warm restarts. ICLR.
        J. Ma, D. Yarats (2021), On the adequacy of untuned warmup for adaptive optimization. AAAI.
    """
    return min(1.0, done / warm_up) * (1 + math.cos(math.pi * done)) / 2


def course_of(value: Sequence[Sequence[float]], n_runs: int = 1) -> Course | None:
    """A course of so many runs from plain lists, as JSON has it; None if it is none."""
    try:
        course = tuple((int(size), float(after)) for size, after in value)
    except (TypeError, ValueError):
        return None
    shares = [0.0, *(after for _, after in course)]
    rising = all(a < b <= min(n_runs, int(a) + 1) for a, b in itertools.pairwise(shares))
    return course if rising and all(size >= 1 for size, _ in course) else None
