"""Training on smaller images than those of the prediction."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn._backend import keras
from scenelearn.backbones._network import load_network
from scenelearn.data import Splits
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitSettings, Recipe
from scenelearn.finetune._settings import resolve_settings

TINY: dict[str, Any] = {"weights": "scenelearn", "image_px": 64, "batch_size": 16}


@pytest.fixture(scope="module")
def splits(scenes: Path) -> Splits:
    return sl.split(sl.scan(scenes))


class Positions(keras().layers.Layer):  # type: ignore[misc, name-defined]
    """Adds a vector for each position."""

    def build(self, shape: Any) -> None:
        self.embedding = self.add_weight(shape=shape[1:])

    def call(self, x: Any) -> Any:
        return x + self.embedding


def own(size: int | None, *, embeds_position: bool = False) -> Any:
    k = keras()
    image = k.Input((size, size, 3))
    x = k.layers.Conv2D(8, 3, 16, "same")(image)
    if embeds_position:
        x = Positions()(k.layers.Reshape((-1, 8))(x))
    return k.Model(image, x)


@pytest.mark.parametrize(
    ("image_px", "train_px"),
    # 5/7 of the size: 160, 182.9, 228.6, 274.3
    [(96, 96), (160, 160), (192, 160), (224, 160), (256, 192), (320, 256), (384, 288),
     ((192, 256), (192, 256))],
)  # fmt: skip
def test_default_is_five_sevenths(splits: Splits, image_px: Any, train_px: Any) -> None:
    settings = resolve_settings(
        splits, backbone="mobilenet_v2", weights="imagenet", image_px=image_px, learning_rate=None,
        recipe={"cutmix_alpha": 1}, epochs=1,
    )  # fmt: skip
    assert settings.train_px == train_px
    assert settings.recipe.cutmix_alpha == 1


@pytest.mark.parametrize(
    ("options", "train_px"),
    [
        ({"recipe": {"train_px": 128}}, 128),
        ({"recipe": Recipe(train_px=(128, 96))}, (128, 96)),
        ({"recipe": Recipe(cutmix_alpha=1)}, 160),
        ({"recipe": {"lora_rank": 4}}, 224),
        ({"epochs": 0}, 224),
        ({"weights": None}, 224),
        ({"weights": None, "recipe": {"train_px": 128}}, 224),
    ],
)
def test_size_can_be_chosen_for_pretrained_weights(
    splits: Splits, options: dict[str, Any], train_px: Any
) -> None:
    defaults = {"weights": "imagenet", "recipe": None, "epochs": 1}
    settings = resolve_settings(
        splits, backbone="mobilenet_v2", image_px=224, learning_rate=None,
        **defaults | options,
    )  # fmt: skip
    assert settings.train_px == train_px
    assert settings == FitSettings(**settings.to_json())


@pytest.mark.parametrize(("size", "image_px", "train_px"), [(None, 224, 160), (192, 192, 192)])
def test_network_for_a_fixed_size_is_trained_at_it(
    splits: Splits, size: int | None, image_px: int, train_px: int
) -> None:
    network = load_network(own(size), "tf")
    settings = resolve_settings(
        splits, network=network, backbone=None, weights="imagenet", learning_rate=None,
        recipe=None, epochs=1,
    )  # fmt: skip
    assert (settings.image_px, settings.train_px) == (image_px, train_px)


def test_network_is_trained_small_and_predicts_large(splits: Splits) -> None:
    sizes, weights = set(), []

    class Watch(keras().callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            sizes.add(self.model.input_shape[1:3])
            weights.append(self.model.get_weights())

    recipe = {"train_px": 48, "interpolate_weights": False}
    fit = sl.fit(splits, **TINY, recipe=recipe, epochs=1, callbacks=[Watch()])
    small = sl.fit(splits, **TINY | {"image_px": 48}, recipe=recipe, epochs=1)
    assert sizes == {(48, 48)}
    # Up to calibration it is the fit at 48 pixels.
    losses = [[(e.train_loss, e.validation_loss) for e in one.history] for one in (fit, small)]
    np.testing.assert_equal(*losses)
    classifier = fit.classifier
    assert classifier.image_px == 64
    assert classifier.model.input_shape == (None, 64, 64, 3)
    assert (fit.kept, small.classifier.image_px) == (small.kept, 48)
    # The same weights at 64 pixels, times 1 / temperature.
    ours, theirs = (one.model.get_weights() for one in (classifier, small.classifier))
    for one, other in zip(ours[:-2], theirs[:-2], strict=True):
        np.testing.assert_array_equal(one, other)
    ratio = ours[-2] / theirs[-2]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
    # Tested on photos of 64 pixels.
    images, indices = sl.data.decode(splits.photos, 64, verbose=False).read(fit.test_indices)
    np.testing.assert_array_equal(indices, fit.test_indices)
    np.testing.assert_allclose(classifier.predict_proba(images), fit.test_probabilities, atol=1e-5)
    again = sl.fit(splits, **fit.settings.to_json())
    np.testing.assert_array_equal(again.test_probabilities, fit.test_probabilities)


def test_photos_that_cannot_be_read_are_listed_once(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    shutil.copytree(scenes, folder)
    damaged = min(folder.glob("*/*"))
    damaged.write_bytes(damaged.read_bytes()[:-500])
    splits = sl.split(sl.scan(folder))
    sl.data.decode(splits.photos, 48, verbose=False)
    deleted = splits.photos.file(int(splits.test[0]))  # its pixels are known at 48 pixels only
    deleted.unlink()
    fit = sl.fit(splits, **TINY, recipe={"train_px": 48}, epochs=1)
    assert splits.test[0] not in fit.test_indices
    assert sorted(one.path for one in fit.rejected) == sorted(
        path.relative_to(folder).as_posix() for path in (damaged, deleted)
    )


def test_plan_states_the_sizes(splits: Splits) -> None:
    small, large = (
        sl.finetune.plan(splits, **TINY, recipe={"train_px": px}, epochs=1) for px in (48, 64)
    )
    assert "scenelearn_tiny at 48 px" in str(small)
    assert "tested at 64 px" in str(small)
    assert "tested at" not in str(large)
    assert small.training_bytes < large.training_bytes


def test_settings_that_are_errors(splits: Splits) -> None:
    with pytest.raises(ArgumentError, match="`train_px` must be an integer of at least 32"):
        Recipe(train_px=16)
    with pytest.raises(ArgumentError, match="`lora_rank` must be None with a `train_px`"):
        Recipe(train_px=160, lora_rank=4)
    with pytest.raises(ArgumentError, match=r"whose weights depend on the size .* train_px=32 for"):
        sl.fit(
            splits, backbone=own(64, embeds_position=True), preprocessing="tf",
            recipe={"train_px": 32}, epochs=1,
        )  # fmt: skip
