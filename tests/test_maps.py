"""Kept maps of the layers that do not train: the same answers, computed once."""

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
from scenelearn.classify import outputs
from scenelearn.data import Batches, in_memory
from scenelearn.finetune import FitResult, FitSettings, Recipe, _learner, _maps, _network
from scenelearn.finetune._features import Sides
from scenelearn.finetune._learner import Learner, learner_of
from scenelearn.finetune._maps import Maps, as_pixels
from scenelearn.finetune._vary import Variation, varied
from tests.test_nothing_lost import CrashError, at, crash, same

PX, N_CLASSES = 32, 3


def network(name: str = "mobilenet_0.25", image_px: int = PX) -> tuple[Any, Any]:
    """A network of features that keeps its statistics, as from stored weights; and with a head."""
    features = sl.backbones.build(name, weights=None, image_px=image_px)
    sl.backbones.fast_on_cpu(sl.backbones.keep_statistics(features))
    return features, _network.with_blank_head(features, N_CLASSES)[0]


def photos(n: int, *, batch_size: int = 4) -> Batches:
    images = np.random.default_rng(0).integers(0, 256, (n, PX, PX, 3), dtype=np.uint8)
    return Batches(
        pixels=in_memory(images), labels=np.arange(n, dtype=np.int32) % N_CLASSES,
        indices=np.arange(n), batch_size=batch_size, seed=5,
    )  # fmt: skip


def learner(recipe: Recipe, **others: Any) -> Learner:
    features, to_logits = network()
    train = photos(10)
    settings = FitSettings(backbone="mobilenet_0.25", image_px=PX, recipe=recipe, **others)
    sides = Sides(train=train, validation=train, test=train)
    return learner_of(features, to_logits, sides, settings)


# The network in two parts


