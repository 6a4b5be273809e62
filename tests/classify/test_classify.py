"""Classifiers: predict, evaluate, explain, save and load."""

from __future__ import annotations

import copy
import csv
import dataclasses
import errno
import io
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

import scenelearn as sl
from scenelearn._backend import keras
from scenelearn.classify import (
    Calibration,
    Classifier,
    Prediction,
    Predictions,
    Probabilities,
    _labeled_outputs,
    _slice_columns,
    compare,
    manifest_columns,
)
from scenelearn.classify._labeled_outputs import build_calibration
from scenelearn.errors import (
    ArgumentError,
    BackendError,
    BundleError,
    ClassMismatchError,
    DiskError,
    DiskSpaceError,
    NoPhotosError,
    PathMissingError,
    PhotoError,
)
from scenelearn.finetune import FitResult
from tests.helpers.faults import faults


@pytest.fixture
def photo(scenes: Path) -> Path:
    return sorted(scenes.glob("sea/*.jpg"))[0]


@pytest.fixture
def classifier(fitted: FitResult) -> Classifier:
    return fitted.classifier


def test_paths_bytes_arrays_and_images_get_the_same_prediction(
    classifier: Classifier, photo: Path
) -> None:
    content = photo.read_bytes()
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    array = np.asarray(image)
    answers = [
        classifier.predict(photo)[0],
        classifier.predict(str(photo))[0],
        classifier.predict(content)[0],
        classifier.predict(array)[0],
        classifier.predict(array[None])[0],
        classifier.predict(image)[0],
        classifier.predict([photo, content])[1],
    ]
    for answer in answers:
        np.testing.assert_allclose(answer.probabilities, answers[0].probabilities, atol=1e-6)
    assert [a.source for a in answers[:4]] == [str(photo), str(photo), "bytes 0", "array 0"]


