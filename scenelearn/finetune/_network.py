"""The network: preprocessing and backbone with a head on top, and which of its layers train."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from scenelearn import backbones
from scenelearn._backend import keras
from scenelearn._keras_internals import consumers_of, nested_layers
from scenelearn.backbones._network import Network
from scenelearn.classify._bundle_checks import check_layers
from scenelearn.finetune._linear_probe import LinearProbe
from scenelearn.finetune._settings import FitSettings

# The largest feature maps of trained layers, as a fraction of the image width.
_MAX_SIZE = {"stride16": 1 / 16, "all": np.inf, "none": -1.0}

_log = logging.getLogger(__name__)


def build_features(settings: FitSettings, network: Network | None = None) -> Any:
    """Build the network from raw pixels to features, in the form that is fast on a CPU.

    Args:
        settings: of the fit, with the name of the backbone.
        network: the backbone, if it is one of the user's own.

    Raises:
        ArgumentError: if its layers cannot be saved in a bundle.
    """
    features = backbones.build(
        settings.backbone if network is None else network,
        weights=settings.weights,
        image_px=settings.image_px,
        seed=settings.seed,
        train_batchnorm=settings.recipe.train_batchnorm,
        precision=settings.precision,
    )
    if network is not None:
        check_layers(features)
    return backbones.fast_on_cpu(features)


def add_head(features: Any, probe: LinearProbe) -> tuple[Any, Any]:
    """Add a head to a model of features.

    Args:
        features: from raw pixels to (batch, n_features).
        probe: initial weights of the head.

    Returns:
        Two models that share all layers: to logits, for training, and to probabilities.
    """
    k = keras()
    kernel, bias = k.ops.convert_to_tensor(probe.kernel), k.ops.convert_to_tensor(probe.bias)
    dense = k.layers.Dense(len(probe.bias), dtype="float32", name="logits")
    # Random initial values would be replaced below, and differ between processes.
    initializer, dense.kernel_initializer = dense.kernel_initializer, k.initializers.Zeros()
    dense.build(features.output.shape)
    dense.kernel_initializer = initializer
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)
    logits = dense(features.output)
    probabilities = k.layers.Softmax(dtype="float32", name="probabilities")(logits)
    model = k.Model(features.input, probabilities, name="scenes")
    return k.Model(features.input, logits), model


def add_zero_head(features: Any, n_classes: int) -> tuple[Any, Any]:
    """As `add_head`, with all weights of the head 0.

    Args:
        features: from `backbones.build`.
        n_classes: number of classes.
    """
    kernel = np.zeros((int(features.output.shape[-1]), n_classes), np.float32)
    return add_head(features, LinearProbe(kernel=kernel, bias=kernel[0].copy(), l2=1))


def freeze_layers(features: Any, image_px: int, unfreeze: str) -> None:
    """Freeze the lower layers of the backbone, and make the others trainable.

    Args:
        features: from `backbones.build`.
        image_px: width and height of its input.
        unfreeze: "stride16", "all" or "none", see `Recipe`.
    """
    max_px = np.ceil(image_px * _MAX_SIZE[unfreeze])
    frozen = set[int]()  # what large feature maps depend on, including squeeze-and-excitation
    for operation in reversed(features.get_layer("backbone").operations):
        consumers = {id(consumer) for consumer in consumers_of(operation)}
        if _feature_map_px(operation) > max_px or consumers & frozen:
            frozen.add(id(operation))
        if isinstance(operation, keras().Layer):
            operation.trainable = id(operation) not in frozen
    if unfreeze != "none" and not features.get_layer("backbone").trainable_variables:
        _log.warning(
            "Only the head is trained: the network has no feature maps as small as unfreeze=%r "
            "requires.",
            unfreeze,
        )


def _feature_map_px(operation: Any) -> float:
    """Width and height of an operation's output; 0 if it is not a feature map, or only padded."""
    shape = tuple(getattr(operation.output, "shape", ()))
    is_padding = isinstance(operation, keras().layers.ZeroPadding2D)
    return 0 if len(shape) != 4 or is_padding else np.inf if shape[1] is None else shape[1]


def prepare_random_weights(features: Any, to_logits: Any) -> None:
    """Prepare random weights for training: faster BatchNormalization statistics, and a zero head.

    BatchNormalization made for ImageNet averages over a thousand steps, more than a short run has.
    And the linear probe of random features does not fit the features that will be learned.

    Args:
        features: from `backbones.build`, with random weights.
        to_logits: the same network with its head.
    """
    for layer in nested_layers(features.get_layer("backbone")):
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.9
    divide_logits(to_logits, np.inf)


def divide_logits(model: Any, divisor: float) -> None:
    """Divide the weights of the head in place, so that a temperature becomes part of them."""
    dense = model.get_layer("logits")
    dense.kernel.assign(dense.kernel / divisor)
    dense.bias.assign(dense.bias / divisor)
