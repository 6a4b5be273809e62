"""The photos: found, split, decoded once, cut into batches. No Keras in this room."""

from scenelearn.data._batches import Batch, Batches
from scenelearn.data._decode import FORMATS, RefusedPhoto, square, to_square
from scenelearn.data._files import cache_folder, need_space, written_whole
from scenelearn.data._photos import Photos, Reason, Refused
from scenelearn.data._pixels import Pixels, decode
from scenelearn.data._scan import scan
from scenelearn.data._scenes import sample_scenes
from scenelearn.data._split import SIDES, Splits, split

__all__ = [
    "FORMATS",
    "SIDES",
    "Batch",
    "Batches",
    "Photos",
    "Pixels",
    "Reason",
    "Refused",
    "RefusedPhoto",
    "Splits",
    "cache_folder",
    "decode",
    "need_space",
    "sample_scenes",
    "scan",
    "split",
    "square",
    "to_square",
    "written_whole",
]
