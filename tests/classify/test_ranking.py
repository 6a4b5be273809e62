"""Ranking unlabeled photos, against NumPy."""

from __future__ import annotations

import csv
import dataclasses
import logging
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.classify import Classifier
from scenelearn.classify._ranking import sample_diverse
from scenelearn.errors import ArgumentError, ManifestError, NoPhotosError, PathMissingError
from scenelearn.finetune import FitResult


@pytest.fixture
def classifier(fitted: FitResult) -> Classifier:
    return fitted.classifier


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """Ten scenes without class folders, each twice."""
    folder = tmp_path_factory.mktemp("unlabeled")
    for k, file in enumerate(sorted(scenes.rglob("*.jpg"))[::7][:10]):
        for name in (f"{k}.jpg", f"copies/{k}.jpg"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(file, folder / name)
    return folder


def test_margin_times_squared_distance_is_the_probability(
    classifier: Classifier, unlabeled: Path
) -> None:
    files = sorted(unlabeled.rglob("*.jpg"))
    probabilities = np.sort(classifier.predict_proba(files), axis=1).astype(np.float64)
    margin = probabilities[:, -1] - probabilities[:, -2]
    assert classifier.calibration is not None
    index = classifier.calibration.neighbor_index
    x = (classifier.embed(files) - index.mean) @ index.components.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    random = np.random.default_rng(0)
    chosen: list[int] = []
    while len(chosen) < 6:
        d2 = [min([((x[i] - x[k]) ** 2).sum() for k in chosen], default=1) for i in range(len(x))]
        p = (1 - margin) * d2
        chosen.append(int(random.choice(len(x), p=p / p.sum())))

    ranking = sl.rank(unlabeled, classifier, 6)

    order = [files.index(unlabeled / path) for path in ranking.paths]
    np.testing.assert_allclose(ranking.margins, margin[order], atol=1e-6)
    # copies are equal: either of the two
    np.testing.assert_array_equal([files[k].name for k in chosen], [files[k].name for k in order])
    predicted = classifier.predict([files[k] for k in order])
    assert ranking.labels == tuple(one.label for one in predicted)
    assert (ranking.folder, ranking.n_photos, len(ranking)) == (unlabeled, 20, 6)


def test_copies_come_last(classifier: Classifier, unlabeled: Path) -> None:
    everything = sl.rank(unlabeled, classifier)  # fewer than n
    assert len(set(everything.paths)) == 20
    assert len({Path(path).name for path in everything.paths[:10]}) == 10
    assert everything.paths[:3] == sl.rank(unlabeled, classifier, 3).paths


def test_rows_of_probability_0_come_last_by_weight() -> None:
    rows = np.array([[0], [0], [2], [0]], np.float16)
    order = sample_diverse(rows, np.array([0.0, 0.1, 0.0, 0.0]), 4)
    np.testing.assert_array_equal(order, [1, 0, 2, 3])
    order = sample_diverse(rows, np.array([0.2, 0.1, 0.4, 0.3]), 9)
    assert {0, 1, 3} - {*order[:2]} == {*order[2:]}  # one of the equal rows, and the other one
    assert order[2] == max({*order[2:]}, key=[0.2, 0.1, 0.4, 0.3].__getitem__)
    assert sorted(sample_diverse(np.zeros((4, 2)), np.zeros(4), 9)) == [0, 1, 2, 3]


def test_manifest_is_filled_in_and_scanned(
    classifier: Classifier, unlabeled: Path, tmp_path: Path
) -> None:
    ranking = sl.rank(unlabeled, classifier, 4)
    file = ranking.save(tmp_path / "to_label.csv")
    with pytest.raises(NoPhotosError, match="4 unlabeled"):
        sl.scan(unlabeled, file)
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["path"] for row in rows] == list(ranking.paths)
    assert {row["label"] for row in rows} == {""}
    for row, label in zip(rows, ("sea", "street", "sea"), strict=False):
        row["label"] = label
    with file.open("w", newline="") as text:
        table = csv.DictWriter(text, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    photos = sl.scan(unlabeled, file)
    assert photos.counts() == {"sea": 2, "street": 1}
    assert photos.unlabeled == ranking.paths[3:]
    (last,) = sl.rank(photos, classifier, 1).paths
    assert last == ranking.paths[3]
    with pytest.raises(ManifestError, match=r"must be a \.csv file"):
        ranking.save(tmp_path / "to_label.txt")


def test_unlabeled_photos_of_an_archive(
    classifier: Classifier, unlabeled: Path, scenes: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(next(scenes.glob("sea/*.jpg")), "seg_train/sea/a.jpg")
        for k in range(3):
            archive.write(unlabeled / f"{k}.jpg", f"seg_pred/{k}.jpg")
    photos = sl.scan(tmp_path / "photos.zip")
    paths = sl.rank(photos, classifier).paths
    assert sorted(paths) == ["seg_pred/0.jpg", "seg_pred/1.jpg", "seg_pred/2.jpg"]


def test_ranking_is_a_table(classifier: Classifier, unlabeled: Path) -> None:
    ranking = sl.rank(str(unlabeled), classifier, 2)
    assert repr(ranking) == "<Ranking: 2 of 20 photos>"
    assert ranking.paths[0] in str(ranking)
    assert ranking.to_json()["photos"] == ranking.to_rows()
    assert list(ranking.to_pandas()["path"]) == list(ranking.paths)
    assert ranking.to_rows()[0]["margin"] == pytest.approx(float(ranking.margins[0]))
    assert len(str(sl.rank(unlabeled, classifier)).splitlines()) < 23


def test_broken_photos_are_left_out(
    classifier: Classifier, unlabeled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with caplog.at_level(logging.ERROR), pytest.raises(NoPhotosError, match="can be decoded"):
        sl.rank(tmp_path, classifier)
    shutil.copy(unlabeled / "0.jpg", tmp_path)
    assert sl.rank(tmp_path, classifier).paths == ("0.jpg",)
    assert "broken.jpg" in caplog.text


def test_misuse_is_an_error(classifier: Classifier, unlabeled: Path, scenes: Path) -> None:
    with pytest.raises(ArgumentError, match="`n` must be an integer of at least 1"):
        sl.rank(unlabeled, classifier, 0)
    bare = dataclasses.replace(classifier, calibration=None)
    for wrong in (bare, "scenes.keras"):
        with pytest.raises(ArgumentError, match="`classifier` must be a Classifier"):
            sl.rank(unlabeled, wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`unlabeled` must be"):
        sl.rank(5, classifier)  # type: ignore[arg-type]
    with pytest.raises(PathMissingError, match="`unlabeled` must be an existing folder"):
        sl.rank(unlabeled / "nothing", classifier)
    with pytest.raises(NoPhotosError, match="none of them is unlabeled"):
        sl.rank(sl.scan(scenes), classifier)
