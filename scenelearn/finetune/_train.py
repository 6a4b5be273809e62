"""The fine-tuning loop: from the solved head on, within the time that is left."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn._devices import largest, shared
from scenelearn.backbones import fast_on_cpu
from scenelearn.classify import judge
from scenelearn.data import Batches
from scenelearn.finetune._between import SHARES, chosen_share
from scenelearn.finetune._checkpoint import Checkpoint
from scenelearn.finetune._course import fitting, share_done
from scenelearn.finetune._learner import Learner
from scenelearn.finetune._optimizer import averaged, forget, optimizer_of
from scenelearn.finetune._recipe import Recipe
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._state import Judged, Schedule, State, arrays_of, assign, judged, pack
from scenelearn.finetune._stop import Requested

_TIMED_STEPS = 5
_NEARLY = 0.9  # of a run: what is left of its rate, 2 % of the peak, changes little any more

_log = logging.getLogger(__name__)


def compile_(model: Any, recipe: Recipe, precision: str | None = None) -> None:
    """Give the model its loss and optimizer; the rate is set before each step."""
    fast_on_cpu(model)
    loss = keras().losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )
    model.compile(optimizer=optimizer_of(model, recipe, precision), loss=loss)


def time_step(learner: Learner, stop: Requested, progress: Callable[[int, int], None]) -> float:
    """Seconds a training step takes, after compilation.

    The steps that are timed have rate 0, so that the trainable weights stay as they are. Where maps
    are kept, theirs are computed before.

    Args:
        learner: what trains; its model is compiled, and not trained yet.
        stop: whether a signal asks for the end.
        progress: called with (steps done, steps in all).

    Returns:
        The median of five steps, the making of their batches included; NaN after a signal.
    """
    steps = range(min(1 + _TIMED_STEPS, len(learner.sides.train)))
    if learner.maps is not None:
        for _ in learner.batches(epoch=0, steps=steps):
            pass
    batches = itertools.cycle(learner.batches(epoch=0, steps=steps))
    seconds = []
    for n_done in range(1 + _TIMED_STEPS):
        progress(n_done, 1 + _TIMED_STEPS)
        if stop.requested:
            return math.nan
        start = time.monotonic()
        learner.model.train_on_batch(*next(batches)[1])
        seconds.append(time.monotonic() - start)
    progress(1 + _TIMED_STEPS, 1 + _TIMED_STEPS)
    return sorted(seconds[1:])[_TIMED_STEPS // 2]  # the first one compiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is heeded between two steps.

    Attributes:
        deadline: when fine-tuning should end, on `time.monotonic`'s clock. An epoch that takes
            longer than planned is left a little later.
        most_epochs: how many there may be in a run.
        spare_s: how much later.
        stop: whether a signal asks for the end.
        checkpoint: where the state is kept now and then.
        elapsed_s: gives the seconds since the run began, to be kept with it.
        progress: called with (steps done, steps in all).
    """

    deadline: float
    spare_s: float
    most_epochs: int
    stop: Requested
    checkpoint: Checkpoint
    elapsed_s: Callable[[], float]
    progress: Callable[[int, int], None]

    @property
    def is_over(self) -> bool:
        """Whether there is no time left, not even the spare seconds."""
        return bool(largest(time.monotonic() > self.deadline + self.spare_s))

    def keep(self, state: State, model: Any) -> None:
        """Write a checkpoint now."""
        about, arrays = pack(state, model)
        self.checkpoint.write({"state": about, "elapsed_s": self.elapsed_s()}, arrays)


