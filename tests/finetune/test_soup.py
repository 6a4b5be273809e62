"""Model soups: several runs from the linear probe, and the mean of their final weights."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError
from scenelearn.finetune import (
    FitResult,
    FitSettings,
    Recipe,
    _checkpoint,
    _settings,
    _trainer,
)
from scenelearn.finetune._schedule import (
    TrainingPlan,
    schedule_for_time,
    uniform_schedule,
)
from scenelearn.finetune._trainer import TrainingState
from tests.helpers.networks import keras


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
    ends, begins = [], []
    with pytest.MonkeyPatch.context() as patch:
        end_run, reset = TrainingState.end_run, _trainer.reset_optimizer

        def record_end(state: TrainingState, model: Any) -> None:
            ends.append(to_arrays(model.trainable_variables))
            end_run(state, model)

        def record_reset(model: Any) -> None:
            assert any(np.any(one) for one in to_arrays(model.optimizer.variables))
            reset(model)
            begins.append((to_arrays(model.trainable_variables), model.optimizer.variables))
            assert not any(np.any(one) for one in to_arrays(model.optimizer.variables))

        patch.setattr(TrainingState, "end_run", record_end)
        patch.setattr(_trainer, "reset_optimizer", record_reset)
        patch.setattr(_trainer, "default_coefficient", lambda _: 0.5)
        return sl.fit(fitted.splits, **settings), ends, begins


def to_arrays(variables: list[Any]) -> list[np.ndarray]:
    return [keras().ops.convert_to_numpy(variable) for variable in variables]


def network_of(fit: FitResult) -> list[np.ndarray]:
    return to_arrays(fit.classifier.model.get_layer("backbone").trainable_variables)


@pytest.mark.slow
def test_result_interpolates_between_initial_weights_and_mean(
    soup: tuple[FitResult, list[Any], list[Any]],
) -> None:
    fit, ends, ((first, _),) = soup
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
    assert "6 of 6 planned epochs in 2 of 2 runs" in next(
        phase.note for phase in fit.phases if phase.name == "fine-tuning"
    )


@pytest.mark.nightly
def test_soup_replaces_an_epoch_only_if_it_is_better(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, keep = [], TrainingState.keep

    def record(state: TrainingState, model: Any, loss: float, **more: Any) -> None:
        kept.append(loss)
        keep(state, model, loss, **more)

    monkeypatch.setattr(TrainingState, "keep", record)
    fit = sl.fit(fitted.splits, **settings | {"recipe": {"soup": 2, "interpolate_weights": False}})
    assert fit.interpolation in (0.0, 1.0)
    assert kept == sorted(kept, reverse=True)
    assert not kept or kept[-1] <= min(epoch.calibrated_loss for epoch in fit.history)


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
    ((weights, _),) = begins
    for value, first in zip(weights, to_arrays(stored.trainable_variables), strict=False):
        np.testing.assert_array_equal(value, first)


@pytest.mark.slow
def test_resumed_soup_is_identical_bit_for_bit(
    soup: tuple[FitResult, list[Any], list[Any]],
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_checkpoint, "INTERVAL_S", 0.0)
    monkeypatch.setattr(_checkpoint, "MAX_TIME_FRACTION", np.inf)
    monkeypatch.setattr(_trainer, "default_coefficient", lambda _: 0.5)

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
def test_runs_share_the_time_budget(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settings, "_MAX_EPOCHS_PRETRAINED", 2)
    fit = sl.fit(fitted.splits, **settings | {"epochs": None, "minutes": 5.0})
    schedule = fit.settings.epochs
    assert isinstance(schedule, tuple)
    assert [after for _, after in schedule] == [0.5, 1.0, 1.5, 2.0]
    again = sl.fit(fitted.splits, **fit.settings.to_json())
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)
    plan = sl.finetune.plan(fitted.splits, **settings | {"epochs": None, "minutes": 5.0})
    assert "4 epochs in 2 runs of" in str(plan)


def test_no_soup_if_batchnorm_is_updated(fitted: FitResult) -> None:
    assert FitSettings(weights=None, recipe=Recipe(soup=4)).n_runs == 1
    assert FitSettings(recipe=Recipe(soup=4, train_batchnorm=True)).n_runs == 1
    assert FitSettings(recipe=Recipe(soup=4)).n_runs == 4
    with pytest.raises(ArgumentError, match=r"increases to at most 1, the number of runs"):
        FitSettings(epochs=((5, 0.5), (5, 2.0)))
    assert FitSettings(epochs=((5, 1.0), (5, 2.0)), recipe=Recipe(soup=2)).epochs is not None
    with pytest.raises(
        ArgumentError, match=r"increases to at most 2"
    ):  # the run ends within an epoch
        FitSettings(epochs=((5, 0.5), (5, 2.0)), recipe=Recipe(soup=2))


# Schedules


@pytest.mark.parametrize("time_s", [3.0, 14.0, 50.0, 333.3])
@pytest.mark.parametrize("n_runs", [2, 3, 5])
def test_schedule_of_several_runs_fills_the_time_budget(time_s: float, n_runs: int) -> None:
    schedule = schedule_for_time(
        time_s, n_steps=10, step_s=1.0, validation_s=2.0, max_epochs=1000, n_runs=n_runs
    )
    assert sum(size * 1.0 + 2.0 for size, _ in schedule) <= time_s
    ends = [n for n, (_, after) in enumerate(schedule) if after % 1 == 0]
    assert bool(ends) == (time_s >= 3)
    assert [schedule[n][1] for n in ends] == list(range(1, len(ends) + 1))
    starts = np.array([0, *(n + 1 for n in ends)])
    steps = [sum(size for size, _ in schedule[a:b]) for a, b in itertools.pairwise(starts)]
    if time_s / n_runs > 12:
        assert len(steps) == n_runs
        assert max(steps) - min(steps) <= 4
    settings = FitSettings(epochs=[list(one) for one in schedule], recipe=Recipe(soup=n_runs))  # type: ignore[arg-type]
    assert settings.epochs == schedule


def test_late_run_is_finished_if_there_are_several() -> None:
    seconds: dict[str, Any] = {"n_steps": 10, "step_s": 1.0, "validation_s": 2.0, "max_epochs": 9}
    done = ((10, 0.5), (10, 0.95))
    schedule = schedule_for_time(25.0, **seconds, done=done, n_runs=2)
    assert schedule[:2] == done
    assert schedule[2] == (1, 1.0)
    assert schedule[-1][1] == 2.0
    assert schedule_for_time(1.0, **seconds, done=done, n_runs=1) == done
    late = ((10, 1.0), (10, 1.95))  # also the last run, which would be lost otherwise
    assert schedule_for_time(0.5, **seconds, done=late, n_runs=2) == (*late, (1, 2.0))
    assert schedule_for_time(-0.5, **seconds, done=late, n_runs=2) == late
    assert schedule_for_time(0.5, **seconds, done=((10, 1.0),), n_runs=2) == ((10, 1.0),)
    few = schedule_for_time(
        27.0, **seconds | {"n_steps": 100}, n_runs=4
    )  # a tenth and its validation take 12
    assert [after for _, after in few] == [1.0, 2.0]
    assert uniform_schedule(2, 10, 2) == ((10, 0.5), (10, 1.0), (10, 1.5), (10, 2.0))


def test_learning_rate_rises_and_falls_in_each_run() -> None:
    def rates(schedule: Any, n_runs: int) -> list[float]:
        plan = TrainingPlan(
            schedule=schedule, n_runs=n_runs, time_limited=False, peak_lr=1.0, min_warmup_steps=4,
            step_s=0.0, validation_s=0.0, reserve_s=0.0, batch_size=1,
        )  # fmt: skip
        steps = [(n + 1, k + 0.5) for n, (size, _) in enumerate(schedule) for k in range(size)]
        return [plan.learning_rate(*where) for where in steps]

    once = rates(uniform_schedule(3, 8), 1)
    progress = (np.arange(24) + 0.5) / 24
    rise = np.minimum(1, progress / (4 / 24))
    np.testing.assert_allclose(once, rise * (1 + np.cos(np.pi * progress)) / 2, atol=1e-12)
    np.testing.assert_allclose(rates(uniform_schedule(3, 8, 3), 3), once * 3, atol=1e-12)


def test_mean_of_any_number_of_runs_is_exact() -> None:
    class Model:
        trainable_variables: Any = ()

    state = object.__new__(TrainingState)
    state.soup, state.n_in_soup = [], 0
    ends = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    for end in ends:
        Model.trainable_variables = [end]
        state.end_run(Model)
    np.testing.assert_allclose(state.soup[0], ends.mean(axis=0, dtype=float), atol=1e-6)
