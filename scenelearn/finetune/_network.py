"""The whole network: preprocessing and backbone with a head on top, and which part trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn.finetune._head import Head

_COARSE = 16  # layers whose maps are at least this many times smaller than the image


def with_head(features: Any, head: Head) -> tuple[Any, Any]:
    """Put a head onto a model of features.

    Args:
        features: from raw pixels to (batch, n_features).
        head: its first values.

    Returns:
        Two models that share all layers: to logits, for training, and to probabilities.
    """
    k = keras()
    kernel, bias = k.ops.convert_to_tensor(head.kernel), k.ops.convert_to_tensor(head.bias)
    dense = k.layers.Dense(len(head.bias), dtype="float32", name="logits")
    dense.build(features.output.shape)
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)
    logits = dense(features.output)
    probabilities = k.layers.Softmax(name="probabilities")(logits)
    return k.Model(features.input, logits), k.Model(features.input, probabilities, name="scenes")


def train_upper_layers(features: Any, image_px: int) -> int:
    """Freeze the layers that see fine detail, and let those with coarse maps train.

    Edges and textures carry over from ImageNet as they are; and since their maps are large,
    their gradients would take most of the time.

    Args:
        features: from `backbone.build`.
        image_px: its image size.

    Returns:
        How many layers with weights train.
    """
    network = features.get_layer("backbone")
    largest = image_px / _COARSE
    n_training = 0
    for layer in network.layers:
        shape = layer.output.shape if not isinstance(layer.output, list) else (None,)
        layer.trainable = len(shape) != 4 or shape[1] is None or shape[1] <= np.ceil(largest)
        n_training += bool(layer.trainable_weights)
    return n_training


def divide_logits(probabilities: Any, by: float) -> None:
    """Divide the head's values in place: the temperature becomes part of the weights."""
    dense = probabilities.get_layer("logits")
    dense.kernel.assign(dense.kernel / by)
    dense.bias.assign(dense.bias / by)
