"""A small network of our own, for what has to learn from random weights, on a CPU, in minutes."""

from __future__ import annotations

from typing import Any

from scenelearn._backend import keras

_WIDTHS = (24, 48, 96, 160, 192)  # each layer halves the map; 0.47 M parameters together


def scenelearn_tiny(
    *,
    include_top: bool,
    weights: str | None,
    input_shape: tuple[int, int, int],
    pooling: str,
) -> Any:
    """Five 3×3 convolutions of stride 2 with BatchNormalization, and a global average.

    It takes the arguments of the functions of keras.applications that `build` passes. Plain
    convolutions: depthwise ones save arithmetic, but learn more slowly from few photos.

    Args:
        include_top: must be False.
        weights: must be None: there are no stored weights for it yet.
        input_shape: (height, width, 3), in pixels.
        pooling: must be "avg".

    Returns:
        A `keras.Model` to (batch, 192) features.

    Raises:
        ValueError: if stored weights are asked for.
    """
    if include_top or weights is not None or pooling != "avg":
        raise ValueError("scenelearn_tiny has no stored weights: pass weights=None.")
    k = keras()
    image = k.Input(input_shape)
    x = image
    for n, width in enumerate(_WIDTHS, 1):
        convolution = k.layers.Conv2D(
            width, 3, 2, "same", use_bias=False, kernel_initializer="he_normal", name=f"conv_{n}"
        )
        x = k.layers.BatchNormalization(name=f"bn_{n}")(convolution(x))
        x = k.layers.ReLU(name=f"relu_{n}")(x)
    return k.Model(image, k.layers.GlobalAveragePooling2D(name="features")(x))


def preprocess_input(x: Any, data_format: str | None = None) -> Any:  # noqa: ARG001
    """0-255 to −1-1.

    Args:
        x: values in 0-255.
        data_format: as in keras.applications; it makes no difference.

    Returns:
        Values in −1-1.
    """
    return x / 127.5 - 1
