"""What a classifier reaches, and how sure that is: NumPy on predictions, no Keras."""

from scenelearn.metrics._checks import reorder
from scenelearn.metrics._compare import Comparison, compare
from scenelearn.metrics._evaluation import ClassScore, Evaluation, ReliabilityBin
from scenelearn.metrics._exact import fisher, holm, mcnemar
from scenelearn.metrics._intervals import Interval, bootstrap, f1_interval, wilson
from scenelearn.metrics._measure import evaluate
from scenelearn.metrics._slices import Slice, slices
from scenelearn.metrics._trust import TrustScore, trust_score

__all__ = [
    "ClassScore",
    "Comparison",
    "Evaluation",
    "Interval",
    "ReliabilityBin",
    "Slice",
    "TrustScore",
    "bootstrap",
    "compare",
    "evaluate",
    "f1_interval",
    "fisher",
    "holm",
    "mcnemar",
    "reorder",
    "slices",
    "trust_score",
    "wilson",
]
