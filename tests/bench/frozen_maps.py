"""What a training step takes where the maps of the layers that do not train are kept.

    python -m tests.bench.frozen_maps [--backbone NAME …] [--image-px 160] [--rounds 5]
        [--out docs/results/frozen_maps.json]

Fine-tuning trains the upper layers. Those below give the same maps whenever they see the same
picture, and where the views of a photo come again, `fit` keeps them. Of each network a training
step of the whole, its photos at hand; one from kept maps on, these at hand; and the pass forward
that gives them. They take turns; the median of the ratios counts. Weights are random: the time does
not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from scenelearn import backbones
from scenelearn._io import atomic_write
from scenelearn.classify import outputs
from scenelearn.finetune import FitSettings, Recipe, _network
from scenelearn.finetune._environment import environment
from scenelearn.finetune._start import prepare

_NETWORKS = ("mobilenet_v3_small", "mobilenet_v2_0.35", "mobilenet_v2", "efficientnet_b0")
_TRAINED = ("coarse", "coarsest")
_BATCH, _N_CLASSES, _CALLS = 32, 6, 3


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.frozen_maps")
    parser.add_argument("--backbone", nargs="+", default=_NETWORKS)
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="docs/results/frozen_maps.json", help="[%(default)s]")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.backbone:
        for trained in _TRAINED:
            rows.append(measured(name, options.image_px, trained, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
    found = {
        "command": "python -m tests.bench.frozen_maps",
        "batch": _BATCH,
        "image_px": options.image_px,
        "rounds": options.rounds,
        "environment": environment(),
        "rows": rows,
    }
    with atomic_write(Path(options.out)) as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(name: str, image_px: int, trained: str, n_rounds: int) -> dict[str, Any]:
    """Of one network: milliseconds a photo, and the bytes of maps to keep of one."""
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, image_px, image_px, 3), np.uint8)
    labels = np.eye(_N_CLASSES, dtype=np.float32)[np.arange(_BATCH) % _N_CLASSES]
    settings = FitSettings(backbone=name, image_px=image_px, recipe=Recipe(trained=trained))
    features, whole = _built(settings)
    prepare(features, whole, settings)
    below, above = _parted(settings)
    maps = outputs(below, [images], _BATCH)
    times: list[tuple[float, float, float]] = []
    for _ in range(1 + n_rounds):
        step = _fastest(lambda: whole.train_on_batch(images, labels))
        kept = _fastest(lambda: above.train_on_batch(maps, labels))
        times.append((step, kept, _fastest(lambda: outputs(below, [images], _BATCH))))
    times = times[1:]  # the first ones compile
    step_ms, kept_ms, below_ms = (min(of) for of in zip(*times, strict=True))
    return {
        "backbone": name,
        "trained": trained,
        "step_ms": round(step_ms, 3),
        "kept_ms": round(kept_ms, 3),
        "below_ms": round(below_ms, 3),
        "ratio": round(statistics.median(step / kept for step, kept, _ in times), 3),
        "kept_bytes": 4 * int(np.prod(maps.shape[1:])),
    }


def _parted(settings: FitSettings) -> tuple[Any, Any]:
    """A network in two parts, the upper one ready to train."""
    features, to_logits = _built(settings)
    parts = _network.parted(features, to_logits)
    assert parts is not None
    prepare(features, parts[1], settings)
    return parts


def _built(settings: FitSettings) -> tuple[Any, Any]:
    """The network of features, its lower layers frozen, and it with a head."""
    features = backbones.build(settings.backbone, weights=None, image_px=settings.image_px)
    backbones.fast_on_cpu(backbones.keep_statistics(features))
    to_logits, _ = _network.with_blank_head(features, _N_CLASSES)
    _network.choose_trained(features, settings.image_px, settings.recipe.trained)
    return features, to_logits


def _fastest(call: Any) -> float:
    """Milliseconds a photo, of the fastest of a few calls."""
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds) / _BATCH


if __name__ == "__main__":
    main()
