"""A classifier that looks at the mirror image of each photo as well."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.classify import softmax, temperature
from scenelearn.errors import BundleError
from scenelearn.finetune import FitResult


@pytest.fixture(scope="module")
def mirrored(scenes: Path, fit_settings: dict[str, Any]) -> FitResult:
    splits = sl.split(sl.scan(scenes))
    return sl.fit(splits, **fit_settings, recipe={"mirrored": True})


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)


def logits_of(fit: FitResult, pixels: np.ndarray) -> np.ndarray:
    """What the backbone and the head make of images, seen once."""
    backbone, dense = (fit.classifier.model.get_layer(name) for name in ("backbone", "logits"))
    features = np.asarray(backbone.predict_on_batch(pixels.astype(np.float32) / 127.5 - 1))
    return features @ np.asarray(dense.kernel) + np.asarray(dense.bias)


def pixels_of(fit: FitResult, indices: np.ndarray) -> np.ndarray:
    return np.stack([sl.data.to_square(fit.splits.photos.read(int(k)), 32) for k in indices])


def test_answer_is_by_the_mean_of_both_logits(mirrored: FitResult) -> None:
    given = images(5)
    both = (logits_of(mirrored, given) + logits_of(mirrored, given[:, :, ::-1])) / 2
    found = mirrored.classifier.probabilities(given)
    np.testing.assert_allclose(found, softmax(both), atol=1e-5)
    assert np.abs(found - softmax(logits_of(mirrored, given))).max() > 1e-3


def test_mirror_image_has_the_same_answer_and_the_mirrored_heat(
    mirrored: FitResult, fitted: FitResult, scenes: Path
) -> None:
    photo = sl.data.to_square(sorted(scenes.glob("sea/*.jpg"))[0].read_bytes(), 32)
    one, other = (mirrored.classifier.explain(view) for view in (photo, photo[:, ::-1].copy()))
    np.testing.assert_allclose(
        list(one.prediction.probabilities.values()),
        list(other.prediction.probabilities.values()),
        atol=1e-6,
    )
    np.testing.assert_allclose(one.heat, other.heat[:, ::-1], atol=1e-5)
    assert one.heat.max() > 0
    once = [fitted.classifier.probabilities(view[None]) for view in (photo, photo[:, ::-1])]
    assert np.abs(once[0] - once[1]).max() > 1e-4


def test_training_is_the_same_and_what_follows_is_learned_from_both_views(
    mirrored: FitResult, fitted: FitResult
) -> None:
    untimed = [
        [dataclasses.replace(epoch, seconds=0.0, train_loss=0.0) for epoch in fit.history]
        for fit in (mirrored, fitted)
    ]
    assert untimed[0] == untimed[1]
    validation = pixels_of(mirrored, mirrored.splits.validation)
    labels = mirrored.splits.photos.labels[mirrored.splits.validation]
    both = (logits_of(mirrored, validation) + logits_of(mirrored, validation[:, :, ::-1])) / 2
    assert temperature(both, labels) == pytest.approx(1, abs=2e-3)  # it is in the head already
    tested = mirrored.classifier.probabilities(pixels_of(mirrored, mirrored.test_indices))
    np.testing.assert_allclose(mirrored.test_probabilities, tested, atol=1e-6)


@pytest.mark.slow
def test_saved_it_answers_alike_here_and_in_plain_keras(
    mirrored: FitResult, tmp_path: Path
) -> None:
    import keras

    bundle, given = mirrored.save(tmp_path / "scenes.keras"), images(3)
    expected = mirrored.classifier.probabilities(given)
    loaded = sl.load(bundle)
    np.testing.assert_allclose(loaded.probabilities(given), expected, atol=1e-6)
    np.testing.assert_allclose(
        keras.saving.load_model(bundle).predict_on_batch(given), expected, atol=1e-5
    )
    assert json.loads(json.dumps(mirrored.settings.to_json()))["recipe"]["mirrored"] is True


def test_network_that_mirrors_elsewhere_is_refused(mirrored: FitResult, tmp_path: Path) -> None:
    import keras

    model = mirrored.classifier.model
    x = model.get_layer("probabilities")(
        model.get_layer("logits")(
            keras.layers.Average(name="other")([model.get_layer("backbone").output] * 2)
        )
    )
    odd = keras.Model(model.get_layer("backbone").input, x)
    path = dataclasses.replace(mirrored.classifier, model=odd).save(tmp_path / "odd.keras")
    with pytest.raises(BundleError, match="a network that `fit` did not make"):
        sl.load(path)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_bundle_that_turns_photos_round_in_another_way_is_refused(
    mirrored: FitResult, tmp_path: Path, axis: int | None
) -> None:
    whole, odd = mirrored.save(tmp_path / "whole.keras"), tmp_path / "odd.keras"
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
    with pytest.raises(BundleError, match="turns photos round in another way"):
        sl.load(odd)
