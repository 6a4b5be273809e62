"""The course of fine-tuning: the steps of each epoch, and how far the schedule is after it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Course = tuple[tuple[int, float], ...]

WARM_UP = 0.1  # share of the schedule in which the rate rises, at the least
_SHORTEST = 0.1  # of an epoch: less is not worth judging


def even(n_epochs: int, n_steps: int) -> Course:
    """So many epochs of so many steps, the schedule going on by the same share in each.

    Args:
        n_epochs: at least 0.
        n_steps: of an epoch.

    Returns:
        For each epoch its steps and the share of the schedule that is done after it, in (0, 1].

    Example:
        >>> even(2, 10)
        ((10, 0.5), (10, 1.0))
    """
    return tuple((n_steps, (k + 1) / n_epochs) for k in range(n_epochs))


def fitting(
    time_s: float,
    *,
    n_steps: int,
    step_s: float,
    judging_s: float,
    most: int,
    done: Course = (),
    n_slow: int = 0,
    slow_s: float = 0.0,
) -> Course:
    """The course that ends when the time does, going on from what is done of it.

    Whole epochs as long as they fit, then a shorter one if a tenth of an epoch fits. The schedule
    stretches or shrinks with them: its rate falls to 0 just at the end.

    Args:
        time_s: seconds from now on.
        n_steps: of a whole epoch.
        step_s: seconds a step.
        judging_s: seconds for judging the validation photos after an epoch.
        most: the most epochs, those that are done included.
        done: the epochs behind.
        n_slow: how many of the next epochs take longer.
        slow_s: by so many seconds, if they are whole.

    Returns:
        `done`, and what fits. Only `done` if that is nothing, or the schedule is through: its
        last steps were the slow ones that nothing should follow.

    Example:
        Twenty steps fit into the first epochs, and ten more are worth one of their own:

        >>> fitting(36.0, n_steps=10, step_s=1.0, judging_s=1.0, most=9)
        ((10, 0.3125), (10, 0.625), (10, 0.9375), (2, 1.0))
    """
    if done and done[-1][1] >= 1:
        return done
    left_s, sizes = time_s, list[int]()
    while len(done) + len(sizes) < most and (not sizes or sizes[-1] == n_steps):
        a_step_s = step_s + (slow_s / n_steps if len(sizes) < n_slow else 0.0)
        size = min(n_steps, int((left_s - judging_s) / a_step_s))
        if size < max(1, _SHORTEST * n_steps):
            break
        sizes.append(size)
        left_s -= size * a_step_s + judging_s
    total, begun, gone = sum(sizes), done[-1][1] if done else 0.0, 0
    ahead = []
    for size in sizes:
        gone += size
        ahead.append((size, 1.0 if gone == total else begun + (1 - begun) * gone / total))
    return (*done, *ahead)


def share_done(course: Course, epoch: int, step: float) -> float:
    """How far the schedule is after some steps of an epoch, from 0 to 1.

    Args:
        course: of the run.
        epoch: its number, from 1 on.
        step: done in it; halves are in the middle of a step.

    Example:
        >>> share_done(((10, 0.5), (5, 1.0)), 2, 2.5)
        0.75
    """
    size, after = course[epoch - 1]
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


def course_of(value: Sequence[Sequence[float]]) -> Course | None:
    """A course from plain lists, as JSON has it; None if it is none."""
    try:
        course = tuple((int(size), float(after)) for size, after in value)
    except (TypeError, ValueError):
        return None
    shares = [0.0, *(after for _, after in course)]
    rising = all(a < b <= 1 for a, b in itertools.pairwise(shares))
    return course if rising and all(size >= 1 for size, _ in course) else None
