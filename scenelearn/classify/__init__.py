"""The trained classifier: predict, evaluate, save, load."""

from scenelearn.classify._calibrate import temperature
from scenelearn.classify._classifier import Classifier, load, outputs
from scenelearn.classify._predictions import Prediction, Probabilities

__all__ = ["Classifier", "Prediction", "Probabilities", "load", "outputs", "temperature"]
