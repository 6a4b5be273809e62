"""From split photos to a classifier: the one walk through the rooms."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbone as backbones
from scenelearn.classify import Classifier, temperature
from scenelearn.data import Batches, Pixels, Splits, decode
from scenelearn.errors import TooFewPhotosError
from scenelearn.evaluate import Evaluation, evaluate
from scenelearn.finetune import _train
from scenelearn.finetune._environment import environment, fingerprint
from scenelearn.finetune._head import Head, choose, cross_entropy
from scenelearn.finetune._network import divide_logits, train_upper_layers, with_head
from scenelearn.finetune._result import Epoch, FitResult, Phase
from scenelearn.finetune._settings import FitSettings

# Peak learning rates. Stored weights: compared on validation photos of three splits of the Intel
# photos. Random weights: AdamW's usual default.
_RATE_STORED = 1e-3
_RATE_RANDOM = 1e-3
_FEATURE_BATCH = 32

Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


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
    seed: int = 0,
    progress: Progress | None = None,
) -> FitResult:
    """Train a classifier on split photos, and measure what it reaches.

    1. Decode every photo once. 2. Run the frozen backbone once over each, and solve the best
    head on these features. 3. Fine-tune from that head, for as many epochs as fit into the time.
    4. Keep whichever of the two is better on the validation photos, calibrate its probabilities
    there, and judge it on the test photos, which nothing has seen so far.

    With stored weights, the layers with coarse maps are fine-tuned and BatchNormalization keeps
    its stored statistics; with random weights everything trains.

    Args:
        splits: from `split`.
        backbone: a network of keras.applications, MobileNets with their width, see
            `backbone.names`.
        weights: "imagenet", the path of a weights file without top layers, or None.
        image_px: width and height at which the network sees a photo, in pixels.
        minutes: wall-clock budget of all of it.
        epochs: at most so many epochs of fine-tuning; None: as many as fit, at most 12; 0: none.
        batch_size: photos a training step.
        learning_rate: peak rate of fine-tuning; None for the default.
        seed: of everything random.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        The classifier with its evaluation, history and all that repeats the run.

    Raises:
        ArgumentError: if a setting is out of range, or the network cannot have this image size.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `weights` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network.
        WeightsUnavailableError: if the ImageNet weights cannot be downloaded.
        NoPhotosError: if no photo can be decoded.
        TooFewPhotosError: if, of some side, no photo can be decoded.
        DiskSpaceError: if the pixel cache does not fit on the disk.
        BackendError: if no backend of Keras is installed.

    References:
        Solving the head before fine-tuning: A. Kumar et al. (2022), Fine-tuning can distort
        pretrained features and underperform out-of-distribution. ICLR.
    """
    settings = FitSettings(
        backbone=backbone,
        weights=weights if weights is None else os.fspath(weights),
        image_px=image_px,
        minutes=minutes,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
    clock = _Clock(settings.minutes, progress)

    with clock.phase("network") as note:
        features = backbones.build(backbone, weights=weights, image_px=image_px, seed=seed)
        backbones.fast_on_cpu(features)
        settings = replace(settings, backbone=backbones.find(backbone).name)
        note(f"{settings.backbone}, {features.count_params():,} parameters")

    with clock.phase("photos") as note:
        pixels = decode(splits.photos, image_px, progress=clock.report("decoding photos"))
        sides = _sides(splits, pixels, settings)
        note(f"{int(pixels.usable.sum()):,} photos decoded to {image_px}×{image_px} px")

    with clock.phase("features") as note:
        if weights is None:
            _settle_statistics(features, sides.train, settings)
        train, validation = _features(features, sides, clock)
        note(f"{train[0].shape[1]:,} features of each photo, training photos also mirrored")

    with clock.phase("head") as note:
        head = choose(train, validation, splits.photos.n_classes)
        logits = head.logits(validation[0])
        solved = _epoch_0(logits, validation[1], clock.last_s())
        note(
            f"solved with penalty {head.strength:g}: "
            f"{solved.validation_accuracy:.1%} on validation"
        )

    to_logits, model = with_head(features, head)
    history = [solved]
    with clock.phase("fine-tuning") as note:
        solved_weights = to_logits.get_weights()
        plan = _plan(features, to_logits, sides, settings, clock)
        if plan.n_epochs:
            peak = learning_rate or (_RATE_RANDOM if weights is None else _RATE_STORED)
            settings = replace(settings, epochs=plan.n_epochs, learning_rate=peak)
            history += _train.run(
                to_logits, sides.train, sides.validation, settings, plan,
                peak=peak, progress=clock.report("fine-tuning"),
            )  # fmt: skip
            note(f"{len(history) - 1} epochs, {plan.step_s * 1e3:.0f} ms a step of {batch_size}")
        else:
            settings = replace(settings, epochs=0)
            note("none: no epoch fits into the time" if epochs != 0 else "none asked for")
        kept = "fine-tuned" if _better(history[-1], solved) and len(history) > 1 else "solved head"
        if kept == "solved head":
            to_logits.set_weights(solved_weights)

    with clock.phase("test") as note:
        classifier = Classifier(
            model=model,
            class_names=splits.photos.class_names,
            image_px=image_px,
            facts={},
        )
        logits, labels = _train.judge(to_logits, sides.validation)
        divide_logits(model, temperature(logits, labels))
        on_validation, _ = _judge(classifier, sides.validation)
        on_test, table = _judge(classifier, sides.test, clock.report("testing"))
        note(f"{on_test.accuracy} on {on_test.n_photos:,} test photos")

    facts = {
        **environment(),
        "photos": fingerprint(splits.photos),
        "backbone": settings.backbone,
        "weights": _origin(settings.weights),
        "test_accuracy": str(on_test.accuracy),
    }
    return FitResult(
        classifier=replace(classifier, facts=facts),
        kept=kept,
        evaluation=on_test,
        validation=on_validation,
        history=tuple(history),
        phases=tuple(clock.phases),
        splits=splits,
        test_indices=sides.test.indices,
        test_probabilities=table,
        refused=splits.photos.refused + pixels.refused,
        settings=settings,
        environment=facts,
        seconds=clock.elapsed(),
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    train: Batches
    validation: Batches
    test: Batches


@dataclass(slots=True)
class _Clock:
    """Where the time goes, and how much is left."""

    minutes: float
    progress: Progress | None
    start: float = field(default_factory=time.monotonic)
    phases: list[Phase] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time what is done inside; the note given to the function that is yielded is kept."""
        begin, notes = time.monotonic(), [""]

        def note(text: str) -> None:
            notes[0] = text

        yield note
        self.phases.append(Phase(name=name, seconds=time.monotonic() - begin, note=notes[0]))
        _log.info("%s: %.1f s, %s", name, self.phases[-1].seconds, notes[0])

    def report(self, what: str) -> Callable[[int, int], None] | None:
        """The caller's progress function for one kind of work."""
        return None if self.progress is None else partial(self.progress, what)

    def elapsed(self) -> float:
        return time.monotonic() - self.start

    def last_s(self) -> float:
        return self.phases[-1].seconds

    def deadline(self, *, keep_s: float) -> float:
        """When to stop so that `keep_s` seconds of the budget are left."""
        return self.start + 60 * self.minutes - keep_s