def run(learner: Learner, state: State, watch: Watch) -> str:
    """Fine-tune the learner's model in place, from where the state stands.

    The rate rises to its peak over the first tenth of the course or more and falls to 0 along a
    half cosine; of several runs, in each, from the first weights on and by an optimizer that has
    forgotten the run before. Where the time decides, the rest of the course is planned anew after
    each epoch by how long it took: so the rate comes to 0 just when the time is over. At the end
    the model has the weights that were best on the validation photos after an epoch; the solved
    head is epoch 0. Or, if nothing stopped it and there is a solved head to start from, those of a
    network between the first and the last, or between the first and the soup; see `_between`.

    Args:
        learner: what trains, its model compiled, and on what.
        state: where to begin; it is moved on.
        watch: what is heeded between two steps.

    Returns:
        Why it ended early, see `FitResult.stopped`; empty if it did not.
    """
    model, stopped = learner.model, watch.stop.requested
    if state.schedule.course and not stopped and watch.checkpoint.is_due():
        watch.keep(state, model)  # what was done before the first step counts, too
    while not stopped and state.epoch <= state.schedule.n_epochs:
        if watch.is_over:
            stopped = "time"
            break
        stopped = _rest_of_epoch(learner, state, watch)
    if not stopped and not _is_through(state) and watch.is_over:
        stopped = "time"  # nothing more was planned, as nothing more fits
    if stopped in ("", "time"):
        _choose_between(learner, state, watch)
    if state.schedule.course and stopped == watch.stop.requested != "":
        watch.keep(state, model)
    if stopped:
        _log.warning(_why(stopped, state))
    if stopped == "time":  # epochs that were planned and not begun are no part of it
        state.schedule = replace(plan := state.schedule, course=plan.course[: state.epoch - 1])
    model.set_weights(state.best_weights)
    return stopped


def _is_through(state: State) -> bool:
    """Whether the schedule went to its end, in a run at least."""
    course = state.schedule.course
    return not course or course[-1][1] % 1 == 0


def _why(stopped: str, state: State) -> str:
    """What to tell people about an early end."""
    n_epochs, number = state.schedule.n_epochs, state.epoch
    best = f"epoch {state.best}" if state.best else "the solved head"
    if stopped == "time":
        of = f" of {n_epochs}" if number <= n_epochs else ""  # else the rest was left out
        return f"Out of time after epoch {number - 1}{of}: {best} is kept."
    if stopped == "not finite":
        return (
            f"In epoch {number} of {n_epochs} the loss was no finite number any more: {best} is "
            f"kept. Pass a lower learning_rate than {state.schedule.peak:g}, a third of it for a "
            "start."
        )
    if not n_epochs:
        return f"Stopped by {stopped} before fine-tuning: {best} is kept."
    return (
        f"Stopped by {stopped} in epoch {number} of {n_epochs}: {best}, the best so far, is kept. "
        "The same call with resume=True goes on from here."
    )


def _rest_of_epoch(learner: Learner, state: State, watch: Watch) -> str:
    """Train on what is left of the running epoch, and judge it; or say why not."""
    model, plan, number, stopped = learner.model, state.schedule, state.epoch, ""
    n_new_views = learner.n_new_views
    before = sum(size for size, _ in plan.course[: number - 1])
    steps = range(state.step, plan.course[number - 1][0])
    start = time.monotonic() - state.epoch_s
    for step, batch in learner.batches(epoch=number, steps=steps):
        model.optimizer.learning_rate.assign(plan.rate(number, step + 0.5))
        loss = float(np.asarray(model.train_on_batch(*batch)))
        if not math.isfinite(loss):
            return "not finite"
        state.losses.append(loss)
        state.step, state.epoch_s = step + 1, time.monotonic() - start
        watch.progress(before + state.step, plan.n_steps)
        if watch.stop.requested:
            return watch.stop.requested
        if watch.is_over:
            stopped = "time"
            break
        if watch.checkpoint.is_due():
            watch.keep(state, model)
    steps_s = time.monotonic() - start
    n_done = state.step if stopped else plan.course[number - 1][0]
    with averaged(model):
        found = _judged(model, learner.sides.validation, watch.stop)
        if found is None:
            return watch.stop.requested
        epoch = Epoch(
            number=number,
            train_loss=float(np.mean(state.losses)) if state.losses else math.nan,
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
            calibrated_loss=found.calibrated_loss,
            learning_rate=plan.rate(number, max(0.0, n_done - 0.5)),
            seconds=time.monotonic() - start,
        )
        state.close_epoch(epoch, model)
        is_whole = n_done == plan.course[number - 1][0]
        run_ended = plan.n_runs > 1 and is_whole and plan.ends_run(number)
        if run_ended:
            state.close_run(model)
    if plan.timed and n_done:
        if learner.n_new_views < n_new_views:
            steps_s = max(0.1 * steps_s, steps_s - plan.slow_s)
        state.schedule = _planned_anew(state, n_done, learner, steps_s, watch)
    _log.info("epoch %d of %d: %s", number, plan.n_epochs, epoch)
    if run_ended and state.epoch <= state.schedule.n_epochs:
        assign(model.trainable_variables, state.first_weights)
        forget(model)
    if not math.isfinite(found.loss):
        return "not finite"
    if watch.checkpoint.is_due(epoch_ended=True):
        watch.keep(state, model)
    return stopped


