"""Learning to tell the drawn classes apart: AdamW, a half cosine, a checkpoint to go on from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import scenelearn as sl
from scenelearn import augment
from scenelearn._backend import keras
from scenelearn.finetune._checkpoint import read, write
from scenelearn.finetune._course import share_of_peak
from tests.bench.pretrain._kinds import kind_of
from tests.bench.pretrain._sixteens import train_by_sixteens
from tests.bench.pretrain._store import Store

POLICY = augment.Policy(
    mirror=0.5, crop=0.6, stretch=0.33, rotate=10, brightness=0.6, contrast=0.4, saturation=0.5,
    hue=20, temperature=0.3, gray=0.1, erase=0.1,
)  # fmt: skip
_EVERY_S = 60.0  # between two checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """How the network is trained.

    Attributes:
        image_px: that it sees; drawn images are cropped to it.
        batch_size: images a step.
        epochs: passes over the images.
        minutes: an end before that; 0 for none. The rate then falls to 0 by the time.
        peak: learning rate.
        weight_decay: of AdamW.
        label_smoothing: share of a label that is spread over all classes.
        held_out: images of each class that are not trained on.
        policy: how an image is varied at each sight.
        sixteens: whether each sixteen images of a batch have statistics of their own.
        seed: of weights, order and variation.
    """

    image_px: int = 96
    batch_size: int = 128
    epochs: int = 24
    minutes: float = 0.0
    peak: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    held_out: int = 2
    policy: augment.Policy = POLICY
    sixteens: bool = True
    seed: int = 0


def train(
    store: Store, lesson: Lesson, checkpoint: Path, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """Train, from the checkpoint on if there is one of the same settings.

    Args:
        store: drawn.
        lesson: how.
        checkpoint: its file.
        say: is told of each epoch.

    Returns:
        The network, without the layer that tells the classes apart, and what to report.
    """
    asked = {"lesson": _of_lesson(lesson), "store": _of_store(store)}
    model, network = _models(store.n_classes, lesson)
    about: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": []}
    if checkpoint.exists():
        kept = read(checkpoint)
        if kept.about["asked"] == json.loads(json.dumps(asked)):
            about = kept.about
            for variable, value in zip(_state(model), kept.arrays.values(), strict=True):
                variable.assign(value)
            say(f"going on from step {about['step']}")
    images, n_seen = store.opened(), store.per_class - lesson.held_out
    per_epoch = store.n_classes * n_seen // lesson.batch_size
    last, losses = time.monotonic(), []
    start, written = last - about["seconds"], last
    while (share := _share(about["step"], per_epoch, last - start, lesson)) < 1:
        epoch, at = divmod(about["step"], per_epoch)
        for numbers in _orders(store, lesson, epoch, at):
            share = _share(about["step"], per_epoch, time.monotonic() - start, lesson)
            if share >= 1:
                break
            model.optimizer.learning_rate.assign(lesson.peak * share_of_peak(share))
            draws = augment.draw(lesson.policy, lesson.seed, numbers, epoch=epoch)
            x = augment.apply(images(numbers), draws, image_px=lesson.image_px)
            y = np.eye(store.n_classes, dtype=np.float32)[numbers // store.per_class]
            losses.append(float(np.asarray(model.train_on_batch(np.asarray(x), y))))
            about["step"] += 1
            last = time.monotonic()
            if last - written > _EVERY_S:
                about["seconds"], written = last - start, last
                _keep(checkpoint, about | {"asked": asked}, model)
        right = _held_out(model, images, store, lesson)
        last = time.monotonic()
        about["seconds"] = last - start
        row = {
            "step": about["step"],
            "seconds": round(last - start, 1),
            "loss": round(float(np.mean(losses)), 4) if losses else None,
            "held_out_accuracy": round(float(right.mean()), 4),
        }
        losses = []
        about["history"].append(row)
        say(json.dumps(row))
    kinds = np.array([kind_of(k, store.kinds) for k in range(store.n_classes)]).repeat(
        lesson.held_out
    )
    by_kind = {kind: round(float(right[kinds == kind].mean()), 4) for kind in np.unique(kinds)}
    return network, asked | {
        "steps": about["step"],
        "images_seen": about["step"] * lesson.batch_size,
        "seconds": round(about["seconds"], 1),
        "history": about["history"],
        "held_out_accuracy_by_kind": by_kind,
    }


def _of_lesson(lesson: Lesson) -> dict[str, Any]:
    return asdict(lesson) | {"policy": lesson.policy.to_json()}


def _of_store(store: Store) -> dict[str, Any]:
    return {
        name: getattr(store, name) for name in ("seed", "n_classes", "per_class", "px", "kinds")
    }


def _models(n_classes: int, lesson: Lesson) -> tuple[Any, Any]:
    k = keras()
    features = sl.backbones.build(
        "scenelearn_tiny", weights=None, image_px=lesson.image_px, seed=lesson.seed
    )

    def make() -> Any:
        return k.Model(features.input, k.layers.Dense(n_classes)(features.output))

    k.utils.set_random_seed(lesson.seed)
    model = make()
    sl.backbones.fast_on_cpu(model)
    loss = k.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=lesson.label_smoothing
    )
    model.compile(k.optimizers.AdamW(0.0, weight_decay=lesson.weight_decay), loss=loss)
    model.optimizer.build(model.trainable_variables)
    if lesson.sixteens:
        train_by_sixteens(model)
    return model, features.get_layer("backbone")


def _state(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _keep(file: Path, about: dict[str, Any], model: Any) -> None:
    values = [keras().ops.convert_to_numpy(variable) for variable in _state(model)]
    write(file, about, {str(k): value for k, value in enumerate(values)})


def _share(step: int, per_epoch: int, seconds: float, lesson: Lesson) -> float:
    """How much of the course is done."""
    by_time = seconds / (60 * lesson.minutes) if lesson.minutes else 0.0
    return max(step / (lesson.epochs * per_epoch), by_time)


def _orders(store: Store, lesson: Lesson, epoch: int, at: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rest of an epoch's batches, as numbers of images."""
    numbers = np.arange(store.n_classes * store.per_class)
    numbers = numbers[numbers % store.per_class < store.per_class - lesson.held_out]
    order = np.random.default_rng([lesson.seed, epoch]).permutation(numbers)
    n_whole = len(order) // lesson.batch_size
    yield from order[: n_whole * lesson.batch_size].reshape(n_whole, -1)[at:]


def _held_out(
    model: Any, images: Callable[..., Any], store: Store, lesson: Lesson
) -> npt.NDArray[np.bool_]:
    """Whether each image that was held out is told right; the middle of it is seen."""
    numbers = np.arange(store.n_classes * store.per_class)
    numbers = numbers[numbers % store.per_class >= store.per_class - lesson.held_out]
    edge, right = (store.px - lesson.image_px) // 2, []
    inside = slice(edge, edge + lesson.image_px)
    for first in range(0, len(numbers), 100):
        some = numbers[first : first + 100]
        logits = np.asarray(model.predict_on_batch(images(some)[:, inside, inside]))
        right.append(logits.argmax(1) == some // store.per_class)
    return np.concatenate(right)
