"""`plan`: what a fit would do with its time budget, measured before it starts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from scenelearn import sizing
from scenelearn._backend import default_settings
from scenelearn._display import html_text
from scenelearn._distributed import data_parallel
from scenelearn._json import dataclass_json
from scenelearn._progress import Progress, show_progress
from scenelearn.augment import Policy
from scenelearn.backbones._network import Network, NetworkList, Preprocessing, load_if_own
from scenelearn.classify._inference import inference_model
from scenelearn.data import Pixels, Splits
from scenelearn.data._pixels import estimate_decode_seconds
from scenelearn.data._resize import Resize
from scenelearn.finetune._budget import (
    adapt_to_machine,
    make_schedule,
    measure_durations,
    measure_photo_seconds,
    measure_prediction,
)
from scenelearn.finetune._device import available_bytes, choose_batch_size, training_bytes
from scenelearn.finetune._features import (
    Datasets,
    feature_batch_size,
    make_datasets,
)
from scenelearn.finetune._learner import N_PASSES, build_learner, teacher_bytes, weigh_datasets
from scenelearn.finetune._lora import add_lora, with_lora
from scenelearn.finetune._model import (
    add_zero_head,
    build_features,
    build_training_features,
    select_layers,
)
from scenelearn.finetune._runtime import StopSignal
from scenelearn.finetune._schedule import Schedule
from scenelearn.finetune._settings import FitSettings, Recipe, resolve_settings
from scenelearn.finetune._teacher import Teacher, check_same_view, load_teacher

# Passes over all features that the linear probe takes, including cross-validation, as observed.
_PROBE_PASSES = 1500


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """What a fit would do.

    Attributes:
        settings: of the fit, with a backbone in place of "auto", and a batch size that fits into
            the free memory.
        schedule: for each epoch its steps, and the progress of the learning rate schedule after it.
        seconds: expected duration of each phase, by its name, in order.
        step_s: seconds per training step, as measured.
        training_bytes: estimated peak increase of the process' memory during training.
        free_bytes: memory that is free now; None if the system does not report it.
        reasons: explanations, one per line.
    """

    settings: FitSettings
    schedule: Schedule
    seconds: Mapping[str, float]
    step_s: float
    training_bytes: int
    free_bytes: int | None
    reasons: tuple[str, ...]

    @property
    def total_s(self) -> float:
        """Seconds from start to end."""
        return sum(self.seconds.values())

    def __repr__(self) -> str:
        n, backbone = len(self.schedule), self.settings.backbone_title
        return f"<Plan: {backbone}, {n} epochs, {self.total_s / 60:.1f} minutes>"

    def __str__(self) -> str:
        """The reasons, and the expected duration of each phase."""
        phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return "\n".join([*self.reasons, f"{self.total_s / 60:.1f} minutes: {phases}"])

    def _repr_html_(self) -> str:
        return html_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return dataclass_json(self)


@default_settings()
def plan(
    splits: Splits,
    *,
    backbone: Any = None,
    weights: str | os.PathLike[str] | None = "imagenet",
    preprocessing: Preprocessing = None,
    image_px: int | tuple[int, int] | None = None,
    shape: str = "crop",
    minutes: float = 5.0,
    epochs: int | Schedule | None = None,
    batch_size: int = 32,
    learning_rate: float | None = None,
    augmentation: str | Policy | Mapping[str, Any] = "standard",
    recipe: Recipe | Mapping[str, Any] | None = None,
    teacher: Any = None,
    seed: int = 0,
    precision: str | None = None,
    class_weight: str | Mapping[str, float] | None = None,
    objective: str = "accuracy",
    devices: str | None = None,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Plan:
    """Plan what `fit` would do with the same arguments, and how long it would take.

    The network is built and timed on a few batches of noise, a few photos are decoded, and the
    memory of a training step is estimated. No weights are trained. The durations are those of a
    first run without compilation; in `fit`, photos and features from the cache take no time.

    Args:
        splits: from `split`.
        backbone: as for `fit`.
        weights: as for `fit`.
        preprocessing: as for `fit`.
        image_px: as for `fit`.
        shape: as for `fit`.
        minutes: as for `fit`.
        epochs: as for `fit`.
        batch_size: as for `fit`.
        learning_rate: as for `fit`.
        augmentation: as for `fit`.
        recipe: as for `fit`.
        teacher: as for `fit`.
        seed: as for `fit`.
        precision: as for `fit`.
        class_weight: as for `fit`.
        objective: as for `fit`.
        devices: as for `fit`.
        progress: called with (what, done, total) during the work.
        verbose: as for `fit`.

    Returns:
        The plan, with its reasons.

    Raises:
        ArgumentError: if `splits` has the wrong type or has no validation photos, a setting is out
            of range, the network does not support this image size or has no layer for LoRA, a
            network of your own cannot be a backbone, several networks would be fine-tuned, or no
            backbone is named and the weights file does not tell which; or if `teacher` is something
            else, sees other parts of the photos, or nothing would be fine-tuned for it.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `backbone`, `weights` or `teacher` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network, or the file of a network
            cannot be loaded.
        WeightsUnavailableError: if the ImageNet weights or a preset cannot be downloaded.
        MissingExtraError: if the network needs KerasHub, which is not installed.
        ClassMismatchError: if the teacher has other classes.
        BundleError: if the teacher's file is no bundle.
        BackendError: if no Keras backend is installed, or it finds no device.
        ForkError: if this process was forked after Keras had started.
        DeviceError: if the devices cannot work together.
    """
    network = load_if_own(backbone, preprocessing)
    settings = resolve_settings(
        splits,
        network=network,
        has_teacher=teacher is not None,
        backbone=backbone,
        weights=weights,
        preprocessing=preprocessing,
        image_px=image_px,
        shape=shape,
        minutes=minutes,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augmentation=augmentation,
        recipe=recipe,
        seed=seed,
        precision=precision,
        class_weight=class_weight,
        objective=objective,
    )
    teacher = load_teacher(teacher, splits.photos.class_names)
    if teacher is not None:
        check_same_view(teacher, settings.train_resize)
        settings = replace(settings, teacher=teacher.name)
    with show_progress(progress, verbose) as report, data_parallel(devices):
        return _plan(splits, settings, network, teacher, report)


def _plan(
    splits: Splits,
    settings: FitSettings,
    network: Network | NetworkList | None,
    teacher: Teacher | None,
    progress: Progress,
) -> Plan:
    requested_batch_size, start = settings.batch_size, time.perf_counter()
    settings = adapt_to_machine(settings, len(splits.photos), teacher)
    final_features = build_features(settings, network)
    features = build_training_features(final_features, settings, network)
    with with_lora(features, settings):
        batch_size = choose_batch_size(
            features,
            requested_batch_size,
            updates_batchnorm=settings.updates_batchnorm,
            other_bytes=partial(teacher_bytes, teacher, settings.train_px),
        )
    settings = replace(settings, batch_size=batch_size)
    network_s = time.perf_counter() - start
    n_classes = splits.photos.n_classes
    logits_model, model = add_zero_head(final_features, n_classes)
    if features is not final_features:
        logits_model, _ = add_zero_head(features, n_classes)
    feature_s = measure_photo_seconds(features, feature_batch_size(batch_size))
    predict_s, final_predict_s = measure_prediction(
        inference_model(model), logits_model, settings, splits.photos
    )
    datasets = _noise_datasets(splits, settings)
    if settings.epochs != 0:
        select_layers(features, settings)
        add_lora(features, settings)
    teacher_pixels = None
    if teacher is not None:
        teacher_pixels = _noise(teacher.resize, len(splits.photos), 2 * batch_size)
    learner = build_learner(
        features,
        logits_model,
        datasets,
        settings,
        class_weights=weigh_datasets(datasets, settings, splits.photos.class_names),
        teacher=teacher,
        teacher_pixels=teacher_pixels,
        train=settings.epochs != 0,
    )
    durations = measure_durations(
        learner,
        settings,
        predict_s=predict_s,
        final_predict_s=final_predict_s,
        left_s=math.inf,
        stop=StopSignal(),
        report=partial(progress, "compiling and timing"),
    )
    n_extracted = 2 * len(splits.train)  # training photos also mirrored
    n_features = int(features.output.shape[-1])
    resizes = {settings.train_resize} | ({teacher.resize} if teacher else set())
    seconds = {
        "network": network_s,
        "photos": sum(estimate_decode_seconds(splits.photos, resize) for resize in resizes),
        "features": feature_s * (n_extracted + len(splits.validation)),
        "linear probe": _estimate_probe_seconds(n_extracted, n_features, n_classes),
        "fine-tuning": 0.0,
        "test": durations.test_s,
    }
    left_s = 60 * settings.minutes - sum(seconds.values()) - durations.interpolation_s
    schedule = make_schedule(settings, left_s, learner.n_steps, durations)
    if schedule:
        steps_s = sum(size * durations.step_s + durations.validation_s for size, _ in schedule)
        seconds["fine-tuning"] = steps_s + durations.interpolation_s
    result = Plan(
        settings=settings,
        schedule=schedule,
        seconds=seconds,
        step_s=durations.step_s,
        training_bytes=training_bytes(features, batch_size)
        + teacher_bytes(teacher, settings.train_px, batch_size),
        free_bytes=available_bytes(),
        reasons=(),
    )
    n_trained = sum(int(np.prod(v.shape)) for v in logits_model.trainable_variables)
    reasons = _explain(
        result, feature_s, n_trained, left_s, teacher, requested_batch_size=requested_batch_size
    )
    return replace(result, reasons=reasons)


def _noise_datasets(splits: Splits, settings: FitSettings) -> Datasets:
    """The datasets, with noise in place of photos."""
    pixels = _noise(settings.train_resize, len(splits.photos), 2 * settings.batch_size)
    return make_datasets(splits, pixels, settings.batch_size, settings.seed)


def _noise(resize: Resize, n_photos: int, n_images: int) -> Pixels:
    """Noise in place of `n_photos` photos: so many different images."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (n_images, resize.height, resize.width, 3), np.uint8)
    return Pixels(
        resize=resize,
        usable=np.ones(n_photos, bool),
        load=lambda indices: (noise[indices % n_images], indices),
    )


