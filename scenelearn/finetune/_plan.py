"""What a fit would do with the time that it is given: asked before it starts."""

from __future__ import annotations

import html
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenelearn import sizing
from scenelearn._devices import spread
from scenelearn.augment import Policy
from scenelearn.classify import sight_model
from scenelearn.data import Pixels, Splits, seconds_to_decode
from scenelearn.finetune import _network, _train
from scenelearn.finetune._clock import Progress
from scenelearn.finetune._course import Course
from scenelearn.finetune._feature_rows import feature_batch, seconds_a_photo
from scenelearn.finetune._features import sides_of
from scenelearn.finetune._fits import available_bytes, shareable_batch, training_bytes
from scenelearn.finetune._learner import Learner, learner_of
from scenelearn.finetune._recipe import Recipe
from scenelearn.finetune._settings import FitSettings, asked, with_backbone
from scenelearn.finetune._start import (
    first_course,
    judging_seconds,
    prepare,
    seconds_beside,
)
from scenelearn.finetune._stop import Stop

# Passes over all features that choosing a strength and solving a head take, as observed.
_HEAD_PASSES = 1500
_PHASES = ("network", "photos", "features", "head", "fine-tuning", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a fit would do.

    Attributes:
        settings: of the fit, with a backbone chosen where "auto" was asked for, and a batch that
            fits into the free memory.
        course: for each epoch its steps and the share of the schedule that is done after it.
        seconds: what each phase is expected to take, by its name, in order.
        step_s: seconds a training step, as measured.
        training_bytes: the most that the process's memory rises by for training, as sizing has it.
        free_bytes: memory that is free now; None where the system does not say.
        reasons: why, line by line.
    """

    settings: FitSettings
    course: Course
    seconds: Mapping[str, float]
    step_s: float
    training_bytes: int
    free_bytes: int | None
    reasons: tuple[str, ...]

    @property
    def total_s(self) -> float:
        """Seconds from start to end."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return "\n".join([*self.reasons, f"{self.total_s / 60:.1f} minutes: {times}"])

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "settings": self.settings.to_json(),
            "course": [list(pair) for pair in self.course],
            "seconds": dict(self.seconds),
            "step_s": self.step_s,
            "training_bytes": self.training_bytes,
            "free_bytes": self.free_bytes,
            "reasons": list(self.reasons),
        }

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in str(self).splitlines())
        return f"<ul>{lines}</ul>"


