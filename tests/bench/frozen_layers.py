"""Time of a training step when the activations of frozen layers are cached.

    python -m tests.bench.frozen_layers [--backbone NAME …] [--image-px 160] [--rounds 5]
        [--out docs/results/frozen_layers.json]

Fine-tuning trains the upper layers. The frozen layers below compute the same activations whenever
they see the same image, so `fit` caches them where the views of a photo repeat. For each network
this times a training step from images in memory, a training step from cached activations in memory,
and the forward pass that computes these. The three take turns; the median ratio counts. Weights are
random: they do not affect the time.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import numpy as np

from scenelearn import backbones
from scenelearn.classify._inference import predict_images
from scenelearn.finetune import FitSettings, Recipe, _network
from scenelearn.finetune._device import environment
from scenelearn.finetune._learner import compile_learner
from tests.bench._common import add_out, bench_parser, write_json

_NETWORKS = ("mobilenet_v3_small", "mobilenet_v2_0.35", "mobilenet_v2", "efficientnet_b0")
_UNFREEZE = ("stride16", "stride32")
_BATCH, _N_CLASSES, _CALLS = 32, 6, 3


def main(arguments: list[str] | None = None) -> None:
    parser = bench_parser("frozen_layers", __doc__)
    parser.add_argument("--backbone", metavar="NAME", nargs="+", default=_NETWORKS)
    parser.add_argument("--image-px", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    add_out(parser, "frozen_layers")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.backbone:
        for unfreeze in _UNFREEZE:
            rows.append(measure(name, options.image_px, unfreeze, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
    table = {
        "command": "python -m tests.bench.frozen_layers",
        "batch_size": _BATCH,
        "image_px": options.image_px,
        "rounds": options.rounds,
        "environment": environment(),
        "rows": rows,
    }
    write_json(options.out, table)


def measure(name: str, image_px: int, unfreeze: str, n_rounds: int) -> dict[str, Any]:
    """Milliseconds per photo of one network, and the bytes of its cached activations per photo."""
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, image_px, image_px, 3), np.uint8)
    labels = np.eye(_N_CLASSES, dtype=np.float32)[np.arange(_BATCH) % _N_CLASSES]
    settings = FitSettings(backbone=name, image_px=image_px, recipe=Recipe(unfreeze=unfreeze))
    features, full = _build(settings)
    compile_learner(features, full, settings)
    frozen, trained = _build_parts(settings)
    activations = predict_images(frozen, [images], _BATCH)
    times: list[tuple[float, float, float]] = []
    for _ in range(1 + n_rounds):
        full_step = _fastest(lambda: full.train_on_batch(images, labels))
        cached_step = _fastest(lambda: trained.train_on_batch(activations, labels))
        forward = _fastest(lambda: predict_images(frozen, [images], _BATCH))
        times.append((full_step, cached_step, forward))
    times = times[1:]  # the first ones compile
    full_ms, cached_ms, forward_ms = (min(column) for column in zip(*times, strict=True))
    return {
        "backbone": name,
        "unfreeze": unfreeze,
        "full_step_ms": round(full_ms, 3),
        "cached_step_ms": round(cached_ms, 3),
        "frozen_forward_ms": round(forward_ms, 3),
        "ratio": round(statistics.median(full / cached for full, cached, _ in times), 3),
        "cached_bytes": 4 * int(np.prod(activations.shape[1:])),
    }


def _build_parts(settings: FitSettings) -> tuple[Any, Any]:
    """A network in two parts, the upper one compiled for training."""
    features, to_logits = _build(settings)
    parts = _network.split_at_frozen(features, to_logits)
    assert parts is not None
    compile_learner(features, parts[1], settings)
    return parts


def _build(settings: FitSettings) -> tuple[Any, Any]:
    """A backbone whose lower layers are frozen, and the same with a head."""
    features = backbones.build(settings.backbone, weights=None, image_px=settings.image_px)
    backbones.fast_on_cpu(backbones.freeze_batchnorm(features))
    to_logits, _ = _network.add_zero_head(features, _N_CLASSES)
    _network.freeze_layers(features, settings.image_px, settings.recipe.unfreeze)
    return features, to_logits


def _fastest(call: Any) -> float:
    """Milliseconds per photo of the fastest of a few calls."""
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds) / _BATCH


if __name__ == "__main__":
    main()
