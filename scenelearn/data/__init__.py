"""The photos: found, split, decoded once, cut into batches. No Keras in this room."""

from scenelearn.data._ahead import made_ahead
from scenelearn.data._audit import Audit, audit
from scenelearn.data._batches import Batches, in_memory
from scenelearn.data._decode import square, to_square
from scenelearn.data._files import (
    cache_folder,
    folder_written_whole,
    has_room,
    made_folder,
    need_space,
    written_whole,
)
from scenelearn.data._folds import folds
from scenelearn.data._labels import Suspect
from scenelearn.data._photos import HARMLESS, Photos, Reason, Refused, content_hash, printable
from scenelearn.data._pixels import Pixels, broken_photos, check_broken, decode, seconds_to_decode
from scenelearn.data._refusals import RefusedPhoto
from scenelearn.data._resample import RESAMPLER
from scenelearn.data._scan import scan
from scenelearn.data._scenes import sample_scenes
from scenelearn.data._shards import DECODING
from scenelearn.data._split import split
from scenelearn.data._splits import Splits

__all__ = [
    "DECODING",
    "HARMLESS",
    "RESAMPLER",
    "Audit",
    "Batches",
    "Photos",
    "Pixels",
    "Reason",
    "Refused",
    "RefusedPhoto",
    "Splits",
    "Suspect",
    "audit",
    "broken_photos",
    "cache_folder",
    "check_broken",
    "content_hash",
    "decode",
    "folder_written_whole",
    "folds",
    "has_room",
    "in_memory",
    "made_ahead",
    "made_folder",
    "need_space",
    "printable",
    "sample_scenes",
    "scan",
    "seconds_to_decode",
    "split",
    "square",
    "to_square",
    "written_whole",
]
