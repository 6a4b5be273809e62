"""Augmentation as a layer of a Keras model."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scenelearn._backend import keras
from scenelearn._checks import check_integer
from scenelearn.augment._apply import apply_arguments
from scenelearn.augment._geometry import compile_on_jax
from scenelearn.augment._policy import Policy
from scenelearn.augment._policy import policy as as_policy
from scenelearn.augment._transforms import N_COLUMNS, compute_arguments, sample_values

if TYPE_CHECKING:
    from keras.layers import Layer


def layer(
    policy: str | Policy | Mapping[str, Any] = "standard", *, seed: int = 0, name: str | None = None
) -> Layer:
    """Create a Keras layer that augments images in training and passes them on at inference.

    It samples its parameters inside the compiled model with the layer's own
    `keras.random.SeedGenerator`, and the model stays compiled on JAX. If your input pipeline knows
    the photos' indices, use `sample` and `apply` there instead: each photo then gets the same
    parameters in any order, and augmentation overlaps with training.

    Args:
        policy: a policy, or the name of one.
        seed: seed of the layer's random numbers, at least 0.
        name: name of the layer.

    Returns:
        The layer: (n, height, width, 3) in and out, uint8 or floats in 0 to 255; height and width
        must be known. It is saved and loaded with the model. A program that loads such a model
        without having created one calls `register` first.

    Raises:
        ArgumentError: if there is no such policy, or `seed` is out of range.
        BackendError: if no Keras backend is installed.

    Example:
        >>> import numpy as np
        >>> augmentation, images = layer("strong"), np.zeros((2, 8, 8, 3), "uint8")
        >>> augmentation(images, training=True).shape == images.shape
        True
    """
    ranges = as_policy(policy)
    seed = check_integer("seed", seed, low=0)
    return register()(policy if isinstance(policy, str) else ranges, seed=seed, name=name)


@functools.cache
def register() -> type[Layer]:
    """Register the layer with Keras, so that `keras.saving.load_model` finds it.

    Returns:
        The layer's class.

    Raises:
        BackendError: if no Keras backend is installed.

    Example:
        >>> register().__name__
        'Augment'
    """
    k = keras()

    @k.saving.register_keras_serializable(package="scenelearn")
    class Augment(k.layers.Layer):  # type: ignore[misc, name-defined]
        """See `scenelearn.augment.layer`."""

        def __init__(self, policy: Any = "standard", seed: int = 0, **kwargs: Any) -> None:
            super().__init__(autocast=False, **kwargs)
            self._given, self._policy, self._seed = policy, as_policy(policy), seed
            self._seed_generator = k.random.SeedGenerator(seed)
            self.built = True

        def call(self, images: Any, training: bool = False) -> Any:
            """Augment the images in training; return them unchanged at inference."""
            if not training or not self._policy.operations:
                return images
            n = k.ops.shape(images)[0]
            u = k.random.uniform((n, N_COLUMNS), dtype="float32", seed=self._seed_generator)
            return apply_arguments(
                images,
                compile_on_jax(_sample_arguments, "policy")(u, policy=self._policy),
                size=(int(images.shape[1]), int(images.shape[2])),
                fill=self._policy.fill,
                max_shrink=1 + float(self._policy.zoom),
            )

        def compute_output_shape(self, input_shape: Any) -> Any:
            """Return the input's shape."""
            return input_shape

        def get_config(self) -> dict[str, Any]:
            """Return the policy and the seed as plain values."""
            policy = self._given if isinstance(self._given, str) else self._policy.to_json()
            return {**super().get_config(), "policy": policy, "seed": self._seed}

    return Augment


def _sample_arguments(u: Any, *, policy: Policy) -> dict[str, Any]:
    ops = keras().ops
    return compute_arguments(sample_values(policy, u, ops), ops, policy.blur)
