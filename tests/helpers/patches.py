"""Private names that tests replace, where a public call has no way to ask for it."""

from __future__ import annotations

import math

import pytest


def save_at_each_step(patch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after each training step, however long that takes."""
    patch.setattr("scenelearn.finetune._checkpoint.INTERVAL_S", 0.0)
    patch.setattr("scenelearn.finetune._checkpoint.MAX_TIME_FRACTION", math.inf)


def limit_epochs(patch: pytest.MonkeyPatch, n: int) -> None:
    """Let a fit that its time limits have at most n epochs."""
    for name in ("_MAX_EPOCHS_PRETRAINED", "_MAX_EPOCHS_RANDOM"):
        patch.setattr(f"scenelearn.finetune._settings.{name}", n)


def set_default_coefficient(patch: pytest.MonkeyPatch, coefficient: float) -> None:
    """Interpolate by this coefficient, unless another is significantly better."""
    patch.setattr("scenelearn.finetune._trainer.default_coefficient", lambda _: coefficient)


def resample_by_pillow(patch: pytest.MonkeyPatch) -> None:
    """As if there were no wheel of cykooz-resizer."""
    patch.setattr("scenelearn.data._convert.fast", None)


def limit_config_objects(patch: pytest.MonkeyPatch, n: int) -> None:
    """Accept bundles whose config has at most n objects."""
    patch.setattr("scenelearn.classify._bundle_checks._MAX_OBJECTS", n)


def fail_to_write_bundles(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let writing a bundle raise an error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    patch.setattr("scenelearn.classify._bundle.write", fail)
