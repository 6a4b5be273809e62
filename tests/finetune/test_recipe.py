"""Schedules, recipes, optimizers, plans and weight interpolation."""

from __future__ import annotations

import functools
import json
import math
import re
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

import scenelearn as sl
from scenelearn import backbones, sizing
from scenelearn.augment import policy
from scenelearn.backbones._names import find_architecture
from scenelearn.classify._calibration import fit_temperature
from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError
from scenelearn.finetune import (
    FitResult,
    FitSettings,
    Recipe,
    _model,
    _schedule,
    _settings,
)
from scenelearn.finetune._device import memory_summary
from scenelearn.finetune._learner import Augmentation, augmented_batches
from scenelearn.finetune._model import choose_coefficient
from scenelearn.finetune._optimizer import (
    build_optimizer,
    kernel_lr_multiplier,
    lr_multipliers,
)
from scenelearn.finetune._runtime import StopSignal
from scenelearn.finetune._schedule import (
    lr_multiplier,
    schedule_for_time,
)
from scenelearn.finetune._settings import resolve_settings
from scenelearn.finetune._trainer import score_logits
from tests.helpers.networks import build_application, deferred_initialization, keras

# Schedules


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


@pytest.mark.parametrize(
    "value", ["abc", [[1, 2, 3]], [[0, 1.0]], [[5, 0.6], [5, 0.5]], [[5, 1.2]]]
)
def test_invalid_schedule_raises(value: Any) -> None:
    with pytest.raises(ArgumentError, match="`epochs` must be an integer"):
        FitSettings(epochs=value)


@pytest.mark.slow
def test_time_limited_fit_is_repeated_from_its_schedule(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settings, "_MAX_EPOCHS_RANDOM", 3)
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


def test_networks_without_kernels_below_the_head_are_not_scaled() -> None:
    features = backbones.build("scenelearn_tiny", weights=None, image_px=32)
    to_logits, _ = _model.add_zero_head(features, 3)
    assert len(lr_multipliers(to_logits)) == len(to_logits.trainable_variables)
    _model.freeze_layers(features, 32, "none")
    assert lr_multipliers(to_logits) == []


def layers_of_all_kinds() -> Any:
    k = keras()
    inputs = k.Input((8, 8, 3))
    x = k.layers.Conv2D(5, 3, name="usual")(inputs)
    x = k.layers.Conv2D(10, 3, groups=5, name="grouped")(x)
    x = k.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = k.layers.SeparableConv2D(4, 1, name="separable")(x)
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(inputs, k.layers.Dense(3, name="logits")(k.layers.Dense(7, name="dense")(x)))


@pytest.mark.slow
def test_kernel_multipliers_by_weight_size_and_inputs() -> None:
    model, rng = layers_of_all_kinds(), np.random.default_rng(0)
    n_inputs = {
        "usual": 27, "grouped": 9, "depthwise": 9, "depthwise_kernel": 1, "pointwise_kernel": 20,
        "dense": 4,
    }  # fmt: skip
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1e-3, variable.shape).astype(np.float32))
    found = lr_multipliers(model)
    assert len(found) == len(model.trainable_variables)
    seen = set()
    for share, variable in zip(found, model.trainable_variables, strict=True):
        layer, name = variable.path.split("/")[-2:]
        n = n_inputs.get(name, n_inputs.get(layer))
        if n is None or not name.endswith("kernel"):
            np.testing.assert_array_equal(share, 1)  # biases and the head
            continue
        seen |= {name, layer}
        values = np.asarray(variable)
        depthwise = "depthwise" in (layer, name.removesuffix("_kernel"))
        for channel in np.ndindex(values.shape[-2 if depthwise else -1 :]):
            weights = values[..., *channel]
            assert weights.size == n
            by_hand = np.clip(100 * np.sqrt((weights**2).mean() / n), 0.01, 1)
            np.testing.assert_allclose(share[..., *channel], by_hand, rtol=1e-5)
        assert np.broadcast_shapes(share.shape, values.shape) == values.shape
    assert seen >= set(n_inputs)


def test_relative_step_size_is_invariant_to_folding() -> None:
    kernel = np.random.default_rng(1).normal(0, 0.01, (3, 3, 8, 6)).astype(np.float32)
    scale = np.array([0.1, 0.3, 0.5, 1, 2, 3], np.float32)
    step = kernel_lr_multiplier(kernel) / kernel  # relative to the weight
    folded = kernel_lr_multiplier(kernel * scale) / (kernel * scale)
    np.testing.assert_allclose(folded, step, rtol=1e-5)
    np.testing.assert_array_equal(kernel_lr_multiplier(kernel * 100), 1)
    np.testing.assert_array_equal(kernel_lr_multiplier(kernel * 0), np.float32(0.01))