@pytest.mark.parametrize(("width", "tolerance"), [(250, 1e-5), (900, 5e-3)])
def test_large_photo_gets_the_same_prediction_as_path_and_as_array(
    classifier: Classifier, tmp_path: Path, width: int, tolerance: float
) -> None:
    """JPEGs of at least eight times the network's 32 px are decoded at reduced size."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    large = Image.fromarray(noise).resize((width, 2 * width // 3), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    array = np.asarray(Image.open(tmp_path / "large.jpg"))
    a, b = classifier.predict([tmp_path / "large.jpg", array])
    np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=0, atol=tolerance)


def test_prediction_has_names_and_all_probabilities(classifier: Classifier, photo: Path) -> None:
    (answer,) = classifier.predict(photo)
    assert list(answer.probabilities) == list(classifier.class_names)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert answer.probability == max(answer.probabilities.values())
    assert answer.probabilities[answer.label] == answer.probability
    assert json.loads(json.dumps(answer.to_json()))["label"] == answer.label


def test_prediction_does_not_depend_on_the_other_photos(
    classifier: Classifier, scenes: Path
) -> None:
    files = sorted(scenes.glob("*/*.jpg"))[:40]
    reports: list[tuple[str, int, int]] = []
    together = classifier.predict(files, progress=lambda *report: reports.append(report))
    alone = [classifier.predict(file)[0] for file in files[30:35]]
    for a, b in zip(together[30:35], alone, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)
    assert reports == [("predicting", 32, 40), ("predicting", 40, 40)]


def test_folder_means_its_photos_in_order(classifier: Classifier, scenes: Path) -> None:
    answers = classifier.predict(scenes / "sea")
    assert [a.source for a in answers] == [str(p) for p in sorted((scenes / "sea").iterdir())]


def test_folder_of_class_folders_means_all_its_photos(
    classifier: Classifier, scenes: Path, tmp_path: Path
) -> None:
    predictions = classifier.predict(scenes)
    files = sorted(scenes.glob("*/*.jpg"))
    assert [prediction.source for prediction in predictions] == [str(file) for file in files]
    (tmp_path / ".hidden").mkdir()
    for name in (".hidden/1.jpg", ".2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(files[0].read_bytes())
    assert [x.source for x in classifier.predict(tmp_path)] == [str(tmp_path / "3.jpg")]


@pytest.mark.parametrize("is_zipped", [False, True])
def test_scanned_photos_can_be_predicted(
    classifier: Classifier, scenes: Path, tmp_path: Path, is_zipped: bool
) -> None:
    folder = scenes
    if is_zipped:
        folder = tmp_path / "scenes.zip"
        with zipfile.ZipFile(folder, "w") as archive:
            for file in scenes.glob("s*/*.jpg"):
                archive.write(file, file.relative_to(scenes))
    photos = sl.scan(folder)[-5:]
    predictions = classifier.predict(photos)
    assert [x.source for x in predictions] == [str(photos.file(k)) for k in range(5)]
    contents = classifier.predict([photos.read(k) for k in range(5)])
    assert [x.probabilities for x in predictions] == [x.probabilities for x in contents]
    assert classifier.predict(photos[0]) == predictions[:1]
    assert classifier.predict(list(photos)) == predictions


def test_scanned_photo_that_is_gone_is_named(
    classifier: Classifier, photo: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(photo.read_bytes())
    photos = sl.scan(tmp_path)
    (tmp_path / "b" / "1.jpg").unlink()
    with pytest.raises(PhotoError, match=r"1\.jpg' cannot be read: No such file"):
        classifier.predict(photos)
    assert len(classifier.predict(photos, broken="skip")) == 1


def test_predict_proba_takes_what_predict_takes(
    classifier: Classifier, scenes: Path, photo: Path
) -> None:
    photos = sl.scan(scenes)
    table = classifier.predict_proba(photos)
    assert table.shape == (72, 6)
    assert table.dtype == np.float32
    expected = [list(x.probabilities.values()) for x in classifier.predict(photos)]
    np.testing.assert_array_equal(table, expected)
    np.testing.assert_array_equal(classifier.predict_proba(scenes), table)
    np.testing.assert_array_equal(classifier.predict_proba(photos[40:]), table[40:])
    squares = np.stack([sl.data.to_image(photos.read(k), 32) for k in range(40)])
    np.testing.assert_array_equal(classifier.predict_proba(squares), table[:40])
    np.testing.assert_array_equal(classifier.predict_proba(list(squares)), table[:40])
    reports: list[tuple[str, int, int]] = []
    with Image.open(photo) as image:
        ways: list[Any] = [photo, photo.read_bytes(), np.asarray(image), image]
        alike = classifier.predict_proba(ways, progress=lambda *report: reports.append(report))
    np.testing.assert_allclose(alike, alike[:1].repeat(4, axis=0), atol=1e-6)
    assert reports == [("predicting", 4, 4)]


@pytest.mark.slow
def test_saved_bundle_gives_the_same_probabilities_in_a_fresh_process(
    fitted: FitResult, photo: Path, tmp_path: Path
) -> None:
    bundle = fitted.save(tmp_path / "scenes.keras")
    code = (
        "import sys, json, numpy as np, scenelearn as sl; from PIL import Image\n"
        "c = sl.load(sys.argv[1]); p = sys.argv[2]\n"
        "ways = [p, open(p, 'rb').read(), np.asarray(Image.open(p).convert('RGB'))]\n"
        "print(json.dumps([a.probabilities for a in c.predict(ways)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(bundle), str(photo)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = fitted.classifier.predict(photo)[0].probabilities
    for probabilities in json.loads(run.stdout):
        assert list(probabilities) == list(expected)
        np.testing.assert_allclose(list(probabilities.values()), np.asarray(expected), atol=1e-5)


@pytest.mark.slow
def test_plain_keras_opens_the_bundle(fitted: FitResult, photo: Path, tmp_path: Path) -> None:
    import keras

    bundle = fitted.save(tmp_path / "scenes.keras")
    model = keras.saving.load_model(bundle)
    px = fitted.classifier.image_px
    image = sl.data.to_image(photo.read_bytes(), px)
    expected = fitted.classifier.predict_proba(image[None])
    np.testing.assert_allclose(model.predict_on_batch(image[None]), expected, atol=1e-5)


def test_loaded_classifier_has_the_same_metadata(fitted: FitResult, tmp_path: Path) -> None:
    loaded = sl.load(fitted.save(tmp_path / "scenes.keras"))
    assert loaded.class_names == fitted.classifier.class_names
    assert loaded.image_px == fitted.classifier.image_px
    assert loaded.metadata == fitted.environment


def test_bundle_keeps_the_shape_of_photos(fitted: FitResult, tmp_path: Path) -> None:
    wide = np.asarray(Image.open(fitted.splits.photos.file(0)))[40:100]
    images = {"pad": np.zeros((32, 32, 3), np.uint8)}  # by hand: 60 of 150 rows become 13 of 32
    images["pad"][9:22] = sl.data.to_image(Image.fromarray(wide), (13, 32), "squash")
    images["squash"] = sl.data.to_image(Image.fromarray(wide), 32, "squash")
    images["crop"] = sl.data.to_image(Image.fromarray(wide[:, 45:105]), 32)
    tables = []
    for shape, image in images.items():
        classifier = dataclasses.replace(fitted.classifier, shape=shape)
        loaded = sl.load(classifier.save(tmp_path / f"{shape}.keras"))
        assert loaded.shape == shape
        tables.append(loaded.predict_proba(wide))
        np.testing.assert_array_equal(tables[-1], classifier.predict_proba(wide))
        np.testing.assert_allclose(tables[-1], loaded.predict_proba(image), atol=1e-6)
        np.testing.assert_array_equal(loaded.explain(wide).image, image)
    assert len({table.tobytes() for table in tables}) == 3


def test_saving_replaces_and_leaves_nothing_else(fitted: FitResult, tmp_path: Path) -> None:
    for _ in range(2):
        fitted.save(tmp_path / "new" / "scenes.keras")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["scenes.keras"]


def test_save_that_fails_spares_the_old_file(
    fitted: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fitted.save(tmp_path / "scenes.keras")
    before = path.read_bytes()

    class Usage:
        free = 0

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(DiskSpaceError, match="MiB of free space"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_disk_that_fills_up_during_a_save_is_named(
    fitted: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fitted.save(tmp_path / "scenes.keras")
    before = path.read_bytes()
    for number, expected in [(errno.ENOSPC, DiskSpaceError), (errno.EIO, OSError)]:

        def fail(_: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(expected, match=r"scenes\.keras.*(No space left|Input/output)"):
            fitted.save(path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_save_that_cannot_open_its_file_again_spares_the_old_file(
    fitted: FitResult, tmp_path: Path
) -> None:
    path = fitted.save(tmp_path / "scenes.keras")
    with faults(tmp_path) as disk:
        fitted.save(path)
    before = path.read_bytes()
    opened = [k for k, call in enumerate(disk.calls) if call.kind == "open"]
    last = max(k for k in opened if disk.calls[k].path.endswith(".keras"))
    with faults(tmp_path, last, errno.EMFILE), pytest.raises(DiskError, match=r"scenes\.keras"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["scenes", "scenes.h5"])
def test_bundle_must_end_in_keras(fitted: FitResult, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match=r"must end in '\.keras'.*scenes\.keras"):
        fitted.save(tmp_path / name)


def test_evaluation_matches_classes_by_name(
    classifier: Classifier, scenes: Path, tmp_path: Path
) -> None:
    for k, name in enumerate(["street", "forest"]):
        for file in sorted((scenes / name).iterdir())[: 5 + k]:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    evaluation = classifier.evaluate(sl.scan(tmp_path))
    assert evaluation.class_names == classifier.class_names
    assert {s.label: s.n_photos for s in evaluation.per_class if s.n_photos} == {
        "forest": 6, "street": 5,
    }  # fmt: skip
    answers = [(classifier.predict(p)[0].label, p.parent.name) for p in tmp_path.glob("*/*")]
    assert evaluation.accuracy.value == pytest.approx(np.mean([a == b for a, b in answers]))


def test_evaluation_rejects_unknown_classes(
    classifier: Classifier, scenes: Path, tmp_path: Path, photo: Path
) -> None:
    for name in ("sea", "desert"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(photo.read_bytes())
    with pytest.raises(ClassMismatchError, match="Received also: desert"):
        classifier.evaluate(sl.scan(tmp_path))


def test_broken_photo_is_named(classifier: Classifier, photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "half.jpg"
    broken.write_bytes(photo.read_bytes()[:1000])
    with pytest.raises(PhotoError, match=r"half\.jpg' must be a complete JPEG.*truncated"):
        classifier.predict([photo, broken])


def test_broken_photo_can_be_skipped_with_a_warning(
    classifier: Classifier, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    answers = classifier.predict([tmp_path / "text.jpg", photo], broken="skip")
    assert [a.source for a in answers] == [str(photo)]
    assert "text.jpg" in caplog.text


def test_one_readable_photo_among_the_first_and_more_after_them(
    classifier: Classifier, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    files = [*[tmp_path / "text.jpg"] * 31, *[photo] * 3]
    assert len(classifier.predict(files, broken="skip")) == 3


def test_a_single_photo_is_predicted_like_one_of_many(classifier: Classifier, scenes: Path) -> None:
    files = sorted(scenes.rglob("*.jpg"))[:35]
    table = classifier.predict_proba(files)
    for k in (0, 20, 33):
        np.testing.assert_allclose(classifier.predict_proba(files[k])[0], table[k], atol=1e-6)


def test_path_that_does_not_exist(classifier: Classifier) -> None:
    with pytest.raises(PathMissingError, match=r"nowhere\.jpg.*Check the path"):
        classifier.predict("nowhere.jpg")


def test_nothing_to_predict(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match="at least one"):
        classifier.predict(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
    ],
)  # fmt: skip
def test_array_that_is_not_an_image(classifier: Classifier, array: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match=r"shape \(height, width, 3\) and the dtype uint8"):
        classifier.predict(array)


@pytest.mark.parametrize("thing", [3, [3], None, object()])
def test_object_that_is_not_a_photo(classifier: Classifier, thing: object) -> None:
    with pytest.raises(ArgumentError, match="`photos` must be a path, bytes, an open file"):
        classifier.predict(thing)  # type: ignore[arg-type]


def test_open_file_is_one_photo(classifier: Classifier, photo: Path) -> None:
    (expected,) = classifier.predict(photo)
    stream = io.BytesIO(photo.read_bytes())
    stream.seek(0, io.SEEK_END)  # as after writing an upload to it
    with photo.open("rb") as file:
        many = [*classifier.predict(stream), *classifier.predict(file)]
        many += classifier.predict([stream, file])
    assert [p.probabilities for p in many] == [expected.probabilities] * 4
    assert [p.source for p in many] == ["file 0", str(photo), "file 0", str(photo)]


def test_file_that_is_open_as_text_or_closed(classifier: Classifier, photo: Path) -> None:
    with photo.open("rb") as closed:
        pass
    with photo.open() as text:
        for file in (text, closed, io.StringIO("no photo")):
            with pytest.raises(ArgumentError, match=r"binary mode.*Pass open\(path, 'rb'\)"):
                classifier.predict(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [object, str])
def test_array_of_paths(classifier: Classifier, photo: Path, dtype: type) -> None:
    assert [p.source for p in classifier.predict(np.array([photo, photo], dtype))] == [
        str(photo)
    ] * 2


@pytest.mark.parametrize("path", ["", "a\0b.jpg", "x" * 300, "x" * 5000])
def test_path_that_cannot_exist(classifier: Classifier, path: str) -> None:
    with pytest.raises(ArgumentError, match="`photos` must be a path"):
        classifier.predict(path)
    with pytest.raises(ArgumentError, match="`path` must be a path"):
        sl.load(path)
    with pytest.raises(ArgumentError, match="`path` must be a path"):
        classifier.save(path)
    with pytest.raises(ArgumentError, match="`path` must be a path"):
        classifier.export(path)


@pytest.mark.parametrize("broken", [True, "ignore"])
def test_broken_that_is_not_a_choice(classifier: Classifier, photo: Path, broken: Any) -> None:
    with pytest.raises(ArgumentError, match="`broken` must be one of 'skip', 'raise'"):
        classifier.predict(photo, broken=broken)


@pytest.mark.slow
def test_several_threads_may_share_a_classifier(
    classifier: Classifier, scenes: Path, tmp_path: Path
) -> None:
    photos = sorted(scenes.glob("*/*_000[0-4].jpg")) * 4
    expected = [classifier.predict(photo)[0].probabilities for photo in photos]
    path = classifier.save(tmp_path / "scenes.keras")
    with ThreadPoolExecutor(8) as pool:
        first, *_ = pool.map(sl.load, [path] * 2)
        results = pool.map(lambda photo: first.predict(photo)[0].probabilities, photos)
        for row, other in zip(expected, results, strict=True):
            np.testing.assert_allclose(other, row, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_threads_may_mix_all_methods(classifier: Classifier, scenes: Path) -> None:
    photos = sorted(scenes.glob("*/*_000[01].jpg"))
    rows = classifier.predict_proba(photos)
    features = classifier.embed(photos)

    def work(k: int) -> None:
        photo = photos[k % len(photos)]
        row, other = rows[k % len(photos)], features[k % len(photos)]
        np.testing.assert_allclose(classifier.predict_proba(photo)[0], row, rtol=0, atol=1e-6)
        np.testing.assert_allclose(classifier.embed(photo)[0], other, rtol=1e-4, atol=1e-5)
        explanation = classifier.explain(photo, n_neighbors=2)
        assert explanation.neighbors == classifier.similar(photo, 2)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(48)))


# Names from the disk


HOSTILE = ("for\udceat", "s\x1b[2Jea", "=1+1", "<b>", "a|b", "for\u00eat")


@pytest.fixture
def hostile(fitted: FitResult) -> Classifier:
    """A classifier whose class names are not UTF-8, control a terminal, and so on."""
    return dataclasses.replace(fitted.classifier, class_names=HOSTILE)


def test_hostile_class_names_are_saved_and_shown(
    hostile: Classifier, photo: Path, tmp_path: Path
) -> None:
    loaded = sl.load(hostile.save(tmp_path / "for\udceat.keras"))
    assert loaded.class_names == HOSTILE
    prediction = dataclasses.replace(
        hostile.predict(photo)[0], label=HOSTILE[0], source="for\udceat.jpg"
    )
    predictions = Predictions([prediction])
    explanation = dataclasses.replace(hostile.explain(photo), prediction=prediction)
    assert list(predictions.to_pandas()["label"]) == [HOSTILE[0]]
    assert json.loads(json.dumps(predictions.to_json()))[0]["label"] == HOSTILE[0]
    for text in (
        str(hostile), str(predictions), repr(predictions), predictions.to_csv(),
        predictions._repr_html_(), str(explanation), repr(explanation), explanation._repr_html_(),
    ):  # fmt: skip
        assert "\x1b" not in text
        text.encode()


def test_fingerprint_of_names_that_are_not_unicode(fitted: FitResult) -> None:
    photos = fitted.splits.photos
    fingerprints = {
        sl.finetune.fingerprint(dataclasses.replace(photos, class_names=(name, *"abcde")))
        for name in ("for\udceat", "for\udcebt", "for\u00eat")
    }
    assert len(fingerprints) == 3


def test_errors_escape_class_names(hostile: Classifier, scenes: Path, photo: Path) -> None:
    with pytest.raises(ClassMismatchError) as raised:
        hostile.evaluate(sl.scan(scenes))
    assert "s\\x1b[2Jea" in str(raised.value)
    with pytest.raises(ArgumentError, match=r"s\\x1b\[2Jea.*Received: label='no'"):
        hostile.explain(photo, label="no")


def test_accents_may_be_composed_or_not(
    fitted: FitResult, scenes: Path, photo: Path, tmp_path: Path
) -> None:
    composed, decomposed = "for\u00eat", "fore\u0302t"
    names = fitted.classifier.class_names
    french = dataclasses.replace(
        fitted.classifier, class_names=tuple(composed if n == "forest" else n for n in names)
    )
    shutil.copytree(scenes / "forest", tmp_path / decomposed)
    shutil.copytree(scenes / "sea", tmp_path / "sea")
    evaluation = french.evaluate(tmp_path)
    assert {m.label: m.n_photos for m in evaluation.per_class if m.n_photos} == {
        composed: 12, "sea": 12,
    }  # fmt: skip
    assert french.explain(photo, label=decomposed).label == composed
    other = dataclasses.replace(
        french, class_names=tuple(decomposed if n == composed else n for n in french.class_names)
    )
    assert compare(french, other, tmp_path).accuracy_difference.value == 0


@pytest.mark.parametrize("columns", [3, ["a"], {"a": [1]}, {"a": [[1], [2, 3]]}])
def test_columns_that_do_not_fit(classifier: Classifier, scenes: Path, columns: Any) -> None:
    with pytest.raises(ArgumentError, match="`columns"):
        classifier.evaluate(sl.scan(scenes), columns=columns)


def test_explanation_needs_gradients(
    classifier: Classifier, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.backend.backend", lambda: "numpy")
    with pytest.raises(BackendError, match="backend with gradients"):
        classifier.explain(photo)


def test_predict_proba_of_arrays_of_any_size_but_no_other_dtype(classifier: Classifier) -> None:
    px = classifier.image_px
    assert classifier.predict_proba(np.zeros((2, 7, 9, 3), np.uint8)).shape == (2, 6)
    with pytest.raises(ArgumentError, match=r"dtype uint8, values 0-255\. Received: .*float32"):
        classifier.predict_proba(np.zeros((1, px, px, 3), np.float32))
    assert classifier.predict_proba(np.zeros((0, px, px, 3), np.uint8)).shape == (0, 6)
    with pytest.raises(NoPhotosError, match="at least one"):
        classifier.predict_proba([])


def test_progress_that_is_neither_shown_nor_hidden(classifier: Classifier, photo: Path) -> None:
    for method in (classifier.predict, classifier.predict_proba, classifier.evaluate):
        with pytest.raises(ArgumentError, match="`verbose` must be one of True, False, 'auto'"):
            method(photo, verbose="yes")


def entry_json(**fields: Any) -> str:
    """The description in a bundle without a calibration."""
    empty = {"format": 1, "shape": "crop", "metadata": {}, "arrays": {}, "neighbor_paths": []}
    return json.dumps(empty | fields)


def test_bundle_whose_class_names_do_not_match_its_network(
    fitted: FitResult, tmp_path: Path
) -> None:
    path = tmp_path / "odd.keras"
    for names, px in ((["a", "b"], 32), (list("abcdef"), 31), (list("abcdef"), True)):
        fitted.classifier.model.save(path)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("scenelearn.json", entry_json(class_names=names, image_px=px))
        with pytest.raises(BundleError, match=r"class names at|incomplete"):
            sl.load(path)


def test_name_of_a_photo_is_printed_without_its_control_characters(
    classifier: Classifier, photo: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "red\x1b[31m\nname.jpg"
    odd.write_bytes(photo.read_bytes())
    text = str(classifier.predict(odd)[0])
    assert "\\x1b[31m\\nname.jpg" in text
    assert text.isprintable()


def test_bundle_that_does_not_exist() -> None:
    with pytest.raises(PathMissingError, match=r"nowhere\.keras"):
        sl.load("nowhere.keras")


def test_files_that_are_not_bundles(fitted: FitResult, tmp_path: Path) -> None:
    whole = fitted.save(tmp_path / "scenes.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "empty.keras").write_bytes(b"")
    fitted.classifier.model.save(tmp_path / "plain.keras")
    for name in ("half", "text", "empty", "plain"):
        with pytest.raises(BundleError, match=rf"{name}\.keras' must be a complete file"):
            sl.load(tmp_path / f"{name}.keras")


def test_bundle_with_absurd_entries_is_rejected_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scenelearn.json", json.dumps({"format": 1}))
        archive.writestr("config.json", b" " * (17 * 2**20))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"")
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="larger than those of any classifier"):
        sl.load(path)


@pytest.mark.parametrize(
    "about",
    ["[]", "{}", '{"format": 3}', '{"format": 1, "class_names": [3], "image_px": 3}'],
)
def test_bundle_with_a_nonsensical_description(
    fitted: FitResult, tmp_path: Path, about: str
) -> None:
    path = tmp_path / "odd.keras"
    fitted.classifier.model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("scenelearn.json", about)
    with pytest.raises(BundleError, match="incomplete or from another version"):
        sl.load(path)


def test_code_in_a_bundle_is_not_run(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Lambda(lambda x: x + 1)])
    path = tmp_path / "lambda.keras"
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("scenelearn.json", entry_json(class_names=["a", "b"], image_px=4))
    with pytest.raises(BundleError, match="Lambda"):
        sl.load(path)


def test_exif_orientation_is_applied_to_every_kind_of_input(
    classifier: Classifier, photo: Path
) -> None:
    with Image.open(photo) as opened:
        upright = opened.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° clockwise
    stored = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(stored, "PNG", exif=exif)
    ways: list[Any] = [np.asarray(upright), stored.getvalue(), Image.open(stored)]
    first, *others = classifier.predict(ways)
    for other in others:
        np.testing.assert_allclose(other.probabilities, first.probabilities, atol=1e-5)


def test_pillow_image_of_a_truncated_file_is_rejected_like_the_file(
    classifier: Classifier, photo: Path
) -> None:
    cut = Image.open(io.BytesIO(photo.read_bytes()[:2000]))
    with pytest.raises(PhotoError, match=r"'image 0' must be a complete JPEG"):
        classifier.predict(cut)
    whole = Image.open(photo)
    assert (
        len(
            classifier.predict(
                [Image.open(io.BytesIO(photo.read_bytes()[:2000])), whole], broken="skip"
            )
        )
        == 1
    )


# Prediction sets, p-values, abstention


@pytest.fixture(scope="session")
def sure(scenes: Path, fit_settings: dict[str, Any]) -> FitResult:
    """A fit with enough validation photos for a coverage of 90% and for flags."""
    splits = sl.split(sl.scan(scenes), validation=0.5, test=0.2, seed=1)
    return sl.fit(splits, **fit_settings | {"epochs": 0, "image_px": 48})


def prediction_sets(scores: Any, probabilities: Any, coverage: float) -> np.ndarray:
    """Prediction sets by validation photos of these scores."""
    calibration = Calibration(
        conformal_scores=np.asarray(scores),
        ood_detector=None,  # type: ignore[arg-type]
        neighbor_index=None,  # type: ignore[arg-type]
    )
    return calibration.prediction_sets(probabilities, coverage)


def test_threshold_is_the_quantile_of_one_photo_more() -> None:
    scores = np.arange(1, 100) / 128

    def n_in_set(n: int, coverage: float) -> int:
        p = [1.0, *(1 - scores), 0.0]  # the first is in each set
        return int(prediction_sets(scores[:n], [p], coverage).sum()) - 1

    for percent in (1, 37, 50, 90, 95, 99):
        assert n_in_set(99, percent / 100) == percent  # (99 + 1) · coverage
    assert n_in_set(9, 0.9) == 9
    assert n_in_set(99, 0.995) == n_in_set(8, 0.9) == 100  # all classes


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 95, float("nan"), "0.9", True])
def test_coverage_out_of_range(classifier: Classifier, photo: Path, coverage: Any) -> None:
    with pytest.raises(ArgumentError, match=r"`coverage` must be a number between 0 and 1"):
        prediction_sets(np.zeros(3), [[1.0, 0.0]], coverage)
    with pytest.raises(ArgumentError, match=r"`coverage` must be a number between 0 and 1"):
        classifier.predict(photo, coverage=coverage)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [20, 200])
def test_prediction_sets_reach_their_coverage_whatever_the_network(coverage: float, n: int) -> None:
    random = np.random.default_rng(0)
    held = []
    for _ in range(400):
        logits = random.normal(size=(n + 100, 5)) * 2
        labels = (logits / 3 + random.gumbel(size=logits.shape)).argmax(axis=1)  # overconfident
        p = softmax(logits, axis=1)
        sets = prediction_sets(np.sort(1 - p[np.arange(n), labels[:n]]), p[n:], coverage)
        held.append(sets[np.arange(100), labels[n:]].mean())
    error = 4 * np.std(held) / 20
    assert np.mean(held) > coverage - error
    if n == 200:  # and hardly more than it: 1/(n + 1)
        assert np.mean(held) < coverage + 1 / (n + 1) + error


def test_prediction_set_has_the_most_probable_class_and_others_up_to_the_threshold() -> None:
    p = [[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [0.98, 0.01, 0.01]]
    assert prediction_sets([0.75], p, 0.5).tolist() == [
        [True, True, False], [True, True, True], [True, False, False],
    ]  # fmt: skip
    assert prediction_sets([0.0], p, 0.5).sum(axis=1).tolist() == [1, 1, 1]
    assert prediction_sets([0.0], p, 0.9).all()


def test_prediction_has_its_set_p_value_and_abstention(sure: FitResult, scenes: Path) -> None:
    calibration = sure.classifier.calibration
    assert calibration is not None
    assert len(calibration.conformal_scores) == len(sure.splits.validation)
    answers = sure.classifier.predict(scenes / "forest", coverage=0.9)
    n = len(calibration.conformal_scores)
    threshold = np.sort(calibration.conformal_scores)[math.ceil(0.9 * (n + 1)) - 1]
    assert 0 < threshold < 1
    for answer in answers:
        inside = {name for name, p in answer.probabilities.items() if 1 - p <= threshold}
        assert set(answer.prediction_set) == inside | {answer.label}
        assert answer.prediction_set[0] == answer.label
        shares = [answer.probabilities[name] for name in answer.prediction_set]
        assert shares == sorted(shares, reverse=True)
        assert answer.coverage == 0.9
        assert answer.ood_p_value is not None
        assert answer.is_ood == (answer.ood_p_value <= 0.03)
        assert answer.abstains == (len(answer.prediction_set) > 1 or answer.is_ood)
        assert json.loads(json.dumps(answer.to_json()))["prediction_set"] == list(
            answer.prediction_set
        )
    narrow, wide = (sure.classifier.predict(scenes / "sea", coverage=c) for c in (0.5, 0.9))
    assert sum(len(a.prediction_set) for a in narrow) < sum(len(a.prediction_set) for a in wide)


def test_photo_that_scores_above_97_of_100_is_out_of_distribution(
    sure: FitResult, photo: Path
) -> None:
    calibration = sure.classifier.calibration
    assert calibration is not None

    def among(scores: list[float]) -> Prediction:
        sorted_scores = np.array(scores, np.float32)
        known = dataclasses.replace(calibration.ood_detector, scores=sorted_scores)
        told = dataclasses.replace(
            sure.classifier, calibration=dataclasses.replace(calibration, ood_detector=known)
        )
        return told.predict(photo, coverage=0.5)[0]

    unlike = among([-1e9] * 40)  # all lower than this photo: (0 + 1) / (40 + 1)
    assert unlike.ood_p_value == pytest.approx(1 / 41)
    assert unlike.is_ood
    assert unlike.abstains
    assert "unlike the training photos" in str(unlike)
    like = among([-1e9] * 40 + [1e9])
    assert like.ood_p_value == pytest.approx(2 / 42)
    assert not like.is_ood
    few = among([-1e9] * 30)
    assert not few.is_ood  # the highest of 31 is nothing unusual


@pytest.mark.parametrize("n", [18, 19, 32, 33])
def test_too_few_validation_photos_are_named(
    sure: FitResult, caplog: pytest.LogCaptureFixture, n: int
) -> None:
    random = np.random.default_rng(0)

    def outputs_of(n_photos: int) -> Any:
        features, ood_features = (random.random((n_photos, k), np.float32) for k in (8, 4))
        return SimpleNamespace(
            outputs=SimpleNamespace(features=features, ood_features=ood_features),
            labels=np.arange(n_photos) % 6,
            indices=np.arange(n_photos),
        )

    validation = outputs_of(n)
    found = build_calibration(
        sure.splits.photos, outputs_of(60), validation, random.dirichlet(np.ones(6), n)
    )
    assert found.detects_ood == (n >= 33)
    assert found.guarantees(0.95) == (n >= 19)
    assert found.guarantees(0.5)
    assert ("are not detected" in caplog.text) == (n < 33)
    assert ("has all classes" in caplog.text) == (n < 19)
    far = SimpleNamespace(features=np.ones((1, 8)), ood_features=np.full((1, 4), 99.0))
    assert found.ood_p_values(far)[0] == pytest.approx(1 / (n + 1))  # type: ignore[arg-type]
    assert bool(found.is_ood(far)[0]) == (n >= 33)  # type: ignore[arg-type]


def test_fit_evaluates_prediction_sets_on_the_test_photos(sure: FitResult) -> None:
    found, calibration = sure.evaluation.selective, sure.classifier.calibration
    assert found is not None
    assert calibration is not None
    labels = sure.splits.photos.labels[sure.test_indices]
    sets = calibration.prediction_sets(sure.test_probabilities, 0.95)
    assert found.coverage.value == pytest.approx(sets[np.arange(len(sets)), labels].mean())
    assert found.mean_set_size == pytest.approx(sets.sum(axis=1).mean())
    single = sets.sum(axis=1) == 1
    assert found.answer_rate.value <= single.mean()
    assert json.loads(json.dumps(sure.to_json(), allow_nan=False))["evaluation"]["selective"]


def test_saved_calibration_gives_the_same_predictions(
    sure: FitResult, scenes: Path, tmp_path: Path
) -> None:
    loaded = sl.load(sure.save(tmp_path / "scenes.keras"))
    a, b = (c.predict(scenes / "street", coverage=0.8) for c in (sure.classifier, loaded))
    assert [x.prediction_set for x in a] == [x.prediction_set for x in b]
    assert [x.ood_p_value for x in a] == [x.ood_p_value for x in b]
    nearest = [c.explain(scenes / "sea" / sorted((scenes / "sea").iterdir())[0].name).neighbors
               for c in (sure.classifier, loaded)]  # fmt: skip
    assert nearest[0] == nearest[1]
    with zipfile.ZipFile(tmp_path / "scenes.keras") as archive:
        assert not [name for name in archive.namelist() if name.endswith((".npy", ".pkl"))]


def test_classifier_without_calibration(
    fitted: FitResult, photo: Path, scenes: Path, tmp_path: Path
) -> None:
    bare = dataclasses.replace(fitted.classifier, calibration=None)
    for classifier in (bare, sl.load(bare.save(tmp_path / "bare.keras"))):
        assert classifier.calibration is None
        (answer,) = classifier.predict(photo)
        (expected,) = fitted.classifier.predict(photo)
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-6)
        assert (answer.prediction_set, answer.coverage) == ((answer.label,), None)
        assert answer.ood_p_value is None
        assert not answer.abstains
        assert classifier.explain(photo).neighbors == ()
        assert classifier.evaluate(scenes).selective is None
        with pytest.raises(ArgumentError, match=r"`coverage` needs a classifier .*fit again"):
            classifier.predict(photo, coverage=0.9)


def rewritten(path: Path, change: dict[str, Any], arrays: dict[str, bytes]) -> Path:
    """The same bundle with other values in its description, and other bytes in its arrays."""
    target = path.with_name("changed.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == "scenelearn.json":
                content = json.dumps(json.loads(content) | change).encode()
            new.writestr(entry, arrays.get(entry, content))
    return target


@pytest.mark.parametrize(
    ("change", "arrays"),
    [
        ({}, {"scenelearn/conformal_scores": b"123"}),
        ({}, {"scenelearn/ood_spreads": b"\xff" * 8}),
        ({}, {"scenelearn/ood_spreads": b"\0" * 8}),
        ({"arrays": {"ood_scores": {"dtype": "|O", "shape": [3]}}}, {}),
        ({"arrays": {"ood_scores": {"dtype": "<f4", "shape": [2**60, 2**60]}}}, {}),
        ({"arrays": {"ood_scores": {"dtype": "<f4", "shape": [-1]}}}, {}),
        ({"arrays": {"../../x": {"dtype": "<f4", "shape": [1]}}}, {}),
        ({"arrays": {"ood_scores": {"dtype": "<f4"}}}, {}),
        ({"arrays": [1]}, {}),
        ({"neighbor_paths": ["a"]}, {}),
        ({"neighbor_paths": 3}, {}),
    ],
)
def test_nonsensical_arrays_are_rejected(
    fitted: FitResult, tmp_path: Path, change: dict[str, Any], arrays: dict[str, bytes]
) -> None:
    path = rewritten(fitted.save(tmp_path / "scenes.keras"), change, arrays)
    with pytest.raises(BundleError, match="must be a complete file"):
        sl.load(path)


def test_labels_of_the_neighbor_index_must_be_classes(fitted: FitResult, tmp_path: Path) -> None:
    calibration = fitted.classifier.calibration
    assert calibration is not None
    labels = np.full(len(calibration.neighbor_index.labels), 6, "<i4").tobytes()
    path = rewritten(fitted.save(tmp_path / "a.keras"), {}, {"scenelearn/neighbor_labels": labels})
    with pytest.raises(BundleError, match="do not match each other"):
        sl.load(path)


def test_network_that_fit_did_not_build_is_rejected(tmp_path: Path) -> None:
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.GlobalAveragePooling2D()])
    path = tmp_path / "own.keras"
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("scenelearn.json", entry_json(class_names=["a", "b", "c"], image_px=8))
    with pytest.raises(BundleError, match="a network that `fit` did not build"):
        sl.load(path)


# Streams and patterns


def test_pattern_means_its_matches_in_order(classifier: Classifier, scenes: Path) -> None:
    answers = classifier.predict(f"{scenes}/s*/*.jpg")
    expected = sorted([*scenes.glob("sea/*.jpg"), *scenes.glob("street/*.jpg")])
    assert [a.source for a in answers] == [str(path) for path in expected]
    with pytest.raises(PathMissingError, match=r"a pattern that matches photos.*\*\.bmp'"):
        classifier.predict(f"{scenes}/*/*.bmp")


def test_file_whose_name_looks_like_a_pattern_is_that_file(
    classifier: Classifier, photo: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "[ab]*.jpg"
    odd.write_bytes(photo.read_bytes())
    (tmp_path / "a.jpg").write_bytes(photo.read_bytes())
    assert [a.source for a in classifier.predict(odd)] == [str(odd)]


def test_generator_is_read_one_batch_ahead(
    classifier: Classifier, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_THREADS", "2")  # a batch has two parts
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield photo.read_bytes()

    reports: list[tuple[str, int, int]] = []
    stream = classifier.stream(endless(), progress=lambda *report: reports.append(report))
    first = [next(stream) for _ in range(33)]
    assert taken == 64
    assert reports == [("predicting", 32, 0)]
    assert len({answer.source for answer in first}) == 33


@pytest.mark.slow
def test_thousands_of_photos_need_the_memory_of_a_batch(classifier: Classifier) -> None:
    import tracemalloc

    random = np.random.default_rng(0)

    def peak(n: int) -> int:
        images = (random.integers(0, 256, (64, 64, 3)).astype(np.uint8) for _ in range(n))
        tracemalloc.start()
        assert sum(1 for _ in classifier.stream(images)) == n
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(64)  # compiled
    assert peak(640) - peak(64) < 1e6  # for 7 MB more of images


@pytest.mark.skipif(keras().backend.backend() != "jax", reason="the fast forms are for JAX")
def test_many_cores_predict_several_batches_at_once(
    classifier: Classifier, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    files = [*sorted(scenes.rglob("*.jpg"))[:70], tmp_path / "text.jpg"]
    expected = classifier.predict(files[:-1])
    monkeypatch.setenv("SCENELEARN_THREADS", "4")
    reports: list[tuple[str, int, int]] = []
    stream = classifier.stream(files, broken="skip", progress=lambda *one: reports.append(one))
    assert list(stream) == expected
    assert [done for _, done, _ in reports] == [64, 71]


def test_empty_stream(classifier: Classifier) -> None:
    with pytest.raises(NoPhotosError, match="at least one"):
        list(classifier.stream(iter(())))


# Evaluation


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """1,003 small images of the six classes: sample scenes with one pixel changed."""
    folder = tmp_path_factory.mktemp("many")
    for n in range(1003):
        files = sorted(scenes.glob("*/*.jpg"))
        file = files[n % len(files)]
        with Image.open(file) as image:
            small = image.resize((40, 32))
        small.putpixel((n % 40, n // 40), (255, 0, 255))
        target = folder / file.parent.name / f"{n:04}.png"
        target.parent.mkdir(exist_ok=True)
        small.save(target)
    return folder


@pytest.mark.nightly
def test_batch_size_order_and_file_names_change_no_metric(
    classifier: Classifier, many: Path, tmp_path: Path
) -> None:
    photos = sl.scan(many)
    assert len(photos) == 1003
    reference = classifier.evaluate(photos).to_json()
    mixed = tmp_path / "renamed"
    for n, k in enumerate(np.random.default_rng(0).permutation(1003)):
        target = mixed / photos.class_names[photos.labels[k]] / f"{n:04}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photos.read(int(k)))
    others = [(sl.scan(mixed), 32), *((photos, size) for size in (7, 100, 1003))]
    for other, batch_size in others:
        found = classifier.evaluate(other, batch_size=batch_size).to_json()
        assert found["confusion_matrix"] == reference["confusion_matrix"]
        assert flat(found) == pytest.approx(flat(reference), abs=1e-6)


def flat(value: Any) -> list[float]:
    """All numbers in a JSON value, in order."""
    if isinstance(value, dict):
        return [number for one in value.values() for number in flat(one)]
    if isinstance(value, list):
        return [number for one in value for number in flat(one)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.slow
def test_evaluation_equals_a_numpy_computation(classifier: Classifier, many: Path) -> None:
    photos = sl.scan(many)
    found = classifier.evaluate(photos)
    images = np.stack([sl.data.to_image(photos.read(k), 32) for k in range(len(photos))])
    p = np.asarray(classifier.model.predict(images, batch_size=64, verbose=0), np.float64)
    own = p[np.arange(1003), photos.labels]
    assert found.accuracy.value == (p.argmax(axis=1) == photos.labels).mean()
    assert found.log_loss == pytest.approx(-np.log(own).mean(), abs=1e-6)
    one_hot = np.eye(6)[photos.labels]
    assert found.brier_score == pytest.approx(((p - one_hot) ** 2).sum(axis=1).mean(), abs=1e-6)


def test_evaluation_finds_slices(classifier: Classifier, scenes: Path, tmp_path: Path) -> None:
    photos = sl.scan(scenes)
    names = ["even" if k % 2 else "odd" for k in range(len(photos))]
    found = classifier.evaluate(photos, columns={"parity": names})
    columns = {one.column for one in found.slices}
    assert {"brightness", "contrast", "sharpness", "parity"} <= columns
    gray = [np.asarray(Image.fromarray(sl.data.to_image(photos.read(k), 32)).convert("L")).mean()
            for k in range(len(photos))]  # fmt: skip
    groups = [one for one in found.slices if one.column == "brightness"]
    highest = max(groups, key=lambda one: float(one.group.split(" to ")[0]))
    assert float(highest.group.split(" to ")[1]) == pytest.approx(max(gray), abs=1)
    assert "class" in str(found)
    with pytest.raises(ArgumentError, match=r"`columns\['x'\]` must have one value for each"):
        classifier.evaluate(photos, columns={"x": [1]})


def test_evaluation_of_a_folder_is_that_of_its_scan(classifier: Classifier, scenes: Path) -> None:
    expected = classifier.evaluate(sl.scan(scenes)).to_json()
    reports: list[tuple[str, int, int]] = []
    found = classifier.evaluate(scenes, progress=lambda *report: reports.append(report))
    assert found.to_json() == expected
    assert {"scanning photos", "predicting"} <= {what for what, _, _ in reports}
    assert reports[-1] == ("predicting", 72, 72)
    for wrong in (3, [scenes], None):
        with pytest.raises(ArgumentError, match="`photos` must be the result of `scan`"):
            classifier.evaluate(wrong)  # type: ignore[arg-type]
    with pytest.raises(PathMissingError):
        classifier.evaluate(scenes / "nowhere")


def test_columns_of_a_manifest(scenes: Path, tmp_path: Path) -> None:
    photos = sl.scan(scenes)
    lines = ["path,label,camera,iso,url"]
    for k, path in enumerate(photos.paths):
        label = photos.class_names[photos.labels[k]]
        iso = "" if k == 3 else 100 * (k % 4)
        lines.append(f"{path},{label},{'ab'[k % 2]},{iso},http://{k}")
    file = tmp_path / "list.csv"
    file.write_text("\n".join(lines))
    listed = sl.scan(scenes, file)
    columns = manifest_columns(file, listed)
    assert list(columns) == ["camera", "iso"]  # 72 different addresses make no slices
    assert columns["camera"].tolist()[:2] == ["a", "b"]
    assert np.isnan(columns["iso"][3])
    assert columns["iso"][2] == 200


def test_columns_of_a_split_are_no_properties(scenes: Path, tmp_path: Path) -> None:
    photos = sl.scan(scenes)
    sl.split(photos).save(tmp_path / "split.csv")
    assert manifest_columns(tmp_path / "split.csv", photos) == {}


def test_columns_of_a_parquet_manifest(scenes: Path, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    photos = sl.scan(scenes)
    table = {
        "path": list(photos.paths),
        "label": [photos.class_names[label] for label in photos.labels],
        "focal length": [20 + k % 3 for k in range(len(photos))],
        "same": ["x"] * len(photos),
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "list.parquet")
    columns = manifest_columns(tmp_path / "list.parquet", photos)
    assert list(columns) == ["focal length"]
    assert columns["focal length"].tolist() == table["focal length"]


def test_sizes_of_very_large_photos_are_read_without_warnings(tmp_path: Path) -> None:
    for label, size in (
        ("a", (11_000, 9_000)),
        ("b", (90, 120)),
    ):  # Pillow warns from 89 million on
        (tmp_path / label).mkdir()
        Image.new("1", size).save(tmp_path / label / "1.png")
    photos = sl.scan(tmp_path)
    sides = _slice_columns.short_sides(photos, np.array([1, 0]))
    assert sides.tolist() == [90, 9_000]


# Comparison


def test_comparison_does_not_measure_the_photos(
    classifier: Classifier, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their brightness takes time, and their size a second reading of each file."""

    def fail(*_: Any) -> None:
        pytest.fail("a comparison needs no statistics")

    monkeypatch.setattr(_labeled_outputs, "image_statistics", fail)
    monkeypatch.setattr(_labeled_outputs, "short_sides", fail)
    assert compare(classifier, classifier, scenes).n_photos == 72


