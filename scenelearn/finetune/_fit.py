"""From split photos to a classifier: the one walk through the rooms."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbone as backbones
from scenelearn.augment import Policy
from scenelearn.augment import policy as policy_of
from scenelearn.classify import COVERAGE, Classifier, see_photos, sight_model, softmax, temperature
from scenelearn.data import HARMLESS, Splits, broken_photos, check_broken, decode
from scenelearn.errors import ArgumentError
from scenelearn.evaluate import evaluate
from scenelearn.finetune import _network, _train
from scenelearn.finetune._clock import Clock, Progress
from scenelearn.finetune._environment import environment, fingerprint
from scenelearn.finetune._features import Sides, features_of, sides_of
from scenelearn.finetune._fits import fitting_batch
from scenelearn.finetune._head import choose, cross_entropy
from scenelearn.finetune._memory import memory
from scenelearn.finetune._result import Epoch, FitResult
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._trust import sample_of, trust_from

_log = logging.getLogger(__name__)

# Stored weights: the best of 3e-5 … 2e-3, and 8 epochs better than 4, on validation photos of
# three splits of the Intel photos. Random weights have further to go.
_PEAK_STORED, _MOST_EPOCHS_STORED = 1e-3, 12
_PEAK_RANDOM, _MOST_EPOCHS_RANDOM = 3e-3, 60


def fit(
    splits: Splits,
    *,
    backbone: str = "mobilenet_v2_0.35",
    weights: str | os.PathLike[str] | None = "imagenet",
    image_px: int = 160,
    minutes: float = 5.0,
    epochs: int | None = None,
    batch_size: int = 32,
    learning_rate: float | None = None,
    augmentation: str | Policy | Mapping[str, Any] = "standard",
    seed: int = 0,
    broken: str = "skip",
    progress: Progress | None = None,
) -> FitResult:
    """Train a classifier on split photos, and measure what it reaches.

    1. Decode every photo once. 2. Run the frozen backbone once over each, and solve the best
    head on these features. 3. Fine-tune from that head, for as many epochs as fit into the time.
    4. Keep whichever of the two is better on the validation photos, calibrate its probabilities
    there, learn from them how far to trust an answer, and judge it on the test photos, which
    nothing has seen so far.

    With stored weights, the layers with coarse maps are fine-tuned and BatchNormalization keeps
    its stored statistics. With random weights everything trains, and from a head of zeros.

    Args:
        splits: from `split`.
        backbone: a network of keras.applications, MobileNets with their width, see
            `backbone.names`.
        weights: "imagenet", the path of a weights file without top layers, or None.
        image_px: width and height at which the network sees a photo, in pixels.
        minutes: wall-clock budget of all of it. What must be done in any case (decoding,
            features, the head, the test) is done even if it takes longer, with a logged warning.
        epochs: exactly so many epochs of fine-tuning, whatever time they take; 0: none; None: as
            many as fit into the time, at most 12 from stored weights and 60 from random ones.
        batch_size: photos a training step.
        learning_rate: peak rate of fine-tuning; None for the default: 0.001 from stored weights,
            0.003 from random ones.
        augmentation: how training photos are varied while fine-tuning: the name of a policy of
            `scenelearn.augment`, or a policy; "none" leaves them as they are.
        seed: of everything random.
        broken: "skip" goes on without photos that are broken and names them in the result;
            "raise" stops before the first step, naming the first.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        The classifier with its evaluation, history and all that repeats the run. Its settings
        hold the number of epochs that were planned: with these, not the machine's speed decides
        how long a repetition trains.

    Raises:
        ArgumentError: if `splits` is something else, a setting is out of range, or the network
            cannot have this image size.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `weights` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network.
        WeightsUnavailableError: if the ImageNet weights cannot be downloaded.
        NoPhotosError: if no photo can be decoded.
        TooFewPhotosError: if, of some side, no photo can be decoded.
        PhotoError: if `broken` is "raise" and a photo is broken.
        BackendError: if no backend of Keras is installed.

    References:
        Solving the head before fine-tuning: A. Kumar et al. (2022), Fine-tuning can distort
        pretrained features and underperform out-of-distribution. ICLR.
    """
    if not isinstance(splits, Splits):
        raise ArgumentError(
            f"`splits` must come from `split`. Received: {type(splits).__name__}. "
            "Pass sl.split(sl.scan(folder))."
        )
    peak = _PEAK_RANDOM if weights is None else _PEAK_STORED
    settings = FitSettings(
        backbone=backbone,
        weights=os.fspath(weights) if isinstance(weights, os.PathLike) else weights,
        image_px=image_px,
        minutes=minutes,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=peak if learning_rate is None else learning_rate,
        augmentation=augmentation,
        seed=seed,
    )
    check_broken(broken)
    refused = tuple(one for one in splits.photos.refused if one.reason not in HARMLESS)
    if refused and broken == "raise":
        raise broken_photos(refused)
    clock = Clock(minutes, progress)

    with clock.phase("network") as note:
        features = backbones.build(backbone, weights=weights, image_px=image_px, seed=seed)
        backbones.fast_on_cpu(features)
        settings = replace(settings, backbone=backbones.find(backbone).name)
        note(f"{settings.backbone}, {features.count_params():,} parameters")

    fitting = fitting_batch(features, batch_size)
    if fitting != batch_size:
        settings, batch_size = replace(settings, batch_size=fitting), fitting

    with clock.phase("photos") as note:
        report = clock.report("decoding photos")
        pixels = decode(splits.photos, image_px, broken=broken, progress=report)
        sides = sides_of(splits, pixels, batch_size, seed)
        note(f"{int(pixels.usable.sum()):,} photos decoded to {image_px}×{image_px} px")

    with clock.phase("features") as note:
        train, validation = features_of(features, sides, clock.report("features"))
        note(f"{train[0].shape[1]:,} features of each photo, training photos also mirrored")
    photo_s = clock.phases[-1].seconds / (len(train[0]) + len(validation[0]))

    with clock.phase("head") as note:
        head = choose(
            train, validation, splits.photos.n_classes, progress=clock.report("solving the head")
        )
        to_logits, model = _network.with_head(features, head)
        solved = _epoch_0(head.logits(validation[0]), validation[1])
        right = solved.validation_accuracy
        note(f"solved with penalty {head.strength:g}: {right:.1%} on validation")

    with clock.phase("fine-tuning") as note:
        solved_weights = to_logits.get_weights()
        plan = _plan(features, to_logits, sides, settings, clock=clock, photo_s=photo_s)
        settings = replace(settings, epochs=plan.n_epochs)
        report = clock.report("fine-tuning")
        history = _train.run(to_logits, sides.train, sides.validation, plan, progress=report)
        fine_tuned = bool(history) and _better(history[-1], solved)
        if not fine_tuned:
            to_logits.set_weights(solved_weights)
        note(_said_of(plan, history, settings, asked=epochs))

    with clock.phase("test") as note:
        names = splits.photos.class_names
        network = sight_model(model)
        checked = see_photos(network, sides.validation, clock.report("calibrating"))
        divisor = temperature(checked.seen.logits, checked.labels)
        _network.divide_logits(model, divisor)
        calibrated = softmax(checked.seen.logits / divisor)
        on_validation = evaluate(checked.labels, calibrated, names)
        known = see_photos(network, sample_of(sides.train), clock.report("looking at training"))
        trust = trust_from(splits.photos, known, checked, calibrated)
        tested = see_photos(network, sides.test, clock.report("testing"), trust=trust)
        table = tested.seen.probabilities
        on_test = evaluate(
            tested.labels,
            table,
            names,
            columns=tested.looks,
            sets=trust.sets(table, COVERAGE),
            unlike=tested.unlike,
        )
        note(f"{on_test.accuracy} on {on_test.n_photos:,} test photos")

    facts = {
        **environment(),
        "photos": fingerprint(splits.photos),
        "backbone": settings.backbone,
        "weights": "random" if settings.weights is None else Path(settings.weights).name,
        "weights' licence": backbones.licence(settings.backbone, settings.weights),
        "test accuracy": str(on_test.accuracy),
        **memory(to_logits, batch_size, trained=bool(history)),
    }
    return FitResult(
        classifier=Classifier(
            model=model, class_names=names, image_px=image_px, facts=facts, trust=trust
        ),
        kept="fine-tuned" if fine_tuned else "solved head",
        evaluation=on_test,
        validation=on_validation,
        history=(solved, *history),
        phases=tuple(clock.phases),
        splits=splits,
        test_indices=tested.indices,
        test_probabilities=table,
        refused=splits.photos.refused + pixels.refused,
        settings=settings,
        environment=facts,
        seconds=clock.elapsed_s(),
    )


def _plan(
    features: Any,
    to_logits: Any,
    sides: Sides,
    settings: FitSettings,
    *,
    clock: Clock,
    photo_s: float,
) -> _train.Plan:
    """Settle what trains and for how many epochs, at `photo_s` seconds a photo judged."""
    # After fine-tuning, validation, test and some training photos are seen once more.
    n_seen = sides.validation.n_photos + sides.test.n_photos + sample_of(sides.train).n_photos
    keep_s = 1.5 * photo_s * n_seen + 5
    deadline = clock.deadline(keep_s=keep_s) if settings.epochs is None else math.inf
    peak, policy = settings.learning_rate, policy_of(settings.augmentation)
    late_s = time.monotonic() - deadline
    if late_s > 0:
        _log.warning("No time is left for fine-tuning: minutes=%g is too little.", settings.minutes)
    if settings.epochs == 0 or late_s > 0:
        return _train.Plan(n_epochs=0, peak=peak, step_s=0.0, deadline=deadline, policy=policy)
    if settings.weights is None:
        _network.start_afresh(features, to_logits)
        most = _MOST_EPOCHS_RANDOM
    else:
        _network.train_upper_layers(features, settings.image_px)
        most = _MOST_EPOCHS_STORED
    _train.compile_(to_logits)
    step_s = _train.time_step(to_logits, sides.train, policy, clock.report("compiling and timing"))
    n_epochs = settings.epochs
    if n_epochs is None:
        epoch_s = len(sides.train) * step_s + sides.validation.n_photos * photo_s
        n_epochs = _train.fitting(deadline - time.monotonic(), epoch_s, most)
    return _train.Plan(
        n_epochs=n_epochs, peak=peak, step_s=step_s, deadline=deadline, policy=policy
    )


def _said_of(
    plan: _train.Plan, history: list[Epoch], settings: FitSettings, *, asked: int | None
) -> str:
    if asked == 0:
        return "none asked for"
    if not history:
        return "none: not one epoch fits into the time"
    step = f"{plan.step_s * 1e3:.0f} ms a step of {settings.batch_size} photos"
    return f"{len(history)} of {plan.n_epochs} planned epochs, {step}"


def _epoch_0(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Epoch:
    return Epoch(
        number=0,
        train_loss=float("nan"),
        validation_loss=cross_entropy(logits, labels),
        validation_accuracy=float((logits.argmax(axis=1) == labels).mean()),
        learning_rate=0.0,
        seconds=0.0,
    )


def _better(a: Epoch, b: Epoch) -> bool:
    """By validation accuracy, then by loss."""
    return (a.validation_accuracy, -a.validation_loss) > (b.validation_accuracy, -b.validation_loss)
