"""The training loop: fine-tune from the linear probe, within the time that is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._distributed import all_reduce_max, broadcast
from scenelearn._logistic_regression import cross_entropies, cross_entropy
from scenelearn.classify._calibration import fit_temperature
from scenelearn.classify._inference import predict_batches
from scenelearn.finetune._budget import Durations, make_schedule, n_interpolations
from scenelearn.finetune._checkpoint import Arrays, Checkpoint
from scenelearn.finetune._class_weights import UNWEIGHTED, ClassWeights, photo_weights
from scenelearn.finetune._learner import Learner
from scenelearn.finetune._lora import is_random_factor
from scenelearn.finetune._model import (
    COEFFICIENTS,
    choose_coefficient,
    default_coefficient,
    reset_optimizer,
)
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._runtime import Callbacks, Clock, StopRequest
from scenelearn.finetune._schedule import TrainingSchedule, parse_schedule, schedule_progress
from scenelearn.finetune._settings import FitSettings

_GRACE = 0.03  # of the time budget: how much longer than planned an epoch may take

# Progress from which on a cycle counts as complete: the rest of its learning rate, at most 2% of
# the peak, changes little.
_NEARLY_COMPLETE = 0.9

_log = logging.getLogger(__name__)


class ValidationScores(NamedTuple):
    """How good a network is on the validation photos.

    Attributes:
        accuracy: as in `Epoch`.
        loss: as in `Epoch`.
        calibrated_loss: as in `Epoch`.
        losses: (n,) float64, the calibrated loss of each photo, times its weight.
    """

    accuracy: float
    loss: float
    calibrated_loss: float
    losses: npt.NDArray[np.float64]


def score_logits(
    logits: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    class_weights: ClassWeights = UNWEIGHTED,
) -> ValidationScores:
    """Compute accuracy and losses from logits.

    Args:
        logits: (n, n_classes), of the validation photos.
        labels: (n,) integers in [0, n_classes).
        class_weights: how much each class counts in the calibration and in the calibrated loss.

    Returns:
        The accuracy, and the cross-entropy before and after calibration, in nats; NaN if a logit is
        not finite.
    """
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    if not np.isfinite(logits).all():
        return ValidationScores(accuracy, math.nan, math.nan, np.full(len(labels), math.nan))
    temperature = fit_temperature(logits, labels, photo_weights(class_weights.training, labels))
    losses = cross_entropies(logits.astype(np.float64) / temperature, labels)
    weights = photo_weights(class_weights.choice, labels)
    if weights is not None:
        losses = losses * weights
    return ValidationScores(accuracy, cross_entropy(logits, labels), float(losses.mean()), losses)


@dataclass(slots=True, kw_only=True, eq=False)
class TrainingState:
    """The progress of fine-tuning. The only other state is that of the network and its optimizer.

    There is no random state: every random number is a function of (seed, epoch, index).

    Attributes:
        schedule: the epochs, those done included.
        history: epoch 0, the linear probe, and each complete epoch.
        best: number of the epoch with the lowest calibrated validation loss, which distinguishes
            networks with fewer photos than the accuracy needs.
        best_loss: its calibrated loss.
        best_weights: the network's weights after it.
        initial_weights: the trainable weights before the first step; empty if no weights are
            interpolated in the end.
        default_interpolation: the coefficient to keep unless another is significantly better.
        interpolation: the coefficient of the best weights: 0 is the linear probe, 1 its epoch.
        soup: mean of the trainable weights at the end of each cycle so far; empty before that, and
            if there is only one cycle.
        n_in_soup: number of these cycles.
        step: number of steps done in the current epoch.
        losses: the loss of each of them.
        epoch_s: seconds that they took.
    """

    schedule: TrainingSchedule
    history: list[Epoch]
    best_loss: float
    best_weights: list[npt.NDArray[Any]]
    initial_weights: list[npt.NDArray[Any]]
    default_interpolation: float = 0.0
    best: int = 0
    interpolation: float = 1.0
    soup: list[npt.NDArray[Any]] = field(default_factory=list)
    n_in_soup: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    epoch_s: float = 0.0

    @property
    def epoch(self) -> int:
        """Number of the current epoch, counted from 1."""
        return len(self.history)

    def keep(self, model: Any, loss: float, *, epoch: int, interpolation: float = 1.0) -> None:
        """Keep the network's weights as the best, unless they are not finite."""
        weights = model.get_weights()
        if all(np.isfinite(one).all() for one in weights):
            self.best, self.interpolation, self.best_weights = epoch, interpolation, weights
            self.best_loss = loss

    def end_epoch(self, epoch: Epoch, model: Any) -> None:
        """Record a complete epoch, and keep its weights if it is the best."""
        if epoch.calibrated_loss < self.best_loss:  # never true for NaN
            self.keep(model, epoch.calibrated_loss, epoch=epoch.number)
        self.history.append(epoch)
        self.step, self.losses, self.epoch_s = 0, [], 0.0

    def end_schedule(self) -> None:
        """End the schedule with the last complete epoch."""
        self.schedule = replace(self.schedule, epochs=self.schedule.epochs[: self.epoch - 1])

    def end_cycle(self, model: Any) -> None:
        """Add the weights at the end of a cycle to the soup."""
        self.n_in_soup += 1
        weights, weight = to_arrays(model.trainable_variables), np.float32(1 / self.n_in_soup)
        mean = self.soup or weights
        self.soup = [a + weight * (b - a) for a, b in zip(mean, weights, strict=True)]