def plan(
    splits: Splits,
    *,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_px: int = 160,
    minutes: float = 5.0,
    epochs: int | Course | None = None,
    batch_size: int = 32,
    learning_rate: float | None = None,
    augmentation: str | Policy | Mapping[str, Any] = "standard",
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    precision: str | None = None,
    devices: str | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Say what `fit` would do with the same arguments, and how long it would take.

    The network is built and timed on a few batches of noise, a few photos are decoded, and sizing
    says what a training step takes in memory. Nothing is trained. The times are those of a first
    run, but for compiling, which the plan has done: pixels and features that are kept from before
    take none.

    Args:
        splits: from `split`.
        backbone: as for `fit`.
        weights: as for `fit`.
        image_px: as for `fit`.
        minutes: as for `fit`.
        epochs: as for `fit`.
        batch_size: as for `fit`.
        learning_rate: as for `fit`.
        augmentation: as for `fit`.
        recipe: as for `fit`.
        seed: as for `fit`.
        precision: as for `fit`.
        devices: as for `fit`.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        The plan, with its reasons.

    Raises:
        ArgumentError: if `splits` is something else, a setting is out of range, the network
            cannot have this image size, or none is named and the weights file does not tell it.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `weights` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network.
        WeightsUnavailableError: if the ImageNet weights cannot be downloaded.
        BackendError: if no backend of Keras is installed.
    """
    settings = asked(
        splits,
        backbone=backbone,
        weights=weights,
        image_px=image_px,
        minutes=minutes,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augmentation=augmentation,
        recipe=recipe,
        seed=seed,
        precision=precision,
    )
    with spread(devices):
        return _planned(splits, settings, batch_size, progress)


def _planned(
    splits: Splits, settings: FitSettings, batch_size: int, progress: Progress | None
) -> Plan:
    image_px, minutes = settings.image_px, settings.minutes
    start = time.monotonic()
    settings = with_backbone(settings, len(splits.photos))
    features = _network.features_for(settings)
    settings = replace(settings, batch_size=shareable_batch(features, settings))
    network_s = time.monotonic() - start
    to_logits, model = _network.with_blank_head(
        features, splits.photos.n_classes, mirrored=settings.recipe.mirrored
    )
    photo_s = seconds_a_photo(features, feature_batch(settings.batch_size))
    sight_s = seconds_a_photo(sight_model(model), settings.batch_size)
    step_s, judge_s, slow_s, n_slow, learner = 0.0, 0.0, 0.0, 0, None
    if settings.epochs != 0:
        learner = _noise_learner(features, to_logits, splits, settings)
        step_s = _timed(learner, progress)
        judge_s, slow_s = seconds_beside(learner, sight_s)
        n_slow = learner.n_new_views
    n_photos = len(splits.train), len(splits.validation), len(splits.test)
    n_train, n_validation, _ = n_photos
    judging_s, between_s, test_s = judging_seconds(judge_s, sight_s, settings, n_photos)
    n_features = int(features.output.shape[-1])
    seconds = {
        "network": network_s,
        "photos": seconds_to_decode(splits.photos, image_px),
        "features": photo_s * (2 * n_train + n_validation),
        "head": _head_s(2 * n_train, n_features, splits.photos.n_classes),
        "fine-tuning": 0.0,
        "test": test_s,
    }
    n_steps = -(-n_train // settings.batch_size)
    left_s = 60 * minutes - sum(seconds.values()) - between_s
    course = first_course(
        settings,
        left_s,
        n_steps=n_steps,
        step_s=step_s,
        judging_s=judging_s,
        n_slow=n_slow,
        slow_s=slow_s,
    )
    if course:
        steps_s = sum(size * step_s + judging_s for size, _ in course)
        steps_s += slow_s * sum(size for size, _ in course[:n_slow]) / n_steps
        seconds["fine-tuning"] = steps_s + between_s
    free = available_bytes()
    found = Plan(
        settings=settings,
        course=course,
        seconds={name: seconds[name] for name in _PHASES},
        step_s=step_s,
        training_bytes=training_bytes(features, settings.batch_size),
        free_bytes=free,
        reasons=(),
    )
    return replace(found, reasons=_reasons(found, photo_s, learner, left_s, batch_size))


def _noise_learner(features: Any, to_logits: Any, splits: Splits, settings: FitSettings) -> Learner:
    """What would train, ready to, with noise in the place of photos."""
    rng, n, px = np.random.default_rng(0), 2 * settings.batch_size, settings.image_px
    noise = rng.integers(0, 256, (n, px, px, 3), np.uint8)
    pixels = Pixels(
        image_px=px,
        usable=np.ones(len(splits.photos), bool),
        rows=lambda indices: (noise[indices % n], indices),
    )
    sides = sides_of(splits, pixels, settings.batch_size, settings.seed)
    learner = learner_of(features, to_logits, sides, settings)
    prepare(features, learner.model, settings)
    return learner


def _timed(learner: Learner, progress: Progress | None) -> float:
    """Seconds a training step."""

    def report(done: int, total: int) -> None:
        if progress:
            progress("compiling and timing", done, total)

    return _train.time_step(learner, Stop(), report)


def _head_s(n: int, n_features: int, n_classes: int) -> float:
    """Seconds for solving a head, by how long a pass over some of the features takes."""
    n_rows = min(n, 2000)
    x = np.zeros((n_rows, n_features), np.float32)
    w = np.zeros((n_features, n_classes), np.float32)
    x.T @ (x @ w)
    start = time.perf_counter()
    x.T @ (x @ w)
    return _HEAD_PASSES * (time.perf_counter() - start) * n / n_rows


def _reasons(
    found: Plan, photo_s: float, learner: Learner | None, left_s: float, batch_size: int
) -> tuple[str, ...]:
    settings, mb = found.settings, sizing.megabytes
    lines = [
        f"{settings.backbone} at {settings.image_px} px: {1e3 * photo_s:.1f} ms to see a photo"
    ]
    smaller = f" (not {batch_size}, which would not fit)"
    free = "" if found.free_bytes is None else f", of {mb(found.free_bytes)} that are free"
    lines.append(
        f"batches of {settings.batch_size} photos"
        f"{smaller if settings.batch_size != batch_size else ''}: training them takes up to "
        f"{mb(found.training_bytes)}{free}"
    )
    if learner is None:
        return (*lines, "no fine-tuning was asked for: the solved head alone")
    trained = "all" if settings.weights is None else settings.recipe.trained
    n_trained = sum(int(np.prod(v.shape)) for v in learner.model.trainable_variables)
    lines.append(
        f"layers that train: {trained}, {n_trained:,} parameters; {1e3 * found.step_s:.0f} ms a "
        "step, as measured"
    )
    if learner.maps is not None:
        n, kept = learner.maps.n_views, learner.maps.has_free_space
        n_bytes = learner.maps.row_bytes * n * learner.sides.train.n_photos
        lines.append(
            f"{n} {'views' if n > 1 else 'view'} of each training photo: the maps below those "
            f"layers are {'' if kept else 'not '}kept, {mb(n_bytes)} on disk"
        )
    n_steps = sum(size for size, _ in found.course)
    several = found.course and settings.n_runs > 1
    runs = f" in {math.ceil(found.course[-1][1])} runs" if several else ""
    if settings.epochs is not None:
        lines.append(f"{len(found.course)} epochs{runs}, as asked for: {n_steps:,} steps")
    elif not found.course:
        lines.append(
            f"no fine-tuning: of {settings.minutes:g} minutes {max(0.0, left_s):.0f} s are left "
            "for it, less than a tenth of an epoch"
        )
    else:
        most = settings.most_epochs * settings.n_runs
        enough = "; more would not be worth it" if len(found.course) == most else ""
        lines.append(
            f"{len(found.course)} epochs{runs} of {found.course[0][0]:,} steps or less in the "
            f"{left_s:.0f} s that are left for them: {n_steps:,} steps{enough}"
        )
    return tuple(lines)
