"""What a classifier reaches, and how sure that is: NumPy on predictions, no Keras."""

from scenelearn.evaluate._checks import reorder
from scenelearn.evaluate._compare import Comparison, compare
from scenelearn.evaluate._evaluation import ClassScore, Evaluation, ReliabilityBin
from scenelearn.evaluate._exact import fisher, holm, mcnemar
from scenelearn.evaluate._intervals import Interval, bootstrap, f1_interval, wilson
from scenelearn.evaluate._measure import evaluate
from scenelearn.evaluate._slices import Slice, slices
from scenelearn.evaluate._trust import TrustScore, trust_score

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
