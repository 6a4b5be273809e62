"""Tiny networks of one's own with random weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from scenelearn import backbones
from scenelearn.classify import Classifier
from tests.helpers.networks import materialize

layers = keras.layers


def convolution_network() -> Any:
    """Feature maps 8 times smaller than the image, with four positive channels."""

    def make() -> Any:
        image = keras.Input((None, None, 3))
        x = layers.Conv2D(4, 3, 8, "same")(layers.Rescaling(1 / 255)(image))
        return keras.Model(image, layers.ReLU()(layers.BatchNormalization()(x)))

    model = materialize(make)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 0.6, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def attention_network() -> Any:
    """Two blocks of attention over 16 patches of an image of 32 pixels, without a class token."""

    def make() -> Any:
        image = keras.Input((32, 32, 3))
        x = layers.Conv2D(8, 8, 8, name="patches")(layers.Rescaling(1 / 255)(image))
        x = layers.Reshape((16, 8))(x)
        for block in range(2):
            y = layers.LayerNormalization()(x)
            x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name=f"attention_{block}")(y, y)])
        return keras.Model(image, layers.Dense(8, name="tokens")(x))

    return materialize(make)


def classifier_of(network: Any, image_px: int = 32, preprocessing: str | None = None) -> Any:
    """A classifier of two classes, "a" and "b", whose head has only zeros, and its head."""
    features = backbones.build(network, image_px=image_px, preprocessing=preprocessing)
    head = layers.Dense(2, kernel_initializer="zeros", dtype="float32", name="logits")
    probabilities = layers.Softmax(dtype="float32", name="probabilities")(head(features.output))
    model = keras.Model(features.input, probabilities, name="scenes")
    return Classifier(model=model, class_names=("a", "b"), image_px=image_px, metadata={}), head
