"""The photos: found, split, decoded once, cut into batches. No Keras in this room."""

from scenelearn.data._audit import Audit, audit
from scenelearn.data._batches import Batches, in_memory
from scenelearn.data._decode import square, to_square
from scenelearn.data._folds import folds
from scenelearn.data._labels import Suspect
from scenelearn.data._photos import HARMLESS, Photos, Reason, Refused, content_hash
from scenelearn.data._pixels import Pixels, broken_photos, check_broken, decode, seconds_to_decode
from scenelearn.data._refusals import RefusedPhoto
from scenelearn.data._resample import RESAMPLER
from scenelearn.data._scan import scan
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
    "check_broken",
    "content_hash",
    "decode",
    "folds",
    "in_memory",
    "scan",
    "seconds_to_decode",
    "split",
    "square",
    "to_square",
]
