"""From split photos to a classifier: features once, a linear probe, then fine-tuning."""

from scenelearn.finetune._device import fingerprint
from scenelearn.finetune._features import extract_features
from scenelearn.finetune._fit import fit
from scenelearn.finetune._linear_probe import (
    CrossValidationResult,
    LinearProbe,
    cross_validate_l2,
    fit_linear_probe,
)
from scenelearn.finetune._plan import Plan, plan
from scenelearn.finetune._repeated_fits import CrossValidation, cross_validate, repeat
from scenelearn.finetune._result import Epoch, FitResult
from scenelearn.finetune._runtime import Phase
from scenelearn.finetune._settings import FitSettings, Recipe

__all__ = [
    "CrossValidation",
    "CrossValidationResult",
    "Epoch",
    "FitResult",
    "FitSettings",
    "LinearProbe",
    "Phase",
    "Plan",
    "Recipe",
    "cross_validate",
    "cross_validate_l2",
    "extract_features",
    "fingerprint",
    "fit",
    "fit_linear_probe",
    "plan",
    "repeat",
]