def test_comparison_matches_classes_by_name(fitted: FitResult, scenes: Path) -> None:
    import keras

    first = fitted.classifier
    order = [3, 1, 0, 2, 5, 4]
    model = keras.models.clone_model(first.model)
    model.set_weights(first.model.get_weights())
    dense = model.get_layer("logits")
    kernel, bias = (np.asarray(v) for v in (dense.kernel, dense.bias))
    dense.kernel.assign(kernel[:, order])
    dense.bias.assign(bias[order])
    names = tuple(first.class_names[k] for k in order)
    second = dataclasses.replace(first, model=model, class_names=names, calibration=None)
    found = compare(first, second, sl.scan(scenes))
    assert (found.n_only_a_correct, found.n_only_b_correct, found.n_photos) == (0, 0, 72)
    assert found.accuracy_a == first.evaluate(sl.scan(scenes)).accuracy
    assert compare(first, second, scenes) == found


def test_comparison_of_other_classes(classifier: Classifier, scenes: Path) -> None:
    names = (*classifier.class_names[:5], "desert")
    other = dataclasses.replace(classifier, class_names=names)
    with pytest.raises(ClassMismatchError, match=r"the same classes.*only in the first street;"):
        compare(classifier, other, sl.scan(scenes))
    with pytest.raises(ClassMismatchError, match=r"only in the first street\)"):
        compare(classifier, dataclasses.replace(classifier, class_names=names[:5]), scenes)
    twice = dataclasses.replace(classifier, class_names=(*names[:5], names[0]))
    with pytest.raises(ClassMismatchError, match=r"the same classes.*duplicate names"):
        compare(twice, twice, scenes)
    with pytest.raises(ArgumentError, match=r"`b` must be a Classifier.*sl\.load"):
        compare(classifier, "other.keras", scenes)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`photos` must be the result of `scan`"):
        compare(classifier, classifier, 3)  # type: ignore[arg-type]


