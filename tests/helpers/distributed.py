"""Functions that tests of several devices run in processes of their own."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import scenelearn as sl
from scenelearn import _distributed
from scenelearn._distributed import (
    broadcast,
    data_parallel,
    gather_to_one_device,
    n_devices,
    padded_batch_size,
    process_count,
    process_index,
)
from scenelearn.augment import policy
from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError, DeviceError
from scenelearn.finetune import Recipe
from scenelearn.finetune._learner import Augmentation, augmented_batches


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def start_processes() -> None:
    """What a user does first in each process of `two_processes`."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(os.environ["ADDRESS"], 2, int(os.environ["PROCESS"]))


def fit_to(file: str, folder: str, **settings: Any) -> None:
    """Fit, and write the results to a file."""
    splits = sl.split(sl.scan(folder), seed=0)
    fit = sl.fit(splits, backbone="scenelearn_tiny", image_px=32, augmentation="light", **settings)
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    after = fit.classifier.predict(image)  # outside of the fit, on one device
    np.savez(
        file,
        losses=[epoch.train_loss for epoch in fit.history],
        judged=[epoch.validation_loss for epoch in fit.history],
        test=fit.test_probabilities,
        weights=np.concatenate([one.ravel() for one in fit.classifier.model.get_weights()]),
        after=list(after[0].probabilities.values()),
        device=fit.environment["device"],
    )


def losses_on_devices(file: str) -> None:
    """Train three steps and predict, on one device and on two."""
    import keras

    from scenelearn.backbones import fast_on_cpu
    from scenelearn.backbones._fast._microbatch import choose_traced_size
    from scenelearn.classify._inference import predict_images

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (33, 16, 16, 3), np.uint8)
    labels = rng.integers(0, 3, 33).astype(np.int32)
    found: dict[str, npt.NDArray[Any]] = {}
    for devices in (None, "all"):
        with data_parallel(devices):
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [
                    keras.layers.Input((16, 16, 3)),
                    keras.layers.Rescaling(1 / 255),
                    keras.layers.Conv2D(4, 3, activation="relu"),
                    keras.layers.DepthwiseConv2D(3),
                    keras.layers.GlobalAveragePooling2D(),
                    keras.layers.Dense(3),
                ]
            )
            fast_on_cpu(model)
            model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
            train = Batches(
                pixels=Pixels.from_array(images),
                labels=labels,
                indices=np.arange(33),
                batch_size=33,
            )
            how = Augmentation(policy=policy("none"), recipe=Recipe(), n_classes=3)
            losses = []
            for epoch in range(3):
                for _, batch in augmented_batches(train, how, epoch=epoch, steps=range(1)):
                    losses.append(float(model.train_on_batch(*batch)))
                    found[f"sizes {devices}"] = np.array([len(part) for part in batch])
            found[f"losses {devices}"] = np.array(losses)
            found[f"seen {devices}"] = predict_images(model, [images[:32], images[32:]], 32)
            microbatches: list[int | None] = []

            def traced(x: Any, microbatches: list[int | None] = microbatches) -> Any:
                microbatches.append(choose_traced_size(x))
                return x

            import jax

            jax.jit(traced)(np.zeros((32, 4, 4, 3), np.float32))
            found[f"microbatches {devices}"] = np.array(microbatches[0] or 0)
            where = {len(v.value.sharding.device_set) for v in model.variables}
            found[f"devices {devices}"] = np.array(sorted(where))
        found[f"after {devices}"] = predict_images(gather_to_one_device(model), [images], 33)
    np.savez(file, **found)


def user_sets_a_distribution(folder: str) -> None:
    """Fit with a distribution that the user has set, and with batch statistics."""
    import keras

    splits = sl.split(sl.scan(folder), seed=0)
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=keras.distribution.list_devices())
    )
    try:
        sl.fit(splits, backbone="scenelearn_tiny", weights=None, image_px=32, batch_size=15)
    except ArgumentError as error:
        say(error)
    plan = sl.finetune.plan(
        splits, backbone="scenelearn_tiny", weights=None, image_px=32, batch_size=16
    )
    say(plan.step_s > 0)


