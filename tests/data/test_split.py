"""Splits: the documented rule, stability when photos come and go, and small classes."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn.data import Photos, Splits, folds, scan, split
from scenelearn.errors import (
    ArgumentError,
    PathMissingError,
    TooFewClassesError,
    TooFewPhotosError,
)
from tests.helpers.splits import SPLITS, made_up, splits_of, with_splits


def chosen(photos: Photos, positions: list[int], class_names: tuple[str, ...] = ()) -> Photos:
    """Some of the photos, in this order."""
    return Photos(
        folder=photos.folder,
        paths=tuple(photos.paths[k] for k in positions),
        labels=photos.labels[positions],
        class_names=class_names or photos.class_names,
        hashes=tuple(photos.hashes[k] for k in positions),
        splits=tuple(photos.splits[k] for k in positions),
    )


def u_of(content_hash: bytes, seed: int) -> float:
    """The documented rule, implemented a second time."""
    key = hashlib.sha256(str(seed).encode("ascii")).digest()
    digest = hashlib.blake2b(content_hash, digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little") / 2**64


def split_by_rule(u: float, validation: float, test: float) -> str:
    if u < test:
        return "test"
    return "validation" if u < test + validation else "train"


def split_by_hash(splits: Splits) -> dict[bytes, str]:
    return dict(zip(splits.photos.hashes, splits_of(splits), strict=True))


# The rule


@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890])
@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.3, 0.1), (0.05, 0.6)])
def test_splits_follow_the_documented_rule(seed: int, validation: float, test: float) -> None:
    photos = made_up({"a": 200, "b": 300})
    splits = split(photos, validation=validation, test=test, seed=seed)
    expected = [split_by_rule(u_of(h, seed), validation, test) for h in photos.hashes]
    assert splits_of(splits) == expected


def test_defaults_are_15_percent_each_and_seed_0() -> None:
    photos = made_up({"a": 200, "b": 300})
    expected = [split_by_rule(u_of(h, 0), 0.15, 0.15) for h in photos.hashes]
    assert splits_of(split(photos)) == expected


def test_positions_are_ascending_int64() -> None:
    splits = split(made_up({"a": 50, "b": 50}))
    for name in SPLITS:
        positions = getattr(splits, name)
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()


def test_fractions_are_the_requested_ones_up_to_chance() -> None:
    n = 10_000
    photos = made_up({"a": n, "b": n})
    splits = split(photos, validation=0.2, test=0.1)
    for k in range(2):
        for name, fraction in (("validation", 0.2), ("test", 0.1), ("train", 0.7)):
            got = (photos.labels[getattr(splits, name)] == k).sum()
            assert abs(got - n * fraction) < 4 * (n * fraction * (1 - fraction)) ** 0.5


def test_another_seed_draws_independently() -> None:
    photos = made_up({"a": 5_000, "b": 5_000})
    first, second = (set(split(photos, test=0.2, seed=seed).test.tolist()) for seed in (0, 1))
    expected = 10_000 * 0.2 * 0.2
    assert abs(len(first & second) - expected) < 4 * (expected * (1 - 0.04)) ** 0.5


def test_the_same_seed_draws_the_same() -> None:
    photos = made_up({"a": 50, "b": 50})
    assert splits_of(split(photos, seed=7)) == splits_of(split(photos, seed=7))


# Stability


def test_a_photo_keeps_its_split_when_others_are_added_or_removed() -> None:
    photos = made_up({"a": 300, "b": 300})
    before = split_by_hash(split(photos))
    fewer = chosen(photos, list(range(0, 600, 2)))
    more = made_up({"a": 300, "b": 300, "c": 400})
    for other in (fewer, more):
        after = split_by_hash(split(other))
        shared = before.keys() & after.keys()
        assert len(shared) >= 300
        assert all(before[h] == after[h] for h in shared)


def test_a_photo_keeps_its_split_when_it_moves_to_another_class_or_place() -> None:
    photos = made_up({"a": 300, "b": 300})
    shuffled = chosen(photos, np.random.default_rng(0).permutation(600).tolist())
    renamed = chosen(photos, list(range(600)), class_names=("zoo", "yard"))
    for other in (shuffled, renamed):
        assert split_by_hash(split(other)) == split_by_hash(split(photos))


def test_files_keep_their_split_when_the_folder_changes(tmp_path: Path) -> None:
    for k in range(40):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = tmp_path / f"{'ab'[k % 2]}/{k}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    before = split_by_hash(split(scan(tmp_path), validation=0.3, test=0.3))
    for k in range(0, 40, 7):
        file = tmp_path / f"{'ab'[k % 2]}/{k}.png"
        file.rename(file.with_name(f"renamed {k}.jpeg"))
    (tmp_path / "a/2.png").unlink()
    (tmp_path / "b/3.png").rename(tmp_path / "a/3.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a/new.png")
    after = split_by_hash(split(scan(tmp_path), validation=0.3, test=0.3))
    shared = before.keys() & after.keys()
    assert len(shared) == 39
    assert all(before[h] == after[h] for h in shared)


def test_identical_files_stay_together(tmp_path: Path) -> None:
    content = []
    for k in range(30):
        file = io.BytesIO()
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        content.append(file.getvalue())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k, data in enumerate(content[:20] if name == "a" else content[10:]):
            for number in range(3):
                (tmp_path / f"{name}/{k}-{number}.png").write_bytes(data)
    splits = split(scan(tmp_path))
    on: dict[bytes, set[str]] = {}
    for h, name in zip(splits.photos.hashes, splits_of(splits), strict=True):
        on.setdefault(h, set()).add(name)
    assert len(on) == 30
    assert all(len(names) == 1 for names in on.values())


# Small classes


@pytest.mark.parametrize("seed", range(40))
def test_every_class_is_in_every_split_even_with_three_photos(seed: int) -> None:
    photos = made_up({"a": 3, "b": 4, "c": 200})
    splits = split(photos, seed=seed)
    for row in splits.class_counts():
        assert min(row[name] for name in SPLITS) >= 1
    splits_of(splits)


@pytest.mark.parametrize("seed", range(40))
def test_no_more_photos_are_moved_than_needed(seed: int) -> None:
    photos = made_up({"a": 3, "b": 200})
    splits = split(photos, seed=seed)
    u = [u_of(h, seed) for h in photos.hashes]
    got, drawn = splits_of(splits), [split_by_rule(value, 0.15, 0.15) for value in u]
    assert got[3:] == drawn[3:]
    moved = [k for k in range(3) if got[k] != drawn[k]]
    assert sorted(got[k] for k in moved) == sorted(set(SPLITS) - set(drawn[:3]))
    for k in moved:  # its split has others left, and it is the nearest of them
        mates = [u[j] for j in range(3) if drawn[j] == drawn[k]]
        assert len(mates) > 1
        if drawn[k] == "train" and len(moved) == 1:
            assert u[k] == min(mates)
    if drawn[:3] == ["train"] * 3:
        assert [got[k] for k in np.argsort(u[:3])] == ["test", "validation", "train"]


def test_duplicates_move_together_in_a_small_class() -> None:
    photos = made_up({"a": 3, "b": 50})
    photos = chosen(photos, [0, 0, 0, 1, 1, 2, *range(3, 53)])
    for seed in range(20):
        splits = split(photos, seed=seed)
        assigned = splits_of(splits)
        assert len({*assigned[:3]}) == len({*assigned[3:5]}) == 1
        assert {*assigned[:6]} == set(SPLITS)


def places(labels: list[str], groups: list[int]) -> tuple[Photos, list[int]]:
    """Photos of classes a and b, each of a place that may have both."""
    order = np.argsort(labels, kind="stable")
    photos = made_up({name: labels.count(name) for name in sorted(set(labels))})
    return photos, [groups[k] for k in order]


@pytest.mark.parametrize("seed", range(60))
def test_a_class_keeps_its_last_group_in_a_split(seed: int) -> None:
    labels = ["a", "a", "a", "a", "b", "b", "b", "b"]
    photos, groups = places(labels, [1, 2, 3, 6, 1, 4, 5, 7])  # both classes are at place 1
    splits = split(photos, seed=seed, groups=groups)
    assert all(min(row[name] for name in SPLITS) >= 1 for row in splits.class_counts())


def test_groups_that_cannot_be_moved_are_an_error() -> None:
    photos, groups = places(["a"] * 3 + ["b"] * 3 + ["c"] * 3, [1, 2, 3, 1, 2, 3, 1, 2, 3])
    splits = split(photos, groups=groups)  # three places with one photo of each class
    assert all(min(row[name] for name in SPLITS) == 1 for row in splits.class_counts())
    photos, groups = places(["a"] * 3 + ["b"] * 3 + ["c"] * 3, [1, 2, 3, 4, 5, 6, 1, 4, 7])
    refused = 0
    for seed in range(200):
        try:
            splits = split(photos, seed=seed, groups=groups)
        except TooFewPhotosError as error:
            refused += "shares with other classes" in str(error)
        else:
            assert all(min(row[name] for name in SPLITS) >= 1 for row in splits.class_counts())
    assert 0 < refused < 200


def test_too_few_photos_names_the_class_and_says_what_to_do() -> None:
    with pytest.raises(TooFewPhotosError, match=r"'tiny'.*at least 3.*Received: 2.*Add photos"):
        split(made_up({"large": 50, "tiny": 2}))


def test_duplicates_do_not_count_as_different_photos() -> None:
    photos = made_up({"large": 50, "tiny": 2})
    with pytest.raises(TooFewPhotosError, match="2 in '/photos'"):
        split(chosen(photos, [*range(50), 50, 50, 50, 51]))


def test_too_few_classes_names_the_only_class() -> None:
    with pytest.raises(TooFewClassesError, match=r"only 'sea' in '/photos'.*named after the class"):
        split(made_up({"sea": 50}))


# Without validation


@pytest.mark.parametrize("zero", [0, 0.0])
def test_without_validation_there_are_train_and_test_only(zero: float) -> None:
    photos = made_up({"a": 200, "b": 2})
    splits = split(photos, validation=zero, test=0.2, seed=3)
    assert len(splits.validation) == 0
    assert len(splits) == 202
    assert all(row["train"] and row["test"] for row in splits.class_counts())
    with_validation = split(made_up({"a": 200, "b": 20}), validation=0.1, test=0.2, seed=3)
    expected = with_validation.test[with_validation.test < 200]  # the class "b" is too small
    np.testing.assert_array_equal(splits.test[splits.test < 200], expected)
    assert "0 validation" in repr(splits)


def test_fit_needs_validation_photos() -> None:
    splits = split(made_up({"a": 50, "b": 50}), validation=0)
    with pytest.raises(ArgumentError, match=r"`splits` must have validation photos.*0 validation"):
        sl.fit(splits)


def test_without_validation_an_assigned_validation_split_is_kept() -> None:
    photos = with_splits(made_up({"a": 30, "b": 30}), ["validation"] * 5 + [""] * 55)
    splits = split(photos, validation=0)
    assert splits.validation.tolist() == [0, 1, 2, 3, 4]


# Paths and other types


def test_a_path_is_scanned_first(tmp_path: Path) -> None:
    folder = sl.sample_scenes(tmp_path / "scenes", per_class=4)
    expected = split(scan(folder), seed=1)
    for photos in (folder, str(folder)):
        assert split(photos, seed=1).to_json() == expected.to_json()
        assert [len(part.test) for part in folds(photos, 3)] == [8, 8, 8]
    with pytest.raises(PathMissingError, match="does not exist"):
        split(tmp_path / "nothing")


@pytest.mark.parametrize("photos", [None, 3, ["a/1.jpg"], b"photos/", np.zeros((2, 8, 8, 3))])
def test_photos_of_another_type(photos: object) -> None:
    for function in (split, folds):
        message = rf"`photos` must be the result of `scan`.*{type(photos).__name__}.*sl\.scan"
        with pytest.raises(ArgumentError, match=message):
            function(photos)  # type: ignore[arg-type, operator]


# Splits that the folders assign


def test_an_assigned_test_split_is_kept_and_only_validation_is_drawn() -> None:
    given = ["train", "train", "test"] * 200
    photos = with_splits(made_up({"a": 300, "b": 300}), given)
    splits = split(photos, validation=0.25)
    expected = [
        "test" if name == "test" else "validation" if u_of(h, 0) < 0.25 else "train"
        for h, name in zip(photos.hashes, given, strict=True)
    ]
    assert splits_of(splits) == expected


def test_an_assigned_validation_split_is_kept_and_only_test_is_drawn() -> None:
    given = ["train", "", "validation"] * 200
    photos = with_splits(made_up({"a": 300, "b": 300}), given)
    expected = [
        "validation" if name == "validation" else "test" if u_of(h, 3) < 0.1 else "train"
        for h, name in zip(photos.hashes, given, strict=True)
    ]
    assert splits_of(split(photos, test=0.1, seed=3)) == expected


def test_three_assigned_splits_are_kept() -> None:
    given = list(SPLITS) * 20
    photos = with_splits(made_up({"a": 30, "b": 30}), given)
    assert splits_of(split(photos)) == given
    assert splits_of(split(photos, seed=9)) == given


def test_a_class_that_the_test_folder_lacks_gets_a_photo_from_training() -> None:
    photos = with_splits(made_up({"a": 30, "b": 30}), ["test"] * 5 + ["train"] * 55)
    splits = split(photos)
    assigned = splits_of(splits)
    assert assigned[:5] == ["test"] * 5
    u = [u_of(h, 0) for h in photos.hashes]
    of_b = [k for k in range(30, 60) if assigned[k] == "test"]
    assert len(of_b) == 1
    assert "test" not in assigned[5:30]
    in_the_largest_split = [k for k in range(30, 60) if u[k] >= 0.15]
    assert of_b == [min(in_the_largest_split, key=u.__getitem__)]


def test_photos_in_a_test_folder_are_never_trained_on() -> None:
    photos = with_splits(made_up({"a": 30, "b": 30}), ["test"] * 60)
    with pytest.raises(TooFewPhotosError, match=r"'a'.*Received: 0.*not counting its test photos"):
        split(photos)


# Arguments


@pytest.mark.parametrize("name", ["validation", "test"])
@pytest.mark.parametrize("fraction", [1, -0.1, 1.5, float("nan"), "0.15", None, True])
def test_fractions_out_of_range(name: str, fraction: object) -> None:
    with pytest.raises(
        ArgumentError, match=rf"`{name}` must be a fraction.*Received: {name}=.*Pass"
    ):
        split(made_up({"a": 50, "b": 50}), **{name: fraction})  # type: ignore[arg-type]


def test_fractions_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(ArgumentError, match=r"validation=0\.5, test=0\.5.*Lower one"):
        split(made_up({"a": 50, "b": 50}), validation=0.5, test=0.5)


def test_a_number_and_a_fraction_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(TooFewPhotosError, match=r"leave photos to train on.*15% requested"):
        split(made_up({"a": 50, "b": 50}), validation=0.15, test=90)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_seeds_out_of_range(seed: object) -> None:
    with pytest.raises(ArgumentError, match=r"`seed` must be an integer.*Received: seed="):
        split(made_up({"a": 50, "b": 50}), seed=seed)  # type: ignore[arg-type]


# The result


def test_rows_and_json_contain_the_splits() -> None:
    splits = split(made_up({"a": 50, "b": 60}), validation=0.2, test=0.1, seed=4)
    assert [row["label"] for row in splits.class_counts()] == ["a", "b"]
    assert [sum(row[name] for name in SPLITS) for row in splits.class_counts()] == [50, 60]
    data = json.loads(json.dumps(splits.to_json(), allow_nan=False))
    assert (data["seed"], data["validation_fraction"], data["test_fraction"]) == (4, 0.2, 0.1)
    for name in SPLITS:
        positions = getattr(splits, name)
        assert [entry["path"] for entry in data[name]] == [
            splits.photos.paths[k] for k in positions
        ]
        assert [bytes.fromhex(entry["hash"]) for entry in data[name]] == [
            splits.photos.hashes[k] for k in positions
        ]
    n = [len(getattr(splits, name)) for name in SPLITS]
    summary = f"{n[0]} train, {n[1]} validation, {n[2]} test"
    assert repr(splits) == f"<Splits: {summary}>"
    lines = str(splits).splitlines()
    assert lines[0] == summary
    assert [line.split()[-1] for line in lines[1:]] == ["label", "a", "b"]
    assert sum(map(int, lines[2].split()[:3])) == 50
    assert len(splits) == sum(n) == 110


def test_a_table_of_the_splits_is_a_data_frame() -> None:
    pytest.importorskip("pandas")
    splits = split(made_up({"a": 50, "b": 60}))
    table = splits.to_pandas()
    assert list(table.columns) == ["path", "label", "split"]
    assert sorted(table["path"]) == sorted(splits.photos.paths)
    assert table["split"].value_counts().to_dict() == {
        name: len(getattr(splits, name)) for name in SPLITS
    }


def test_splits_can_be_pickled_and_copied() -> None:
    splits = split(made_up({"a": 50, "b": 60}))
    unpickled = pickle.loads(pickle.dumps(splits))  # noqa: S301
    for again in (unpickled, copy.deepcopy(splits), copy.copy(splits)):
        assert again.to_json() == splits.to_json()


def test_html_is_escaped() -> None:
    page = split(made_up({"<script>": 50, "b": 50}))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