def _planned_anew(
    state: State, n_done: int, learner: Learner, steps_s: float, watch: Watch
) -> Schedule:
    """The schedule after an epoch of `n_done` steps: its rest as the time that is left has it."""
    plan, number = state.schedule, len(state.history) - 1
    ended = n_done, share_done(plan.course, number, n_done)
    left_s, step_s, judging_s = shared(
        [
            watch.deadline - time.monotonic(),
            steps_s / n_done,
            max(0.0, state.history[-1].seconds - steps_s),
        ]
    )
    course = fitting(
        left_s,
        n_steps=len(learner.sides.train),
        step_s=step_s,
        judging_s=judging_s,
        most=watch.most_epochs,
        done=(*plan.course[: number - 1], ended),
        n_runs=plan.n_runs,
        n_slow=learner.n_new_views,
        slow_s=plan.slow_s,
    )
    return replace(plan, course=course)


def _choose_between(learner: Learner, state: State, watch: Watch) -> None:
    """Keep one of the networks on the straight way from the first weights to the last, or the soup.

    The model is left with any of their weights.
    """
    model, variables = learner.model, learner.model.trainable_variables
    if not state.first_weights or len(state.history) == 1:
        return
    in_run = state.schedule.course[state.epoch - 2][1] - state.n_in_soup
    with averaged(model):
        if state.schedule.n_runs > 1 and in_run >= _NEARLY:
            state.close_run(model)
        last = state.soup or arrays_of(variables)

    def move_to(share: float) -> None:
        pairs = zip(state.first_weights, last, strict=True)
        assign(variables, [a + np.float32(share) * (b - a) for a, b in pairs])

    losses = {}
    interpolates = learner.variation.recipe.interpolate
    for share in SHARES if interpolates else (1.0,):
        move_to(share)
        found = _judged(model, learner.sides.validation, watch.stop)
        if found is None:
            break
        losses[share] = found.losses
        _log.info(
            "%g of the way to the fine-tuned network: %.4f, loss %.4f calibrated",
            share, found.accuracy, found.calibrated_loss,
        )  # fmt: skip
    else:
        if not interpolates and not losses[1.0].mean() < state.best_loss:
            return
        share = chosen_share(losses, state.usual_share) if interpolates else 1.0
        move_to(share)
        epoch = len(state.history) - 1 if share else 0
        state.keep(model, float(losses[share].mean()), epoch=epoch, share=share)


def _judged(model: Any, validation: Batches, stop: Requested) -> Judged | None:
    """What the network reaches on the validation photos; None if a signal came meanwhile."""

    def heed(_done: int, _total: int) -> None:
        if stop.requested:
            raise _SignalCameError

    try:
        logits, indices = judge(model, validation, progress=heed)
    except _SignalCameError:
        return None
    return judged(logits, validation.labels[indices])


class _SignalCameError(Exception):
    """Leaves the judging of an epoch, between two batches."""
