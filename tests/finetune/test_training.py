"""What is trained and on what: layers, learning rates, batches, and the weights that are kept."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.utils.class_weight import compute_class_weight

import scenelearn as sl
from scenelearn import augment, backbones
from scenelearn.augment import policy
from scenelearn.classify._calibration import fit_temperature
from scenelearn.data import Batches, Pixels
from scenelearn.finetune import Epoch, FitResult, Recipe, _model
from scenelearn.finetune._class_weights import build_class_weights, weigh_classes
from scenelearn.finetune._device import memory_summary
from scenelearn.finetune._learner import Augmentation, augmented_batches
from scenelearn.finetune._model import (
    build_optimizer,
    choose_coefficient,
    freeze_layers,
    kernel_lr_multiplier,
    lr_multipliers,
)
from scenelearn.finetune._trainer import TrainingState, score_logits
from tests.helpers.networks import keras
from tests.helpers.own_backbones import attention_network

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def splits(scenes: Path) -> sl.data.Splits:
    return sl.split(sl.scan(scenes))


# Layers and their learning rates


@pytest.mark.parametrize(("unfreeze", "largest"), [("stride16", 10), ("all", 160), ("none", -1)])
def test_unfreeze_selects_layers_by_the_size_of_their_feature_maps(
    unfreeze: str, largest: int
) -> None:

    features = sl.backbones.build("mobilenet_0.25", weights=None, image_px=160)
    freeze_layers(features, 160, unfreeze)
    for layer in features.get_layer("backbone").layers:
        if layer.weights:
            assert layer.trainable == (layer.output.shape[1] <= largest), layer.name


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenet_v2_0.35", "block_6_depthwise"),
        ("mobilenet_v3_small", "expanded_conv_3_depthwise"),
        ("efficientnet_b0", "block4a_dwconv"),
    ],
)
def test_layers_that_large_feature_maps_depend_on_are_frozen(name: str, first: str) -> None:
    """Squeeze-and-excitation has feature maps of 1×1 in early blocks, too."""

    features = sl.backbones.build(name, weights=None, image_px=160)
    freeze_layers(features, 160, "stride16")
    layers = [one for one in features.get_layer("backbone").layers if one.weights]
    at = [layer.name for layer in layers].index(first)
    assert not any(layer.trainable for layer in layers[:at])
    assert all(layer.trainable for layer in layers[at:])


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


def test_layers_of_a_transformer_get_rates_that_decay_toward_the_input() -> None:
    features = backbones.build(attention_network(), image_px=32)
    _, model = _model.add_zero_head(features, 3)
    by_path = dict(
        zip((v.path for v in model.trainable_variables), lr_multipliers(model), strict=True)
    )
    biases = {
        name: np.unique([m for path, m in by_path.items() if f"{name}/" in path and "bias" in path])
        for name in ("patches", "attention_0", "attention_1", "tokens", "logits")
    }
    assert biases == {
        "patches": 0.75**2, "attention_0": 0.75, "attention_1": 1, "tokens": 1, "logits": 1,
    }  # fmt: skip
    kernel = next(v for v in model.trainable_variables if "attention_1/query/kernel" in v.path)
    values = np.asarray(kernel)  # (8 inputs, 2 heads, 4)
    rms = np.sqrt((values.astype(float) ** 2).mean(0, keepdims=True))
    np.testing.assert_allclose(
        by_path[kernel.path], np.clip(100 * rms / np.sqrt(8), 0.01, 1), rtol=1e-5
    )


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
    assert float(memory_summary(to_logits, 8, None)["memory predicted"].split()[0]) > 1


# Batches


def test_training_photos_are_augmented_and_the_last_batch_is_filled() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), dtype=np.uint8)
    batches = sl.data.Batches(
        pixels=sl.data.Pixels.from_array(images),
        labels=np.arange(7, dtype=np.int32),
        indices=np.arange(7),
        batch_size=4,
        seed=5,
    )
    order = batches.order(epoch=3)
    shown = np.concatenate([order, order[4:], order[4:5]])[:8]
    for name in ("none", "standard"):
        augmentation = Augmentation(policy=augment.policy(name), recipe=Recipe(), n_classes=7)
        steps = augmented_batches(batches, augmentation, epoch=3, steps=range(len(batches)))
        made = [batch for _, batch in steps]
        images_made = np.concatenate([np.asarray(of) for of, _ in made])
        assert [len(labels) for _, labels in made] == [4, 4]
        assert np.array_equal(np.concatenate([labels for _, labels in made]), np.eye(7)[shown])
        expected = augment.apply(images[shown], augment.sample(name, 5, shown, epoch=3))
        assert np.array_equal(images_made, np.asarray(expected))
        assert np.array_equal(images_made, images[shown]) == (name == "none")


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


def test_training_batches_carry_the_weights_of_their_labels() -> None:
    from scenelearn.data import Batches, Pixels

    labels = np.array([0, 1, 2, 2, 1], np.int32)
    train = Batches(
        pixels=Pixels.from_array(np.zeros((5, 8, 8, 3), np.uint8)),
        labels=labels,
        indices=np.arange(5),
        batch_size=5,
    )
    weights = np.array([1.0, 2.0, 4.0])
    for alpha in (0.0, 0.5):
        recipe = Recipe(mixup_alpha=alpha)
        augmentation = Augmentation(policy=policy("none"), recipe=recipe, n_classes=3)
        ((_, (_, targets, of_photo)),) = augmented_batches(
            train, augmentation, epoch=1, steps=range(1), class_weights=weights
        )
        expected = [sum(t * w for t, w in zip(row, weights, strict=True)) for row in targets]
        np.testing.assert_allclose(of_photo, expected, rtol=1e-6)
        ((_, plain),) = augmented_batches(train, augmentation, epoch=1, steps=range(1))
        assert len(plain) == 2


# What is kept


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


def test_each_class_counts_the_same_in_the_balanced_objective() -> None:
    logits = np.array([[0, 2], [0, 1], [3, 0], [1, 0]], np.float32)
    labels = np.array([1, 1, 1, 0], np.int32)
    weights = build_class_weights(
        None, "balanced_accuracy", ("a", "b"), train_labels=labels, validation_labels=labels
    )
    assert weights.training is None
    scores = score_logits(logits, labels, weights)
    plain = score_logits(logits, labels)
    each = plain.losses  # without weights in the temperature, either
    expected = (each[:3].mean() + each[3]) / 2
    assert scores.calibrated_loss == pytest.approx(expected)
    assert plain.calibrated_loss == pytest.approx(each.mean())
    assert scores.loss == plain.loss


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [90, 20, 10]).astype(np.int32)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weigh_classes("balanced", NAMES, labels), expected)
    weights = weigh_classes({"c": 4}, NAMES, labels)
    assert weights is not None
    np.testing.assert_allclose(weights / weights[0], [1, 1, 4])
    assert weights[labels].mean() == pytest.approx(1)
    assert weigh_classes(None, NAMES, labels) is None


def test_mean_of_any_number_of_cycles_is_exact() -> None:
    class Model:
        trainable_variables: Any = ()

    state = object.__new__(TrainingState)
    state.soup, state.n_in_soup = [], 0
    ends = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    for end in ends:
        Model.trainable_variables = [end]
        state.end_cycle(Model)
    np.testing.assert_allclose(state.soup[0], ends.mean(axis=0, dtype=float), atol=1e-6)


def test_non_finite_weights_are_never_kept() -> None:
    class Model:
        output_shape = (None, 2)

        def __init__(self, weight: float) -> None:
            self.weights = [np.array([weight])]

        def get_weights(self) -> list[np.ndarray[Any, Any]]:
            return self.weights

    def epoch(number: int, loss: float) -> Epoch:
        return Epoch(
            number=number, train_loss=0, validation_loss=0.1, calibrated_loss=loss,
            validation_accuracy=0.9, learning_rate=0, seconds=0,
        )  # fmt: skip

    state = TrainingState(
        schedule=None,  # type: ignore[arg-type]
        history=[], best_loss=0.6, best_weights=[], initial_weights=[],
    )  # fmt: skip
    state.end_epoch(epoch(1, 0.5), Model(math.nan))
    state.end_epoch(epoch(2, 1e30), Model(2.0))
    state.end_epoch(epoch(3, math.nan), Model(3.0))
    assert state.best == 0
    state.end_epoch(epoch(4, 0.55), Model(4.0))
    state.end_epoch(epoch(5, 0.56), Model(5.0))
    assert (state.best, state.interpolation, state.best_weights[0].item()) == (4, 1.0, 4.0)
    state.keep(Model(math.inf), 0.5, epoch=5, interpolation=0.5)
    assert state.best == 4
