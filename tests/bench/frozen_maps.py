"""How much of a training step the layers take that do not train.

    python -m tests.bench.frozen_maps [--backbone NAME …] [--image-px 160] [--rounds 5]
        [--out docs/results/frozen_maps.json]

Fine-tuning trains the layers with coarse maps. Those below give the same maps whenever they see the
same picture, and a fit could keep these. What would that save? Of each network a training step as
`fit` makes it, its photos at hand; and the pass forward up to the first layer that trains. They
take turns; the median of the ratios counts. Weights are random: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from scenelearn import backbone
from scenelearn._backend import keras
from scenelearn.data import written_whole
from scenelearn.finetune import FitSettings
from scenelearn.finetune._environment import environment
from scenelearn.finetune._network import with_blank_head
from scenelearn.finetune._start import prepare

_NETWORKS = ("mobilenet_v3_small", "mobilenet_v2_0.35", "mobilenet_v2", "efficientnet_b0")
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
        rows.append(measured(name, options.image_px, options.rounds))
        print(json.dumps(rows[-1]), flush=True)
    found = {
        "command": "python -m tests.bench.frozen_maps",
        "batch": _BATCH,
        "image_px": options.image_px,
        "rounds": options.rounds,
        "environment": environment(),
        "rows": rows,
    }
    with written_whole(Path(options.out)) as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(name: str, image_px: int, n_rounds: int) -> dict[str, Any]:
    """Of one network: milliseconds a photo, and the bytes of maps to keep of one."""
    images = np.random.default_rng(0).integers(0, 256, (_BATCH, image_px, image_px, 3), np.uint8)
    labels = np.eye(_N_CLASSES, dtype=np.float32)[np.arange(_BATCH) % _N_CLASSES]
    model, (below, kept) = _prepared(name, image_px)[1], below_what_trains(name, image_px)
    times: list[tuple[float, float]] = []
    for _ in range(1 + n_rounds):
        step = _fastest(lambda: model.train_on_batch(images, labels))
        times.append((step, _fastest(lambda: below.predict_on_batch(images))))
    times = times[1:]  # the first ones compile
    shares = [forward / step for step, forward in times]
    return {
        "backbone": name,
        "step_ms": round(min(step for step, _ in times), 3),
        "below_ms": round(min(forward for _, forward in times), 3),
        "below_share": round(statistics.median(shares), 3),
        "kept_bytes": kept,
    }


def below_what_trains(name: str, image_px: int) -> tuple[Any, int]:
    """The pass forward up to the first layers that train, as a model that is fast on a CPU.

    And the bytes of the maps that a fit would have to keep of a photo: the fewest that are handed
    on anywhere in it, as the last maps before training begins may be wide ones.
    """
    features, _ = _prepared(name, image_px)
    network = features.get_layer("backbone")
    operations = network.operations
    first = next(k for k, one in enumerate(operations) if getattr(one, "trainable_variables", ()))
    x = features.input
    for layer in features.layers[1:-1]:  # the preprocessing
        x = layer(x)
    below = keras().Model(network.input, handed_on(operations, first))
    kept = min(
        sum(4 * int(np.prod(one.shape[1:])) for one in handed_on(operations, k))
        for k in range(1, first + 1)
    )
    return backbone.fast_on_cpu(keras().Model(features.input, below(x))), kept


def handed_on(operations: list[Any], first: int) -> list[Any]:
    """What the operations from a certain one on have from those before it."""
    later = {id(one) for one in operations[first:]}
    return [
        one.output
        for one in operations[:first]
        if any(id(node.operation) in later for node in one._outbound_nodes)
    ]


def _prepared(name: str, image_px: int) -> tuple[Any, Any]:
    """The network of features, and it with a head, ready to train."""
    features = backbone.keep_statistics(backbone.build(name, weights=None, image_px=image_px))
    to_logits, _ = with_blank_head(backbone.fast_on_cpu(features), _N_CLASSES)
    prepare(features, to_logits, FitSettings(backbone=name, image_px=image_px))
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
