"""A small network of our own, with weights inside the package: nothing to download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scenelearn._backend import keras

TINY = "scenelearn_tiny"
"""Its name."""

STORED = "scenelearn"
"""What to pass as `weights` for those that come with the package."""

FILE = Path(__file__).parent / "scenelearn_tiny.weights.h5"

_REACHED = FILE.with_name("scenelearn_tiny.json")

_STEM = 16
_STAGES = ((32, 1), (64, 2), (128, 3))  # width, blocks after the one that halves the map
_WIDENING = 2  # in the middle of a block
_FEATURES = 768


def scenelearn_tiny(
    *,
    include_top: bool,
    weights: str | None,
    input_shape: tuple[int, int, int],
    pooling: str,
) -> Any:
    """Inverted residual blocks with 3×3 depthwise convolutions, at a sixteenth in the end.

    It takes the arguments of the functions of keras.applications that `build` passes. A stem of
    stride 2; three stages, each halving the map, of 32, 64 and 128 channels; a 1×1 convolution to
    768 features and their average. All with BatchNormalization and ReLU: the layers that
    `fast_on_cpu` knows. 0.39 M parameters; at 112 px 32 M multiply-adds.

    Args:
        include_top: must be False.
        weights: must be None; `build` loads stored ones.
        input_shape: (height, width, 3), in pixels, at least 32 each.
        pooling: must be "avg".

    Returns:
        A `keras.Model` to (batch, 768) features.

    Raises:
        ValueError: if other weights are asked for.

    References:
        M. Sandler et al. (2018), MobileNetV2: inverted residuals and linear bottlenecks. CVPR.
    """
    if include_top or weights is not None or pooling != "avg":
        raise ValueError("scenelearn_tiny has no such weights: pass weights='scenelearn' or None.")
    k = keras()
    image = k.Input(input_shape)
    x = _normalized(_convolution(_STEM, 3, 2, "stem"), image, "stem")
    before = _STEM
    for stage, (width, n_blocks) in enumerate(_STAGES, 1):
        for block in range(n_blocks + 1):
            stride, name = (1 if block else 2), f"stage_{stage}_block_{block}"
            y = x
            if stage > 1 or block:  # the first one works on the finest map: it is not widened
                wide = _WIDENING * before
                y = _normalized(_convolution(wide, 1, 1, f"{name}_wide"), y, f"{name}_wide")
            depthwise = k.layers.DepthwiseConv2D(
                3, stride, "same", use_bias=False,
                depthwise_initializer="he_normal", name=f"{name}_depthwise",
            )  # fmt: skip
            y = _normalized(depthwise, y, f"{name}_depthwise")
            y = _normalized(_convolution(width, 1, 1, f"{name}_narrow"), y, f"{name}_narrow", False)
            x = k.layers.Add(name=f"{name}_sum")([x, y]) if block else y
            before = width
    x = _normalized(_convolution(_FEATURES, 1, 1, "last"), x, "last")
    return k.Model(image, k.layers.GlobalAveragePooling2D(name="features")(x))


def reached() -> dict[str, dict[str, float]]:
    """What was measured with the stored weights, see `tests/bench/embedded.py` in the repository.

    Returns:
        "test_percent": the mean accuracy on the Intel photos' test side of heads on the frozen
        features with "pretrained" and "random" weights, and of "imagenet" ones in the default
        network; "image_px": the image size of each. Empty where nothing was measured.
    """
    if not _REACHED.is_file():
        return {}
    known = json.loads(_REACHED.read_text(encoding="utf-8"))
    return {part: known[part] for part in ("test_percent", "image_px")}


def preprocess_input(x: Any, data_format: str | None = None) -> Any:  # noqa: ARG001
    """0-255 to −1-1.

    Args:
        x: values in 0-255.
        data_format: as in keras.applications; it makes no difference.

    Returns:
        Values in −1-1.
    """
    return x / 127.5 - 1


def _convolution(width: int, size: int, stride: int, name: str) -> Any:
    return keras().layers.Conv2D(
        width, size, stride, "same", use_bias=False, kernel_initializer="he_normal",
        name=f"{name}_convolution",
    )  # fmt: skip


def _normalized(layer: Any, x: Any, name: str, rectified: bool = True) -> Any:
    k = keras()
    x = k.layers.BatchNormalization(name=f"{name}_bn")(layer(x))
    return k.layers.ReLU(name=f"{name}_relu")(x) if rectified else x
