"""The course of fine-tuning and its finer points: rates, budgets, labels, averages, blends."""

from __future__ import annotations

import functools
import json
import math
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones, sizing
from scenelearn._backend import keras
from scenelearn.augment import policy
from scenelearn.classify import softmax, temperature
from scenelearn.data import Batches, in_memory
from scenelearn.errors import ArgumentError
from scenelearn.finetune import (
    FitResult,
    FitSettings,
    Recipe,
    _choose,
    _network,
    _settings,
    _start,
    _train,
)
from scenelearn.finetune._between import SHARES, chosen_share
from scenelearn.finetune._course import course_of, even, fitting, share_done, share_of_peak
from scenelearn.finetune._memory import memory
from scenelearn.finetune._optimizer import averaged, optimizer_of
from scenelearn.finetune._rates import share_of_kernel, shares
from scenelearn.finetune._settings import asked
from scenelearn.finetune._state import judged
from scenelearn.finetune._vary import Variation, varied
from scenelearn.sizing._unfilled import without_values

# The course


def test_rate_rises_over_a_tenth_or_more_and_falls_to_nothing_along_a_cosine() -> None:
    def share(steps: float, least_warm_up: int = 0) -> float:
        return share_of_peak(steps / 400, max(0.1, least_warm_up / 400))

    assert share(0) == 0.0
    assert share(20) == pytest.approx(0.5 * (1 + math.cos(0.05 * math.pi)) / 2)
    assert share(200) == pytest.approx(0.5)
    assert share(400) == pytest.approx(0.0, abs=1e-12)
    assert share(20, 100) == pytest.approx(0.2 * (1 + math.cos(0.05 * math.pi)) / 2)
    assert max(share(step, 1000) for step in range(400)) < 0.2


def test_even_course_is_a_straight_line() -> None:
    course = even(3, 8)
    shares = [share_done(course, epoch, step) for epoch in (1, 2, 3) for step in range(8)]
    np.testing.assert_allclose(shares, np.arange(24) / 24, atol=1e-12)
    assert even(0, 8) == ()


@pytest.mark.parametrize("time_s", [1.0, 5.0, 12.0, 13.9, 50.0, 333.3, 1e4])
def test_course_takes_the_time_that_there_is(time_s: float) -> None:
    course = fitting(time_s, n_steps=10, step_s=1.0, judging_s=2.0, most=1000)
    taken = sum(size * 1.0 + 2.0 for size, _ in course)
    assert taken <= time_s
    assert time_s - taken < 1.0 + 2.0 + 1.0  # a tenth of an epoch, judging it, and a step
    if course:
        assert course[-1][1] == 1.0
        gone = np.cumsum([size for size, _ in course])
        np.testing.assert_allclose([share for _, share in course], gone / gone[-1])


def test_course_leaves_time_for_epochs_that_take_longer() -> None:
    seconds: dict[str, Any] = {"n_steps": 10, "step_s": 1.0, "judging_s": 2.0}
    course = fitting(40.0, **seconds, most=9, n_slow=2, slow_s=5.0)  # 17 and 17, then 6
    assert [size for size, _ in course] == [10, 10, 4]
    assert fitting(40.0, **seconds, most=9, n_slow=2) == fitting(40.0, **seconds, most=9)
    assert [size for size, _ in fitting(11.0, **seconds, most=9, n_slow=2, slow_s=5.0)] == [6]


def test_course_that_goes_on_ends_at_one_again_and_keeps_what_is_done() -> None:
    done = ((10, 0.4),)
    course = fitting(25.0, n_steps=10, step_s=1.0, judging_s=0.0, most=9, done=done)
    assert course[0] == (10, 0.4)
    np.testing.assert_allclose([share for _, share in course], [0.4, 0.64, 0.88, 1.0])
    assert fitting(-3.0, n_steps=10, step_s=1.0, judging_s=0.0, most=9, done=done) == done
    assert len(fitting(1e6, n_steps=10, step_s=1.0, judging_s=0.0, most=9, done=done)) == 9
    through = ((10, 0.4), (10, 1.0))
    assert fitting(99.0, n_steps=10, step_s=1.0, judging_s=0.0, most=9, done=through) == through


@pytest.mark.parametrize(
    "value", ["abc", [[1, 2, 3]], [[0, 1.0]], [[5, 0.6], [5, 0.5]], [[5, 1.2]]]
)
def test_what_is_no_course(value: Any) -> None:
    assert course_of(value) is None
    with pytest.raises(ArgumentError, match="`epochs` must be a whole number"):
        FitSettings(epochs=value)


