"""From split photos to a classifier: the one walk through the rooms."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbones
from scenelearn._devices import (
    at_home,
    first_of_all,
    process,
    see_that_same,
    shared,
    shared_array,
    spread,
)
from scenelearn.augment import Policy
from scenelearn.classify import (
    COVERAGE,
    Classifier,
    Labeled,
    Trust,
    see_photos,
    sight_model,
    softmax,
    temperature,
)
from scenelearn.data import HARMLESS, Pixels, Splits, broken_photos, check_broken, decode
from scenelearn.finetune import _network, _train
from scenelearn.finetune._checkpoint import Checkpoint
from scenelearn.finetune._clock import Clock, Progress
from scenelearn.finetune._course import Course
from scenelearn.finetune._environment import environment, fingerprint
from scenelearn.finetune._features import Sides, features_of, sides_of
from scenelearn.finetune._fits import shareable_batch
from scenelearn.finetune._head import Head
from scenelearn.finetune._key import checkpoint_file
from scenelearn.finetune._memory import memory
from scenelearn.finetune._precision import in_float32
from scenelearn.finetune._recipe import Recipe
from scenelearn.finetune._result import Epoch, FitResult
from scenelearn.finetune._settings import FitSettings, asked, with_backbone
from scenelearn.finetune._start import planned, restored
from scenelearn.finetune._state import State, judged, unpack
from scenelearn.finetune._stop import SharedStop, stoppable
from scenelearn.finetune._strength import choose
from scenelearn.finetune._trust import sample_of, trust_from
from scenelearn.metrics import Evaluation, evaluate, wilson

_SPARE = 0.03  # of the time: what the last epoch may take longer than planned


def fit(
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
    broken: str = "skip",
    resume: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Train a classifier on split photos, and measure what it reaches.

    1. Decode every photo once. 2. Run the frozen backbone once over each, ever (see `features`),
    and solve the best head on these features, the strength of its penalty chosen by
    cross-validation on the training photos. 3. Fine-tune from that head, for as many epochs as fit
    into the time. 4. Keep a network on the way between the two, how far along by the number of
    photos a class unless the validation photos tell another to be better by more than chance; from
    random weights, the best of all epochs and the head. Calibrate its probabilities there, learn
    from them how far to trust an answer, and judge it on the test photos, which nothing has seen
    so far.

    With stored weights, the layers with coarse maps are fine-tuned, or all layers of
    "scenelearn_tiny", whose weights were learned from drawn images; BatchNormalization keeps its
    stored statistics. With random weights everything trains, and from a head of zeros. Where the
    views of a training photo come again (`augmentation` "none", or `Recipe.views`), the maps of the
    layers that do not train are computed once and kept, see `Recipe.views`.

    Nothing is lost. All state is written to a checkpoint after each epoch and every half minute;
    the same call with `resume` goes on from it, after a kill at any moment, and ends with the same
    weights and history as without the break (on a CPU; to the bit). Ctrl-C and SIGTERM end
    fine-tuning after the step that is running: the result is then what was best so far, and the
    checkpoint stays. Before the head is solved there is nothing to return yet, and they raise
    `KeyboardInterrupt`; a second one does so at once, whenever it comes. They are taken over only
    in the main thread, and only where the program has no handlers of its own for them. A loss
    that is no finite number ends fine-tuning as well, with a warning in the log.

    Args:
        splits: from `split`.
        backbone: a network of keras.applications, MobileNets with their width, see
            `backbones.names`; "auto" for the most accurate of a few that the time allows; or None
            for the one that goes with the weights, see `backbones.default_for`: usually
            "mobilenet_v3_small".
        weights: "imagenet"; "scenelearn", those in the package, for the backbone "scenelearn_tiny";
            the path of a weights file without top layers; or None.
        image_px: width and height at which the network sees a photo, in pixels.
        minutes: wall-clock budget of all of it. What must be done in any case (decoding,
            features, the head, the test) is done even if it takes longer, with a logged warning.
        epochs: exactly so many epochs of fine-tuning, whatever time they take; 0: none; None: as
            many as fit into the time, the last one shorter where needed, at most 40 from stored
            weights and 120 from random ones. Or the course of an earlier result's settings. Of a
            soup, see `Recipe.soup`, each run has so many.
        batch_size: photos a training step.
        learning_rate: peak rate of fine-tuning, of which a kernel may have a share, see
            `Recipe.relative_rates`; None for the default: 0.001, but 0.003 from random weights and
            for "scenelearn_tiny".
        augmentation: how training photos are varied while fine-tuning: the name of a policy of
            `scenelearn.augment`, or a policy; "none" leaves them as they are.
        recipe: the finer points: which layers train, label smoothing, MixUp and so on: a `Recipe`,
            or some of its values by name. What is not named has the default of `Recipe`, but that
            all layers of "scenelearn_tiny" train.
        seed: of everything random.
        precision: "mixed_bfloat16" or "mixed_float16": while features are made and fine-tuning
            goes on, the network computes in 16 bits; float16 with a scaled loss. Weights, head
            and loss stay in 32, and the classifier is calibrated and judged in 32 as well. It is
            left out, with a warning in the log, where the device does not have it: on a CPU, but
            for TensorFlow and Torch on one with instructions for it, on Linux.
        devices: "all" spreads each batch over all devices of JAX, those of other processes
            included; the result is that of one device, to rounding. None takes one, or
            those of a `keras.distribution.DataParallel` that has been set.
        broken: "skip" goes on without photos that are broken and names them in the result;
            "raise" stops before the first step, naming the first.
        resume: go on with a run of the same settings (but for `minutes`), photos, weights and
            versions that has not come to its end. The time that it has used counts. Where there
            is none, a warning is logged, and the run begins. Without `resume`, a run begins anew,
            and such a checkpoint is removed.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        The classifier with its evaluation, history and all that repeats the run. Its settings
        hold the number of epochs that were planned: with these, not the machine's speed decides
        how long a repetition trains.

    Raises:
        ArgumentError: if `splits` is something else, a setting is out of range, the network
            cannot have this image size, or none is named and the weights file does not tell it.
        UnknownBackboneError: if keras.applications has no such network.
        PathMissingError: if `weights` is a path where no file is.
        WeightsFileError: if the weights file does not fit the network.
        WeightsUnavailableError: if the ImageNet weights cannot be downloaded.
        NoPhotosError: if no photo can be decoded.
        TooFewPhotosError: if, of some side, no photo can be decoded.
        PhotoError: if `broken` is "raise" and a photo is broken.
        BackendError: if no backend of Keras is installed.
        DeviceError: if devices or processes cannot work together, or do not have the same photos.
        KeyboardInterrupt: at Ctrl-C or SIGTERM, see above; its argument names the signal.

    References:
        Solving the head before fine-tuning: A. Kumar et al. (2022), Fine-tuning can distort
        pretrained features and underperform out-of-distribution. ICLR.
    """
    start = time.monotonic()
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
    check_broken(broken)
    refused = tuple(one for one in splits.photos.refused if one.reason not in HARMLESS)
    if refused and broken == "raise":
        raise broken_photos(refused)

    with stoppable() as stop, ExitStack() as inside:
        clock, n_classes = Clock(minutes, progress, stop, start), splits.photos.n_classes
        settings, features, pixels = _opened(
            splits, settings, broken, clock, lambda: inside.enter_context(spread(devices))
        )
        heard = stop if process()[1] == 1 else SharedStop(stop)
        checkpoint = Checkpoint(checkpoint_file(settings, splits, pixels, features))
        see_that_same(checkpoint.file.parent.name, "photos, settings, weights and versions")
        saved = checkpoint.read() if resume else None
        if saved is None:
            checkpoint.remove()
            settings = replace(settings, batch_size=shareable_batch(features, settings))
            sides = sides_of(splits, pixels, settings.batch_size, seed)
            to_logits, model, solved = _solved(features, sides, splits, settings, clock)
        else:
            state = unpack(saved.about["state"], saved.arrays)
            settings = replace(settings, batch_size=state.schedule.batch_size)
            sides = sides_of(splits, pixels, settings.batch_size, seed)
            to_logits, model = _network.with_blank_head(
                features, n_classes, mirrored=settings.recipe.mirrored
            )
            learner = restored(features, to_logits, sides, settings, saved.arrays)
            clock.count(saved.about["elapsed_s"], f"to step {state.step} of epoch {state.epoch}")
        network = sight_model(model)
        stop.gently()  # there is a classifier to keep

        with clock.phase("fine-tuning") as note:
            if saved is None:
                learner, state = planned(
                    features, to_logits, network, sides, settings,
                    solved=solved, clock=clock, stop=heard,
                )  # fmt: skip
            keep_s = state.schedule.keep_s
            deadline = clock.deadline(keep_s=keep_s) if epochs is None else math.inf
            watch = _train.Watch(
                deadline=deadline,
                spare_s=_SPARE * 60 * minutes,
                most_epochs=settings.most_epochs,
                stop=heard,
                checkpoint=checkpoint,
                elapsed_s=clock.elapsed_s,
                progress=clock.report("fine-tuning"),
            )
            stopped = _train.run(learner, state, watch)
            if epochs is None:
                settings = replace(settings, epochs=state.schedule.course or 0)
            note(_said_of(state, stopped, asked=epochs))

        if settings.precision is not None:
            network = sight_model(in_float32(model))
        trust, on_validation, on_test, tested = _judged(model, network, splits, sides, clock)
        if not stopped or stopped != heard.requested:
            checkpoint.remove()
        where = environment()
    at_home(model)

    facts = {
        **where,
        "photos": fingerprint(splits.photos),
        "backbone": settings.backbone,
        "weights": "random" if settings.weights is None else Path(settings.weights).name,
        "weights' license": backbones.license(settings.backbone, settings.weights),
        "test accuracy": str(on_test.accuracy),
        **({"looks at": "each photo and its mirror image"} if settings.recipe.mirrored else {}),
        **memory(
            model if settings.recipe.mirrored else to_logits,
            learner.model if len(state.history) > 1 else None,
            settings.batch_size,
        ),
    }
    return FitResult(
        classifier=Classifier(
            model=model,
            class_names=splits.photos.class_names,
            image_px=image_px,
            facts=facts,
            trust=trust,
        ),
        kept="fine-tuned" if state.best else "solved head",
        share=state.share if state.best else 0.0,
        evaluation=on_test,
        validation=on_validation,
        history=tuple(state.history),
        phases=tuple(clock.phases),
        splits=splits,
        test_indices=tested.indices,
        test_probabilities=tested.seen.probabilities,
        refused=splits.photos.refused + pixels.refused,
        settings=settings,
        environment=facts,
        seconds=clock.elapsed_s(),
        stopped=stopped,
    )


