"""The recipe of Keras' guide "Transfer learning and fine-tuning", in a process of its own.

Random flips and rotations, the backbone frozen for 20 epochs with Adam at 0.001, then all layers
for 10 epochs at 0.00001, on TensorFlow, its fastest backend on a CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def train_keras_recipe(
    splits: Any,
    seed: int,
    options: Any,
    *,
    epochs: tuple[int, int] = (20, 10),
    class_weight: list[float] | None = None,
) -> dict[str, Any]:
    """Train on the training photos of a split, and predict its test photos.

    Args:
        splits: from `sl.split`.
        seed: for Keras' random numbers.
        options: of the bench: `backbone`, `weights`, a file for [-1, 1] inputs, and `image_px`.
        epochs: with the backbone frozen, and of all layers.
        class_weight: for `Model.fit`, one per class.

    Returns:
        `labels` (n_test,), `logits` (n_test, n_classes) after both parts, `logits_frozen` after the
        first, `seconds` and `environment`.
    """
    from scenelearn.data import decode

    pixels = decode(splits.photos, options.image_px)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "test"):
            images, positions = pixels.read(getattr(splits, split))
            np.save(folder / f"{split}_x.npy", images)
            np.save(folder / f"{split}_y.npy", splits.photos.labels[positions])
        settings = {
            "seed": seed,
            "backbone": options.backbone,
            "weights": options.weights,
            "n_classes": splits.photos.n_classes,
            "epochs": epochs,
            "class_weight": class_weight,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "tests.bench._keras_recipe", name]
        subprocess.run(command, env=os.environ | environment, check=True)
        return {
            **json.loads((folder / "result.json").read_text()),
            "labels": np.load(folder / "test_y.npy"),
            "logits_frozen": np.load(folder / "logits_0.npy"),
            "logits": np.load(folder / "logits_1.npy"),
        }


def _work(folder: Path) -> None:
    import keras

    from scenelearn.backbones._names import find_architecture
    from scenelearn.finetune._device import environment

    start = time.perf_counter()
    settings = json.loads((folder / "settings.json").read_text())
    keras.utils.set_random_seed(settings["seed"])
    x, y, x_test = (np.load(folder / f"{name}.npy") for name in ("train_x", "train_y", "test_x"))
    known = find_architecture(settings["backbone"])
    width = {} if known.width is None else {"alpha": known.width}
    weights, shape = settings["weights"], x.shape[1:]
    base = known.build(include_top=False, weights=weights, input_shape=shape, **width)
    base.trainable = False
    inputs = keras.Input(shape)
    z = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    z = base(keras.layers.Rescaling(1 / 127.5, offset=-1)(z), training=False)
    z = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(z))
    model = keras.Model(inputs, keras.layers.Dense(settings["n_classes"])(z))
    class_weight = settings["class_weight"] and dict(enumerate(settings["class_weight"]))
    for part, (rate, n_epochs) in enumerate(zip((1e-3, 1e-5), settings["epochs"], strict=True)):
        model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(True))
        model.fit(x, y, batch_size=32, epochs=n_epochs, class_weight=class_weight, verbose=0)
        np.save(folder / f"logits_{part}.npy", model.predict(x_test, verbose=0))
        base.trainable = True
    result = {
        "seconds": round(time.perf_counter() - start, 1),
        "environment": environment(),
    }
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
