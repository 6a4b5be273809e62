"""Augmentation as a layer of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scenelearn.augment._draw import check_whole
from scenelearn.augment._policy import Policy
from scenelearn.augment._policy import policy as _named

if TYPE_CHECKING:
    import keras


def layer(
    policy: str | Policy | Mapping[str, Any] = "standard", *, seed: int = 0, name: str | None = None
) -> keras.layers.Layer:
    """A Keras layer that varies images while a model trains, and passes them on otherwise.

    It draws within the compiled model, by the layer's own `keras.random.SeedGenerator`, and the
    model stays compiled on JAX. Where you have the photos' indices at hand, `draw` and `apply` in
    your input pipeline give each photo the same draw in any order, and run beside the training
    instead of within it.

    Args:
        policy: a policy, or the name of one.
        seed: of the layer's draws, at least 0.
        name: of the layer.

    Returns:
        The layer: (n, height, width, 3) in and out, uint8 or floats in 0 to 255; height and width
        must be known. It saves and loads with a model; a program that loads one without having
        made one calls `register` before.

    Raises:
        ArgumentError: if there is no such policy, or `seed` is out of range.
        BackendError: if no backend of Keras is installed.

    Example:
        >>> import numpy as np
        >>> vary, images = layer("strong"), np.zeros((2, 8, 8, 3), "uint8")
        >>> vary(images, training=True).shape == images.shape
        True
    """
    bounds = _named(policy)
    check_whole("seed", seed)
    return register()(policy if isinstance(policy, str) else bounds, seed=seed, name=name)


def register() -> type[keras.layers.Layer]:
    """Make the layer known to Keras, so that `keras.saving.load_model` finds it.

    Returns:
        The layer's class.

    Raises:
        BackendError: if no backend of Keras is installed.

    Example:
        >>> register().__name__
        'Augment'
    """
    from scenelearn.augment._keras_layer import Augment

    return Augment
