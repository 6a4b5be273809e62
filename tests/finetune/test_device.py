"""The device: mixed precision, also forced on a CPU, and batches that fit into free memory."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones
from scenelearn.errors import ArgumentError
from scenelearn.finetune import Recipe, _device, _run
from scenelearn.finetune._model import build_optimizer
from tests.helpers.marks import nightly, slow
from tests.helpers.networks import keras


def policies(model: Any) -> set[str]:
    return {layer.dtype_policy.name for layer in (model, *model._flatten_layers())}


def photos(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)


def test_invalid_precision_raises(fitted: sl.FitResult, fit_settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"`precision` must be.*precision='float16'"):
        sl.fit(fitted.splits, **fit_settings, precision="float16")


def test_unsupported_precision_is_ignored_with_a_warning(
    fitted: sl.FitResult,
    fit_settings: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(_device, "_CPU_INFO", tmp_path / "not Linux")
    settings = fit_settings | {"epochs": 0, "precision": "mixed_bfloat16"}
    with caplog.at_level(logging.WARNING):
        fit = sl.fit(fitted.splits, **settings)
    assert "Ignoring precision='mixed_bfloat16'" in caplog.text
    assert fit.settings.precision is None


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("processor\t: 0\nflags\t: fpu avx512_bf16 vnni\n\nprocessor\t: 1\n", "bfloat16"),
        ("flags\t\t: fpu avx512f avx512_bf16_of_another_name\n", ""),
        ("flags\t\t: amx_bf16 avx512_fp16\n", "bfloat16 float16"),
        ("Features\t: fp asimd bf16\n", "bfloat16"),  # Arm
        ("", ""),
    ],
)
def test_cpu_support_depends_on_instructions_and_backend(
    cpu_info: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "cpuinfo").write_text(cpu_info)
    monkeypatch.setattr(_device, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(_device, "_on_cpu", lambda _: True)
    for backend, precision in itertools.product(("jax", "tensorflow", "torch"), _device.PRECISIONS):
        monkeypatch.setattr("keras.backend.backend", lambda name=backend: name)
        supported = backend != "jax" and precision.removeprefix("mixed_") in expected.split()
        caplog.clear()
        assert _device.supported_precision(precision) == (precision if supported else None)
        why = "JAX" if backend == "jax" else "this CPU has none of these instructions"
        assert supported or why in caplog.text
    assert _device.supported_precision(None) is None


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2\n\nmodel name\t: x\n", "AMD EPYC, AVX2"),
        ("flags\t\t: avx2 avx512f\nmodel name\t: Xeon @ 2.7GHz\n", "Xeon @ 2.7GHz, AVX-512"),
        ("model name\t:\nFeatures\t: fp asimd\n", "arm, NEON"),
        ("", "arm"),
    ],
)
def test_environment_names_the_processor(
    cpu_info: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpu_info)
    monkeypatch.setattr(_device, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert _device.environment()["cpu"] == expected


@pytest.mark.skipif(shutil.which("lscpu") is None, reason="lscpu is not installed")
def test_cpu_instructions_match_lscpu() -> None:
    listed = subprocess.run(["lscpu", "--json"], capture_output=True, text=True, check=True)
    (flags,) = (
        row["data"].split()
        for row in json.loads(listed.stdout)["lscpu"]
        if row["field"] in ("Flags:", "Features:")
    )
    assert _device._cpu_instructions() == set(flags)


@pytest.mark.parametrize("precision", slow("mixed_bfloat16") + nightly("mixed_float16"))
def test_mixed_network_has_float32_weights_and_similar_features(precision: str) -> None:
    exact, mixed = (
        backbones.build("scenelearn_tiny", weights=None, image_px=32, seed=1, precision=one)
        for one in (None, precision)
    )
    assert policies(exact) == {"float32"}
    assert policies(mixed.get_layer("backbone")) == {precision}
    assert mixed.output.dtype == precision.removeprefix("mixed_")
    assert {str(v.dtype) for v in mixed.variables} == {"float32"}
    a, b = (
        np.asarray(one.predict_on_batch(photos(8)), np.float32).ravel() for one in (exact, mixed)
    )
    assert 0 < np.abs(a - b).max() < 0.02 * np.abs(a).max()
    _device.convert_to_float32(mixed)
    assert policies(mixed) == {"float32"}
    assert np.allclose(mixed.predict_on_batch(photos(8)).ravel(), a, rtol=1e-5, atol=1e-6)


def test_loss_scaling_skips_steps_with_infinite_gradients() -> None:
    import keras

    def trained(precision: str | None, gradients: list[list[float]]) -> np.ndarray:
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False)])
        model.set_weights([np.array([[1.0], [-1.0]], np.float32)])
        optimizer = build_optimizer(model, Recipe(), precision)
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        optimizer.learning_rate.assign(0.1)
        for gradient in gradients:
            scale = float(optimizer.scale_loss(1.0)) if precision == "mixed_float16" else 1.0
            scaled = keras.ops.convert_to_tensor(scale * np.array(gradient, np.float32)[:, None])
            if keras.backend.backend() != "jax":
                optimizer.apply([scaled], model.trainable_variables)
                continue
            trainable, others = optimizer.stateless_apply(
                [v.value for v in optimizer.variables],
                [scaled],
                [v.value for v in model.trainable_variables],
            )
            for variables, values in (
                (model.trainable_variables, trainable),
                (optimizer.variables, others),
            ):
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
        return np.asarray(model.get_weights()[0])

    steps = [[1.0, 2.0], [0.5, -1.0]]
    exact = trained(None, steps)
    assert np.abs(exact - np.array([[1.0], [-1.0]])).min() > 0.01  # the steps were taken
    assert np.allclose(trained("mixed_float16", steps), exact, rtol=0, atol=1e-6)
    with_infinite = [steps[0], [np.inf, 0.0], steps[1]]
    assert np.allclose(trained("mixed_float16", with_infinite), exact, rtol=0, atol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_fit_gives_a_float32_classifier(
    fitted: sl.FitResult,
    fit_settings: dict[str, Any],
    tmp_path: Path,
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_device, "_unsupported_reason", lambda _: None)
    trained_in: list[set[str]] = []

    def convert_to_float32(model: Any) -> Any:
        trained_in.append(policies(model.get_layer("backbone")))
        return _device.convert_to_float32(model)

    monkeypatch.setattr(_run, "convert_to_float32", convert_to_float32)
    fit = sl.fit(fitted.splits, **fit_settings, precision=precision)
    assert trained_in == [{precision}]
    assert fit.settings.precision == precision
    assert len(fit.history) == 3
    assert all(np.isfinite(epoch.train_loss) for epoch in fit.history[1:])
    model = fit.classifier.model
    assert policies(model) == {"float32"}
    path = tmp_path / "mixed.keras"
    fit.save(path)
    loaded = sl.load(path)
    assert policies(loaded.model) == {"float32"}
    images = photos(5)
    ours, theirs = (
        [list(p.probabilities.values()) for p in one.predict(list(images))]
        for one in (fit.classifier, loaded)
    )
    assert np.allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.nightly
@pytest.mark.intel
def test_mixed_precision_accuracy_matches_float32(
    intel: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = sl.scan(intel)
    chosen = np.random.default_rng(0).permutation(len(photos))
    few = sl.split(photos, seed=0, quarantine=[photos.paths[k] for k in chosen[600:]])
    others = chosen[600:2600]  # enough photos that two points are significant
    files = [intel / photos.paths[k] for k in others]
    truth = [photos.class_names[photos.labels[k]] for k in others]

    def accuracy(fit: sl.FitResult) -> float:
        predictions = fit.classifier.predict(files)
        return float(np.mean([p.label == name for p, name in zip(predictions, truth, strict=True)]))

    file = weights / "mobilenet_v1_0.25_224_notop.h5"
    settings: dict[str, Any] = {"weights": file, "image_px": 96, "epochs": 1}
    exact = sl.fit(few, **settings)
    monkeypatch.setattr(_device, "_unsupported_reason", lambda _: None)
    for precision in _device.PRECISIONS:
        mixed = sl.fit(few, **settings, precision=precision)
        assert mixed.settings.precision == precision
        assert (mixed.kept, mixed.stopped) == ("fine-tuned", "")
        losses = [fit.history[-1].validation_loss for fit in (mixed, exact)]
        assert losses[0] == pytest.approx(losses[1], rel=0.05)
        assert abs(accuracy(mixed) - accuracy(exact)) <= 0.02
        difference = np.abs(mixed.test_probabilities - exact.test_probabilities)
        assert difference.mean() < 0.02
        assert difference.max() > 1e-6  # the precision has an effect


# Batches that fit into memory

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
    assert predicted(4) == predicted(8) == predicted(64)  # four parts, of 16 photos each
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
