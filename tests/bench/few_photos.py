"""Accuracy on few photos per class: scenelearn and Keras' own recipe, with the same weights.

    python -m tests.bench.few_photos --photos FOLDER --weights FILE
        [--sizes 10 25 100] [--seeds 0 1 2] [--out docs/results/few_photos.json]

Each seed reserves 150 photos per class for the test. From the others, each class contributes as
many photos as the size says, validation photos included: both recipes use only those. scenelearn's
is `sl.fit` with its defaults and a budget of `--minutes`. Keras' is the recipe of its guide
"Transfer learning and fine-tuning": random flips and rotations, the backbone frozen for 20 epochs
with Adam at 0.001, then all layers for 10 epochs at 0.00001, on TensorFlow (its fastest backend on
a CPU) in its own process; its accuracy is measured after both parts. The file is written after each
run, and runs that it contains are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench._common import add_out, bench_parser, require_complete, write_json

_EPOCHS_FROZEN, _EPOCHS_ALL = 20, 10


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        return _keras_worker(Path(options.worker), options)
    import scenelearn as sl

    photos, out = sl.scan(options.photos), Path(options.out)
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    done = {(run["per_class"], run["seed"], run["name"]) for run in runs}
    for size in options.sizes:
        for seed in options.seeds:
            splits = take_few(sl.split(photos, seed=seed, test=150 * photos.n_classes), size, seed)
            for name, run in (("scenelearn", _scenelearn), ("Keras' recipe", _keras)):
                if (size, seed, name) in done:
                    continue
                case = {"per_class": size, "seed": seed, "name": name}
                runs.append(case | run(splits, seed, options))
                print({k: runs[-1][k] for k in (*case, "test", "seconds")}, flush=True)
                table = {"command": "python -m tests.bench.few_photos", "runs": runs}
                write_json(out, table)
    return None


def take_few(splits: Any, per_class: int, seed: int) -> Any:
    """A split with `per_class` photos per class to train and validate; one sixth validate."""
    others = np.concatenate([splits.train, splits.validation])
    shuffled = np.random.default_rng([seed, per_class]).permutation(others)
    labels = splits.photos.labels[shuffled]
    n_validation = max(1, round(per_class / 6))
    chosen = [shuffled[labels == label][:per_class] for label in np.unique(labels)]
    return dataclasses.replace(
        splits,
        train=np.sort(np.concatenate([indices[n_validation:] for indices in chosen])),
        validation=np.sort(np.concatenate([indices[:n_validation] for indices in chosen])),
    )


def _scenelearn(splits: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import scenelearn as sl

    fit = sl.fit(
        splits,
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        minutes=options.minutes,
        seed=seed,
    )
    require_complete(fit)
    return {
        "test": fit.evaluation.accuracy.to_json(),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "interpolation": fit.interpolation,
        "epochs": len(fit.history) - 1,
        "seconds": round(fit.seconds, 1),
        "environment": fit.environment,
    }


def _keras(splits: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    from scenelearn.data import decode

    pixels = decode(splits.photos, options.image_px)
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "validation", "test"):
            indices = getattr(splits, split)
            images, positions = pixels.read(indices)
            np.save(Path(folder, f"{split}_x.npy"), images)
            np.save(Path(folder, f"{split}_y.npy"), splits.photos.labels[positions])
        command = [sys.executable, "-m", "tests.bench.few_photos", "--worker", folder]
        command += ["--photos", options.photos, "--weights", options.weights]
        command += ["--backbone", options.backbone, "--seeds", str(seed)]
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.decode().strip().splitlines()[-1]))


def _keras_worker(folder: Path, options: argparse.Namespace) -> None:
    """Train by Keras' recipe, as in its guide; the last line printed is the result."""
    import keras

    from scenelearn.backbones._names import find_architecture
    from scenelearn.finetune._device import environment
    from scenelearn.metrics import wilson

    start = time.perf_counter()
    keras.utils.set_random_seed(options.seeds[0])
    x, y, x_test, y_test = (
        np.load(folder / f"{name}.npy") for name in ("train_x", "train_y", "test_x", "test_y")
    )
    known = find_architecture(options.backbone)
    width = {} if known.width is None else {"alpha": known.width}
    base = known.build(include_top=False, weights=options.weights, input_shape=x.shape[1:], **width)
    base.trainable = False
    inputs = keras.Input(x.shape[1:])
    z = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    z = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(z), training=False)
    z = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(z))
    model = keras.Model(inputs, keras.layers.Dense(int(y.max()) + 1)(z))
    n_correct = []
    for rate, n_epochs in ((1e-3, _EPOCHS_FROZEN), (1e-5, _EPOCHS_ALL)):
        model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(True))
        model.fit(x, y, batch_size=32, epochs=n_epochs, verbose=0)
        n_correct.append(int((model.predict(x_test, verbose=0).argmax(axis=1) == y_test).sum()))
        base.trainable = True
    n = len(y_test)
    result = {
        "test": wilson(n_correct[1], n).to_json(),
        "test_frozen": wilson(n_correct[0], n).to_json(),
        "seconds": round(time.perf_counter() - start, 1),
        "environment": environment(),
    }
    print("\n" + json.dumps(result), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("few_photos", __doc__)
    parser.add_argument(
        "--photos", metavar="FOLDER", required=True, help="photos, one subfolder per class"
    )
    parser.add_argument("--weights", required=True, help="a weights file for [-1, 1] inputs")
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add_out(parser, "few_photos")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
