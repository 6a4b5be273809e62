"""How hard the sample scenes are: two color baselines and a small convolutional network.

Run it from the root of the repository:

    python -m tests.bench.sample_scenes --out docs/results/sample_scenes.json

It draws 320 scenes of each class, trains on the first 200 and tests on the other 120, a split
fixed beforehand by their numbers. The strength of the L2 penalty of the two baselines is
chosen on a fifth of the training scenes, never on the test scenes. The network has fixed
settings and is trained from scratch for each of three seeds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.optimize import minimize

from scenelearn.metrics import wilson
from scenelearn.samples import CLASS_NAMES, sample_scenes

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]

N_TRAIN = 200
N_TEST = 120
N_CLASSES = len(CLASS_NAMES)
SIDE_PX = 96
PENALTIES = (10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
NETWORK_SEEDS = (0, 1, 2)
EPOCHS = 25
BATCH = 64


def read_scenes(folder: Path) -> tuple[npt.NDArray[np.uint8], Labels, npt.NDArray[np.bool_]]:
    """Reads all scenes: images, labels, and whether each belongs to the training part."""
    images, labels, train = [], [], []
    for label, name in enumerate(CLASS_NAMES):
        for index in range(N_TRAIN + N_TEST):
            with Image.open(folder / name / f"{name}_{index:04d}.jpg") as image:
                images.append(np.asarray(image))
            labels.append(label)
            train.append(index < N_TRAIN)
    return np.stack(images), np.array(labels), np.array(train)


def histograms(images: npt.NDArray[np.uint8]) -> Floats:
    """Returns square roots of the shares of 8x8x8 color bins, shape (images, 512)."""
    bins = (images >> 5).astype(np.int64)
    codes = (bins[..., 0] * 8 + bins[..., 1]) * 8 + bins[..., 2]
    counts = np.stack([np.bincount(code.ravel(), minlength=512) for code in codes])
    roots: Floats = np.sqrt(counts / counts.sum(1, keepdims=True)).astype(np.float32)
    return roots


def shrink(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Shrinks images to `side` pixels with a box filter."""
    size = (side, side)
    small = [Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in small])


def fit_logistic(x: Floats, y: Labels, penalty: float, start: Floats | None = None) -> Floats:
    """Fits multinomial logistic regression with an L2 penalty; returns weights and biases."""
    n, d = x.shape
    inputs = np.hstack([x, np.ones((n, 1), np.float32)])
    wanted = np.eye(N_CLASSES, dtype=np.float32)[y]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(d + 1, N_CLASSES).astype(np.float32)
        scores = inputs @ weights
        scores -= scores.max(1, keepdims=True)
        log_total = np.log(np.exp(scores).sum(1, keepdims=True))
        error = np.exp(scores - log_total) - wanted
        value = -((scores - log_total) * wanted).sum() / n
        gradient = inputs.T @ error / n
        value += penalty / 2 * (weights[:-1] ** 2).sum()
        gradient[:-1] += penalty * weights[:-1]
        return float(value), gradient.ravel().astype(np.float64)

    first = np.zeros((d + 1) * N_CLASSES) if start is None else start.ravel().astype(np.float64)
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    weights: Floats = found.x.reshape(d + 1, N_CLASSES).astype(np.float32)
    return weights


def rotate(x: Floats, train: npt.NDArray[np.bool_]) -> Floats:
    """Turns features into the span of the training part: with an L2 penalty, the same fit."""
    if x.shape[1] <= int(train.sum()):
        return x
    basis = np.linalg.svd(x[train], full_matrices=False)[2]
    turned: Floats = x @ basis.T
    return turned


def n_right(weights: Floats, x: Floats, y: Labels) -> int:
    """Counts right predictions of a logistic regression."""
    return int(((x @ weights[:-1] + weights[-1]).argmax(1) == y).sum())


