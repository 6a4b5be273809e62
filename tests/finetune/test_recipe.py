"""Schedules, recipes, optimizers, plans and weight interpolation."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult, FitSettings, Recipe
from tests.helpers.patches import limit_epochs

# Schedules


@pytest.mark.parametrize(
    "value", ["abc", [[1, 2, 3]], [[0, 1.0]], [[5, 0.6], [5, 0.5]], [[5, 1.2]]]
)
def test_invalid_schedule_raises(value: Any) -> None:
    with pytest.raises(ArgumentError, match="`epochs` must be an integer"):
        FitSettings(epochs=value)


@pytest.mark.nightly
def test_time_limited_fit_is_repeated_from_its_schedule(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_epochs(monkeypatch, 3)
    timed = fit_settings | {"epochs": None, "minutes": 1000.0}
    fit = sl.fit(fitted.splits, **timed)
    schedule = fit.settings.epochs
    assert isinstance(schedule, tuple)
    assert len(schedule) == len(fit.history) - 1 == 3
    assert schedule[-1][1] == 1.0 or fit.stopped == "time"
    again = sl.fit(fitted.splits, **fit.settings.to_json())
    assert again.settings.epochs == schedule
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)


# The recipe


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unfreeze", "most"), ("unfreeze", None), ("mixup_alpha", -0.1), ("cutmix_alpha", "1"),
        ("weight_decay", -1.0), ("weight_decay", float("nan")), ("interpolate_weights", 1),
        ("train_batchnorm", "no"), ("scale_lr_by_weights", None), ("soup", 0), ("soup", 1.5),
        ("soup", True),
    ],
)  # fmt: skip
def test_invalid_recipe_value_raises(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"`{name}` must be .* Received: {name}="):
        Recipe(**{name: value})


def test_recipe_from_a_mapping() -> None:
    assert FitSettings(recipe={"mixup_alpha": 0.2}).recipe == Recipe(mixup_alpha=0.2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"`recipe` must have the names .* Received: mixed"):
        FitSettings(recipe={"mixed": 0.2})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`recipe` must be a Recipe"):
        FitSettings(recipe="default")  # type: ignore[arg-type]


# The plan


def test_plan_matches_the_fit(fitted: FitResult, fit_settings: dict[str, Any]) -> None:
    plan = sl.finetune.plan(fitted.splits, **fit_settings)
    batch_size = fit_settings["batch_size"]
    assert plan.settings == fitted.settings
    n_steps = math.ceil(len(fitted.splits.train) / batch_size)
    assert plan.schedule == ((n_steps, 0.5), (n_steps, 1.0))
    assert list(plan.seconds) == [phase.name for phase in fitted.phases]
    assert plan.step_s > 0
    assert plan.seconds["fine-tuning"] >= plan.step_s * sum(size for size, _ in plan.schedule)
    model = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    by_sizing = sl.sizing.estimate(model, batch_size=batch_size, optimizer="adamw", method="xla")
    assert plan.training_bytes == by_sizing.training_resident_bytes
    assert "2 epochs, as requested" in str(plan)
    assert f"{sum(plan.seconds.values()) / 60:.1f} minutes" in str(plan)
    assert "<pre>" in plan._repr_html_()
    assert json.loads(json.dumps(plan.to_json()))["settings"]["epochs"] == 2


@pytest.mark.slow
def test_plan_without_time_or_without_fine_tuning(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    short = sl.finetune.plan(fitted.splits, **fit_settings | {"epochs": None, "minutes": 0.001})
    assert short.schedule == ()
    assert "not enough for a tenth of an epoch" in str(short)
    none = sl.finetune.plan(fitted.splits, **fit_settings | {"epochs": 0})
    assert (none.schedule, none.step_s) == ((), 0.0)
    assert "linear probe only" in str(none)


@pytest.mark.slow
def test_budget_includes_inferring_the_backbone(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_s, clock = [0.0], time.perf_counter

    def infer(weights: object) -> str:  # loads Keras, which takes a second or two
        late_s[0] = 1000.0
        return "scenelearn_tiny"

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late_s[0])
    monkeypatch.setattr(backbones, "default_for", infer)
    fit = sl.fit(fitted.splits, weights="scenelearn", image_px=32, epochs=0)
    assert fit.seconds > 1000


def test_plan_and_features_infer_the_backbone(fitted: FitResult) -> None:
    plan = sl.finetune.plan(fitted.splits, weights="scenelearn", image_px=32, epochs=0)
    assert plan.settings.backbone == "scenelearn_tiny"
    known = sl.finetune.extract_features(fitted.splits.photos, weights="scenelearn", image_px=32)
    assert known.shape[1] == 768


@pytest.mark.parametrize("weights", [None, "file.h5"])
def test_auto_requires_imagenet_weights(fitted: FitResult, weights: str | None) -> None:
    with pytest.raises(ArgumentError, match=r"`backbone` must be the name of a network unless"):
        sl.finetune.plan(fitted.splits, backbone="auto", weights=weights)


# Weight interpolation


@pytest.mark.nightly
def test_interpolated_weights_are_kept(fitted: FitResult, tmp_path: Any) -> None:
    weights = tmp_path / "first.weights.h5"
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    network.get_layer("backbone").save_weights(weights)
    settings = {"backbone": "scenelearn_tiny", "weights": weights, "image_px": 32, "epochs": 2}
    fit = sl.fit(fitted.splits, **settings, recipe={"unfreeze": "all"})
    assert fit.interpolation in (0, 0.25, 0.5, 0.75, 1)
    assert (fit.kept == "linear probe") == (fit.interpolation == 0)
    alone = sl.fit(
        fitted.splits, **settings, recipe={"unfreeze": "all", "interpolate_weights": False}
    )
    assert alone.interpolation in (0.0, 1.0)
    assert [e.train_loss for e in alone.history[1:]] == [e.train_loss for e in fit.history[1:]]
