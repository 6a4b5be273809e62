"""Which backbone: the most accurate of a few whose fit would end in time."""

from __future__ import annotations

import logging
import time
from typing import Any

from scenelearn import backbones, sizing
from scenelearn._devices import shared
from scenelearn.errors import ArgumentError
from scenelearn.finetune._feature_rows import FEATURE_BATCH, seconds_a_photo

AUTO = "auto"
# Top-1 accuracy on ImageNet at 224 px, in percent, as the tables of Keras Applications and of the
# MobileNet papers have it (M. Sandler et al. 2018; A. Howard et al. 2019; M. Tan, Q. Le 2019 and
# 2021; Z. Liu et al. 2022). From worse to better.
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
# What a fit takes, in passes of the features over all photos, seven tenths of which train: theirs,
# training photos mirrored too; for each epoch training, at three passes a photo where the coarse
# layers train, and judging; the networks between and the test.
_PASSES = 1.55 + _EPOCHS * (3 * 0.7 + 0.15) + 1.5
_SHARE = 0.9  # of the time: the rest is for decoding, the head and compiling

_log = logging.getLogger(__name__)


def chosen_backbone(n_photos: int, image_px: int, minutes: float) -> str:
    """The network that "auto" stands for.

    The best candidate is taken with which features and four epochs fit into the time, by how long
    it takes to see a photo on this machine. Candidates that would not fit even if time grew with
    their maps alone are not timed. What the choice takes is no longer there for the fit.

    Args:
        n_photos: how many photos there are.
        image_px: width and height at which it sees a photo.
        minutes: the time there is.

    Returns:
        A name for `backbones.build`; the smallest if none fits.
    """
    best, *larger = CANDIDATES
    start, photos = time.monotonic(), _PASSES * n_photos

    def seconds_of(network: Any) -> float:
        return float(photos * shared(seconds_a_photo(network, FEATURE_BATCH)))

    def left_s() -> float:
        return float(shared(_SHARE * (60 * minutes - (time.monotonic() - start))))

    smallest = _network(best, image_px)
    best_s = seconds_of(smallest)
    least_s = best_s / _map_bytes(smallest)  # a byte
    for name in reversed(larger):
        unbuilt = sizing.application(backbones.find(name).build.__name__, image_px)
        if least_s * _map_bytes(unbuilt) > left_s():
            continue
        fit_s = seconds_of(_network(name, image_px))
        if fit_s <= left_s():
            best, best_s = name, fit_s
            break
    _log.info(
        "backbone 'auto' is %s: of %d candidates the most accurate on ImageNet (%.1f %%) with "
        "which features of %d photos and %d epochs fit into %g minutes (about %.1f)",
        best, len(CANDIDATES), CANDIDATES[best], n_photos, _EPOCHS, minutes, best_s / 60,
    )  # fmt: skip
    return best


def _network(name: str, image_px: int) -> Any:
    return backbones.fast_on_cpu(backbones.build(name, weights=None, image_px=image_px))


def _map_bytes(network: Any) -> int:
    """The bytes of all maps of a photo."""
    return sum(row.activation_bytes for row in sizing.estimate(network).rows)


def check_auto(weights: object) -> None:
    """See that "auto" may choose.

    Raises:
        ArgumentError: if the weights are of one network, or random.
    """
    if weights != "imagenet":
        raise ArgumentError(
            "`backbone` must be a network's name unless weights='imagenet': 'auto' chooses among "
            f"networks that Keras has such weights for. Received: backbone='auto', "
            f"weights={weights!r}. Pass e.g. backbone={backbones.DEFAULT!r}."
        )
