"""Pretrained backbones: names, weights, preprocessing, and forms that are fast on a CPU."""

from scenelearn.backbones._build import build, freeze_batchnorm
from scenelearn.backbones._fast import fast_on_cpu, undo_fast
from scenelearn.backbones._licenses import weights_license
from scenelearn.backbones._names import DEFAULT_BACKBONE, default_for, names

__all__ = [
    "DEFAULT_BACKBONE",
    "build",
    "default_for",
    "fast_on_cpu",
    "freeze_batchnorm",
    "names",
    "undo_fast",
    "weights_license",
]
