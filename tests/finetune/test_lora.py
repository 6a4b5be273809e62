"""LoRA: what is trained, what it costs, and the plain network that remains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones, sizing
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult, FitSettings, Recipe, _model
from scenelearn.finetune._device import training_bytes
from scenelearn.finetune._lora import add_lora, freeze_for_lora, merge_lora, with_lora
from tests.helpers.networks import keras
from tests.helpers.own_backbones import attention_network, convolution_network
from tests.helpers.patches import limit_epochs, save_at_each_step, set_default_coefficient

RANK = 2
# Of each attention: query, key and value (8 inputs, 2 heads of 4) and the output (2, 4, 8), each
# with its biases; of the last layer 8 to 8; and the head, 8 to 3.
N_TRAINED = 2 * (3 * (8 * 2 * RANK + RANK * 4 + 8) + 8 * RANK + RANK * 8 + 8)
N_TRAINED += 8 * RANK + RANK * 8 + 8 + (8 + 1) * 3


def arrays(model: Any) -> dict[str, np.ndarray]:
    return {v.path: keras().ops.convert_to_numpy(v) for v in model.variables}


def network_with_lora() -> tuple[Any, Any]:
    """A tiny transformer, to features and to logits, with random values in all its matrices."""
    features = backbones.build(attention_network(), image_px=32)
    freeze_for_lora(features)
    add_lora(features, FitSettings(recipe=Recipe(lora_rank=RANK)))
    to_logits, _ = _model.add_zero_head(features, 3)
    rng = np.random.default_rng(0)
    for variable in features.trainable_variables:
        variable.assign(rng.normal(0, 0.3, variable.shape).astype(np.float32))
    return features, to_logits


def images(n: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 32, 32, 3), np.uint8)


def test_only_low_rank_matrices_biases_and_the_head_are_trained() -> None:
    _, model = network_with_lora()
    trained = {v.path.rpartition("/")[2] for v in model.trainable_variables}
    assert trained == {"lora_kernel_a", "lora_kernel_b", "bias", "kernel"}
    kernels = [v.path for v in model.trainable_variables if v.path.endswith("/kernel")]
    assert kernels == ["logits/kernel"]
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == N_TRAINED
    assert not any("patches" in v.path for v in model.trainable_variables)
    rates = _model.lr_multipliers(model)  # 0.75 per attention layer above, as without LoRA
    assert {float(r) for r in rates} == {np.float32(0.75), 1.0}


@pytest.mark.skipif(
    keras().backend.backend() != "jax", reason="sizing can trace attention layers on JAX only"
)
def test_sizes_count_the_trained_matrices_and_their_memory() -> None:
    features, model = network_with_lora()
    for method in sizing.METHODS:
        found = sizing.estimate(model, optimizer="adamw", method=method)
        assert found.n_parameters == model.count_params()
        assert found.n_trainable_parameters == N_TRAINED
    with_matrices = training_bytes(model, 16)
    merge_lora(features)
    for layer in features.layers:
        layer.trainable = True
    assert with_matrices < training_bytes(model, 16)


def test_merged_kernels_give_the_same_features() -> None:
    features, _ = network_with_lora()
    to_numpy = keras().ops.convert_to_numpy
    before, outputs = arrays(features), to_numpy(features(images()))
    merge_lora(features)
    np.testing.assert_allclose(to_numpy(features(images())), outputs, rtol=1e-4, atol=1e-5)
    after = arrays(features)
    assert set(after) == {path for path in before if "lora" not in path}
    for path in after:
        stem = path.removesuffix("kernel")
        low_rank = 0.0
        if f"{stem}lora_kernel_a" in before:
            low_rank = before[f"{stem}lora_kernel_a"] @ before[f"{stem}lora_kernel_b"]
        np.testing.assert_allclose(after[path], before[path] + low_rank, rtol=1e-5, atol=1e-6)
    config = str([layer.get_config() for layer in features.get_layer("backbone").layers])
    assert "lora" not in config


def test_network_is_unchanged_after_its_memory_was_estimated() -> None:
    features = backbones.build(attention_network(), image_px=32)
    features.get_layer("backbone").get_layer("patches").trainable = False
    flags, values = [v.trainable for v in features.variables], features.get_weights()
    with with_lora(features, FitSettings(recipe=Recipe(lora_rank=RANK))):
        assert any("lora" in v.path for v in features.variables)
    assert [v.trainable for v in features.variables] == flags
    for one, other in zip(features.get_weights(), values, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_step_in_parts_equals_a_step_of_plain_keras() -> None:
    found = []
    for is_fast in (True, False):
        _, model = network_with_lora()
        loss = keras().losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras().optimizers.SGD(0.1), loss)
        (backbones.fast_on_cpu if is_fast else backbones.undo_fast)(model)
        labels = np.eye(3, dtype=np.float32)[np.arange(16) % 3]
        losses = [float(model.train_on_batch(images(), labels)) for _ in range(3)]
        if not is_fast:
            assert losses[2] < losses[0]
        found.append((losses, model.get_weights()))
    (losses, weights), (plain_losses, plain_weights) = found
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-4)
    for one, other in zip(weights, plain_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


# Fits


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return {
        "backbone": attention_network(), "image_px": 32, "epochs": 2, "batch_size": 16,
        "recipe": {"lora_rank": RANK}, "class_weight": "balanced",
    }  # fmt: skip


@pytest.fixture(scope="module")
def lora(fitted: FitResult, settings: dict[str, Any]) -> FitResult:
    with pytest.MonkeyPatch.context() as patch:
        set_default_coefficient(patch, 0.5)
        return sl.fit(fitted.splits, **settings)


@pytest.mark.slow
def test_fit_ends_with_a_plain_network(
    lora: FitResult, settings: dict[str, Any], tmp_path: Path
) -> None:
    probe = sl.fit(lora.splits, **settings | {"epochs": 0})
    assert lora.kept == "fine-tuned"
    found, before = (arrays(fit.classifier.model.get_layer("backbone")) for fit in (lora, probe))
    assert len(found) == len(before)
    for value, old, path in zip(found.values(), before.values(), found, strict=True):
        change = (value - old).reshape(*((-1, 8) if path.endswith("kernel") else (1, -1)))
        if "patches" in path or "normalization" in path:
            assert not change.any()
        elif path.endswith("kernel") and "attention" not in path:
            assert np.linalg.matrix_rank(change, tol=1e-6) == RANK
        elif path.endswith("kernel"):
            assert change.any()
    again = sl.load(lora.save(tmp_path / "scenes.keras"))
    expected = lora.classifier.predict_proba(images(), verbose=False)
    np.testing.assert_array_equal(again.predict_proba(images(), verbose=False), expected)


@pytest.mark.slow
def test_resumed_fit_is_identical_bit_for_bit(
    lora: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_at_each_step(monkeypatch)
    set_default_coefficient(monkeypatch, 0.5)

    class CrashError(Exception):
        pass

    def crash(name: str, done: int, _: int) -> None:
        if (name, done) == ("fine-tuning", 5):
            raise CrashError

    with pytest.raises(CrashError):
        sl.fit(lora.splits, **settings, progress=crash)
    again = sl.fit(lora.splits, **settings, resume=True)
    np.testing.assert_array_equal(again.test_probabilities, lora.test_probabilities)
    weights = again.classifier.model.get_weights()
    for one, other in zip(weights, lora.classifier.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.nightly
def test_time_budget_decides_the_epochs(
    lora: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_epochs(monkeypatch, 2)
    fit = sl.fit(lora.splits, **settings | {"epochs": None, "minutes": 5.0})
    assert len(fit.history) == 3
    assert not fit.stopped
    plan = sl.finetune.plan(lora.splits, **settings)
    n_trained = N_TRAINED + (8 + 1) * 3  # six classes
    assert f"lora_rank={RANK}: {n_trained:,} parameters are trained" in str(plan)


def test_networks_without_dense_layers_are_rejected(fitted: FitResult) -> None:
    for run in (sl.fit, sl.finetune.plan):
        with pytest.raises(ArgumentError, match=r"LoRA needs layers .* Received: lora_rank=8"):
            run(fitted.splits, backbone=convolution_network(), recipe={"lora_rank": 8})


@pytest.mark.parametrize("value", [0, 1.5, True, "8"])
def test_invalid_rank(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"`lora_rank` must be .* Received: lora_rank="):
        Recipe(lora_rank=value)


def test_settings_that_exclude_each_other() -> None:
    for others in ({"soup": 2}, {"train_batchnorm": True}):
        with pytest.raises(ArgumentError, match="`lora_rank` must be None with a soup"):
            Recipe(lora_rank=8, **others)
    with pytest.raises(ArgumentError, match="`lora_rank` must be None with random weights"):
        FitSettings(weights=None, recipe=Recipe(lora_rank=8))
