"""Test-time augmentation: average the outputs for a photo and its mirror image."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras

WIDTH_AXIS = 2  # of images (batch, height, width, 3): the axis that a horizontal flip reverses
_AVERAGE = "tta_average"  # the layer's name in a saved model


def with_hflip_tta(model: Any) -> Any:
    """A model that averages the features of each image and of its mirror image.

    The logits are linear in the features, so this averages the logits, too.

    Args:
        model: a classifier's model: preprocessing, "backbone", "logits", "probabilities".

    Returns:
        A `keras.Model` that shares all layers and weights with `model`. Inference takes twice as
        long.
    """
    k = keras()
    x, backbone = backbone_input(model)
    average = k.layers.Average(dtype="float32", name=_AVERAGE)(call_on_both(backbone, x))
    logits = model.get_layer("logits")(average)
    return k.Model(model.input, model.get_layer("probabilities")(logits), name=model.name)


def call_on_both(network: Any, x: Any) -> list[Any]:
    """The outputs of a network for images, and for their mirror images."""
    return [network(x), network(keras().ops.flip(x, axis=WIDTH_AXIS))]


def has_hflip_tta(model: Any) -> bool:
    """Whether a classifier's model averages over the mirror image."""
    return any(layer.name == _AVERAGE for layer in model.layers)


def backbone_input(model: Any) -> tuple[Any, Any]:
    """The symbolic input of a classifier's backbone, and the backbone itself."""
    x = model.input
    for layer in model.layers[1:]:
        if layer.name == "backbone":
            break
        x = layer(x)
    return x, layer


def layer_names(model: Any) -> list[str]:
    """The names of the layers after the preprocessing, in the order in which `fit` adds them."""
    average = [_AVERAGE] if has_hflip_tta(model) else []
    return ["backbone", *average, "logits", "probabilities"]