def test_result_of_a_budget_is_repeated_by_its_course(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settings, "_MOST_EPOCHS_RANDOM", 3)
    timed = fit_settings | {"epochs": None, "minutes": 5.0, "batch_size": 16}
    fit = sl.fit(fitted.splits, **timed)
    course = fit.settings.epochs
    assert isinstance(course, tuple)
    assert len(course) == len(fit.history) - 1 == 3
    assert course[-1][1] == 1.0 or fit.stopped == "time"
    again = sl.fit(fitted.splits, **fit.settings.to_json())
    assert again.settings.epochs == course
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)


# The recipe


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trained", "most"), ("layer_decay", 0.0), ("layer_decay", 1.5), ("label_smoothing", 1.0),
        ("average", 1.0), ("mixup", -0.1), ("cutmix", "1"), ("weight_decay", -1.0),
        ("interpolate", 1), ("batch_statistics", "no"), ("weight_decay", float("nan")),
        ("relative_rates", None), ("views", -1), ("views", 1.5), ("views", True),
    ],
)  # fmt: skip
def test_recipe_refuses_by_name(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"`{name}` must be .* Received: {name}="):
        Recipe(**{name: value})


def test_recipe_by_names() -> None:
    assert FitSettings(recipe={"mixup": 0.2}).recipe == Recipe(mixup=0.2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"`recipe` must have the names .* Received: mixed"):
        FitSettings(recipe={"mixed": 0.2})  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`recipe` must be a Recipe"):
        FitSettings(recipe="usual")  # type: ignore[arg-type]


def small_model() -> Any:
    k = keras()
    inputs = k.Input((4,))
    x = k.layers.Dense(4, name="first")(inputs)
    x = k.layers.Dense(4, name="second")(x)
    return k.Model(inputs, k.layers.Dense(2, name="third")(x))


def step_sizes(recipe: Recipe) -> list[float]:
    """How far one step moves each layer's bias: with Adam, its own rate."""
    k, model = keras(), small_model()
    optimizer = optimizer_of(model, recipe)
    optimizer.learning_rate = 1e-3
    before = [np.asarray(layer.bias) for layer in model.layers[1:]]
    gradients = [k.ops.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    after = [np.asarray(layer.bias) for layer in model.layers[1:]]
    return [float(np.abs(b - a).max()) for a, b in zip(before, after, strict=True)]


def test_rates_of_layers_grow_geometrically_to_the_last() -> None:
    np.testing.assert_allclose(step_sizes(Recipe()), 1e-3, rtol=1e-4)
    np.testing.assert_allclose(step_sizes(Recipe(relative_rates=False)), 1e-3, rtol=1e-4)
    by_layer = step_sizes(Recipe(layer_decay=0.01))
    np.testing.assert_allclose(by_layer, [1e-5, 1e-4, 1e-3], rtol=1e-4)


def test_rates_of_layers_grow_in_a_nested_network_as_well() -> None:
    features = backbones.build("scenelearn_tiny", weights=None, image_px=32)
    to_logits, _ = _network.with_blank_head(features, 3)
    found = shares(to_logits, decay=0.1, relative=False)
    values = [float(share) for share in found]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.1)
    assert values[-1] == 1
    assert shares(to_logits, decay=1.0, relative=False) == []
    _network.choose_trained(features, 32, "head")
    assert shares(to_logits, decay=1.0, relative=True) == []


def layers_of_all_kinds() -> Any:
    k = keras()
    inputs = k.Input((8, 8, 3))
    x = k.layers.Conv2D(5, 3, name="usual")(inputs)
    x = k.layers.Conv2D(10, 3, groups=5, name="grouped")(x)
    x = k.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = k.layers.SeparableConv2D(4, 1, name="separable")(x)
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(inputs, k.layers.Dense(3, name="logits")(k.layers.Dense(7, name="dense")(x)))


def test_a_kernel_learns_by_the_size_of_its_weights_and_the_number_of_its_inputs() -> None:
    model, rng = layers_of_all_kinds(), np.random.default_rng(0)
    n_inputs = {
        "usual": 27, "grouped": 9, "depthwise": 9, "depthwise_kernel": 1, "pointwise_kernel": 20,
        "dense": 4,
    }  # fmt: skip
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1e-3, variable.shape).astype(np.float32))
    found = shares(model, decay=1.0, relative=True)
    assert len(found) == len(model.trainable_variables)
    seen = set()
    for share, variable in zip(found, model.trainable_variables, strict=True):
        layer, name = variable.path.split("/")[-2:]
        n = n_inputs.get(name, n_inputs.get(layer))
        if n is None or not name.endswith("kernel"):
            np.testing.assert_array_equal(share, 1)  # biases, and the head
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


