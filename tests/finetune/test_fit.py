"""`fit` on the sample scenes."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

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
from scenelearn.finetune import Epoch, FitResult, FitSettings


def test_result_has_all_fields(fitted: FitResult) -> None:
    photos = fitted.splits.photos
    assert fitted.evaluation.n_photos == len(fitted.splits.test) == len(fitted.test_indices)
    assert fitted.validation_evaluation.n_photos == len(fitted.splits.validation)
    accuracy = fitted.evaluation.accuracy
    assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
    assert fitted.classifier.class_names == photos.class_names
    assert [epoch.number for epoch in fitted.history] == [0, 1, 2]
    assert [phase.name for phase in fitted.phases] == [
        "network", "photos", "features", "linear probe", "fine-tuning", "test",
    ]  # fmt: skip
    seconds = sum(phase.seconds for phase in fitted.phases)  # all but the choice of the batch size
    assert seconds == pytest.approx(fitted.seconds, abs=1, rel=0.2)
    assert fitted.settings.epochs == 2
    assert {"keras", "backend", "device", "date", "cores", "photos"} <= set(fitted.environment)


def test_evaluation_matches_the_test_probabilities(fitted: FitResult) -> None:
    labels = fitted.splits.photos.labels[fitted.test_indices]
    right = fitted.test_probabilities.argmax(axis=1) == labels
    assert fitted.evaluation.accuracy.value == pytest.approx(right.mean())
    np.testing.assert_allclose(fitted.test_probabilities.sum(axis=1), 1, atol=1e-5)


def best(fit: FitResult) -> Epoch:
    return min(fit.history, key=lambda e: e.calibrated_loss)


def test_best_epoch_on_the_validation_photos_is_kept(fitted: FitResult) -> None:
    kept = best(fitted)
    assert fitted.kept == ("fine-tuned" if kept.number else "linear probe")
    assert fitted.validation_evaluation.accuracy.value == pytest.approx(kept.validation_accuracy)


@pytest.mark.slow
def test_linear_probe_is_restored_when_fine_tuning_diverges(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"learning_rate": 1e3})
    assert fit.history[-1].validation_accuracy < fit.history[0].validation_accuracy
    assert fit.kept == "linear probe"
    assert fit.validation_evaluation.accuracy.value == pytest.approx(
        fit.history[0].validation_accuracy
    )


class TrainedWeights(keras.callbacks.Callback):
    """The weights of the backbone after the last step, before the best ones are restored."""

    def on_train_end(self, logs: Any = None) -> None:
        backbone = self.model.get_layer("backbone")
        self.values = [np.array(keras.ops.convert_to_numpy(v)) for v in backbone.variables]


@pytest.mark.slow
def test_fine_tuning_pretrained_weights_changes_upper_layers_only(
    fitted: FitResult, weights_file: Path
) -> None:
    trained = TrainedWeights()
    fit = sl.fit(
        fitted.splits, backbone="mobilenet_0.25", weights=weights_file, image_px=64, epochs=1,
        learning_rate=1e-3, recipe={"interpolate_weights": False}, callbacks=[trained],
    )  # fmt: skip
    assert np.isfinite(fit.history[1].train_loss)
    before = sl.backbones.build("mobilenet_0.25", weights=weights_file, image_px=64)
    pairs = zip(before.variables, trained.values, strict=True)
    changed = {a.path for a, b in pairs if not np.array_equal(np.asarray(a), b)}
    # 64 px: feature maps of 4×4 and less, from conv_dw_6 (stride 16) on; no moving statistics.
    assert "conv_pw_13/kernel" in {path.split("backbone/")[-1] for path in changed}
    blocks = [int(path.split("_")[2].split("/")[0]) for path in changed if "conv_" in path]
    assert min(blocks) >= 6
    assert not any("moving_" in path for path in changed)


@pytest.mark.slow
def test_requested_epochs_ignore_the_time_budget(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": 1, "minutes": 0.001})
    assert [epoch.number for epoch in fit.history] == [0, 1]


def test_photos_instead_of_splits_raise(fitted: FitResult) -> None:
    with pytest.raises(
        ArgumentError, match=r"`splits` must come from `split`. Received: splits=<Photos"
    ):
        sl.fit(fitted.splits.photos)  # type: ignore[arg-type]


def test_temperature_scaling_lowers_the_validation_loss(fitted: FitResult) -> None:
    kept = best(fitted)
    assert fitted.validation_evaluation.log_loss <= kept.validation_loss + 1e-4


def test_json_is_strict_and_sufficient_to_repeat(fitted: FitResult) -> None:
    def reject(name: str) -> None:
        raise AssertionError(name)

    text = json.dumps(fitted.to_json(), allow_nan=False)
    value = json.loads(text, parse_constant=reject)
    again = FitSettings(**value["settings"])
    assert again == fitted.settings
    assert len(value["splits"]["train"]) == len(fitted.splits.train)
    assert value["test"][0]["path"] == fitted.splits.photos.paths[fitted.test_indices[0]]


def test_zero_epochs_keep_the_linear_probe(fitted: FitResult, fit_settings: dict[str, Any]) -> None:
    seen: list[tuple[str, int, int]] = []
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": 0}, progress=lambda *p: seen.append(p))
    assert fit.kept == "linear probe"
    assert [epoch.number for epoch in fit.history] == [0]
    assert fit.history[0].validation_loss == pytest.approx(
        fitted.history[0].validation_loss, rel=1e-5
    )
    for what in ("extracting features", "testing"):
        done = [(n, total) for name, n, total in seen if name == what]
        assert done[-1][0] == done[-1][1]


def test_too_little_time_keeps_the_linear_probe(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": None, "minutes": 0.001})
    assert fit.kept == "linear probe"
    assert "not even a tenth of an epoch fits" in fit.phases[4].note


@pytest.mark.slow
def test_photo_removed_after_the_scan_is_rejected(
    scenes: Path, tmp_path: Path, fit_settings: dict[str, Any]
) -> None:
    import shutil

    folder = shutil.copytree(scenes, tmp_path / "copy")
    splits = sl.split(sl.scan(folder))
    gone = splits.photos.paths[int(splits.train[0])]
    (folder / gone).unlink()
    fit = sl.fit(splits, **fit_settings | {"epochs": 0, "image_px": 33})
    assert [rejection.path for rejection in fit.rejected] == [gone]


@pytest.fixture
def ten_broken(scenes: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """100 photos, ten of them broken in five ways."""
    folder = tmp_path / "hundred"
    for n, file in enumerate(sorted(scenes.rglob("*.jpg"))[:: 72 // 36]):
        for k in range(3):
            if 3 * n + k < 100:
                target = folder / file.parent.name / f"{n}-{k}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes() + b"\xff\xfe\0\4%02d\xff\xd9" % k)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 100
    for k, file in enumerate(files[::10]):
        content = file.read_bytes()
        damage = [b"", b"words, no photo", content[: len(content) // 2], content[:3]]
        table = content.index(b"\xff\xc4") + 5  # intact except for its Huffman table
        damage.append(content[:table] + b"\xff" * 16 + content[table + 16 :])
        file.write_bytes(damage[k % 5])
    return folder, sorted(file.relative_to(folder).as_posix() for file in files[::10])


def test_broken_photos_are_rejected_or_raise(
    ten_broken: tuple[Path, list[str]], fit_settings: dict[str, Any]
) -> None:
    folder, broken = ten_broken
    photos = sl.scan(folder)
    assert sorted(one.path for one in sl.audit(photos).rejected) == broken
    splits = sl.split(photos)
    with pytest.raises(PhotoError, match=r"Every photo must be intact.*Received: \S+\.jpg: "):
        sl.fit(splits, **fit_settings, broken="raise")
    fit = sl.fit(splits, **fit_settings)
    assert sorted(one.path for one in fit.rejected) == broken
    assert len(splits) - (len(broken) - len(photos.rejected)) == 90


def test_damage_found_only_by_decoding_raises(
    ten_broken: tuple[Path, list[str]], fit_settings: dict[str, Any]
) -> None:
    photos = dataclasses.replace(sl.scan(ten_broken[0]), rejected=())
    with pytest.raises(PhotoError, match=r"Every photo must be intact.*damaged image"):
        sl.fit(sl.split(photos), **fit_settings, broken="raise")


@pytest.mark.slow
@pytest.mark.usefixtures("fitted")  # its programs
def test_photos_removed_during_a_run_are_rejected(
    scenes: Path,
    tmp_path: Path,
    fit_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import shutil

    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
    splits = sl.split(sl.scan(shutil.copytree(scenes, tmp_path / "copy")))
    photos = splits.photos
    lost = [photos.paths[int(k)] for k in (splits.train[3], splits.train[5], splits.test[0])]

    def lose(what: str, done: int, total: int) -> None:
        if what == "fine-tuning" and done == 1:
            (photos.folder / lost[0]).unlink(missing_ok=True)
            (photos.folder / lost[1]).write_bytes(b"not a photo")
            (photos.folder / lost[2]).unlink(missing_ok=True)

    fit = sl.fit(splits, **fit_settings, progress=lose)
    assert {one.path for one in fit.rejected} == set(lost)
    assert len(fit.history) == 3
    assert int(splits.test[0]) not in fit.test_indices.tolist()
    assert fit.evaluation.n_photos == len(splits.test) - 1
    assert len(fit.test_probabilities) == len(splits.test) - 1


@pytest.mark.slow
def test_result_without_a_cache_is_the_same(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    monkeypatch.setenv("SCENELEARN_CACHE", os.environ["SCENELEARN_CACHE"] + "/none")
    again = sl.fit(fitted.splits, **fit_settings)
    assert np.array_equal(again.test_probabilities, fitted.test_probabilities)


def test_split_without_a_decodable_photo_raises(
    scenes: Path, tmp_path: Path, fit_settings: dict[str, Any]
) -> None:
    import shutil

    folder = shutil.copytree(scenes, tmp_path / "copy")
    splits = sl.split(sl.scan(folder))
    for index in splits.test:
        splits.photos.file(int(index)).unlink()
    with pytest.raises(TooFewPhotosError, match=r"The test split must contain at least one"):
        sl.fit(splits, **fit_settings | {"image_px": 34})


def test_result_shows_itself(fitted: FitResult) -> None:
    assert repr(fitted).startswith(f"<FitResult: {fitted.kept}, test accuracy ")
    assert "\n" not in repr(fitted)
    page = str(fitted)
    for phase in fitted.phases:
        assert phase.note in page
    assert str(fitted.evaluation) in page
    assert page.count("\n") > 15
    assert fitted._repr_html_().startswith("<pre>")
    assert repr(fitted.history[1]).startswith("<Epoch 1: train loss ")
    assert repr(fitted.phases[0]).startswith("<Phase 'network': ")


def test_result_predicts_as_its_classifier(fitted: FitResult, scenes: Path) -> None:
    files = sorted((scenes / "sea").iterdir())[:3]
    expected = fitted.classifier.predict(files, coverage=0.8)
    assert [p.label for p in fitted.predict(files, coverage=0.8)] == [p.label for p in expected]
    with pytest.raises(ArgumentError, match="`coverage` must be"):
        fitted.predict(files, coverage=2.0)
    mixed = [files[0], b"not a photo"]
    assert len(fitted.predict(mixed, broken="skip")) == 1


def test_most_confused_is_that_of_the_evaluation(fitted: FitResult) -> None:
    assert fitted.most_confused() == fitted.evaluation.most_confused()
    assert len(fitted.most_confused(min_count=10**6)) == 0


def test_top_losses_are_the_least_probable_labels(fitted: FitResult, tmp_path: Path) -> None:
    grid = fitted.plot_top_losses(n=4)
    assert grid.images.shape == (1, 4, 160, 160, 3)
    (captions,) = grid.captions
    losses = [float(caption.rsplit(" ", 1)[1]) for caption in captions]
    photos, table = fitted.splits.photos, fitted.test_probabilities
    of_label = table[np.arange(len(table)), photos.labels[fitted.test_indices]]
    np.testing.assert_allclose(losses, np.sort(-np.log(of_label))[::-1][:4], atol=0.006)
    worst = int(fitted.test_indices[of_label.argmin()])
    assert captions[0].startswith(f"{photos.class_names[photos.labels[worst]]}, predicted ")
    image = sl.data.to_image(photos.read(worst), 160)
    assert np.array_equal(grid.images[0, 0], image)
    assert grid.save(tmp_path / "losses.html").is_file()
    assert fitted.plot_top_losses(n=10**6).images.shape[1] == len(table)
    with pytest.raises(ArgumentError, match="`n` must be an integer of at least 1"):
        fitted.plot_top_losses(n=0)


def test_top_losses_of_a_missing_photo(fitted: FitResult, tmp_path: Path) -> None:
    photos = dataclasses.replace(fitted.splits.photos, folder=tmp_path)
    moved = dataclasses.replace(fitted, splits=dataclasses.replace(fitted.splits, photos=photos))
    (captions,) = moved.plot_top_losses(n=2).captions
    assert all(caption.endswith("can no longer be read") for caption in captions)


@pytest.mark.nightly  # test_errors has a smaller one
def test_result_survives_pickle_and_copy(fitted: FitResult) -> None:
    for again in (pickle.loads(pickle.dumps(fitted)), copy.copy(fitted)):  # noqa: S301
        assert again.to_json() == fitted.to_json()
        assert str(again) == str(fitted)


def test_bars_are_shown_on_request_only(
    fitted: FitResult, fit_settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for verbose, shown in (("auto", False), (True, True)):
        sl.fit(fitted.splits, **fit_settings | {"epochs": 0}, verbose=verbose)
        assert ("fitting the linear probe" in capsys.readouterr().err) == shown
    with pytest.raises(ArgumentError, match="`verbose` must be one of"):
        sl.fit(fitted.splits, **fit_settings, verbose="yes")


def test_numpy_numbers_are_accepted_as_settings() -> None:
    settings = FitSettings(image_px=np.int64(64), minutes=np.float32(2), epochs=np.int32(3))  # type: ignore[arg-type]
    assert settings == FitSettings(image_px=64, minutes=2.0, epochs=3)
    assert json.loads(json.dumps(settings.to_json()))["epochs"] == 3


def test_unknown_backbone_raises(fitted: FitResult) -> None:
    with pytest.raises(UnknownBackboneError, match="Did you mean"):
        sl.fit(fitted.splits, backbone="resnet_9000")


def test_failed_download_explains_what_to_do(
    fitted: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure")  # as Keras does

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
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
def test_settings_out_of_range_raise(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"`{name}` must be .*Received: {name}="):
        FitSettings(**{name: value})


def test_evaluation_has_slices_by_image_statistics(fitted: FitResult) -> None:
    columns = {one.column for one in fitted.evaluation.slices}
    assert columns == {"brightness", "contrast", "sharpness"}


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FitSettings().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "given", ["none", "strong", Policy(rotate=3, fill=(1, 2, 3)), {"horizontal_flip": 0.5}], ids=str
)
def test_augmentation_survives_json(given: Any) -> None:
    settings = FitSettings(augmentation=given)
    plain = json.loads(json.dumps(settings.to_json(), allow_nan=False))
    assert FitSettings(**plain) == settings
    policy = given if isinstance(given, str) else augment.policy(given)
    assert settings.augmentation == policy


def test_invalid_augmentation_raises(fitted: FitResult) -> None:
    assert fitted.settings.augmentation == "standard"
    for wrong in ("heavy", None, {"turn": 3}):
        with pytest.raises(ArgumentError, match=r"policy must .*Received: "):
            sl.fit(fitted.splits, augmentation=wrong)  # type: ignore[arg-type]


def test_shape_of_photos_is_the_same_in_training_and_prediction(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for k in range(16):  # what tells the classes apart is outside the central square
        wide = random.integers(90, 110, (40, 120, 3), dtype=np.uint8)
        wide[:, :20] = wide[:, 100:] = (250, 0)[k % 2]
        file = tmp_path / "photos" / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(wide).save(file)
    splits = sl.split(sl.scan(tmp_path / "photos"), test=4, validation=4)
    fit = sl.fit(splits, weights="scenelearn", image_px=32, epochs=0, shape="squash")
    assert (fit.settings.shape, fit.classifier.shape) == ("squash", "squash")
    assert fit.evaluation.accuracy.value == 1
    tested = [fit.splits.photos.file(k) for k in fit.test_indices]
    found = fit.classifier.predict_proba(tested)
    np.testing.assert_allclose(found, fit.test_probabilities, atol=1e-5)
    assert fit.classifier.evaluate(fit.splits.photos).accuracy.value == 1


def test_other_shapes_are_errors(fitted: FitResult) -> None:
    with pytest.raises(ArgumentError, match="`shape` must be one of 'crop', 'pad', 'squash'"):
        sl.fit(fitted.splits, shape="stretch")


@pytest.mark.nightly
def test_rectangles_are_the_same_from_training_to_a_fresh_process(
    fitted: FitResult, tmp_path: Path
) -> None:
    fit = sl.fit(
        fitted.splits, weights="scenelearn", image_px=(32, 48), shape="pad", epochs=1,
        batch_size=16, augmentation="strong", recipe={"cutmix_alpha": 1},
    )  # fmt: skip
    assert fit.kept
    assert len(fit.history) == 2
    bundle = fit.save(tmp_path / "scenes.keras")
    photos = [fit.splits.photos.file(k) for k in fit.test_indices]
    code = (
        "import json, sys, scenelearn as sl\n"
        "classifier = sl.load(sys.argv[1])\n"
        "table = classifier.predict_proba(sys.argv[2:])\n"
        "print(json.dumps([classifier.image_px, classifier.shape, table.tolist()]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(bundle), *map(str, photos)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    size, shape, table = json.loads(run.stdout)
    assert (size, shape) == ([32, 48], "pad")
    np.testing.assert_allclose(table, fit.test_probabilities, atol=1e-5)
    explanation = fit.classifier.explain(photos[0])
    assert explanation.image.shape == (32, 48, 3)  # a square of 32 px between black bars
    assert not explanation.image[:, :8].any()
    assert not explanation.image[:, 40:].any()
    assert explanation.heatmap.shape == (32, 48)
    assert explanation.picture().size == (96, 32)
    sl.report(fit, tmp_path / "report")
    card = (tmp_path / "report" / "model-card.md").read_text()
    assert "| input size | 32 × 48 px |" in card
    assert "| shape of photos | pad |" in card


def test_sizes_that_are_errors(fitted: FitResult) -> None:
    for size in ((32,), (32, 16), (32, 48, 3), "32x48"):
        with pytest.raises(ArgumentError, match="`image_px` must be"):
            sl.fit(fitted.splits, image_px=size)
