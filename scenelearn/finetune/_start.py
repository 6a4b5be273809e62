"""How fine-tuning starts: timed and planned, or from where a checkpoint stands."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import Any

from scenelearn._devices import largest, shared
from scenelearn.augment import policy as policy_of
from scenelearn.classify import MOST_PHOTOS
from scenelearn.finetune import _network, _train
from scenelearn.finetune._between import SHARES, usual_share
from scenelearn.finetune._clock import Clock
from scenelearn.finetune._course import Course, even, fitting
from scenelearn.finetune._feature_rows import seconds_a_photo
from scenelearn.finetune._features import Sides
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._state import Arrays, Schedule, State, begun, restore
from scenelearn.finetune._stop import Requested
from scenelearn.finetune._vary import Variation

_log = logging.getLogger(__name__)

# Random weights have further to go.
_MOST_EPOCHS_STORED, _MOST_EPOCHS_RANDOM = 40, 120
_LEAST_WARM_UP = 100  # steps, from stored weights
_END_S = 2.0  # of the test phase beside the network: looks, calibration, likeness, results


def planned(
    features: Any,
    to_logits: Any,
    network: Any,
    sides: Sides,
    settings: FitSettings,
    *,
    solved: Epoch,
    clock: Clock,
    stop: Requested,
) -> State:
    """Settle what trains and for how many epochs: the state before the first step.

    Args:
        features: from `backbone.build`.
        to_logits: the same with its solved head; compiled here, where there is time to train.
        network: with all that is wanted in the end, from `sight_model`; where the time decides, it
            is compiled and timed here, so that it cannot come as a surprise.
        sides: the photos.
        settings: of the fit; `epochs` None lets the time decide.
        solved: what the solved head reaches.
        clock: how much time is left.
        stop: whether a signal asks for the end; then nothing is planned.

    Returns:
        The state, with 0 epochs where none is asked for or fits.
    """
    best_weights = to_logits.get_weights()
    timed, step_s, sight_s = settings.epochs is None, 0.0, 0.0
    train = settings.epochs != 0 and not stop.requested
    if train:  # first of all: programs differ by which layers train
        prepare(features, to_logits, settings)
    if timed:
        sight_s = seconds_a_photo(network, settings.image_px, settings.batch_size)
    n_photos = sides.train.n_photos, sides.validation.n_photos, sides.test.n_photos
    judging_s, between_s, test_s = judging_seconds(sight_s, settings, n_photos)
    keep_s = between_s + test_s
    deadline = clock.deadline(keep_s=keep_s) if timed else math.inf
    if train and largest(time.monotonic() > deadline):
        _log.warning("No time is left for fine-tuning: minutes=%g is too little.", settings.minutes)
        train = False
    if train:
        report = clock.report("compiling and timing")
        step_s = _train.time_step(
            to_logits, sides.train, variation_of(settings, to_logits), stop, report
        )
    step_s, judging_s, keep_s = shared([step_s, judging_s, keep_s])
    course: Course = ()
    if train and not stop.requested:
        left_s = shared(deadline - time.monotonic()) if timed else math.inf
        course = first_course(
            settings, left_s, n_steps=len(sides.train), step_s=step_s, judging_s=judging_s
        )
    schedule = Schedule(
        course=course,
        timed=timed,
        peak=settings.learning_rate,
        least_warm_up=0 if settings.weights is None else _LEAST_WARM_UP,
        step_s=step_s,
        judging_s=judging_s,
        keep_s=keep_s,
        batch_size=settings.batch_size,
    )
    return begun(
        schedule,
        solved,
        best_weights,
        model=to_logits if _looks_between(settings) and course else None,
        usual_share=usual_share(sides.train.n_photos / to_logits.output_shape[-1]),
    )


def judging_seconds(
    sight_s: float, settings: FitSettings, n_photos: tuple[int, int, int]
) -> tuple[float, float, float]:
    """How long judging takes: after an epoch, after the last one, and of the test.

    After each epoch it is the validation photos; after the last one, those by each network between
    the head's and the last; in the end the one that is kept sees validation, test and some training
    photos.
    """
    n_train, n_validation, n_test = n_photos
    epoch_s = 1.3 * sight_s * n_validation
    n_seen = n_validation + n_test + min(n_train, MOST_PHOTOS)
    between_s = len(SHARES) * epoch_s if _looks_between(settings) else 0.0
    return epoch_s, between_s, 1.3 * sight_s * n_seen + _END_S


def _looks_between(settings: FitSettings) -> bool:
    """Whether a network between the solved head's and the fine-tuned one may be kept."""
    recipe = settings.recipe
    return recipe.interpolate and settings.weights is not None and not recipe.batch_statistics


def first_course(
    settings: FitSettings, time_s: float, *, n_steps: int, step_s: float, judging_s: float
) -> Course:
    """The course that was asked for, or what fits into the time.

    Args:
        settings: of the fit.
        time_s: seconds that are left for it; heeded where `epochs` is None.
        n_steps: of a whole epoch.
        step_s: seconds a step.
        judging_s: seconds for judging the validation photos after an epoch.
    """
    if isinstance(settings.epochs, int):
        return even(settings.epochs, n_steps)
    if settings.epochs is not None:
        return settings.epochs
    return fitting(
        time_s, n_steps=n_steps, step_s=step_s, judging_s=judging_s, most=most_epochs(settings)
    )


def most_epochs(settings: FitSettings) -> int:
    """The most epochs that a fit makes however much time it has."""
    return _MOST_EPOCHS_RANDOM if settings.weights is None else _MOST_EPOCHS_STORED


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
    to_logits, model = _network.with_blank_head(features, n_classes)
    prepare(features, to_logits, settings)
    restore(to_logits, arrays)
    return to_logits, model


def variation_of(settings: FitSettings, to_logits: Any) -> Variation:
    """How the photos of a fit are varied."""
    return Variation(
        policy=policy_of(settings.augmentation),
        recipe=settings.recipe,
        n_classes=to_logits.output_shape[-1],
    )


def prepare(features: Any, to_logits: Any, settings: FitSettings) -> None:
    """Settle which layers train, and give the model its loss and optimizer."""
    recipe = settings.recipe
    if settings.weights is None:
        _network.start_afresh(features, to_logits)
        recipe = replace(recipe, relative_rates=False)
    else:
        _network.choose_trained(features, settings.image_px, recipe.trained)
    _train.compile_(to_logits, recipe, settings.precision)
