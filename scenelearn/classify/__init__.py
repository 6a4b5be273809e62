"""The trained classifier: predict, evaluate, save, load."""

from scenelearn.classify._calibrate import softmax, temperature
from scenelearn.classify._classifier import Classifier, judge, load, outputs
from scenelearn.classify._predictions import Prediction, Probabilities

__all__ = [
    "Classifier",
    "Prediction",
    "Probabilities",
    "judge",
    "load",
    "outputs",
    "softmax",
    "temperature",
]
