"""Cached activations of frozen layers: the same results, computed once."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import augment
from scenelearn._backend import keras
from scenelearn.classify._inference import predict_images
from scenelearn.data import Batches, Pixels
from scenelearn.finetune import (
    FitResult,
    FitSettings,
    Recipe,
    _learner,
    _network,
    _training_batches,
)
from scenelearn.finetune._features import Datasets
from scenelearn.finetune._learner import Learner, build_learner
from scenelearn.finetune._training_batches import (
    ActivationCache,
    Augmentation,
    activations_as_pixels,
    augmented_batches,
)
from tests.test_interruptions import CrashError, at, crash, same

PX, N_CLASSES = 32, 3


def network(name: str = "mobilenet_0.25", image_px: int = PX) -> tuple[Any, Any]:
    """A network with frozen BatchNormalization, without and with a head."""
    features = sl.backbones.build(name, weights=None, image_px=image_px)
    sl.backbones.fast_on_cpu(sl.backbones.freeze_batchnorm(features))
    return features, _network.add_zero_head(features, N_CLASSES)[0]


def photos(n: int, *, batch_size: int = 4) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (n, PX, PX, 3), dtype=np.uint8)
    return Batches(
        pixels=Pixels.from_array(images), labels=np.arange(n, dtype=np.int32) % N_CLASSES,
        indices=np.arange(n), batch_size=batch_size, seed=5,
    )  # fmt: skip


def learner(recipe: Recipe, **others: Any) -> Learner:
    features, to_logits = network()
    train = photos(10)
    settings = FitSettings(backbone="mobilenet_0.25", image_px=PX, recipe=recipe, **others)
    datasets = Datasets(train=train, validation=train, test=train)
    return build_learner(features, to_logits, datasets, settings)


# Splitting the network


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name",
    [
        "scenelearn_tiny",
        pytest.param("mobilenet_v2_0.35", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_split_network_gives_the_same_logits(name: str) -> None:
    features, to_logits = network(name, 64)
    rng = np.random.default_rng(1)
    dense = to_logits.get_layer("logits")
    dense.kernel.assign(rng.normal(size=dense.kernel.shape).astype(np.float32))
    for variable in features.non_trainable_variables:  # these are folded into kernels
        if variable.path.endswith(("moving_mean", "moving_variance")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
    _network.freeze_layers(features, 64, "stride16")
    frozen, trained = _network.split_at_frozen(features, to_logits)  # type: ignore[misc]
    assert not frozen.trainable_variables
    paths = {variable.path for variable in to_logits.trainable_variables}
    assert {variable.path for variable in trained.trainable_variables} == paths
    images = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    expected = predict_images(to_logits, [images], 8)
    found = predict_images(trained, [predict_images(frozen, [images], 8)], 8)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_split_is_at_the_last_small_tensor() -> None:
    features, to_logits = network(image_px=64)
    _network.freeze_layers(features, 64, "stride16")
    frozen, _ = _network.split_at_frozen(features, to_logits)  # type: ignore[misc]
    # Block 6 is trained: its feature maps are 4×4, padded from 8×8 to 9×9 at its start. At a
    # quarter of the width block 5 has 64 channels; the smallest tensor, 8·8·32, is in block 4.
    assert frozen.output.shape == (None, 8, 8, 64)


@pytest.mark.nightly
def test_network_with_parallel_branches_is_not_split() -> None:
    features, to_logits = network("nasnet_mobile", 64)
    _network.freeze_layers(features, 64, "stride16")
    assert _network.split_at_frozen(features, to_logits) is None


def test_skip_connections_pass_several_tensors() -> None:
    k = keras()
    image = k.Input((3, 3, 4))
    first = k.layers.Conv2D(4, 1, name="first")(image)
    second = k.layers.Conv2D(4, 1, name="second")(first)
    model = k.Model(image, k.layers.Add(name="sum")([first, second]))
    names = [one.name for one in model.operations]
    n_passed = {
        name: len(_network._tensors_passed_on(model, n + 1)) for n, name in enumerate(names)
    }
    assert [n_passed[name] for name in ("first", "second", "sum")] == [1, 2, 1]


@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2_0.35"])
def test_split_is_below_the_head_if_only_the_head_is_trained(name: str) -> None:
    features, to_logits = network(name)
    _network.freeze_layers(features, PX, "none")
    frozen, trained = _network.split_at_frozen(features, to_logits)  # type: ignore[misc]
    assert frozen.output.shape == features.output.shape
    assert len(trained.trainable_variables) == 2


@pytest.mark.parametrize("name", ["mobilenet_0.25", "efficientnet_b0"])
def test_network_without_frozen_layers_is_not_split(name: str) -> None:
    features, to_logits = network(name)  # EfficientNet has weights for its normalization
    _network.freeze_layers(features, PX, "all")
    assert _network.split_at_frozen(features, to_logits) is None


# Which fits use a cache


@pytest.mark.parametrize(
    ("recipe", "others", "n_views"),
    [
        (Recipe(), {"augmentation": "none"}, 1),
        (Recipe(fixed_views=5), {"augmentation": "none"}, 1),
        (Recipe(fixed_views=5), {}, 5),
        (Recipe(), {}, None),
        (Recipe(fixed_views=5, mixup_alpha=0.2), {}, None),
        (Recipe(fixed_views=5, cutmix_alpha=0.2), {}, None),
        (Recipe(fixed_views=5, unfreeze="all"), {}, None),
        (Recipe(fixed_views=5), {"weights": None}, None),
    ],
)
def test_cache_requires_fixed_views_and_frozen_layers(
    recipe: Recipe, others: dict[str, Any], n_views: int | None
) -> None:
    found = learner(recipe, **others)
    assert (found.cache is None) == (n_views is None)
    if n_views is not None:
        assert found.augmentation.n_views == n_views
        assert found.model.input_shape == (None, *found.cache.shape)  # type: ignore[union-attr]


def test_several_processes_use_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_learner, "process_count", lambda: 2)
    assert learner(Recipe(fixed_views=2)).cache is None


# Fixed views


def test_views_repeat() -> None:
    train = photos(4)
    augmentation = Augmentation(
        policy=augment.policy("standard"), recipe=Recipe(fixed_views=2), n_classes=N_CLASSES
    )

    def seen(epoch: int) -> Any:
        ((_, (images, _)),) = augmented_batches(train, augmentation, epoch=epoch, steps=range(1))
        return np.asarray(images)[np.argsort(train.order(epoch))]

    one, two, three = (seen(epoch) for epoch in (1, 2, 3))
    np.testing.assert_array_equal(one, three)
    assert not np.array_equal(one, two)


@pytest.mark.nightly
def test_cached_batches_are_the_activations_of_augmented_photos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, plain = learner(Recipe(fixed_views=2)), photos(10)
    n_computed: list[int] = []

    def counted(model: Any, batches: Any, batch_size: int) -> Any:
        n_computed.append(sum(map(len, batches)))
        return predict_images(model, batches, batch_size)

    monkeypatch.setattr(_training_batches, "predict_images", counted)
    steps = range(3)
    for epoch in (1, 2, 3, 4):
        images = list(augmented_batches(plain, found.augmentation, epoch=epoch, steps=steps))
        maps = list(found.batches(epoch, steps))
        assert [step for step, _ in maps] == [0, 1, 2]
        for (_, (pictures, targets)), (_, (rows, labels)) in zip(images, maps, strict=True):
            expected = predict_images(found.cache.frozen, [np.asarray(pictures)], 4)  # type: ignore[union-attr]
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(
                rows, expected
            )  # the last batch is filled in the same way
            np.testing.assert_array_equal(labels, targets)
    assert sum(n_computed) == 2 * 10


def test_single_step_matches_the_step_of_an_epoch() -> None:
    found = learner(Recipe(fixed_views=3))
    all_steps = dict(found.batches(1, range(3)))
    ((step, (maps, labels)),) = learner(Recipe(fixed_views=3)).batches(1, range(2, 3))
    assert step == 2
    np.testing.assert_array_equal(labels, all_steps[2][1])
    np.testing.assert_array_equal(maps, all_steps[2][0])


def test_unreadable_photo_has_activations_only_if_cached() -> None:
    features, to_logits = network()
    _network.freeze_layers(features, PX, "stride16")
    frozen, _ = _network.split_at_frozen(features, to_logits)  # type: ignore[misc]
    cache = ActivationCache(frozen, n_views=1, n_photos=6, n_rows=6, batch_size=4)
    pixels, lost = photos(6).pixels, {2, 4}

    def load(indices: Any) -> Any:
        return pixels.load(indices[~np.isin(indices, list(lost))])

    incomplete = activations_as_pixels(cache, replace(pixels, load=load))
    before, there = activations_as_pixels(cache, pixels).read([1, 2, 3])
    assert there.tolist() == [1, 2, 3]
    after, there = incomplete.read([4, 3, 2])
    assert there.tolist() == [3, 2]
    np.testing.assert_array_equal(after, before[[2, 1]])
    assert incomplete.read([4])[1].tolist() == []


# The cache file


class _Full:
    """A file on a disk that becomes full after some rows."""

    def __init__(self, file: Any, n_rows: int, *, short: bool) -> None:
        self.file, self.n_rows, self.short = file, n_rows, short

    def seek(self, place: int) -> None:
        self.file.seek(place)

    def read(self, n_bytes: int) -> Any:
        return self.file.read(n_bytes)

    def write(self, content: bytes) -> int:
        if self.n_rows:
            self.n_rows -= 1
            return int(self.file.write(content))
        if self.short:
            return int(self.file.write(content[:100]))
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("short", [False, True])
def test_full_disk_does_not_change_the_batches(
    short: bool, caplog: pytest.LogCaptureFixture
) -> None:
    found, other = (learner(Recipe(fixed_views=1)) for _ in range(2))
    other.cache._file = _Full(other.cache._file, 5, short=short)  # type: ignore[union-attr]
    for epoch in (1, 2):
        pairs = zip(found.batches(epoch, range(3)), other.batches(epoch, range(3)), strict=True)
        for (_, (maps, _)), (_, (same_maps, _)) in pairs:
            np.testing.assert_array_equal(maps, same_maps)
    warnings = [one for one in caplog.messages if one.startswith("No more activations are cached")]
    assert len(warnings) == 1
    assert "full" in warnings[0] or "No space left" in warnings[0]


def test_insufficient_space_disables_the_cache(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    found = learner(Recipe(fixed_views=1))
    assert "are not cached, but computed at each step" in caplog.text
    first, second = (dict(found.batches(1, range(3))) for _ in range(2))
    np.testing.assert_array_equal(first[0][0], second[0][0])
    assert not found.cache.contains(0, np.arange(10)).any()  # type: ignore[union-attr]


@pytest.mark.skipif(os.name == "nt", reason="Windows lists temporary files until they are closed")
def test_cache_file_is_unnamed_and_closed_with_the_cache(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCENELEARN_CACHE", str(tmp_path))
        found = learner(Recipe(fixed_views=1))
        list(found.batches(1, range(3)))
        assert not [one for one in tmp_path.rglob("*") if one.is_file()]
    cache = found.cache
    assert cache is not None
    file = cache._file
    assert file.seek(0, 2) == 10 * cache.row_bytes
    del found, cache
    gc.collect()
    assert file.closed


def test_unwritable_cache_folder_disables_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "file"))
    found = learner(Recipe(fixed_views=1))
    assert not found.cache.has_space  # type: ignore[union-attr]
    assert "are not cached, but computed at each step: " in caplog.text
    assert len(list(found.batches(1, range(3)))) == 3


def test_number_of_views_is_limited_by_the_epochs() -> None:
    found = learner(Recipe(fixed_views=10**9), epochs=3)
    assert found.cache.n_views == 4  # type: ignore[union-attr]  # that of timing, and one per epoch
    assert [step for step, _ in found.batches(3, range(3))] == [0, 1, 2]


def test_uncached_views_are_counted() -> None:
    found = learner(Recipe(fixed_views=3))
    assert found.n_new_views == 3
    list(found.batches(1, range(1)))  # 4 of 10
    assert found.n_new_views == 3
    list(found.batches(1, range(1, 2)))
    assert found.n_new_views == 2
    assert learner(Recipe()).n_new_views == 0


# Fits


@pytest.fixture(scope="module")
def settings(fit_settings: dict[str, Any]) -> dict[str, Any]:
    return fit_settings | {
        "weights": "scenelearn", "epochs": 3, "batch_size": 16, "learning_rate": 1e-3,
        "recipe": {"fixed_views": 2, "unfreeze": "stride16"},
    }  # fmt: skip


@pytest.mark.nightly
def test_fit_with_cache_matches_the_whole_network(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = sl.fit(fitted.splits, **settings)
    monkeypatch.setattr(_network, "split_at_frozen", lambda *_: None)
    plain = sl.fit(fitted.splits, **settings)
    for one, other in zip(kept.history[1:], plain.history[1:], strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-3)
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=1e-3)
    np.testing.assert_allclose(kept.test_probabilities, plain.test_probabilities, atol=1e-3)


@pytest.mark.nightly
def test_resumed_fit_with_cache_is_identical(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sl.fit(fitted.splits, **settings)
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **settings, progress=at("fine-tuning", 6, crash))
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")  # and without space for the rest
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **settings, resume=True, progress=at("fine-tuning", 10, crash))
    monkeypatch.delenv("SCENELEARN_CACHE_GIB")
    assert same(sl.fit(fitted.splits, **settings, resume=True), expected)


@pytest.mark.nightly
def test_plan_mentions_the_cache(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = settings | {"epochs": None, "minutes": 5.0}
    plan = sl.finetune.plan(fitted.splits, **timed)
    assert "2 views per training photo: the activations of the frozen layers are cached" in str(
        plan
    )
    assert len(plan.schedule) == 40
    steps_s = plan.step_s * sum(size for size, _ in plan.schedule)
    assert plan.seconds["fine-tuning"] > steps_s
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    one = sl.finetune.plan(
        fitted.splits, **settings | {"recipe": {"unfreeze": "stride16"}, "augmentation": "none"}
    )
    assert "1 view per training photo: the activations of the frozen layers are not cached" in str(
        one
    )


@pytest.mark.nightly
def test_time_limited_fit_with_cache(fitted: FitResult, settings: dict[str, Any]) -> None:
    fit = sl.fit(fitted.splits, **settings | {"epochs": None, "minutes": 0.4})
    assert len(fit.history) > 2
    assert fit.settings.epochs[-1][1] == 1.0  # type: ignore[index]


def test_warning_if_no_feature_maps_are_small_enough(
    caplog: pytest.LogCaptureFixture,
) -> None:
    features, _ = network("scenelearn_tiny", 160)
    _network.freeze_layers(features, 160, "stride32")
    assert "Only the head is trained" in caplog.text
