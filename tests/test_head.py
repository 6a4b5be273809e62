"""The solved head, against other ways to the same optimum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from scenelearn import finetune
from scenelearn.errors import ArgumentError, WeightsFileError
from scenelearn.finetune._strength import deal

Data = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 7)) @ rng.standard_normal((7, 7)) + rng.uniform(-3, 3, 7)
    x[:, 3] = 2.5  # a feature that says nothing
    y = (x @ rng.standard_normal((7, 3)) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    return x.astype(np.float32), y.astype(np.int32)


def objective(head: finetune.Head, x: npt.NDArray[np.float32], y: npt.NDArray[np.int32]) -> float:
    spread = x.astype(np.float64).std(axis=0)
    loss = -log_softmax(head.logits(x).astype(np.float64), axis=1)[np.arange(len(y)), y].mean()
    return float(loss + head.strength / 2 * ((head.kernel * spread[:, None]) ** 2).sum())


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.003])
def test_no_other_method_finds_a_better_head(data: Data, strength: float) -> None:
    x, y = data
    head = finetune.solve(x, y, 3, strength)

    kept = [0, 1, 2, 4, 5, 6]
    z = x[:, kept].astype(np.float64)
    z = (z - z.mean(axis=0)) / z.std(axis=0)

    def loss(flat: npt.NDArray[np.float64]) -> float:
        w = flat[:18].reshape(6, 3)
        p = log_softmax(z @ w + flat[18:], axis=1)[np.arange(len(y)), y]
        return float(-p.mean() + strength / 2 * (w * w).sum())

    reference = minimize(loss, np.zeros(21), method="BFGS", options={"gtol": 1e-7})
    assert objective(head, x, y) == pytest.approx(reference.fun, abs=1e-5)


def test_start_changes_nothing_but_the_time(data: Data) -> None:
    x, y = data
    cold = finetune.solve(x, y, 3, 0.1)
    warm = finetune.solve(x, y, 3, 0.1, start=finetune.solve(x, y, 3, 1.0))
    np.testing.assert_allclose(warm.logits(x), cold.logits(x), atol=0.02)


@pytest.fixture(scope="module")
def choice(data: Data) -> finetune.Choice:
    return finetune.choose(*data, 3)


def test_chosen_strength_has_the_lowest_loss_on_held_out_photos(
    data: Data, choice: finetune.Choice
) -> None:
    x, y = data
    fold_of = deal(y, np.arange(300))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[3] = 1
    z = ((x - mean) / spread).astype(np.float32)  # the folds share the scaling
    for strength, told in choice.tried:
        losses = np.zeros(300)
        for fold in range(5):
            out = fold_of == fold
            head = _without_scaling(z[~out], y[~out], strength)
            losses[out] = -log_softmax(z[out] @ head[:-1] + head[-1], axis=1)[
                range(out.sum()), y[out]
            ]
        assert told == pytest.approx(losses.mean(), abs=2e-3)
    assert choice.head.strength == min(choice.tried, key=lambda pair: pair[1])[0]
    strengths = [strength for strength, _ in choice.tried]
    assert strengths == sorted(strengths, reverse=True)
    at = strengths.index(choice.head.strength)
    ratios = np.array(strengths[at - 1 : at + 1]) / strengths[at : at + 2]
    np.testing.assert_allclose(ratios, 10**0.25)  # looked at finely on both sides


def _without_scaling(
    z: npt.NDArray[np.float32], y: npt.NDArray[np.int32], strength: float
) -> npt.NDArray[np.float64]:
    """The optimum for features as they are, by another method."""
    z1 = np.concatenate([z.astype(np.float64), np.ones((len(z), 1))], axis=1)
    target = np.eye(3)[y]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        w = flat.reshape(-1, 3)
        log_p = log_softmax(z1 @ w, axis=1)
        value = -(log_p * target).sum() / len(y) + strength / 2 * (w[:-1] ** 2).sum()
        slope = z1.T @ (np.exp(log_p) - target) / len(y)
        slope[:-1] += strength * w[:-1]
        return value, slope.ravel()

    found = minimize(loss, np.zeros(3 * z1.shape[1]), jac=True, method="BFGS")
    result: npt.NDArray[np.float64] = found.x.reshape(-1, 3)
    return result


def test_chosen_head_is_the_one_solved_on_all_photos(data: Data, choice: finetune.Choice) -> None:
    alone = finetune.solve(*data, 3, choice.head.strength)
    np.testing.assert_allclose(choice.head.logits(data[0]), alone.logits(data[0]), atol=0.02)
    assert objective(choice.head, *data) == pytest.approx(objective(alone, *data), abs=1e-6)


def test_held_out_accuracy_tells_signal_from_noise(data: Data, choice: finetune.Choice) -> None:
    x, y = data
    assert choice.held_out_accuracy > 0.7
    shuffled = np.random.default_rng(0).permutation(y)
    nothing = finetune.choose(x, shuffled, 3)
    assert nothing.held_out_accuracy < 0.6
    assert nothing.head.strength > choice.head.strength


def test_copies_of_a_photo_are_held_out_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 200)).astype(np.float32)
    noise = rng.integers(0, 2, 60).astype(np.int32)
    twice, labels = np.concatenate([x, x]), np.concatenate([noise, noise])
    seen = finetune.choose(twice, labels, 2)
    apart = finetune.choose(twice, labels, 2, groups=np.tile(np.arange(60), 2))
    assert seen.held_out_accuracy > 0.7  # the copy gives the answer away
    assert apart.held_out_accuracy < 0.65


@pytest.mark.parametrize("n_groups", [1, 2, 4, 5, 23])
def test_each_class_is_dealt_evenly_and_never_missing(n_groups: int) -> None:
    labels = np.array([0] * 40 + [1] * n_groups + [2] * 33, np.int32)
    fold_of = deal(labels, np.arange(len(labels)))
    for label in range(3):
        mine = fold_of[labels == label]
        if len(mine) == 1:
            assert mine.tolist() == [-1]
            continue
        sizes = np.bincount(mine, minlength=5)
        assert sizes.max() - sizes.min() <= 1
        assert all((mine != fold).any() for fold in range(5))


def test_groups_of_two_classes_stay_whole() -> None:
    labels = np.array([0, 1] * 20, np.int32)
    groups = np.repeat(np.arange(20), 2)
    fold_of = deal(labels, groups)
    assert np.array_equal(fold_of[::2], fold_of[1::2])
    assert set(fold_of.tolist()) == set(range(5))


def test_class_that_would_be_missing_stays_in_training() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1], np.int32)
    groups = np.array([0, 1, 2, 3, 4, 5, 0])  # class 1 has one photo, with one of class 0
    fold_of = deal(labels, groups)
    assert fold_of[0] == fold_of[6] == -1
    assert set(fold_of[1:6].tolist()) <= set(range(5))


def test_of_very_many_photos_some_folds_are_enough() -> None:
    labels = np.tile(np.arange(2, dtype=np.int32), 20_000)
    fold_of = deal(labels, np.arange(40_000))
    assert set(fold_of.tolist()) == {-1, 0}
    assert (fold_of == 0).sum() == 8_000


def test_one_photo_a_class_is_solved_with_the_usual_strength() -> None:
    x = np.eye(4, 9, dtype=np.float32)
    chosen = finetune.choose(x, np.arange(4, dtype=np.int32), 4)
    assert chosen.tried == ()
    assert np.isnan(chosen.held_out_accuracy)
    assert chosen.head.strength == 0.1
    assert chosen.head.logits(x).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_hundred_classes() -> None:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((100, 20))
    y = np.repeat(np.arange(100), 4).astype(np.int32)
    x = (centers[y] + 0.5 * rng.standard_normal((400, 20))).astype(np.float32)
    assert finetune.choose(x, y, 100).held_out_accuracy > 0.9


def test_fewer_photos_than_features_are_solved_as_exactly() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 90)).astype(np.float32) + 3
    x[:, 5] = 7
    y = rng.integers(0, 3, 40).astype(np.int32)
    head = finetune.solve(x, y, 3, 0.05)
    z = x - x.mean(axis=0)
    spread = x.std(axis=0)
    spread[5] = 1
    other = _without_scaling(z / spread, y, 0.05)
    np.testing.assert_allclose(head.logits(x), z / spread @ other[:-1] + other[-1], atol=5e-3)


def test_features_that_are_no_numbers(data: Data) -> None:
    x, y = data[0].copy(), data[1]
    x[3, 2] = np.nan
    with pytest.raises(WeightsFileError, match=r"features must be finite numbers\. Received: NaN"):
        finetune.choose(x, y, 3)


@pytest.mark.parametrize("strength", [1.0, 0.1, 0.01])
def test_scikit_learn_finds_the_same_head(strength: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn not installed")
    rng = np.random.default_rng(3)
    x = np.maximum(rng.standard_normal((500, 60)), 0).astype(np.float32)
    y = (x @ rng.standard_normal((60, 4)) + rng.gumbel(size=(500, 4))).argmax(axis=1)
    head = finetune.solve(x, y.astype(np.int32), 4, strength)
    z = (x.astype(np.float64) - x.mean(axis=0, dtype=float)) / x.std(axis=0, dtype=float)
    theirs = linear_model.LogisticRegression(
        C=1 / (500 * strength), solver="newton-cholesky", tol=1e-10
    ).fit(z, y)
    np.testing.assert_allclose(softmax(head.logits(x), axis=1), theirs.predict_proba(z), atol=1e-3)
    least = log_loss(theirs.predict_log_proba(z), y) + strength / 2 * (theirs.coef_**2).sum()
    assert objective(head, x, y.astype(np.int32)) == pytest.approx(least, abs=1e-6)


def log_loss(log_p: npt.NDArray[np.float64], y: npt.NDArray[np.integer]) -> float:
    return float(-log_p[np.arange(len(y)), y].mean())


def test_constant_and_huge_features_do_no_harm() -> None:
    x = np.array([[1e6, 0, 5], [2e6, 0, 5], [3e6, 0, 5], [4e6, 0, 5]], np.float32)
    head = finetune.solve(x, np.array([0, 0, 1, 1], np.int32), 2, 0.01)
    assert head.logits(x).argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert np.isfinite(head.kernel).all()


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    value = finetune.cross_entropy(logits, np.array([1, 1], np.int32))
    assert value == pytest.approx(-(np.log(0.25) + np.log(0.8)) / 2, rel=1e-5)


def test_strength_must_be_above_zero(data: Data) -> None:
    with pytest.raises(ArgumentError, match=r"`strength` must be above 0\. Received: strength=0"):
        finetune.solve(*data, 3, 0)
