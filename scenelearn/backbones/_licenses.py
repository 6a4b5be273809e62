"""Under which license the weights stand that a network begins with."""

from __future__ import annotations

from scenelearn.backbones._tiny import STORED

# By the beginnings of our names, the first that fits: the licenses under which the weights were
# published from which those of keras.applications were made, as its documentation named them for
# each network, or as the named source has them.
_OF = (
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
_NEW = "none: random weights, trained on your own photos alone"
_OURS = "Apache-2.0 (scenelearn; trained on drawn images alone)"


def license(name: str, weights: str | None) -> str:
    """The license of the weights that a network begins with, as words.

    Args:
        name: from `names`, with or without width.
        weights: "imagenet", "scenelearn", the path of a weights file, or None for random ones.

    Returns:
        That of the weights as keras.applications offers them; of a file, which may be another,
        with a word of caution.

    Example:
        >>> license("mobilenet_v2_0.35", "imagenet")
        'Apache-2.0 (Google)'
    """
    if weights is None:
        return _NEW
    if weights == STORED:
        return _OURS
    of_keras = next((words for start, words in _OF if name.startswith(start)), "")
    if not of_keras and name.startswith("resnet"):
        of_keras = "BSD (Facebook)" if name.endswith("_v2") else "MIT (K. He)"
    of_keras = of_keras or "not known"
    if weights == "imagenet":
        return of_keras
    return f"that of your weights file; of Keras' own weights: {of_keras}"
