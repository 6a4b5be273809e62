"""Several runs from the solved head, and the mean of the weights that they end with."""

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
    _start,
    _train,
)
from scenelearn.finetune._between import SHARES
from scenelearn.finetune._course import course_of, even, fitting
from scenelearn.finetune._state import Schedule, State, arrays_of


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a fit from stored weights that takes seconds: three epochs of four steps in each run."""
    weights = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    network.get_layer("backbone").save_weights(weights)
    return {
        "backbone": "scenelearn_tiny", "weights": weights, "image_px": 32, "epochs": 3,
        "batch_size": 16, "recipe": {"soup": 2},
    }  # fmt: skip


@pytest.fixture(scope="module")
def cooked(fitted: FitResult, settings: dict[str, Any]) -> tuple[FitResult, list[Any], list[Any]]:
    """A soup of two, what trained at the end of each run, and where the second one began."""
    ends, begins = [], []
    with pytest.MonkeyPatch.context() as patch:
        close, forget = State.close_run, _train.forget

        def closed(state: State, model: Any) -> None:
            ends.append(arrays_of(model.trainable_variables))
            close(state, model)

        def forgotten(model: Any) -> None:
            assert any(np.any(one) for one in arrays_of(model.optimizer.variables))
            forget(model)
            begins.append((arrays_of(model.trainable_variables), model.optimizer.variables))
            assert not any(np.any(one) for one in arrays_of(model.optimizer.variables))

        patch.setattr(State, "close_run", closed)
        patch.setattr(_train, "forget", forgotten)
        patch.setattr(_start, "usual_share", lambda _: 0.5)
        return sl.fit(fitted.splits, **settings), ends, begins


def network_of(fit: FitResult) -> list[np.ndarray]:
    return arrays_of(fit.classifier.model.get_layer("backbone").trainable_variables)


def test_what_is_kept_lies_on_the_way_from_the_first_weights_to_the_mean_of_the_ends(
    cooked: tuple[FitResult, list[Any], list[Any]],
) -> None:
    fit, ends, ((first, _),) = cooked
    assert len(ends) == 2
    assert any(np.abs(one - two).max() > 1e-4 for one, two in zip(*ends, strict=True))
    assert fit.share in SHARES[1:]
    kept = network_of(fit)  # the head, divided by its temperature, comes after it
    for value, start, one, two in zip(kept, first, *ends, strict=False):
        mean = (one.astype(float) + two) / 2
        np.testing.assert_allclose(value, start + fit.share * (mean - start), rtol=1e-5, atol=1e-6)
    assert fit.kept == "fine-tuned"
    assert [epoch.number for epoch in fit.history] == list(range(7))
    assert "6 of 6 planned epochs in 2 of 2 runs" in next(
        phase.note for phase in fit.phases if phase.name == "fine-tuning"
    )


@pytest.mark.slow
def test_soup_takes_the_place_of_a_single_epoch_only_if_it_is_better(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, keep = [], State.keep

    def noted(state: State, model: Any, loss: float, **more: Any) -> None:
        kept.append(loss)
        keep(state, model, loss, **more)

    monkeypatch.setattr(State, "keep", noted)
    fit = sl.fit(fitted.splits, **settings | {"recipe": {"soup": 2, "interpolate": False}})
    assert fit.share in (0.0, 1.0)
    assert kept == sorted(kept, reverse=True)
    assert not kept or kept[-1] <= min(epoch.calibrated_loss for epoch in fit.history)


def test_first_run_is_that_of_a_fit_without_soup_and_the_second_starts_where_it_did(
    cooked: tuple[FitResult, list[Any], list[Any]], settings: dict[str, Any]
) -> None:
    fit, _, begins = cooked
    alone = sl.fit(fit.splits, **settings | {"recipe": {}})
    assert [e.train_loss for e in fit.history[1:4]] == [e.train_loss for e in alone.history[1:]]
    rates = [e.learning_rate for e in fit.history[1:]]
    np.testing.assert_allclose(rates[:3], rates[3:])
    assert fit.history[4].train_loss != fit.history[1].train_loss  # other views
    stored = sl.backbones.build("scenelearn_tiny", weights=settings["weights"], image_px=32)
    ((weights, _),) = begins
    for value, first in zip(weights, arrays_of(stored.trainable_variables), strict=False):
        np.testing.assert_array_equal(value, first)


def test_resumed_soup_is_the_same_to_the_bit(
    cooked: tuple[FitResult, list[Any], list[Any]],
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_checkpoint, "EVERY_S", 0.0)
    monkeypatch.setattr(_checkpoint, "MOST_SHARE", np.inf)
    monkeypatch.setattr(_start, "usual_share", lambda _: 0.5)

    class CrashError(Exception):
        pass

    fit = cooked[0]
    for last in (12, 14):  # at the end of the first run, in the second

        def crash(name: str, done: int, _: int, last: int = last) -> None:
            if (name, done) == ("fine-tuning", last):
                raise CrashError

        with pytest.raises(CrashError):
            sl.fit(fit.splits, **settings, resume=True, progress=crash)
    again = sl.fit(fit.splits, **settings, resume=True)
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)
    assert [replace(e, seconds=0.0, train_loss=0.0) for e in again.history] == [
        replace(e, seconds=0.0, train_loss=0.0) for e in fit.history
    ]


@pytest.mark.slow
def test_time_is_shared_by_the_runs_and_a_repetition_has_their_course(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settings, "_MOST_EPOCHS_STORED", 2)
    fit = sl.fit(fitted.splits, **settings | {"epochs": None, "minutes": 5.0})
    course = fit.settings.epochs
    assert isinstance(course, tuple)
    assert [share for _, share in course] == [0.5, 1.0, 1.5, 2.0]
    again = sl.fit(fitted.splits, **fit.settings.to_json())
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)
    plan = sl.finetune.plan(fitted.splits, **settings | {"epochs": None, "minutes": 5.0})
    assert "4 epochs in 2 runs of" in str(plan)


def test_random_weights_and_statistics_of_batches_have_no_soup(fitted: FitResult) -> None:
    assert FitSettings(weights=None, recipe=Recipe(soup=4)).n_runs == 1
    assert FitSettings(recipe=Recipe(soup=4, batch_statistics=True)).n_runs == 1
    assert FitSettings(recipe=Recipe(soup=4)).n_runs == 4
    with pytest.raises(ArgumentError, match=r"rises to at most 1, the number of runs"):
        FitSettings(epochs=((5, 0.5), (5, 2.0)))
    assert FitSettings(epochs=((5, 1.0), (5, 2.0)), recipe=Recipe(soup=2)).epochs is not None
    with pytest.raises(ArgumentError, match=r"rises to at most 2"):  # the end of a run in an epoch
        FitSettings(epochs=((5, 0.5), (5, 2.0)), recipe=Recipe(soup=2))


# The course


@pytest.mark.parametrize("time_s", [3.0, 14.0, 50.0, 333.3])
@pytest.mark.parametrize("n_runs", [2, 3, 5])
def test_course_of_several_runs_takes_the_time_that_there_is(time_s: float, n_runs: int) -> None:
    course = fitting(time_s, n_steps=10, step_s=1.0, judging_s=2.0, most=1000, n_runs=n_runs)
    assert sum(size * 1.0 + 2.0 for size, _ in course) <= time_s
    ends = [n for n, (_, share) in enumerate(course) if share % 1 == 0]
    assert bool(ends) == (time_s >= 3)
    assert [course[n][1] for n in ends] == list(range(1, len(ends) + 1))
    begun = np.array([0, *(n + 1 for n in ends)])
    steps = [sum(size for size, _ in course[a:b]) for a, b in itertools.pairwise(begun)]
    if time_s / n_runs > 12:
        assert len(steps) == n_runs
        assert max(steps) - min(steps) <= 4
    assert course_of([list(one) for one in course], n_runs) == course


def test_run_that_is_late_comes_to_its_end_if_another_follows() -> None:
    seconds: dict[str, Any] = {"n_steps": 10, "step_s": 1.0, "judging_s": 2.0, "most": 9}
    done = ((10, 0.5), (10, 0.95))
    course = fitting(25.0, **seconds, done=done, n_runs=2)
    assert course[:2] == done
    assert course[2] == (1, 1.0)
    assert course[-1][1] == 2.0
    assert fitting(1.0, **seconds, done=done, n_runs=1) == done
    late = ((10, 1.0), (10, 1.95))  # the last run, too, which nothing would be left of otherwise
    assert fitting(0.5, **seconds, done=late, n_runs=2) == (*late, (1, 2.0))
    assert fitting(-0.5, **seconds, done=late, n_runs=2) == late
    assert fitting(0.5, **seconds, done=((10, 1.0),), n_runs=2) == ((10, 1.0),)
    few = fitting(27.0, **seconds | {"n_steps": 100}, n_runs=4)  # a tenth and judging take 12
    assert [share for _, share in few] == [1.0, 2.0]
    assert even(2, 10, 2) == ((10, 0.5), (10, 1.0), (10, 1.5), (10, 2.0))


def test_rate_rises_and_falls_in_each_run() -> None:
    def rates(course: Any, n_runs: int) -> list[float]:
        schedule = Schedule(
            course=course, n_runs=n_runs, timed=False, peak=1.0, least_warm_up=4, step_s=0.0,
            judging_s=0.0, slow_s=0.0, keep_s=0.0, batch_size=1,
        )  # fmt: skip
        steps = [(n + 1, k + 0.5) for n, (size, _) in enumerate(course) for k in range(size)]
        return [schedule.rate(*where) for where in steps]

    once = rates(even(3, 8), 1)
    np.testing.assert_allclose(rates(even(3, 8, 3), 3), once * 3, atol=1e-12)


def test_mean_of_ends_is_exact_for_any_number() -> None:
    class Model:
        trainable_variables: Any = ()

    state = object.__new__(State)
    state.soup, state.n_in_soup = [], 0
    ends = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    for end in ends:
        Model.trainable_variables = [end]
        state.close_run(Model)
    np.testing.assert_allclose(state.soup[0], ends.mean(axis=0, dtype=float), atol=1e-6)
