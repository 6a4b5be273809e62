"""Accuracy, its interval, and all that goes with it, against computations of another kind."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from scenelearn.errors import ArgumentError
from scenelearn.evaluate import Evaluation, Interval, evaluate, wilson

Z = float(norm.ppf(0.975))


def random_case(
    n: int = 200, n_classes: int = 4, seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], list[str]]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(n_classes) / 2, n)
    labels = np.array([random.choice(n_classes, p=row) for row in probabilities])
    return labels, probabilities, [f"class {k}" for k in range(n_classes)]


# The interval


@pytest.mark.parametrize("n", [1, 2, 5, 10, 57, 900, 100_000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.87, 1.0])
def test_wilson_solves_the_score_equation(n: int, share: float) -> None:
    n_right = round(share * n)
    measured = n_right / n

    def excess(p: float) -> float:
        return (measured - p) ** 2 - Z**2 * p * (1 - p) / n

    interval = wilson(n_right, n)
    # Its two roots lie on both sides of the measured share.
    low = brentq(excess, 0, measured, xtol=1e-15) if 0 < n_right < n else None
    high = brentq(excess, measured, 1, xtol=1e-15) if 0 < n_right < n else None
    if n_right == 0:
        low, high = 0.0, brentq(excess, 1e-12, 1, xtol=1e-15)
    elif n_right == n:
        low, high = brentq(excess, 0, 1 - 1e-12, xtol=1e-15), 1.0
    assert interval.value == measured
    assert interval.n == n
    assert interval.low == pytest.approx(low, abs=1e-9)
    assert interval.high == pytest.approx(high, abs=1e-9)


def test_wilson_of_none_right_and_all_right_has_a_closed_form() -> None:
    for n in (1, 3, 40):
        assert wilson(0, n).low == 0
        assert wilson(0, n).high == pytest.approx(Z**2 / (n + Z**2))
        assert wilson(n, n).high == 1
        assert wilson(n, n).low == pytest.approx(n / (n + Z**2))


def test_wilson_lies_within_0_and_1_around_the_value() -> None:
    for n in range(1, 60):
        for n_right in range(n + 1):
            interval = wilson(n_right, n)
            assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_wilson_is_symmetric() -> None:
    for n_right in range(31):
        one, other = wilson(n_right, 30), wilson(30 - n_right, 30)
        assert one.low == pytest.approx(1 - other.high)


@pytest.mark.parametrize("n", [30, 100, 900])
def test_wilson_covers_the_truth_about_95_times_in_100(n: int) -> None:
    ends = np.array([(wilson(k, n).low, wilson(k, n).high) for k in range(n + 1)])
    truths = np.linspace(0.05, 0.95, 181)
    coverage = [
        binom.pmf(np.flatnonzero((ends[:, 0] <= p) & (p <= ends[:, 1])), n, p).sum() for p in truths
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.006)
    assert min(coverage) > 0.9


def test_wilson_covers_the_truth_in_a_simulation() -> None:
    n_right = np.random.default_rng(0).binomial(900, 0.9, size=4000)
    intervals = [wilson(int(k), 900) for k in n_right]
    covered = np.mean([interval.low <= 0.9 <= interval.high for interval in intervals])
    assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / 4000) ** 0.5


def test_wilson_of_nothing_is_no_knowledge() -> None:
    interval = wilson(0, 0)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high, interval.n) == (0, 1, 0)
    assert str(interval) == "no photos"
    assert interval.to_json() == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_an_interval_reads_as_a_percentage() -> None:
    assert str(Interval(value=0.9, low=0.8256, high=0.9448, n=100)) == "90.0 % (82.6 to 94.5)"


def test_an_interval_of_numpy_numbers_becomes_json() -> None:
    data = wilson(np.int64(3), np.int32(5)).to_json()  # type: ignore[arg-type]
    assert json.loads(json.dumps(data, allow_nan=False))["n"] == 5


@pytest.mark.parametrize(("n_right", "n"), [(-1, 5), (6, 5), (0, -1), (float("nan"), 5)])
def test_wilson_out_of_range(n_right: float, n: int) -> None:
    with pytest.raises(ArgumentError, match=r"`n_right` must be between 0 and `n`.*Received: n_ri"):
        wilson(n_right, n)  # type: ignore[arg-type]


# The evaluation


def test_a_case_by_hand() -> None:
    labels = [0, 0, 0, 1, 1, 2]
    probabilities = [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.1, 0.7, 0.2],  # wrong: said 1
        [0.2, 0.6, 0.2],
        [0.1, 0.2, 0.7],  # wrong: said 2
        [0.25, 0.25, 0.5],
    ]
    result = evaluate(labels, probabilities, ["sea", "forest", "street"])
    assert result.class_names == ("sea", "forest", "street")
    assert result.n_photos == 6
    assert result.accuracy == wilson(4, 6)
    assert result.confusion == ((2, 1, 0), (0, 1, 1), (0, 0, 1))
    sea, forest, street = result.per_class
    assert (sea.n_photos, sea.n_predicted) == (3, 2)
    assert (sea.recall, sea.precision) == (wilson(2, 3), wilson(2, 2))
    assert sea.f1 == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert (forest.recall.value, forest.precision.value, forest.f1) == (0.5, 0.5, 0.5)
    assert (street.recall.value, street.precision.value) == (1, 0.5)
    assert street.f1 == pytest.approx(2 / 3)
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert result.log_loss == pytest.approx(-math.log(0.8 * 0.5 * 0.1 * 0.6 * 0.2 * 0.5) / 6)
    # Bins of 1/15: 0.5, 0.5 (both right); 0.6 (right); 0.7, 0.7 (both wrong); 0.8 (right).
    assert result.calibration_error == pytest.approx((1.0 + 0.4 + 1.4 + 0.2) / 6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_against_explicit_loops(seed: int, n_classes: int) -> None:
    labels, probabilities, names = random_case(150, n_classes, seed)
    result = evaluate(labels, probabilities, names)

    said = [max(range(n_classes), key=row.__getitem__) for row in probabilities]
    pairs = list(zip(labels.tolist(), said, strict=True))
    for true in range(n_classes):
        for predicted in range(n_classes):
            assert result.confusion[true][predicted] == pairs.count((true, predicted))
    assert result.accuracy.value == sum(a == b for a, b in pairs) / 150

    for k, score in enumerate(result.per_class):
        hits = pairs.count((k, k))
        assert score.name == names[k]
        assert score.n_photos == sum(a == k for a, _ in pairs)
        assert score.n_predicted == sum(b == k for _, b in pairs)
        recall, precision = hits / score.n_photos, hits / score.n_predicted
        assert score.recall.value == pytest.approx(recall)
        assert score.precision.value == pytest.approx(precision)
        assert score.f1 == pytest.approx(2 * recall * precision / (recall + precision))

    losses = [-math.log(max(row[k], 1e-12)) for row, k in zip(probabilities, labels, strict=True)]
    assert result.log_loss == pytest.approx(sum(losses) / 150)

    error = 0.0
    for b in range(15):
        members = [k for k in range(150) if b / 15 <= probabilities[k].max() < (b + 1) / 15]
        if members:
            confidence = sum(probabilities[k].max() for k in members) / len(members)
            right = sum(said[k] == labels[k] for k in members) / len(members)
            error += len(members) / 150 * abs(confidence - right)
    assert result.calibration_error == pytest.approx(error)


def test_certain_and_right_is_perfect() -> None:
    result = evaluate([0, 1, 2], np.eye(3), "abc")
    assert result.accuracy.value == 1
    assert result.balanced_accuracy == 1
    assert result.log_loss == 0
    assert result.calibration_error == 0


def test_certain_and_wrong_is_finite() -> None:
    result = evaluate([1, 2, 0], np.eye(3), "abc")
    assert result.accuracy.value == 0
    assert result.log_loss == pytest.approx(12 * math.log(10))
    assert result.calibration_error == 1
    assert [score.f1 for score in result.per_class] == [0, 0, 0]


def test_calibrated_probabilities_have_a_small_calibration_error() -> None:
    labels, probabilities, names = random_case(20_000)
    assert evaluate(labels, probabilities, names).calibration_error < 0.02
    sharpened = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert evaluate(labels, sharpened, names).calibration_error > 0.1


def test_a_class_without_photos_is_left_out_of_the_balanced_accuracy() -> None:
    result = evaluate([0, 0, 1], [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.9, 0]], "abc")
    assert result.balanced_accuracy == pytest.approx((1 / 2 + 1) / 2)
    empty = result.per_class[2]
    assert (empty.n_photos, empty.n_predicted, empty.f1) == (0, 0, 0)
    assert math.isnan(empty.recall.value)
    assert math.isnan(empty.precision.value)


def test_balanced_accuracy_weighs_classes_not_photos() -> None:
    labels = [0] * 9 + [1]
    result = evaluate(labels, [[1, 0]] * 10, "ab")
    assert result.accuracy.value == 0.9
    assert result.balanced_accuracy == 0.5


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
    assert evaluate(labels.astype(dtype), probabilities, names) == evaluate(
        labels, probabilities, names
    )


def strict(result: Evaluation) -> dict[str, object]:
    data: dict[str, object] = json.loads(json.dumps(result.to_json(), allow_nan=False))
    return data


def test_json_is_strict_and_whole() -> None:
    labels, probabilities, names = random_case()
    result = evaluate(labels, probabilities, names)
    data = strict(result)
    assert data == result.to_json()
    assert data["n_photos"] == 200
    assert data["confusion"] == [list(row) for row in result.confusion]
    assert data["accuracy"] == {
        "value": result.accuracy.value,
        "low": result.accuracy.low,
        "high": result.accuracy.high,
        "n": 200,
    }


def test_json_of_a_class_without_photos_is_strict() -> None:
    data = strict(evaluate([0, 0], [[0.9, 0.1], [0.8, 0.2]], "ab"))
    assert data["per_class"][1]["recall"]["value"] is None  # type: ignore[index]


def test_rows_and_text() -> None:
    result = evaluate([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], ["a", "b"])
    assert str(result) == f"accuracy {wilson(3, 4)} on 4 photos"
    first, second = result.frame()
    assert (first["class"], first["photos"], first["recall"]) == ("a", 2, 1.0)
    assert (second["recall_low"], second["recall_high"]) == (wilson(1, 2).low, wilson(1, 2).high)
    assert first["precision"] == pytest.approx(2 / 3)
    assert second["f1"] == pytest.approx(2 / 3)


def test_what_a_notebook_shows_is_escaped() -> None:
    page = evaluate([0, 1], np.eye(2), ["<script>", "b"])._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


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
def test_shapes_that_do_not_fit(labels: object, probabilities: object) -> None:
    with pytest.raises(ArgumentError, match=r"`probabilities` must have one row.*Received: labels"):
        evaluate(labels, probabilities, ["a", "b"])  # type: ignore[arg-type]


def test_no_photos_at_all() -> None:
    with pytest.raises(ArgumentError, match=r"`labels` must hold at least one photo.*Pass photos"):
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
    assert "as in `class_names`" in str(caught.value)


@pytest.mark.parametrize(
    "row", [[0.5, 0.6], [1.5, -0.5], [math.nan, 1], [math.inf, 0], [3.2, -1.7]]
)
def test_rows_that_are_no_distribution(row: list[float]) -> None:
    with pytest.raises(
        ArgumentError, match=r"`probabilities` must be rows.*Received: row sums.*softm"
    ):
        evaluate([0, 1], [[0.5, 0.5], row], ["a", "b"])


@pytest.mark.parametrize("probabilities", [[[1, 0], [1]], [["a", "b"], ["c", "d"]]])
def test_probabilities_that_are_no_array(probabilities: list[list[object]]) -> None:
    with pytest.raises(ArgumentError, match=r"`probabilities` must be an array of numbers"):
        evaluate([0, 1], probabilities, ["a", "b"])  # type: ignore[arg-type]


def test_ragged_labels() -> None:
    with pytest.raises(ArgumentError, match=r"`labels` must be an array of numbers.*Pass arrays"):
        evaluate([[0], [1, 1]], np.eye(2), ["a", "b"])  # type: ignore[list-item]
