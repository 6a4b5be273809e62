"""The training loop: fine-tune from the linear probe, within the time that is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenelearn._distributed import all_reduce_max, broadcast
from scenelearn.classify._inference import predict_batches
from scenelearn.data import Batches
from scenelearn.finetune._checkpoint import Checkpoint
from scenelearn.finetune._interpolation import COEFFICIENTS, choose_coefficient
from scenelearn.finetune._learner import Learner
from scenelearn.finetune._optimizer import reset_optimizer
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._runtime import StopRequest
from scenelearn.finetune._schedule import TrainingPlan, schedule_for_time, schedule_progress
from scenelearn.finetune._state import (
    TrainingState,
    ValidationScores,
    assign_values,
    pack,
    score_logits,
    to_arrays,
)

# Progress from which on a run counts as complete: the rest of its learning rate, at most 2% of the
# peak, changes little.
_NEARLY_COMPLETE = 0.9

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the trainer checks between two steps.

    Attributes:
        deadline: when fine-tuning should end, on `time.perf_counter`'s clock. An epoch that takes
            longer than planned is cut off a little later.
        grace_s: how many seconds later.
        max_epochs: maximum number of epochs per run.
        stop: whether to stop.
        checkpoint: where the state is saved.
        elapsed_s: returns the seconds since the run began, to be saved with the state.
        report: called with (steps done, total).
    """

    deadline: float
    grace_s: float
    max_epochs: int
    stop: StopRequest
    checkpoint: Checkpoint
    elapsed_s: Callable[[], float]
    report: Callable[[int, int], None]

    @property
    def is_out_of_time(self) -> bool:
        """Whether no time is left, not even the grace period. A collective operation."""
        return bool(all_reduce_max(time.perf_counter() > self.deadline + self.grace_s))

    def save(self, state: TrainingState, model: Any) -> None:
        """Write a checkpoint now."""
        metadata, arrays = pack(state, model)
        self.checkpoint.write({"state": metadata, "elapsed_s": self.elapsed_s()}, arrays)


def train(learner: Learner, state: TrainingState, control: Control) -> str:
    """Fine-tune the learner's model in place, from the given state on.

    The learning rate rises to its peak over the first tenth of the schedule or more, and falls to 0
    along a half cosine; with several runs, in each of them, which starts from the initial weights
    with a reset optimizer. If the time budget decides, the rest of the schedule is updated after
    each epoch by how long it took, so that the rate reaches 0 just when the time is over. In the
    end the model has the weights that were best on the validation photos after an epoch, where
    epoch 0 is the linear probe. Or, if training was not stopped and there is a linear probe, those
    interpolated between the linear probe and the last epoch, or the soup; see `_interpolation`.

    Args:
        learner: the compiled model and its data.
        state: where to start; it is updated.
        control: what is checked between two steps.

    Returns:
        Why training ended early, see `FitResult.stopped`; empty if it did not.
    """
    model, stopped = learner.model, control.stop.requested
    if state.plan.schedule and not stopped and control.checkpoint.is_due():
        control.save(state, model)  # saves the work before the first step
    while not stopped and state.epoch <= state.plan.n_epochs:
        if control.is_out_of_time:
            stopped = "time"
            break
        stopped = _train_epoch(learner, state, control)
    if not stopped and not _is_complete(state) and control.is_out_of_time:
        stopped = "time"  # no more epochs were planned, since none fits
    if stopped in ("", "time"):
        _interpolate(learner, state, control)
    if state.plan.schedule and stopped == control.stop.requested != "":
        control.save(state, model)
    if stopped:
        _log.warning(_stop_message(stopped, state))
    if stopped == "time":  # planned epochs that did not begin do not count
        state.plan = replace(state.plan, schedule=state.plan.schedule[: state.epoch - 1])
    model.set_weights(state.best_weights)
    return stopped


def _is_complete(state: TrainingState) -> bool:
    """Whether the schedule ends with a complete run."""
    schedule = state.plan.schedule
    return not schedule or schedule[-1][1] % 1 == 0


def _stop_message(stopped: str, state: TrainingState) -> str:
    n_epochs, epoch = state.plan.n_epochs, state.epoch
    kept = f"epoch {state.best}" if state.best else "the linear probe"
    if stopped == "time":
        total = f" of {n_epochs}" if epoch <= n_epochs else ""  # else the rest was dropped
        return f"Out of time after epoch {epoch - 1}{total}. Keeping {kept}."
    if stopped == "not finite":
        return (
            f"In epoch {epoch} of {n_epochs} the loss became NaN or infinite. Keeping {kept}. Pass "
            f"a lower learning_rate than {state.plan.peak_lr:g}; try a third of it."
        )
    if not n_epochs:
        return f"Stopped by {stopped} before fine-tuning. Keeping {kept}."
    return (
        f"Stopped by {stopped} in epoch {epoch} of {n_epochs}. Keeping {kept}, the best so far. "
        "To resume, make the same call with resume=True."
    )