def probe_epoch(scores: ValidationScores) -> Epoch:
    """The linear probe as epoch 0 of the history."""
    return Epoch(
        number=0,
        train_loss=math.nan,
        validation_loss=scores.loss,
        calibrated_loss=scores.calibrated_loss,
        validation_accuracy=scores.accuracy,
        learning_rate=0.0,
        seconds=0.0,
    )


def initial_state(
    learner: Learner,
    schedule: TrainingSchedule,
    settings: FitSettings,
    *,
    probe_epoch: Epoch,
    probe_weights: list[npt.NDArray[Any]],
) -> TrainingState:
    """The state before the first step.

    Args:
        learner: not trained yet.
        schedule: from `choose_schedule`.
        settings: of the fit.
        probe_epoch: the scores of the linear probe.
        probe_weights: of the network with the linear probe.
    """
    n_photos, n_classes = learner.datasets.train.n_photos, learner.logits_model.output_shape[-1]
    interpolates = n_interpolations(settings) and schedule.epochs
    return TrainingState(
        schedule=schedule,
        history=[probe_epoch],
        best_weights=probe_weights,
        best_loss=probe_epoch.calibrated_loss,
        initial_weights=to_arrays(learner.model.trainable_variables) if interpolates else [],
        default_interpolation=default_coefficient(n_photos / n_classes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the trainer checks between two steps.

    Attributes:
        settings: of the fit.
        clock: how much time is left.
        stop: whether to stop.
        checkpoint: where the state is saved.
        callbacks: of Keras, whose hooks are called.
    """

    settings: FitSettings
    clock: Clock
    stop: StopRequest
    checkpoint: Checkpoint
    callbacks: Callbacks

    def is_out_of_time(self, state: TrainingState) -> bool:
        """Whether no time is left, not even the grace period. A collective operation."""
        left_s = self.clock.left_s(reserve_s=state.schedule.reserve_s)
        return bool(all_reduce_max(left_s < -_GRACE * 60 * self.settings.minutes))

    def save(self, state: TrainingState, model: Any) -> None:
        """Write a checkpoint now."""
        metadata, arrays = pack(state, model)
        self.checkpoint.write({"state": metadata, "elapsed_s": self.clock.elapsed_s()}, arrays)


def train(learner: Learner, state: TrainingState, control: Control) -> str:
    """Fine-tune the learner's model in place, from the given state on.

    The learning rate rises to its peak over the first tenth of the schedule or more, and falls to 0
    along a half cosine; with several cycles, in each of them, which starts from the initial weights
    with a reset optimizer. If the time budget decides, the rest of the schedule is updated after
    each epoch by how long it took, so that the rate reaches 0 just when the time is over. In the
    end the model has the weights that were best on the validation photos after an epoch, where
    epoch 0 is the linear probe. Or, if training was not stopped and there is a linear probe, those
    interpolated between the linear probe and the last epoch, or the soup; see
    `choose_coefficient`.

    Args:
        learner: the compiled model and its data.
        state: where to start; it is updated.
        control: what is checked between two steps.

    Returns:
        Why training ended early, see `FitResult.stopped`; empty if it did not.
    """
    model, stopped = learner.model, control.stop.requested
    if state.schedule.epochs and not stopped and control.checkpoint.is_due():
        control.save(state, model)  # saves the work before the first step
    callbacks = control.callbacks if state.schedule.epochs else Callbacks()
    n_epochs, n_steps = state.schedule.n_epochs, learner.n_steps
    try:
        callbacks.begin(model, n_epochs=n_epochs, n_steps=n_steps)
        while not stopped and state.epoch <= state.schedule.n_epochs:
            if control.is_out_of_time(state):
                stopped = "time"
                break
            stopped = _train_epoch(learner, state, control)
        callbacks.call("on_train_end", logs=_logs(state))
    except BaseException:
        if callbacks.has_failed:  # between two steps, where the state is complete
            control.save(state, model)
        raise
    if not stopped and not _is_complete(state) and control.is_out_of_time(state):
        stopped = "time"  # no more epochs were scheduled, since none fits
    if stopped == "callback":  # also if the run is interrupted now, and resumed later
        state.end_schedule()
    if stopped in ("", "time", "callback"):
        stopped = _interpolate(learner, state, control) or stopped
    if state.schedule.epochs and stopped == control.stop.requested != "":
        control.save(state, model)
    if stopped:
        level = logging.INFO if stopped == "callback" else logging.WARNING
        _log.log(level, _stop_message(stopped, state))
    if stopped == "time":
        state.end_schedule()
    learner.logits_model.set_weights(state.best_weights)
    return stopped


def _is_complete(state: TrainingState) -> bool:
    """Whether the schedule ends with a complete cycle."""
    epochs = state.schedule.epochs
    return not epochs or epochs[-1][1] % 1 == 0


def describe_training(state: TrainingState, stopped: str, *, requested: object) -> str:
    """The epochs that were trained, and why they ended early."""
    schedule, n_done = state.schedule, len(state.history) - 1
    early = f"; stopped: {stopped}" if stopped else ""
    if requested in (0, ()):
        return "not requested" + early
    if not schedule.epochs:
        return "none" + (early or ": not even a tenth of an epoch fits into the time budget")
    step = f"{schedule.step_s * 1e3:.0f} ms per step of {schedule.batch_size} photos"
    n = schedule.n_cycles
    cycles = f" in {state.n_in_soup} of {n} cycles" if n > 1 else ""
    return f"{n_done} of {schedule.n_epochs} planned epochs{cycles}, {step}{early}"


def _stop_message(stopped: str, state: TrainingState) -> str:
    n_epochs, epoch = state.schedule.n_epochs, state.epoch
    kept = f"epoch {state.best}" if state.best else "the linear probe"
    if stopped == "time":
        total = f" of {n_epochs}" if epoch <= n_epochs else ""  # else the rest was dropped
        return f"Out of time after epoch {epoch - 1}{total}. Keeping {kept}."
    if stopped == "callback":
        return f"Stopped by a callback after epoch {epoch - 1}. Keeping {kept}."
    if stopped == "not finite":
        return (
            f"In epoch {epoch} of {n_epochs} the loss became NaN or infinite. Keeping {kept}. Pass "
            f"a lower learning_rate than {state.schedule.peak_lr:g}; try a third of it."
        )
    if not n_epochs:
        return f"Stopped by {stopped} before fine-tuning. Keeping {kept}."
    return (
        f"Stopped by {stopped} in epoch {min(epoch, n_epochs)} of {n_epochs}. Keeping {kept}, the "
        "best so far. To resume, make the same call with resume=True."
    )


def _train_epoch(learner: Learner, state: TrainingState, control: Control) -> str:
    """Train for the rest of the current epoch, and validate; return why it stopped, if it did."""
    model, schedule, epoch, stopped = learner.model, state.schedule, state.epoch, ""
    n_steps = schedule.epochs[epoch - 1][0]
    before = sum(size for size, _ in schedule.epochs[: epoch - 1])
    start = time.perf_counter() - state.epoch_s
    callbacks, report = control.callbacks, control.clock.report("fine-tuning")
    callbacks.call("on_epoch_begin", epoch - 1, logs={})
    for step, batch in learner.batches(epoch=epoch, steps=range(state.step, n_steps)):
        model.optimizer.learning_rate.assign(schedule.learning_rate(epoch, step + 0.5))
        callbacks.call("on_train_batch_begin", step, logs={})
        loss = float(np.asarray(model.train_on_batch(*batch)))
        if not math.isfinite(loss):
            return "not finite"
        state.losses.append(loss)
        state.step, state.epoch_s = step + 1, time.perf_counter() - start
        report(before + state.step, schedule.n_steps)
        if callbacks:
            callbacks.call("on_train_batch_end", step, logs={"loss": float(np.mean(state.losses))})
        if control.stop.requested:
            return control.stop.requested
        if callbacks.stop_requested:
            stopped = "callback"
            break
        if control.is_out_of_time(state):
            stopped = "time"
            break
        if control.checkpoint.is_due():
            control.save(state, model)
    steps_s = time.perf_counter() - start
    n_done = state.step if stopped else n_steps
    callbacks.call("on_test_begin", logs={})
    scores = _validate(learner, control.stop)
    if scores is None:
        return control.stop.requested
    callbacks.call("on_test_end", logs={"loss": scores.loss, "accuracy": scores.accuracy})
    result = Epoch(
        number=epoch,
        train_loss=float(np.mean(state.losses)) if state.losses else math.nan,
        validation_loss=scores.loss,
        validation_accuracy=scores.accuracy,
        calibrated_loss=scores.calibrated_loss,
        learning_rate=schedule.learning_rate(epoch, max(0.0, n_done - 0.5)),
        seconds=time.perf_counter() - start,
    )
    state.end_epoch(result, learner.logits_model)
    cycle_ended = schedule.n_cycles > 1 and n_done == n_steps and schedule.ends_cycle(epoch)
    if cycle_ended:
        state.end_cycle(model)
    if schedule.time_limited and n_done:
        state.schedule = _update_schedule(state, n_done, learner, steps_s, control)
    elif stopped and n_done:  # a callback has ended the epoch early
        ended = n_done, schedule_progress(schedule.epochs, epoch, n_done)
        state.schedule = replace(schedule, epochs=(*schedule.epochs[: epoch - 1], ended))
    _log.info("epoch %d of %d: %s", epoch, schedule.n_epochs, result)
    try:
        callbacks.call("on_epoch_end", epoch - 1, logs=_logs(state))
    finally:
        if cycle_ended and state.epoch <= state.schedule.n_epochs:
            assign_values(model.trainable_variables, state.initial_weights)
            reset_optimizer(model)
    if not math.isfinite(scores.loss):
        return "not finite"
    if control.checkpoint.is_due(epoch_ended=True):
        control.save(state, model)
    return stopped or ("callback" if callbacks.stop_requested else "")


def _logs(state: TrainingState) -> dict[str, float]:
    """The logs of the last epoch, under the names that Keras gives them."""
    epoch = state.history[-1]
    return {
        "loss": epoch.train_loss,
        "val_loss": epoch.validation_loss,
        "val_accuracy": epoch.validation_accuracy,
        "learning_rate": epoch.learning_rate,
    }


def _update_schedule(
    state: TrainingState, n_done: int, learner: Learner, steps_s: float, control: Control
) -> TrainingSchedule:
    """The schedule after an epoch of `n_done` steps, with new epochs for the time that is left."""
    schedule, epoch = state.schedule, len(state.history) - 1
    ended = n_done, schedule_progress(schedule.epochs, epoch, n_done)
    left_s, step_s, validation_s = broadcast(
        [
            control.clock.left_s(reserve_s=schedule.reserve_s),
            steps_s / n_done,
            max(0.0, state.history[-1].seconds - steps_s),
        ]
    )
    durations = Durations(step_s=step_s, validation_s=validation_s)
    done = (*schedule.epochs[: epoch - 1], ended)
    return replace(
        schedule,
        epochs=make_schedule(control.settings, left_s, learner.n_steps, durations, done),
    )


def _interpolate(learner: Learner, state: TrainingState, control: Control) -> str:
    """Keep weights interpolated between the initial ones and the last ones, or the soup.

    The model is left with arbitrary ones of these weights; if it was stopped, with the last ones.

    Returns:
        The signal that stopped it; empty if none did.
    """
    model, variables = learner.model, learner.model.trainable_variables
    if not state.initial_weights or len(state.history) == 1:
        return ""
    soup = state.soup, state.n_in_soup
    cycle_progress = state.schedule.epochs[state.epoch - 2][1] - state.n_in_soup
    if state.schedule.n_cycles > 1 and cycle_progress >= _NEARLY_COMPLETE:
        state.end_cycle(model)
    before = to_arrays(variables)
    last = state.soup or before

    trio = zip(variables, state.initial_weights, last, strict=True)
    first = [b if is_random_factor(variable) else a for variable, a, b in trio]

    def assign(coefficient: float) -> None:
        pairs = zip(first, last, strict=True)
        assign_values(variables, [a + np.float32(coefficient) * (b - a) for a, b in pairs])

    losses = {}
    interpolates = learner.augmentation.recipe.interpolate_weights
    for coefficient in COEFFICIENTS if interpolates else (1.0,):
        assign(coefficient)
        scores = _validate(learner, control.stop)
        if scores is None:
            assign_values(variables, before)  # for the checkpoint
            state.soup, state.n_in_soup = soup
            return control.stop.requested
        losses[coefficient] = scores.losses
        _log.info(
            "interpolation %g: accuracy %.4f, calibrated loss %.4f",
            coefficient, scores.accuracy, scores.calibrated_loss,
        )  # fmt: skip
    if not interpolates and not losses[1.0].mean() < state.best_loss:
        return ""
    best = choose_coefficient(losses, state.default_interpolation) if interpolates else 1.0
    assign(best)
    epoch = len(state.history) - 1 if best else 0
    state.keep(learner.logits_model, float(losses[best].mean()), epoch=epoch, interpolation=best)
    return ""


def _validate(learner: Learner, stop: StopRequest) -> ValidationScores | None:
    """Score the network on the validation photos; None if a signal came meanwhile."""
    validation = learner.datasets.validation

    def check_stop(_done: int, _total: int) -> None:
        if stop.requested:
            raise _StopError

    try:
        logits, indices = predict_batches(learner.logits_model, validation, report=check_stop)
    except _StopError:
        return None
    return score_logits(logits, validation.labels[indices], learner.class_weights)


class _StopError(Exception):
    """Leaves a validation between two batches."""


# The state in a checkpoint


def pack(state: TrainingState, model: Any) -> tuple[dict[str, Any], Arrays]:
    """The complete state as JSON values and arrays, for a checkpoint.

    Args:
        state: the progress of fine-tuning.
        model: compiled; its optimizer is built.

    Returns:
        Two dictionaries for `unpack` and `restore_variables`.
    """
    # `asdict` would copy these.
    light = replace(state, best_weights=[], initial_weights=[], soup=[])
    metadata = asdict(light)
    del metadata["best_weights"], metadata["initial_weights"], metadata["soup"]
    groups = {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "best": state.best_weights,
        "initial": state.initial_weights,
        "soup": state.soup,
    }
    arrays = {
        f"{group}/{k}": _to_array(value)
        for group, values in groups.items()
        for k, value in enumerate(values)
    }
    return metadata, arrays


def unpack(metadata: Mapping[str, Any], arrays: Arrays) -> TrainingState:
    """The state from what `pack` returned."""
    values = dict(metadata)
    schedule = values.pop("schedule")
    epochs = parse_schedule(schedule["epochs"], schedule["n_cycles"])
    return TrainingState(
        schedule=TrainingSchedule(**schedule | {"epochs": epochs or ()}),
        history=[Epoch(**epoch) for epoch in values.pop("history")],
        best_weights=_group(arrays, "best"),
        initial_weights=_group(arrays, "initial"),
        soup=_group(arrays, "soup"),
        **values,
    )


def restore_variables(model: Any, arrays: Arrays) -> None:
    """Assign the packed values to the variables of a network and its optimizer.

    Args:
        model: compiled, built in the same way, with the same layers trainable.
        arrays: from `pack`.
    """
    model.optimizer.build(model.trainable_variables)
    assign_values(model.variables, _group(arrays, "model"))
    assign_values(model.optimizer.variables, _group(arrays, "optimizer"))


def to_arrays(variables: Iterable[Any]) -> list[npt.NDArray[Any]]:
    """The values of variables."""
    return [_to_array(variable) for variable in variables]


def assign_values(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """Assign values to variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _group(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    return [value for key, value in arrays.items() if key.partition("/")[0] == name]


def _to_array(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else keras().ops.convert_to_numpy(value)
