"""The photos: found, split, decoded once, cut into batches. No Keras in this room."""

from scenelearn.data._audit import Audit, audit
from scenelearn.data._batches import Batches
from scenelearn.data._decode import RefusedPhoto, square, to_square
from scenelearn.data._files import cache_folder, made_folder, need_space, written_whole
from scenelearn.data._folds import folds
from scenelearn.data._photos import Photos, Reason, Refused, content_hash, printable
from scenelearn.data._pixels import Pixels, decode
from scenelearn.data._scan import scan
from scenelearn.data._scenes import sample_scenes
from scenelearn.data._split import split
from scenelearn.data._splits import Splits

__all__ = [
    "Audit",
    "Batches",
    "Photos",
    "Pixels",
    "Reason",
    "Refused",
    "RefusedPhoto",
    "Splits",
    "audit",
    "cache_folder",
    "content_hash",
    "decode",
    "folds",
    "made_folder",
    "need_space",
    "printable",
    "sample_scenes",
    "scan",
    "split",
    "square",
    "to_square",
    "written_whole",
]
