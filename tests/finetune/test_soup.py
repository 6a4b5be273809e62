"""Model soups: several runs from the linear probe, and the mean of their final weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult, FitSettings, Recipe
from tests.helpers.networks import keras
from tests.helpers.patches import limit_epochs, save_at_each_step, set_default_coefficient


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a short fit from pretrained weights: three epochs of four steps per run."""
    weights = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    network.get_layer("backbone").save_weights(weights)
    return {
        "backbone": "scenelearn_tiny", "weights": weights, "image_px": 32, "epochs": 3,
        "batch_size": 16, "recipe": {"soup": 2},
    }  # fmt: skip


@pytest.fixture(scope="module")
def soup(fitted: FitResult, settings: dict[str, Any]) -> tuple[FitResult, list[Any], list[Any]]:
    """A soup of two runs, the weights at their ends, and those at the start of the second."""

    class Record(keras().callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[Any] = []
            self.begins: list[Any] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3:
                self.begins.append(to_arrays(self.model.trainable_variables))
                assert not any(np.any(one) for one in to_arrays(self.model.optimizer.variables))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch in (2, 5):
                self.ends.append(to_arrays(self.model.trainable_variables))
                assert any(np.any(one) for one in to_arrays(self.model.optimizer.variables))

    record = Record()
    with pytest.MonkeyPatch.context() as patch:
        set_default_coefficient(patch, 0.5)
        fit = sl.fit(fitted.splits, **settings, callbacks=[record])
    return fit, record.ends, record.begins


def to_arrays(variables: list[Any]) -> list[np.ndarray]:
    return [keras().ops.convert_to_numpy(variable) for variable in variables]


def network_of(fit: FitResult) -> list[np.ndarray]:
    return to_arrays(fit.classifier.model.get_layer("backbone").trainable_variables)


@pytest.mark.slow
def test_result_interpolates_between_initial_weights_and_mean(
    soup: tuple[FitResult, list[Any], list[Any]],
) -> None:
    fit, ends, (first,) = soup
    assert len(ends) == 2
    assert any(np.abs(one - two).max() > 1e-4 for one, two in zip(*ends, strict=True))
    assert fit.interpolation in (0.25, 0.5, 0.75, 1.0)
    kept = network_of(fit)  # without the head, which is divided by the temperature
    for value, start, one, two in zip(kept, first, *ends, strict=False):
        mean = (one.astype(float) + two) / 2
        np.testing.assert_allclose(
            value, start + fit.interpolation * (mean - start), rtol=1e-5, atol=1e-6
        )
    assert fit.kept == "fine-tuned"
    assert [epoch.number for epoch in fit.history] == list(range(7))
    assert "6 of 6 planned epochs in 2 of 2 cycles" in next(
        phase.note for phase in fit.phases if phase.name == "fine-tuning"
    )


@pytest.mark.nightly
def test_soup_replaces_an_epoch_only_if_it_is_better(
    fitted: FitResult, settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **settings | {"recipe": {"soup": 2, "interpolate_weights": False}})
    assert fit.interpolation in (0.0, 1.0)
    best = min(epoch.calibrated_loss for epoch in fit.history)
    assert fit.validation_evaluation.log_loss <= best + 1e-4


@pytest.mark.slow
def test_each_run_starts_from_the_linear_probe(
    soup: tuple[FitResult, list[Any], list[Any]], settings: dict[str, Any]
) -> None:
    fit, _, begins = soup
    alone = sl.fit(fit.splits, **settings | {"recipe": {}})
    assert [e.train_loss for e in fit.history[1:4]] == [e.train_loss for e in alone.history[1:]]
    rates = [e.learning_rate for e in fit.history[1:]]
    np.testing.assert_allclose(rates[:3], rates[3:])
    assert fit.history[4].train_loss != fit.history[1].train_loss  # other views of the photos
    stored = sl.backbones.build("scenelearn_tiny", weights=settings["weights"], image_px=32)
    (weights,) = begins
    for value, first in zip(weights, to_arrays(stored.trainable_variables), strict=False):
        np.testing.assert_array_equal(value, first)


@pytest.mark.nightly
def test_resumed_soup_is_identical_bit_for_bit(
    soup: tuple[FitResult, list[Any], list[Any]],
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_at_each_step(monkeypatch)
    set_default_coefficient(monkeypatch, 0.5)

    class CrashError(Exception):
        pass

    fit = soup[0]
    for resume, last in ((False, 12), (True, 14)):  # the end of the first run; in the second

        def crash(name: str, done: int, _: int, last: int = last) -> None:
            if (name, done) == ("fine-tuning", last):
                raise CrashError

        with pytest.raises(CrashError):
            sl.fit(fit.splits, **settings, resume=resume, progress=crash)
    again = sl.fit(fit.splits, **settings, resume=True)
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)
    assert [replace(e, seconds=0.0, train_loss=0.0) for e in again.history] == [
        replace(e, seconds=0.0, train_loss=0.0) for e in fit.history
    ]


@pytest.mark.nightly
def test_cycles_share_the_time_budget(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_epochs(monkeypatch, 2)
    fit = sl.fit(fitted.splits, **settings | {"epochs": None, "minutes": 5.0})
    schedule = fit.settings.epochs
    assert isinstance(schedule, tuple)
    assert [after for _, after in schedule] == [0.5, 1.0, 1.5, 2.0]
    again = sl.fit(fitted.splits, **fit.settings.to_json())
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)
    plan = sl.finetune.plan(fitted.splits, **settings | {"epochs": None, "minutes": 5.0})
    assert "4 epochs in 2 cycles of" in str(plan)


def test_no_soup_if_batchnorm_is_updated(fitted: FitResult) -> None:
    assert FitSettings(weights=None, recipe=Recipe(soup=4)).n_cycles == 1
    assert FitSettings(recipe=Recipe(soup=4, train_batchnorm=True)).n_cycles == 1
    assert FitSettings(recipe=Recipe(soup=4)).n_cycles == 4
    with pytest.raises(ArgumentError, match=r"increases to at most 1, the number of cycles"):
        FitSettings(epochs=((5, 0.5), (5, 2.0)))
    assert FitSettings(epochs=((5, 1.0), (5, 2.0)), recipe=Recipe(soup=2)).epochs is not None
    with pytest.raises(
        ArgumentError, match=r"increases to at most 2"
    ):  # the cycle ends within an epoch
        FitSettings(epochs=((5, 0.5), (5, 2.0)), recipe=Recipe(soup=2))