def test_folding_a_scale_into_a_kernel_does_not_change_how_fast_it_learns() -> None:
    kernel = np.random.default_rng(1).normal(0, 0.01, (3, 3, 8, 6)).astype(np.float32)
    scale = np.array([0.1, 0.3, 0.5, 1, 2, 3], np.float32)
    step = share_of_kernel(kernel) / kernel  # as a share of the weight itself
    folded = share_of_kernel(kernel * scale) / (kernel * scale)
    np.testing.assert_allclose(folded, step, rtol=1e-5)
    np.testing.assert_array_equal(share_of_kernel(kernel * 100), 1)
    np.testing.assert_array_equal(share_of_kernel(kernel * 0), np.float32(0.01))


def test_relative_rates_are_those_of_the_steps_made_and_of_stored_weights_only(
    monkeypatch: pytest.MonkeyPatch, fitted: FitResult
) -> None:
    k, model, rng = keras(), layers_of_all_kinds(), np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1e-3, variable.shape).astype(np.float32))
    optimizer = optimizer_of(model, Recipe(layer_decay=0.5, weight_decay=0.0))
    optimizer.learning_rate = 1e-3
    expected = shares(model, decay=0.5, relative=True)
    assert min(share.min() for share in expected) < 0.1
    before = [np.asarray(v) for v in model.trainable_variables]
    optimizer.apply([k.ops.ones(v.shape) for v in before], model.trainable_variables)
    for old, variable, share in zip(before, model.trainable_variables, expected, strict=True):
        moved = np.broadcast_to(1e-3 * share, old.shape)
        np.testing.assert_allclose(old - np.asarray(variable), moved, rtol=1e-2, atol=1e-7)

    asked = []
    monkeypatch.setattr(_train, "compile_", lambda _model, recipe, _precision: asked.append(recipe))
    for weights in (None, "scenelearn"):
        features = backbones.build("scenelearn_tiny", weights=weights, image_px=32)
        to_logits, _ = _network.with_blank_head(features, 3)
        _start.prepare(features, to_logits, replace(fitted.settings, weights=weights))
    assert [recipe.relative_rates for recipe in asked] == [False, True]


@pytest.mark.parametrize("precision", [None, "mixed_float16"])
def test_memory_is_told_of_a_network_that_no_step_was_trained_of(precision: str | None) -> None:
    features = backbones.build("scenelearn_tiny", weights="scenelearn", image_px=32)
    to_logits, _ = _network.with_blank_head(features, 3)
    _train.compile_(to_logits, Recipe(), precision)
    assert float(memory(to_logits, None, 8)["memory predicted"].split()[0]) > 1


