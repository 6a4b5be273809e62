"""The whole network: preprocessing and backbone with a head on top, and which part trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from scenelearn import backbone as backbones
from scenelearn._backend import keras
from scenelearn.finetune._head import Head
from scenelearn.finetune._settings import FitSettings

_COARSE = 16  # layers whose maps are at least this many times smaller than the image


def features_for(settings: FitSettings) -> Any:
    """The network of features that a fit begins with, fast on a CPU.

    Args:
        settings: with the network's name.
    """
    features = backbones.build(
        settings.backbone,
        weights=settings.weights,
        image_px=settings.image_px,
        seed=settings.seed,
        batch_statistics=settings.recipe.batch_statistics,
        precision=settings.precision,
    )
    return backbones.fast_on_cpu(features)


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
    # Drawn values would be replaced below, and differ from process to process.
    usual, dense.kernel_initializer = dense.kernel_initializer, k.initializers.Zeros()
    dense.build(features.output.shape)
    dense.kernel_initializer = usual
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)
    logits = dense(features.output)
    probabilities = k.layers.Softmax(dtype="float32", name="probabilities")(logits)
    return k.Model(features.input, logits), k.Model(features.input, probabilities, name="scenes")


def with_blank_head(features: Any, n_classes: int) -> tuple[Any, Any]:
    """As `with_head`, with a head of zeros.

    Args:
        features: from `backbone.build`.
        n_classes: how many classes.
    """
    kernel = np.zeros((int(features.output.shape[-1]), n_classes), np.float32)
    return with_head(features, Head(kernel=kernel, bias=kernel[0].copy(), strength=1))


def choose_trained(features: Any, image_px: int, trained: str) -> None:
    """Freeze layers of the backbone, and let the others train.

    Args:
        features: from `backbone.build`.
        image_px: its image size.
        trained: "coarse", "all" or "head", see `Recipe`.
    """
    largest = {"coarse": np.ceil(image_px / _COARSE), "all": np.inf, "head": -1}[trained]
    frozen = set[int]()  # what large maps are made from, squeeze-and-excitation too
    for operation in reversed(features.get_layer("backbone").operations):
        fed = {id(node.operation) for node in operation._outbound_nodes}
        if _map_px(operation) > largest or fed & frozen:
            frozen.add(id(operation))
        if isinstance(operation, keras().Layer):
            operation.trainable = id(operation) not in frozen


def _map_px(operation: Any) -> float:
    """Width and height of what comes out; 0 if it is no map, or one with a border added."""
    shape = tuple(getattr(operation.output, "shape", ()))
    border = isinstance(operation, keras().layers.ZeroPadding2D)
    return 0 if len(shape) != 4 or border else np.inf if shape[1] is None else shape[1]


def start_afresh(features: Any, to_logits: Any) -> None:
    """Prepare random weights for training: a short memory, and a head of zeros.

    BatchNormalization made for ImageNet remembers a thousand steps, more than a short run has.
    And a head that was solved for random features fits none that are being learned.

    Args:
        features: from `backbone.build`, with random weights.
        to_logits: the same with its head.
    """
    for layer in features.get_layer("backbone").layers:
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.9
    divide_logits(to_logits, np.inf)


def divide_logits(model: Any, by: float) -> None:
    """Divide the head's values in place: so a temperature becomes part of the weights."""
    dense = model.get_layer("logits")
    dense.kernel.assign(dense.kernel / by)
    dense.bias.assign(dense.bias / by)
