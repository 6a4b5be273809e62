"""How fine-tuning starts: timed and planned, or from where a checkpoint stands."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from scenelearn._devices import largest, shared
from scenelearn.classify import MOST_PHOTOS
from scenelearn.finetune import _network, _train
from scenelearn.finetune._between import SHARES, usual_share
from scenelearn.finetune._clock import Clock
from scenelearn.finetune._course import Course, even, fitting
from scenelearn.finetune._feature_rows import seconds_a_photo
from scenelearn.finetune._features import Sides
from scenelearn.finetune._learner import Learner, learner_of, whole_learner
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._state import Arrays, Schedule, State, begun, restore
from scenelearn.finetune._stop import Requested

_log = logging.getLogger(__name__)

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
) -> tuple[Learner, State]:
    """Settle what trains and for how many epochs: the state before the first step.

    Args:
        features: from `backbones.build`.
        to_logits: the same with its solved head.
        network: with all that is wanted in the end, from `sight_model`; where the time decides, it
            is compiled and timed here, so that it cannot come as a surprise.
        sides: the photos.
        settings: of the fit; `epochs` None lets the time decide.
        solved: what the solved head reaches.
        clock: how much time is left.
        stop: whether a signal asks for the end; then nothing is planned.

    Returns:
        What trains, ready where any epoch is asked for; and the state, with 0 epochs where none is
        or fits.
    """
    learner = whole_learner(to_logits, sides, settings)
    timed, step_s, sight_s = settings.epochs is None, 0.0, 0.0
    train = settings.epochs != 0 and not stop.requested
    if train:  # first of all: programs differ by which layers train
        learner = learner_of(features, to_logits, sides, settings)
    best_weights = learner.model.get_weights()
    if train:
        prepare(features, learner.model, settings)
    if timed:
        sight_s = seconds_a_photo(network, settings.batch_size)
    n_photos = sides.train.n_photos, sides.validation.n_photos, sides.test.n_photos
    judge_s, slow_s = seconds_beside(learner, sight_s) if timed else (0.0, 0.0)
    judging_s, between_s, test_s = judging_seconds(judge_s, sight_s, settings, n_photos)
    keep_s = between_s + test_s
    deadline = clock.deadline(keep_s=keep_s) if timed else math.inf
    if train and largest(time.monotonic() > deadline):
        _log.warning("No time is left for fine-tuning: minutes=%g is too little.", settings.minutes)
        train = False
    if train:
        report = clock.report("compiling and timing")
        step_s = _train.time_step(learner, stop, report)
    step_s, judging_s, keep_s = shared([step_s, judging_s, keep_s])
    course: Course = ()
    if train and not stop.requested:
        left_s = shared(deadline - time.monotonic()) if timed else math.inf
        course = first_course(
            settings,
            left_s,
            n_steps=len(sides.train),
            step_s=step_s,
            judging_s=judging_s,
            n_slow=learner.n_new_views,
            slow_s=slow_s,
        )
    schedule = Schedule(
        course=course,
        n_runs=settings.n_runs,
        timed=timed,
        peak=settings.learning_rate,
        least_warm_up=0 if settings.weights is None else _LEAST_WARM_UP,
        step_s=step_s,
        judging_s=judging_s,
        slow_s=slow_s,
        keep_s=keep_s,
        batch_size=settings.batch_size,
    )
    return learner, begun(
        schedule,
        solved,
        best_weights,
        model=learner.model if n_between(settings) and course else None,
        usual_share=usual_share(sides.train.n_photos / to_logits.output_shape[-1]),
    )


def seconds_beside(learner: Learner, sight_s: float) -> tuple[float, float]:
    """What takes time beside steps: judging a photo, and computing an epoch's maps to keep.

    Args:
        learner: what trains.
        sight_s: seconds a photo that the whole network takes in the end, mirror images included;
            while training goes on, they are not looked at.

    Returns:
        Seconds a photo that validates, and seconds an epoch.
    """
    maps, n = learner.maps, learner.sides.train.batch_size
    if maps is None or not maps.has_free_space:
        return sight_s / (2 if learner.variation.recipe.mirrored else 1), 0.0
    judge_s = seconds_a_photo(learner.model, n, np.float32)
    return judge_s, seconds_a_photo(maps.below, n) * learner.sides.train.n_photos


def judging_seconds(
    judge_s: float, sight_s: float, settings: FitSettings, n_photos: tuple[int, int, int]
) -> tuple[float, float, float]:
    """How long judging takes: after an epoch, after the last one, and of the test.

    After each epoch it is the validation photos; after the last one, those by each network between
    the head's and the last; in the end the one that is kept sees validation, test and some training
    photos.

    Args:
        judge_s: seconds a photo that validates while training goes on.
        sight_s: seconds a photo in the end.
        settings: of the fit.
        n_photos: to train on, to validate and to test.
    """
    n_train, n_validation, n_test = n_photos
    epoch_s = 1.3 * judge_s * n_validation
    n_seen = n_validation + n_test + min(n_train, MOST_PHOTOS)
    between_s = n_between(settings) * epoch_s
    return epoch_s, between_s, 1.3 * sight_s * n_seen + _END_S


def n_between(settings: FitSettings) -> int:
    """How many networks are judged on the way from the solved head's to the fine-tuned one."""
    if settings.moves_statistics:
        return 0
    return len(SHARES) if settings.recipe.interpolate else int(settings.n_runs > 1)


def first_course(settings: FitSettings, time_s: float, *, n_steps: int, **seconds: Any) -> Course:
    """The course that was asked for, or what fits into the time.

    Args:
        settings: of the fit.
        time_s: seconds that are left for it; heeded where `epochs` is None.
        n_steps: of a whole epoch.
        seconds: what steps and judging take, as `fitting` wants it.
    """
    if isinstance(settings.epochs, int):
        return even(settings.epochs, n_steps, settings.n_runs)
    if settings.epochs is not None:
        return settings.epochs
    most, n_runs = settings.most_epochs, settings.n_runs
    return fitting(time_s, n_steps=n_steps, most=most, n_runs=n_runs, **seconds)


def restored(
    features: Any, to_logits: Any, sides: Sides, settings: FitSettings, arrays: Arrays
) -> Learner:
    """What trains, as it was when a checkpoint was written.

    Args:
        features: from `backbones.build`, with its first weights.
        to_logits: the same with any head.
        sides: the photos.
        settings: of the fit.
        arrays: of the checkpoint.

    Returns:
        What trains, ready to go on.
    """
    learner = learner_of(features, to_logits, sides, settings)
    prepare(features, learner.model, settings)
    restore(learner.model, arrays)
    return learner


def prepare(features: Any, model: Any, settings: FitSettings) -> None:
    """Give a learner's model its loss and optimizer, and random weights a start of their own."""
    recipe = settings.recipe
    if settings.weights is None:
        _network.start_afresh(features, model)
        recipe = replace(recipe, relative_rates=False)
    _train.compile_(model, recipe, settings.precision)
