"""Metrics with their confidence intervals: NumPy on predictions, no Keras."""

from scenelearn.metrics._comparison import Comparison, compare
from scenelearn.metrics._evaluation import (
    ClassMetrics,
    Confusion,
    Evaluation,
    ReliabilityBin,
    evaluate,
)
from scenelearn.metrics._intervals import Interval, bootstrap, wilson
from scenelearn.metrics._selective import SelectiveMetrics
from scenelearn.metrics._significance import mcnemar
from scenelearn.metrics._slices import Slice, find_slices

__all__ = [
    "ClassMetrics",
    "Comparison",
    "Confusion",
    "Evaluation",
    "Interval",
    "ReliabilityBin",
    "SelectiveMetrics",
    "Slice",
    "bootstrap",
    "compare",
    "evaluate",
    "find_slices",
    "mcnemar",
    "wilson",
]