def test_average_is_there_inside_only() -> None:
    k, model = keras(), small_model()
    optimizer = optimizer_of(model, Recipe(average=0.5))
    model.compile(optimizer, "mse")
    kernel, seen = model.layers[-1].kernel, []
    optimizer.learning_rate = 0.1
    for _ in range(3):
        gradients = [k.ops.ones(v.shape) for v in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
        seen.append(np.asarray(kernel))
    # After the first step the average is the weights; then half old, half new.
    expected = 0.5 * (0.5 * seen[0] + 0.5 * seen[1]) + 0.5 * seen[2]
    with averaged(model):
        np.testing.assert_allclose(np.asarray(kernel), expected, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(kernel), seen[2])


def test_mixed_batches_have_shared_labels_and_are_the_same_again() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    batches = Batches(
        pixels=in_memory(images), labels=np.arange(10, dtype=np.int32) % 3,
        indices=np.arange(10), batch_size=4, seed=1,
    )  # fmt: skip
    variation = Variation(policy=policy("none"), recipe=Recipe(mixup=0.4), n_classes=3)
    steps = range(len(batches))
    made = list(varied(batches, variation, epoch=2, steps=steps))
    later = list(varied(batches, variation, epoch=2, steps=range(1, 3)))
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


def test_plan_says_what_a_fit_does(fitted: FitResult, fit_settings: dict[str, Any]) -> None:
    plan = sl.finetune.plan(fitted.splits, **fit_settings)
    assert plan.settings == fitted.settings
    assert plan.course == even(2, math.ceil(len(fitted.splits.train) / 32))
    assert list(plan.seconds) == [phase.name for phase in fitted.phases]
    assert plan.step_s > 0
    assert plan.seconds["fine-tuning"] >= plan.step_s * sum(size for size, _ in plan.course)
    model = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    by_sizing = sl.sizing.estimate(model, batch_size=32, optimizer="adamw", rule="xla")
    assert plan.training_bytes == by_sizing.training_resident_bytes
    assert "2 epochs, as asked for" in str(plan)
    assert f"{sum(plan.seconds.values()) / 60:.1f} minutes" in str(plan)
    assert "<li>" in plan._repr_html_()
    assert json.loads(json.dumps(plan.to_json()))["settings"]["epochs"] == 2


def test_plan_without_time_or_without_fine_tuning(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    short = sl.finetune.plan(fitted.splits, **fit_settings | {"epochs": None, "minutes": 0.001})
    assert short.course == ()
    assert "less than a tenth of an epoch" in str(short)
    none = sl.finetune.plan(fitted.splits, **fit_settings | {"epochs": 0})
    assert (none.course, none.step_s) == ((), 0.0)
    assert "the solved head alone" in str(none)


def test_auto_takes_a_larger_network_where_there_is_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[str] = []

    def network(name: str, image_px: int) -> Any:
        found = backbones.find(name)
        width = {} if found.width is None else {"alpha": found.width}
        with without_values(keras()):
            return found.build(weights=None, input_shape=(image_px, image_px, 3), **width)

    def seconds(model: Any, *_: int) -> float:
        timed.append(model.name)
        return sizing.estimate(model).n_multiply_adds * 2.5e-11  # 0.8 ms, and 4 ms for V2

    monkeypatch.setattr(sizing, "application", functools.cache(sizing.application))
    monkeypatch.setattr(_choose, "_network", functools.cache(network))
    monkeypatch.setattr(_choose, "seconds_a_photo", seconds)
    chosen = [_choose.chosen_backbone(6000, 160, minutes) for minutes in (0.5, 5, 20, 1e4)]
    order = [list(_choose.CANDIDATES).index(name) for name in chosen]
    assert order == sorted(order)
    assert chosen[0] == "mobilenet_v2_0.35"
    assert chosen[-1] == "efficientnet_v2_s"
    assert len(set(chosen)) >= 3
    timed.clear()
    assert _choose.chosen_backbone(6000, 160, 0.5) == "mobilenet_v2_0.35"
    assert len(timed) == 1  # the others could not fit


@pytest.mark.parametrize(
    ("weights", "backbone", "rate", "trained"),
    [
        ("imagenet", "mobilenet_v3_small", 0.001, "coarse"),
        ("resnet50_notop.h5", "resnet50", 0.001, "coarse"),
        ("scenelearn", "scenelearn_tiny", 0.003, "all"),  # has seen drawn images only
        ("mine/ScenelearnTiny.h5", "scenelearn_tiny", 0.003, "all"),
        (None, "mobilenet_v3_small", 0.003, "coarse"),  # random weights train all in any case
    ],
)
def test_network_rate_and_recipe_follow_from_the_weights(
    fitted: FitResult, weights: str | None, backbone: str, rate: float, trained: str
) -> None:
    given = {"weights": weights, "image_px": 32}
    settings = asked(fitted.splits, backbone=None, learning_rate=None, recipe=None, **given)
    assert (settings.backbone, settings.learning_rate) == (backbone, rate)
    assert settings.recipe == Recipe(trained=trained)
    some = {"mixup": 0.2}
    settings = asked(fitted.splits, backbone=None, learning_rate=None, recipe=some, **given)
    assert settings.recipe == Recipe(trained=trained, mixup=0.2)
    own = Recipe(trained="head", mixup=0.2)
    settings = asked(fitted.splits, backbone="vgg16", learning_rate=0.1, recipe=own, **given)
    assert (settings.backbone, settings.learning_rate, settings.recipe) == ("vgg16", 0.1, own)


def test_finding_out_what_a_weights_file_is_of_is_part_of_the_budget(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[float] = []

    def network(weights: object) -> str:  # loads Keras, which takes a second or two
        begun.append(time.monotonic())
        return "scenelearn_tiny"

    class MadeError(Exception):
        pass

    def clock(minutes: float, progress: object, stop: object, start: float) -> None:
        assert start <= begun[0]
        raise MadeError

    monkeypatch.setattr(backbones, "default_for", network)
    monkeypatch.setattr(sys.modules["scenelearn.finetune._fit"], "Clock", clock)
    with pytest.raises(MadeError):
        sl.fit(fitted.splits, weights="file.h5")


def test_plan_and_features_take_the_network_of_the_weights(fitted: FitResult) -> None:
    plan = sl.finetune.plan(fitted.splits, weights="scenelearn", image_px=32, epochs=0)
    assert plan.settings.backbone == "scenelearn_tiny"
    known = sl.finetune.features(fitted.splits.photos, weights="scenelearn", image_px=32)
    assert known.shape[1] == 768


@pytest.mark.parametrize("weights", [None, "file.h5"])
def test_auto_needs_the_weights_that_keras_offers(fitted: FitResult, weights: str | None) -> None:
    with pytest.raises(ArgumentError, match=r"`backbone` must be a network's name unless"):
        sl.finetune.plan(fitted.splits, backbone="auto", weights=weights)


# Between two networks


def test_judging_the_networks_between_is_part_of_the_budget(fitted: FitResult) -> None:
    def seconds(recipe: Recipe, weights: str | None = "imagenet") -> tuple[float, float, float]:
        settings = replace(fitted.settings, weights=weights, recipe=recipe)
        return _start.judging_seconds(0.02, 0.02, settings, (700, 150, 150))

    epoch_s, between_s, test_s = seconds(Recipe())
    assert epoch_s == pytest.approx(1.3 * 0.02 * 150)
    assert between_s == pytest.approx(len(SHARES) * epoch_s)
    assert test_s >= 1.3 * 0.02 * (700 + 150 + 150)
    for recipe, weights in ((Recipe(interpolate=False), "imagenet"), (Recipe(), None)):
        assert seconds(recipe, weights) == (epoch_s, 0.0, test_s)


def test_the_usual_is_kept_unless_another_is_better_by_more_than_chance() -> None:
    rng = np.random.default_rng(0)
    half = rng.exponential(0.5, 400)
    noise = rng.standard_normal(400)
    noise -= noise.mean()  # a standard error of about 0.05
    slightly, clearly = half - 0.02 + noise, half - 0.12 + noise
    assert chosen_share({0.5: half, 1.0: slightly, 0.25: half + 0.01}, 0.5) == 0.5
    assert chosen_share({0.5: half, 1.0: slightly, 0.25: clearly}, 0.5) == 0.25
    assert chosen_share({0.5: half, 1.0: half - 0.3, 0.25: clearly}, 0.5) == 1.0
    assert chosen_share({0.5: half, 1.0: half * np.nan}, 0.5) == 0.5
    assert chosen_share({0.5: half * np.nan, 0.0: half}, 0.5) == 0.0


def test_judging_is_the_cross_entropy_of_calibrated_probabilities() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((50, 3)).astype(np.float32) * 4
    labels = rng.integers(0, 3, 50).astype(np.int32)
    found = judged(logits, labels)
    chances = softmax(logits / temperature(logits, labels))[np.arange(50), labels]
    np.testing.assert_allclose(found.losses, -np.log(chances), rtol=1e-5)
    assert found.calibrated_loss == pytest.approx(found.losses.mean())
    assert found.calibrated_loss < found.loss
    assert found.accuracy == (logits.argmax(axis=1) == labels).mean()
    assert math.isnan(judged(logits * np.nan, labels).calibrated_loss)


@pytest.mark.slow
def test_network_between_is_kept_and_saved(fitted: FitResult, tmp_path: Any) -> None:
    weights = tmp_path / "first.weights.h5"
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    network.get_layer("backbone").save_weights(weights)
    settings = {"backbone": "scenelearn_tiny", "weights": weights, "image_px": 32, "epochs": 2}
    fit = sl.fit(fitted.splits, **settings, recipe={"trained": "all"})
    assert fit.share in SHARES
    assert (fit.kept == "solved head") == (fit.share == 0)
    alone = sl.fit(fitted.splits, **settings, recipe={"trained": "all", "interpolate": False})
    assert alone.share in (0.0, 1.0)
    assert [e.train_loss for e in alone.history[1:]] == [e.train_loss for e in fit.history[1:]]


@pytest.mark.slow
def test_average_of_several_epochs(fitted: sl.FitResult, fit_settings: dict[str, Any]) -> None:
    """JAX deletes the arrays that a prediction was given: the average must not be among them."""
    fit = sl.fit(fitted.splits, **fit_settings, recipe={"average": 0.5})
    assert [epoch.number for epoch in fit.history] == [0, 1, 2]
