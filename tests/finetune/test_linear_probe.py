"""The linear probe, compared with other methods for the same optimum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from scenelearn import finetune
from scenelearn._logistic_regression import assign_folds
from scenelearn.errors import ArgumentError, WeightsFileError

Data = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


@pytest.fixture(scope="module")
def data() -> Data:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 7)) @ rng.standard_normal((7, 7)) + rng.uniform(-3, 3, 7)
    x[:, 3] = 2.5  # a constant feature
    y = (x @ rng.standard_normal((7, 3)) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    return x.astype(np.float32), y.astype(np.int32)


def objective(
    probe: finetune.LinearProbe, x: npt.NDArray[np.float32], y: npt.NDArray[np.int32]
) -> float:
    spread = x.astype(np.float64).std(axis=0)
    loss = -log_softmax(probe.logits(x).astype(np.float64), axis=1)[np.arange(len(y)), y].mean()
    return float(loss + probe.l2 / 2 * ((probe.kernel * spread[:, None]) ** 2).sum())


@pytest.mark.parametrize("l2", [1.0, 0.1, 0.003])
def test_bfgs_finds_the_same_optimum(data: Data, l2: float) -> None:
    x, y = data
    probe = finetune.fit_linear_probe(x, y, 3, l2)

    kept = [0, 1, 2, 4, 5, 6]
    z = x[:, kept].astype(np.float64)
    z = (z - z.mean(axis=0)) / z.std(axis=0)

    def loss(flat: npt.NDArray[np.float64]) -> float:
        w = flat[:18].reshape(6, 3)
        p = log_softmax(z @ w + flat[18:], axis=1)[np.arange(len(y)), y]
        return float(-p.mean() + l2 / 2 * (w * w).sum())

    reference = minimize(loss, np.zeros(21), method="BFGS", options={"gtol": 1e-7})
    assert objective(probe, x, y) == pytest.approx(reference.fun, abs=1e-5)


def test_start_only_saves_time(data: Data) -> None:
    x, y = data
    cold = finetune.fit_linear_probe(x, y, 3, 0.1)
    warm = finetune.fit_linear_probe(x, y, 3, 0.1, start=finetune.fit_linear_probe(x, y, 3, 1.0))
    np.testing.assert_allclose(warm.logits(x), cold.logits(x), atol=0.02)


@pytest.fixture(scope="module")
def result(data: Data) -> finetune.CrossValidationResult:
    return finetune.cross_validate_l2(*data, 3)


def test_best_l2_has_the_lowest_held_out_loss(
    data: Data, result: finetune.CrossValidationResult
) -> None:
    x, y = data
    fold_of = assign_folds(y, np.arange(300))
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[3] = 1
    z = ((x - mean) / spread).astype(np.float32)  # the folds share the standardization
    for l2, loss in result.losses:
        losses = np.zeros(300)
        for fold in range(5):
            out = fold_of == fold
            probe = _fit_unscaled(z[~out], y[~out], l2)
            losses[out] = -log_softmax(z[out] @ probe[:-1] + probe[-1], axis=1)[
                range(out.sum()), y[out]
            ]
        assert loss == pytest.approx(losses.mean(), abs=2e-3)
    assert result.probe.l2 == min(result.losses, key=lambda pair: pair[1])[0]
    path = [l2 for l2, _ in result.losses]
    assert path == sorted(path, reverse=True)
    at = path.index(result.probe.l2)
    ratios = np.array(path[at - 1 : at + 1]) / path[at : at + 2]
    np.testing.assert_allclose(ratios, 10**0.25)  # finer steps on both sides


def _fit_unscaled(
    z: npt.NDArray[np.float32], y: npt.NDArray[np.int32], l2: float
) -> npt.NDArray[np.float64]:
    """The optimum for unscaled features, by another method."""
    z1 = np.concatenate([z.astype(np.float64), np.ones((len(z), 1))], axis=1)
    target = np.eye(3)[y]

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        w = flat.reshape(-1, 3)
        log_p = log_softmax(z1 @ w, axis=1)
        value = -(log_p * target).sum() / len(y) + l2 / 2 * (w[:-1] ** 2).sum()
        slope = z1.T @ (np.exp(log_p) - target) / len(y)
        slope[:-1] += l2 * w[:-1]
        return value, slope.ravel()

    found = minimize(loss, np.zeros(3 * z1.shape[1]), jac=True, method="BFGS")
    result: npt.NDArray[np.float64] = found.x.reshape(-1, 3)
    return result


def test_result_is_fitted_on_all_photos(data: Data, result: finetune.CrossValidationResult) -> None:
    direct = finetune.fit_linear_probe(*data, 3, result.probe.l2)
    np.testing.assert_allclose(result.probe.logits(data[0]), direct.logits(data[0]), atol=0.02)
    assert objective(result.probe, *data) == pytest.approx(objective(direct, *data), abs=1e-6)


def test_held_out_accuracy_separates_signal_from_noise(
    data: Data, result: finetune.CrossValidationResult
) -> None:
    x, y = data
    assert result.held_out_accuracy > 0.7
    shuffled = np.random.default_rng(0).permutation(y)
    noise_result = finetune.cross_validate_l2(x, shuffled, 3)
    assert noise_result.held_out_accuracy < 0.6
    assert noise_result.probe.l2 > result.probe.l2


def test_groups_are_held_out_together() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 200)).astype(np.float32)
    noise = rng.integers(0, 2, 60).astype(np.int32)
    twice, labels = np.concatenate([x, x]), np.concatenate([noise, noise])
    ungrouped = finetune.cross_validate_l2(twice, labels, 2)
    grouped = finetune.cross_validate_l2(twice, labels, 2, groups=np.tile(np.arange(60), 2))
    assert ungrouped.held_out_accuracy > 0.7  # the duplicate reveals the label
    assert grouped.held_out_accuracy < 0.65


@pytest.mark.parametrize("n_groups", [1, 2, 4, 5, 23])
def test_folds_are_stratified(n_groups: int) -> None:
    labels = np.array([0] * 40 + [1] * n_groups + [2] * 33, np.int32)
    fold_of = assign_folds(labels, np.arange(len(labels)))
    for label in range(3):
        of_class = fold_of[labels == label]
        if len(of_class) == 1:
            assert of_class.tolist() == [-1]
            continue
        sizes = np.bincount(of_class, minlength=5)
        assert sizes.max() - sizes.min() <= 1
        assert all((of_class != fold).any() for fold in range(5))


def test_groups_with_two_classes_stay_together() -> None:
    labels = np.array([0, 1] * 20, np.int32)
    groups = np.repeat(np.arange(20), 2)
    fold_of = assign_folds(labels, groups)
    assert np.array_equal(fold_of[::2], fold_of[1::2])
    assert set(fold_of.tolist()) == set(range(5))


def test_class_with_a_single_group_is_never_held_out() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1], np.int32)
    groups = np.array([0, 1, 2, 3, 4, 5, 0])  # class 1 has one photo, with one of class 0
    fold_of = assign_folds(labels, groups)
    assert fold_of[0] == fold_of[6] == -1
    assert set(fold_of[1:6].tolist()) <= set(range(5))


def test_many_photos_use_fewer_folds() -> None:
    labels = np.tile(np.arange(2, dtype=np.int32), 20_000)
    fold_of = assign_folds(labels, np.arange(40_000), n_held_out=2000)
    assert set(fold_of.tolist()) == {-1, 0}
    assert (fold_of == 0).sum() == 8_000


def test_one_photo_per_class_uses_the_default_l2() -> None:
    x = np.eye(4, 9, dtype=np.float32)
    chosen = finetune.cross_validate_l2(x, np.arange(4, dtype=np.int32), 4)
    assert chosen.losses == ()
    assert np.isnan(chosen.held_out_accuracy)
    assert chosen.probe.l2 == 0.1
    assert chosen.probe.logits(x).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_hundred_classes() -> None:
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((100, 20))
    y = np.repeat(np.arange(100), 4).astype(np.int32)
    x = (centers[y] + 0.5 * rng.standard_normal((400, 20))).astype(np.float32)
    assert finetune.cross_validate_l2(x, y, 100).held_out_accuracy > 0.9


def test_fewer_photos_than_features() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 90)).astype(np.float32) + 3
    x[:, 5] = 7
    y = rng.integers(0, 3, 40).astype(np.int32)
    probe = finetune.fit_linear_probe(x, y, 3, 0.05)
    z = x - x.mean(axis=0)
    spread = x.std(axis=0)
    spread[5] = 1
    other = _fit_unscaled(z / spread, y, 0.05)
    np.testing.assert_allclose(probe.logits(x), z / spread @ other[:-1] + other[-1], atol=5e-3)


def test_nan_features_raise(data: Data) -> None:
    x, y = data[0].copy(), data[1]
    x[3, 2] = np.nan
    with pytest.raises(WeightsFileError, match=r"features must be finite\. Received: NaN"):
        finetune.cross_validate_l2(x, y, 3)


@pytest.mark.parametrize("l2", [1.0, 0.1, 0.01])
def test_scikit_learn_finds_the_same_optimum(l2: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn not installed")
    rng = np.random.default_rng(3)
    x = np.maximum(rng.standard_normal((500, 60)), 0).astype(np.float32)
    y = (x @ rng.standard_normal((60, 4)) + rng.gumbel(size=(500, 4))).argmax(axis=1)
    probe = finetune.fit_linear_probe(x, y.astype(np.int32), 4, l2)
    z = (x.astype(np.float64) - x.mean(axis=0, dtype=float)) / x.std(axis=0, dtype=float)
    theirs = linear_model.LogisticRegression(
        C=1 / (500 * l2), solver="newton-cholesky", tol=1e-10
    ).fit(z, y)
    np.testing.assert_allclose(softmax(probe.logits(x), axis=1), theirs.predict_proba(z), atol=1e-3)
    least = log_loss(theirs.predict_log_proba(z), y) + l2 / 2 * (theirs.coef_**2).sum()
    assert objective(probe, x, y.astype(np.int32)) == pytest.approx(least, abs=1e-6)


def log_loss(log_p: npt.NDArray[np.float64], y: npt.NDArray[np.integer]) -> float:
    return float(-log_p[np.arange(len(y)), y].mean())


def test_constant_and_huge_features() -> None:
    x = np.array([[1e6, 0, 5], [2e6, 0, 5], [3e6, 0, 5], [4e6, 0, 5]], np.float32)
    probe = finetune.fit_linear_probe(x, np.array([0, 0, 1, 1], np.int32), 2, 0.01)
    assert probe.logits(x).argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert np.isfinite(probe.kernel).all()


def test_l2_of_zero_raises(data: Data) -> None:
    with pytest.raises(ArgumentError, match=r"`l2` must be a number above 0\. Received: l2=0"):
        finetune.fit_linear_probe(*data, 3, 0)
