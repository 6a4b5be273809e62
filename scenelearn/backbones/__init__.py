"""The pretrained network: its name, its weights, its preprocessing, its fast form on a CPU."""

from scenelearn.backbones._build import build, filled, keep_statistics
from scenelearn.backbones._default import DEFAULT, default_for
from scenelearn.backbones._fast import fast_on_cpu, photos_at_once, plain
from scenelearn.backbones._licenses import license
from scenelearn.backbones._names import find, names
from scenelearn.backbones._tiny import STORED, TINY

__all__ = [
    "DEFAULT",
    "STORED",
    "TINY",
    "build",
    "default_for",
    "fast_on_cpu",
    "filled",
    "find",
    "keep_statistics",
    "license",
    "names",
    "photos_at_once",
    "plain",
]
