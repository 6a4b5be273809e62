"""The fine-tuning loop: from the solved head on, within the time that is left."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn.augment import Policy, apply, draw
from scenelearn.backbone import fast_on_cpu
from scenelearn.classify import judge
from scenelearn.data import Batches, made_ahead
from scenelearn.finetune._checkpoint import Checkpoint
from scenelearn.finetune._features import Sides
from scenelearn.finetune._head import cross_entropy
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._state import State, pack
from scenelearn.finetune._stop import Stop

_WARM_UP = 0.1  # share of the steps in which the rate rises
_WEIGHT_DECAY = 0.01  # AdamW: I. Loshchilov, F. Hutter (2019), Decoupled weight decay. ICLR
_TIMED_STEPS = 5
_TIME_SPARE = 1.1  # a machine that others use too is not always as fast as when it was timed

_log = logging.getLogger(__name__)


def compile_(model: Any) -> None:
    """Give the model its loss and optimizer; the rate is set before each step."""
    k = keras()
    fast_on_cpu(model)
    model.compile(
        optimizer=k.optimizers.AdamW(learning_rate=0.0, weight_decay=_WEIGHT_DECAY),
        loss=k.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def time_step(
    model: Any,
    train: Batches,
    policy: Policy,
    stop: Stop,
    progress: Callable[[int, int], None],
) -> float:
    """Seconds a training step takes, after compilation.

    The steps that are timed have rate 0, so that the trainable weights stay as they are.

    Args:
        model: compiled, not trained yet.
        train: the training photos.
        policy: how they are varied.
        stop: whether a signal asks for the end.
        progress: called with (steps done, steps in all).

    Returns:
        The median of five steps, the making of their batches included; NaN after a signal.
    """
    batches = itertools.cycle(_augmented(train, policy, epoch=0))
    seconds = []
    for n_done in range(1 + _TIMED_STEPS):
        progress(n_done, 1 + _TIMED_STEPS)
        if stop.requested:
            return math.nan
        start = time.monotonic()
        model.train_on_batch(*next(batches)[1])
        seconds.append(time.monotonic() - start)
    progress(1 + _TIMED_STEPS, 1 + _TIMED_STEPS)
    return sorted(seconds[1:])[_TIMED_STEPS // 2]  # the first one compiles


def fitting(time_s: float, epoch_s: float, most: int) -> int:
    """How many epochs of `epoch_s` seconds fit into `time_s`, at most `most`.

    Example:
        >>> fitting(100.0, 20.0, 12)
        4
    """
    return max(0, min(most, int(time_s / (_TIME_SPARE * epoch_s))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is heeded between two steps.

    Attributes:
        deadline: when to stop in any case, on `time.monotonic`'s clock.
        stop: whether a signal asks for the end.
        checkpoint: where the state is kept now and then.
        elapsed_s: gives the seconds since the run began, to be kept with it.
        progress: called with (steps done, steps in all).
    """

    deadline: float
    stop: Stop
    checkpoint: Checkpoint
    elapsed_s: Callable[[], float]
    progress: Callable[[int, int], None]

    def keep(self, state: State, model: Any) -> None:
        """Write a checkpoint now."""
        about, arrays = pack(state, model)
        self.checkpoint.write({"state": about, "elapsed_s": self.elapsed_s()}, arrays)


def run(model: Any, sides: Sides, state: State, policy: Policy, watch: Watch) -> str:
    """Fine-tune the model in place, from where the state stands.

    The rate rises to its peak over the first tenth of the steps and falls to 0 along a half
    cosine. At the end the model has the weights of the epoch that was best on the validation
    photos; the solved head is epoch 0.

    Args:
        model: compiled; from raw pixels to logits.
        sides: the photos to train on, and those judged after each epoch.
        state: where to begin; it is moved on.
        policy: how the training photos are varied.
        watch: what is heeded between two steps.

    Returns:
        Why it ended early, see `FitResult.stopped`; empty if it did not.
    """
    n_epochs, stopped = state.plan.n_epochs, watch.stop.requested
    if n_epochs and not stopped and watch.checkpoint.is_due():
        watch.keep(state, model)  # what was done before the first step counts, too
    while not stopped and state.epoch <= n_epochs:
        if time.monotonic() > watch.deadline:
            stopped = "time"
            break
        stopped = _rest_of_epoch(model, sides, state, policy, watch)
    if n_epochs and stopped == watch.stop.requested != "":
        watch.keep(state, model)
    if stopped:
        _log.warning(_why(stopped, state))
    model.set_weights(state.best_weights)
    return stopped


