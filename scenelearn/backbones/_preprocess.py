"""Each network's own preprocessing, as layers inside the model: raw 0-255 pixels go in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras


def affine_of(
    preprocess: Callable[..., Any],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What a `preprocess_input` of keras.applications does, as a matrix and an offset.

    Every one of them is y = x M + b on the three colors of a pixel (a scale, a mean and
    deviation, a swap of red and blue). Its values at black and at the three pure colors give M
    and b exactly, so that no table of ours can differ from Keras.

    Args:
        preprocess: the network's `preprocess_input`.

    Returns:
        M, (3, 3) float64, rows RGB in, columns out; b, (3,) float64.
    """
    colors = np.zeros((1, 1, 4, 3), np.float64)
    colors[0, 0, 1:] = 255 * np.eye(3)
    out = np.asarray(preprocess(colors.copy(), data_format="channels_last"), np.float64)[0, 0]
    return (out[1:] - out[0]) / 255, out[0]


def layers(preprocess: Callable[..., Any]) -> list[Any]:
    """The same map as built-in Keras layers, so that a saved model needs nothing of ours.

    Args:
        preprocess: the network's `preprocess_input`.

    Returns:
        A Rescaling layer, and after it, for networks that swap red and blue, a fixed 1×1
        convolution.
    """
    matrix, offset = affine_of(preprocess)
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


def _rescaling(scale: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> Any:
    """Also turns uint8 into float32, so it is there even where it changes no value."""
    plain = [a[0].item() if (a == a[0]).all() else a.tolist() for a in (scale, offset)]
    return keras().layers.Rescaling(plain[0], offset=plain[1], name="preprocessing")


def _constant(values: npt.NDArray[np.float64]) -> Any:
    return keras().initializers.Constant(values.reshape(-1, 3).squeeze().tolist())
