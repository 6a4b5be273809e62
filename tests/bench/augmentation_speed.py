"""Time of augmentation: compared with Keras' layers, two CPU libraries and a training step.

    python -m tests.bench.augmentation_speed [--out docs/results/augmentation_speed.json]

All take turns in one run; the best of several rounds counts. The libraries run in one process per
core, each of which augments images that it already has in memory, so nothing is counted for loading
or sending them. A library that is not installed is listed as skipped.
"""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import augment, backbones
from scenelearn._backend import keras
from scenelearn._threads import map_ahead
from scenelearn.finetune._device import environment
from tests.bench._common import bench_parser, write_json

_BATCH, _PX, _TRAIN_PX = 32, 224, 160
_STEPS = 4  # training steps timed together

Images = npt.NDArray[np.uint8]
Augment = Callable[[Images], Any]


def images(n: int, px: int) -> Images:
    """Smooth noise: no library is faster on it than on photos."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (n, px // 8, px // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def albumentations_pipeline() -> Augment:
    import albumentations as a
    import cv2

    cv2.setNumThreads(1)
    pipeline = a.Compose([
        a.RandomResizedCrop((_PX, _PX), scale=(0.6, 1), ratio=(1 / 1.2, 1.2)),
        a.HorizontalFlip(p=0.5),
        a.Rotate(5, border_mode=cv2.BORDER_REFLECT, p=1),
        a.ColorJitter((0.81, 1.23), (0.8, 1.2), (0.8, 1.2), (0, 0), p=1),
    ])  # fmt: skip
    return lambda image: pipeline(image=image)["image"]


def torchvision_pipeline() -> Augment:
    import torch
    from torchvision.transforms import InterpolationMode, v2

    torch.set_num_threads(1)
    bilinear = InterpolationMode.BILINEAR
    pipeline = v2.Compose([
        v2.RandomResizedCrop(_PX, (0.6, 1), (1 / 1.2, 1.2), bilinear),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(5, bilinear),
        v2.ColorJitter((0.81, 1.23), (0.8, 1.2), (0.8, 1.2)),
    ])  # fmt: skip
    return lambda image: pipeline(torch.from_numpy(image).permute(2, 0, 1))


LIBRARIES: dict[str, Callable[[], Augment]] = {
    "albumentations": albumentations_pipeline,
    "torchvision": torchvision_pipeline,
}


def worker(name: str, n: int, tasks: Any, results: Any) -> None:
    """Augment `n` images for each task, and report when it started and ended."""
    augment_image, in_memory = LIBRARIES[name](), images(n, _PX)
    for image in in_memory[:8]:
        augment_image(image)
    results.put(None)
    while tasks.get():
        start = time.monotonic()
        for image in in_memory:
            augment_image(image)
        results.put((start, time.monotonic()))


class Processes:
    """One process per core, all working at the same time."""

    def __init__(self, name: str, n: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._n, self._results = n, spawn.Queue()
        self._tasks = [spawn.Queue() for _ in range(os.cpu_count() or 1)]
        self._processes = [
            spawn.Process(target=worker, args=(name, n, tasks, self._results), daemon=True)
            for tasks in self._tasks
        ]
        for process in self._processes:
            process.start()
        for _ in self._processes:
            self._results.get(timeout=300)

    def ms_per_image(self) -> float:
        """Milliseconds per image, from the first start to the last end."""
        for tasks in self._tasks:
            tasks.put(True)
        times = [self._results.get(timeout=300) for _ in self._tasks]
        seconds = max(end for _, end in times) - min(start for start, _ in times)
        return seconds / (self._n * len(times)) * 1e3

    def end(self) -> None:
        """Stop the processes."""
        for tasks in self._tasks:
            tasks.put(False)
        for process in self._processes:
            process.join(timeout=30)


def wait_for(result: Any) -> Any:
    """The result as an array, once it is computed."""
    return keras().ops.convert_to_numpy(result)


def scenelearn_call(policy: str, batch: Images) -> Callable[[], float]:
    """Sample parameters and augment, for another epoch each time: milliseconds per image."""
    epochs = iter(range(10**6))

    def once() -> float:
        start = time.perf_counter()
        parameters = augment.sample(policy, 0, len(batch), epoch=next(epochs))
        wait_for(augment.apply(batch, parameters))
        return (time.perf_counter() - start) / len(batch) * 1e3

    return once


def keras_layers_call(batch: Images) -> Callable[[], float]:
    """The same with Keras' layers, as Keras runs them: one of them disables jit for all."""
    k, bound = keras(), (-0.2, 0.0)
    layers = k.Sequential([
        k.layers.RandomFlip("horizontal"),
        k.layers.RandomZoom(bound, bound, fill_mode="reflect"),
        k.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect"),
        k.layers.RandomRotation(5 / 360, fill_mode="reflect"),
        k.layers.RandomBrightness(0.2, value_range=(0, 255)),
        k.layers.RandomContrast(0.2, value_range=(0, 255)),
        k.layers.RandomSaturation((0.45, 0.55), value_range=(0, 255)),
    ])  # fmt: skip
    tensor = k.ops.convert_to_tensor(batch.astype("float32"))

    def once() -> float:
        start = time.perf_counter()
        wait_for(layers(tensor, training=True))
        return (time.perf_counter() - start) / len(batch) * 1e3

    return once


