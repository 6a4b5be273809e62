"""A classifier's network that looks at each photo once, or at its mirror image as well."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras

ACROSS = 2  # the axis of images along which a mirror image is reversed
_MEAN = "mean_of_views"  # the layer's name in a saved file


def mirrored(model: Any) -> Any:
    """A network that answers by the mean of what a photo and its mirror image have.

    The mean is taken of the features, and so of the logits, which are linear in them.

    Args:
        model: a classifier's: preprocessing, "backbone", "logits", "probabilities".

    Returns:
        A `keras.Model` that shares all layers and weights with it, for twice the time.
    """
    k = keras()
    x, backbone = entrance(model)
    mean = k.layers.Average(dtype="float32", name=_MEAN)(both_views(backbone, x))
    logits = model.get_layer("logits")(mean)
    return k.Model(model.input, model.get_layer("probabilities")(logits), name=model.name)


def both_views(network: Any, x: Any) -> list[Any]:
    """What a network has for images, and what for their mirror images."""
    return [network(x), network(keras().ops.flip(x, axis=ACROSS))]


def is_mirrored(model: Any) -> bool:
    """Whether a classifier's network looks at the mirror image of each photo as well."""
    return any(layer.name == _MEAN for layer in model.layers)


def entrance(model: Any) -> tuple[Any, Any]:
    """What a classifier's backbone is given, a tensor of its graph, and the backbone."""
    x = model.input
    for layer in model.layers[1:]:
        if layer.name == "backbone":
            break
        x = layer(x)
    return x, layer


def parts_of(model: Any) -> list[str]:
    """The names of what comes after the preprocessing, in order, as `fit` puts it together."""
    mean = [_MEAN] if is_mirrored(model) else []
    return ["backbone", *mean, "logits", "probabilities"]
