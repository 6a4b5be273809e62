"""Calibration on arrays: temperature, out-of-distribution detection, neighbors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

import scenelearn as sl
from scenelearn.classify._calibration import fit_temperature
from scenelearn.classify._labeled_outputs import sample_training_photos
from scenelearn.classify._neighbors import build_neighbor_index
from scenelearn.classify._ood import fit_ood_detector
from scenelearn.errors import ArgumentError


def test_temperature_minimizes_the_log_loss() -> None:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rng = np.random.default_rng(0)
    n = 20_000  # smoothing the labels makes a difference of the order 1/n
    logits = rng.standard_normal((n, 4)) * 3
    labels = (logits / 2.5 + rng.gumbel(size=(n, 4))).argmax(axis=1)

    def loss(t: float) -> float:
        return float(-log_softmax(logits / t, axis=1)[np.arange(n), labels].mean())

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-6})
    assert fit_temperature(logits, labels) == pytest.approx(best.x, rel=2e-3)
    assert fit_temperature(logits, labels) == pytest.approx(2.5, rel=0.05)


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("noise", [0.0, 1.0, 100.0])
def test_temperature_is_the_minimum_in_its_range(scale: float, noise: float) -> None:
    from scipy.special import log_softmax

    random = np.random.default_rng(3)
    truth = random.normal(size=(1100, 7))  # more than one block of rows
    labels = (truth + noise * random.gumbel(size=truth.shape)).argmax(axis=1)
    logits = (truth * scale).astype(np.float32)
    smoothing = 1 / (len(labels) + 2)
    targets = np.eye(7)[labels] * (1 - smoothing) + smoothing / 7

    def loss(t: float) -> float:
        return float(-(targets * log_softmax(logits.astype(float) / t, axis=1)).sum(1).mean())

    value = fit_temperature(logits, labels)
    assert 0.05 * 0.999 <= value <= 20 * 1.001
    grid = np.geomspace(0.05, 20, 400)
    assert loss(value) <= min(map(loss, grid)) * (1 + 1e-6)


def test_few_photos_that_are_all_correct_do_not_give_certainty() -> None:
    logits = np.tile([1.2, 1.0, -1.0], (12, 1))
    value = fit_temperature(logits, np.zeros(12, int))
    sure = softmax(logits / value, axis=1)[0, 0]
    assert sure < 1 - 1 / 14  # Laplace's rule of succession: (12 + 1) / (12 + 2)
    assert 0.05 < value < 1


def test_temperature_does_not_depend_on_a_shift_of_the_logits() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((50, 3)), rng.integers(0, 3, 50)
    shifted = logits + rng.standard_normal((50, 1)) * 100
    assert fit_temperature(shifted, labels) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-6
    )


def test_temperature_with_weights_is_that_of_repeated_photos() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 400)
    logits = random.normal(size=(400, 3)) * 3 + np.eye(3)[labels]
    weights = np.where(labels == 2, 3.0, 1.0)
    repeated = np.repeat(np.arange(400), weights.astype(int))
    expected = fit_temperature(logits[repeated], labels[repeated])
    assert fit_temperature(logits, labels, weights) == pytest.approx(expected, rel=0.01)
    assert fit_temperature(logits, labels, np.ones(400)) == fit_temperature(logits, labels)


def test_ood_score_adds_mahalanobis_distance_and_residual() -> None:
    from scipy.spatial.distance import mahalanobis

    random = np.random.default_rng(0)
    mix = random.normal(size=(4, 4))
    training = (random.normal(size=(600, 4)) @ mix + [5, 0, -3, 2]).astype(np.float32)
    residual = random.random(50).astype(np.float32)
    known = fit_ood_detector(training, training[:50], residual)
    scale = training.std(axis=0)
    inverse = np.linalg.inv(
        (0.9 * np.corrcoef(training.T) + 0.1 * np.eye(4)) * np.outer(scale, scale)
    )
    of_validation = [mahalanobis(row, training.mean(axis=0), inverse) ** 2 for row in training[:50]]

    def standardized(value: float, among: Any) -> float:
        return (value - np.median(among)) / (np.quantile(among, 0.9) - np.median(among))

    for point in random.normal(size=(5, 4)).astype(np.float32) * 9:
        squared = mahalanobis(point, training.mean(axis=0), inverse) ** 2
        expected = standardized(squared, of_validation) + standardized(0.25, residual)
        found = known.score(point[None], np.array([0.25], np.float32))[0]
        assert found == pytest.approx(expected, rel=1e-3)


def test_residual_is_the_fraction_outside_the_principal_components() -> None:
    random = np.random.default_rng(0)
    spanned = random.normal(size=(300, 5)) @ random.normal(size=(5, 100))
    shown = build_neighbor_index(spanned.astype(np.float32), np.zeros(300, np.int32), ("",) * 300)
    across = np.linalg.svd(spanned - spanned.mean(axis=0))[2][80]  # where no photo varies
    inside = spanned[:3] - spanned.mean(axis=0)
    size = np.linalg.norm(inside, axis=1)
    mixed = spanned.mean(axis=0) + inside + np.outer(size, across)
    assert shown.components.shape == (100, 64)
    np.testing.assert_allclose(shown.residuals(spanned[:9].astype(np.float32)), 0, atol=2e-3)
    few = dataclasses.replace(shown, components=shown.components[:, :5])
    np.testing.assert_allclose(few.residuals(mixed.astype(np.float32)), 0.5, atol=2e-3)


def test_p_values_are_uniform_for_photos_like_the_training_photos() -> None:
    random = np.random.default_rng(0)
    training, validation, new = (
        random.standard_t(6, (n, 20)).astype(np.float32) for n in (400, 999, 20_000)
    )
    known = fit_ood_detector(training, validation, random.random(999).astype(np.float32))
    typical = known.p_values(new, random.random(20_000).astype(np.float32))
    for level in (0.03, 0.2, 0.5):
        # 999 validation photos: the fraction itself has a deviation of about √(p (1 − p)/999)
        assert (typical <= level).mean() == pytest.approx(level, abs=3.5 * 0.016)
    assert typical.min() > 0
    assert typical.max() <= 1


def test_ood_detector_with_constant_features_and_fewer_photos_than_features() -> None:
    training = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    training[:, :10] = 0
    none = np.zeros(5, np.float32)
    known = fit_ood_detector(training, training, none)
    far = training[:1].copy()
    far[0, 3] = 100  # where all training photos are 0
    near = known.score(training, none)
    assert np.isfinite(near).all()
    assert known.score(far, none[:1])[0] > near.max()


@pytest.mark.parametrize(
    ("training", "validation", "n_outside"),
    [
        ((0, 3), (2, 3), 2), ((2, 3), (0, 3), 0), ((2, 3), (2, 4), 2), ((3,), (3,), 3),
        ((2, 3), (2, 3), 3),
    ],
)  # fmt: skip
def test_ood_detector_of_arrays_that_do_not_match(
    training: tuple[int, ...], validation: tuple[int, ...], n_outside: int
) -> None:
    arrays = (np.ones(shape, np.float32) for shape in (training, validation, (n_outside,)))
    with pytest.raises(ArgumentError, match=r"`training`, `validation` and `residuals` must have"):
        fit_ood_detector(*arrays)


def test_indexed_training_photos_are_a_seeded_sample() -> None:
    images = np.zeros((2600, 2, 2, 3), np.uint8)
    train = sl.data.Batches(
        pixels=sl.data.Pixels.from_array(images), labels=np.zeros(2600, np.int32),
        indices=np.arange(100, 2600), batch_size=32, seed=3,
    )  # fmt: skip
    first, again = sample_training_photos(train), sample_training_photos(train)
    assert first.n_photos == len(set(first.indices.tolist())) == 2000
    assert np.array_equal(first.indices, again.indices)
    assert (np.diff(first.indices) > 0).all()
    assert first.indices.min() >= 100
    other = sample_training_photos(dataclasses.replace(train, seed=4))
    assert not np.array_equal(first.indices, other.indices)
    few = dataclasses.replace(train, indices=np.arange(7))
    assert sample_training_photos(few).indices.tolist() == list(range(7))
