"""The audit finds planted duplicates, conflicting labels, leaks and label issues."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import scenelearn as sl
from scenelearn import cli
from scenelearn._logistic_regression import assign_folds
from scenelearn.data import LabelIssue, RejectionReason
from scenelearn.data._near_duplicates import find_candidates
from scenelearn.errors import ArgumentError, DiskSpaceError, PathMissingError, TooFewPhotosError
from tests.helpers.similar_photos import (
    MORE_CHANGES,
    drawn_digit,
    inspected_part,
    plain_shape,
    plant,
    put_drawings,
    put_parts,
)
from tests.helpers.splits import hashed, made_up
from tests.helpers.systems import needs_posix


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return sl.sample_scenes(tmp_path / "scenes", per_class=15)


def test_near_duplicates_are_found_and_stay_in_one_split(scenes: Path) -> None:
    before = sl.audit(sl.scan(scenes))
    assert before.exact_duplicates == before.blank == before.tiny == ()
    planted = plant(sorted(scenes.rglob("*.jpg")), scenes, 18)
    photos = sl.scan(scenes)
    found = sl.audit(photos)
    group = dict(zip(photos.paths, found.groups.tolist(), strict=True))
    assert all(group[new] == group[old] for new, (old, _) in planted.items())
    splits = sl.split(photos, seed=1, groups=found.groups)
    groups = [set(found.groups[getattr(splits, s)]) for s in ("train", "validation", "test")]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]


@pytest.mark.parametrize("noise", [1, 8])
def test_photos_of_a_fixed_camera_are_different_photos(tmp_path: Path, noise: float) -> None:
    found = sl.audit(put_parts(tmp_path, 60, px=100, noise=noise))
    assert found.near_duplicates == found.quarantine == ()
    assert len(set(found.groups.tolist())) == 60


def test_a_small_series_is_told_apart_by_its_defects(tmp_path: Path) -> None:
    for k, defect in enumerate(("", "hole", "hole", "hole")):
        file = tmp_path / (defect or "good") / f"{k}.png"
        file.parent.mkdir(exist_ok=True)
        inspected_part(7 * k, defect, px=100).save(file)
    assert sl.audit(tmp_path).conflicting_labels == ()


def test_a_copy_is_found_among_the_photos_of_a_fixed_camera(tmp_path: Path) -> None:
    put_parts(tmp_path, 20, px=100, noise=8)
    again = Image.open(tmp_path / "good/0.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    again.save(tmp_path / "good/copy.jpg", quality=95)
    found = sl.audit(tmp_path)
    (pair,) = found.near_duplicates
    assert {found.photos.paths[k] for k in pair} == {"good/0.jpg", "good/copy.jpg"}


@pytest.mark.parametrize(("draw", "n", "n_classes"), [(plain_shape, 80, 4), (drawn_digit, 100, 10)])
def test_drawings_are_different_pictures(
    tmp_path: Path, draw: Callable[[int], Image.Image], n: int, n_classes: int
) -> None:
    found = sl.audit(put_drawings(tmp_path, draw, n, n_classes))
    assert sum(map(len, found.near_duplicates)) <= 0.05 * n  # some are alike by chance
    assert found.quarantine == ()


def test_the_colors_of_a_picture_count(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(60, 200, (9, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((90, 90), Image.Resampling.BICUBIC)
    red, green, blue = picture.split()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    picture.save(tmp_path / "a/1.png")
    picture.save(tmp_path / "a/2.jpg")
    Image.merge("RGB", (blue, green, red)).save(tmp_path / "b/3.png")
    found = sl.audit(tmp_path)
    assert [[found.photos.paths[k] for k in group] for group in found.near_duplicates] == [
        ["a/1.png", "a/2.jpg"]
    ]


def test_ten_copies_of_a_picture_stay_together(tmp_path: Path) -> None:
    scenes = sl.sample_scenes(tmp_path / "scenes", per_class=1)
    originals = sorted(scenes.rglob("*.jpg"))[:2]
    for original in originals:
        for name, change in list(MORE_CHANGES.items())[:9]:
            with Image.open(original) as image:
                change(image).save(original.with_name(f"{original.stem} {name}.jpg"))
    found = sl.audit(tmp_path / "scenes")
    assert sorted(map(len, found.near_duplicates)) == [10, 10]


def test_the_quarantine_is_counted_and_can_be_kept(tmp_path: Path) -> None:
    for name in "ab":
        for k in range(6):
            noise = np.random.default_rng([ord(name), k]).integers(0, 256, (40, 40, 3), np.uint8)
            file = tmp_path / name / f"{k}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(noise).save(file)
    (tmp_path / "b/0.png").write_bytes((tmp_path / "a/0.png").read_bytes())
    found = sl.audit(tmp_path)
    assert "2 of 12 photos are suggested for quarantine" in str(found)
    assert "leave their paths out of `quarantine`" in str(found)
    with pytest.raises(TooFewPhotosError, match=r"'a'.*its 4 photos in quarantine.*shorter list"):
        sl.split(found.photos, quarantine=found.photos.paths[:4])


@needs_posix
def test_a_full_disk_is_an_error_that_says_where_and_how_much(scenes: Path) -> None:
    import resource

    photos = sl.scan(scenes)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(DiskSpaceError) as caught:
            sl.audit(photos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.environ["SCENELEARN_CACHE"] in str(caught.value)
    assert "0.3 MiB of free space" in str(caught.value)  # 90 thumbnails of 3 KiB


def test_space_is_written_where_it_cannot_be_reserved(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    expected = sl.audit(scenes).to_json()
    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    assert sl.audit(scenes).to_json() == expected


def test_duplicates_conflicting_labels_and_leaks(tmp_path: Path) -> None:
    drawn = sl.sample_scenes(tmp_path / "drawn", per_class=2)
    first, second = sorted(p for p in drawn.iterdir() if p.is_dir())[:2]
    one, other = sorted(first.iterdir())[0], sorted(second.iterdir())[0]
    for path, content in {
        "train/a/1.jpg": one.read_bytes(),
        "train/a/copy.jpg": one.read_bytes(),
        "train/b/1.jpg": other.read_bytes(),
        "test/b/contradicts.jpg": one.read_bytes(),
    }.items():
        target = tmp_path / "photos" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    Image.new("RGB", (40, 40), "navy").save(tmp_path / "photos/train/a/blank.png")
    Image.fromarray(np.arange(20 * 60, dtype=np.uint8).reshape(20, 60)).save(
        tmp_path / "photos/train/b/tiny.png"
    )
    found = sl.audit(sl.scan(tmp_path / "photos"))

    def named(indices: tuple[int, ...]) -> set[str]:
        return {found.photos.paths[index] for index in indices}

    same = {"train/a/1.jpg", "train/a/copy.jpg", "test/b/contradicts.jpg"}
    assert [named(group) for group in found.exact_duplicates] == [same]
    assert [named(group) for group in found.conflicting_labels] == [same]
    assert [named(group) for group in found.leaks] == [same]
    assert found.near_duplicates == ()
    assert named(found.blank) == {"train/a/blank.png"}
    assert named(found.tiny) == {"train/b/tiny.png"}
    assert "1 groups of identical files" in str(found)
    assert json.loads(json.dumps(found.to_json()))["n_photos"] == 6
    assert "<pre>" in found._repr_html_()


def test_a_path_is_scanned_first(scenes: Path, tmp_path: Path) -> None:
    expected = sl.audit(sl.scan(scenes)).to_json()
    assert sl.audit(scenes).to_json() == expected
    assert sl.audit(str(scenes)).to_json() == expected
    with pytest.raises(PathMissingError):
        sl.audit(tmp_path / "nothing")
    for photos in (None, 3, ["sea/1.jpg"]):
        with pytest.raises(ArgumentError, match=r"`photos` must be the result of `scan`.*sl\.scan"):
            sl.audit(photos)  # type: ignore[arg-type]


def test_an_audit_shows_itself_in_one_line_and_on_a_page(scenes: Path) -> None:
    photo = sorted((scenes / "sea").iterdir())[0]
    (scenes / "sea/again.jpg").write_bytes(photo.read_bytes())
    (scenes / "street/again.jpg").write_bytes(photo.read_bytes())
    (scenes / "sea/broken.jpg").write_bytes(b"")
    found = sl.audit(scenes)
    assert repr(found) == (
        "<Audit: 92 photos, 1 exact duplicates, 1 conflicting labels, 1 rejected>"
    )
    assert "1 groups of identical files:" in str(found)
    assert "1 pictures with conflicting labels:" in str(found)
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again.to_json() == found.to_json()
    pytest.importorskip("pandas")
    columns = ["finding", "group", "path", "label", "split", "suggested_label"]
    assert list(found.to_pandas().columns) == columns
    assert len(found.to_pandas()) == 6


def test_progress_of_an_audit_reaches_the_end(scenes: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    sl.audit(scenes, progress=lambda *call: calls.append(call))
    last = {stage: (done, total) for stage, done, total in calls}
    assert list(last) == ["scanning photos", "auditing photos", "comparing photos"]
    assert last["scanning photos"] == last["auditing photos"] == (90, 90)
    assert last["comparing photos"][0] == last["comparing photos"][1] > 0


def test_photos_that_broke_since_the_scan_are_rejected(scenes: Path) -> None:
    photos = sl.scan(scenes)
    photos.file(0).unlink()
    photos.file(1).write_bytes(b"no photo any more")
    rejected = {one.path: one for one in sl.audit(photos).rejected}
    assert set(rejected) == set(photos.paths[:2])
    assert all(one.reason is RejectionReason.UNREADABLE for one in rejected.values())
    assert "scan again" in rejected[photos.paths[1]].detail


def test_the_command_lists_the_findings(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next(path for path in sorted(scenes.iterdir()) if path.is_dir())
    photo = sorted(folder.iterdir())[0]
    (folder / "again.jpg").write_bytes(photo.read_bytes())
    (folder / "broken.jpg").write_bytes(photo.read_bytes()[:200])
    assert cli.main(["audit", str(scenes), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {
        row["path"].split("/")[1]
        for row in value["findings"]
        if row["finding"] == "exact_duplicates"
    } == {
        "again.jpg",
        photo.name,
    }
    assert [one["path"].split("/")[1] for one in value["rejected"]] == ["broken.jpg"]


@pytest.mark.parametrize("groups", [[0, 1], [0.5] * 12])
def test_groups_must_have_one_integer_per_photo(tmp_path: Path, groups: list[float]) -> None:
    photos = sl.scan(sl.sample_scenes(tmp_path / "few", per_class=2))
    with pytest.raises(ArgumentError, match="one integer per photo"):
        sl.split(photos, groups=groups)


@pytest.mark.intel
def test_planted_among_real_photos(intel: Path, tmp_path: Path) -> None:
    files = sorted(intel.rglob("*.jpg"))
    for path in random.Random(1).sample(files, 3000):
        target = tmp_path / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    planted = plant(sorted(tmp_path.rglob("*.jpg")), tmp_path, 60)
    photos = sl.scan(tmp_path)
    found = sl.audit(photos)
    group = dict(zip(photos.paths, found.groups.tolist(), strict=True))
    hit = sum(group[new] == group[old] for new, (old, _) in planted.items())
    assert hit >= 57  # 95%
    real = [g for g in found.near_duplicates if not any(photos.paths[i] in planted for i in g)]
    assert sum(map(len, real)) <= 30, [[photos.paths[i] for i in g] for g in real]


# Label issues


def features_of(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around one center per class, slightly overlapping."""
    random_ = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int32) % n_classes
    centers = random_.normal(size=(n_classes, 24)) * 1.2
    return (centers[labels] + random_.normal(size=(n, 24))).astype(np.float32), labels


