"""The bundled backbone: a small network whose weights come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scenelearn._backend import keras

BUNDLED_BACKBONE = "scenelearn_tiny"
"""The name of the bundled backbone."""

BUNDLED = "scenelearn"
"""The value of `weights` for the weights that come with the package."""

WEIGHTS_FILE = Path(__file__).parent / "scenelearn_tiny.weights.h5"

_RESULTS_FILE = WEIGHTS_FILE.with_name("scenelearn_tiny.json")

_STEM = 16
_STAGES = ((32, 1), (64, 2), (128, 3))  # width, blocks after the one of stride 2
_EXPANSION = 2  # of the channels inside a block
_FEATURES = 768


def scenelearn_tiny(
    *,
    include_top: bool,
    weights: str | None,
    input_shape: tuple[int, int, int],
    pooling: str,
) -> Any:
    """Build a network of inverted residual blocks with an output stride of 16.

    Takes those arguments of the functions of keras.applications that `build` passes. A stem of
    stride 2; three stages of stride 2 with 32, 64 and 128 channels and 3×3 depthwise convolutions;
    a 1×1 convolution to 768 features; and global average pooling. Each convolution is followed by
    BatchNormalization and mostly ReLU, which `fast_on_cpu` supports. 0.39 M parameters; 32 M
    multiply-adds at 112 px.

    Args:
        include_top: must be False.
        weights: must be None; `build` loads the bundled weights.
        input_shape: (height, width, 3), in pixels, at least 32 each.
        pooling: must be "avg".

    Returns:
        A `keras.Model` that returns (batch, 768) features.

    Raises:
        ValueError: if an argument has another value.

    References:
        M. Sandler et al. (2018), MobileNetV2: inverted residuals and linear bottlenecks. CVPR.
    """
    if include_top or weights is not None or pooling != "avg":
        raise ValueError(
            "scenelearn_tiny has no such weights or top. Pass weights='scenelearn' or None."
        )
    k = keras()
    image = k.Input(input_shape)
    x = _normalized(_convolution(_STEM, 3, 2, "stem"), image, "stem")
    width_before = _STEM
    for stage, (width, n_blocks) in enumerate(_STAGES, 1):
        for block in range(n_blocks + 1):
            stride, name = (1 if block else 2), f"stage_{stage}_block_{block}"
            y = x
            if stage > 1 or block:  # the first block, at the highest resolution, does not expand
                expanded = _EXPANSION * width_before
                y = _normalized(_convolution(expanded, 1, 1, f"{name}_wide"), y, f"{name}_wide")
            depthwise = k.layers.DepthwiseConv2D(
                3, stride, "same", use_bias=False,
                depthwise_initializer="he_normal", name=f"{name}_depthwise",
            )  # fmt: skip
            y = _normalized(depthwise, y, f"{name}_depthwise")
            y = _normalized(_convolution(width, 1, 1, f"{name}_narrow"), y, f"{name}_narrow", False)
            x = k.layers.Add(name=f"{name}_sum")([x, y]) if block else y
            width_before = width
    x = _normalized(_convolution(_FEATURES, 1, 1, "last"), x, "last")
    return k.Model(image, k.layers.GlobalAveragePooling2D(name="features")(x))


def bundled_results() -> dict[str, dict[str, float]]:
    """Load the results that were measured with the bundled weights.

    They come from `tests/bench/bundled_backbone.py` in the repository.

    Returns:
        "test_percent": the mean test accuracy of linear probes on the Intel photos, with
        "pretrained" and "random" weights, and with "imagenet" weights of the default backbone;
        "image_px": the image size of each. Empty if nothing was measured.
    """
    if not _RESULTS_FILE.is_file():
        return {}
    results = json.loads(_RESULTS_FILE.read_text(encoding="utf-8"))
    return {part: results[part] for part in ("test_percent", "image_px")}


def preprocess_input(x: Any, data_format: str | None = None) -> Any:  # noqa: ARG001
    """Scale pixels from 0 to 255 to -1 to 1.

    Args:
        x: values in 0 to 255.
        data_format: ignored; for the signature of keras.applications.

    Returns:
        Values in -1 to 1.
    """
    return x / 127.5 - 1


def _convolution(width: int, size: int, stride: int, name: str) -> Any:
    return keras().layers.Conv2D(
        width, size, stride, "same", use_bias=False, kernel_initializer="he_normal",
        name=f"{name}_convolution",
    )  # fmt: skip


def _normalized(layer: Any, x: Any, name: str, relu: bool = True) -> Any:
    k = keras()
    x = k.layers.BatchNormalization(name=f"{name}_bn")(layer(x))
    return k.layers.ReLU(name=f"{name}_relu")(x) if relu else x
