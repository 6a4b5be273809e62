"""Metrics and their intervals, checked against independent computations."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import sys

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, fisher_exact, norm

from scenelearn.errors import ArgumentError, MissingExtraError
from scenelearn.metrics import (
    Evaluation,
    Interval,
    bootstrap,
    compare,
    evaluate,
    find_slices,
    mcnemar,
    wilson,
)

Z = float(norm.ppf(0.975))


def fields(*intervals: Interval) -> list[tuple[float, ...]]:
    """All fields: intervals compare by their values alone."""
    return [dataclasses.astuple(interval) for interval in intervals]


def random_case(
    n: int = 200, n_classes: int = 4, seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], list[str]]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(n_classes) / 2, n)
    labels = np.array([random.choice(n_classes, p=row) for row in probabilities])
    return labels, probabilities, [f"class {k}" for k in range(n_classes)]


# Intervals


@pytest.mark.parametrize("n", [1, 2, 5, 10, 57, 900, 100_000])
@pytest.mark.parametrize("proportion", [0.0, 0.1, 0.5, 0.87, 1.0])
def test_wilson_solves_the_score_equation(n: int, proportion: float) -> None:
    n_correct = round(proportion * n)
    measured = n_correct / n

    def excess(p: float) -> float:
        return (measured - p) ** 2 - Z**2 * p * (1 - p) / n

    interval = wilson(n_correct, n)
    # Its two roots lie on both sides of the measured proportion.
    low = brentq(excess, 0, measured, xtol=1e-15) if 0 < n_correct < n else None
    high = brentq(excess, measured, 1, xtol=1e-15) if 0 < n_correct < n else None
    if n_correct == 0:
        low, high = 0.0, brentq(excess, 1e-12, 1, xtol=1e-15)
    elif n_correct == n:
        low, high = brentq(excess, 0, 1 - 1e-12, xtol=1e-15), 1.0
    assert interval.value == measured
    assert interval.n == n
    assert interval.low == pytest.approx(low, abs=1e-9)
    assert interval.high == pytest.approx(high, abs=1e-9)


def test_wilson_of_no_and_only_successes_has_a_closed_form() -> None:
    for n in (1, 3, 40):
        assert wilson(0, n).low == 0
        assert wilson(0, n).high == pytest.approx(Z**2 / (n + Z**2))
        assert wilson(n, n).high == 1
        assert wilson(n, n).low == pytest.approx(n / (n + Z**2))


def test_wilson_lies_within_0_and_1_around_the_value() -> None:
    for n in range(1, 60):
        for n_correct in range(n + 1):
            interval = wilson(n_correct, n)
            assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_wilson_is_symmetric() -> None:
    for n_correct in range(31):
        one, other = wilson(n_correct, 30), wilson(30 - n_correct, 30)
        assert one.low == pytest.approx(1 - other.high)


@pytest.mark.parametrize("n", [30, 100, 900])
def test_wilson_covers_the_true_value_in_95_percent_of_cases(n: int) -> None:
    ends = np.array([(wilson(k, n).low, wilson(k, n).high) for k in range(n + 1)])
    truths = np.linspace(0.05, 0.95, 181)
    coverage = [
        binom.pmf(np.flatnonzero((ends[:, 0] <= p) & (p <= ends[:, 1])), n, p).sum() for p in truths
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.006)
    assert min(coverage) > 0.9


def test_wilson_covers_the_true_value_in_a_simulation() -> None:
    n_correct = np.random.default_rng(0).binomial(900, 0.9, size=4000)
    intervals = [wilson(int(k), 900) for k in n_correct]
    covered = np.mean([interval.low <= 0.9 <= interval.high for interval in intervals])
    assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / 4000) ** 0.5


def test_wilson_without_trials_is_the_whole_range() -> None:
    interval = wilson(0, 0)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high, interval.n) == (0, 1, 0)
    assert str(interval) == "no photos"
    assert interval.to_json() == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_interval_prints_as_a_percentage() -> None:
    assert str(Interval(value=0.9, low=0.8256, high=0.9448, n=100)) == "90.0% (82.6 to 94.5)"


def test_interval_of_numpy_numbers_converts_to_json() -> None:
    data = wilson(np.int64(3), np.int32(5)).to_json()  # type: ignore[arg-type]
    assert json.loads(json.dumps(data, allow_nan=False))["n"] == 5


@pytest.mark.parametrize(("n_successes", "n"), [(-1, 5), (6, 5), (0, -1), (float("nan"), 5)])
def test_wilson_out_of_range(n_successes: float, n: int) -> None:
    with pytest.raises(
        ArgumentError, match=r"`n_successes` must be between 0 and `n`.*Received: n_successes="
    ):
        wilson(n_successes, n)  # type: ignore[arg-type]


def test_interval_acts_as_its_value() -> None:
    interval = wilson(90, 100)
    assert float(interval) == 0.9
    assert f"{interval:.1%}" == "90.0%"
    assert f"{interval}" == format(interval, "") == str(interval)
    assert interval == 0.9
    assert np.float64(0.9) == interval
    assert interval != 0.8
    assert 0.8 < interval <= 0.9 <= interval < 1
    assert interval > np.float64(0.8)
    assert np.float64(0.8) < interval
    assert np.float32(0.95) >= interval
    assert wilson(7, 10) < interval < wilson(10, 10)
    assert interval == wilson(9, 10)
    assert interval != "90%"
    assert sorted([interval, wilson(1, 2)], reverse=True)[0] is interval
    np.testing.assert_array_equal(np.asarray([interval, interval], float), [0.9, 0.9])
    with pytest.raises(TypeError):
        _ = interval < "1"  # type: ignore[operator]


def test_equal_intervals_have_equal_hashes() -> None:
    assert hash(wilson(90, 100)) == hash(wilson(9, 10)) == hash(0.9)
    assert {wilson(1, 2): "half"}[0.5] == "half"  # type: ignore[index]


def test_interval_without_photos_compares_like_nan() -> None:
    interval = wilson(0, 0)
    assert not interval < 1
    assert not interval >= 0
    assert interval != interval.value


def test_intervals_survive_pickle_and_copy() -> None:
    interval = wilson(3, 7)
    for again in (pickle.loads(pickle.dumps(interval)), copy.deepcopy(interval)):  # noqa: S301
        assert fields(again) == fields(interval)


# Evaluation


def test_a_case_by_hand() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    probabilities = [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.1, 0.7, 0.2],  # wrong: predicted as 1
        [0.2, 0.6, 0.2],
        [0.1, 0.2, 0.7],  # wrong: predicted as 2
        [0.25, 0.25, 0.5],
    ]
    result = evaluate(labels, probabilities, ["sea", "forest", "street"])
    assert result.class_names == ("sea", "forest", "street")
    assert result.n_photos == 6
    assert fields(result.accuracy) == fields(wilson(4, 6))
    assert result.confusion_matrix == ((2, 1, 0), (0, 1, 1), (0, 0, 1))
    sea, forest, street = result.per_class
    assert (sea.n_photos, sea.n_predicted) == (3, 2)
    assert fields(sea.recall, sea.precision) == fields(wilson(2, 3), wilson(2, 2))
    assert sea.f1.value == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert (forest.recall.value, forest.precision.value, forest.f1.value) == (0.5, 0.5, 0.5)
    assert (street.recall.value, street.precision.value) == (1, 0.5)
    assert street.f1.value == pytest.approx(2 / 3)
    assert result.balanced_accuracy.value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result.log_loss == pytest.approx(-math.log(0.8 * 0.5 * 0.1 * 0.6 * 0.2 * 0.5) / 6)
    # Bins of 1/15: 0.5, 0.5 (both correct); 0.6 (correct); 0.7, 0.7 (both wrong); 0.8 (correct).
    assert result.calibration_error == pytest.approx((1.0 + 0.4 + 1.4 + 0.2) / 6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_against_explicit_loops(seed: int, n_classes: int) -> None:
    labels, probabilities, names = random_case(150, n_classes, seed)
    result = evaluate(labels, probabilities, names)

    predicted = [max(range(n_classes), key=row.__getitem__) for row in probabilities]
    pairs = list(zip(labels.tolist(), predicted, strict=True))
    for true in range(n_classes):
        for guess in range(n_classes):
            assert result.confusion_matrix[true][guess] == pairs.count((true, guess))
    assert result.accuracy.value == sum(a == b for a, b in pairs) / 150

    for k, metrics in enumerate(result.per_class):
        hits = pairs.count((k, k))
        assert metrics.label == names[k]
        assert metrics.n_photos == sum(a == k for a, _ in pairs)
        assert metrics.n_predicted == sum(b == k for _, b in pairs)
        recall, precision = hits / metrics.n_photos, hits / metrics.n_predicted
        assert metrics.recall.value == pytest.approx(recall)
        assert metrics.precision.value == pytest.approx(precision)
        assert metrics.f1.value == pytest.approx(2 * recall * precision / (recall + precision))

    losses = [-math.log(max(row[k], 1e-12)) for row, k in zip(probabilities, labels, strict=True)]
    assert result.log_loss == pytest.approx(sum(losses) / 150)

    error = 0.0
    for b in range(15):
        members = [k for k in range(150) if b / 15 <= probabilities[k].max() < (b + 1) / 15]
        if members:
            confidence = sum(probabilities[k].max() for k in members) / len(members)
            accuracy = sum(predicted[k] == labels[k] for k in members) / len(members)
            error += len(members) / 150 * abs(confidence - accuracy)
    assert result.calibration_error == pytest.approx(error)


def test_certain_and_right_is_perfect() -> None:
    result = evaluate([0, 1, 2], np.eye(3), "abc")
    assert result.accuracy.value == 1
    assert result.balanced_accuracy.value == 1
    assert result.log_loss == 0
    assert result.calibration_error == 0


def test_certain_and_wrong_is_finite() -> None:
    result = evaluate([1, 2, 0], np.eye(3), "abc")
    assert result.accuracy.value == 0
    assert result.log_loss == pytest.approx(12 * math.log(10))
    assert result.calibration_error == 1
    assert [metrics.f1.value for metrics in result.per_class] == [0, 0, 0]


def test_calibrated_probabilities_have_a_small_calibration_error() -> None:
    labels, probabilities, names = random_case(20_000)
    assert evaluate(labels, probabilities, names).calibration_error < 0.02
    sharpened = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert evaluate(labels, sharpened, names).calibration_error > 0.1


def test_a_class_without_photos_is_left_out_of_the_balanced_accuracy() -> None:
    result = evaluate([0, 0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.9, 0]], "abc")
    assert result.balanced_accuracy.value == pytest.approx((1 / 2 + 1) / 2)
    empty = result.per_class[2]
    assert (empty.n_photos, empty.n_predicted, empty.f1.value) == (0, 0, 0)
    assert math.isnan(empty.recall.value)
    assert math.isnan(empty.precision.value)


def test_balanced_accuracy_weighs_classes_not_photos() -> None:
    labels = [0] * 9 + [1]
    result = evaluate(labels, [[1, 0]] * 10, "ab")
    assert result.accuracy.value == 0.9
    assert result.balanced_accuracy.value == 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_probabilities_of_any_precision(dtype: type) -> None:
    labels, probabilities, names = random_case()
    reference = evaluate(labels, probabilities, names)
    result = evaluate(labels, probabilities.astype(dtype), names)
    assert result.accuracy.value == pytest.approx(reference.accuracy.value, abs=0.02)
    assert result.log_loss == pytest.approx(reference.log_loss, rel=0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer(dtype: type) -> None:
    labels, probabilities, names = random_case()
    result = evaluate(labels.astype(dtype), probabilities, names)
    assert result.to_json() == evaluate(labels, probabilities, names).to_json()


def strict(result: Evaluation) -> dict[str, object]:
    data: dict[str, object] = json.loads(json.dumps(result.to_json(), allow_nan=False))
    return data


def test_json_is_strict_and_complete() -> None:
    labels, probabilities, names = random_case()
    result = evaluate(labels, probabilities, names)
    data = strict(result)
    assert data == result.to_json()
    assert data["n_photos"] == 200
    assert data["confusion_matrix"] == [list(row) for row in result.confusion_matrix]
    assert data["accuracy"] == {
        "value": result.accuracy.value,
        "low": result.accuracy.low,
        "high": result.accuracy.high,
        "n": 200,
    }


def test_json_of_a_class_without_photos_is_strict() -> None:
    data = strict(evaluate([0, 0], [[0.9, 0.1], [0.8, 0.2]], "ab"))
    assert data["per_class"][1]["recall"]["value"] is None  # type: ignore[index]


def small_case() -> Evaluation:
    return evaluate([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], ["a", "b"])


def test_summary_and_text() -> None:
    result = small_case()
    assert result.summary == f"accuracy {wilson(3, 4)} on 4 photos"
    lines = str(result).splitlines()
    assert lines[0] == result.summary
    assert "balanced accuracy" in lines[1]
    assert lines[-3].startswith(f"b           2  {wilson(1, 2)}")
    assert lines[-1] == "Too few photos to judge: a (2), b (2)"


@pytest.mark.parametrize("sets", [[[True], [True]], [[True, False, True]] * 2, [[1, 0], [1]]])
def test_prediction_sets_of_another_shape(sets: list[list[bool]]) -> None:
    with pytest.raises(ArgumentError, match="`prediction_sets` must"):
        evaluate([0, 1], [[0.5, 0.5], [0.2, 0.8]], "ab", prediction_sets=sets)


def test_column_of_lists_of_different_lengths() -> None:
    with pytest.raises(ArgumentError, match=r"`columns\['light'\]` must be an array"):
        evaluate([0, 1], [[0.5, 0.5], [0.2, 0.8]], "ab", columns={"light": [[1], [1, 2]]})


def test_representations_are_one_line() -> None:
    result = evaluate(
        [0, 1, 1, 0],
        [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]],
        ["a", "b"],
        columns={"light": ["day", "day", "night", "day"]},
        prediction_sets=[[True, False], [False, True], [True, True], [True, False]],
    )
    assert repr(result) == f"<Evaluation: accuracy {wilson(3, 4)} on 4 photos, 2 classes>"
    assert repr(result.accuracy) == f"<Interval: {wilson(3, 4)}, n=4>"
    assert repr(result.per_class[1]) == (
        "<ClassMetrics 'b': recall 0.500, precision 1.000, F1 0.667, 2 photos>"
    )
    assert repr(result.selective) == (
        "<SelectiveMetrics: coverage 100.0%, answer rate 75.0%, selective accuracy 100.0%>"
    )
    assert repr(result.reliability[0]) == (
        "<ReliabilityBin: confidence 0.600, accuracy 0.000, 1 photos>"
    )
    assert repr(result.slices[0]) == f"<Slice {result.slices[0]}>"
    assert repr(compare([0, 1], np.eye(2), np.eye(2)[::-1], "ab")) == (
        "<Comparison: no significant difference, b minus a -100.0 points, p = 0.5, 2 photos>"
    )


def test_evaluation_survives_pickle_and_copy() -> None:
    result = small_case()
    for again in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):  # noqa: S301
        assert again.to_json() == result.to_json()


def test_most_confused_classes_come_first() -> None:
    predicted = [1, 1, 2, 0, 0, 0, 2]
    result = evaluate([0, 0, 0, 1, 1, 2, 2], np.eye(3)[predicted], ["a", "b", "c"])
    assert result.most_confused() == [
        ("a", "b", 2, 2 / 3), ("b", "a", 2, 1.0), ("a", "c", 1, 1 / 3), ("c", "a", 1, 0.5),
    ]  # fmt: skip
    assert result.most_confused(min_count=2) == result.most_confused()[:2]
    assert result.most_confused()[0].true_label == "a"
    assert evaluate([0, 1], np.eye(2), "ab").most_confused() == []
    with pytest.raises(ArgumentError, match=r"`min_count` must be an integer of at least 1"):
        result.most_confused(0)


def test_data_frame_has_one_row_per_class() -> None:
    pytest.importorskip("pandas")
    frame = small_case().to_pandas()
    assert list(frame["label"]) == ["a", "b"]
    assert list(frame["recall"]) == [1.0, 0.5]
    assert frame["recall_low"][1] == wilson(1, 2).low


def test_data_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        small_case().to_pandas()


def test_rows_of_classes() -> None:
    first, second = small_case().to_rows()
    assert (first["label"], first["n_photos"], first["recall"]) == ("a", 2, 1.0)
    assert (second["recall_low"], second["recall_high"]) == (wilson(1, 2).low, wilson(1, 2).high)
    assert first["precision"] == pytest.approx(2 / 3)
    assert second["f1"] == pytest.approx(2 / 3)


def test_notebook_view_is_escaped() -> None:
    page = evaluate([0, 1], np.eye(2), ["<script>", "b"])._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


# Top-k, Brier, reliability


def test_top_k_brier_and_bins_by_hand() -> None:
    labels = [2, 0, 1]
    table = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]
    result = evaluate(labels, table, "abc")
    # The true classes rank third, first (of two equals the earlier), and second.
    assert [interval.value for interval in result.top_k_accuracy] == [1 / 3, 2 / 3, 1]
    assert fields(result.top_k_accuracy[0]) == fields(result.accuracy)
    # (.25 + .09 + .64) + (.36 + .16 + .04) + (.16 + .36 + .04), over 3
    assert result.brier_score == pytest.approx((0.98 + 0.56 + 0.56) / 3)
    lower, upper = result.reliability  # confidences 0.4, 0.4 and 0.5
    assert (lower.low, lower.high) == (6 / 15, 7 / 15)
    assert (lower.confidence, upper.confidence) == (pytest.approx(0.4), 0.5)
    assert fields(lower.accuracy, upper.accuracy) == fields(wilson(1, 2), wilson(0, 1))
    assert result.normalized_confusion_matrix() == ((1, 0, 0), (1, 0, 0), (1, 0, 0))


def test_probabilities_slightly_above_one_have_a_noise_floor() -> None:
    result = evaluate([0, 1], [[1.0005, 0], [0, 1.0005]], "ab")
    assert result.calibration_noise_floor == 0


def test_notebook_view_leads_with_the_objective() -> None:
    result = evaluate([0, 1], [[0.9, 0.1], [0.2, 0.8]], "ab", objective="log_loss")
    assert "<b>Log loss 0.164 on 2 photos</b>" in result._repr_html_()


def test_top_k_ends_at_five() -> None:
    labels, probabilities, names = random_case(60, 9)
    order = np.argsort(-probabilities, axis=1)
    found = evaluate(labels, probabilities, names).top_k_accuracy
    assert len(found) == 5
    for k, interval in enumerate(found, start=1):
        assert interval.value == np.mean(
            [y in row[:k] for y, row in zip(labels, order, strict=True)]
        )


def test_calibration_noise_floor_is_the_error_of_calibrated_predictions() -> None:
    labels, probabilities, names = random_case(1000)
    floor = evaluate(labels, probabilities, names).calibration_noise_floor
    random = np.random.default_rng(1)
    errors = [
        evaluate(
            (probabilities.cumsum(axis=1) < random.random((1000, 1))).sum(axis=1).clip(0, 3),
            probabilities,
            names,
        ).calibration_error
        for _ in range(60)
    ]
    assert floor == pytest.approx(np.mean(errors), rel=0.08)


# Order of photos and columns


def test_order_of_the_photos_changes_nothing() -> None:
    labels, probabilities, names = random_case(1003, 6)
    light = np.random.default_rng(3).random(1003)
    reference = evaluate(labels, probabilities, names, columns={"light": light}).to_json()
    for seed in range(3):
        mixed = np.random.default_rng(seed).permutation(1003)
        again = evaluate(
            labels[mixed], probabilities[mixed], names, columns={"light": light[mixed]}
        ).to_json()
        for key in ("log_loss", "brier_score", "calibration_error", "calibration_noise_floor"):
            assert again.pop(key) == pytest.approx(reference[key], abs=1e-12)
        bins = again.pop("reliability")
        assert [b["accuracy"] for b in bins] == [b["accuracy"] for b in reference["reliability"]]
        assert again == {key: reference[key] for key in again}


def test_duplicate_class_name() -> None:
    with pytest.raises(ArgumentError, match=r"`class_names` must not contain duplicates.*sea"):
        evaluate([0], [[0.5, 0.5]], ["sea", "sea"])


# F1 and the bootstrap


def f1_interval(n_correct: int, n_photos: int, n_predicted: int) -> Interval:
    """Of a class with these counts, among photos of two others that are predicted right."""
    wrong, extra = n_photos - n_correct, n_predicted - n_correct
    labels = [0] * n_photos + [1] * extra + [2]
    predicted = [0] * n_correct + [1] * wrong + [0] * extra + [2]
    return evaluate(labels, np.eye(3)[predicted], ["a", "b", "c"]).per_class[0].f1


@pytest.mark.parametrize(
    ("n_correct", "n_photos", "n_predicted"), [(0, 5, 0), (3, 5, 4), (5, 5, 5), (40, 90, 50)]
)
def test_f1_is_the_harmonic_mean_with_wilson_on_the_union(
    n_correct: int, n_photos: int, n_predicted: int
) -> None:
    interval = f1_interval(n_correct, n_photos, n_predicted)
    assert interval.value == pytest.approx(2 * n_correct / (n_photos + n_predicted))
    union = wilson(n_correct, n_photos + n_predicted - n_correct)
    for end, of_union in ((interval.low, union.low), (interval.high, union.high)):
        assert end == pytest.approx(2 / (1 + 1 / of_union) if of_union else 0)


def proportion(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = counts[..., 0].sum(-1) / counts.sum((-2, -1))
    return result


def test_bootstrap_has_the_width_of_the_binomials() -> None:
    counts = [[90, 10], [700, 300]]
    interval = bootstrap(counts, proportion, [0, 0], n_resamples=40_000)
    deviation = math.sqrt(100 * 0.9 * 0.1 + 1000 * 0.7 * 0.3) / 1100
    assert interval.value == 790 / 1100
    assert interval.low == pytest.approx(interval.value - Z * deviation, abs=0.002)
    assert interval.high == pytest.approx(interval.value + Z * deviation, abs=0.002)
    default = fields(bootstrap(counts, proportion, [0, 0]))
    assert default == fields(bootstrap(counts, proportion, [0, 0], seed=0))
    assert default != fields(bootstrap(counts, proportion, [0, 0], seed=1))


def test_bootstrap_without_errors_is_not_certain() -> None:
    assert bootstrap([[30, 0], [0, 0]], proportion, [0, 0]).low == 1
    assert 0.8 < bootstrap([[30, 0], [0, 0]], proportion, [2, 2]).low < 0.95


@pytest.mark.parametrize("per_class", [1, 2, 3, 5])
@pytest.mark.parametrize("recall", [0.7, 0.9])
def test_bootstrap_of_few_photos_per_class_has_the_width_of_the_binomial(
    per_class: int, recall: float
) -> None:
    random = np.random.default_rng(0)
    correct = random.permutation(np.arange(100 * per_class) < 100 * per_class * recall)
    n_correct = correct.reshape(100, per_class).sum(axis=1)
    counts = np.stack([n_correct, per_class - n_correct], axis=1)
    interval = bootstrap(counts, proportion, [2, 2])
    expected = wilson(int(n_correct.sum()), 100 * per_class)
    width, expected_width = interval.high - interval.low, expected.high - expected.low
    assert 0.9 * expected_width < width < 1.1 * expected_width


def test_bootstrap_of_unlike_classes_is_around_the_value_and_in_range() -> None:
    mean_recall = lambda c: (c[..., 0] / c.sum(axis=-1)).mean(axis=-1)  # noqa: E731
    rare = bootstrap([[0, 3], [950, 50], [950, 50]], mean_recall, [2, 2])
    assert rare.value == pytest.approx(0.95 * 2 / 3)
    assert 0.5 < rare.low < rare.value - 0.001 < rare.high - 0.1
    alone = bootstrap([[0, 1]] * 99 + [[10_000, 0]], mean_recall, [2, 2])
    assert 0 <= alone.low < alone.value < alone.high < 0.2


@pytest.mark.parametrize("added", [[2], [2, 2, 2], [2, -1], ["a", "b"], 2])
def test_bootstrap_of_invalid_pseudocounts(added: object) -> None:
    with pytest.raises(ArgumentError, match="`pseudocounts` must be 2 non-negative numbers"):
        bootstrap([[3, 4]], proportion, added)  # type: ignore[arg-type]


def test_small_integers_of_numpy_do_not_overflow() -> None:
    for n_successes, n, kind in ((90, 100, np.uint8), (60_000, 65_536, np.int32)):
        assert fields(wilson(kind(n_successes), kind(n))) == fields(wilson(n_successes, n))
    counts = np.array([[3, 9], [8, 2]], np.uint8)
    difference = lambda c: (c[..., 0] - c[..., 1]).sum(-1) / c.sum((-1, -2))  # noqa: E731
    assert bootstrap(counts, difference, [1, 1]).value == 0


@pytest.mark.parametrize("counts", [[3, 4], [[0, 0]], [[-1, 3]], [[0.5, 0.5]], [[]]])
def test_bootstrap_of_invalid_counts(counts: list[object]) -> None:
    with pytest.raises(ArgumentError, match=r"`counts` must be \(n_classes, n_outcomes\)"):
        bootstrap(counts, proportion, [0, 0])  # type: ignore[arg-type]


def simulated(
    per_class: list[int], recalls: list[float], n_times: int
) -> tuple[float, float, float]:
    """Coverage of the intervals of accuracy (both kinds) and balanced accuracy."""
    random = np.random.default_rng(0)
    k = len(recalls)
    labels = np.repeat(np.arange(k), per_class)
    truth = np.array(recalls)[labels].mean(), np.array(recalls)[labels].mean(), np.mean(recalls)
    covered = np.zeros(3)
    for _ in range(n_times):
        correct = random.random(len(labels)) < np.array(recalls)[labels]
        predicted = np.where(correct, labels, (labels + 1) % k)
        result = evaluate(labels, np.eye(k)[predicted], [str(j) for j in range(k)])
        measured = (result.accuracy, result.accuracy_bootstrap, result.balanced_accuracy)
        covered += [i.low <= t <= i.high for i, t in zip(measured, truth, strict=True)]
    accuracy, bootstrapped, balanced = (covered / n_times).tolist()
    return accuracy, bootstrapped, balanced


CASES = [
    ([25, 25, 25, 25], [0.9, 0.95, 0.8, 0.98]),
    ([150] * 6, [0.9, 0.95, 0.8, 0.98, 0.85, 0.92]),
    ([200, 60, 20], [0.95, 0.9, 0.7]),
    ([1] * 40, [0.95, 0.8, 0.9, 0.7] * 10),
    ([3] * 20, [0.95, 0.8, 0.9, 0.7] * 5),
]


@pytest.mark.nightly
@pytest.mark.parametrize(("per_class", "recalls"), CASES)
def test_intervals_cover_the_true_values_in_2000_simulations(
    per_class: list[int], recalls: list[float]
) -> None:
    assert min(simulated(per_class, recalls, 2000)) >= 0.93


@pytest.mark.nightly
def test_f1_covers_the_true_value_in_2000_simulations() -> None:
    random = np.random.default_rng(0)
    joint = np.array([[0.28, 0.04, 0.01], [0.02, 0.3, 0.02], [0.01, 0.02, 0.3]])
    truth = 2 * joint.diagonal() / (joint.sum(axis=0) + joint.sum(axis=1))
    covered = np.zeros(3)
    for flat in random.multinomial(120, joint.ravel(), size=2000):
        confusion_matrix = flat.reshape(3, 3)
        for k in range(3):
            i = f1_interval(
                confusion_matrix[k, k], confusion_matrix[k].sum(), confusion_matrix[:, k].sum()
            )
            covered[k] += i.low <= truth[k] <= i.high
    assert (covered / 2000).min() >= 0.93


@pytest.mark.parametrize("arguments", [{"n_resamples": 0}, {"n_resamples": 2.5}, {"seed": -1}])
def test_bootstrap_arguments_out_of_range(arguments: dict[str, int]) -> None:
    with pytest.raises(ArgumentError, match="must be an integer of at least"):
        bootstrap([[3, 4]], proportion, [0, 0], **arguments)


# Comparison of two classifiers


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 7), (12, 3), (40, 61), (500, 450)])
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("n_correct", "n", "rest_correct", "rest"),
    [(1, 4, 4, 4), (0, 3, 9, 10), (30, 50, 900, 950), (5, 5, 5, 5), (2, 9, 1, 1)],
)
def test_fisher_agrees_with_scipy(n_correct: int, n: int, rest_correct: int, rest: int) -> None:
    counts = (n_correct, n - n_correct, rest_correct, rest - rest_correct)
    correct = np.repeat([True, False, True, False], counts)
    found = {one.group: one for one in find_slices(correct, {"c": ["a"] * n + ["b"] * rest})}
    table = [[n_correct, n - n_correct], [rest_correct, rest - rest_correct]]
    for group, rows in (("a", table), ("b", table[::-1])):
        expected = fisher_exact(rows, alternative="less").pvalue
        assert found[group].p_value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("counts", [(-1, 2), (1, -2)])
def test_mcnemar_out_of_range(counts: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match=r"`n_only_a` and `n_only_b` must be at least 0"):
        mcnemar(*counts)


def test_p_values_are_adjusted_by_holm() -> None:
    correct = np.random.default_rng(0).random(60) < 0.7
    groups = np.repeat(["a", "b", "c", "d"], [8, 12, 15, 25])
    found = find_slices(correct, {"c": groups})  # the smallest p-value first
    largest = 0.0
    for k, one in enumerate(found):
        largest = max(largest, min(1.0, (4 - k) * one.p_value))
        assert one.adjusted_p_value == pytest.approx(largest)


def test_comparison_by_hand() -> None:
    labels = [0] * 60 + [1] * 40
    first, second = np.array(labels), np.array(labels)
    first[:9] = 1  # wrong on nine that the second gets right
    second[90:92] = 0
    first[99] = second[99] = 0
    found = compare(labels, np.eye(2)[first], np.eye(2)[second], ["sea", "street"])
    assert fields(found.accuracy_a, found.accuracy_b) == fields(wilson(90, 100), wilson(97, 100))
    assert (found.n_only_a_correct, found.n_only_b_correct) == (2, 9)
    assert found.p_value == pytest.approx(binomtest(2, 11).pvalue)
    assert found.accuracy_difference.value == pytest.approx(0.07)
    assert found.balanced_accuracy_difference.value == pytest.approx((9 / 60 - 2 / 40) / 2)
    deviation = math.sqrt((11 / 100 - 0.07**2) / 100)
    assert found.accuracy_difference.low == pytest.approx(0.07 - Z * deviation, abs=0.012)
    assert found.accuracy_difference.high == pytest.approx(0.07 + Z * deviation, abs=0.012)
    assert found.winner is None
    assert "no significant difference" in str(found)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["n_only_b_correct"] == 9
    assert "&lt;" not in found._repr_html_()


def test_significantly_better_classifier_is_the_winner() -> None:
    labels = np.zeros(50, int)
    good, bad = np.tile([1.0, 0.0], (50, 1)), np.tile([0.0, 1.0], (50, 1))
    assert compare(labels, good, bad, "ab").winner == "a"
    assert compare(labels, bad, good, "ab").winner == "b"
    assert "b is better" in str(compare(labels, bad, good, "ab"))


def test_equal_classifiers_have_an_interval_around_zero() -> None:
    labels, table, names = random_case()
    found = compare(labels, table, table, names)
    assert (found.p_value, found.accuracy_difference.value) == (1, 0)
    assert -0.05 < found.accuracy_difference.low < 0 < found.accuracy_difference.high < 0.05


def test_comparison_of_mismatched_shapes() -> None:
    with pytest.raises(ArgumentError, match="`probabilities` must have one row"):
        compare([0, 1], np.eye(2), np.eye(3), ["a", "b"])


@pytest.mark.nightly
@pytest.mark.parametrize("per_class", [5, 25, 150])
def test_difference_covers_the_true_value_in_2000_simulations(per_class: int) -> None:
    random = np.random.default_rng(0)
    # both correct, only a, only b, neither
    fractions = np.array(
        [[0.85, 0.02, 0.1, 0.03], [0.8, 0.06, 0.05, 0.09], [0.9, 0.01, 0.04, 0.05]]
    )
    truth = (fractions[:, 2] - fractions[:, 1]).mean()
    labels = np.repeat(np.arange(3), per_class)
    covered = np.zeros(2)
    for _ in range(2000):
        exceeded = random.random(len(labels))[:, None] > fractions.cumsum(axis=1)[labels]
        outcome = exceeded.sum(axis=1).clip(0, 3)
        a, b = (
            np.where(np.isin(outcome, good), labels, (labels + 1) % 3) for good in ([0, 1], [0, 2])
        )
        found = compare(labels, np.eye(3)[a], np.eye(3)[b], "abc")
        covered += [
            i.low <= truth <= i.high
            for i in (found.accuracy_difference, found.balanced_accuracy_difference)
        ]
    assert (covered / 2000).min() >= 0.93


# Slices


def test_slice_of_dark_photos_is_found() -> None:
    random = np.random.default_rng(0)
    brightness = random.uniform(0, 255, 800)
    correct = random.random(800) < np.where(brightness < 60, 0.6, 0.95)
    found = find_slices(
        correct, {"brightness": brightness, "camera": random.choice(list("abc"), 800)}
    )
    assert len(found) == 4 + 3
    worst = found[0]
    dark = brightness <= np.quantile(brightness, 0.25)
    assert worst.column == "brightness"
    assert fields(worst.accuracy, worst.rest_accuracy) == fields(
        wilson(int(correct[dark].sum()), int(dark.sum())),
        wilson(int(correct[~dark].sum()), int((~dark).sum())),
    )
    table = [
        [correct[dark].sum(), (~correct[dark]).sum()],
        [correct[~dark].sum(), (~correct[~dark]).sum()],
    ]
    assert worst.p_value == pytest.approx(fisher_exact(table, "less").pvalue, rel=1e-6)
    assert worst.adjusted_p_value == pytest.approx(7 * worst.p_value)
    assert [one.is_worse for one in found] == [True] + [False] * 6


def test_false_alarms_stay_below_5_percent() -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        columns = {name: random.random(200) for name in "abcde"}
        alarms += any(one.is_worse for one in find_slices(random.random(200) < 0.9, columns))
    assert alarms / 400 < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_equal_numbers_share_a_bin_and_nan_is_in_no_slice() -> None:
    correct = np.array([True] * 6 + [False] * 4)
    numbers = [1, 1, 1, 1, 1, 1, 1, 1, 2, math.nan]
    found = find_slices(correct, {"n": numbers, "constant": [3] * 10, "nothing": [math.nan] * 10})
    assert {one.group: one.accuracy.n for one in found} == {"1": 8, "2": 1}
    assert json.loads(json.dumps(found[0].to_json(), allow_nan=False))["column"] == "n"


def test_missing_values_are_in_no_slice() -> None:
    correct = np.array([True] * 6 + [False] * 4)
    cameras = ["a", None, float("nan"), "", "b", "b", "a", "a", "b", "a"]
    found = find_slices(correct, {"camera": np.array(cameras, object)})
    assert {one.group: one.accuracy.n for one in found} == {"a": 4, "b": 3}
    assert find_slices(correct, {"camera": cameras})[0].group == found[0].group
    nothing = type("NAType", (), {"__bool__": lambda _: 1 / 0, "__eq__": lambda a, _: a})()
    found = find_slices(correct, {"x": np.array(["a"] * 5 + [nothing] + ["b"] * 4, object)})
    assert {one.group: one.accuracy.n for one in found} == {"a": 5, "b": 4}
    days = np.array(["2026-01-01"] * 6 + ["2026-01-02"] * 3 + ["NaT"], "datetime64[ns]")
    found = find_slices(correct, {"day": days.astype("datetime64[D]")})
    assert {one.group: one.accuracy.n for one in found} == {"2026-01-01": 6, "2026-01-02": 3}
    assert {one.group for one in find_slices(correct, {"flash": correct})} == {"False", "True"}
    numbers = np.array([1, 1, 1, None, 1, 1, 2, 2, 2, 2], object)
    found = find_slices(correct, {"n": numbers})
    assert {one.group: one.accuracy.n for one in found} == {"1": 5, "2": 4}


def test_ranges_of_large_numbers_differ() -> None:
    days = np.arange(20240101, 20240101 + 400)
    groups = {one.group for one in find_slices(np.arange(400) > 100, {"day": days})}
    assert len(groups) == 4
    assert "20240101 to 20240200" in groups


def test_evaluation_shows_its_slices() -> None:
    labels = np.zeros(100, int)
    predicted = np.repeat([0, 1], [80, 20])
    result = evaluate(
        labels, np.eye(2)[predicted], "ab", columns={"<b>": np.repeat(["x", "y"], [80, 20])}
    )
    assert fields(result.slices[0].accuracy) == fields(wilson(0, 20))
    assert "&lt;b&gt; y: 0.0%" in result._repr_html_()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": [1, 2]}, r"`columns\['x'\]` must have one value for each of the 60 photos"),
        ({"x": [[1]] * 60}, r"must have one value"),
        ({"x": [str(k) for k in range(60)]}, r"at most 50 distinct values. Received: 60"),
        (["x"], r"`columns` must map names to values. Received: list"),
    ],
)
def test_invalid_columns(columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        find_slices([True] * 60, columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_bins", [1, 2.5, True])
def test_too_few_bins(n_bins: int) -> None:
    with pytest.raises(ArgumentError, match="`n_bins` must be an integer of at least 2"):
        find_slices([True], {}, n_bins=n_bins)


@pytest.mark.parametrize("correct", [[], [1, 0], [[True]]])
def test_correct_must_be_booleans(correct: list[object]) -> None:
    with pytest.raises(ArgumentError, match="`correct` must be"):
        find_slices(correct, {})  # type: ignore[arg-type]


# Arguments


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([0, 1, 1], np.eye(2)),
        ([0, 1], np.eye(3)[:2]),
        ([[0], [1]], np.eye(2)),
        ([0, 1], [0.5, 0.5]),
        ([], []),
        (0, [[1, 0]]),
    ],
)
def test_mismatched_shapes(labels: object, probabilities: object) -> None:
    with pytest.raises(ArgumentError, match=r"`probabilities` must have one row.*Received: labels"):
        evaluate(labels, probabilities, ["a", "b"])  # type: ignore[arg-type]


def test_empty_labels() -> None:
    with pytest.raises(ArgumentError, match=r"`labels` must not be empty.*Pass at least one photo"):
        evaluate(np.zeros(0, int), np.zeros((0, 2)), ["a", "b"])


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ([0, 2], "from 0 to 2"),
        ([-1, 0], "from -1 to 0"),
        ([0.0, 1.0], "float64"),
        ([True, False], "bool"),
        (["sea", "street"], "<U6"),
        ([None, 0], "object"),
    ],
)
def test_labels_out_of_range(labels: list[object], received: str) -> None:
    with pytest.raises(ArgumentError, match=r"`labels` must be integers in \[0, 2\)") as caught:
        evaluate(labels, np.eye(2), ["a", "b"])  # type: ignore[arg-type]
    assert received in str(caught.value)
    assert "indices into `class_names`" in str(caught.value)


@pytest.mark.parametrize(
    "row", [[0.5, 0.6], [1.5, -0.5], [math.nan, 1], [math.inf, 0], [3.2, -1.7]]
)
def test_rows_that_are_not_distributions(row: list[float]) -> None:
    with pytest.raises(
        ArgumentError, match=r"`probabilities` must be non-negative.*Received: row sums.*softm"
    ):
        evaluate([0, 1], [[0.5, 0.5], row], ["a", "b"])


@pytest.mark.parametrize("probabilities", [[[1, 0], [1]], [["a", "b"], ["c", "d"]]])
def test_probabilities_that_are_not_an_array(probabilities: list[list[object]]) -> None:
    with pytest.raises(ArgumentError, match=r"`probabilities` must be an array of numbers"):
        evaluate([0, 1], probabilities, ["a", "b"])  # type: ignore[arg-type]


def test_ragged_labels() -> None:
    with pytest.raises(ArgumentError, match=r"`labels` must be an array of numbers.*Pass arrays"):
        evaluate([[0], [1, 1]], np.eye(2), ["a", "b"])  # type: ignore[list-item]