def find_label_issues(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[LabelIssue, ...]:
    """The label issues of photos without files; those of one group are identical."""
    photos = dataclasses.replace(
        made_up({"a": len(labels)}),
        labels=labels,
        class_names=tuple("abcdefgh"[: labels.max() + 1]),
        hashes=tuple(map(hashed, groups)),
    )
    found = sl.audit(photos, features=features)
    assert len(set(found.groups.tolist())) == len(set(groups.tolist()))
    return found.label_issues


def test_wrong_labels_are_found_with_the_right_class() -> None:
    features, right = features_of(600, 4)
    given = right.copy()
    wrong = np.arange(0, 600, 23)
    given[wrong] = (given[wrong] + 1) % 4
    found = find_label_issues(features, given, np.arange(600))
    named = {one.position for one in found} & set(wrong.tolist())
    assert len(named) >= 0.9 * len(wrong)
    assert len(found) == len(named)
    assert all(one.suggested_label == right[one.position] for one in found if one.position in named)
    assert [one.label_probability for one in found] == sorted(
        one.label_probability for one in found
    )
    assert not find_label_issues(features[right < 2], right[right < 2], np.arange(300))[3:]


def test_probabilities_are_those_of_training_without_the_fold() -> None:
    features, labels = features_of(60, 3)
    features[7] = np.nan
    labels[[11, 32]] = 0  # wrong
    groups = np.arange(60)
    groups[[20, 32]] = 3  # a photo and two duplicates of it
    rows = np.delete(np.arange(60), 7)
    table, y = features[rows].astype(float), labels[rows]
    table = np.hstack([(table - table.mean(0)) / table.std(0), np.ones((59, 1))])
    l2 = sl.finetune.cross_validate_l2(features[rows], y, 3, groups=groups[rows]).probe.l2

    def loss(flat: np.ndarray, train: np.ndarray) -> tuple[float, np.ndarray]:
        x, truth, w = table[train], np.eye(3)[y[train]], flat.reshape(-1, 3).copy()
        log_p = log_softmax(x @ w, axis=1)
        w[-1] = 0  # no penalty on the bias
        gradient = x.T @ (np.exp(log_p) - truth) / len(x) + l2 * w
        return -(log_p * truth).sum() / len(x) + l2 / 2 * (w**2).sum(), gradient.ravel()

    fold, expected = assign_folds(y, groups[rows]), {}
    for k in range(5):
        result = minimize(loss, np.zeros(75), np.flatnonzero(fold != k), jac=True)
        for row in np.flatnonzero(fold == k):
            p = softmax(table[row] @ result.x.reshape(-1, 3))
            if p.max() > 5 * p[y[row]]:
                expected[int(rows[row])] = (int(p.argmax()), p[y[row]])
    found = {one.position: one for one in find_label_issues(features, labels, groups)}
    assert {11, 32} <= expected.keys() == found.keys()
    for position, (label, probability) in expected.items():
        assert found[position].suggested_label == label
        assert found[position].label_probability == pytest.approx(probability, rel=0.2)


def test_the_only_photo_of_a_class_is_no_label_issue() -> None:
    features, labels = features_of(60, 3)
    labels[0] = 3  # looks like class 0
    assert not any(one.position == 0 for one in find_label_issues(features, labels, np.arange(60)))
    assert not find_label_issues(features[:3], labels[:3], np.arange(3))


def test_a_wrong_label_is_not_hidden_by_its_duplicates() -> None:
    features, labels = features_of(300, 3)
    given = labels.copy()
    features = np.concatenate([features, np.repeat(features[:1], 5, axis=0)])
    given = np.append(given, np.full(5, 1, np.int32))
    given[0] = 1  # all six duplicates of a photo of class 0
    groups = np.append(np.arange(300), np.zeros(5, np.int64))
    assert {0, *range(300, 305)} <= {
        one.position for one in find_label_issues(features, given, groups)
    }


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((5, 3), np.float32), r"`features` must have one row for each of the 6.*\(5, 3\)"),
        (np.zeros(6, np.float32), r"`features` must have one row.*shape \(6,\)"),
        (np.full((6, 3), np.nan, np.float32), r"`features` must hold finite numbers.*none"),
        ([[1.0], [1.0, 2.0]], r"`features` must be an array of one shape.*Received.*list"),
    ],
)
def test_features_that_do_not_fit(features: np.ndarray, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        sl.audit(made_up({"a": 3, "b": 3}), features=features)


@pytest.mark.slow
def test_an_audit_with_features_finds_label_issues(scenes: Path) -> None:
    street = sorted((scenes / "street").iterdir())[0]
    street.rename(scenes / "sea" / "in truth a street.jpg")
    photos = sl.scan(scenes)
    features = sl.finetune.extract_features(
        photos, backbone="scenelearn_tiny", weights=None, image_px=48
    )
    assert features.shape == (90, features.shape[1])
    truth = photos.labels.copy()
    truth[photos.paths.index("sea/in truth a street.jpg")] = photos.class_names.index("street")
    # Random weights separate scenes badly; the true classes stand in for good features.
    told = np.eye(6, dtype=np.float32)[truth]
    found = sl.audit(photos, features=np.hstack([features * 1e-3, told]))
    (issue,) = found.label_issues
    assert photos.paths[issue.position] == "sea/in truth a street.jpg"
    assert found.to_rows()[-1]["suggested_label"] == "street"
    assert "sea/in truth a street.jpg looks like street" in str(found)
    assert found.to_json()["findings"][-1]["finding"] == "label_issues"


@pytest.mark.intel
def test_changed_labels_of_real_photos_are_found(intel: Path, weights: Path) -> None:
    photos = sl.scan(intel)
    file = next(weights.glob("mobilenet_v2_0.35_*_notop.h5"))
    features = sl.finetune.extract_features(photos, weights=file)
    random_ = np.random.default_rng(0)
    wrong = random_.choice(len(photos), len(photos) * 3 // 100, replace=False)
    given = photos.labels.copy()
    given[wrong] = (given[wrong] + random_.integers(1, 6, len(wrong))) % 6
    found = find_label_issues(features, given, np.arange(len(photos)))
    named = {one.position for one in found} & set(wrong.tolist())
    assert len(named) >= 0.85 * len(wrong)
    assert len(named) >= 0.45 * len(found)  # the rest: glaciers and mountains, mostly


# Quarantine


def test_the_quarantine(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    for name, kept in (
        ("train/a", [0, 1, 2, 3]),
        ("train/b", [3, 4, 5]),
        ("test/a", [0, 6]),
        ("test/b", [7, 8]),
    ):
        for k in kept:
            file = tmp_path / name / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise[k]).save(file)
    Image.new("RGB", (40, 40), (9, 9, 9)).save(tmp_path / "train/b/blank.png")
    photos = sl.scan(tmp_path)
    found = sl.audit(photos)
    assert found.quarantine == (
        "train/a/0.png",  # identical to test/a/0.png, which is kept
        "train/a/3.png", "train/b/3.png",  # a and b
        "train/b/blank.png",
    )  # fmt: skip
    splits = sl.split(photos, quarantine=found.quarantine, groups=found.groups)
    assert [photos.paths[k] for k in splits.quarantined] == list(found.quarantine)
    assert "test/a/0.png" in [photos.paths[k] for k in splits.test]
    assert found.to_json()["quarantine"] == list(found.quarantine)


def test_files_with_several_images_are_found(scenes: Path) -> None:
    frames = [Image.new("RGB", (40, 40), (k * 60, 9, k)) for k in range(3)]
    for k, frame in enumerate(frames):
        frame.paste((255, 255, 255), (k * 9, 3, k * 9 + 8, 30))
    path = scenes / "sea"
    frames[0].save(path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(path / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(path / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(path / "one.gif")
    photos = sl.scan(scenes)
    named = [photos.paths[k] for k in sl.audit(photos).animated]
    assert named == ["sea/moving.gif", "sea/moving.webp", "sea/pages.tif"]


def test_candidates_among_photos_of_a_fixed_camera_are_the_nearest() -> None:
    random = np.random.default_rng(0)
    flat = random.normal(size=64) + 0.3 * random.normal(size=(300, 64))  # all are similar
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)
    similarity = flat @ flat.T
    np.fill_diagonal(similarity, -1)
    assert similarity[~np.eye(300, dtype=bool)].min() > 0.65
    found = find_candidates(flat.reshape(300, 8, 8))
    nearest = {
        (min(i, int(j)), max(i, int(j)))
        for i, row in enumerate(similarity)
        for j in np.argsort(-row)[:8]
    }
    pairs = {tuple(sorted(map(int, row[:2]))) for row in found if row[2] == 0}
    assert pairs == nearest
