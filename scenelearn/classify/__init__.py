"""The trained classifier: predict, explain, evaluate, compare, save, load, export."""

from scenelearn.classify._benchmark import Benchmark
from scenelearn.classify._calibration import Calibration
from scenelearn.classify._classifier import Classifier
from scenelearn.classify._comparison import compare
from scenelearn.classify._explanation import Explanation
from scenelearn.classify._export import ExportResult
from scenelearn.classify._load import load
from scenelearn.classify._neighbors import Neighbor, NeighborIndex
from scenelearn.classify._ood import OODDetector
from scenelearn.classify._predictions import Prediction, Predictions, Probabilities
from scenelearn.classify._ranking import Ranking, rank
from scenelearn.classify._slice_columns import manifest_columns

__all__ = [
    "Benchmark",
    "Calibration",
    "Classifier",
    "Explanation",
    "ExportResult",
    "Neighbor",
    "NeighborIndex",
    "OODDetector",
    "Prediction",
    "Predictions",
    "Probabilities",
    "Ranking",
    "compare",
    "load",
    "manifest_columns",
    "rank",
]
