"""Accuracy, its interval, and all that goes with it, against computations of another kind."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, fisher_exact, norm

from scenelearn.errors import ArgumentError, ClassMismatchError
from scenelearn.metrics import (
    Evaluation,
    Interval,
    bootstrap,
    compare,
    evaluate,
    f1_interval,
    fisher,
    holm,
    mcnemar,
    reorder,
    slices,
    wilson,
)

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
    assert sea.f1.value == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert (forest.recall.value, forest.precision.value, forest.f1.value) == (0.5, 0.5, 0.5)
    assert (street.recall.value, street.precision.value) == (1, 0.5)
    assert street.f1.value == pytest.approx(2 / 3)
    assert result.balanced_accuracy.value == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
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
        assert score.f1.value == pytest.approx(2 * recall * precision / (recall + precision))

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
    assert result.balanced_accuracy.value == 1
    assert result.log_loss == 0
    assert result.calibration_error == 0


def test_certain_and_wrong_is_finite() -> None:
    result = evaluate([1, 2, 0], np.eye(3), "abc")
    assert result.accuracy.value == 0
    assert result.log_loss == pytest.approx(12 * math.log(10))
    assert result.calibration_error == 1
    assert [score.f1.value for score in result.per_class] == [0, 0, 0]


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
    first, second = result.to_rows()
    assert (first["class"], first["photos"], first["recall"]) == ("a", 2, 1.0)
    assert (second["recall_low"], second["recall_high"]) == (wilson(1, 2).low, wilson(1, 2).high)
    assert first["precision"] == pytest.approx(2 / 3)
    assert second["f1"] == pytest.approx(2 / 3)


def test_what_a_notebook_shows_is_escaped() -> None:
    page = evaluate([0, 1], np.eye(2), ["<script>", "b"])._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


# Top-k, Brier, reliability


def test_top_k_brier_and_bins_by_hand() -> None:
    labels = [2, 0, 1]
    table = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]
    result = evaluate(labels, table, "abc")
    # The true classes come third, first (of two equals the earlier), and second.
    assert [interval.value for interval in result.top_k] == [1 / 3, 2 / 3, 1]
    assert result.top_k[0] == result.accuracy
    # (.25 + .09 + .64) + (.36 + .16 + .04) + (.16 + .36 + .04), over 3
    assert result.brier == pytest.approx((0.98 + 0.56 + 0.56) / 3)
    lower, upper = result.reliability  # confidences 0.4, 0.4 and 0.5
    assert (lower.low, lower.high) == (6 / 15, 7 / 15)
    assert (lower.confidence, lower.accuracy) == (pytest.approx(0.4), wilson(1, 2))
    assert (upper.confidence, upper.accuracy) == (0.5, wilson(0, 1))
    assert result.confusion_rates() == ((1, 0, 0), (1, 0, 0), (1, 0, 0))


def test_at_most_five_ranks() -> None:
    labels, probabilities, names = random_case(60, 9)
    order = np.argsort(-probabilities, axis=1)
    found = evaluate(labels, probabilities, names).top_k
    assert len(found) == 5
    for k, interval in enumerate(found, start=1):
        assert interval.value == np.mean(
            [y in row[:k] for y, row in zip(labels, order, strict=True)]
        )


def test_calibration_floor_is_what_perfect_calibration_shows() -> None:
    labels, probabilities, names = random_case(1000)
    floor = evaluate(labels, probabilities, names).calibration_floor
    random = np.random.default_rng(1)
    drawn = [
        evaluate(
            (probabilities.cumsum(axis=1) < random.random((1000, 1))).sum(axis=1).clip(0, 3),
            probabilities,
            names,
        ).calibration_error
        for _ in range(60)
    ]
    assert floor == pytest.approx(np.mean(drawn), rel=0.08)


# Neither order nor batches matter


def test_order_of_the_photos_changes_nothing() -> None:
    labels, probabilities, names = random_case(1003, 6)
    light = np.random.default_rng(3).random(1003)
    reference = evaluate(labels, probabilities, names, columns={"light": light}).to_json()
    for seed in range(3):
        mixed = np.random.default_rng(seed).permutation(1003)
        again = evaluate(
            labels[mixed], probabilities[mixed], names, columns={"light": light[mixed]}
        ).to_json()
        for key in ("log_loss", "brier", "calibration_error", "calibration_floor"):
            assert again.pop(key) == pytest.approx(reference[key], abs=1e-12)
        bins = again.pop("reliability")
        assert [b["accuracy"] for b in bins] == [b["accuracy"] for b in reference["reliability"]]
        assert again == {key: reference[key] for key in again}


def test_columns_are_brought_into_order_by_name() -> None:
    _, probabilities, names = random_case()
    order = [2, 0, 3, 1]
    mixed = reorder(probabilities[:, order], [names[k] for k in order], names)
    np.testing.assert_array_equal(mixed, probabilities)


@pytest.mark.parametrize(
    ("have", "want", "words"),
    [
        (["a", "b"], ["a", "c"], r"here only b; there only c"),
        (["a", "b", "c"], ["a", "b"], r"here only c\)"),
        (["a", "a"], ["a"], r"some more than once"),
    ],
)
def test_columns_of_other_classes(have: list[str], want: list[str], words: str) -> None:
    with pytest.raises(ClassMismatchError, match=rf"the same classes.*{words}"):
        reorder(np.eye(len(have)), have, want)


def test_a_class_named_twice() -> None:
    with pytest.raises(ArgumentError, match=r"`class_names` must name each class once.*sea"):
        evaluate([0], [[0.5, 0.5]], ["sea", "sea"])


# F1 and the bootstrap


@pytest.mark.parametrize(
    ("hits", "photos", "said"), [(0, 5, 0), (3, 5, 4), (5, 5, 5), (40, 90, 50)]
)
def test_f1_is_the_harmonic_mean_with_wilson_on_the_union(
    hits: int, photos: int, said: int
) -> None:
    interval = f1_interval(hits, photos, said)
    assert interval.value == pytest.approx(2 * hits / (photos + said))
    union = wilson(hits, photos + said - hits)
    for end, of_union in ((interval.low, union.low), (interval.high, union.high)):
        assert end == pytest.approx(2 / (1 + 1 / of_union) if of_union else 0)


@pytest.mark.parametrize("counts", [(3, 2, 5), (3, 5, 2), (-1, 2, 2)])
def test_f1_out_of_range(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ArgumentError, match=r"`n_hits` must be at most"):
        f1_interval(*counts)


def share(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = counts[..., 0].sum(-1) / counts.sum((-2, -1))
    return result


def test_bootstrap_has_the_width_of_its_binomials() -> None:
    counts = [[90, 10], [700, 300]]
    interval = bootstrap(counts, share, [0, 0], n_draws=40_000)
    deviation = math.sqrt(100 * 0.9 * 0.1 + 1000 * 0.7 * 0.3) / 1100
    assert interval.value == 790 / 1100
    assert interval.low == pytest.approx(interval.value - Z * deviation, abs=0.002)
    assert interval.high == pytest.approx(interval.value + Z * deviation, abs=0.002)
    assert bootstrap(counts, share, [0, 0]) == bootstrap(counts, share, [0, 0])
    assert bootstrap(counts, share, [0, 0]) != bootstrap(counts, share, [0, 0], seed=1)


def test_bootstrap_of_all_right_is_not_certain() -> None:
    assert bootstrap([[30, 0], [0, 0]], share, [0, 0]).low == 1
    assert 0.8 < bootstrap([[30, 0], [0, 0]], share, [2, 2]).low < 0.95


@pytest.mark.parametrize("counts", [[3, 4], [[0, 0]], [[-1, 3]], [[0.5, 0.5]], [[]]])
def test_bootstrap_of_no_counts(counts: list[object]) -> None:
    with pytest.raises(ArgumentError, match=r"`counts` must be a table"):
        bootstrap(counts, share, [0, 0])  # type: ignore[arg-type]


def simulated(
    per_class: list[int], recalls: list[float], n_times: int
) -> tuple[float, float, float]:
    """How often the intervals of accuracy (twice) and balanced accuracy hold the truth."""
    random = np.random.default_rng(0)
    k = len(recalls)
    labels = np.repeat(np.arange(k), per_class)
    truth = np.array(recalls)[labels].mean(), np.array(recalls)[labels].mean(), np.mean(recalls)
    held = np.zeros(3)
    for _ in range(n_times):
        right = random.random(len(labels)) < np.array(recalls)[labels]
        said = np.where(right, labels, (labels + 1) % k)
        result = evaluate(labels, np.eye(k)[said], [str(j) for j in range(k)])
        measured = (result.accuracy, result.accuracy_bootstrap, result.balanced_accuracy)
        held += [i.low <= t <= i.high for i, t in zip(measured, truth, strict=True)]
    accuracy, bootstrapped, balanced = (held / n_times).tolist()
    return accuracy, bootstrapped, balanced


CASES = [
    ([25, 25, 25, 25], [0.9, 0.95, 0.8, 0.98]),
    ([150] * 6, [0.9, 0.95, 0.8, 0.98, 0.85, 0.92]),
    ([200, 60, 20], [0.95, 0.9, 0.7]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("per_class", "recalls"), CASES)
def test_intervals_cover_the_truth_in_2000_simulations(
    per_class: list[int], recalls: list[float]
) -> None:
    assert min(simulated(per_class, recalls, 2000)) >= 0.93


@pytest.mark.slow
def test_f1_covers_the_truth_in_2000_simulations() -> None:
    random = np.random.default_rng(0)
    joint = np.array([[0.28, 0.04, 0.01], [0.02, 0.3, 0.02], [0.01, 0.02, 0.3]])
    truth = 2 * joint.diagonal() / (joint.sum(axis=0) + joint.sum(axis=1))
    held = np.zeros(3)
    for flat in random.multinomial(120, joint.ravel(), size=2000):
        confusion = flat.reshape(3, 3)
        for k in range(3):
            i = f1_interval(confusion[k, k], confusion[k].sum(), confusion[:, k].sum())
            held[k] += i.low <= truth[k] <= i.high
    assert (held / 2000).min() >= 0.93


# Two classifiers


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 7), (12, 3), (40, 61), (500, 450)])
def test_mcnemar_is_the_binomial_test(first: int, second: int) -> None:
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("n_right", "n", "rest_right", "rest"),
    [(1, 4, 4, 4), (0, 3, 9, 10), (30, 50, 900, 950), (5, 5, 5, 5), (0, 0, 3, 5), (2, 9, 0, 0)],
)
def test_fisher_is_that_of_scipy(n_right: int, n: int, rest_right: int, rest: int) -> None:
    table = [[n_right, n - n_right], [rest_right, rest - rest_right]]
    expected = fisher_exact(table, alternative="less").pvalue if n and rest else 1.0
    assert fisher(n_right, n, rest_right, rest) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("counts", [(-1, 2), (1, -2)])
def test_mcnemar_out_of_range(counts: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match=r"`n_first` and `n_second` must be at least 0"):
        mcnemar(*counts)


@pytest.mark.parametrize("counts", [(3, 2, 1, 1), (1, 2, 3, 2), (-1, 2, 1, 2)])
def test_fisher_out_of_range(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ArgumentError, match=r"`n_right` and `rest_right` must be between"):
        fisher(*counts)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_comparison_by_hand() -> None:
    labels = [0] * 60 + [1] * 40
    first, second = np.array(labels), np.array(labels)
    first[:9] = 1  # wrong on nine that the second gets right
    second[90:92] = 0
    first[99] = second[99] = 0
    found = compare(labels, np.eye(2)[first], np.eye(2)[second], ["sea", "street"])
    assert (found.a, found.b) == (wilson(90, 100), wilson(97, 100))
    assert (found.n_only_a, found.n_only_b) == (2, 9)
    assert found.p_value == pytest.approx(binomtest(2, 11).pvalue)
    assert found.difference.value == pytest.approx(0.07)
    assert found.balanced_difference.value == pytest.approx((9 / 60 - 2 / 40) / 2)
    deviation = math.sqrt((11 / 100 - 0.07**2) / 100)
    assert found.difference.low == pytest.approx(0.07 - Z * deviation, abs=0.012)
    assert found.difference.high == pytest.approx(0.07 + Z * deviation, abs=0.012)
    assert found.better == ""
    assert "no significant difference" in str(found)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["n_only_b"] == 9
    assert "&lt;" not in found._repr_html_()


def test_the_better_one_is_named() -> None:
    labels = np.zeros(50, int)
    good, bad = np.tile([1.0, 0.0], (50, 1)), np.tile([0.0, 1.0], (50, 1))
    assert compare(labels, good, bad, "ab").better == "a"
    assert compare(labels, bad, good, "ab").better == "b"
    assert "the second is better" in str(compare(labels, bad, good, "ab"))


def test_equal_classifiers_are_not_certain_to_be_equal() -> None:
    labels, table, names = random_case()
    found = compare(labels, table, table, names)
    assert (found.p_value, found.difference.value) == (1, 0)
    assert -0.05 < found.difference.low < 0 < found.difference.high < 0.05


def test_comparison_of_tables_that_do_not_fit() -> None:
    with pytest.raises(ArgumentError, match="`probabilities` must have one row"):
        compare([0, 1], np.eye(2), np.eye(3), ["a", "b"])


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [25, 150])
def test_difference_covers_the_truth_in_2000_simulations(per_class: int) -> None:
    random = np.random.default_rng(0)
    # both right, only a, only b, none
    shares = np.array([[0.85, 0.02, 0.1, 0.03], [0.8, 0.06, 0.05, 0.09], [0.9, 0.01, 0.04, 0.05]])
    truth = (shares[:, 2] - shares[:, 1]).mean()
    labels = np.repeat(np.arange(3), per_class)
    held = np.zeros(2)
    for _ in range(2000):
        drawn = random.random(len(labels))[:, None] > shares.cumsum(axis=1)[labels]
        outcome = drawn.sum(axis=1).clip(0, 3)
        a, b = (
            np.where(np.isin(outcome, good), labels, (labels + 1) % 3) for good in ([0, 1], [0, 2])
        )
        found = compare(labels, np.eye(3)[a], np.eye(3)[b], "abc")
        held += [i.low <= truth <= i.high for i in (found.difference, found.balanced_difference)]
    assert (held / 2000).min() >= 0.93


# Slices


def test_dark_photos_are_found() -> None:
    random = np.random.default_rng(0)
    brightness = random.uniform(0, 255, 800)
    right = random.random(800) < np.where(brightness < 60, 0.6, 0.95)
    found = slices(right, {"brightness": brightness, "camera": random.choice(list("abc"), 800)})
    assert len(found) == 4 + 3
    worst = found[0]
    dark = brightness <= np.quantile(brightness, 0.25)
    assert worst.column == "brightness"
    assert worst.accuracy == wilson(int(right[dark].sum()), int(dark.sum()))
    assert worst.rest == wilson(int(right[~dark].sum()), int((~dark).sum()))
    table = [[right[dark].sum(), (~right[dark]).sum()], [right[~dark].sum(), (~right[~dark]).sum()]]
    assert worst.p_value == pytest.approx(fisher_exact(table, "less").pvalue, rel=1e-6)
    assert worst.corrected == pytest.approx(7 * worst.p_value)
    assert [one.is_worse for one in found] == [True] + [False] * 6


def test_nothing_is_found_by_chance_in_19_of_20_cases() -> None:
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        columns = {name: random.random(200) for name in "abcde"}
        alarms += any(one.is_worse for one in slices(random.random(200) < 0.9, columns))
    assert alarms / 400 < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_equal_numbers_stay_together_and_nan_is_in_no_group() -> None:
    right = np.array([True] * 6 + [False] * 4)
    numbers = [1, 1, 1, 1, 1, 1, 1, 1, 2, math.nan]
    found = slices(right, {"n": numbers, "constant": [3] * 10, "nothing": [math.nan] * 10})
    assert {one.group: one.accuracy.n for one in found} == {"1": 8, "2": 1}
    assert json.loads(json.dumps(found[0].to_json(), allow_nan=False))["column"] == "n"


def test_an_evaluation_shows_its_slices() -> None:
    labels = np.zeros(100, int)
    said = np.repeat([0, 1], [80, 20])
    result = evaluate(
        labels, np.eye(2)[said], "ab", columns={"<b>": np.repeat(["x", "y"], [80, 20])}
    )
    assert result.slices[0].accuracy == wilson(0, 20)
    assert "&lt;b&gt; y: 0.0 %" in result._repr_html_()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": [1, 2]}, r"`columns\['x'\]` must have one value for each of the 60 photos"),
        ({"x": [[1]] * 60}, r"must have one value"),
        ({"x": [str(k) for k in range(60)]}, r"at most 50 different values. Received: 60"),
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, list[object]], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        slices([True] * 60, columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_groups", [1, 2.5, True])
def test_too_few_groups(n_groups: int) -> None:
    with pytest.raises(ArgumentError, match="`n_groups` must be a whole number of at least 2"):
        slices([True], {}, n_groups=n_groups)


@pytest.mark.parametrize("right", [[], [1, 0], [[True]]])
def test_answers_that_are_no_booleans(right: list[object]) -> None:
    with pytest.raises(ArgumentError, match="`right` must be"):
        slices(right, {})  # type: ignore[arg-type]


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
