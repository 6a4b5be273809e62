"""Accuracy of the linear probe with inner feature maps beside the last ones.

    python -m tests.bench.inner_features --photos FOLDER --backbone FILE.keras mobilenet_v2=FILE.h5
        [--out docs/results/inner_features.json]

The features of a photo are the averages of the network's last feature maps, and of those after its
last k residual connections, all from one forward pass. For each k, the linear probe is fitted and
judged by five-fold cross-validation on the training and validation photos of split 0; equal
photos stay in one fold, and its L2 penalty is chosen on the other four folds. Test photos are
not used. The intervals are those of the difference to k = 0 on the same photos.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

import scenelearn as sl
from scenelearn import finetune
from scenelearn.finetune._device import environment, fingerprint
from tests.bench._common import _Z95, add_network_options, add_out, bench_parser, write_json

N_FOLDS = 5
N_INNER = (0, 1, 2, 3, 6)


def inner_features(network: Any, n: int) -> tuple[Any, list[int]]:
    """A network that gives a vector: averages of the last and of `n` inner feature maps.

    Args:
        network: functional, from an image to feature maps.
        n: residual connections, counted from the output.

    Returns:
        The network, and where the features of each feature map end: (1 + n) columns.
    """
    import keras

    inner = [layer.output for layer in network.layers if isinstance(layer, keras.layers.Add)]
    outputs = [network.output, *inner[::-1][:n]]
    vectors = [
        keras.layers.GlobalAveragePooling2D(name=f"mean_{k}")(x) for k, x in enumerate(outputs)
    ]
    joined = keras.layers.Concatenate()(vectors)
    return keras.Model(network.input, joined), np.cumsum([v.shape[-1] for v in vectors]).tolist()


def cross_validate(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    groups: npt.NDArray[np.int64],
    n_classes: int,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Whether each photo is classified correctly by the probe of the other folds, and its loss."""
    fold = np.random.default_rng(0).permutation(groups.max() + 1)[groups] % N_FOLDS
    is_correct, losses = np.zeros(len(labels), bool), np.zeros(len(labels))
    for k in range(N_FOLDS):
        fitted, held_out = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        probe = finetune.cross_validate_l2(
            features[fitted], labels[fitted], n_classes, groups=groups[fitted]
        ).probe
        logits = probe.logits(features[held_out])
        is_correct[held_out] = logits.argmax(axis=1) == labels[held_out]
        losses[held_out] = -log_softmax(logits, axis=1)[range(len(held_out)), labels[held_out]]
    return is_correct, losses


def load(backbone: str, weights: str, image_px: int) -> tuple[Any, str]:
    """A functional network to feature maps, and its preprocessing."""
    import keras

    if backbone.endswith(".keras"):
        return keras.saving.load_model(backbone, compile=False), "none"
    built = sl.backbones.build(backbone, weights=weights, image_px=image_px)
    inner = built.get_layer("backbone")
    return keras.Model(
        inner.input, inner.layers[-1].input
    ), "tf" if "v3" not in backbone else "none"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the rows."""
    parser = bench_parser("inner_features", __doc__)
    add_network_options(parser, several=True)
    add_out(parser, "inner_features")
    options = parser.parse_args(arguments)
    photos = sl.scan(options.photos)
    splits = sl.split(photos, seed=0)
    rows = np.concatenate([splits.train, splits.validation])
    groups = np.unique(photos.hashes, return_inverse=True)[1][rows]
    labels = np.asarray(photos.labels, np.int32)[rows]
    results: list[dict[str, Any]] = []
    for name in options.backbone:
        backbone, _, weights = name.partition("=")
        network, preprocessing = load(backbone, weights or options.weights, options.image_px)
        pooled, ends = inner_features(network, max(N_INNER))
        features = finetune.extract_features(
            photos, backbone=pooled, preprocessing=preprocessing, image_px=options.image_px
        )[rows]
        first: Any = None
        for n in N_INNER:
            if n >= len(ends):
                continue
            is_correct, losses = cross_validate(
                features[:, : ends[n]], labels, groups, len(photos.class_names)
            )
            first = (is_correct, losses) if first is None else first
            gain = is_correct.astype(float) - first[0]
            results.append(
                {
                    "network": Path(backbone).name, "n_inner": n, "n_features": ends[n],
                    "accuracy": is_correct.mean(), "log_loss": losses.mean(),
                    "gain": gain.mean(),
                    "gain_margin": _Z95 * gain.std(ddof=1) / len(gain) ** 0.5,
                }
            )  # fmt: skip
            print(results[-1], file=sys.stderr, flush=True)
    result = {
        "command": "python -m tests.bench.inner_features", "image_px": options.image_px,
        "photos": {"n": len(rows), "fingerprint": fingerprint(photos)}, "rows": results,
        "environment": environment(),
    }  # fmt: skip
    write_json(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