# Explanations


def test_heatmap_is_the_class_activation_map(sure: FitResult, photo: Path) -> None:
    """With global average pooling before the head, Grad-CAM is Σ feature map × head weight."""
    import keras

    classifier = sure.classifier
    explanation = classifier.explain(photo, label="sea")
    backbone, dense = (classifier.model.get_layer(name) for name in ("backbone", "logits"))
    last = keras.Model(backbone.input, backbone.get_layer("last_relu").output)
    x = explanation.image[None].astype(np.float32) / 127.5 - 1
    maps = np.asarray(last.predict_on_batch(x))[0]
    heat = np.maximum(maps @ np.asarray(dense.kernel)[:, classifier.class_names.index("sea")], 0)
    heat /= max(heat.max(), 1e-12)
    expected = Image.fromarray(heat.astype(np.float32)).resize((48, 48), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(explanation.heatmap, np.asarray(expected), atol=1e-3)
    assert explanation.heatmap.shape == (48, 48)
    assert explanation.label == "sea"


def test_training_photo_is_its_own_nearest_neighbor(sure: FitResult) -> None:
    photos = sure.splits.photos
    for index in sure.splits.train[:3]:
        found = sure.classifier.explain(photos.file(int(index)), n_neighbors=4)
        assert len(found.neighbors) == 4
        first = found.neighbors[0]
        assert first.path == photos.paths[index]
        assert first.label == photos.class_names[photos.labels[index]]
        assert first.similarity == pytest.approx(1, abs=0.01)
        shares = [one.similarity for one in found.neighbors]
        assert shares == sorted(shares, reverse=True)
        assert photos.paths[index] in str(found)


def test_embedding_is_what_the_head_is_given(
    classifier: Classifier, scenes: Path, photo: Path
) -> None:
    files = sorted(scenes.glob("*/*.jpg"))[:40]
    features = classifier.embed(files)
    assert features.dtype == np.float32
    head = classifier.model.get_layer("logits")
    logits = features @ np.asarray(head.kernel) + np.asarray(head.bias)
    logits -= logits.mean(axis=1, keepdims=True)
    log_p = np.log(classifier.predict_proba(files))
    log_p -= log_p.mean(axis=1, keepdims=True)
    temperature = (logits**2).sum() / (logits * log_p).sum()
    np.testing.assert_allclose(log_p, logits / temperature, rtol=0, atol=1e-3)
    n_features = features.shape[1]
    assert classifier.embed(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, n_features)
    with pytest.raises(PathMissingError):
        classifier.embed("gone.jpg")


def test_similar_photos_have_the_highest_cosine_similarity(
    classifier: Classifier, fitted: FitResult, photo: Path
) -> None:
    """Of all training photos by their full features; the index keeps them almost."""
    photos = fitted.splits.photos[fitted.splits.train]
    features = classifier.embed(photos).astype(np.float64)
    center = features.mean(axis=0)
    query = classifier.embed(photo)[0] - center
    shifted = features - center
    cosine = shifted @ query / np.linalg.norm(shifted, axis=1) / np.linalg.norm(query)
    neighbors = classifier.similar(photo, 5)
    assert len(neighbors) == 5
    for neighbor in neighbors:
        k = photos.paths.index(neighbor.path)
        assert neighbor.label == photos[k].label
        assert neighbor.similarity == pytest.approx(cosine[k], abs=0.02)
    assert neighbors[-1].similarity >= np.sort(cosine)[-5] - 0.02
    assert classifier.similar(photo, 0) == ()


def test_similar_needs_one_photo_and_a_calibration(classifier: Classifier, scenes: Path) -> None:
    with pytest.raises(ArgumentError, match=r"must be one photo\. Received: several"):
        classifier.similar(scenes / "sea")
    with pytest.raises(ArgumentError, match="`n_neighbors` must be an integer of at least 0"):
        classifier.similar(scenes, -1)
    bare = dataclasses.replace(classifier, calibration=None)
    with pytest.raises(ArgumentError, match="needs a classifier with a calibration"):
        bare.similar(scenes)


def test_benchmark_counts_photos_per_second(
    classifier: Classifier, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that a batch moves by two seconds, and a photo by half a second."""
    clock = [0.0]
    sizes: list[int] = []

    def predict(self: Classifier, photos: list[Any], **_: Any) -> None:
        assert all(isinstance(each, io.BytesIO) for each in photos)  # in memory
        sizes.append(len(photos))
        clock[0] += 2 if len(photos) > 1 else 0.5

    monkeypatch.setattr(Classifier, "predict", predict)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    result = classifier.benchmark([photo] * 3, seconds=25)
    assert (result.photos_per_second, result.low, result.high) == (16, 16, 16)
    assert (result.ms_per_request, result.batch_size, result.n_batches) == (500, 32, 10)
    assert sizes == [32, 1] * 11  # the first two compile
    assert json.loads(json.dumps(result.to_json()))["photos_per_second"] == 16
    assert "16 photos per second (16 to 16) in batches of 32, 500.0 ms" in str(result)


def test_benchmark_of_this_machine(classifier: Classifier) -> None:
    result = classifier.benchmark(seconds=1e-6)
    assert result.n_batches == 6
    assert 0 < result.low <= result.photos_per_second <= result.high


def test_benchmark_with_arguments_out_of_range(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="`seconds` must be a number above 0"):
        classifier.benchmark(seconds=0)
    with pytest.raises(NoPhotosError, match="at least one photo"):
        classifier.benchmark(tmp_path)
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(PhotoError, match=r"notes\.txt' must be a complete JPEG"):
        classifier.benchmark(tmp_path)


def test_explanation_is_saved_and_displayed(sure: FitResult, photo: Path, tmp_path: Path) -> None:
    found = sure.classifier.explain(photo)
    with Image.open(found.save(tmp_path / "why.png")) as picture:
        assert picture.size == (96, 48)
        assert np.array_equal(np.asarray(picture)[:, :48], found.image)
    assert [path.name for path in tmp_path.iterdir()] == ["why.png"]
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["label"] == found.prediction.label
    evil = dataclasses.replace(found.prediction, source="<img src=x onerror=alert(1)>")
    page = dataclasses.replace(found, prediction=evil)._repr_html_()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    assert 'src="http' not in page
    with pytest.raises(ArgumentError, match=r"`path` must end in '\.png'"):
        found.save(tmp_path / "why.jpg")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"label": "desert"}, r"`label` must be one of 'buildings'.*Received: label='desert'"),
        ({"n_neighbors": -1}, r"`n_neighbors` must be an integer of at least 0"),
    ],
)
def test_explanation_with_arguments_out_of_range(
    classifier: Classifier, photo: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        classifier.explain(photo, **more)


def test_explanation_of_several_photos(classifier: Classifier, scenes: Path) -> None:
    with pytest.raises(ArgumentError, match=r"`photo` must be one photo. Received: several"):
        classifier.explain(scenes / "sea")


# Tables


def prediction_of(source: str, label: str = "sea") -> Prediction:
    return Prediction(
        source=source, label=label, probability=0.75, prediction_set=(label, "b"),
        probabilities=Probabilities({label: 0.75, "b": 0.25}), coverage=0.9, ood_p_value=0.5,
        abstains=True,
    )  # fmt: skip


def test_csv_reads_back() -> None:
    names = ["a.jpg", 'with "quotes", and commas.jpg', "é 中.jpg", "<script>alert(1)</script>.jpg"]
    text = Predictions(map(prediction_of, names)).to_csv()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["source"] for row in rows] == names
    assert [rows[0][name] for name in ("label", "prediction_set", "sea")] == [
        "sea", "sea|b", "0.750000",
    ]  # fmt: skip
    assert (rows[0]["is_ood"], rows[0]["abstains"]) == ("false", "true")
    assert Predictions().to_csv() == ""


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "  =1", "\r=1", "\n=1"]
)
def test_no_csv_cell_is_a_formula_or_breaks_its_line(name: str) -> None:
    lines = Predictions([prediction_of(name, label=name)]).to_csv().splitlines()
    assert len(lines) == 2
    header, row = csv.reader(lines)
    for text in (row[0], row[1], header[7]):
        assert text[0] not in "=+-@\t\r\n "
        assert text.isprintable()


def test_predictions_become_a_table() -> None:
    predictions = Predictions(prediction_of(f"{k}.jpg") for k in range(30))
    table = pytest.importorskip("pandas").DataFrame(predictions.to_rows())
    assert predictions.to_pandas().equals(table)
    assert list(table.columns) == [
        "source", "label", "probability", "prediction_set", "coverage", "ood_p_value", "is_ood",
        "abstains", "probability_sea", "probability_b",
    ]  # fmt: skip
    assert isinstance(predictions[3:5], Predictions)
    assert predictions[3:5] == [prediction_of("3.jpg"), prediction_of("4.jpg")]
    assert json.loads(json.dumps(predictions.to_json()))[0]["prediction_set"] == ["sea", "b"]


# Display, pickle and copy


def test_results_have_short_representations(fitted: FitResult, photo: Path, scenes: Path) -> None:
    classifier = fitted.classifier
    (prediction,) = one = classifier.predict(photo)
    assert repr(one) == f"[<Prediction: {prediction}>]"
    assert re.fullmatch(
        r"<Predictions: 72 photos, \d+ abstentions>", repr(classifier.predict(scenes))
    )
    assert repr(classifier) == f"<Classifier: 6 classes, 32 px, {fitted.settings.backbone}>"
    page = str(classifier)
    assert all(f"{name}  " in page for name in classifier.metadata)
    assert ", ".join(classifier.class_names) in page
    calibration, explanation = classifier.calibration, classifier.explain(photo)
    assert calibration is not None
    for result in (
        classifier, calibration, calibration.ood_detector, calibration.neighbor_index, explanation,
    ):  # fmt: skip
        assert re.fullmatch(r"<[^\n]{10,200}>", repr(result))
    assert str(one) == str(prediction)
    many = str(Predictions(one * 50)).split("\n")
    assert (len(many), many[-1]) == (21, "and 30 more")
    evil = Predictions([dataclasses.replace(prediction, source="<script>")])
    assert "<script>" not in evil._repr_html_()
    assert "<pre>" in classifier._repr_html_()


def test_results_survive_pickle_and_copy(fitted: FitResult, photo: Path) -> None:
    expected = fitted.classifier.predict(photo)
    assert pickle.loads(pickle.dumps(expected)) == copy.deepcopy(expected) == expected  # noqa: S301
    for other in (
        copy.copy(fitted.classifier),
        copy.deepcopy(fitted.classifier),
        pickle.loads(pickle.dumps(fitted.classifier)),  # noqa: S301
    ):
        (prediction,) = other.predict(photo)
        np.testing.assert_allclose(
            prediction.probabilities, expected[0].probabilities, rtol=0, atol=1e-6
        )
        assert prediction.ood_p_value == expected[0].ood_p_value
    explanation = pickle.loads(pickle.dumps(fitted.classifier.explain(photo)))  # noqa: S301
    assert explanation.prediction == expected[0]
