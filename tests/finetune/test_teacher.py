"""Distillation from a teacher."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.augment import policy
from scenelearn.data._pixels import load_pixels
from scenelearn.data._resize import make_resize
from scenelearn.errors import ArgumentError, ClassMismatchError, PathMissingError
from scenelearn.finetune._features import make_datasets
from scenelearn.finetune._runtime import StopSignal
from scenelearn.finetune._teacher import compute_soft_labels, load_teacher

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
def test_teacher_that_takes_all_the_time_leaves_the_linear_probe(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any]
) -> None:
    settings = fit_settings | {"epochs": None, "minutes": 1e-6, "teacher": fitted}
    fit = sl.fit(splits, **settings)
    assert fit.kept == "linear probe"
    assert fit.settings.epochs == ()
    assert json.loads(json.dumps(fit.to_json()))["settings"]["epochs"] == []


def test_teacher_is_the_same_before_and_after_its_first_prediction(
    fitted: FitResult, splits: sl.data.Splits, tmp_path: Path
) -> None:
    teacher = sl.load(fitted.save(tmp_path / "teacher.keras"))
    names = splits.photos.class_names
    first = load_teacher(teacher, names)
    teacher.predict_proba(np.zeros((1, 32, 32, 3), np.uint8))
    second = load_teacher(teacher, names)
    assert first is not None
    assert second is not None
    assert first.name == second.name


def test_teacher_predicts_full_batches(
    fitted: FitResult, splits: sl.data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = load_pixels(splits.photos, make_resize(32))
    train = make_datasets(splits, pixels, batch_size=8, seed=0).train
    sizes: list[int] = []

    def predict_proba(self: sl.Classifier, images: Any, **_: Any) -> Any:
        sizes.append(len(images))
        return np.full((len(images), 6), 1 / 6)

    monkeypatch.setattr(sl.Classifier, "predict_proba", predict_proba)
    teacher = load_teacher(fitted, splits.photos.class_names)
    assert teacher is not None
    soft_labels = compute_soft_labels(
        teacher,
        train,
        policy("light"),
        hashes=splits.photos.hashes,
        stop=StopSignal(),
        report=lambda *_: None,
    )
    assert soft_labels is not None
    assert len(sizes) == 4 * -(-train.n_photos // 32)
    assert max(sizes) == 32


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
