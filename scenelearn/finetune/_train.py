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
from scenelearn.finetune._head import cross_entropy
from scenelearn.finetune._result import Epoch

_WARM_UP = 0.1  # share of the steps in which the rate rises
_WEIGHT_DECAY = 0.01  # AdamW: I. Loshchilov, F. Hutter (2019), Decoupled weight decay. ICLR
_TIMED_STEPS = 5
_TIME_SPARE = 1.1  # a machine that others use too is not always as fast as when it was timed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to fine-tune.

    Attributes:
        n_epochs: passes over the training photos; 0 for none.
        peak: the highest learning rate.
        step_s: seconds a step took when timed.
        deadline: when to stop in any case, on `time.monotonic`'s clock.
        policy: how the training photos are varied.
    """

    n_epochs: int
    peak: float
    step_s: float
    deadline: float
    policy: Policy


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
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Seconds a training step takes, after compilation.

    The steps that are timed have rate 0, so that the trainable weights stay as they are.

    Args:
        model: compiled, not trained yet.
        train: the training photos.
        policy: how they are varied.
        progress: called with (steps done, steps in all).

    Returns:
        The median of five steps, the making of their batches included.
    """
    batches = itertools.cycle(_augmented(train, policy, epoch=0))
    seconds = []
    for n_done in range(1 + _TIMED_STEPS):
        if progress:
            progress(n_done, 1 + _TIMED_STEPS)
        start = time.monotonic()
        model.train_on_batch(*next(batches))
        seconds.append(time.monotonic() - start)
    if progress:
        progress(1 + _TIMED_STEPS, 1 + _TIMED_STEPS)
    return sorted(seconds[1:])[_TIMED_STEPS // 2]  # the first one compiles


def fitting(time_s: float, epoch_s: float, most: int) -> int:
    """How many epochs of `epoch_s` seconds fit into `time_s`, at most `most`.

    Example:
        >>> fitting(100.0, 20.0, 12)
        4
    """
    return max(0, min(most, int(time_s / (_TIME_SPARE * epoch_s))))


def run(
    model: Any,
    train: Batches,
    validation: Batches,
    plan: Plan,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Epoch]:
    """Fine-tune the model in place.

    The rate rises to its peak over the first tenth of the steps and falls to 0 along a half
    cosine.

    Args:
        model: compiled; from raw pixels to logits.
        train: the training photos.
        validation: the photos judged after each epoch.
        plan: how many epochs, and when to stop in any case.
        progress: called with (steps done, steps in all).

    Returns:
        One record an epoch, from number 1 on.
    """
    n_steps = plan.n_epochs * len(train)
    history: list[Epoch] = []
    step = 0
    for number in range(1, plan.n_epochs + 1):
        start, losses, rate = time.monotonic(), [], 0.0
        for batch in _augmented(train, plan.policy, epoch=number):
            rate = plan.peak * _share_of_peak((step + 0.5) / n_steps)
            model.optimizer.learning_rate.assign(rate)
            losses.append(float(np.asarray(model.train_on_batch(*batch))))
            step += 1
            if progress:
                progress(step, n_steps)
            if time.monotonic() > plan.deadline:
                break
        logits, judged = judge(model, validation)
        labels = validation.labels[judged]
        history.append(
            Epoch(
                number=number,
                train_loss=float(np.mean(losses)),
                validation_loss=cross_entropy(logits, labels),
                validation_accuracy=float((logits.argmax(axis=1) == labels).mean()),
                learning_rate=rate,
                seconds=time.monotonic() - start,
            )
        )
        _log.info("epoch %d of %d: %s", number, plan.n_epochs, history[-1])
        if time.monotonic() > plan.deadline and number < plan.n_epochs:
            _log.warning("Stopped after epoch %d of %d: out of time.", number, plan.n_epochs)
            break
    return history


def _augmented(train: Batches, policy: Policy, epoch: int) -> Iterator[tuple[Any, Any]]:
    """The epoch's varied batches, each made in a thread while the one before is trained on."""
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

    made = made_ahead(vary, range(len(train)), workers=1)
    return (batch for batch in made if len(batch[1]))


def _share_of_peak(done: float) -> float:
    """The learning rate after a share of the steps, as a share of its peak."""
    return min(1.0, done / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
