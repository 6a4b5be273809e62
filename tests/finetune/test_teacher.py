"""Distillation from a teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import augment
from scenelearn.data._pixels import load_pixels
from scenelearn.errors import ArgumentError, ClassMismatchError, PathMissingError
from scenelearn.finetune._features import make_datasets
from scenelearn.finetune._learner import Augmentation, augmented_batches
from scenelearn.finetune._runtime import StopSignal
from scenelearn.finetune._settings import Recipe
from scenelearn.finetune._teacher import N_VIEWS, compute_soft_labels, load_teacher

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult


@pytest.fixture(scope="module")
def splits(scenes: Path) -> sl.data.Splits:
    return sl.split(sl.scan(scenes))


def reordered(fitted: FitResult) -> Any:
    """The classifier with its classes in another order."""
    return dataclasses.replace(
        fitted.classifier, class_names=tuple(reversed(fitted.classifier.class_names))
    )


def test_student_learns_the_probabilities_of_what_it_sees(
    fitted: FitResult, splits: sl.data.Splits
) -> None:
    pixels = load_pixels(splits.photos, 32)
    train = make_datasets(splits, pixels, 16, seed=3).train
    policy = augment.policy("standard")
    calls: list[tuple[int, int]] = []

    def compute(classifier: Any) -> Any:
        teacher = load_teacher(classifier, splits.photos.class_names)
        assert teacher is not None
        return compute_soft_labels(
            teacher,
            train,
            policy,
            hashes=splits.photos.hashes,
            stop=StopSignal(),
            report=lambda *numbers: calls.append(numbers),
        )

    other = compute(reordered(fitted))
    soft_labels = compute(fitted)
    np.testing.assert_array_equal(soft_labels.table, other.table[:, :, ::-1])
    assert calls[-1] == (4 * train.n_photos,) * 2
    augmentation = Augmentation(
        policy=policy, recipe=Recipe(), n_classes=6, soft_labels=soft_labels
    )
    first, fifth = (
        [batch for _, batch in augmented_batches(train, augmentation, epoch=epoch, steps=range(3))]
        for epoch in (1, 1 + N_VIEWS)
    )
    for images, targets in first + fifth:
        expected = fitted.classifier.predict_proba(np.asarray(images), verbose=False)
        np.testing.assert_allclose(targets, expected, atol=1e-5)
    calls.clear()
    np.testing.assert_array_equal(compute(fitted).table, soft_labels.table)  # from the cache
    assert calls == [(4 * train.n_photos,) * 2]


def test_photos_that_the_teacher_could_not_read_keep_their_labels() -> None:
    from scenelearn.finetune._teacher import SoftLabels

    table = np.full((N_VIEWS, 2, 2), np.nan, np.float32)
    table[0, 1] = 0.25, 0.75
    soft_labels = SoftLabels(table=table, row=np.array([-1, 0, 1]))
    one_hot = np.array([[1, 0], [1, 0]], np.float32)
    targets = soft_labels.targets(one_hot, np.array([2, 1]), epoch=1 + N_VIEWS)
    np.testing.assert_array_equal(targets, [[0.25, 0.75], [1, 0]])


def test_stopped_while_the_teacher_works(fitted: FitResult, splits: sl.data.Splits) -> None:
    class Stopped:
        requested = "SIGINT"

    train = make_datasets(splits, load_pixels(splits.photos, 32), 16, seed=4).train
    teacher = load_teacher(fitted.classifier, splits.photos.class_names)
    assert teacher is not None
    policy = augment.policy("none")
    table = compute_soft_labels(
        teacher,
        train,
        policy,
        hashes=splits.photos.hashes,
        stop=Stopped(),
        report=lambda *_: None,
    )
    assert table is None


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