@pytest.mark.slow
def test_multipliers_apply_to_pretrained_weights_only(
    monkeypatch: pytest.MonkeyPatch, fitted: FitResult
) -> None:
    k, model, rng = keras(), layers_of_all_kinds(), np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1e-3, variable.shape).astype(np.float32))
    optimizer = build_optimizer(model, Recipe(weight_decay=0.0))
    optimizer.learning_rate = 1e-3
    expected = lr_multipliers(model)
    assert min(share.min() for share in expected) < 0.1
    before = [np.asarray(v) for v in model.trainable_variables]
    optimizer.apply([k.ops.ones(v.shape) for v in before], model.trainable_variables)
    for old, variable, share in zip(before, model.trainable_variables, expected, strict=True):
        moved = np.broadcast_to(1e-3 * share, old.shape)
        np.testing.assert_allclose(old - np.asarray(variable), moved, rtol=1e-2, atol=1e-7)

    compiled = []
    build = _model.build_optimizer

    def record(model: Any, recipe: Recipe, precision: str | None) -> Any:
        compiled.append(recipe)
        return build(model, recipe, precision)

    monkeypatch.setattr(_model, "build_optimizer", record)
    for weights in (None, "scenelearn"):
        features = backbones.build("scenelearn_tiny", weights=weights, image_px=32)
        to_logits, _ = _model.add_zero_head(features, 3)
        _model.compile_model(features, to_logits, replace(fitted.settings, weights=weights))
    assert [recipe.scale_lr_by_weights for recipe in compiled] == [False, True]


@pytest.mark.slow
@pytest.mark.skipif(keras().backend.backend() != "jax", reason="JAX tells what it compiles")
def test_a_first_step_compiles_each_program_once(
    fitted: FitResult, caplog: pytest.LogCaptureFixture
) -> None:
    import jax

    features = backbones.build("scenelearn_tiny", weights="scenelearn", image_px=32)
    to_logits, _ = _model.add_zero_head(features, 3)
    batch = np.zeros((16, 32, 32, 3), np.uint8), np.eye(3, dtype=np.float32)[np.arange(16) % 3]
    with jax.log_compiles(), caplog.at_level("WARNING"):
        _model.compile_model(features, to_logits, replace(fitted.settings, weights="scenelearn"))
        to_logits.train_on_batch(*batch)
    programs = re.findall(r"Compiling jit\((\w+)\)", caplog.text)
    assert sorted(programs) == ["_gradients_of_part", "_log", "_update"]


@pytest.mark.parametrize("precision", [None, "mixed_float16"])
def test_memory_summary_of_an_untrained_network(precision: str | None, fitted: FitResult) -> None:
    features = backbones.build("scenelearn_tiny", weights="scenelearn", image_px=32)
    to_logits, _ = _model.add_zero_head(features, 3)
    settings = replace(fitted.settings, weights="scenelearn", precision=precision)
    _model.compile_model(features, to_logits, settings)
    assert float(memory_summary(to_logits, None, 8)["memory predicted"].split()[0]) > 1


def test_mixed_batches_have_soft_labels_and_are_reproducible() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    batches = Batches(
        pixels=Pixels.from_array(images), labels=np.arange(10, dtype=np.int32) % 3,
        indices=np.arange(10), batch_size=4, seed=1,
    )  # fmt: skip
    augmentation = Augmentation(policy=policy("none"), recipe=Recipe(mixup_alpha=0.4), n_classes=3)
    steps = range(len(batches))
    made = list(augmented_batches(batches, augmentation, epoch=2, steps=steps))
    later = list(augmented_batches(batches, augmentation, epoch=2, steps=range(1, 3)))
    assert [step for step, _ in made] == [0, 1, 2]
    for _, (x, y) in made:
        assert x.shape == (4, 8, 8, 3)
        assert y.shape == (4, 3)
        np.testing.assert_allclose(np.asarray(y).sum(axis=1), 1, atol=1e-6)
    assert any(((np.asarray(y) > 0) & (np.asarray(y) < 1)).any() for _, (_, y) in made)
    for (_, (x, y)), (_, (again_x, again_y)) in zip(made[1:], later, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(again_x))
        np.testing.assert_array_equal(np.asarray(y), np.asarray(again_y))


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
def test_auto_chooses_larger_networks_for_larger_budgets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[str] = []

    def network(name: str, image_px: int) -> Any:
        found = find_architecture(name)
        width = {} if found.width is None else {"alpha": found.width}
        with deferred_initialization():
            return found.build(weights=None, input_shape=(image_px, image_px, 3), **width)

    def seconds(model: Any, *_: int) -> float:
        timed.append(model.name)
        return sizing.estimate(model).n_multiply_adds * 2.5e-11  # from 0.8 to 4 ms per photo

    monkeypatch.setattr(_settings, "build_application", functools.cache(build_application))
    monkeypatch.setattr(_settings, "_build_untrained", functools.cache(network))
    monkeypatch.setattr(_settings, "measure_photo_seconds", seconds)
    chosen = [_settings.choose_backbone(6000, 160, minutes, 32) for minutes in (0.5, 5, 20, 1e4)]
    order = [list(_settings.CANDIDATES).index(name) for name in chosen]
    assert order == sorted(order)
    assert chosen[0] == "mobilenet_v2_0.35"
    assert chosen[-1] == "efficientnet_v2_s"
    assert len(set(chosen)) >= 3
    timed.clear()
    assert _settings.choose_backbone(6000, 160, 0.5, 32) == "mobilenet_v2_0.35"
    assert len(timed) == 1  # the others cannot fit
    for free, is_largest in ((300_000_000, False), (10**12, True), (None, True)):
        monkeypatch.setattr(_settings, "available_bytes", lambda free=free: free)
        found = _settings.choose_backbone(6000, 160, 1e4, 32)
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


