"""Preprocessing of each network as layers of the model, which takes raw pixels in 0 to 255."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras

Array = npt.NDArray[np.float64]

PREPROCESSING = "preprocessing"
"""The name of the layer that takes pixels from 0 to 255."""


def measure_affine(preprocess: Callable[..., Any]) -> tuple[Array, Array]:
    """Measure a `preprocess_input` of keras.applications as a matrix and an offset.

    Each of these functions is y = x M + b on the three colors of a pixel: a scale, a mean and
    standard deviation, a swap of red and blue. Its values for black and the three pure colors give
    M and b exactly, without a table that could differ from Keras.

    Args:
        preprocess: the network's `preprocess_input`.

    Returns:
        M, (3, 3) float64, with RGB rows in and columns out; b, (3,) float64.
    """
    colors = np.zeros((1, 1, 4, 3), np.float64)
    colors[0, 0, 1:] = 255 * np.eye(3)
    out = np.asarray(preprocess(colors.copy(), data_format="channels_last"), np.float64)[0, 0]
    return (out[1:] - out[0]) / 255, out[0]


def preprocessing_layers(preprocess: Callable[..., Any]) -> list[Any]:
    """Create built-in Keras layers that compute the same, so that saved models need no own code.

    Args:
        preprocess: the network's `preprocess_input`.

    Returns:
        A Rescaling layer, followed by a fixed 1×1 convolution for networks that swap red and blue.
    """
    matrix, offset = measure_affine(preprocess)
    diagonal = np.diag(matrix)
    if np.array_equal(matrix, np.diag(diagonal)):
        return [_rescaling(diagonal, offset)]
    swap = keras().layers.Conv2D(
        3,
        1,
        kernel_initializer=_constant(matrix),
        bias_initializer=_constant(offset),
        trainable=False,
        name="color_order",
    )
    return [_rescaling(np.ones(3), np.zeros(3)), swap]


def _rescaling(scale: Array, offset: Array) -> Any:
    """A Rescaling layer; needed even if it changes no value, to convert uint8 to float32."""
    arguments = [a[0].item() if (a == a[0]).all() else a.tolist() for a in (scale, offset)]
    return keras().layers.Rescaling(arguments[0], offset=arguments[1], name=PREPROCESSING)


def _constant(values: Array) -> Any:
    return keras().initializers.Constant(values.reshape(-1, 3).squeeze().tolist())
