"""Which backbone: the most accurate of a few whose fit would end in time."""

from __future__ import annotations

import logging

from scenelearn import backbone as backbones
from scenelearn import sizing
from scenelearn.errors import ArgumentError
from scenelearn.finetune._feature_rows import seconds_a_photo

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
_PASSES = 2 + 4 * 4  # features, plain and mirrored; four epochs of about four passes each
_SHARE = 0.9  # of the time: the rest is for decoding, the head and the test

_log = logging.getLogger(__name__)


def chosen_backbone(n_photos: int, image_px: int, minutes: float) -> str:
    """The network that "auto" stands for.

    The smallest candidate is built and timed on this machine; the others take as many times longer
    as they have multiply-adds. The best is taken with which features and four epochs fit into the
    time.

    Args:
        n_photos: how many photos there are.
        image_px: width and height at which it sees a photo.
        minutes: the time there is.

    Returns:
        A name for `backbone.build`; the smallest if none fits.
    """
    names = list(CANDIDATES)
    smallest = backbones.build(names[0], weights=None, image_px=image_px)
    backbones.fast_on_cpu(smallest)
    photo_s = seconds_a_photo(smallest, image_px, 32)
    unit_s = photo_s / sizing.estimate(smallest).n_multiply_adds
    fit_s = {names[0]: photo_s * _PASSES * n_photos}
    for name in names[1:]:
        network = sizing.application(backbones.find(name).build.__name__, image_px)
        n_adds = sizing.estimate(network).n_multiply_adds
        fit_s[name] = unit_s * n_adds * _PASSES * n_photos
    fitting = [name for name in names if fit_s[name] <= _SHARE * 60 * minutes]
    best = fitting[-1] if fitting else names[0]
    _log.info(
        "backbone 'auto' is %s: of %d candidates the most accurate on ImageNet (%.1f %%) with "
        "which features of %d photos and four epochs fit into %g minutes (about %.1f)",
        best, len(names), CANDIDATES[best], n_photos, minutes, fit_s[best] / 60,
    )  # fmt: skip
    return best


def check_auto(weights: object) -> None:
    """See that "auto" may choose.

    Raises:
        ArgumentError: if the weights are of one network, or random.
    """
    if weights != "imagenet":
        raise ArgumentError(
            "`backbone` must be a network's name unless weights='imagenet': 'auto' chooses among "
            f"networks that Keras has such weights for. Received: backbone='auto', "
            f"weights={weights!r}. Pass e.g. backbone='mobilenet_v2_0.35'."
        )
