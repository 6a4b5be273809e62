"""What a classifier reaches, and how sure that is: NumPy on predictions, no Keras."""

from scenelearn.evaluate._evaluation import ClassScore, Evaluation, evaluate
from scenelearn.evaluate._intervals import Interval, wilson

__all__ = ["ClassScore", "Evaluation", "Interval", "evaluate", "wilson"]
