"""`backbone="auto"`: the most accurate of a few networks whose fit would end in time."""

from __future__ import annotations

import logging
import time
from typing import Any

from scenelearn import backbones, sizing
from scenelearn._distributed import broadcast
from scenelearn.backbones._names import find_architecture
from scenelearn.finetune._feature_cache import FEATURE_BATCH_SIZE, measure_photo_seconds
from scenelearn.sizing._networks import build_application

AUTO = "auto"
# Top-1 accuracy on ImageNet at 224 px, in percent, from the tables of Keras Applications and of the
# MobileNet papers (M. Sandler et al. 2018; A. Howard et al. 2019; M. Tan, Q. Le 2019 and 2021;
# Z. Liu et al. 2022). In ascending order.
CANDIDATES = {
    "mobilenet_v2_0.35": 60.3,
    "mobilenet_v3_small": 67.4,
    "mobilenet_v2": 71.3,
    "mobilenet_v3_large": 75.2,
    "efficientnet_b0": 77.1,
    "efficientnet_v2_b0": 78.7,
    "efficientnet_v2_s": 83.9,
}
_EPOCHS = 4
# Duration of a fit, in forward passes over all photos, 70% of which are training photos: features,
# including mirrored training photos; for each epoch, training at three passes per photo while the
# upper layers are trained, and validation; finally weight interpolation and the test.
_PASSES = 1.55 + _EPOCHS * (3 * 0.7 + 0.15) + 1.5
_TIME_FRACTION = 0.9  # the rest is for decoding, the linear probe and compilation

_log = logging.getLogger(__name__)


def choose_backbone(n_photos: int, image_px: int, minutes: float) -> str:
    """Choose the network that "auto" stands for.

    The most accurate candidate for which features and four epochs fit into the time budget, by the
    measured prediction time per photo on this machine. Candidates that would not fit even if their
    time grew only with the size of their feature maps are not measured. The choice itself uses up
    part of the budget.

    Args:
        n_photos: number of photos.
        image_px: width and height of the input.
        minutes: the time budget.

    Returns:
        A name for `backbones.build`; the smallest network if none fits.
    """
    best, *larger = CANDIDATES
    start, n_passes = time.perf_counter(), _PASSES * n_photos

    def fit_seconds(network: Any) -> float:
        return float(n_passes * broadcast(measure_photo_seconds(network, FEATURE_BATCH_SIZE)))

    def left_s() -> float:
        return float(broadcast(_TIME_FRACTION * (60 * minutes - (time.perf_counter() - start))))

    smallest = _build(best, image_px)
    best_s = fit_seconds(smallest)
    seconds_per_byte = best_s / _activation_bytes(smallest)
    for name in reversed(larger):
        application = find_architecture(name).build.__name__
        unbuilt = build_application(application, (image_px, image_px, 3))
        if seconds_per_byte * _activation_bytes(unbuilt) > left_s():
            continue
        fit_s = fit_seconds(_build(name, image_px))
        if fit_s <= left_s():
            best, best_s = name, fit_s
            break
    _log.info(
        "backbone 'auto' is %s: the most accurate of %d candidates on ImageNet (%.1f %%) for which "
        "features of %d photos and %d epochs fit into %g minutes (about %.1f)",
        best, len(CANDIDATES), CANDIDATES[best], n_photos, _EPOCHS, minutes, best_s / 60,
    )  # fmt: skip
    return best


def _build(name: str, image_px: int) -> Any:
    return backbones.fast_on_cpu(backbones.build(name, weights=None, image_px=image_px))


def _activation_bytes(network: Any) -> int:
    """The size of all activations of one photo."""
    return sum(row.activation_bytes for row in sizing.estimate(network).layers)
