"""The trained classifier: predict, explain, evaluate, compare, save, load."""

from scenelearn.classify._calibrate import softmax, temperature
from scenelearn.classify._classifier import Classifier
from scenelearn.classify._conformal import prediction_sets, set_scores, set_threshold
from scenelearn.classify._explanation import Explanation
from scenelearn.classify._export import TOLERANCE, Exported
from scenelearn.classify._gallery import MOST_PHOTOS, Gallery, Neighbor, gallery
from scenelearn.classify._labeled import Labeled, compare, see_photos
from scenelearn.classify._likeness import Likeness, likeness
from scenelearn.classify._load import load
from scenelearn.classify._looks import manifest_columns
from scenelearn.classify._predictions import Prediction, Probabilities
from scenelearn.classify._sight import Sight, judge, outputs, sight_model
from scenelearn.classify._table import csv_lines
from scenelearn.classify._trust import COVERAGE, Trust
from scenelearn.classify._views import mirrored

__all__ = [
    "COVERAGE",
    "MOST_PHOTOS",
    "TOLERANCE",
    "Classifier",
    "Explanation",
    "Exported",
    "Gallery",
    "Labeled",
    "Likeness",
    "Neighbor",
    "Prediction",
    "Probabilities",
    "Sight",
    "Trust",
    "compare",
    "csv_lines",
    "gallery",
    "judge",
    "likeness",
    "load",
    "manifest_columns",
    "mirrored",
    "outputs",
    "prediction_sets",
    "see_photos",
    "set_scores",
    "set_threshold",
    "sight_model",
    "softmax",
    "temperature",
]
