"""The public API, typed as a user of Keras, scikit-learn or fastai would type it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn.errors import ArgumentError, PathMissingError

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def photos(scenes: Path) -> sl.data.Photos:
    return sl.scan(scenes)


@pytest.fixture(scope="module")
def bundle(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted.save(tmp_path_factory.mktemp("bundle") / "scenes.keras")


# Photos, audits, splits


def test_photos_behave_as_a_sequence(photos: sl.data.Photos) -> None:
    first = photos[0]
    assert first.path == photos.file(0)
    assert first.label == photos.class_names[photos.labels[0]]
    assert len(photos[10:20]) == 10
    assert photos[10:20][0] == photos[10]
    assert photos[-1] == photos[len(photos) - 1]
    assert [photo.path.name for photo in photos] == [Path(path).name for path in photos.paths]
    with pytest.raises(IndexError):
        photos[len(photos)]


def test_repr_is_one_line_and_str_a_page(photos: sl.data.Photos, fitted: FitResult) -> None:
    results: list[Any] = [
        photos,
        photos[:3],
        sl.audit(photos),
        fitted.splits,
        fitted,
        fitted.evaluation,
        fitted.evaluation.accuracy,
        fitted.classifier,
        fitted.classifier.predict(photos[:1])[0],
        sl.estimate("mobilenet_v2"),
    ]
    for result in results:
        assert "\n" not in repr(result)
        assert len(repr(result)) < 200, repr(result)
        assert str(result)
    for result in results[:6]:
        assert "<" in result._repr_html_()


def test_tables_become_data_frames(photos: sl.data.Photos, fitted: FitResult) -> None:
    assert list(photos.to_pandas()["path"]) == list(photos.paths)
    assert set(photos.to_pandas()["label"]) == set(photos.class_names)
    assert set(fitted.splits.to_pandas()["split"]) == {"train", "validation", "test"}
    assert len(fitted.evaluation.to_pandas()) == len(photos.class_names)
    assert "finding" in sl.audit(photos).to_pandas() or len(sl.audit(photos).to_pandas()) == 0
    assert len(sl.estimate("mobilenet_v2").to_pandas()) > 50


def test_results_survive_pickle_and_copy(photos: sl.data.Photos, fitted: FitResult) -> None:
    for result in (photos, sl.audit(photos), fitted.splits, fitted.evaluation, fitted.settings):
        again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own bytes
        assert str(again) == str(result)
        assert str(copy.deepcopy(result)) == str(result)


def test_splits_have_a_length(photos: sl.data.Photos) -> None:
    splits = sl.split(photos, seed=0)
    assert len(splits) == len(photos)
    two = sl.split(photos, validation=0)
    assert len(two.validation) == 0
    assert len(two.train) + len(two.test) == len(photos)
    with pytest.raises(ArgumentError, match="validation"):
        sl.fit(two, backbone="scenelearn_tiny", weights=None, image_px=32, epochs=0)


def test_paths_are_understood_where_photos_are_expected(scenes: Path) -> None:
    assert len(sl.split(scenes)) == len(sl.split(str(scenes))) == 72
    assert len(sl.audit(scenes).photos) == 72
    for verb in (sl.split, sl.audit):
        with pytest.raises(ArgumentError, match="`photos`"):
            verb(3)  # type: ignore[operator]
        with pytest.raises(PathMissingError):
            verb("no such folder")  # type: ignore[operator]
    with pytest.raises(ArgumentError, match="`splits`"):
        sl.fit("photos/")  # type: ignore[arg-type]


# The front door


def test_front_door_has_what_users_reach_for() -> None:
    names = "audit compare estimate fit folds load plan report sample_scenes scan split Classifier"
    assert set(names.split()) <= set(sl.__all__)
    assert isinstance(sl.__version__, str)
    assert sl.Classifier is sl.classify.Classifier
    assert sl.estimate is sl.sizing.estimate


def test_sizing_takes_what_people_have(tmp_path: Path, fitted: FitResult) -> None:
    by_name = sl.estimate("mobilenet_v2", batch_size=32, optimizer="adam")
    assert by_name.n_parameters == 3_538_984  # keras.applications.MobileNetV2().count_params()
    path = fitted.save(tmp_path / "scenes.keras")
    assert sl.estimate(path).n_parameters == fitted.classifier.model.count_params()


# Numbers


def test_interval_is_a_number(fitted: FitResult) -> None:
    accuracy = fitted.evaluation.accuracy
    assert float(accuracy) == accuracy.value
    assert f"{accuracy:.1%}" == f"{accuracy.value:.1%}"
    assert accuracy >= 0
    assert accuracy <= 1
    assert accuracy == accuracy.value


# What a fit gives


def test_fit_result_predicts_and_names_confusions(
    fitted: FitResult, photos: sl.data.Photos
) -> None:
    predictions = fitted.predict(photos[:2])
    assert [p.label for p in predictions] == [
        p.label for p in fitted.classifier.predict(photos[:2])
    ]
    for true, predicted, n, _ in fitted.most_confused():
        assert true != predicted
        assert {true, predicted} <= set(photos.class_names)
        assert n >= 1
    assert "<" in fitted.plot_top_losses(4)._repr_html_()
    json.dumps(fitted.to_json(), allow_nan=False)


def test_classifier_takes_paths_arrays_images_and_photos(
    bundle: Path, scenes: Path, photos: sl.data.Photos
) -> None:
    classifier = sl.load(bundle)
    path = scenes / photos.paths[0]
    expected = classifier.predict_proba([path])
    assert expected.shape == (1, 6)
    assert expected.dtype == np.float32
    with Image.open(path) as image:
        image.load()
    for same in (path, str(path), path.read_bytes(), image, np.asarray(image), photos[:1]):
        np.testing.assert_array_equal(classifier.predict_proba(same), expected)
    assert len(classifier.predict(scenes)) == len(photos)  # class folders, too
    assert len(classifier.predict(photos)) == len(photos)


def test_evaluate_and_compare_take_a_folder(bundle: Path, scenes: Path, photos: Any) -> None:
    classifier = sl.load(bundle)
    by_folder = classifier.evaluate(scenes)
    assert by_folder.accuracy == classifier.evaluate(photos).accuracy
    assert str(sl.compare(classifier, classifier, photos))
    assert str(sl.compare(classifier, classifier, scenes))


# Progress


def test_progress_has_one_signature(
    scenes: Path, bundle: Path, fit_settings: dict[str, Any]
) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))

    photos = sl.scan(scenes, progress=progress)
    sl.audit(photos, progress=progress)
    sl.load(bundle).predict(photos, progress=progress)
    sl.load(bundle).evaluate(photos, progress=progress)
    sl.fit(sl.split(photos), **fit_settings | {"epochs": 1}, progress=progress)
    for what, done, total in seen:
        assert what
        assert done >= 0
        assert done <= total or total == 0
    assert len({what for what, _, _ in seen}) >= 6


def test_bars_show_where_they_are_asked_for(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sl.scan(scenes)
    assert capsys.readouterr().err == ""  # not a terminal
    sl.scan(scenes, verbose=True)
    assert "scan" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match="`verbose`"):
        sl.scan(scenes, verbose="loud")
