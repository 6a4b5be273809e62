"""How fine-tuning starts: timed and planned, or from where a checkpoint stands."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import numpy as np

from scenelearn.augment import policy as policy_of
from scenelearn.finetune import _network, _train
from scenelearn.finetune._clock import Clock
from scenelearn.finetune._features import Sides
from scenelearn.finetune._head import Head
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._state import Arrays, Plan, State, restore
from scenelearn.finetune._stop import Stop
from scenelearn.finetune._trust import sample_of

_log = logging.getLogger(__name__)

# Random weights have further to go.
_MOST_EPOCHS_STORED, _MOST_EPOCHS_RANDOM = 12, 60


def planned(
    features: Any,
    to_logits: Any,
    sides: Sides,
    settings: FitSettings,
    *,
    solved: Epoch,
    photo_s: float,
    clock: Clock,
    stop: Stop,
) -> State:
    """Settle what trains and for how many epochs: the state before the first step.

    Args:
        features: from `backbone.build`.
        to_logits: the same with its solved head; compiled here, where there is time to train.
        sides: the photos.
        settings: of the fit; `epochs` None lets the time decide.
        solved: what the solved head reaches.
        photo_s: seconds it takes to judge a photo.
        clock: how much time is left.
        stop: whether a signal asks for the end; then nothing is planned.

    Returns:
        The state, with 0 epochs where none is asked for or fits.
    """
    # After fine-tuning, validation, test and some training photos are seen once more.
    n_seen = sides.validation.n_photos + sides.test.n_photos + sample_of(sides.train).n_photos
    keep_s = 1.5 * photo_s * n_seen + 5
    best_weights = to_logits.get_weights()
    n_epochs, step_s = settings.epochs, 0.0
    deadline = math.inf if n_epochs is not None else clock.deadline(keep_s=keep_s)
    if time.monotonic() > deadline:
        _log.warning("No time is left for fine-tuning: minutes=%g is too little.", settings.minutes)
        n_epochs = 0
    if n_epochs != 0 and not stop.requested:
        _prepare(features, to_logits, settings)
        policy, report = policy_of(settings.augmentation), clock.report("compiling and timing")
        step_s = _train.time_step(to_logits, sides.train, policy, stop, report)
    if stop.requested:
        n_epochs = 0
    elif n_epochs is None:
        epoch_s = len(sides.train) * step_s + sides.validation.n_photos * photo_s
        most = _MOST_EPOCHS_RANDOM if settings.weights is None else _MOST_EPOCHS_STORED
        n_epochs = _train.fitting(deadline - time.monotonic(), epoch_s, most)
    plan = Plan(
        n_epochs=n_epochs,
        peak=settings.learning_rate,
        step_s=step_s,
        keep_s=keep_s,
        batch_size=settings.batch_size,
    )
    return State(plan=plan, history=[solved], best_weights=best_weights)


def restored(
    features: Any, n_classes: int, arrays: Arrays, settings: FitSettings
) -> tuple[Any, Any]:
    """The networks as they were when a checkpoint was written.

    Args:
        features: from `backbone.build`, with its first weights.
        n_classes: how many classes.
        arrays: of the checkpoint.
        settings: of the fit.

    Returns:
        Two models, as `_network.with_head` gives them; the first is ready to train.
    """
    shape = features.output.shape[-1], n_classes
    head = Head(
        kernel=np.zeros(shape, np.float32), bias=np.zeros(n_classes, np.float32), strength=1
    )
    to_logits, model = _network.with_head(features, head)
    _prepare(features, to_logits, settings)
    restore(to_logits, arrays)
    return to_logits, model


def _prepare(features: Any, to_logits: Any, settings: FitSettings) -> None:
    if settings.weights is None:
        _network.start_afresh(features, to_logits)
    else:
        _network.train_upper_layers(features, settings.image_px)
    _train.compile_(to_logits)
