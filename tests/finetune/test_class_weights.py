"""Unbalanced classes: weights, objectives, and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

import scenelearn as sl
from scenelearn.errors import ArgumentError
from scenelearn.finetune import cross_validate_l2, fit_linear_probe
from scenelearn.metrics import evaluate

NAMES = ("a", "b", "c")


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    """Features of 90, 20 and 10 photos of three classes that overlap."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [90, 20, 10]).astype(np.int32)
    x = random.normal(size=(120, 6)) + np.eye(6)[labels] * 1.5
    return ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32), labels


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1, 1: 2, 2: 5}])
def test_linear_probe_is_that_of_scikit_learn(table: Any, class_weight: Any) -> None:
    x, labels = table
    weights = None
    if class_weight is not None:
        weights = compute_class_weight(class_weight, classes=np.arange(3), y=labels)
        weights = weights / weights[labels].mean()
    probe = fit_linear_probe(x, labels, 3, 0.05, class_weight=weights)
    by_label = None if weights is None else dict(enumerate(weights))
    reference = LogisticRegression(
        C=1 / (0.05 * len(x)), class_weight=by_label, tol=1e-8, max_iter=10_000
    ).fit(x, labels)
    np.testing.assert_allclose(
        softmax(probe.logits(x), axis=1), reference.predict_proba(x), rtol=0, atol=2e-3
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
    assert "Too few test photos to judge" in page
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


def test_costs_by_name_and_as_a_matrix(fitted: sl.finetune.FitResult) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    first, second, third, *_ = names = fitted.classifier.class_names
    matrix = 1 - np.eye(len(names))
    matrix[0, 1], matrix[2, 2] = 5, 2
    by_name = {first: {second: 5}, third: {third: 2}}
    found, expected = (fitted.predict([image], costs=costs)[0] for costs in (by_name, matrix))
    assert (found.label, found.expected_cost) == (expected.label, expected.expected_cost)
    p = np.array(list(found.probabilities.values()))
    assert found.expected_cost == pytest.approx((p @ matrix).min(), rel=1e-5)


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


def test_of_equal_costs_the_most_probable_class_is_predicted(
    fitted: sl.finetune.FitResult, scenes: Path
) -> None:
    names = fitted.classifier.class_names
    free = {name: dict.fromkeys(names, 0) for name in names}
    for before, after in zip(
        fitted.predict(scenes), fitted.predict(scenes, costs=free), strict=True
    ):
        assert (after.label, after.expected_cost) == (before.label, 0)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"sea": 5}, "must map true classes to mappings"),
        ({"sea": {"d": 5}}, "must be of the classes buildings, forest"),
        ({"sea": {"street": -1}}, "must be a number of at least 0"),
        (np.ones((2, 6)), r"must have the shape \(6, 6\)"),
        (np.full((6, 6), np.nan), "must be finite and at least 0"),
        ({0: {1: 5}}, r"must use class names as keys. Received: 0: \{1: …\}"),
        ({"sea": {1: 5}}, "must use class names as keys"),
        ("cheap", r"must have the shape \(6, 6\)"),
    ],
)
def test_invalid_costs(fitted: sl.finetune.FitResult, costs: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        fitted.predict([np.zeros((32, 32, 3), np.uint8)], costs=costs)
