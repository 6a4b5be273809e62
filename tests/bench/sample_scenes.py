"""Difficulty of the sample scenes: two color baselines and a small convolutional network.

    python -m tests.bench.sample_scenes [--seed 0] [--runs 3] --out docs/results/sample_scenes.json

Renders 320 scenes per class, trains on the first 200 and tests on the other 120, a split fixed in
advance by their numbers. The L2 penalty of the two baselines is chosen on a fifth of the training
scenes, never on test scenes. The network has fixed settings and is trained from scratch for each of
three seeds.
"""

from __future__ import annotations

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
from tests.bench._common import bench_parser

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]

N_TRAIN = 200
N_TEST = 120
N_CLASSES = len(CLASS_NAMES)
IMAGE_PX = 96
PENALTIES = (10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
NETWORK_SEEDS = (0, 1, 2)
EPOCHS = 25
BATCH = 64


def read_scenes(folder: Path) -> tuple[npt.NDArray[np.uint8], Labels, npt.NDArray[np.bool_]]:
    """Read all scenes: images, labels, and whether each is a training scene."""
    images, labels, train = [], [], []
    for label, name in enumerate(CLASS_NAMES):
        for index in range(N_TRAIN + N_TEST):
            with Image.open(folder / name / f"{name}_{index:04d}.jpg") as image:
                images.append(np.asarray(image))
            labels.append(label)
            train.append(index < N_TRAIN)
    return np.stack(images), np.array(labels), np.array(train)


def histograms(images: npt.NDArray[np.uint8]) -> Floats:
    """Square roots of color histograms of 8 × 8 × 8 bins, shape (n_images, 512)."""
    bins = (images >> 5).astype(np.int64)
    codes = (bins[..., 0] * 8 + bins[..., 1]) * 8 + bins[..., 2]
    counts = np.stack([np.bincount(code.ravel(), minlength=512) for code in codes])
    roots: Floats = np.sqrt(counts / counts.sum(1, keepdims=True)).astype(np.float32)
    return roots


def downsample(images: npt.NDArray[np.uint8], px: int) -> npt.NDArray[np.uint8]:
    """Resize images to `px` pixels with a box filter."""
    size = (px, px)
    small = [Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image) for image in small])


def fit_logistic(x: Floats, y: Labels, penalty: float, start: Floats | None = None) -> Floats:
    """Fit multinomial logistic regression with an L2 penalty; return weights and biases."""
    n, d = x.shape
    inputs = np.hstack([x, np.ones((n, 1), np.float32)])
    one_hot = np.eye(N_CLASSES, dtype=np.float32)[y]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(d + 1, N_CLASSES).astype(np.float32)
        scores = inputs @ weights
        scores -= scores.max(1, keepdims=True)
        log_total = np.log(np.exp(scores).sum(1, keepdims=True))
        error = np.exp(scores - log_total) - one_hot
        value = -((scores - log_total) * one_hot).sum() / n
        gradient = inputs.T @ error / n
        value += penalty / 2 * (weights[:-1] ** 2).sum()
        gradient[:-1] += penalty * weights[:-1]
        return float(value), gradient.ravel().astype(np.float64)

    first = np.zeros((d + 1) * N_CLASSES) if start is None else start.ravel().astype(np.float64)
    solution = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    weights: Floats = solution.x.reshape(d + 1, N_CLASSES).astype(np.float32)
    return weights


def project(x: Floats, train: npt.NDArray[np.bool_]) -> Floats:
    """Project features onto the span of the training scenes: the same fit with an L2 penalty."""
    if x.shape[1] <= int(train.sum()):
        return x
    basis = np.linalg.svd(x[train], full_matrices=False)[2]
    projected: Floats = x @ basis.T
    return projected


def count_correct(weights: Floats, x: Floats, y: Labels) -> int:
    """Count correct predictions of a logistic regression."""
    return int(((x @ weights[:-1] + weights[-1]).argmax(1) == y).sum())