def _estimate_probe_seconds(n: int, n_features: int, n_classes: int) -> float:
    """Estimate the duration of the linear probe, from that of a pass over some of the features."""
    n_rows = min(n, 2000)
    x = np.zeros((n_rows, n_features), np.float32)
    w = np.zeros((n_features, n_classes), np.float32)
    x.T @ (x @ w)
    start = time.perf_counter()
    x.T @ (x @ w)
    return _PROBE_PASSES * (time.perf_counter() - start) * n / n_rows


def _explain(
    result: Plan,
    feature_s: float,
    n_trained: int,
    left_s: float,
    teacher: Teacher | None,
    *,
    requested_batch_size: int,
) -> tuple[str, ...]:
    settings, schedule = result.settings, result.schedule
    size = sizing.format_bytes
    backbone = f"{settings.backbone_title} at {settings.train_resize.title}"
    lines = [f"{backbone}: {1e3 * feature_s:.1f} ms per photo for features"]
    reduced = f" (reduced from {requested_batch_size} to fit into free memory)"
    free = "" if result.free_bytes is None else f", of {size(result.free_bytes)} free"
    lines.append(
        f"batch size {settings.batch_size}"
        f"{reduced if settings.batch_size != requested_batch_size else ''}: training takes up to "
        f"{size(result.training_bytes)} of memory{free}"
    )
    if settings.epochs == 0:
        return (*lines, "no fine-tuning, as requested: linear probe only")
    recipe, trained = settings.recipe, f"lora_rank={settings.recipe.lora_rank}"
    if recipe.lora_rank is None:
        unfreeze = "all" if settings.weights is None else recipe.unfreeze
        trained = f"unfreeze={unfreeze!r}"
    lines.append(
        f"{trained}: {n_trained:,} parameters are trained, "
        f"{1e3 * result.step_s:.0f} ms per step as measured"
    )
    if teacher is not None:
        lines.append(
            f"teacher: {teacher.title}; it predicts the same images at {teacher.resize.title}, and "
            f"each is learned {N_PASSES} times"
        )
    if settings.train_px != settings.image_px:
        lines.append(f"tested at {settings.resize.title}, the size of the prediction")
    n_steps = sum(steps for steps, _ in schedule)
    soup = schedule and settings.n_cycles > 1
    cycles = f" in {math.ceil(schedule[-1][1])} cycles" if soup else ""
    if settings.epochs is not None:
        lines.append(f"{len(schedule)} epochs{cycles}, as requested: {n_steps:,} steps")
    elif not schedule:
        lines.append(
            f"no fine-tuning: of {settings.minutes:g} minutes, {max(0.0, left_s):.0f} s are left "
            "for it, not enough for a tenth of an epoch"
        )
    else:
        is_max = len(schedule) == settings.max_epochs * settings.n_cycles
        enough = "; this is the maximum, more would hardly help" if is_max else ""
        lines.append(
            f"{len(schedule)} epochs{cycles} of up to {schedule[0][0]:,} steps in the remaining "
            f"{left_s:.0f} s: {n_steps:,} steps{enough}"
        )
    return tuple(lines)
