"""The fine-tuning loop: from the solved head on, within the time that is left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.augment import Policy, apply, draw
from scenelearn.classify import outputs
from scenelearn.data import Batches
from scenelearn.finetune._head import cross_entropy
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._settings import FitSettings

_WARM_UP = 0.1  # share of the steps in which the rate rises
_WEIGHT_DECAY = 0.01  # AdamW: I. Loshchilov, F. Hutter (2019), Decoupled weight decay. ICLR
_PROBE_STEPS = 3  # timed before the number of epochs is settled
_TIME_SPARE = 1.1  # a machine that others use too is not always as fast as when it was timed
_MOST_EPOCHS = 12  # when only the time says when to stop

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to fine-tune: what fits into the time.

    Attributes:
        n_epochs: passes over the training photos; 0 if not one fits.
        step_s: seconds a step took when timed.
        deadline: when to stop in any case, on `time.monotonic`'s clock.
    """

    n_epochs: int
    step_s: float
    deadline: float


def compile_(model: Any) -> None:
    """Give the model its loss and optimizer; the rate is set before each step."""
    k = keras()
    model.compile(
        optimizer=k.optimizers.AdamW(learning_rate=0.0, weight_decay=_WEIGHT_DECAY),
        loss=k.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def plan(
    model: Any, train: Batches, settings: FitSettings, deadline: float, evaluation_s: float
) -> Plan:
    """Time some steps at rate 0, which leave the trainable weights as they are.

    Args:
        model: compiled.
        train: the training photos.
        settings: of the fit; `epochs` is the most.
        deadline: when the fit has to end, on `time.monotonic`'s clock.
        evaluation_s: seconds that judging the validation photos takes.

    Returns:
        The number of epochs that fit, at most `settings.epochs`, or 12 where that is None.
    """
    most = _MOST_EPOCHS if settings.epochs is None else settings.epochs
    batches = _augmented(train, epoch=0)
    model.optimizer.learning_rate.assign(0.0)
    images, labels, _ = _whole(next(batches), train.batch_size)
    model.train_on_batch(images, labels)  # compiles
    seconds = []
    for _ in range(_PROBE_STEPS):
        start = time.monotonic()
        model.train_on_batch(images, labels)
        seconds.append(time.monotonic() - start)
    step_s = sorted(seconds)[len(seconds) // 2]
    epoch_s = _TIME_SPARE * (len(train) * step_s + evaluation_s)
    fitting = int((deadline - time.monotonic()) / epoch_s)
    return Plan(n_epochs=max(0, min(most, fitting)), step_s=step_s, deadline=deadline)


def run(
    model: Any,
    train: Batches,
    validation: Batches,
    settings: FitSettings,
    plan: Plan,
    *,
    peak: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[Epoch]:
    """Fine-tune the model in place.

    The rate rises to its peak over the first tenth of the steps and falls to 0 along a half
    cosine.

    Args:
        model: compiled; from raw pixels to logits.
        train: the training photos.
        validation: the photos judged after each epoch.
        settings: of the fit.
        plan: how many epochs.
        peak: the highest learning rate.
        progress: called with (steps done, steps in all).

    Returns:
        One record an epoch, from number 1 on.
    """
    n_steps = plan.n_epochs * len(train)
    history: list[Epoch] = []
    step = 0
    for number in range(1, plan.n_epochs + 1):
        start, losses, rate = time.monotonic(), [], 0.0
        for batch in _augmented(train, epoch=number):
            rate = peak * _share_of_peak((step + 0.5) / n_steps)
            model.optimizer.learning_rate.assign(rate)
            images, labels, _ = _whole(batch, train.batch_size)
            losses.append(float(np.asarray(model.train_on_batch(images, labels))))
            step += 1
            if progress:
                progress(step, n_steps)
            if time.monotonic() > plan.deadline:
                break
        logits, labels = judge(model, validation)
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
            _log.warning("stopped after epoch %d of %d: out of time", number, plan.n_epochs)
            break
    return history


def judge(
    model: Any, batches: Batches, progress: Callable[[int, int], None] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """A model's outputs for a set of photos, and the photos' labels."""
    parts = []
    for images, _, _ in batches.in_order():
        parts.append(outputs(model, images, batches.batch_size))
        if progress:
            progress(min(len(parts) * batches.batch_size, batches.n_photos), batches.n_photos)
    return np.concatenate(parts), batches.labels[batches.indices]


def _augmented(train: Batches, epoch: int) -> Iterator[tuple[Any, Any, Any]]:
    policy = Policy()
    for images, labels, indices in train.shuffled(epoch):
        yield apply(images, draw(policy, train.seed, epoch, indices)), labels, indices


def _whole(batch: tuple[Any, Any, Any], batch_size: int) -> tuple[Any, ...]:
    """Fill a partial last batch by repeating it, so that one compiled program serves all."""
    return tuple(np.resize(part, (batch_size, *part.shape[1:])) for part in batch)


def _share_of_peak(done: float) -> float:
    return min(1.0, done / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2