def broadcast_everything() -> None:
    start_processes()
    k = int(os.environ["PROCESS"])
    try:
        with data_parallel(None):
            pass
    except DeviceError as error:
        say(error)
    with data_parallel("all"):
        say((process_index(), process_count()), n_devices(), padded_batch_size(3))
        say(broadcast({"k": k, "nan": float("nan")}), _distributed.all_reduce_max(-5 + k))
        first = _distributed.broadcast_bytes(np.arange(5 + k, dtype=np.uint8))
        say(first if first is None else first.tolist(), _distributed.broadcast_bytes(None))
        table = np.array([[1.5, np.nan, k]], np.float32)
        say(_distributed.broadcast_array(table).tolist())
        numbers = np.arange(6, dtype=np.float32).reshape(6, 1) + 10 * k
        _distributed._GATHERED_ROWS = 2  # so that there are several parts
        _distributed.broadcast_rows(numbers, np.array([5, 0, 2]))
        say(numbers.ravel().tolist())
        _distributed.assert_same_on_all_processes("0123456789", "things")
        try:
            _distributed.assert_same_on_all_processes(f"0{k}", "photos")
        except DeviceError as error:
            say(error)
        photos = Pixels.from_array(np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3))
        train = Batches(
            pixels=photos, labels=np.arange(7, dtype=np.int32), indices=np.arange(7), batch_size=4
        )
        for recipe in (Recipe(), Recipe(mixup_alpha=0.2)):
            how = Augmentation(policy=policy("none"), recipe=recipe, n_classes=7)
            for _, (images, targets) in augmented_batches(train, how, epoch=0, steps=range(2)):
                say(np.asarray(images)[:, 0, 0, 0].tolist(), np.asarray(targets).tolist())


def read_together(folder: str, shards: str, weights: str, out: str) -> None:
    """Scan, audit, extract features and fit: alone, or with another process."""
    import keras

    from scenelearn.data import _near_duplicates

    _near_duplicates._LEAF_SIZE = 8  # so that there are leaves to share
    distribution: Any = nullcontext()
    if "PROCESS" in os.environ:
        start_processes()
        distribution = keras.distribution.DataParallel().scope()
    totals: dict[str, int] = {}

    def count(what: str, _: int, total: int) -> None:
        totals[what] = total

    network: dict[str, Any] = {"backbone": "scenelearn_tiny", "weights": weights, "image_px": 32}
    with distribution:
        photos = sl.scan(folder, progress=count)
        audit = sl.audit(photos, progress=count)
        rows = sl.scan(shards)
        features = sl.finetune.extract_features(photos, **network)
    splits = sl.split(photos, seed=0, groups=audit.groups)
    fit = sl.fit(splits, **network, epochs=0, devices="all")
    hashes = [one.hex() for one in (*photos.hashes, *rows.hashes)]
    say(json.dumps([photos.to_json(), rows.to_json(), audit.to_json(), hashes], sort_keys=True))
    say(totals["scanning photos"], totals["auditing photos"])
    np.savez(out, features=features, test=fit.test_probabilities)


def scan_other_files(folder: str) -> None:
    """Each process scans a folder of its own."""
    import keras

    start_processes()
    try:
        with keras.distribution.DataParallel().scope():
            sl.scan(f"{folder}/{os.environ['PROCESS']}")
    except DeviceError as error:
        say(error)


def fit_together(folder: str, weights: str, out: str) -> None:
    """Fit in two processes; interrupt one, resume both; then fit with a time limit."""
    start_processes()
    k = int(os.environ["PROCESS"])
    splits = sl.split(sl.scan(folder), seed=0)
    common: dict[str, Any] = {
        "backbone": "scenelearn_tiny", "weights": weights, "image_px": 32, "batch_size": 15,
        "recipe": {"unfreeze": "all"}, "augmentation": "light", "devices": "all",
        "learning_rate": 0.001,
    }  # fmt: skip

    def interrupt(what: str, done: int, total: int) -> None:
        if k == 1 and (what, done) == ("fine-tuning", 4):
            import signal

            signal.raise_signal(signal.SIGTERM)

    stopped = sl.fit(splits, **common, epochs=2, progress=interrupt)
    say(stopped.stopped, len(stopped.history))
    fit_to(out.format(k), folder, weights=weights, epochs=2, batch_size=15, devices="all",
           learning_rate=0.001, recipe={"unfreeze": "all"}, resume=True)  # fmt: skip
    timed = sl.fit(splits, **common, minutes=0.15)
    say(timed.settings.epochs, timed.evaluation.accuracy)


def fit_student(folder: str, weights: str, out: str) -> None:
    """Fit a student: alone, with a teacher that is fitted first; or with another process.

    The teacher is the same for both: rounding errors can turn the principal axes of its features.
    """
    file = Path(out).with_name("teacher.keras")
    if "PROCESS" in os.environ:
        start_processes()
    else:
        splits = sl.split(sl.scan(folder), seed=0)
        sl.fit(splits, backbone="scenelearn_tiny", weights=weights, image_px=32, epochs=0).save(
            file
        )
    teacher = sl.load(file)
    teacher.predict_proba(np.zeros((1, 32, 32, 3), np.uint8))  # compiled for one device
    fit_to(out, folder, weights=weights, epochs=2, batch_size=15, devices="all",
           learning_rate=0.001, teacher=teacher)  # fmt: skip
