"""What augmentation costs: against Keras' layers, two CPU libraries, and a training step.

    python -m tests.bench.augment [--out docs/results/augment.json]

All in one run, in turns, the best of several rounds. The libraries run in as many processes as
there are cores, each of which varies images that it already holds, so nothing is counted for
loading or sending them. A library that is not installed is named as such.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import augment, backbones
from scenelearn._backend import keras
from scenelearn._io import atomic_write
from scenelearn._threads import map_ahead
from scenelearn.finetune._environment import environment

_BATCH, _PX, _TRAIN_PX = 32, 224, 160
_STEPS = 4  # training steps timed together

Images = npt.NDArray[np.uint8]
Change = Callable[[Images], Any]


def images(n: int, px: int) -> Images:
    """Smooth noise: no library is quicker on it than on photos."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (n, px // 8, px // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def albumentations_pipeline() -> Change:
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


def torchvision_pipeline() -> Change:
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


LIBRARIES: dict[str, Callable[[], Change]] = {
    "albumentations": albumentations_pipeline,
    "torchvision": torchvision_pipeline,
}


def worker(name: str, n: int, tasks: Any, results: Any) -> None:
    """A process that varies `n` images whenever it is told to, and says from when to when."""
    change, held = LIBRARIES[name](), images(n, _PX)
    for image in held[:8]:
        change(image)
    results.put(None)
    while tasks.get():
        start = time.monotonic()
        for image in held:
            change(image)
        results.put((start, time.monotonic()))


class Processes:
    """One process a core, all at it at the same time."""

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

    def ms_an_image(self) -> float:
        """From the first one's start to the last one's end."""
        for tasks in self._tasks:
            tasks.put(True)
        times = [self._results.get(timeout=300) for _ in self._tasks]
        seconds = max(end for _, end in times) - min(start for start, _ in times)
        return seconds / (self._n * len(times)) * 1e3

    def end(self) -> None:
        """Let the processes end."""
        for tasks in self._tasks:
            tasks.put(False)
        for process in self._processes:
            process.join(timeout=30)


def waited(result: Any) -> Any:
    """The result, once it is computed."""
    return keras().ops.convert_to_numpy(result)


def ours(policy: str, given: Images) -> Callable[[], float]:
    """Draws and varied images of another epoch each time, in ms an image."""
    epochs = iter(range(10**6))

    def once() -> float:
        start = time.perf_counter()
        draws = augment.draw(policy, 0, len(given), epoch=next(epochs))
        waited(augment.apply(given, draws))
        return (time.perf_counter() - start) / len(given) * 1e3

    return once


def keras_layers(given: Images) -> Callable[[], float]:
    """The same by Keras' layers, as Keras runs them: one of them turns jit off for all."""
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
    tensor = k.ops.convert_to_tensor(given.astype("float32"))

    def once() -> float:
        start = time.perf_counter()
        waited(layers(tensor, training=True))
        return (time.perf_counter() - start) / len(given) * 1e3

    return once


def training(policy: str | None) -> Callable[[], float]:
    """Steps of full training, their batches varied ahead in a thread as `fit` does it."""
    given = images(_BATCH, _TRAIN_PX)
    features = backbones.build("mobilenet_v2_0.35", weights=None, image_px=_TRAIN_PX)
    backbones.fast_on_cpu(features)
    k = keras()
    model = k.Sequential([features, k.layers.Dense(6)])
    model.compile("adam", k.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels, epochs = np.arange(_BATCH) % 6, iter(range(10**6))

    def batch(step: int) -> Any:
        if policy is None:
            return given
        return augment.apply(given, augment.draw(policy, step, _BATCH, epoch=next(epochs)))

    def once() -> float:
        start = time.perf_counter()
        for varied in map_ahead(batch, range(_STEPS), workers=1):
            waited(model.train_on_batch(varied, labels))
        return (time.perf_counter() - start) / _STEPS / _BATCH * 1e3

    return once


def best(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The least of each, taken in turns after one that is not counted."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(call())
    return {name: min(times) for name, times in found.items()}


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(prog="python -m tests.bench.augment")
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--out", type=Path)
    given = options.parse_args(arguments)

    held = images(_BATCH, _PX)
    libraries = {name: Processes(name, 64) for name in LIBRARIES if importlib.util.find_spec(name)}
    calls = {f"scenelearn, {name}": ours(name, held) for name in augment.POLICIES if name != "none"}
    calls |= {f"{name} {version(name)}": p.ms_an_image for name, p in libraries.items()}
    ms = best(calls, given.rounds)
    for processes in libraries.values():
        processes.end()
    ms |= best({"Keras' layers": keras_layers(held)}, 3)

    us = ms["scenelearn, standard"]
    rows: list[dict[str, Any]] = [
        {"what": name, "ms_an_image": value, "ratio_to_ours": value / us}
        for name, value in ms.items()
    ]
    rows += [
        {"what": name, "left_out": f"{name} is not installed"}
        for name in LIBRARIES
        if name not in libraries
    ]
    alone = ours("standard", images(_BATCH, _TRAIN_PX))
    step = best(
        {"plain": training(None), "standard": training("standard"), "alone": alone},
        max(3, given.rounds // 3),
    )
    table = {
        "command": "python -m tests.bench.augment",
        "environment": environment() | {"load": f"{os.getloadavg()[2]:.1f} in the last 15 minutes"},
        "what": f"{_BATCH} images of {_PX} px, uint8 in and out; best of {given.rounds} rounds",
        "rows": rows,
        "training_step": {
            "what": f"MobileNetV2-0.35, all of it trained, {_BATCH} images of {_TRAIN_PX} px",
            "ms_an_image": step["plain"],
            "ms_an_image_with_standard": step["standard"],
            "added_share": step["standard"] / step["plain"] - 1,
            "standard_alone_ms_an_image": step["alone"],
            "alone_share": step["alone"] / step["plain"],
        },
    }
    print(json.dumps(table, indent=1))
    if given.out:
        with atomic_write(given.out) as temporary:
            temporary.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
