"""The sides of the photos: the documented rule, stability, and every promise around it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenelearn.data import Photos, Splits, scan, split
from scenelearn.errors import ArgumentError, TooFewClassesError, TooFewPhotosError

SIDES = ("train", "validation", "test")


def made_up(
    counts: dict[str, int], *, start: int = 0, sides: dict[str, str] | None = None
) -> Photos:
    """Photos without files: photo k of all has the hash of k."""
    names = tuple(sorted(counts))
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [counts[name] for name in names])
    numbers = range(start, start + len(labels))
    return Photos(
        folder=Path("/photos"),
        paths=tuple(f"{names[k]}/{n}.jpg" for n, k in zip(numbers, labels, strict=True)),
        labels=labels,
        class_names=names,
        hashes=tuple(hashed(n) for n in numbers),
        sides=tuple((sides or {}).get(names[k], "") for k in labels),
    )


def hashed(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def chosen(photos: Photos, positions: list[int], class_names: tuple[str, ...] = ()) -> Photos:
    """Some of the photos, in this order."""
    return Photos(
        folder=photos.folder,
        paths=tuple(photos.paths[k] for k in positions),
        labels=photos.labels[positions],
        class_names=class_names or photos.class_names,
        hashes=tuple(photos.hashes[k] for k in positions),
        sides=tuple(photos.sides[k] for k in positions),
    )


def u_of(content_hash: bytes, seed: int) -> float:
    """The rule as documented, computed anew."""
    key = hashlib.sha256(str(seed).encode("ascii")).digest()
    digest = hashlib.blake2b(content_hash, digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little") / 2**64


def side_by_rule(u: float, validation: float, test: float) -> str:
    if u < test:
        return "test"
    return "validation" if u < test + validation else "train"


def sides_of(splits: Splits) -> list[str]:
    """The side of each photo; each photo is on exactly one."""
    sides = [""] * len(splits.photos)
    for side in SIDES:
        for k in getattr(splits, side):
            assert sides[k] == ""
            sides[k] = side
    assert "" not in sides
    return sides


def side_by_hash(splits: Splits) -> dict[bytes, str]:
    return dict(zip(splits.photos.hashes, sides_of(splits), strict=True))


# The rule


@pytest.mark.parametrize("seed", [0, 1, 12345678901234567890])
@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.3, 0.1), (0.05, 0.6)])
def test_sides_follow_the_documented_rule(seed: int, validation: float, test: float) -> None:
    photos = made_up({"a": 200, "b": 300})
    splits = split(photos, validation, test, seed)
    expected = [side_by_rule(u_of(h, seed), validation, test) for h in photos.hashes]
    assert sides_of(splits) == expected


def test_defaults_are_15_percent_each_and_seed_0() -> None:
    photos = made_up({"a": 200, "b": 300})
    expected = [side_by_rule(u_of(h, 0), 0.15, 0.15) for h in photos.hashes]
    assert sides_of(split(photos)) == expected


def test_positions_are_ascending_int64() -> None:
    splits = split(made_up({"a": 50, "b": 50}))
    for side in SIDES:
        positions = getattr(splits, side)
        assert positions.dtype == np.int64
        assert (np.diff(positions) > 0).all()


def test_shares_are_the_asked_ones_up_to_chance() -> None:
    n = 10_000
    photos = made_up({"a": n, "b": n})
    splits = split(photos, validation=0.2, test=0.1)
    for k in range(2):
        for side, share in (("validation", 0.2), ("test", 0.1), ("train", 0.7)):
            got = (photos.labels[getattr(splits, side)] == k).sum()
            assert abs(got - n * share) < 4 * (n * share * (1 - share)) ** 0.5


def test_another_seed_draws_independently() -> None:
    photos = made_up({"a": 5_000, "b": 5_000})
    first, second = (set(split(photos, test=0.2, seed=seed).test.tolist()) for seed in (0, 1))
    expected = 10_000 * 0.2 * 0.2
    assert abs(len(first & second) - expected) < 4 * (expected * (1 - 0.04)) ** 0.5


def test_the_same_seed_draws_the_same() -> None:
    photos = made_up({"a": 50, "b": 50})
    assert sides_of(split(photos, seed=7)) == sides_of(split(photos, seed=7))


# Stability


def test_a_photo_keeps_its_side_when_others_are_added_or_removed() -> None:
    photos = made_up({"a": 300, "b": 300})
    before = side_by_hash(split(photos))
    fewer = chosen(photos, list(range(0, 600, 2)))
    more = made_up({"a": 300, "b": 300, "c": 400})
    for other in (fewer, more):
        after = side_by_hash(split(other))
        shared = before.keys() & after.keys()
        assert len(shared) >= 300
        assert all(before[h] == after[h] for h in shared)


def test_a_photo_keeps_its_side_when_it_moves_to_another_class_or_place() -> None:
    photos = made_up({"a": 300, "b": 300})
    shuffled = chosen(photos, np.random.default_rng(0).permutation(600).tolist())
    renamed = chosen(photos, list(range(600)), class_names=("zoo", "yard"))
    for other in (shuffled, renamed):
        assert side_by_hash(split(other)) == side_by_hash(split(photos))


def test_files_keep_their_side_when_the_folder_changes(tmp_path: Path) -> None:
    for k in range(40):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = tmp_path / f"{'ab'[k % 2]}/{k}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    before = side_by_hash(split(scan(tmp_path), 0.3, 0.3))
    for k in range(0, 40, 7):
        file = tmp_path / f"{'ab'[k % 2]}/{k}.png"
        file.rename(file.with_name(f"renamed {k}.jpeg"))
    (tmp_path / "a/2.png").unlink()
    (tmp_path / "b/3.png").rename(tmp_path / "a/3.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a/new.png")
    after = side_by_hash(split(scan(tmp_path), 0.3, 0.3))
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
            for copy in range(3):
                (tmp_path / f"{name}/{k}-{copy}.png").write_bytes(data)
    splits = split(scan(tmp_path))
    on: dict[bytes, set[str]] = {}
    for h, side in zip(splits.photos.hashes, sides_of(splits), strict=True):
        on.setdefault(h, set()).add(side)
    assert len(on) == 30
    assert all(len(sides) == 1 for sides in on.values())


# Small classes


@pytest.mark.parametrize("seed", range(40))
def test_every_class_is_on_every_side_even_with_three_photos(seed: int) -> None:
    photos = made_up({"a": 3, "b": 4, "c": 200})
    splits = split(photos, seed=seed)
    for row in splits.to_rows():
        assert min(row[side] for side in SIDES) >= 1
    sides_of(splits)


@pytest.mark.parametrize("seed", range(40))
def test_only_as_many_photos_are_moved_as_are_needed(seed: int) -> None:
    photos = made_up({"a": 3, "b": 200})
    splits = split(photos, seed=seed)
    u = [u_of(h, seed) for h in photos.hashes]
    got, drawn = sides_of(splits), [side_by_rule(value, 0.15, 0.15) for value in u]
    assert got[3:] == drawn[3:]
    moved = [k for k in range(3) if got[k] != drawn[k]]
    assert sorted(got[k] for k in moved) == sorted(set(SIDES) - set(drawn[:3]))
    for k in moved:  # it was spared by a side that has others, and lay nearest there
        mates = [u[j] for j in range(3) if drawn[j] == drawn[k]]
        assert len(mates) > 1
        if drawn[k] == "train" and len(moved) == 1:
            assert u[k] == min(mates)
    if drawn[:3] == ["train"] * 3:
        assert [got[k] for k in np.argsort(u[:3])] == ["test", "validation", "train"]


def test_copies_move_together_in_a_small_class() -> None:
    photos = made_up({"a": 3, "b": 50})
    photos = chosen(photos, [0, 0, 0, 1, 1, 2, *range(3, 53)])
    for seed in range(20):
        splits = split(photos, seed=seed)
        sides = sides_of(splits)
        assert len({*sides[:3]}) == len({*sides[3:5]}) == 1
        assert {*sides[:6]} == set(SIDES)


def test_too_few_photos_names_the_class_and_says_what_to_do() -> None:
    with pytest.raises(TooFewPhotosError, match=r"'tiny'.*at least 3.*Received: 2.*Add photos"):
        split(made_up({"large": 50, "tiny": 2}))


def test_copies_do_not_count_as_different_photos() -> None:
    photos = made_up({"large": 50, "tiny": 2})
    with pytest.raises(TooFewPhotosError, match="2 in '/photos'"):
        split(chosen(photos, [*range(50), 50, 50, 50, 51]))


def test_too_few_classes_names_the_one() -> None:
    with pytest.raises(TooFewClassesError, match=r"only 'sea' in '/photos'.*side by side"):
        split(made_up({"sea": 50}))


# Sides that the folders give


def with_sides(photos: Photos, sides: list[str]) -> Photos:
    return Photos(
        folder=photos.folder,
        paths=photos.paths,
        labels=photos.labels,
        class_names=photos.class_names,
        hashes=photos.hashes,
        sides=tuple(sides),
    )


def test_a_given_test_folder_is_kept_and_only_validation_is_drawn() -> None:
    given = ["train", "train", "test"] * 200
    photos = with_sides(made_up({"a": 300, "b": 300}), given)
    splits = split(photos, validation=0.25)
    expected = [
        "test" if side == "test" else "validation" if u_of(h, 0) < 0.25 else "train"
        for h, side in zip(photos.hashes, given, strict=True)
    ]
    assert sides_of(splits) == expected


def test_a_given_validation_folder_is_kept_and_only_test_is_drawn() -> None:
    given = ["train", "", "validation"] * 200
    photos = with_sides(made_up({"a": 300, "b": 300}), given)
    expected = [
        "validation" if side == "validation" else "test" if u_of(h, 3) < 0.1 else "train"
        for h, side in zip(photos.hashes, given, strict=True)
    ]
    assert sides_of(split(photos, test=0.1, seed=3)) == expected


def test_three_given_sides_are_kept_as_they_are() -> None:
    given = list(SIDES) * 20
    photos = with_sides(made_up({"a": 30, "b": 30}), given)
    assert sides_of(split(photos)) == given
    assert sides_of(split(photos, seed=9)) == given


def test_a_class_that_a_given_test_folder_lacks_gets_one_from_training() -> None:
    photos = with_sides(made_up({"a": 30, "b": 30}), ["test"] * 5 + ["train"] * 55)
    splits = split(photos)
    sides = sides_of(splits)
    assert sides[:5] == ["test"] * 5
    u = [u_of(h, 0) for h in photos.hashes]
    of_b = [k for k in range(30, 60) if sides[k] == "test"]
    assert len(of_b) == 1
    assert "test" not in sides[5:30]
    in_the_largest_side = [k for k in range(30, 60) if u[k] >= 0.15]
    assert of_b == [min(in_the_largest_side, key=u.__getitem__)]


def test_photos_in_a_test_folder_cannot_train() -> None:
    photos = with_sides(made_up({"a": 30, "b": 30}), ["test"] * 60)
    with pytest.raises(TooFewPhotosError, match=r"'a'.*Received: 0.*test folders not counted"):
        split(photos)


# Arguments


@pytest.mark.parametrize("name", ["validation", "test"])
@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "0.15", None, True])
def test_shares_out_of_range(name: str, share: object) -> None:
    with pytest.raises(ArgumentError, match=rf"`{name}` must be a share.*Received: {name}=.*Pass"):
        split(made_up({"a": 50, "b": 50}), **{name: share})  # type: ignore[arg-type]


def test_shares_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(ArgumentError, match=r"validation=0\.5, test=0\.5.*Lower one"):
        split(made_up({"a": 50, "b": 50}), 0.5, 0.5)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_seeds_out_of_range(seed: object) -> None:
    with pytest.raises(ArgumentError, match=r"`seed` must be a whole number.*Received: seed="):
        split(made_up({"a": 50, "b": 50}), seed=seed)  # type: ignore[arg-type]


# What it offers


def test_rows_and_json_hold_the_split() -> None:
    splits = split(made_up({"a": 50, "b": 60}), validation=0.2, test=0.1, seed=4)
    assert [row["class"] for row in splits.to_rows()] == ["a", "b"]
    assert [sum(row[side] for side in SIDES) for row in splits.to_rows()] == [50, 60]
    data = json.loads(json.dumps(splits.to_json(), allow_nan=False))
    assert (data["seed"], data["validation_share"], data["test_share"]) == (4, 0.2, 0.1)
    for side in SIDES:
        positions = getattr(splits, side)
        assert [entry["path"] for entry in data[side]] == [
            splits.photos.paths[k] for k in positions
        ]
        assert [bytes.fromhex(entry["hash"]) for entry in data[side]] == [
            splits.photos.hashes[k] for k in positions
        ]
    n = [len(getattr(splits, side)) for side in SIDES]
    assert str(splits) == f"{n[0]} photos to train, {n[1]} to validate, {n[2]} to test"


def test_what_a_notebook_shows_is_escaped() -> None:
    page = split(made_up({"<script>": 50, "b": 50}))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