def test_budget_includes_inferring_the_backbone(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[float] = []

    def network(weights: object) -> str:  # loads Keras, which takes a second or two
        started.append(time.monotonic())
        return "scenelearn_tiny"

    class CreatedError(Exception):
        pass

    def clock(minutes: float, progress: object, stop: object, start: float) -> None:
        assert start <= started[0]
        raise CreatedError

    monkeypatch.setattr(backbones, "default_for", network)
    monkeypatch.setattr(sys.modules["scenelearn.finetune._fit"], "Clock", clock)
    with pytest.raises(CreatedError):
        sl.fit(fitted.splits, weights="file.h5")


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


def test_budget_includes_weight_interpolation(fitted: FitResult) -> None:
    numbers = {"train": 700, "validation": 150, "test": 150}
    datasets = {name: SimpleNamespace(n_photos=n) for name, n in numbers.items()}
    learner: Any = SimpleNamespace(datasets=SimpleNamespace(**datasets))

    def seconds(recipe: Recipe, weights: str | None = "imagenet") -> tuple[float, ...]:
        settings = replace(fitted.settings, weights=weights, recipe=recipe, epochs=0)
        return _schedule.measure_costs(
            learner, settings, predict_s=0.02, deadline=math.inf, stop=StopSignal(),
            report=lambda _done, _total: None,
        )[1:]  # fmt: skip

    validation_s, interpolation_s, test_s = seconds(Recipe())
    assert validation_s == pytest.approx(1.3 * 0.02 * 150)
    assert interpolation_s == pytest.approx(5 * validation_s)  # coefficients
    assert test_s >= 1.3 * 0.02 * (700 + 150 + 150)
    for recipe, weights in ((Recipe(interpolate_weights=False), "imagenet"), (Recipe(), None)):
        assert seconds(recipe, weights) == (validation_s, 0.0, test_s)


def test_default_coefficient_unless_another_is_significantly_better() -> None:
    rng = np.random.default_rng(0)
    half = rng.exponential(0.5, 400)
    noise = rng.standard_normal(400)
    noise -= noise.mean()  # standard error about 0.05
    slightly, clearly = half - 0.02 + noise, half - 0.12 + noise
    assert choose_coefficient({0.5: half, 1.0: slightly, 0.25: half + 0.01}, 0.5) == 0.5
    assert choose_coefficient({0.5: half, 1.0: slightly, 0.25: clearly}, 0.5) == 0.25
    assert choose_coefficient({0.5: half, 1.0: half - 0.3, 0.25: clearly}, 0.5) == 1.0
    assert choose_coefficient({0.5: half, 1.0: half * np.nan}, 0.5) == 0.5
    assert choose_coefficient({0.5: half * np.nan, 0.0: half}, 0.5) == 0.0


def test_scores_are_the_cross_entropy_of_calibrated_probabilities() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((50, 3)).astype(np.float32) * 4
    labels = rng.integers(0, 3, 50).astype(np.int32)
    found = score_logits(logits, labels)
    of_label = softmax(logits / fit_temperature(logits, labels), axis=1)[np.arange(50), labels]
    np.testing.assert_allclose(found.losses, -np.log(of_label), rtol=1e-5)
    assert found.calibrated_loss == pytest.approx(found.losses.mean())
    of_label = softmax(logits, axis=1)[np.arange(50), labels]
    assert found.loss == pytest.approx(-np.log(of_label).mean(), rel=1e-5)
    assert found.calibrated_loss < found.loss
    assert found.accuracy == (logits.argmax(axis=1) == labels).mean()
    assert math.isnan(score_logits(logits * np.nan, labels).calibrated_loss)


@pytest.mark.slow
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
