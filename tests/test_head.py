"""The solved head, against other ways to the same optimum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from scenelearn import finetune
from scenelearn.errors import ArgumentError

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


def test_chosen_strength_has_the_lowest_validation_loss(data: Data) -> None:
    x, y = data
    train, validation = (x[:200], y[:200]), (x[200:], y[200:])
    chosen = finetune.choose(train, validation, 3)
    losses = {
        s: finetune.cross_entropy(finetune.solve(*train, 3, s).logits(validation[0]), validation[1])
        for s in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
    }
    assert chosen.strength == min(losses, key=losses.__getitem__)


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
