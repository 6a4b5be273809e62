"""What fits into the time budget: schedules, costs, and the network of "auto"."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scenelearn import sizing
from scenelearn.backbones._names import find_architecture
from scenelearn.data._resize import make_resize
from scenelearn.finetune import FitResult, FitSettings, Recipe, _budget
from scenelearn.finetune._budget import measure_durations
from scenelearn.finetune._candidates import CANDIDATES
from scenelearn.finetune._runtime import StopSignal
from scenelearn.finetune._schedule import (
    TrainingSchedule,
    lr_multiplier,
    schedule_for_time,
    uniform_schedule,
)
from scenelearn.finetune._settings import resolve_settings
from tests.helpers.networks import build_application, deferred_initialization


def test_learning_rate_has_linear_warmup_and_cosine_decay() -> None:
    def multiplier(steps: float, min_warmup_steps: int = 0) -> float:
        return lr_multiplier(steps / 400, max(0.1, min_warmup_steps / 400))

    assert multiplier(0) == 0.0
    assert multiplier(20) == pytest.approx(0.5 * (1 + math.cos(0.05 * math.pi)) / 2)
    assert multiplier(200) == pytest.approx(0.5)
    assert multiplier(400) == pytest.approx(0.0, abs=1e-12)
    assert multiplier(20, 100) == pytest.approx(0.2 * (1 + math.cos(0.05 * math.pi)) / 2)
    assert max(multiplier(step, 1000) for step in range(400)) < 0.2


@pytest.mark.parametrize("time_s", [1.0, 5.0, 12.0, 13.9, 50.0, 333.3, 1e4])
def test_schedule_fills_the_time_budget(time_s: float) -> None:
    schedule = schedule_for_time(time_s, n_steps=10, step_s=1.0, validation_s=2.0, max_epochs=1000)
    taken = sum(size * 1.0 + 2.0 for size, _ in schedule)
    assert taken <= time_s
    assert time_s - taken < 1.0 + 2.0 + 1.0  # a tenth of an epoch, its validation, and a step
    if schedule:
        assert schedule[-1][1] == 1.0
        cumulative = np.cumsum([size for size, _ in schedule])
        np.testing.assert_allclose([after for _, after in schedule], cumulative / cumulative[-1])


def test_schedule_continues_from_completed_epochs() -> None:
    done = ((10, 0.4),)
    schedule = schedule_for_time(
        25.0, n_steps=10, step_s=1.0, validation_s=0.0, max_epochs=9, done=done
    )
    assert schedule[0] == (10, 0.4)
    np.testing.assert_allclose([after for _, after in schedule], [0.4, 0.64, 0.88, 1.0])
    assert (
        schedule_for_time(-3.0, n_steps=10, step_s=1.0, validation_s=0.0, max_epochs=9, done=done)
        == done
    )
    assert (
        len(
            schedule_for_time(
                1e6, n_steps=10, step_s=1.0, validation_s=0.0, max_epochs=9, done=done
            )
        )
        == 9
    )
    complete = ((10, 0.4), (10, 1.0))
    assert (
        schedule_for_time(
            99.0, n_steps=10, step_s=1.0, validation_s=0.0, max_epochs=9, done=complete
        )
        == complete
    )


@pytest.mark.parametrize("time_s", [3.0, 14.0, 50.0, 333.3])
@pytest.mark.parametrize("n_cycles", [2, 3, 5])
def test_schedule_of_several_cycles_fills_the_time_budget(time_s: float, n_cycles: int) -> None:
    schedule = schedule_for_time(
        time_s, n_steps=10, step_s=1.0, validation_s=2.0, max_epochs=1000, n_cycles=n_cycles
    )
    assert sum(size * 1.0 + 2.0 for size, _ in schedule) <= time_s
    ends = [n for n, (_, after) in enumerate(schedule) if after % 1 == 0]
    assert bool(ends) == (time_s >= 3)
    assert [schedule[n][1] for n in ends] == list(range(1, len(ends) + 1))
    starts = np.array([0, *(n + 1 for n in ends)])
    steps = [sum(size for size, _ in schedule[a:b]) for a, b in itertools.pairwise(starts)]
    if time_s / n_cycles > 12:
        assert len(steps) == n_cycles
        assert max(steps) - min(steps) <= 4
    settings = FitSettings(epochs=[list(one) for one in schedule], recipe=Recipe(soup=n_cycles))  # type: ignore[arg-type]
    assert settings.epochs == schedule


def test_late_cycle_is_finished_if_there_are_several() -> None:
    seconds: dict[str, Any] = {"n_steps": 10, "step_s": 1.0, "validation_s": 2.0, "max_epochs": 9}
    done = ((10, 0.5), (10, 0.95))
    schedule = schedule_for_time(25.0, **seconds, done=done, n_cycles=2)
    assert schedule[:2] == done
    assert schedule[2] == (1, 1.0)
    assert schedule[-1][1] == 2.0
    assert schedule_for_time(1.0, **seconds, done=done, n_cycles=1) == done
    late = ((10, 1.0), (10, 1.95))  # also the last run, which would be lost otherwise
    assert schedule_for_time(0.5, **seconds, done=late, n_cycles=2) == (*late, (1, 2.0))
    assert schedule_for_time(-0.5, **seconds, done=late, n_cycles=2) == late
    assert schedule_for_time(0.5, **seconds, done=((10, 1.0),), n_cycles=2) == ((10, 1.0),)
    few = schedule_for_time(
        27.0, **seconds | {"n_steps": 100}, n_cycles=4
    )  # a tenth and its validation take 12
    assert [after for _, after in few] == [1.0, 2.0]
    assert uniform_schedule(2, 10, 2) == ((10, 0.5), (10, 1.0), (10, 1.5), (10, 2.0))


def test_learning_rate_rises_and_falls_in_each_cycle() -> None:
    def rates(schedule: Any, n_cycles: int) -> list[float]:
        training = TrainingSchedule(
            epochs=schedule, n_cycles=n_cycles, time_limited=False, peak_lr=1.0, min_warmup_steps=4,
            step_s=0.0, reserve_s=0.0, batch_size=1,
        )  # fmt: skip
        steps = [(n + 1, k + 0.5) for n, (size, _) in enumerate(schedule) for k in range(size)]
        return [training.learning_rate(*where) for where in steps]

    once = rates(uniform_schedule(3, 8), 1)
    progress = (np.arange(24) + 0.5) / 24
    rise = np.minimum(1, progress / (4 / 24))
    np.testing.assert_allclose(once, rise * (1 + np.cos(np.pi * progress)) / 2, atol=1e-12)
    np.testing.assert_allclose(rates(uniform_schedule(3, 8, 3), 3), once * 3, atol=1e-12)


def test_budget_includes_weight_interpolation(fitted: FitResult) -> None:
    numbers = {"train": 700, "validation": 150, "test": 150}
    datasets = {name: SimpleNamespace(n_photos=n) for name, n in numbers.items()}
    learner: Any = SimpleNamespace(datasets=SimpleNamespace(**datasets))

    def seconds(recipe: Recipe, weights: str | None = "imagenet") -> tuple[float, ...]:
        settings = replace(fitted.settings, weights=weights, recipe=recipe, epochs=0)
        return measure_durations(
            learner, settings, predict_s=0.02, final_predict_s=0.05, left_s=math.inf,
            stop=StopSignal(), report=lambda _done, _total: None,
        )[1:]  # fmt: skip

    validation_s, interpolation_s, test_s = seconds(Recipe())
    assert validation_s == pytest.approx(1.3 * 0.02 * 150)
    assert interpolation_s == pytest.approx(5 * validation_s)  # coefficients
    assert test_s >= 1.3 * 0.05 * (700 + 150 + 150)
    for recipe, weights in ((Recipe(interpolate_weights=False), "imagenet"), (Recipe(), None)):
        assert seconds(recipe, weights) == (validation_s, 0.0, test_s)


@pytest.mark.nightly
def test_auto_chooses_larger_networks_for_larger_budgets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[str] = []
    names = [candidate.name for candidate in CANDIDATES]

    def network(name: str, image_px: int) -> Any:
        found = find_architecture(name)
        width = {} if found.width is None else {"alpha": found.width}
        with deferred_initialization():
            return found.build(weights=None, input_shape=(image_px, image_px, 3), **width)

    def seconds(model: Any, _: int) -> float:
        timed.append(model.name)
        return sizing.estimate(model).n_multiply_adds * 2.5e-11  # from 0.8 to 4 ms per photo

    monkeypatch.setattr(_budget, "build_application", functools.cache(build_application))
    monkeypatch.setattr(_budget, "_build_untrained", functools.cache(network))
    monkeypatch.setattr(_budget, "measure_photo_seconds", seconds)
    chosen = [_budget.choose_backbone(6000, 160, minutes, 32) for minutes in (0.5, 5, 20, 1e4)]
    order = [names.index(name) for name in chosen]
    assert order == sorted(order)
    assert chosen[0] == "mobilenet_v2_0.35"
    assert chosen[-1] == "efficientnet_v2_s"
    assert len(set(chosen)) >= 3
    timed.clear()
    assert _budget.choose_backbone(6000, 160, 0.5, 32) == "mobilenet_v2_0.35"
    assert len(timed) == 1  # the others cannot fit
    network_of_teacher = network("mobilenet_v2_0.35", 160)
    teacher = SimpleNamespace(network=network_of_teacher, resize=make_resize(160))
    taught = [_budget.choose_backbone(6000, 160, m, 32, teacher) for m in (0.5, 5, 20, 1e4)]
    order_taught = [names.index(name) for name in taught]
    assert all(with_teacher <= own for with_teacher, own in zip(order_taught, order, strict=True))
    assert order_taught != order  # each image is learned twice
    assert taught[-1] == "efficientnet_v2_s"
    for free, is_largest in ((300_000_000, False), (10**12, True), (None, True)):
        monkeypatch.setattr(_budget, "available_bytes", lambda free=free: free)
        found = _budget.choose_backbone(6000, 160, 1e4, 32)
        assert (found == "efficientnet_v2_s") is is_largest


@pytest.mark.parametrize(
    ("weights", "backbone", "rate", "unfreeze"),
    [
        ("imagenet", "mobilenet_v3_small", 0.001, "stride16"),
        ("resnet50_notop.h5", "resnet50", 0.001, "stride16"),
        ("scenelearn", "scenelearn_tiny", 0.003, "all"),  # learned from rendered images
        ("mine/ScenelearnTiny.h5", "scenelearn_tiny", 0.003, "all"),
        (None, "mobilenet_v3_small", 0.003, "stride16"),  # all layers are trained in any case
    ],
)
def test_defaults_depend_on_the_weights(
    fitted: FitResult, weights: str | None, backbone: str, rate: float, unfreeze: str
) -> None:
    given = {"weights": weights, "image_px": 32}
    settings = resolve_settings(
        fitted.splits, backbone=None, learning_rate=None, recipe=None, **given
    )
    assert (settings.backbone, settings.learning_rate) == (backbone, rate)
    assert settings.recipe == Recipe(unfreeze=unfreeze)
    some = {"mixup_alpha": 0.2}
    settings = resolve_settings(
        fitted.splits, backbone=None, learning_rate=None, recipe=some, **given
    )
    assert settings.recipe == Recipe(unfreeze=unfreeze, mixup_alpha=0.2)
    own = Recipe(unfreeze="none", mixup_alpha=0.2)
    settings = resolve_settings(
        fitted.splits, backbone="vgg16", learning_rate=0.1, recipe=own, **given
    )
    assert (settings.backbone, settings.learning_rate, settings.recipe) == ("vgg16", 0.1, own)
