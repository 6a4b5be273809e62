"""Unbalanced classes: weights, objectives, and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

import scenelearn as sl
from scenelearn.classify._calibration import fit_temperature, softmax
from scenelearn.classify._costs import cost_matrix
from scenelearn.errors import ArgumentError
from scenelearn.finetune import cross_validate_l2, fit_linear_probe
from scenelearn.finetune._class_weights import ClassWeights, build_class_weights, weigh_classes
from scenelearn.finetune._learner import Augmentation, augmented_batches
from scenelearn.finetune._trainer import score_logits
from scenelearn.metrics import evaluate

NAMES = ("a", "b", "c")


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    """Features of 90, 20 and 10 photos of three classes that overlap."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [90, 20, 10]).astype(np.int32)
    x = random.normal(size=(120, 6)) + np.eye(6)[labels] * 1.5
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32), labels


def test_balanced_weights_are_those_of_scikit_learn(table: Any) -> None:
    _, labels = table
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weigh_classes("balanced", NAMES, labels), expected)
    weights = weigh_classes({"c": 4}, NAMES, labels)
    assert weights is not None
    np.testing.assert_allclose(weights / weights[0], [1, 1, 4])
    assert weights[labels].mean() == pytest.approx(1)
    assert weigh_classes(None, NAMES, labels) is None


@pytest.mark.parametrize("class_weight", [None, "balanced", {"a": 1, "b": 2, "c": 5}])
def test_linear_probe_is_that_of_scikit_learn(table: Any, class_weight: Any) -> None:
    x, labels = table
    weights = weigh_classes(class_weight, NAMES, labels)
    probe = fit_linear_probe(x, labels, 3, 0.05, class_weight=weights)
    by_label = None if weights is None else dict(enumerate(weights))
    reference = LogisticRegression(
        C=1 / (0.05 * len(x)), class_weight=by_label, tol=1e-8, max_iter=10_000
    ).fit(x, labels)
    np.testing.assert_allclose(
        softmax(probe.logits(x)), reference.predict_proba(x), rtol=0, atol=2e-3
    )


def test_weights_of_one_choose_the_same_penalty(table: Any) -> None:
    x, labels = table
    plain = cross_validate_l2(x, labels, 3)
    ones = cross_validate_l2(x, labels, 3, class_weight=np.full(3, 2.0))
    assert [l2 for l2, _ in ones.losses] == [l2 for l2, _ in plain.losses]
    np.testing.assert_allclose(ones.probe.kernel, plain.probe.kernel, atol=1e-4)


def test_held_out_photos_are_weighted(table: Any) -> None:
    """Weights that leave a single class make its photos decide: almost no loss is left."""
    x, labels = table
    result = cross_validate_l2(x, labels, 3, class_weight=np.array([1e-6, 1e-6, 1.0]))
    assert min(loss for _, loss in result.losses) < 0.01


def test_temperature_with_weights_is_that_of_repeated_photos() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 400)
    logits = random.normal(size=(400, 3)) * 3 + np.eye(3)[labels]
    weights = np.where(labels == 2, 3.0, 1.0)
    repeated = np.repeat(np.arange(400), weights.astype(int))
    expected = fit_temperature(logits[repeated], labels[repeated])
    assert fit_temperature(logits, labels, weights) == pytest.approx(expected, rel=0.01)
    assert fit_temperature(logits, labels, np.ones(400)) == fit_temperature(logits, labels)


def test_each_class_counts_the_same_in_the_balanced_objective() -> None:
    logits = np.array([[0, 2], [0, 1], [3, 0], [1, 0]], np.float32)
    labels = np.array([1, 1, 1, 0], np.int32)
    weights = build_class_weights(
        None, "balanced_accuracy", ("a", "b"), train_labels=labels, validation_labels=labels
    )
    assert weights.training is None
    scores = score_logits(logits, labels, weights)
    plain = score_logits(logits, labels)
    each = plain.losses  # without weights in the temperature, either
    expected = (each[:3].mean() + each[3]) / 2
    assert scores.calibrated_loss == pytest.approx(expected)
    assert plain.calibrated_loss == pytest.approx(each.mean())
    assert scores.loss == plain.loss


def test_training_batches_carry_the_weights_of_their_labels() -> None:
    from scenelearn.augment import policy
    from scenelearn.data import Batches, Pixels
    from scenelearn.finetune import Recipe

    labels = np.array([0, 1, 2, 2, 1], np.int32)
    train = Batches(
        pixels=Pixels.from_array(np.zeros((5, 8, 8, 3), np.uint8)),
        labels=labels,
        indices=np.arange(5),
        batch_size=5,
    )
    weights = np.array([1.0, 2.0, 4.0])
    for alpha in (0.0, 0.5):
        recipe = Recipe(mixup_alpha=alpha)
        augmentation = Augmentation(policy=policy("none"), recipe=recipe, n_classes=3)
        ((_, (_, targets, of_photo)),) = augmented_batches(
            train, augmentation, epoch=1, steps=range(1), class_weights=weights
        )
        expected = [sum(t * w for t, w in zip(row, weights, strict=True)) for row in targets]
        np.testing.assert_allclose(of_photo, expected, rtol=1e-6)
        ((_, plain),) = augmented_batches(train, augmentation, epoch=1, steps=range(1))
        assert len(plain) == 2


