"""A vision transformer from layers of Keras, which runs on each backend, with random weights."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras

SIZES = {"vit_tiny": (192, 3), "vit_small": (384, 6)}
"""The width of the tokens and the number of heads, by name, as in DeiT."""

_DEPTH, _PATCH_PX = 12, 16


def build_vit(name: str, px: int) -> Any:
    """Images (batch, px, px, 3) from 0 to 255 to tokens; without class token and positions."""
    layers, (width, n_heads) = keras().layers, SIZES[name]
    image = keras().Input((px, px, 3))
    x = layers.Conv2D(width, _PATCH_PX, _PATCH_PX)(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.Reshape((-1, width))(x)
    for _ in range(_DEPTH):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(n_heads, width // n_heads)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
        x = layers.Add()([x, y])
    return keras().Model(image, layers.LayerNormalization(epsilon=1e-6)(x), name=name)
