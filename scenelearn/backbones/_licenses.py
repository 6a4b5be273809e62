"""Licenses of pretrained weights."""

from __future__ import annotations

from scenelearn.backbones._bundled import BUNDLED

# By prefix of the name, first match: the license under which the authors published the weights from
# which those of keras.applications were converted, according to Keras' documentation for each
# network or to the source named here.
_LICENSES = (
    ("vgg", "Creative Commons Attribution 4.0 (Visual Geometry Group, Oxford)"),
    ("resnet_rs", "Apache-2.0 (Google)"),
    ("inception", "Apache-2.0 (Google)"),
    ("xception", "MIT (F. Chollet)"),
    ("densenet", "BSD-3-Clause (Z. Liu)"),
    ("mobilenet", "Apache-2.0 (Google)"),
    ("nasnet", "Apache-2.0 (Google)"),
    ("efficientnet", "Apache-2.0 (Google)"),
    ("convnext", "MIT (Meta)"),
)
_UNKNOWN = "not known"


def weights_license(name: str, weights: str | None) -> str:
    """Return the license of the weights that a backbone starts from.

    Args:
        name: a backbone from `names`, with or without a width.
        weights: "imagenet", "scenelearn", the path of a weights file, or None for random weights.

    Returns:
        The license of the weights that keras.applications offers. For a weights file, whose license
        may differ, a note says so.

    Example:
        >>> weights_license("mobilenet_v2_0.35", "imagenet")
        'Apache-2.0 (Google)'
    """
    if weights is None:
        return "none: random weights, trained on your photos only"
    if weights == BUNDLED:
        return "Apache-2.0 (scenelearn; trained on rendered images only)"
    license_ = next((words for prefix, words in _LICENSES if name.startswith(prefix)), _UNKNOWN)
    if license_ == _UNKNOWN and name.startswith("resnet"):
        license_ = "BSD (Facebook)" if name.endswith("_v2") else "MIT (K. He)"
    if weights == "imagenet":
        return license_
    return f"that of your weights file; the license of Keras' own weights is {license_}"