def _why(stopped: str, state: State) -> str:
    """What to tell people about an early end."""
    n_epochs, number = state.plan.n_epochs, state.epoch
    best = f"epoch {state.best}" if state.best else "the solved head"
    if stopped == "time":
        return f"Out of time after epoch {number - 1} of {n_epochs}: {best} is kept."
    if stopped == "not finite":
        return (
            f"In epoch {number} of {n_epochs} the loss was no finite number any more: {best} is "
            f"kept. Pass a lower learning_rate than {state.plan.peak:g}, a third of it for a start."
        )
    if not n_epochs:
        return f"Stopped by {stopped} before fine-tuning: {best} is kept."
    return (
        f"Stopped by {stopped} in epoch {number} of {n_epochs}: {best}, the best so far, is kept. "
        "The same call with resume=True goes on from here."
    )


def _rest_of_epoch(model: Any, sides: Sides, state: State, policy: Policy, watch: Watch) -> str:
    """Train on what is left of the running epoch, and judge it; or say why not."""
    plan, number, stopped = state.plan, state.epoch, ""
    before, n_steps = (number - 1) * len(sides.train), plan.n_epochs * len(sides.train)
    start = time.monotonic() - state.epoch_s
    for step, batch in _augmented(sides.train, policy, epoch=number, start=state.step):
        rate = plan.peak * _share_of_peak((before + step + 0.5) / n_steps)
        model.optimizer.learning_rate.assign(rate)
        loss = float(np.asarray(model.train_on_batch(*batch)))
        if not math.isfinite(loss):
            return "not finite"
        state.losses.append(loss)
        state.step, state.epoch_s = step + 1, time.monotonic() - start
        watch.progress(before + state.step, n_steps)
        if watch.stop.requested:
            return watch.stop.requested
        if time.monotonic() > watch.deadline:
            stopped = "time"
            break
        if watch.checkpoint.is_due():
            watch.keep(state, model)
    judged = _judged(model, sides.validation, watch.stop)
    if judged is None:
        return watch.stop.requested
    loss, accuracy = judged
    epoch = Epoch(
        number=number,
        train_loss=float(np.mean(state.losses)) if state.losses else math.nan,
        validation_loss=loss,
        validation_accuracy=accuracy,
        learning_rate=plan.peak * _share_of_peak((before + state.step - 0.5) / n_steps),
        seconds=time.monotonic() - start,
    )
    state.close_epoch(epoch, model)
    _log.info("epoch %d of %d: %s", number, plan.n_epochs, epoch)
    if not math.isfinite(loss):
        return "not finite"
    if watch.checkpoint.is_due(epoch_ended=True):
        watch.keep(state, model)
    return stopped


def _judged(model: Any, validation: Batches, stop: Stop) -> tuple[float, float] | None:
    """Validation loss and accuracy; None if a signal came meanwhile."""

    def heed(_done: int, _total: int) -> None:
        if stop.requested:
            raise _SignalCameError

    try:
        logits, indices = judge(model, validation, progress=heed)
    except _SignalCameError:
        return None
    labels = validation.labels[indices]
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    finite = bool(np.isfinite(logits).all())
    return cross_entropy(logits, labels) if finite else math.nan, accuracy


class _SignalCameError(Exception):
    """Leaves the judging of an epoch, between two batches."""


def _augmented(
    train: Batches, policy: Policy, *, epoch: int, start: int = 0
) -> Iterator[tuple[int, tuple[Any, Any]]]:
    """The epoch's varied batches from a step on, each with the number of its step.

    Each is made in a thread while the one before is trained on.
    """
    order = train.order(epoch)

    def vary(step: int) -> tuple[Any, Any]:
        images, labels, indices = train.at(order, step)
        if not len(indices):  # all of them gone since they were decoded
            return images, labels
        # A partial last batch is filled up by repeating it: one compiled program serves all.
        n = train.batch_size
        images = np.resize(images, (n, *images.shape[1:]))
        draws = draw(policy, train.seed, np.resize(indices, n), epoch=epoch)
        return apply(images, draws), np.resize(labels, n)

    steps = range(start, len(train))
    made = made_ahead(vary, steps, workers=1)
    return ((k, batch) for k, batch in zip(steps, made, strict=True) if len(batch[1]))


def _share_of_peak(done: float) -> float:
    """The learning rate after a share of the steps, as a share of its peak."""
    return min(1.0, done / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
