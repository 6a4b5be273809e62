"""The Keras layer; loading this module loads Keras, so it is imported only when it is asked for."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras
from scenelearn.augment._apply import run
from scenelearn.augment._geometry import compiled
from scenelearn.augment._policy import Policy
from scenelearn.augment._policy import policy as named
from scenelearn.augment._values import N_COLUMNS, arguments, drawn

_keras = keras()


@_keras.saving.register_keras_serializable(package="scenelearn")
class Augment(keras().layers.Layer):  # type: ignore[misc]  # Keras has no types
    """See `scenelearn.augment.layer`."""

    def __init__(self, policy: Any = "standard", seed: int = 0, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self._named, self._policy, self._seed = policy, named(policy), seed
        self._seeds = _keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, images: Any, training: bool = False) -> Any:
        """Varied while training; at inference what went in."""
        if not training or not self._policy.asked:
            return images
        n = _keras.ops.shape(images)[0]
        u = _keras.random.uniform((n, N_COLUMNS), dtype="float32", seed=self._seeds)
        return run(
            images,
            compiled(_arguments, "policy")(u, policy=self._policy),
            size=(int(images.shape[1]), int(images.shape[2])),
            fill=self._policy.fill,
            shrunk=1 + float(self._policy.zoom),
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape that goes in."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The policy and the seed, as plain values."""
        plain = self._named if isinstance(self._named, str) else self._policy.to_json()
        return {**super().get_config(), "policy": plain, "seed": self._seed}


def _arguments(u: Any, *, policy: Policy) -> dict[str, Any]:
    return arguments(drawn(policy, u, _keras.ops), _keras.ops, policy.blur)
