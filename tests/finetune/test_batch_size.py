"""Reducing the batch size until training fits into free memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from scenelearn import backbones
from scenelearn.finetune import _device
from tests.helpers.networks import keras

on_jax = pytest.mark.skipif(keras().backend.backend() != "jax", reason="only JAX has the fast form")


@pytest.fixture(scope="module")
def network() -> Any:
    model = backbones.build("mobilenet_0.25", weights=None, image_px=64)
    return backbones.fast_on_cpu(backbones.freeze_batchnorm(model))


def network_with_batch_statistics() -> Any:
    """A network whose activations are those of the whole batch, as batch statistics need them."""
    return backbones.fast_on_cpu(backbones.build("mobilenet_0.25", weights=None, image_px=64))


@pytest.fixture
def _free(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "available_bytes", lambda: request.param)


@pytest.mark.parametrize("_free", [None, 8 * 2**30], indirect=True)
@pytest.mark.usefixtures("_free")
def test_batch_size_that_fits_is_kept(network: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert _device.reduce_batch_size(network, 32) == 32
    assert not caplog.records


@pytest.mark.parametrize("free_mb", [130, 150, 200])
def test_batch_size_is_halved_until_it_fits(
    free_mb: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, free = network_with_batch_statistics(), free_mb * 10**6
    monkeypatch.setattr(_device, "available_bytes", lambda: free)
    with caplog.at_level(logging.WARNING):
        reduced = _device.reduce_batch_size(model, 64)
    assert reduced in {1, 2, 4, 8, 16, 32}
    assert (
        _device.training_bytes(model, reduced) <= free < _device.training_bytes(model, 2 * reduced)
    )
    assert f"only {free_mb} MB are free. Reducing the batch size to {reduced}" in caplog.text


@pytest.mark.parametrize("_free", [10**6], indirect=True)
@pytest.mark.usefixtures("_free")
def test_batch_size_is_at_least_one() -> None:
    assert _device.reduce_batch_size(network_with_batch_statistics(), 32) == 1


@on_jax
def test_more_threads_take_more_memory(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def predicted(n_threads: int) -> int:
        monkeypatch.setenv("SCENELEARN_THREADS", str(n_threads))
        return _device.training_bytes(network, 64)

    in_parts = [predicted(n) for n in (1, 2, 8)]
    backbones.undo_fast(network)
    whole = [predicted(n) for n in (1, 2, 8)]
    backbones.fast_on_cpu(network)
    assert in_parts == sorted(set(in_parts))
    assert in_parts[-1] < whole[0] == whole[1] == whole[2]


@on_jax
@pytest.mark.nightly
def test_predicted_bytes_of_microbatches_exceed_xlas_plan(network: Any) -> None:
    from tests.bench.memory import lower_step, plan_of

    step, _ = lower_step(network, 32, "train adam")
    plan = plan_of(step.compile())["total_bytes"]
    predicted = _device.training_bytes(network, 32)
    assert plan < predicted < 100e6 + 8 * plan
    assert predicted < _device.training_bytes(network_with_batch_statistics(), 32)
