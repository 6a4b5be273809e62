"""The batch that fits into the free memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from scenelearn import backbones
from scenelearn._backend import keras
from scenelearn.finetune import _fits

on_jax = pytest.mark.skipif(keras().backend.backend() != "jax", reason="the fast form is JAX's")


@pytest.fixture(scope="module")
def network() -> Any:
    model = backbones.build("mobilenet_0.25", weights=None, image_px=64)
    return backbones.fast_on_cpu(backbones.keep_statistics(model))


def by_batch_statistics() -> Any:
    """The maps of a whole batch are there at one time: its statistics need them."""
    return backbones.fast_on_cpu(backbones.build("mobilenet_0.25", weights=None, image_px=64))


@pytest.fixture
def _free(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fits, "available_bytes", lambda: request.param)


@pytest.mark.parametrize("_free", [None, 8 * 2**30], indirect=True)
@pytest.mark.usefixtures("_free")
def test_a_batch_that_fits_stays(network: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert _fits.fitting_batch(network, 32) == 32
    assert not caplog.records


@pytest.mark.parametrize("free_mb", [130, 150, 200])
def test_a_batch_is_halved_until_it_fits(
    free_mb: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, free = by_batch_statistics(), free_mb * 10**6
    monkeypatch.setattr(_fits, "available_bytes", lambda: free)
    with caplog.at_level(logging.WARNING):
        found = _fits.fitting_batch(model, 64)
    assert found in {1, 2, 4, 8, 16, 32}
    assert _fits.training_bytes(model, found) <= free < _fits.training_bytes(model, 2 * found)
    assert f"{free_mb} MB are free. Training with batches of {found} instead" in caplog.text


@pytest.mark.parametrize("_free", [10**6], indirect=True)
@pytest.mark.usefixtures("_free")
def test_where_nothing_fits_one_photo_is_tried() -> None:
    assert _fits.fitting_batch(by_batch_statistics(), 32) == 1


@on_jax
def test_the_fast_form_has_maps_of_a_few_photos_at_a_time(network: Any) -> None:
    assert backbones.photos_at_once(network, 32) == 8  # four of each half
    assert backbones.photos_at_once(network, 30) == 10
    assert backbones.photos_at_once(network, 12) == 4  # three fours have no half
    assert backbones.photos_at_once(network, 31) == 31  # no size divides it
    assert backbones.photos_at_once(by_batch_statistics(), 32) == 32
    backbones.plain(network)
    assert backbones.photos_at_once(network, 32) == 32
    backbones.fast_on_cpu(network)
    assert backbones.photos_at_once(network, 32) == 8  # four of each half


@on_jax
@pytest.mark.slow
def test_training_a_few_at_a_time_takes_what_xla_plans_and_more(network: Any) -> None:
    from tests.bench.memory import lowered, plan_of

    step, _ = lowered(network, 32, "train adam")
    plan = plan_of(step.compile())["total_bytes"]
    most = _fits.training_bytes(network, 32)
    assert plan < most < 100e6 + 8 * plan
    assert most < _fits.training_bytes(by_batch_statistics(), 32)