@pytest.mark.parametrize(
    "name",
    [
        "scenelearn_tiny",
        pytest.param("mobilenet_v2_0.35", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_both_parts_together_are_the_network_and_nothing_trains_below(name: str) -> None:
    features, to_logits = network(name, 64)
    rng = np.random.default_rng(1)
    dense = to_logits.get_layer("logits")
    dense.kernel.assign(rng.normal(size=dense.kernel.shape).astype(np.float32))
    for variable in features.non_trainable_variables:  # statistics that are folded into kernels
        if variable.path.endswith(("moving_mean", "moving_variance")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
    _network.choose_trained(features, 64, "coarse")
    below, above = _network.parted(features, to_logits)  # type: ignore[misc]
    assert not below.trainable_variables
    paths = {variable.path for variable in to_logits.trainable_variables}
    assert {variable.path for variable in above.trainable_variables} == paths
    images = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    expected = outputs(to_logits, [images], 8)
    found = outputs(above, [outputs(below, [images], 8)], 8)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_it_is_parted_where_few_numbers_pass_as_late_as_can_be() -> None:
    features, to_logits = network(image_px=64)
    _network.choose_trained(features, 64, "coarse")
    below, _ = _network.parted(features, to_logits)  # type: ignore[misc]
    # Block 6 makes maps of 4 by 4 and trains; its padding makes 9 by 9 of 8 by 8 before. At a
    # quarter of the width block 5 has 64 channels, and the fewest numbers, 8·8·32, pass in block 4.
    assert below.output.shape == (None, 8, 8, 64)


def test_where_maps_cross_the_network_side_by_side_none_are_kept() -> None:
    features, to_logits = network("nasnet_mobile", 64)
    _network.choose_trained(features, 64, "coarse")
    assert _network.parted(features, to_logits) is None


def test_where_several_maps_are_handed_on_it_is_not_parted() -> None:
    k = keras()
    image = k.Input((3, 3, 4))
    first = k.layers.Conv2D(4, 1, name="first")(image)
    second = k.layers.Conv2D(4, 1, name="second")(first)
    model = k.Model(image, k.layers.Add(name="sum")([first, second]))
    names = [one.name for one in model.operations]
    handed = {name: len(_network._handed_on(model, n + 1)) for n, name in enumerate(names)}
    assert [handed[name] for name in ("first", "second", "sum")] == [1, 2, 1]


@pytest.mark.parametrize("name", ["mobilenet_0.25", "mobilenet_v2_0.35"])
def test_where_only_the_head_trains_its_features_are_kept(name: str) -> None:
    features, to_logits = network(name)
    _network.choose_trained(features, PX, "head")
    below, above = _network.parted(features, to_logits)  # type: ignore[misc]
    assert below.output.shape == features.output.shape
    assert len(above.trainable_variables) == 2


@pytest.mark.parametrize("name", ["mobilenet_0.25", "efficientnet_b0"])
def test_where_all_trains_there_is_nothing_to_keep(name: str) -> None:
    features, to_logits = network(name)  # an EfficientNet has values of its own to normalize by
    _network.choose_trained(features, PX, "all")
    assert _network.parted(features, to_logits) is None


# Which fits keep maps


@pytest.mark.parametrize(
    ("recipe", "others", "n_views"),
    [
        (Recipe(), {"augmentation": "none"}, 1),
        (Recipe(views=5), {"augmentation": "none"}, 1),
        (Recipe(views=5), {}, 5),
        (Recipe(), {}, None),
        (Recipe(views=5, mixup=0.2), {}, None),
        (Recipe(views=5, cutmix=0.2), {}, None),
        (Recipe(views=5, trained="all"), {}, None),
        (Recipe(views=5), {"weights": None}, None),
    ],
)
def test_maps_are_kept_where_views_come_again_and_something_does_not_train(
    recipe: Recipe, others: dict[str, Any], n_views: int | None
) -> None:
    found = learner(recipe, **others)
    assert (found.maps is None) == (n_views is None)
    if n_views is not None:
        assert found.variation.n_views == n_views
        assert found.model.input_shape == (None, *found.maps.shape)  # type: ignore[union-attr]


def test_several_processes_compute_maps_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_learner, "process", lambda: (0, 2))
    assert learner(Recipe(views=2)).maps is None


# Views


def test_views_come_again_after_so_many_epochs() -> None:
    train = photos(4)
    how = Variation(policy=augment.policy("standard"), recipe=Recipe(views=2), n_classes=N_CLASSES)

    def seen(epoch: int) -> Any:
        ((_, (images, _)),) = varied(train, how, epoch=epoch, steps=range(1))
        return np.asarray(images)[np.argsort(train.order(epoch))]

    one, two, three = (seen(epoch) for epoch in (1, 2, 3))
    np.testing.assert_array_equal(one, three)
    assert not np.array_equal(one, two)


def test_batches_of_maps_are_what_the_layers_below_make_of_the_varied_photos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, plain = learner(Recipe(views=2)), photos(10)
    n_computed: list[int] = []

    def counted(model: Any, batches: Any, batch_size: int) -> Any:
        n_computed.append(sum(map(len, batches)))
        return outputs(model, batches, batch_size)

    monkeypatch.setattr(_maps, "outputs", counted)
    steps = range(3)
    for epoch in (1, 2, 3, 4):
        images = list(varied(plain, found.variation, epoch=epoch, steps=steps))
        maps = list(found.batches(epoch, steps))
        assert [step for step, _ in maps] == [0, 1, 2]
        for (_, (pictures, targets)), (_, (rows, labels)) in zip(images, maps, strict=True):
            expected = outputs(found.maps.below, [np.asarray(pictures)], 4)  # type: ignore[union-attr]
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, expected)  # the last batch is filled up alike
            np.testing.assert_array_equal(labels, targets)
    assert sum(n_computed) == 2 * 10


def test_a_step_alone_is_that_step_of_an_epoch() -> None:
    found = learner(Recipe(views=3))
    all_steps = dict(found.batches(1, range(3)))
    ((step, (maps, labels)),) = learner(Recipe(views=3)).batches(1, range(2, 3))
    assert step == 2
    np.testing.assert_array_equal(labels, all_steps[2][1])
    np.testing.assert_array_equal(maps, all_steps[2][0])


def test_photo_that_can_no_longer_be_read_has_maps_only_if_it_was_seen() -> None:
    features, to_logits = network()
    _network.choose_trained(features, PX, "coarse")
    below, _ = _network.parted(features, to_logits)  # type: ignore[misc]
    maps = Maps(below, n_views=1, n_photos=6, n_rows=6, batch_size=4)
    whole, lost = photos(6).pixels, {2, 4}

    def rows(indices: Any) -> Any:
        return whole.rows(indices[~np.isin(indices, list(lost))])

    poor = as_pixels(maps, replace(whole, rows=rows))
    before, there = as_pixels(maps, whole).read([1, 2, 3])
    assert there.tolist() == [1, 2, 3]
    after, there = poor.read([4, 3, 2])
    assert there.tolist() == [3, 2]
    np.testing.assert_array_equal(after, before[[2, 1]])
    assert poor.read([4])[1].tolist() == []


# The file


class _Full:
    """A file on a disk that is full after some rows."""

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
def test_full_disk_changes_nothing_but_the_time(
    short: bool, caplog: pytest.LogCaptureFixture
) -> None:
    found, other = (learner(Recipe(views=1)) for _ in range(2))
    other.maps._file = _Full(other.maps._file, 5, short=short)  # type: ignore[union-attr]
    for epoch in (1, 2):
        pairs = zip(found.batches(epoch, range(3)), other.batches(epoch, range(3)), strict=True)
        for (_, (maps, _)), (_, (same_maps, _)) in pairs:
            np.testing.assert_array_equal(maps, same_maps)
    said = [one for one in caplog.messages if one.startswith("No more maps are kept")]
    assert len(said) == 1
    assert "full" in said[0] or "No space left" in said[0]


def test_no_room_is_said_before_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    found = learner(Recipe(views=1))
    assert "are not kept but computed at each step" in caplog.text
    first, second = (dict(found.batches(1, range(3))) for _ in range(2))
    np.testing.assert_array_equal(first[0][0], second[0][0])
    assert not found.maps.are_kept(0, np.arange(10)).any()  # type: ignore[union-attr]


@pytest.mark.skipif(os.name == "nt", reason="Windows shows temporary files until they are closed")
def test_file_has_no_name_and_holds_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCENELEARN_CACHE", str(tmp_path))
        found = learner(Recipe(views=1))
        list(found.batches(1, range(3)))
        assert not [one for one in tmp_path.rglob("*") if one.is_file()]
    maps = found.maps
    assert maps is not None
    file = maps._file
    assert file.seek(0, 2) == 10 * maps.row_bytes
    del found, maps
    gc.collect()
    assert file.closed


def test_cache_that_cannot_be_written_is_said_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "file"))
    found = learner(Recipe(views=1))
    assert not found.maps.has_free_space  # type: ignore[union-attr]
    assert "are not kept but computed at each step: " in caplog.text
    assert len(list(found.batches(1, range(3)))) == 3


