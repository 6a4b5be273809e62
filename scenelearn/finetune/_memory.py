"""What memory a fit was predicted to take, and what its process took."""

from __future__ import annotations

import sys
from typing import Any

from scenelearn import sizing
from scenelearn.errors import UnknownLayerError
from scenelearn.finetune._fits import training_bytes


def memory(model: Any, trained: Any, batch_size: int) -> dict[str, str]:
    """Both as words; what is not known is left out.

    Predicted is by how much a step raises the process's memory at the most; measured, the most
    that the whole process held, Python, Keras and the photos included.

    Args:
        model: the network.
        trained: it or its upper part, as it was trained, layers frozen or not; None if it only
            predicted.
        batch_size: photos a step.
    """
    words = {}
    rises = [] if trained is None else [training_bytes(trained, batch_size)]
    if trained is not model and (predicting := _prediction_bytes(model, batch_size)) is not None:
        rises.append(predicting)
    if rises:
        words["memory predicted"] = sizing.megabytes(max(rises))
    peak = peak_bytes()
    if peak is not None:
        words["memory measured"] = sizing.megabytes(peak)
    return words


def _prediction_bytes(model: Any, batch_size: int) -> int | None:
    try:
        estimate = sizing.estimate(model, batch_size=batch_size, optimizer="sgd", rule="xla")
    except UnknownLayerError:
        return None
    return estimate.prediction_resident_bytes


def peak_bytes() -> int | None:
    """The most memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
