"""What memory a fit was predicted to take, and what the process took."""

from __future__ import annotations

import sys
from typing import Any

from scenelearn import sizing
from scenelearn.errors import UnknownLayerError


def memory(model: Any, batch_size: int, *, trained: bool) -> dict[str, str]:
    """Both as words; what is not known is left out.

    Args:
        model: what was trained, its layers frozen or not as they were.
        batch_size: photos a step.
        trained: whether any step was trained; else it only predicted.
    """
    words = {}
    try:
        estimate = sizing.estimate(model, batch_size=batch_size, optimizer="adamw", rule="xla")
        rise = estimate.training_resident_bytes if trained else estimate.prediction_resident_bytes
        step = "training step" if trained else "prediction"
        if rise is not None:
            words["memory predicted"] = (
                f"at most {sizing.megabytes(rise)} for a {step} of {batch_size} photos, beside "
                "Python, Keras and the photos"
            )
    except UnknownLayerError:
        pass
    peak = peak_bytes()
    if peak is not None:
        words["memory measured"] = f"{sizing.megabytes(peak)} at the most, the whole process"
    return words


def peak_bytes() -> int | None:
    """The most memory that this process has held so far; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
