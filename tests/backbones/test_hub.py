"""Networks of KerasHub as backbones: tiny ones with random weights, from local presets."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones
from scenelearn._keras_internals import nested_layers
from scenelearn.backbones._fast._parallel import TrainStep
from scenelearn.errors import ArgumentError, MissingExtraError, WeightsUnavailableError
from tests.helpers.hub_backbones import PX, build_backbone
from tests.helpers.networks import keras
from tests.helpers.patches import set_default_coefficient

FAMILIES = (
    "ViT", "DeiT", "DINOv2", "DINOv3", "SigLIP", "ResNet", "EfficientNet", "MobileNet", "Swin",
    "CSPNet", "DenseNet", "VGG",
)  # fmt: skip
IN_PARTS = ("ViT", "DeiT", "DINOv2", "DINOv3", "SigLIP", "Swin", "VGG", "DenseNet")

# KerasHub's Swin fails where Keras infers shapes, of which Keras warns; it works all the same.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:keras.src.layers.layer")

is_installed = importlib.util.find_spec("keras_hub") is not None
needs_hub = pytest.mark.skipif(not is_installed, reason="needs KerasHub: `nox -s hub`")

_LOAD = """
import sys, numpy as np, scenelearn as sl
images = np.load(sys.argv[2])
np.save(sys.argv[3], sl.load(sys.argv[1]).predict_proba(images, verbose=False))
"""


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("keras_hub")


def save_preset(hub: Any, family: str, folder: Path) -> Any:
    """Save a tiny backbone with an image converter as a preset; return it."""
    backbone = build_backbone(family)
    backbone.save_to_preset(str(folder))
    kinds = [kind for kind in vars(hub.layers).values() if isinstance(kind, type)]
    of_family = [k for k in kinds if getattr(k, "backbone_cls", None) is type(backbone)]
    kind = (of_family or [hub.layers.ImageConverter])[0]
    kind(image_size=(PX, PX), scale=1 / 127.5, offset=-1.0).save_to_preset(str(folder))
    return backbone


@pytest.mark.skipif(is_installed, reason="KerasHub is installed")
def test_preset_without_keras_hub_says_what_to_install(tmp_path: Path) -> None:
    for preset in ("hub:dinov2_small", tmp_path):
        with pytest.raises(MissingExtraError, match=r"scenelearn\[hub\]"):
            backbones.build(preset)


@needs_hub
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_fit_save_and_load_in_a_fresh_process(
    family: str, hub: Any, scenes: Path, tmp_path: Path
) -> None:
    save_preset(hub, family, tmp_path / "preset")
    fit = sl.fit(
        sl.split(sl.scan(scenes)), backbone=str(tmp_path / "preset"), preprocessing="tf", epochs=1
    )
    px = fit.settings.image_px
    assert px == PX
    images = np.random.default_rng(0).integers(0, 256, (4, px, px, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    file, table = fit.save(tmp_path / "scenes.keras"), tmp_path / "table.npy"
    command = [sys.executable, "-c", _LOAD, str(file), str(tmp_path / "images.npy"), str(table)]
    subprocess.run(command, check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    ours = fit.classifier.predict_proba(images, verbose=False)
    np.testing.assert_allclose(ours, np.load(table), atol=1e-5)
    if family == "SigLIP":  # ends with attention pooling
        with pytest.raises(ArgumentError, match="gives a vector only"):
            fit.classifier.explain(images[0])
    else:
        assert fit.classifier.explain(images[0]).heatmap.shape == (px, px)


@needs_hub
@pytest.mark.slow
def test_vit_gives_its_tokens_with_the_preprocessing_of_its_preset(
    hub: Any, tmp_path: Path
) -> None:
    vit = save_preset(hub, "ViT", tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, PX, PX, 3), np.uint8)
    tokens = vit.predict_on_batch(images / np.float32(127.5) - 1)
    expected = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=1)
    features = backbones.build(tmp_path)
    np.testing.assert_allclose(features.predict_on_batch(images), expected, atol=1e-5)
    assert backbones.build(tmp_path, image_px=96).count_params() > features.count_params()
    with pytest.raises(ArgumentError, match=r"multiple of 16.*image_px=64 or 80"):
        backbones.build(tmp_path, image_px=70)
    with pytest.raises(ArgumentError, match="one number for a transformer"):
        backbones.build(tmp_path, image_px=(64, 96))


@needs_hub
@pytest.mark.slow
@pytest.mark.parametrize("family", ["ViT", "DINOv2"])
def test_lora_trains_matrices_of_low_rank(
    family: str, hub: Any, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_preset(hub, family, tmp_path / "preset")
    splits = sl.split(sl.scan(scenes))
    settings = {"backbone": str(tmp_path / "preset"), "preprocessing": "tf"}
    recipe = {"lora_rank": 2}
    assert "parameters are trained" in str(sl.finetune.plan(splits, **settings, recipe=recipe))
    set_default_coefficient(monkeypatch, 1.0)
    fit = sl.fit(splits, **settings, recipe=recipe, epochs=1)
    assert fit.kept == "fine-tuned"
    found = fit.classifier.model.get_layer("backbone")
    before = backbones.build(**settings).get_layer("backbone")
    n_changed = 0
    for variable, old in zip(found.variables, before.variables, strict=True):
        assert variable.path.rpartition("/")[2] == old.path.rpartition("/")[2]
        values = (keras().ops.convert_to_numpy(v) for v in (variable, old))
        change = np.subtract(*values)
        if not variable.path.endswith("kernel") or "patch" in variable.path:
            assert not change.any() or variable.path.endswith("bias")
        elif "mha" in variable.path or "attention" in variable.path:
            n_changed += change.any()
        else:
            assert np.linalg.matrix_rank(change, tol=1e-6) == 2
            n_changed += 1
    assert n_changed == 2 * 6  # in each of two blocks: query, key, value, output, and two more
    images = np.random.default_rng(0).integers(0, 256, (4, PX, PX, 3), np.uint8)
    again = sl.load(fit.save(tmp_path / "scenes.keras"))
    expected = fit.classifier.predict_proba(images, verbose=False)
    np.testing.assert_allclose(again.predict_proba(images, verbose=False), expected, atol=1e-6)


# Batches in parts


def compile_on_jax(model: Any) -> None:
    """Compile a model whose weights change by their gradients in a step."""
    if keras().backend.backend() != "jax":
        pytest.skip("the fast forms are for JAX")
    loss = keras().losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras().optimizers.SGD(1.0), loss)


def network_with_head(family: str) -> Any:
    backbone = backbones.build(build_backbone(family), preprocessing="tf")
    features = backbones.freeze_batchnorm(backbone)
    return keras().Sequential([features, keras().layers.Dense(3)])


def train_one_batch(model: Any, start: list[Any], images: Any) -> list[Any]:
    """The variables after a step from these values."""
    for variable, value in zip(model.variables, start, strict=True):
        variable.assign(value)
    model.train_on_batch(images, np.arange(len(images)) % 3)
    return [np.array(variable.value) for variable in model.variables]


@needs_hub
@pytest.mark.slow
@pytest.mark.parametrize("family", IN_PARTS)
def test_step_in_parts_equals_that_of_the_whole_batch(
    family: str, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network_with_head(family)
    for layer in nested_layers(model):
        for name in ("rate", "drop_prob"):
            if hasattr(layer, name):
                setattr(layer, name, 0.0)
    start = [np.array(variable.value) for variable in model.variables]
    images = np.random.default_rng(0).integers(0, 256, (16, PX, PX, 3), np.uint8)
    compile_on_jax(model)
    expected = train_one_batch(model, start, images)
    backbones.fast_on_cpu(model)
    compile_on_jax(model)
    found = []
    for n_threads in (1, 2):
        monkeypatch.setenv("SCENELEARN_THREADS", str(n_threads))
        found.append(train_one_batch(model, start, images))
    assert isinstance(model.train_function, TrainStep)
    assert model.train_function.program.compiled
    for one, two, whole, before in zip(*found, expected, start, strict=True):
        np.testing.assert_array_equal(one, two)
        change = np.linalg.norm((whole - before).astype(np.float64))
        assert np.linalg.norm((one - whole).astype(np.float64)) <= 1e-3 * change + 1e-5


@needs_hub
@pytest.mark.slow
def test_classifier_of_keras_hub_loses_its_head(hub: Any) -> None:
    backbone = build_backbone("ResNet")
    classifier = hub.models.ResNetImageClassifier(backbone=backbone, num_classes=7)
    features = backbones.build(classifier, preprocessing="torch", image_px=64)
    assert features.output_shape == (None, 64)


@needs_hub
@pytest.mark.slow
def test_folder_without_a_preset(hub: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="preset of KerasHub"):
        backbones.build(tmp_path)
