"""Few photos a class: a fit of ours beside Keras' own recipe with the same photos and weights.

    python -m tests.bench.few --photos FOLDER --weights FILE [--sizes 10 25 100] [--seeds 0 1 2]

Each seed holds 150 photos of each class back for the test. Of the others, each class gives as many
photos as the size says, validation photos included: that is all that either side sees. Ours is
`sl.fit` as it comes, with `--minutes`. Keras' is the recipe of its guide "Transfer learning and
fine-tuning": mirrored and turned photos, the backbone frozen for 20 epochs with Adam at 0.001, then
all of it for 10 epochs at 0.00001, on TensorFlow (its fastest backend on a CPU), in a process of
its own; its figure is noted after the first part and at the end. The file is written after each
run, and runs that it holds are not repeated.
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

from tests.bench._whole import whole

_EPOCHS_FROZEN, _EPOCHS_ALL = 20, 10


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.worker:
        return _keras(Path(options.worker), options)
    import scenelearn as sl
    from scenelearn._io import atomic_write

    photos, out = sl.scan(options.photos), Path(options.out)
    runs = json.loads(out.read_text())["runs"] if out.exists() else []
    done = {(run["per_class"], run["seed"], run["what"]) for run in runs}
    for size in options.sizes:
        for seed in options.seeds:
            splits = few(sl.split(photos, seed=seed, test=150 * photos.n_classes), size, seed)
            for what, run in (("ours", _ours), ("Keras' recipe", _theirs)):
                if (size, seed, what) in done:
                    continue
                found = {"per_class": size, "seed": seed, "what": what}
                runs.append(found | run(splits, seed, options))
                print({k: runs[-1][k] for k in (*found, "test", "seconds")}, flush=True)
                table = {"command": "python -m tests.bench.few", "runs": runs}
                with atomic_write(out) as partial:
                    partial.write_text(json.dumps(table, indent=1) + "\n")
    return None


def few(splits: Any, per_class: int, seed: int) -> Any:
    """So many photos of each class to train and validate, about a sixth of them to validate."""
    others = np.concatenate([splits.train, splits.validation])
    mixed = np.random.default_rng([seed, per_class]).permutation(others)
    labels = splits.photos.labels[mixed]
    n_validation = max(1, round(per_class / 6))
    chosen = [mixed[labels == label][:per_class] for label in np.unique(labels)]
    return dataclasses.replace(
        splits,
        train=np.sort(np.concatenate([of[n_validation:] for of in chosen])),
        validation=np.sort(np.concatenate([of[:n_validation] for of in chosen])),
    )


def _ours(splits: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import scenelearn as sl

    fit = sl.fit(
        splits,
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        minutes=options.minutes,
        seed=seed,
    )
    whole(fit)
    return {
        "test": fit.evaluation.accuracy.to_json(),
        "kept": fit.kept,
        "stopped": fit.stopped,
        "share": fit.share,
        "epochs": len(fit.history) - 1,
        "seconds": round(fit.seconds, 1),
        "environment": fit.environment,
    }


def _theirs(splits: Any, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    from scenelearn.data import decode

    pixels = decode(splits.photos, options.image_px)
    with tempfile.TemporaryDirectory() as folder:
        for side in ("train", "validation", "test"):
            indices = getattr(splits, side)
            images, positions = pixels.read(indices)
            np.save(Path(folder, f"{side}_x.npy"), images)
            np.save(Path(folder, f"{side}_y.npy"), splits.photos.labels[positions])
        command = [sys.executable, "-m", "tests.bench.few", "--worker", folder]
        command += ["--photos", options.photos, "--weights", options.weights]
        command += ["--backbone", options.backbone, "--seeds", str(seed)]
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.decode().strip().splitlines()[-1]))


def _keras(folder: Path, options: argparse.Namespace) -> None:
    """Keras' recipe, as its guide has it; the last line printed is what came out."""
    import keras

    from scenelearn.backbones import find
    from scenelearn.finetune._environment import environment
    from scenelearn.metrics import wilson

    start = time.perf_counter()
    keras.utils.set_random_seed(options.seeds[0])
    x, y, x_test, y_test = (
        np.load(folder / f"{name}.npy") for name in ("train_x", "train_y", "test_x", "test_y")
    )
    known = find(options.backbone)
    width = {} if known.width is None else {"alpha": known.width}
    base = known.build(include_top=False, weights=options.weights, input_shape=x.shape[1:], **width)
    base.trainable = False
    inputs = keras.Input(x.shape[1:])
    z = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    z = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(z), training=False)
    z = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(z))
    model = keras.Model(inputs, keras.layers.Dense(int(y.max()) + 1)(z))
    right = []
    for rate, n_epochs in ((1e-3, _EPOCHS_FROZEN), (1e-5, _EPOCHS_ALL)):
        model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(True))
        model.fit(x, y, batch_size=32, epochs=n_epochs, verbose=0)
        right.append(int((model.predict(x_test, verbose=0).argmax(axis=1) == y_test).sum()))
        base.trainable = True
    n = len(y_test)
    found = {
        "test": wilson(right[1], n).to_json(),
        "test_frozen": wilson(right[0], n).to_json(),
        "seconds": round(time.perf_counter() - start, 1),
        "environment": environment(),
    }
    print("\n" + json.dumps(found), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.few")
    parser.add_argument("--photos", required=True, help="one folder a class")
    parser.add_argument("--weights", required=True, help="a weights file for [-1, 1] inputs")
    parser.add_argument("--out", default="docs/results/few.json")
    parser.add_argument("--backbone", default="mobilenet_v2_0.35")
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
