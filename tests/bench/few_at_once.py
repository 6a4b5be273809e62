"""Milliseconds to predict a few photos: one by one, and as one padded batch of 32.

    python -m tests.bench.few_at_once [--backbones NAME …] [--sizes 1 2 4 8 16]
        [--out docs/results/few_at_once.json]

Images in memory, and networks with random weights, which take the same time as others. Both ways
alternate, and each time is a median. `Classifier.predict` takes the first way for up to eight
photos.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from scenelearn import backbones
from scenelearn.classify import Classifier
from scenelearn.finetune._device import environment
from scenelearn.finetune._model import add_zero_head
from tests.bench._common import add_out, bench_parser, write_json

_NAMES = tuple("abcdef")


def main() -> None:
    """Time each network with each number of photos."""
    parser = bench_parser("few_at_once", __doc__)
    parser.add_argument(
        "--backbones", metavar="NAME", nargs="+",
        default=["scenelearn_tiny", "mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0"],
    )  # fmt: skip
    parser.add_argument("--image-px", metavar="N", type=int, default=160)
    parser.add_argument("--sizes", metavar="N", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", metavar="N", type=int, default=15)
    add_out(parser, "few_at_once")
    options = parser.parse_args()
    rows = []
    for name in options.backbones:
        classifier = build_classifier(name, options.image_px)
        for size in options.sizes:
            rows.append({"backbone": name, "image_px": options.image_px, "photos": size})
            rows[-1] |= time_both(classifier, size, options.rounds)
            print(rows[-1], flush=True)
    table = {"command": "python -m tests.bench.few_at_once", "environment": environment()}
    write_json(options.out, table | {"rounds": options.rounds, "rows": rows})


def build_classifier(name: str, image_px: int) -> Classifier:
    """A classifier of six classes with random weights."""
    features = backbones.build(name, weights=None, image_px=image_px)
    _, model = add_zero_head(features, len(_NAMES))
    return Classifier(model=model, class_names=_NAMES, image_px=image_px, metadata={})


def time_both(classifier: Classifier, n: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds of both ways."""
    px = classifier.image_px
    images = np.random.default_rng(0).integers(0, 256, (n, px, px, 3), dtype=np.uint8)
    seconds: dict[int, list[float]] = {1: [], 32: []}
    for k in range(rounds + 1):
        for batch_size, times in seconds.items():
            start = time.perf_counter()
            classifier._predict_images(images, batch_size)
            if k:  # the first time compiles
                times.append(time.perf_counter() - start)
    one, batch = (round(1000 * statistics.median(times), 2) for times in seconds.values())
    return {"one_by_one_ms": one, "batch_ms": batch}


if __name__ == "__main__":
    main()
