"""Pretrained backbones: names, weights, preprocessing, and forms that are fast on a CPU."""

from scenelearn.backbones._build import build, freeze_batchnorm, materialize
from scenelearn.backbones._bundled import BUNDLED, BUNDLED_BACKBONE
from scenelearn.backbones._fast import fast_on_cpu, undo_fast
from scenelearn.backbones._licenses import weights_license
from scenelearn.backbones._names import DEFAULT_BACKBONE, default_for, find_architecture, names

__all__ = [
    "BUNDLED",
    "BUNDLED_BACKBONE",
    "DEFAULT_BACKBONE",
    "build",
    "default_for",
    "fast_on_cpu",
    "find_architecture",
    "freeze_batchnorm",
    "materialize",
    "names",
    "undo_fast",
    "weights_license",
]
