"""The whole walk on sample scenes: what a fit promises, seen on a small one."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import augment
from scenelearn.augment import Policy
from scenelearn.errors import (
    ArgumentError,
    PhotoError,
    TooFewPhotosError,
    UnknownBackboneError,
    WeightsUnavailableError,
)
from scenelearn.finetune import Epoch, FitResult, FitSettings, Recipe
from scenelearn.finetune._vary import Variation, varied


def test_result_tells_all_that_it_promises(fitted: FitResult) -> None:
    photos = fitted.splits.photos
    assert fitted.evaluation.n_photos == len(fitted.splits.test) == len(fitted.test_indices)
    assert fitted.validation.n_photos == len(fitted.splits.validation)
    accuracy = fitted.evaluation.accuracy
    assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
    assert fitted.classifier.class_names == photos.class_names
    assert [epoch.number for epoch in fitted.history] == [0, 1, 2]
    assert [phase.name for phase in fitted.phases] == [
        "network", "photos", "features", "head", "fine-tuning", "test",
    ]  # fmt: skip
    seconds = sum(phase.seconds for phase in fitted.phases)  # all but what is sized between them
    assert seconds == pytest.approx(fitted.seconds, abs=1, rel=0.2)
    assert fitted.settings.epochs == 2
    assert {"keras", "backend", "device", "date", "cores", "photos"} <= set(fitted.environment)


def test_evaluation_is_that_of_the_test_probabilities(fitted: FitResult) -> None:
    labels = fitted.splits.photos.labels[fitted.test_indices]
    right = fitted.test_probabilities.argmax(axis=1) == labels
    assert fitted.evaluation.accuracy.value == pytest.approx(right.mean())
    np.testing.assert_allclose(fitted.test_probabilities.sum(axis=1), 1, atol=1e-5)


def best(fit: FitResult) -> Epoch:
    return min(fit.history, key=lambda e: e.calibrated_loss)


def test_best_of_head_and_epochs_by_validation_is_kept(fitted: FitResult) -> None:
    kept = best(fitted)
    assert fitted.kept == ("fine-tuned" if kept.number else "solved head")
    assert fitted.validation.accuracy.value == pytest.approx(kept.validation_accuracy)


def test_network_that_fine_tuning_spoils_is_put_back(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"learning_rate": 1e3})
    assert fit.history[-1].validation_accuracy < fit.history[0].validation_accuracy
    assert fit.kept == "solved head"
    assert fit.validation.accuracy.value == pytest.approx(fit.history[0].validation_accuracy)


@pytest.mark.slow
def test_fine_tuning_from_stored_weights_changes_upper_layers_only(
    fitted: FitResult, stored: Path
) -> None:
    fit = sl.fit(
        fitted.splits, backbone="mobilenet_0.25", weights=stored, image_px=64, epochs=1,
        learning_rate=1e-3, recipe={"interpolate": False},
    )  # fmt: skip
    assert np.isfinite(fit.history[1].train_loss)
    before = sl.backbones.build("mobilenet_0.25", weights=stored, image_px=64)
    pairs = zip(before.variables, fit.classifier.model.get_layer("backbone").variables, strict=True)
    changed = {a.path for a, b in pairs if not np.array_equal(np.asarray(a), np.asarray(b))}
    if fit.kept == "solved head":
        assert not changed
        return
    # 64 px: maps of 4×4 and less, from conv_dw_6 (stride 16) on, and no running statistics.
    assert "conv_pw_13/kernel" in {path.split("backbone/")[-1] for path in changed}
    blocks = [int(path.split("_")[2].split("/")[0]) for path in changed if "conv_" in path]
    assert min(blocks) >= 6
    assert not any("moving_" in path for path in changed)


@pytest.mark.parametrize(
    ("trained", "largest"), [("coarse", 10), ("coarsest", 5), ("all", 160), ("head", -1)]
)
def test_upper_layers_are_those_with_coarse_maps(trained: str, largest: int) -> None:
    from scenelearn.finetune._network import choose_trained

    features = sl.backbones.build("mobilenet_0.25", weights=None, image_px=160)
    choose_trained(features, 160, trained)
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
def test_what_large_maps_are_made_from_does_not_train(name: str, first: str) -> None:
    """Squeeze-and-excitation has maps of 1×1 in early blocks, too."""
    from scenelearn.finetune._network import choose_trained

    features = sl.backbones.build(name, weights=None, image_px=160)
    choose_trained(features, 160, "coarse")
    layers = [one for one in features.get_layer("backbone").layers if one.weights]
    at = [layer.name for layer in layers].index(first)
    assert not any(layer.trainable for layer in layers[:at])
    assert all(layer.trainable for layer in layers[at:])


def test_epochs_that_are_asked_for_are_made_whatever_the_time(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": 1, "minutes": 0.001})
    assert [epoch.number for epoch in fit.history] == [0, 1]


def test_photos_in_place_of_splits(fitted: FitResult) -> None:
    with pytest.raises(ArgumentError, match=r"`splits` must come from `split`. Received: Photos"):
        sl.fit(fitted.splits.photos)  # type: ignore[arg-type]


def test_temperature_lowers_the_validation_loss(fitted: FitResult) -> None:
    kept = best(fitted)
    assert fitted.validation.log_loss <= kept.validation_loss + 1e-4


def test_json_is_strict_and_says_how_to_repeat(fitted: FitResult) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = json.dumps(fitted.to_json(), allow_nan=False)
    value = json.loads(text, parse_constant=refuse)
    again = FitSettings(**value["settings"])
    assert again == fitted.settings
    assert len(value["splits"]["train"]) == len(fitted.splits.train)
    assert value["test"][0]["path"] == fitted.splits.photos.paths[fitted.test_indices[0]]


def test_same_seed_same_result(fitted: FitResult, fit_settings: dict[str, Any]) -> None:
    again = sl.fit(fitted.splits, **fit_settings)
    np.testing.assert_allclose(again.test_probabilities, fitted.test_probabilities, atol=1e-5)
    assert [e.validation_loss for e in again.history] == pytest.approx(
        [e.validation_loss for e in fitted.history], rel=1e-5
    )


def test_no_epochs_keeps_the_solved_head(fitted: FitResult, fit_settings: dict[str, Any]) -> None:
    seen: list[tuple[str, int, int]] = []
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": 0}, progress=lambda *p: seen.append(p))
    assert fit.kept == "solved head"
    assert [epoch.number for epoch in fit.history] == [0]
    assert fit.history[0].validation_loss == pytest.approx(
        fitted.history[0].validation_loss, rel=1e-5
    )
    for what in ("features", "testing"):
        done = [(n, total) for name, n, total in seen if name == what]
        assert done[-1][0] == done[-1][1]


def test_too_little_time_keeps_the_solved_head_and_says_so(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": None, "minutes": 0.001})
    assert fit.kept == "solved head"
    assert "not a tenth of an epoch fits" in fit.phases[4].note


def test_photo_that_breaks_after_the_scan_is_reported_and_the_rest_goes_on(
    scenes: Path, tmp_path: Path, fit_settings: dict[str, Any]
) -> None:
    import shutil

    folder = shutil.copytree(scenes, tmp_path / "copy")
    splits = sl.split(sl.scan(folder))
    gone = splits.photos.paths[int(splits.train[0])]
    (folder / gone).unlink()
    fit = sl.fit(splits, **fit_settings | {"epochs": 0, "image_px": 33})
    assert [refusal.path for refusal in fit.refused] == [gone]


@pytest.fixture
def ten_broken(scenes: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """100 photos, ten of them broken in ways that only three kinds of looking find."""
    folder = tmp_path / "hundred"
    for n, file in enumerate(sorted(scenes.rglob("*.jpg"))[:: 72 // 36]):
        for copy in range(3):
            if 3 * n + copy < 100:
                target = folder / file.parent.name / f"{n}-{copy}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes() + b"\xff\xfe\0\4%02d\xff\xd9" % copy)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 100
    for k, file in enumerate(files[::10]):
        content = file.read_bytes()
        damage = [b"", b"words, no photo", content[: len(content) // 2], content[:3]]
        table = content.index(b"\xff\xc4") + 5  # whole to look at, but for its code table
        damage.append(content[:table] + b"\xff" * 16 + content[table + 16 :])
        file.write_bytes(damage[k % 5])
    return folder, sorted(file.relative_to(folder).as_posix() for file in files[::10])


def test_ten_broken_of_a_hundred(
    ten_broken: tuple[Path, list[str]], fit_settings: dict[str, Any]
) -> None:
    folder, broken = ten_broken
    photos = sl.scan(folder)
    assert sorted(one.path for one in sl.audit(photos).refused) == broken
    splits = sl.split(photos)
    with pytest.raises(PhotoError, match=r"Every photo must be whole.*Received: \S+\.jpg: "):
        sl.fit(splits, **fit_settings, broken="raise")
    fit = sl.fit(splits, **fit_settings)
    assert sorted(one.path for one in fit.refused) == broken
    trained = [splits.train, splits.validation, splits.test]
    assert sum(map(len, trained)) - (len(broken) - len(photos.refused)) == 90


def test_damage_that_only_decoding_finds_also_raises(
    ten_broken: tuple[Path, list[str]], fit_settings: dict[str, Any]
) -> None:
    photos = dataclasses.replace(sl.scan(ten_broken[0]), refused=())
    with pytest.raises(PhotoError, match=r"Every photo must be whole.*damaged image"):
        sl.fit(sl.split(photos), **fit_settings, broken="raise")


@pytest.mark.slow
def test_photos_lost_during_a_run_are_reported_and_the_run_goes_on(
    scenes: Path,
    tmp_path: Path,
    fit_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import shutil

    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    splits = sl.split(sl.scan(shutil.copytree(scenes, tmp_path / "copy")))
    photos = splits.photos
    lost = [photos.paths[int(k)] for k in (splits.train[3], splits.train[5], splits.test[0])]

    def lose(what: str, done: int, total: int) -> None:
        if what == "fine-tuning" and done == 1:
            (photos.folder / lost[0]).unlink(missing_ok=True)
            (photos.folder / lost[1]).write_bytes(b"no photo any more")
            (photos.folder / lost[2]).unlink(missing_ok=True)

    settings = fit_settings | {"image_px": 35, "batch_size": 16}
    fit = sl.fit(splits, **settings, progress=lose)
    assert {one.path for one in fit.refused} == set(lost)
    assert len(fit.history) == 3
    assert int(splits.test[0]) not in fit.test_indices.tolist()
    assert fit.evaluation.n_photos == len(splits.test) - 1
    assert len(fit.test_probabilities) == len(splits.test) - 1


def test_streaming_changes_nothing_but_the_time(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    monkeypatch.setenv("SCENELEARN_CACHE", os.environ["SCENELEARN_CACHE"] + "/none")
    again = sl.fit(fitted.splits, **fit_settings)
    assert np.array_equal(again.test_probabilities, fitted.test_probabilities)


def test_side_without_a_photo_that_can_be_decoded(
    scenes: Path, tmp_path: Path, fit_settings: dict[str, Any]
) -> None:
    import shutil

    folder = shutil.copytree(scenes, tmp_path / "copy")
    splits = sl.split(sl.scan(folder))
    for index in splits.test:
        splits.photos.file(int(index)).unlink()
    with pytest.raises(TooFewPhotosError, match=r"The test photos must hold at least one"):
        sl.fit(splits, **fit_settings | {"image_px": 34})


def test_unknown_backbone(fitted: FitResult) -> None:
    with pytest.raises(UnknownBackboneError, match="Did you mean"):
        sl.fit(fitted.splits, backbone="resnet_9000")


def test_download_without_internet_says_what_to_do(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure")  # as Keras does

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", refuse)
    with pytest.raises(WeightsUnavailableError, match="weights='path/to/file"):
        sl.fit(fitted.splits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_px", 31), ("image_px", 64.0), ("minutes", 0), ("minutes", float("nan")),
        ("minutes", "5"), ("epochs", -1), ("batch_size", 0), ("learning_rate", 0.0), ("seed", -1),
        ("seed", True), ("weights", 3), ("weights", b"w.h5"),
    ],
)  # fmt: skip
def test_settings_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"`{name}` must be .*Received: {name}="):
        FitSettings(**{name: value})


def test_training_photos_that_are_kept_are_a_sample_drawn_by_the_seed() -> None:
    from scenelearn.finetune._trust import sample_of

    images = np.zeros((2600, 2, 2, 3), np.uint8)
    train = sl.data.Batches(
        pixels=sl.data.in_memory(images), labels=np.zeros(2600, np.int32),
        indices=np.arange(100, 2600), batch_size=32, seed=3,
    )  # fmt: skip
    first, again = sample_of(train), sample_of(train)
    assert first.n_photos == len(set(first.indices.tolist())) == 2000
    assert np.array_equal(first.indices, again.indices)
    assert (np.diff(first.indices) > 0).all()
    assert first.indices.min() >= 100
    other = sample_of(dataclasses.replace(train, seed=4))
    assert not np.array_equal(first.indices, other.indices)
    few = dataclasses.replace(train, indices=np.arange(7))
    assert sample_of(few).indices.tolist() == list(range(7))


def test_fit_looks_for_groups_of_test_photos(fitted: FitResult) -> None:
    columns = {one.column for one in fitted.evaluation.slices}
    assert columns == {"brightness", "contrast", "sharpness"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FitSettings().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "given", ["none", "strong", Policy(rotate=3, fill=(1, 2, 3)), {"mirror": 0.5}], ids=str
)
def test_augmentation_is_a_setting_that_a_run_is_repeated_from(given: Any) -> None:
    settings = FitSettings(augmentation=given)
    plain = json.loads(json.dumps(settings.to_json(), allow_nan=False))
    assert FitSettings(**plain) == settings
    asked = given if isinstance(given, str) else augment.policy(given)
    assert settings.augmentation == asked


def test_augmentations_that_are_none(fitted: FitResult) -> None:
    assert fitted.settings.augmentation == "standard"
    for wrong in ("heavy", None, {"turn": 3}):
        with pytest.raises(ArgumentError, match=r"policy must .*Received: "):
            sl.fit(fitted.splits, augmentation=wrong)  # type: ignore[arg-type]


def test_training_photos_are_varied_and_the_last_batch_is_filled_up() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), dtype=np.uint8)
    batches = sl.data.Batches(
        pixels=sl.data.in_memory(images),
        labels=np.arange(7, dtype=np.int32),
        indices=np.arange(7),
        batch_size=4,
        seed=5,
    )
    order = batches.order(epoch=3)
    shown = np.concatenate([order, order[4:], order[4:5]])[:8]
    for name in ("none", "standard"):
        variation = Variation(policy=augment.policy(name), recipe=Recipe(), n_classes=7)
        steps = varied(batches, variation, epoch=3, steps=range(len(batches)))
        made = [batch for _, batch in steps]
        images_made = np.concatenate([np.asarray(of) for of, _ in made])
        assert [len(labels) for _, labels in made] == [4, 4]
        assert np.array_equal(np.concatenate([labels for _, labels in made]), np.eye(7)[shown])
        expected = augment.apply(images[shown], augment.draw(name, 5, shown, epoch=3))
        assert np.array_equal(images_made, np.asarray(expected))
        assert np.array_equal(images_made, images[shown]) == (name == "none")
