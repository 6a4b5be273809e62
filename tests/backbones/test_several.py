"""Several networks side by side as one backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones
from scenelearn.cli import main
from scenelearn.errors import ArgumentError, UnknownBackboneError
from tests.helpers.own_backbones import attention_network, classifier_of, convolution_network

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_features_are_those_of_each_network_side_by_side(tmp_path: Path) -> None:
    convolution, attention = convolution_network(), attention_network()
    convolution.save(tmp_path / "mine.keras")
    several = [tmp_path / "mine.keras", "scenelearn_tiny", attention]
    features = backbones.build(several, image_px=32)
    singles = [
        backbones.build(convolution, image_px=32),
        backbones.build("scenelearn_tiny", weights="scenelearn", image_px=32),
        backbones.build(attention, image_px=32),
    ]
    expected = np.concatenate([one.predict_on_batch(IMAGES) for one in singles], axis=1)
    np.testing.assert_allclose(features.predict_on_batch(IMAGES), expected, rtol=1e-4, atol=1e-4)
    assert features.count_params() == sum(one.count_params() for one in singles)


@pytest.mark.parametrize(
    ("backbone", "settings", "message"),
    [
        (["scenelearn_tiny"], {}, "at least two networks"),
        (["scenelearn_tiny", ["scenelearn_tiny"]], {}, "another list"),
        (["scenelearn_tiny"] * 2, {"preprocessing": "tf"}, "`preprocessing` must be left out"),
        (["scenelearn_tiny"] * 2, {"weights": None}, "`weights` must be left out"),
        (["scenelearn_tiny"] * 2, {"epochs": 3}, "`epochs` must be 0 or left out"),
    ],
)
def test_what_several_networks_cannot(
    backbone: Any, settings: dict[str, Any], message: str, scenes: Path
) -> None:
    splits = sl.split(sl.scan(scenes))
    for function in (sl.fit, sl.plan):
        with pytest.raises(ArgumentError, match=message):
            function(splits, backbone=backbone, **settings)


def test_unknown_name_among_several() -> None:
    with pytest.raises(UnknownBackboneError, match="'auto'"):
        backbones.build(["scenelearn_tiny", "auto"])


@pytest.mark.slow
def test_heatmap_is_the_sum_of_those_of_the_networks() -> None:
    networks = [convolution_network(), attention_network()]
    classifier, head = classifier_of(networks)
    maps = [np.asarray(n.predict_on_batch(IMAGES[:1].astype(np.float32)))[0] for n in networks]
    n_first = maps[0].shape[-1]
    column = np.random.default_rng(1).normal(size=(n_first + 8, 1)).astype(np.float32)
    head.kernel.assign(np.concatenate([column, -column], axis=1))
    # The gradient of the logit is the kernel's column, divided by the number of positions.
    first = np.maximum(maps[0] @ column[:n_first, 0], 0)
    second = np.maximum(maps[1] @ column[n_first:, 0], 0).reshape(4, 4)
    assert first.shape == second.shape
    total = keras.ops.image.resize(
        (first + second)[..., None], (32, 32), data_format="channels_last"
    )
    total = np.asarray(total)[..., 0]
    heatmap = classifier.explain(IMAGES[0], label="a").heatmap
    np.testing.assert_allclose(heatmap, total / total.max(), atol=2e-3)


@pytest.mark.slow
def test_linear_probe_on_several_networks_from_start_to_end(scenes: Path, tmp_path: Path) -> None:
    splits = sl.split(sl.scan(scenes))
    convolution_network().save(tmp_path / "mine.keras")
    backbone = ["scenelearn_tiny", str(tmp_path / "mine.keras")]
    plan = sl.plan(splits, backbone=backbone, image_px=32)
    assert plan.schedule == ()
    assert "scenelearn_tiny + " in str(plan)
    fit = sl.fit(splits, backbone=backbone, image_px=32)
    assert fit.kept == "linear probe"
    assert fit.settings.epochs == 0
    assert fit.environment["backbone"] == "scenelearn_tiny + mine.keras"
    loaded = sl.load(fit.save(tmp_path / "scenes.keras"))
    ours, theirs = (one.predict_proba(IMAGES) for one in (fit.classifier, loaded))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert loaded.explain(IMAGES[0]).heatmap.shape == (32, 32)
    repeated = sl.finetune.repeat(fit.to_json(), scenes)
    np.testing.assert_array_equal(repeated.test_probabilities, fit.test_probabilities)
    command = ["fit", str(scenes), "--backbone", backbone[0], "--backbone", backbone[1]]
    assert main([*command, "--image-px", "32", "--out", str(tmp_path / "out")]) == 0
    assert "scenelearn_tiny + mine.keras" in (tmp_path / "out/report/index.html").read_text()


def test_audit_features_of_several_networks(scenes: Path) -> None:
    photos = sl.scan(scenes)
    network = convolution_network()
    table = sl.finetune.extract_features(
        photos, backbone=["scenelearn_tiny", network], image_px=32, verbose=False
    )
    alone = sl.finetune.extract_features(photos, backbone=network, image_px=32, verbose=False)
    np.testing.assert_allclose(table[:, 768:], alone, rtol=1e-4, atol=1e-4)
