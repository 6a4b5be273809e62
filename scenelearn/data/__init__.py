"""The data pipeline: scan a folder, audit, split, decode, and cut into batches."""

from scenelearn.data._audit import Audit, audit
from scenelearn.data._batches import Batches
from scenelearn.data._decode import to_image
from scenelearn.data._label_issues import LabelIssue
from scenelearn.data._photos import Photo, Photos
from scenelearn.data._pixels import Pixels, decode
from scenelearn.data._rejections import Rejected, RejectionReason
from scenelearn.data._scan import scan
from scenelearn.data._split import folds, split
from scenelearn.data._splits import Splits

__all__ = [
    "Audit",
    "Batches",
    "LabelIssue",
    "Photo",
    "Photos",
    "Pixels",
    "Rejected",
    "RejectionReason",
    "Splits",
    "audit",
    "decode",
    "folds",
    "scan",
    "split",
    "to_image",
]