def test_more_views_than_epochs_take_no_more_room() -> None:
    found = learner(Recipe(views=10**9), epochs=3)
    assert found.maps.n_views == 4  # type: ignore[union-attr]  # that of timing, and three more
    assert [step for step, _ in found.batches(3, range(3))] == [0, 1, 2]


def test_views_without_maps_are_counted() -> None:
    found = learner(Recipe(views=3))
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
        "recipe": {"views": 2, "trained": "coarse"},
    }  # fmt: skip


@pytest.mark.slow
def test_fit_on_kept_maps_is_that_of_the_whole_network(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = sl.fit(fitted.splits, **settings)
    monkeypatch.setattr(_network, "parted", lambda *_: None)
    plain = sl.fit(fitted.splits, **settings)
    for one, other in zip(kept.history[1:], plain.history[1:], strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-3)
        assert one.validation_loss == pytest.approx(other.validation_loss, abs=1e-3)
    np.testing.assert_allclose(kept.test_probabilities, plain.test_probabilities, atol=1e-3)


@pytest.mark.slow
def test_fit_on_kept_maps_goes_on_to_the_bit(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sl.fit(fitted.splits, **settings)
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **settings, progress=at("fine-tuning", 6, crash))
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")  # and without room for the rest
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **settings, resume=True, progress=at("fine-tuning", 10, crash))
    monkeypatch.delenv("SCENELEARN_CACHE_GIB")
    assert same(sl.fit(fitted.splits, **settings, resume=True), expected)


@pytest.mark.slow
def test_plan_tells_of_kept_maps(
    fitted: FitResult, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = settings | {"epochs": None, "minutes": 5.0}
    plan = sl.finetune.plan(fitted.splits, **timed)
    assert "2 views of each training photo: the maps below those layers are kept" in str(plan)
    assert len(plan.course) == 40
    steps_s = plan.step_s * sum(size for size, _ in plan.course)
    assert plan.seconds["fine-tuning"] > steps_s
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    one = sl.finetune.plan(
        fitted.splits, **settings | {"recipe": {"trained": "coarse"}, "augmentation": "none"}
    )
    assert "1 view of each training photo: the maps below those layers are not kept" in str(one)


@pytest.mark.slow
def test_fit_on_kept_maps_by_the_clock(fitted: FitResult, settings: dict[str, Any]) -> None:
    fit = sl.fit(fitted.splits, **settings | {"epochs": None, "minutes": 0.4})
    assert len(fit.history) > 2
    assert fit.settings.epochs[-1][1] == 1.0  # type: ignore[index]


def test_head_alone_trains_where_no_maps_are_small_enough(
    caplog: pytest.LogCaptureFixture,
) -> None:
    features, _ = network("scenelearn_tiny", 160)
    _network.choose_trained(features, 160, "coarsest")
    assert "The head trains alone" in caplog.text