def _opened(
    splits: Splits,
    settings: FitSettings,
    broken: str,
    clock: Clock,
    take_devices: Callable[[], object],
) -> tuple[FitSettings, Any, Pixels]:
    """The settings with the network's name, the network of features, and the photos' pixels."""
    with clock.phase("network") as note:
        take_devices()  # which loads Keras
        settings = with_backbone(settings, len(splits.photos))
        features = _network.features_for(settings)
        note(f"{settings.backbone}, {features.count_params():,} parameters")

    with clock.phase("photos") as note:
        px, report = settings.image_px, clock.report("decoding photos")
        with first_of_all():
            pixels = decode(splits.photos, px, broken=broken, progress=report)
        note(f"{int(pixels.usable.sum()):,} photos decoded to {px}×{px} px")
    return settings, features, pixels


def _solved(
    features: Any, sides: Sides, splits: Splits, settings: FitSettings, clock: Clock
) -> tuple[Any, Any, Epoch]:
    """The networks with the head solved, and what it reaches."""
    with clock.phase("features") as note:
        found = features_of(features, sides, splits, settings, clock.report("features"))
        note(f"{found.train.shape[1]:,} features of each photo, training photos also mirrored")

    with clock.phase("head") as note:
        head = choose(
            found.train,
            found.labels,
            splits.photos.n_classes,
            groups=found.groups,
            progress=clock.report("solving the head"),
        ).head
        head = Head(
            kernel=shared_array(head.kernel),
            bias=shared_array(head.bias),
            strength=shared(head.strength),
        )
        to_logits, model = _network.with_head(features, head, mirrored=settings.recipe.mirrored)
        solved = _epoch_0(head.logits(found.validation), found.validation_labels)
        n = len(found.validation)
        right = wilson(round(solved.validation_accuracy * n), n)
        note(f"solved with penalty {head.strength:.2g}: {right} on {n:,} validation photos")
    return to_logits, model, solved


