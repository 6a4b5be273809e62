"""Training a classifier of the synthetic classes: AdamW, cosine decay, resumable checkpoints."""

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
from scenelearn.finetune._checkpoint import read_checkpoint, write_checkpoint
from scenelearn.finetune._schedule import lr_multiplier
from tests.bench.pretrain._ghost_batches import use_ghost_batches
from tests.bench.pretrain._kinds import kind_of
from tests.bench.pretrain._store import ImageStore

POLICY = augment.Policy(
    horizontal_flip=0.5, crop=0.6, aspect=0.33, rotate=10, brightness=0.6, contrast=0.4,
    saturation=0.5, hue=20, temperature=0.3, gray=0.1, erase=0.1,
)  # fmt: skip
_CHECKPOINT_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Settings of the training.

    Attributes:
        image_px: input size; rendered images are cropped to it.
        batch_size: images per step.
        epochs: passes over the images.
        minutes: time limit, by which the learning rate falls to 0; 0 for none.
        learning_rate: peak learning rate.
        weight_decay: weight decay of AdamW.
        label_smoothing: fraction of a label that is spread over all classes.
        held_out: images per class that are not trained on.
        policy: augmentation.
        ghost_batches: whether BatchNormalization uses groups of 16 images.
        seed: seed of weights, order and augmentation.
    """

    image_px: int = 96
    batch_size: int = 128
    epochs: int = 24
    minutes: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    held_out: int = 2
    policy: augment.Policy = POLICY
    ghost_batches: bool = True
    seed: int = 0


def train(
    store: ImageStore, config: PretrainConfig, checkpoint: Path, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """Train, resuming from a checkpoint of the same settings if there is one.

    Args:
        store: the rendered images.
        config: the settings.
        checkpoint: the file of the checkpoint.
        say: called with a line of text per epoch.

    Returns:
        The network without its classification layer, and the results to publish.
    """
    settings = {"config": _config_json(config), "store": _store_json(store)}
    model, network = _models(store.n_classes, config)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": []}
    if checkpoint.exists():
        kept = read_checkpoint(checkpoint)
        if kept.metadata["settings"] == json.loads(json.dumps(settings)):
            state = kept.metadata
            for variable, value in zip(_state(model), kept.arrays.values(), strict=True):
                variable.assign(value)
            say(f"resuming from step {state['step']}")
    images, n_seen = store.reader(), store.per_class - config.held_out
    per_epoch = store.n_classes * n_seen // config.batch_size
    last, losses = time.monotonic(), []
    start, written = last - state["seconds"], last
    while (progress := _fraction_done(state["step"], per_epoch, last - start, config)) < 1:
        epoch, at = divmod(state["step"], per_epoch)
        for numbers in _batches(store, config, epoch, at):
            progress = _fraction_done(state["step"], per_epoch, time.monotonic() - start, config)
            if progress >= 1:
                break
            model.optimizer.learning_rate.assign(config.learning_rate * lr_multiplier(progress))
            parameters = augment.sample(config.policy, config.seed, numbers, epoch=epoch)
            x = augment.apply(images(numbers), parameters, image_px=config.image_px)
            y = np.eye(store.n_classes, dtype=np.float32)[numbers // store.per_class]
            losses.append(float(np.asarray(model.train_on_batch(np.asarray(x), y))))
            state["step"] += 1
            last = time.monotonic()
            if last - written > _CHECKPOINT_INTERVAL_S:
                state["seconds"], written = last - start, last
                _write_checkpoint(checkpoint, state | {"settings": settings}, model)
        correct = _evaluate_held_out(model, images, store, config)
        last = time.monotonic()
        state["seconds"] = last - start
        row = {
            "step": state["step"],
            "seconds": round(last - start, 1),
            "loss": round(float(np.mean(losses)), 4) if losses else None,
            "held_out_accuracy": round(float(correct.mean()), 4),
        }
        losses = []
        state["history"].append(row)
        say(json.dumps(row))
    kinds = np.array([kind_of(k, store.kinds) for k in range(store.n_classes)]).repeat(
        config.held_out
    )
    by_kind = {kind: round(float(correct[kinds == kind].mean()), 4) for kind in np.unique(kinds)}
    return network, settings | {
        "steps": state["step"],
        "images_seen": state["step"] * config.batch_size,
        "seconds": round(state["seconds"], 1),
        "history": state["history"],
        "held_out_accuracy_by_kind": by_kind,
    }


def _config_json(config: PretrainConfig) -> dict[str, Any]:
    return asdict(config) | {"policy": config.policy.to_json()}


def _store_json(store: ImageStore) -> dict[str, Any]:
    return {
        name: getattr(store, name) for name in ("seed", "n_classes", "per_class", "px", "kinds")
    }


def _models(n_classes: int, config: PretrainConfig) -> tuple[Any, Any]:
    k = keras()
    features = sl.backbones.build(
        "scenelearn_tiny", weights=None, image_px=config.image_px, seed=config.seed
    )

    def make() -> Any:
        return k.Model(features.input, k.layers.Dense(n_classes)(features.output))

    k.utils.set_random_seed(config.seed)
    model = make()
    sl.backbones.fast_on_cpu(model)
    loss = k.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing
    )
    model.compile(k.optimizers.AdamW(0.0, weight_decay=config.weight_decay), loss=loss)
    model.optimizer.build(model.trainable_variables)
    if config.ghost_batches:
        use_ghost_batches(model)
    return model, features.get_layer("backbone")


def _state(model: Any) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _write_checkpoint(file: Path, state: dict[str, Any], model: Any) -> None:
    values = [keras().ops.convert_to_numpy(variable) for variable in _state(model)]
    write_checkpoint(file, state, {str(k): value for k, value in enumerate(values)})


def _fraction_done(step: int, per_epoch: int, seconds: float, config: PretrainConfig) -> float:
    """The progress of the schedule, 0 to 1."""
    by_time = seconds / (60 * config.minutes) if config.minutes else 0.0
    return max(step / (config.epochs * per_epoch), by_time)


def _batches(
    store: ImageStore, config: PretrainConfig, epoch: int, at: int
) -> Iterator[npt.NDArray[np.int64]]:
    """The remaining batches of an epoch, as image numbers."""
    numbers = np.arange(store.n_classes * store.per_class)
    numbers = numbers[numbers % store.per_class < store.per_class - config.held_out]
    order = np.random.default_rng([config.seed, epoch]).permutation(numbers)
    n_whole = len(order) // config.batch_size
    yield from order[: n_whole * config.batch_size].reshape(n_whole, -1)[at:]


def _evaluate_held_out(
    model: Any, images: Callable[..., Any], store: ImageStore, config: PretrainConfig
) -> npt.NDArray[np.bool_]:
    """Whether each held-out image is classified correctly, from its center crop."""
    numbers = np.arange(store.n_classes * store.per_class)
    numbers = numbers[numbers % store.per_class >= store.per_class - config.held_out]
    edge, correct = (store.px - config.image_px) // 2, []
    inside = slice(edge, edge + config.image_px)
    for first in range(0, len(numbers), 100):
        batch = numbers[first : first + 100]
        logits = np.asarray(model.predict_on_batch(images(batch)[:, inside, inside]))
        correct.append(logits.argmax(1) == batch // store.per_class)
    return np.concatenate(correct)
