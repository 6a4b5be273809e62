"""The pretrained network: its name, its weights, its preprocessing, its fast form on a CPU."""

from scenelearn.backbone._build import build, filled, keep_statistics
from scenelearn.backbone._default import DEFAULT, default_for
from scenelearn.backbone._fast import fast_on_cpu, photos_at_once, plain
from scenelearn.backbone._licences import licence
from scenelearn.backbone._names import find, names
from scenelearn.backbone._tiny import STORED, TINY

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
    "licence",
    "names",
    "photos_at_once",
    "plain",
]
