"""How much faster the CPU forms are than plain Keras on JAX: ratios within one run.

python -m tests.bench.speed [--backbone NAME …] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scenelearn import backbone
from scenelearn._backend import keras
from scenelearn.finetune._environment import environment

_BATCH = 32


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["mobilenet_v2_0.35", "mobilenet_0.25"])
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--out", help="a JSON file to write")
    options = parser.parse_args(arguments)
    rows = [_row(name, options.image_px) for name in options.backbone]
    if options.out:
        table = {"command": "python -m tests.bench.speed", "rows": rows}
        text = json.dumps(table | {"environment": environment()}, indent=1)
        Path(options.out).write_text(text + "\n")


def _row(name: str, image_px: int) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, image_px, image_px, 3))
    images = images.astype(np.uint8)
    labels = np.zeros(_BATCH, np.int32)
    ms: dict[str, float] = {}
    for form in ("plain", "fast"):
        features = backbone.build(name, weights=None, image_px=image_px)
        if form == "fast":
            backbone.fast_on_cpu(features)
        backbone.keep_statistics(features)
        k = keras()
        model = k.Sequential([features, k.layers.Dense(6)])
        model.compile("sgd", k.losses.SparseCategoricalCrossentropy(from_logits=True))
        ms[f"predict_{form}"] = _ms(lambda f=features: f.predict_on_batch(images))
        ms[f"train_{form}"] = _ms(lambda m=model: m.train_on_batch(images, labels))
    row = {"backbone": name, "image_px": image_px, "batch": _BATCH}
    row |= {f"{key}_ms_per_image": round(value, 2) for key, value in ms.items()}
    for what in ("predict", "train"):
        row[f"{what}_ratio"] = round(ms[f"{what}_plain"] / ms[f"{what}_fast"], 1)
    print(json.dumps(row), flush=True)
    return row


def _ms(call: Callable[[], Any]) -> float:
    """Milliseconds an image, the best of three after compilation."""
    call()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        np.asarray(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds) / _BATCH * 1e3


if __name__ == "__main__":
    main()