def measure_logistic(x: Floats, y: Labels, train: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Choose the penalty on a fifth of the training scenes, fit on all of them, test once."""
    x_train, y_train = x[train], y[train]
    held_out = np.arange(len(y_train)) % 5 == 4
    center, scale = x_train.mean(0), x_train.std(0) + 1e-3
    chosen: dict[str, Any] = {"validation_accuracy": -1.0}
    for standardized in (False, True):
        features = project((x - center) / scale if standardized else x - center, train)[train]
        weights = None
        for penalty in PENALTIES:
            weights = fit_logistic(features[~held_out], y_train[~held_out], penalty, weights)
            accuracy = count_correct(weights, features[held_out], y_train[held_out]) / int(
                held_out.sum()
            )
            if accuracy > chosen["validation_accuracy"]:
                chosen = {
                    "validation_accuracy": accuracy,
                    "penalty": penalty,
                    "standardized": standardized,
                }
    projected = project((x - center) / scale if chosen["standardized"] else x - center, train)
    weights = fit_logistic(projected[train], y_train, chosen["penalty"])
    return chosen | summary(
        count_correct(weights, projected[~train], y[~train]), int((~train).sum())
    )


def summary(n_correct: int, n: int) -> dict[str, Any]:
    """An accuracy with its interval."""
    accuracy = wilson(n_correct, n)
    interval = [accuracy.low, accuracy.high]
    return {"accuracy": accuracy.value, "interval": interval, "n_correct": n_correct, "n": n}


def measure_network(
    x: npt.NDArray[np.uint8], y: Labels, train: npt.NDArray[np.bool_], seed: int
) -> dict[str, Any]:
    """Train a small convolutional network from scratch; the only augmentation is flips."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input((IMAGE_PX, IMAGE_PX, 3))
    z = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for width in (24, 48, 72, 96):
        z = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(z)
        z = layers.BatchNormalization(momentum=0.9)(z)
        z = layers.ReLU()(z)
    z = layers.Conv2D(128, 3, padding="same", use_bias=False)(z)
    z = layers.BatchNormalization(momentum=0.9)(z)
    z = layers.ReLU()(z)
    z = layers.GlobalAveragePooling2D()(z)
    z = layers.Dropout(0.3)(z)
    model = keras.Model(inputs, layers.Dense(N_CLASSES)(z))
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
            indices = order[start : start + BATCH]
            batch = x_train[indices]
            flipped = flips[start : start + BATCH, None, None, None]
            batch = np.where(flipped, batch[:, :, ::-1], batch)
            model.train_on_batch(batch.astype(np.float32), y_train[indices])
    seconds = time.perf_counter() - started
    scores = model.predict(x[~train].astype(np.float32), batch_size=BATCH, verbose=0)
    predictions = np.asarray(scores).argmax(1)
    confusion_matrix = np.zeros((N_CLASSES, N_CLASSES), int)
    np.add.at(confusion_matrix, (y[~train], predictions), 1)
    result = {
        "seed": seed,
        "train_s": round(seconds, 1),
        "confusion_matrix": confusion_matrix.tolist(),
    }
    return result | summary(int((predictions == y[~train]).sum()), int((~train).sum()))


def measure(scene_seed: int, network_seeds: tuple[int, ...] = NETWORK_SEEDS) -> dict[str, Any]:
    """Render the scenes of one seed, and measure the three classifiers."""
    import jax
    import keras
    import PIL
    import scipy

    with tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        folder = sample_scenes(temporary, N_TRAIN + N_TEST, scene_seed)
        render_s = time.perf_counter() - started
        images, labels, train = read_scenes(folder)
    pixels = downsample(images, 32).reshape(len(images), -1).astype(np.float32) / 255
    small = downsample(images, IMAGE_PX)
    networks = [measure_network(small, labels, train, seed) for seed in network_seeds]
    accuracies = [network["accuracy"] for network in networks]
    return {
        "command": "python -m tests.bench.sample_scenes --out FILE.json",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "scene_seed": scene_seed,
        "classes": list(CLASS_NAMES),
        "n_train": N_TRAIN * N_CLASSES,
        "n_test": N_TEST * N_CLASSES,
        "scenes_per_s": round(len(images) / render_s, 1),
        "color_histogram": measure_logistic(histograms(images), labels, train),
        "linear_pixels": measure_logistic(pixels, labels, train),
        "network": {
            "mean_accuracy": float(np.mean(accuracies)),
            "epochs": EPOCHS,
            "image_px": IMAGE_PX,
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
    """Measure, and write the JSON file."""
    parser = bench_parser("sample_scenes", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (published: 0)")
    parser.add_argument("--runs", type=int, default=len(NETWORK_SEEDS), help="networks to train")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True)
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