def measure_logistic(x: Floats, y: Labels, train: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Chooses the penalty on a fifth of the training part, fits on all of it, tests once."""
    x_train, y_train = x[train], y[train]
    held = np.arange(len(y_train)) % 5 == 4
    center, scale = x_train.mean(0), x_train.std(0) + 1e-3
    chosen: dict[str, Any] = {"validation_accuracy": -1.0}
    for standardized in (False, True):
        features = rotate((x - center) / scale if standardized else x - center, train)[train]
        weights = None
        for penalty in PENALTIES:
            weights = fit_logistic(features[~held], y_train[~held], penalty, weights)
            accuracy = n_right(weights, features[held], y_train[held]) / int(held.sum())
            if accuracy > chosen["validation_accuracy"]:
                chosen = {
                    "validation_accuracy": accuracy,
                    "penalty": penalty,
                    "standardized": standardized,
                }
    whole = rotate((x - center) / scale if chosen["standardized"] else x - center, train)
    weights = fit_logistic(whole[train], y_train, chosen["penalty"])
    return chosen | summary(n_right(weights, whole[~train], y[~train]), int((~train).sum()))


def summary(right: int, n_all: int) -> dict[str, Any]:
    """Returns an accuracy with its interval."""
    found = wilson(right, n_all)
    interval = [found.low, found.high]
    return {"accuracy": found.value, "interval": interval, "n_right": right, "n": n_all}


def measure_network(
    x: npt.NDArray[np.uint8], y: Labels, train: npt.NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    """Trains a small convolutional network from scratch; the only augmentation is flips."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input((SIDE_PX, SIDE_PX, 3))
    flow = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for width in (24, 48, 72, 96):
        flow = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(flow)
        flow = layers.BatchNormalization(momentum=0.9)(flow)
        flow = layers.ReLU()(flow)
    flow = layers.Conv2D(128, 3, padding="same", use_bias=False)(flow)
    flow = layers.BatchNormalization(momentum=0.9)(flow)
    flow = layers.ReLU()(flow)
    flow = layers.GlobalAveragePooling2D()(flow)
    flow = layers.Dropout(0.3)(flow)
    model = keras.Model(inputs, layers.Dense(N_CLASSES)(flow))
    n_batches = int(train.sum()) // BATCH
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, EPOCHS * n_batches, warmup_target=3e-3, warmup_steps=2 * n_batches
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(seed)
    x_train, y_train = x[train], y[train]
    started = time.perf_counter()
    for _ in range(EPOCHS):
        order = rng.permutation(len(y_train))[: n_batches * BATCH]
        flips = rng.random(len(order)) < 0.5
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            batch = x_train[part]
            turned = flips[start : start + BATCH]
            batch = np.where(turned[:, None, None, None], batch[:, :, ::-1], batch)
            model.train_on_batch(batch.astype(np.float32), y_train[part])
    seconds = time.perf_counter() - started
    scores = model.predict(x[~train].astype(np.float32), batch_size=BATCH, verbose=0)
    guesses = np.asarray(scores).argmax(1)
    confusion = np.zeros((N_CLASSES, N_CLASSES), int)
    np.add.at(confusion, (y[~train], guesses), 1)
    result = {"seed": seed, "train_s": round(seconds, 1), "confusion": confusion.tolist()}
    return result | summary(int((guesses == y[~train]).sum()), int((~train).sum()))


def measure(scene_seed: int, network_seeds: tuple[int, ...] = NETWORK_SEEDS) -> dict[str, Any]:
    """Draws the scenes of one seed and measures the three classifiers."""
    import jax
    import keras
    import PIL
    import scipy

    with tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        folder = sample_scenes(temporary, N_TRAIN + N_TEST, scene_seed)
        draw_s = time.perf_counter() - started
        images, labels, train = read_scenes(folder)
    pixels = shrink(images, 32).reshape(len(images), -1).astype(np.float32) / 255
    small = shrink(images, SIDE_PX)
    networks = [measure_network(small, labels, train, seed) for seed in network_seeds]
    accuracies = [network["accuracy"] for network in networks]
    return {
        "command": "python -m tests.bench.sample_scenes --out FILE.json",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "scene_seed": scene_seed,
        "classes": list(CLASS_NAMES),
        "n_train": N_TRAIN * N_CLASSES,
        "n_test": N_TEST * N_CLASSES,
        "scenes_per_s": round(len(images) / draw_s, 1),
        "color_histogram": measure_logistic(histograms(images), labels, train),
        "linear_pixels": measure_logistic(pixels, labels, train),
        "network": {
            "mean_accuracy": float(np.mean(accuracies)),
            "epochs": EPOCHS,
            "side_px": SIDE_PX,
            "runs": networks,
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "pillow": PIL.__version__,
            "keras": keras.__version__,
            "jax": jax.__version__,
        },
        "device": {
            "processor": platform.processor() or platform.machine(),
            "n_cpus": os.cpu_count(),
            "system": platform.platform(),
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line, measures, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (published: 0)")
    parser.add_argument("--runs", type=int, default=len(NETWORK_SEEDS), help="networks to train")
    options = parser.parse_args(arguments)
    results = measure(options.seed, tuple(range(options.runs)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for name in ("color_histogram", "linear_pixels"):
        sys.stdout.write(f"{name}: {results[name]['accuracy']:.1%}\n")
    sys.stdout.write(f"network: {results['network']['mean_accuracy']:.1%}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
