"""From split photos to a classifier: features once, the head solved, then fine-tuning."""

from scenelearn.finetune._environment import fingerprint
from scenelearn.finetune._features import features
from scenelearn.finetune._fit import fit
from scenelearn.finetune._head import Head, cross_entropy, solve
from scenelearn.finetune._plan import Plan, plan
from scenelearn.finetune._recipe import Recipe
from scenelearn.finetune._repeat import repeat
from scenelearn.finetune._result import Epoch, FitResult, Phase
from scenelearn.finetune._settings import FitSettings
from scenelearn.finetune._strength import Choice, choose

__all__ = [
    "Choice",
    "Epoch",
    "FitResult",
    "FitSettings",
    "Head",
    "Phase",
    "Plan",
    "Recipe",
    "choose",
    "cross_entropy",
    "features",
    "fingerprint",
    "fit",
    "plan",
    "repeat",
    "solve",
]