# The whole fit


@pytest.fixture(scope="module")
def unbalanced(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> sl.data.Splits:
    """Twelve photos of the class sea, and four of each other."""
    photos = sl.scan(scenes)
    kept = [k for k, path in enumerate(photos.paths) if "sea" in path or k % 3 == 0]
    return sl.split(photos[kept])


def test_balanced_fit_leads_with_balanced_accuracy(
    unbalanced: sl.data.Splits, fit_settings: dict[str, Any], tmp_path: Path
) -> None:
    fit = sl.fit(unbalanced, class_weight="balanced", objective="balanced_accuracy", **fit_settings)
    assert fit.settings.class_weight == "balanced"
    assert fit.evaluation.summary.startswith("balanced accuracy")
    assert "test balanced accuracy" in repr(fit)
    page = sl.report(fit, tmp_path).read_text(encoding="utf-8")
    assert "a balanced accuracy" in page
    assert "too rare to judge" in page
    again = sl.finetune.FitSettings(**fit.settings.to_json())
    assert again.objective == "balanced_accuracy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weight": "even"}, "`class_weight` must be one of 'balanced', None"),
        ({"class_weight": {"sea": 0}}, "must be a number above 0"),
        ({"class_weight": {"lake": 2}}, "`class_weight` must map classes to weights"),
        ({"objective": "f1"}, "`objective` must be one of 'accuracy', 'balanced_accuracy'"),
    ],
)
def test_invalid_weights_and_objectives(
    unbalanced: sl.data.Splits, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        sl.fit(unbalanced, **options)


def test_rare_classes_are_named() -> None:
    labels = [0] * 16 + [1] * 15
    result = evaluate(labels, np.eye(3)[labels], NAMES, objective="log_loss")
    assert [metrics.label for metrics in result.rare_classes] == ["b", "c"]
    assert "Too few photos to judge: b (15), c (0)" in str(result)
    assert result.summary == "log loss 0.000 on 31 photos"
    assert evaluate([0] * 16, np.eye(1)[[0] * 16], ["a"]).per_class[0].recall.low > 0.8
    assert result.per_class[1].recall.low < 0.8


# Costs


def test_costs_by_name_and_as_a_matrix() -> None:
    matrix = cost_matrix({"a": {"b": 5}, "c": {"c": 2}}, NAMES)
    assert matrix.tolist() == [[0, 5, 1], [1, 0, 1], [1, 1, 2]]
    assert cost_matrix(matrix.tolist(), NAMES).tolist() == matrix.tolist()


def test_prediction_is_the_class_of_least_expected_cost(
    fitted: sl.finetune.FitResult, scenes: Path
) -> None:
    files = sorted(scenes.glob("*/*_000[0-4].jpg"))
    names = fitted.classifier.class_names
    plain = fitted.predict(files)
    costs = {"glacier": dict.fromkeys([name for name in names if name != "glacier"], 8)}
    decided = fitted.predict(files, costs=costs)
    changed = 0
    for before, after in zip(plain, decided, strict=True):
        p = before.probabilities
        expected = {
            name: sum(
                p[true] * (0 if true == name else 8 if true == "glacier" else 1) for true in names
            )
            for name in names
        }
        assert after.label == min(expected, key=lambda name: expected[name])
        assert after.expected_cost == pytest.approx(expected[after.label], rel=1e-5)
        assert after.probability == p[after.label]
        assert after.prediction_set == before.prediction_set
        changed += after.label != before.label
    assert changed
    same = fitted.predict(files, costs=1 - np.eye(len(names)))
    assert [each.label for each in same] == [each.label for each in plain]
    assert plain[0].expected_cost is None


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"a": 5}, "must map true classes to mappings"),
        ({"a": {"d": 5}}, "must be of the classes a, b, c"),
        ({"a": {"b": -1}}, "must be a number of at least 0"),
        (np.ones((2, 3)), r"must have the shape \(3, 3\)"),
        (np.full((3, 3), np.nan), "must be finite and at least 0"),
        ("cheap", r"must have the shape \(3, 3\)"),
    ],
)
def test_invalid_costs(costs: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        cost_matrix(costs, NAMES)


def test_weights_are_none_where_nothing_is_weighted() -> None:
    labels = np.array([0, 1])
    weights = build_class_weights(
        None, "accuracy", NAMES, train_labels=labels, validation_labels=labels
    )
    assert (weights.training, weights.choice) == (None, None)
    assert ClassWeights().choice is None
