"""Labels that `sl.rank` saves: accuracy after labeling the photos that it chooses, or random ones.

    python -m tests.bench.rank --photos FOLDER --weights FILE [--seeds 0 1 2]
        [--out docs/results/rank.json]

30% of the photos are for the test, without any duplicate of the others. Of the others, 10 per class
have labels at first. Then, three times, 100 more get theirs: chosen as by `sl.rank`; by the margin
alone; or at random. The classifier is a linear probe on the features of the frozen backbone, with
the L2 penalty that cross-validation chooses, fitted again each time. A minute, once the features
are cached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

import scenelearn as sl
from scenelearn.classify._neighbors import build_neighbor_index
from scenelearn.classify._ranking import sample_diverse, top_two_margin
from scenelearn.finetune._device import environment
from tests.bench._common import start_on_features, write_json

PER_CLASS, MORE, ROUNDS = 10, 100, 3
METHODS = ("random", "margin", "rank")

Indices = npt.NDArray[np.int64]


def choose(method: str, probe: Any, features: Any, labeled: Indices, rest: Indices) -> Indices:
    """Which of the rest to label next; `rest` is in random order."""
    if method == "random":
        return rest[:MORE]
    margin = top_two_margin(softmax(probe.logits(features[rest]), axis=1))
    if method == "margin":
        return rest[np.argsort(margin, kind="stable")[:MORE]]
    index = build_neighbor_index(
        features[labeled], np.zeros(len(labeled), np.int32), ("",) * len(labeled)
    )
    return rest[sample_diverse(index.embed(features[rest]).astype(np.float16), 1 - margin, MORE)]


def main() -> None:
    """Label more and more photos, and measure the accuracy each time."""
    options, photos, features = start_on_features("rank", __doc__)
    groups, labels, n_classes = sl.audit(photos).groups, photos.labels, photos.n_classes
    runs = []
    for seed in options.seeds:
        splits = sl.split(photos, validation=0, test=0.3, seed=seed, groups=groups)
        order = np.random.default_rng([seed, 0]).permutation(splits.train)
        for method in METHODS:
            labeled = np.concatenate(
                [order[labels[order] == label][:PER_CLASS] for label in range(n_classes)]
            )
            accuracy = {}
            for _ in range(ROUNDS + 1):
                probe = sl.finetune.cross_validate_l2(
                    features[labeled], labels[labeled], n_classes
                ).probe
                correct = probe.logits(features[splits.test]).argmax(axis=1) == labels[splits.test]
                accuracy[len(labeled)] = float(correct.mean())
                rest = order[~np.isin(order, labeled)]
                more = choose(method, probe, features, labeled, rest)
                labeled = np.concatenate([labeled, more])
            runs.append({"seed": seed, "method": method, "accuracy": accuracy})
            print(runs[-1], flush=True)
    table = {
        "command": "python -m tests.bench.rank",
        "environment": environment(),
        "photos": {"n": len(photos), "classes": list(photos.class_names)},
        "network": {"backbone": options.backbone, "image_px": options.image_px},
        "runs": runs,
    }
    write_json(options.out, table)


if __name__ == "__main__":
    main()
