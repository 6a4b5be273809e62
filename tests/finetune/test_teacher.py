"""Distillation from a teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError, ClassMismatchError, PathMissingError

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult


@pytest.fixture(scope="module")
def splits(scenes: Path) -> sl.data.Splits:
    return sl.split(sl.scan(scenes))


def test_what_cannot_teach(fitted: FitResult, splits: sl.data.Splits, tmp_path: Path) -> None:
    names = (*fitted.classifier.class_names[:-1], "lava")
    other = dataclasses.replace(fitted.classifier, class_names=names)
    for function in (sl.fit, sl.plan):
        with pytest.raises(ArgumentError, match=r"`teacher` must be a Classifier.*Received.*int"):
            function(splits, teacher=3)
        with pytest.raises(PathMissingError):
            function(splits, teacher=tmp_path / "missing.keras")
        with pytest.raises(ClassMismatchError, match=r"lava.*same classes"):
            function(splits, teacher=other)
        with pytest.raises(ArgumentError, match="`teacher` must be None without fine-tuning"):
            function(splits, teacher=fitted, epochs=0)
        with pytest.raises(ArgumentError, match="the classifier itself"):
            function(splits, teacher="classifier:1234")


@pytest.mark.slow
def test_fit_with_a_teacher(
    fitted: FitResult, splits: sl.data.Splits, scenes: Path, fit_settings: dict[str, Any]
) -> None:
    settings = fit_settings | {"epochs": 1, "teacher": fitted}
    fit = sl.fit(splits, **settings)
    assert "4 augmented views" in next(p.note for p in fit.phases if p.name == "teacher")
    assert "teacher" in str(sl.plan(splits, **settings))
    assert (fit.settings.teacher or "").startswith("classifier:")
    repeated = sl.finetune.repeat(fit.to_json(), scenes, teacher=fitted.classifier)
    np.testing.assert_array_equal(repeated.test_probabilities, fit.test_probabilities)