def _sides(splits: Splits, pixels: Pixels, settings: FitSettings) -> _Sides:
    make = partial(
        Batches,
        pixels=pixels,
        labels=splits.photos.labels,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    sides = _Sides(
        train=make(indices=splits.train),
        validation=make(indices=splits.validation),
        test=make(indices=splits.test),
    )
    for name in ("train", "validation", "test"):
        if not getattr(sides, name).n_photos:
            raise TooFewPhotosError(
                f"The {name} photos must hold at least one that can be decoded. Received: 0 of "
                f"{len(getattr(splits, name))}. First refused: "
                f"{pixels.refused[0] if pixels.refused else 'none'}. Mend or add photos."
            )
    return sides


def _features(
    model: Any, sides: _Sides, clock: _Clock
) -> tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]], ...]:
    """Features and labels of the training photos, as they are and mirrored, and of validation."""
    n_train, n_validation = sides.train.n_photos, sides.validation.n_photos
    total, report = 2 * n_train + n_validation, clock.report("features")
    done = 0
    parts: list[npt.NDArray[np.float32]] = []
    for batches, mirrored in ((sides.train, False), (sides.train, True), (sides.validation, False)):
        for images, _, _ in batches.in_order():
            seen = images[:, :, ::-1] if mirrored else images
            parts.append(_train.outputs(model, seen, batches.batch_size))
            done += len(images)
            if report:
                report(done, total)
    table = np.concatenate(parts)
    labels = sides.train.labels[sides.train.indices]
    return (
        (table[: 2 * n_train], np.concatenate([labels, labels])),
        (table[2 * n_train :], sides.validation.labels[sides.validation.indices]),
    )


def _settle_statistics(model: Any, train: Batches, settings: FitSettings) -> None:
    """Give random networks' BatchNormalization the statistics of some training photos."""


def _plan(
    features: Any, to_logits: Any, sides: _Sides, settings: FitSettings, clock: _Clock
) -> _train.Plan:
    """What trains, and how many epochs fit."""
    n_seen = 2 * sides.train.n_photos + sides.validation.n_photos
    features_s = next(phase.seconds for phase in clock.phases if phase.name == "features")
    photo_s = features_s / n_seen
    # Judging validation twice and test once, and writing the bundle and the report.
    keep_s = 1.5 * photo_s * (2 * sides.validation.n_photos + sides.test.n_photos) + 2
    deadline = clock.deadline(keep_s=keep_s)
    if settings.epochs == 0 or time.monotonic() > deadline:
        return _train.Plan(n_epochs=0, step_s=float("nan"), deadline=deadline)
    if settings.weights is not None:
        train_upper_layers(features, settings.image_px)
    _train.compile_(to_logits)
    evaluation_s = photo_s * sides.validation.n_photos
    return _train.plan(to_logits, sides.train, settings, deadline, evaluation_s)


def _epoch_0(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], seconds: float
) -> Epoch:
    return Epoch(
        number=0,
        train_loss=float("nan"),
        validation_loss=cross_entropy(logits, labels),
        validation_accuracy=float((logits.argmax(axis=1) == labels).mean()),
        learning_rate=0.0,
        seconds=seconds,
    )


def _better(a: Epoch, b: Epoch) -> bool:
    return (a.validation_accuracy, -a.validation_loss) > (b.validation_accuracy, -b.validation_loss)


def _judge(
    classifier: Classifier, batches: Batches, progress: Callable[[int, int], None] | None = None
) -> tuple[Evaluation, npt.NDArray[np.float32]]:
    table, labels = _train.judge(classifier.model, batches, progress)
    return evaluate(labels, table, classifier.class_names), table


def _origin(weights: str | None) -> str:
    return {None: "random", "imagenet": "imagenet"}.get(weights) or os.path.basename(str(weights))