def _train_epoch(learner: Learner, state: TrainingState, control: Control) -> str:
    """Train for the rest of the current epoch, and validate; return why it stopped, if it did."""
    model, plan, epoch, stopped = learner.model, state.plan, state.epoch, ""
    n_steps = plan.schedule[epoch - 1][0]
    before = sum(size for size, _ in plan.schedule[: epoch - 1])
    start = time.perf_counter() - state.epoch_s
    for step, batch in learner.batches(epoch=epoch, steps=range(state.step, n_steps)):
        model.optimizer.learning_rate.assign(plan.learning_rate(epoch, step + 0.5))
        loss = float(np.asarray(model.train_on_batch(*batch)))
        if not math.isfinite(loss):
            return "not finite"
        state.losses.append(loss)
        state.step, state.epoch_s = step + 1, time.perf_counter() - start
        control.report(before + state.step, plan.n_steps)
        if control.stop.requested:
            return control.stop.requested
        if control.is_out_of_time:
            stopped = "time"
            break
        if control.checkpoint.is_due():
            control.save(state, model)
    steps_s = time.perf_counter() - start
    n_done = state.step if stopped else n_steps
    scores = _validate(model, learner.datasets.validation, control.stop)
    if scores is None:
        return control.stop.requested
    result = Epoch(
        number=epoch,
        train_loss=float(np.mean(state.losses)) if state.losses else math.nan,
        validation_loss=scores.loss,
        validation_accuracy=scores.accuracy,
        calibrated_loss=scores.calibrated_loss,
        learning_rate=plan.learning_rate(epoch, max(0.0, n_done - 0.5)),
        seconds=time.perf_counter() - start,
    )
    state.end_epoch(result, model)
    run_ended = plan.n_runs > 1 and n_done == n_steps and plan.ends_run(epoch)
    if run_ended:
        state.end_run(model)
    if plan.time_limited and n_done:
        state.plan = _update_plan(state, n_done, learner, steps_s, control)
    _log.info("epoch %d of %d: %s", epoch, plan.n_epochs, result)
    if run_ended and state.epoch <= state.plan.n_epochs:
        assign_values(model.trainable_variables, state.initial_weights)
        reset_optimizer(model)
    if not math.isfinite(scores.loss):
        return "not finite"
    if control.checkpoint.is_due(epoch_ended=True):
        control.save(state, model)
    return stopped


def _update_plan(
    state: TrainingState, n_done: int, learner: Learner, steps_s: float, control: Control
) -> TrainingPlan:
    """The plan after an epoch of `n_done` steps, with a new schedule for the time that is left."""
    plan, epoch = state.plan, len(state.history) - 1
    ended = n_done, schedule_progress(plan.schedule, epoch, n_done)
    left_s, step_s, validation_s = broadcast(
        [
            control.deadline - time.perf_counter(),
            steps_s / n_done,
            max(0.0, state.history[-1].seconds - steps_s),
        ]
    )
    schedule = schedule_for_time(
        left_s,
        n_steps=len(learner.datasets.train),
        step_s=step_s,
        validation_s=validation_s,
        max_epochs=control.max_epochs,
        done=(*plan.schedule[: epoch - 1], ended),
        n_runs=plan.n_runs,
    )
    return replace(plan, schedule=schedule)


def _interpolate(learner: Learner, state: TrainingState, control: Control) -> None:
    """Keep weights interpolated between the initial ones and the last ones, or the soup.

    The model is left with arbitrary ones of these weights.
    """
    model, variables = learner.model, learner.model.trainable_variables
    if not state.initial_weights or len(state.history) == 1:
        return
    run_progress = state.plan.schedule[state.epoch - 2][1] - state.n_in_soup
    if state.plan.n_runs > 1 and run_progress >= _NEARLY_COMPLETE:
        state.end_run(model)
    last = state.soup or to_arrays(variables)

    def assign(coefficient: float) -> None:
        pairs = zip(state.initial_weights, last, strict=True)
        assign_values(variables, [a + np.float32(coefficient) * (b - a) for a, b in pairs])

    losses = {}
    interpolates = learner.augmentation.recipe.interpolate_weights
    for coefficient in COEFFICIENTS if interpolates else (1.0,):
        assign(coefficient)
        scores = _validate(model, learner.datasets.validation, control.stop)
        if scores is None:
            return
        losses[coefficient] = scores.losses
        _log.info(
            "interpolation %g: accuracy %.4f, calibrated loss %.4f",
            coefficient, scores.accuracy, scores.calibrated_loss,
        )  # fmt: skip
    if not interpolates and not losses[1.0].mean() < state.best_loss:
        return
    best = choose_coefficient(losses, state.default_interpolation) if interpolates else 1.0
    assign(best)
    epoch = len(state.history) - 1 if best else 0
    state.keep(model, float(losses[best].mean()), epoch=epoch, interpolation=best)


def _validate(model: Any, validation: Batches, stop: StopRequest) -> ValidationScores | None:
    """Score the network on the validation photos; None if a signal came meanwhile."""

    def check_stop(_done: int, _total: int) -> None:
        if stop.requested:
            raise _StopError

    try:
        logits, indices = predict_batches(model, validation, report=check_stop)
    except _StopError:
        return None
    return score_logits(logits, validation.labels[indices])


class _StopError(Exception):
    """Leaves a validation between two batches."""
