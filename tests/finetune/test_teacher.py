"""Distillation from a teacher."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.special import softmax

import scenelearn as sl
from scenelearn.augment import policy
from scenelearn.data import Pixels
from scenelearn.data._pixels import load_pixels
from scenelearn.data._resize import make_resize
from scenelearn.errors import ArgumentError, ClassMismatchError, PathMissingError
from scenelearn.finetune import Recipe, _budget, _device, _run
from scenelearn.finetune._features import make_datasets
from scenelearn.finetune._learner import Augmentation, augmented_batches
from scenelearn.finetune._model import add_zero_head, lr_multipliers
from scenelearn.finetune._teacher import (
    Teacher,
    add_feature_head,
    distillation_loss,
    load_teacher,
)
from tests.helpers.networks import keras
from tests.helpers.patches import save_at_each_step

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult


@pytest.fixture(scope="module")
def splits(scenes: Path) -> sl.data.Splits:
    return sl.split(sl.scan(scenes))


@pytest.fixture(scope="module")
def teacher(fitted: FitResult, splits: sl.data.Splits) -> Teacher:
    loaded = load_teacher(fitted, splits.photos.class_names)
    assert loaded is not None
    return loaded


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
def test_without_time_a_teacher_leaves_the_linear_probe(
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


def test_targets_are_probabilities_and_scaled_principal_components(
    teacher: Teacher, fitted: FitResult
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    targets = teacher.targets(images, 5)
    assert targets.dtype == np.float32
    probabilities, components = targets[:, :6], targets[:, 6:]
    expected = fitted.classifier.predict_proba(images, verbose=False)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    model = fitted.classifier.model
    features = keras().Model(model.input, model.get_layer("logits").input)(images)
    calibration = fitted.classifier.calibration
    assert calibration is not None
    index = calibration.neighbor_index
    coordinates = (np.asarray(features) - index.mean) @ index.components.astype(np.float64)
    coordinates /= np.linalg.norm(coordinates, axis=1, keepdims=True)
    scale = index.embeddings.astype(np.float64).std(axis=0)
    scale = np.maximum(scale, scale.max() / 20)
    assert components.shape == (5, teacher.n_components)
    np.testing.assert_allclose(components, coordinates / scale, rtol=1e-3, atol=1e-3)


def test_classes_may_have_another_order(
    teacher: Teacher, fitted: FitResult, splits: sl.data.Splits
) -> None:
    names = tuple(reversed(fitted.classifier.class_names))
    other = load_teacher(
        dataclasses.replace(fitted.classifier, class_names=names), splits.photos.class_names
    )
    assert other is not None
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        other.targets(images, 3)[:, :6], teacher.targets(images, 3)[:, 5::-1]
    )


def test_classifier_without_training_photos_teaches_probabilities_only(
    fitted: FitResult, splits: sl.data.Splits
) -> None:
    classifier = dataclasses.replace(fitted.classifier, calibration=None)
    teacher = load_teacher(classifier, splits.photos.class_names)
    assert teacher is not None
    assert teacher.n_components == 0
    assert teacher.targets(np.zeros((2, 32, 32, 3), np.uint8), 2).shape == (2, 6)


def test_student_and_teacher_see_the_same_images_at_their_own_sizes(
    teacher: Teacher, splits: sl.data.Splits
) -> None:
    small, large = (load_pixels(splits.photos, make_resize(px)) for px in (32, 48))
    train = make_datasets(splits, large, 16, seed=3).train
    how: dict[str, Any] = {
        "policy": policy("standard"), "recipe": Recipe(mixup_alpha=0.2, cutmix_alpha=1),
        "n_classes": 6,
    }  # fmt: skip
    taught = Augmentation(**how, teacher=teacher, teacher_pixels=small)
    plain = Augmentation(**how)

    def batches(of: Any, augmentation: Augmentation) -> list[tuple[Any, ...]]:
        steps = range(augmentation.n_passes * len(train))
        all_steps = augmented_batches(of, augmentation, epoch=2, steps=steps)
        return [one for step, one in all_steps if step < len(train)]

    own = batches(train, plain)
    seen = batches(dataclasses.replace(train, pixels=small), plain)
    found = batches(train, taught)
    assert len(found) == len(own) == len(seen) == len(train)
    for (images, targets), (own_images, _), (seen_images, _) in zip(found, own, seen, strict=True):
        np.testing.assert_array_equal(np.asarray(images), np.asarray(own_images))
        expected = teacher.targets(np.asarray(seen_images), 16)
        np.testing.assert_allclose(targets, expected, atol=1e-5)


def test_each_batch_is_learned_twice_and_predicted_once(
    teacher: Teacher, splits: sl.data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted = []
    targets = Teacher.targets

    def count(self: Teacher, images: Any, batch_size: int) -> Any:
        predicted.append(images)
        return targets(self, images, batch_size)

    monkeypatch.setattr(Teacher, "targets", count)
    pixels = load_pixels(splits.photos, make_resize(32))
    train = make_datasets(splits, pixels, 1, seed=3).train
    augmentation = Augmentation(
        policy=policy("standard"), recipe=Recipe(mixup_alpha=0.2), n_classes=6, teacher=teacher,
        teacher_pixels=pixels,
    )  # fmt: skip
    n, steps = len(train), range(2 * len(train))
    blocks = [range(0, 16), range(16, 32), range(32, 48), range(48, n)]
    assert 48 < n <= 64
    assert augmentation.step_batches(n) == [k for block in blocks for k in (*block, *block)]
    more = range(2 * len(train) + 3)  # as in a schedule of more photos
    found = list(augmented_batches(train, augmentation, epoch=1, steps=more))
    assert [step for step, _ in found] == list(steps)
    assert len(predicted) == n
    for step in (0, 15):
        np.testing.assert_array_equal(np.asarray(found[step + 16][1][0]), found[step][1][0])
        np.testing.assert_array_equal(found[step + 16][1][1], found[step][1][1])
    assert not np.array_equal(np.asarray(found[0][1][0]), np.asarray(found[1][1][0]))

    for first in (5, 16, 20):  # within the first and second pass over the first block
        resumed = augmented_batches(train, augmentation, epoch=1, steps=steps[first:])
        for (step, batch), (expected_step, expected) in zip(resumed, found[first:], strict=True):
            assert step == expected_step
            np.testing.assert_array_equal(np.asarray(batch[0]), np.asarray(expected[0]))
            np.testing.assert_array_equal(batch[1], expected[1])

    predicted.clear()
    short = list(augmented_batches(train, augmentation, epoch=1, steps=range(12)))
    assert [step for step, _ in short] == list(range(12))
    assert len(predicted) == 6  # a shorter epoch learns fewer batches, also twice
    np.testing.assert_array_equal(np.asarray(short[6][1][0]), short[0][1][0])


@pytest.mark.skipif(keras().backend.backend() != "jax", reason="only JAX has the fast form")
def test_on_many_cores_the_teacher_predicts_several_batches_at_once(
    teacher: Teacher, splits: sl.data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_images = []
    targets = Teacher.targets

    def count(self: Teacher, images: Any, batch_size: int) -> Any:
        n_images.append(len(images))
        return targets(self, images, batch_size)

    monkeypatch.setattr(Teacher, "targets", count)
    pixels = load_pixels(splits.photos, make_resize(32))
    train = make_datasets(splits, pixels, 16, seed=3).train
    augmentation = Augmentation(
        policy=policy("standard"), recipe=Recipe(mixup_alpha=0.2), n_classes=6, teacher=teacher,
        teacher_pixels=pixels,
    )  # fmt: skip
    n = len(train)
    assert n == 4

    def batches(n_cores: int, first: int = 0) -> list[tuple[int, Any]]:
        monkeypatch.setenv("SCENELEARN_THREADS", str(n_cores))
        n_images.clear()
        steps = range(first, 2 * n)
        return list(augmented_batches(train, augmentation, epoch=1, steps=steps))

    expected = batches(1)
    assert n_images == [16, 16, 16, 16]
    for n_cores, first, sizes in ((3, 0, [48, 16]), (8, 0, [64]), (3, 2, [48, 16]), (8, 6, [32])):
        found = batches(n_cores, first)
        assert n_images == sizes
        for (step, batch), (same_step, same) in zip(found, expected[first:], strict=True):
            assert step == same_step
            np.testing.assert_array_equal(np.asarray(batch[0]), np.asarray(same[0]))
            np.testing.assert_array_equal(batch[1], same[1])


def test_plan_counts_the_teacher(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    settings = fit_settings | {"image_px": 64, "batch_size": 32}
    plain = sl.plan(splits, **settings)
    taught = sl.plan(splits, **settings, teacher=fitted)
    other_bytes = taught.training_bytes - plain.training_bytes
    assert other_bytes > 16 * 32 * 64 * 64 * 3  # the block of batches that are learned again
    assert "teacher" not in str(plain)
    assert "it predicts the same images at 32 px, and each is learned 2 times" in str(taught)
    monkeypatch.setattr(_device, "available_bytes", lambda: taught.training_bytes - 1)
    assert sl.plan(splits, **settings).settings.batch_size == 32
    assert sl.plan(splits, **settings, teacher=fitted).settings.batch_size < 32
    assert "Reducing the batch size" in caplog.text


def test_measured_step_time_counts_a_prediction_once_in_two_steps(
    teacher: Teacher, splits: sl.data.Splits, fit_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    now = [0.0]
    targets = Teacher.targets

    def take_two_seconds(self: Teacher, images: Any, batch_size: int) -> Any:
        now[0] += 2.0 * len(images) / batch_size
        return targets(self, images, batch_size)

    monkeypatch.setattr(Teacher, "targets", take_two_seconds)
    monkeypatch.setattr(_budget.time, "perf_counter", lambda: now[0])
    plan = sl.plan(splits, **fit_settings | {"teacher": teacher.classifier, "epochs": 3})
    assert plan.step_s == pytest.approx(1.0)
    n_batches = -(-len(splits.train) // plan.settings.batch_size)
    assert [size for size, _ in plan.schedule] == 3 * [2 * n_batches]


def test_schedule_with_too_many_steps_is_a_warning(
    splits: sl.data.Splits, fit_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    fit = sl.fit(splits, **fit_settings | {"epochs": ((100, 1.0),)})
    assert len(fit.history) == 2
    (warning,) = [one.getMessage() for one in caplog.records if one.name.endswith("_budget")]
    assert "`epochs` has 100 steps per epoch, but these photos have only 4" in warning


def test_weights_of_classes_count_by_the_probabilities(
    teacher: Teacher, splits: sl.data.Splits
) -> None:
    pixels = load_pixels(splits.photos, make_resize(32))
    train = make_datasets(splits, pixels, 16, seed=3).train
    augmentation = Augmentation(
        policy=policy("none"), recipe=Recipe(), n_classes=6, teacher=teacher, teacher_pixels=pixels
    )
    weights = np.arange(1.0, 7.0)
    batches = augmented_batches(train, augmentation, epoch=1, steps=range(1), class_weights=weights)
    ((_, (_, targets, of_photo)),) = batches
    np.testing.assert_allclose(of_photo, targets[:, :6] @ weights, rtol=1e-5)


def test_photo_that_the_teacher_cannot_read_is_left_out(
    teacher: Teacher, splits: sl.data.Splits
) -> None:
    pixels = load_pixels(splits.photos, make_resize(32))
    train = make_datasets(splits, pixels, 16, seed=3).train
    order = train.order(1)
    lost = {int(order[20]), *order[32:48].tolist()}  # one of the second batch, all of the third

    def load(indices: Any) -> Any:
        kept = indices[[int(index) not in lost for index in indices]]
        return pixels.load(kept)[0], kept

    broken = Pixels(resize=pixels.resize, usable=pixels.usable, load=load)
    augmentation = Augmentation(
        policy=policy("none"), recipe=Recipe(), n_classes=6, teacher=teacher, teacher_pixels=broken
    )
    steps = range(2 * len(train))
    found = dict(augmented_batches(train, augmentation, epoch=1, steps=steps))
    assert list(found) == [step for step in steps if step % len(train) != 2]
    left = np.resize([*order[16:20], *order[21:32]], 16)
    images, targets = found[1]
    np.testing.assert_array_equal(np.asarray(images), pixels.load(left)[0])
    np.testing.assert_allclose(targets, teacher.targets(pixels.load(left)[0], 16), atol=1e-5)


def test_photos_unusable_at_the_size_of_the_teacher_are_not_used(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    lost = int(splits.train[3])
    path = splits.photos.paths[lost]

    def load(photos: Any, resize: Any, **options: Any) -> Pixels:
        pixels = load_pixels(photos, resize, **options)
        if resize.height != 32:
            return pixels
        rejected = sl.data.Rejected(path=path, reason="unreadable", detail="gone")
        usable = pixels.usable.copy()
        usable[lost] = False
        return dataclasses.replace(pixels, usable=usable, decode_failures=(rejected,))

    monkeypatch.setattr(_run, "load_pixels", load)
    settings = fit_settings | {"image_px": 48, "teacher": fitted, "epochs": ()}
    fit = sl.fit(splits, **settings)
    assert [one.path for one in fit.rejected] == [path]


def test_teacher_must_see_the_same_part_of_each_photo(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any]
) -> None:
    for other in ({"shape": "pad"}, {"image_px": (32, 48)}):
        for function in (sl.fit, sl.plan):
            with pytest.raises(ArgumentError, match=r"same part.*a teacher for 32 px, a student"):
                function(splits, **fit_settings | other, teacher=fitted)


def test_digest_depends_on_weights_and_principal_axes(
    teacher: Teacher, fitted: FitResult, splits: sl.data.Splits
) -> None:
    calibration = fitted.classifier.calibration
    assert calibration is not None
    index = calibration.neighbor_index
    turned = dataclasses.replace(index, components=-index.components)
    others = [
        dataclasses.replace(fitted.classifier, calibration=one)
        for one in (None, dataclasses.replace(calibration, neighbor_index=turned))
    ]
    digests = [teacher.digest]
    for other in others:
        loaded = load_teacher(other, splits.photos.class_names)
        assert loaded is not None
        digests.append(loaded.digest)
    assert len(set(digests)) == 3


def test_loss_is_cross_entropy_plus_squared_error() -> None:
    random = np.random.default_rng(0)
    outputs = random.normal(size=(4, 5)).astype(np.float32)
    targets = random.normal(size=(4, 5)).astype(np.float32)
    targets[:, :3] = softmax(targets[:, :3], axis=1)
    cross_entropy = -(targets[:, :3] * np.log(softmax(outputs[:, :3], axis=1))).sum(axis=1)
    error = ((targets[:, 3:] - outputs[:, 3:]) ** 2).mean(axis=1)
    loss = float(distillation_loss(3)(targets, outputs))
    assert loss == pytest.approx(float((cross_entropy + error).mean()), rel=1e-5)


def test_both_heads_have_the_full_learning_rate() -> None:
    features = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    logits_model, _ = add_zero_head(features, 6)
    model = add_feature_head(features, logits_model, 8)
    assert model.output_shape == (None, 14)
    heads = {
        variable.path: multiplier
        for variable, multiplier in zip(
            model.trainable_variables, lr_multipliers(model), strict=True
        )
        if variable.path.startswith(("logits", "teacher_features"))
    }
    assert len(heads) == 4
    assert all((multiplier == 1).all() for multiplier in heads.values())


def test_defaults_with_a_teacher(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any]
) -> None:
    settings = fit_settings | {"teacher": fitted}
    recipe = sl.plan(splits, **settings).settings.recipe
    assert (recipe.mixup_alpha, recipe.cutmix_alpha, recipe.unfreeze) == (0.2, 1.0, "all")
    recipe = sl.plan(splits, **settings, recipe={"cutmix_alpha": 0}).settings.recipe
    assert (recipe.mixup_alpha, recipe.cutmix_alpha, recipe.unfreeze) == (0.2, 0.0, "all")
    plain = sl.plan(splits, **fit_settings).settings.recipe
    assert (plain.mixup_alpha, plain.cutmix_alpha) == (0.0, 0.0)


@pytest.mark.slow
def test_fit_with_a_teacher_is_repeated_and_resumed_identically(
    fitted: FitResult, splits: sl.data.Splits, scenes: Path, fit_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = fit_settings | {"image_px": 48, "teacher": fitted}
    fit = sl.fit(splits, **settings)
    assert len(fit.history) == 3
    assert fit.settings.epochs == fit_settings["epochs"] == 2
    assert (fit.settings.teacher or "").startswith("classifier:")
    names = [layer.name for layer in fit.classifier.model.layers]
    assert "logits" in names
    assert "teacher_features" not in names
    repeated = sl.finetune.repeat(fit.to_json(), scenes, teacher=fitted.classifier)
    np.testing.assert_array_equal(repeated.test_probabilities, fit.test_probabilities)

    class CrashError(Exception):
        pass

    def crash(what: str, done: int, _: int) -> None:
        if (what, done) == ("fine-tuning", 5):
            raise CrashError

    save_at_each_step(monkeypatch)
    with pytest.raises(CrashError):
        sl.fit(splits, **settings, progress=crash)
    resumed = sl.fit(splits, **settings, resume=True)
    assert resumed.phases[0].name == "earlier run"
    np.testing.assert_array_equal(resumed.test_probabilities, fit.test_probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, {"soup": 2, "train_px": 64}])
def test_pretrained_student(
    fitted: FitResult, splits: sl.data.Splits, weights_file: Path, recipe: dict[str, Any]
) -> None:
    fit = sl.fit(
        splits, weights=weights_file, backbone="mobilenet_0.25", image_px=96, epochs=1,
        batch_size=20, recipe=recipe, teacher=fitted,
    )  # fmt: skip
    assert len(fit.history) == 1 + recipe.get("soup", 1)
    assert all(np.isfinite(epoch.train_loss) for epoch in fit.history[1:])
    assert fit.classifier.model.output_shape == (None, 6)


@pytest.mark.slow
def test_teacher_without_training_photos(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any]
) -> None:
    teacher = dataclasses.replace(fitted.classifier, calibration=None)
    fit = sl.fit(splits, **fit_settings | {"teacher": teacher})
    assert len(fit.history) == 3


@pytest.mark.slow
def test_student_approaches_its_teacher(
    fitted: FitResult, splits: sl.data.Splits, fit_settings: dict[str, Any]
) -> None:
    """A student of random weights agrees more and more with what the teacher says."""
    fit = sl.fit(splits, **fit_settings | {"teacher": fitted, "epochs": 8})
    losses = [epoch.train_loss for epoch in fit.history[1:]]
    assert losses[-1] < losses[0]
