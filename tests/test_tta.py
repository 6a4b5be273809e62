"""Test-time augmentation by horizontal flip."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.classify._calibration import fit_temperature, softmax
from scenelearn.errors import BundleError
from scenelearn.finetune import FitResult


@pytest.fixture(scope="module")
def flipped(scenes: Path, fit_settings: dict[str, Any]) -> FitResult:
    splits = sl.split(sl.scan(scenes))
    return sl.fit(splits, **fit_settings, recipe={"tta": "hflip"})


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)


def logits_of(fit: FitResult, pixels: np.ndarray) -> np.ndarray:
    """The logits of backbone and head for one view of the images."""
    backbone, dense = (fit.classifier.model.get_layer(name) for name in ("backbone", "logits"))
    features = np.asarray(backbone.predict_on_batch(pixels.astype(np.float32) / 127.5 - 1))
    return features @ np.asarray(dense.kernel) + np.asarray(dense.bias)


def pixels_of(fit: FitResult, indices: np.ndarray) -> np.ndarray:
    return np.stack([sl.data.to_square(fit.splits.photos.read(int(k)), 32) for k in indices])


def test_prediction_averages_the_logits_of_both_views(flipped: FitResult) -> None:
    given = images(5)
    both = (logits_of(flipped, given) + logits_of(flipped, given[:, :, ::-1])) / 2
    found = flipped.classifier.predict_proba(given)
    np.testing.assert_allclose(found, softmax(both), atol=1e-5)
    assert np.abs(found - softmax(logits_of(flipped, given))).max() > 1e-3


def test_mirror_image_has_the_same_prediction_and_the_flipped_heatmap(
    flipped: FitResult, fitted: FitResult, scenes: Path
) -> None:
    photo = sl.data.to_square(sorted(scenes.glob("sea/*.jpg"))[0].read_bytes(), 32)
    one, other = (flipped.classifier.explain(view) for view in (photo, photo[:, ::-1].copy()))
    np.testing.assert_allclose(
        list(one.prediction.probabilities.values()),
        list(other.prediction.probabilities.values()),
        atol=1e-6,
    )
    np.testing.assert_allclose(one.heatmap, other.heatmap[:, ::-1], atol=1e-5)
    assert one.heatmap.max() > 0
    once = [fitted.classifier.predict_proba(view[None]) for view in (photo, photo[:, ::-1])]
    assert np.abs(once[0] - once[1]).max() > 1e-4


def test_training_is_the_same_and_calibration_uses_both_views(
    flipped: FitResult, fitted: FitResult
) -> None:
    untimed = [
        [dataclasses.replace(epoch, seconds=0.0, train_loss=0.0) for epoch in fit.history]
        for fit in (flipped, fitted)
    ]
    assert untimed[0] == untimed[1]
    validation = pixels_of(flipped, flipped.splits.validation)
    labels = flipped.splits.photos.labels[flipped.splits.validation]
    both = (logits_of(flipped, validation) + logits_of(flipped, validation[:, :, ::-1])) / 2
    assert fit_temperature(both, labels) == pytest.approx(1, abs=2e-3)  # the head includes it
    tested = flipped.classifier.predict_proba(pixels_of(flipped, flipped.test_indices))
    np.testing.assert_allclose(flipped.test_probabilities, tested, atol=1e-6)


@pytest.mark.nightly
def test_saved_bundle_predicts_the_same_here_and_in_plain_keras(
    flipped: FitResult, tmp_path: Path
) -> None:
    import keras

    bundle, given = flipped.save(tmp_path / "scenes.keras"), images(3)
    expected = flipped.classifier.predict_proba(given)
    loaded = sl.load(bundle)
    np.testing.assert_allclose(loaded.predict_proba(given), expected, atol=1e-6)
    np.testing.assert_allclose(
        keras.saving.load_model(bundle).predict_on_batch(given), expected, atol=1e-5
    )
    assert json.loads(json.dumps(flipped.settings.to_json()))["recipe"]["tta"] == "hflip"


def test_network_that_averages_elsewhere_is_rejected(flipped: FitResult, tmp_path: Path) -> None:
    import keras

    model = flipped.classifier.model
    x = model.get_layer("probabilities")(
        model.get_layer("logits")(
            keras.layers.Average(name="other")([model.get_layer("backbone").output] * 2)
        )
    )
    odd = keras.Model(model.get_layer("backbone").input, x)
    path = dataclasses.replace(flipped.classifier, model=odd).save(tmp_path / "odd.keras")
    with pytest.raises(BundleError, match="a network that `fit` did not build"):
        sl.load(path)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_bundle_that_flips_along_another_axis_is_rejected(
    flipped: FitResult, tmp_path: Path, axis: int | None
) -> None:
    whole, odd = flipped.save(tmp_path / "whole.keras"), tmp_path / "odd.keras"
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(odd, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                (flip,) = (one for one in config["config"]["layers"] if one["class_name"] == "Flip")
                assert flip["config"]["axis"] == 2
                flip["config"]["axis"] = axis
                content = json.dumps(config).encode()
            changed.writestr(name, content)
    with pytest.raises(BundleError, match="flips images other than horizontally"):
        sl.load(odd)
