"""The networks among which `backbone="auto"` chooses, with the accuracies that rank them.

They are ranked by top-1 accuracy on ImageNet, with the weights that Keras downloads, at 224 px
(EfficientNetV2S: 384 px). On other data sets, fine-tuned networks have nearly the same order; so
have the three that we measured on Intel photos (docs/results/intel.json and backbones.json).
tests/finetune/test_candidates.py checks that, and each number against docs/results/published.json.

References:
    S. Kornblith, J. Shlens, Q. Le (2019), Do better ImageNet models transfer better? CVPR.
"""

from __future__ import annotations

from typing import NamedTuple

_KERAS = 'Keras Applications, "Available models" (keras.io/api/applications, page of 2026-01-21)'
_V3 = "Keras 3.15.1, docstring of keras/src/applications/mobilenet_v3.py"


class Candidate(NamedTuple):
    """A network that "auto" may choose.

    Attributes:
        name: for `backbones.build`.
        top1: top-1 accuracy on ImageNet's validation photos, in [0, 1].
        source: where `top1` was published.
    """

    name: str
    top1: float
    source: str


CANDIDATES = (
    Candidate(
        "mobilenet_v2_0.35", 0.603, "tensorflow/models, research/slim/nets/mobilenet/README.md"
    ),
    Candidate("mobilenet_v3_small", 0.681, _V3),
    Candidate("mobilenet_v2", 0.713, _KERAS),
    Candidate("mobilenet_v3_large", 0.756, _V3),
    Candidate("efficientnet_b0", 0.771, _KERAS),
    Candidate("efficientnet_v2_b0", 0.787, _KERAS),
    Candidate("efficientnet_v2_s", 0.839, _KERAS),
)
"""In ascending order of accuracy; the first one is taken if none fits."""