def training_call(policy: str | None) -> Callable[[], float]:
    """Training steps of all layers, whose batches a thread augments ahead, as `fit` does."""
    plain = images(_BATCH, _TRAIN_PX)
    features = backbones.build("mobilenet_v2_0.35", weights=None, image_px=_TRAIN_PX)
    backbones.fast_on_cpu(features)
    k = keras()
    model = k.Sequential([features, k.layers.Dense(6)])
    model.compile("adam", k.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels, epochs = np.arange(_BATCH) % 6, iter(range(10**6))

    def batch(step: int) -> Any:
        if policy is None:
            return plain
        return augment.apply(plain, augment.sample(policy, step, _BATCH, epoch=next(epochs)))

    def once() -> float:
        start = time.perf_counter()
        for augmented in map_ahead(batch, range(_STEPS), workers=1):
            wait_for(model.train_on_batch(augmented, labels))
        return (time.perf_counter() - start) / _STEPS / _BATCH * 1e3

    return once


def best(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The best of each; they take turns, after one call that is not counted."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(call())
    return {name: min(values) for name, values in times.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = bench_parser("augmentation_speed", __doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    options = parser.parse_args(arguments)

    batch = images(_BATCH, _PX)
    libraries = {name: Processes(name, 64) for name in LIBRARIES if importlib.util.find_spec(name)}
    calls = {
        f"scenelearn, {name}": scenelearn_call(name, batch)
        for name in augment.POLICIES
        if name != "none"
    }
    calls |= {f"{name} {version(name)}": p.ms_per_image for name, p in libraries.items()}
    ms = best(calls, options.rounds)
    for processes in libraries.values():
        processes.end()
    ms |= best({"Keras' layers": keras_layers_call(batch)}, 3)

    reference = ms["scenelearn, standard"]
    rows: list[dict[str, Any]] = [
        {"name": name, "ms_per_image": value, "ratio_to_scenelearn": value / reference}
        for name, value in ms.items()
    ]
    rows += [
        {"name": name, "skipped": f"{name} is not installed"}
        for name in LIBRARIES
        if name not in libraries
    ]
    alone = scenelearn_call("standard", images(_BATCH, _TRAIN_PX))
    step = best(
        {"plain": training_call(None), "standard": training_call("standard"), "alone": alone},
        max(3, options.rounds // 3),
    )
    table = {
        "command": "python -m tests.bench.augmentation_speed",
        "environment": environment() | {"load": f"{os.getloadavg()[2]:.1f} in the last 15 minutes"},
        "setup": f"{_BATCH} images of {_PX} px, uint8 in and out; best of {options.rounds} rounds",
        "rows": rows,
        "training_step": {
            "setup": f"MobileNetV2-0.35, all layers train, {_BATCH} images of {_TRAIN_PX} px",
            "ms_per_image": step["plain"],
            "ms_per_image_with_standard": step["standard"],
            "added_fraction": step["standard"] / step["plain"] - 1,
            "standard_alone_ms_per_image": step["alone"],
            "standard_alone_fraction": step["alone"] / step["plain"],
        },
    }
    print(json.dumps(table, indent=1))
    if options.out:
        write_json(options.out, table)


if __name__ == "__main__":
    main()