def _judged(
    model: Any, network: Any, splits: Splits, sides: Sides, clock: Clock
) -> tuple[Trust, Evaluation, Evaluation, Labeled]:
    """Calibrate the network and judge it: validation photos first, then, once, the test photos."""
    with clock.phase("test") as note:
        names = splits.photos.class_names
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
    return trust, on_validation, on_test, tested


def _said_of(state: State, stopped: str, *, asked: object) -> str:
    plan, n_done = state.schedule, len(state.history) - 1
    early = f"; stopped: {stopped}" if stopped else ""
    if asked == 0:
        return "none asked for" + early
    if not plan.course:
        return "none" + (early or ": not a tenth of an epoch fits into the time")
    step = f"{plan.step_s * 1e3:.0f} ms a step of {plan.batch_size} photos"
    runs = f" in {state.n_in_soup} of {plan.n_runs} runs" if plan.n_runs > 1 else ""
    return f"{n_done} of {plan.n_epochs} planned epochs{runs}, {step}{early}"


def _epoch_0(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Epoch:
    found = judged(logits, labels)
    return Epoch(
        number=0,
        train_loss=float("nan"),
        validation_loss=found.loss,
        calibrated_loss=found.calibrated_loss,
        validation_accuracy=found.accuracy,
        learning_rate=0.0,
        seconds=0.0,
    )
