"""Copies, contradictions and leaks are found, planted ones by the list of what was planted."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn import cli
from scenelearn.data import Reason
from scenelearn.errors import ArgumentError


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cropped(image: Image.Image) -> Image.Image:
    left, top = round(0.04 * image.width), round(0.01 * image.height)
    right, bottom = left + round(0.95 * image.width), top + round(0.95 * image.height)
    return image.crop((left, top, right, bottom))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 30": lambda image: encoded(image, 30),
    "quality 95": lambda image: encoded(image, 95),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "cropped": cropped,
}


def plant(source: list[Path], folder: Path, n: int) -> dict[str, str]:
    """`n` changed photos beside their originals in the same class; new path -> old path."""
    planted = {}
    for at, path in enumerate(random.Random(0).sample(source, n)):
        name, change = list(CHANGES.items())[at % len(CHANGES)]
        new = path.with_name(f"planted {name} {at}.jpg")
        with Image.open(path) as image:
            change(image.convert("RGB")).save(new, quality=90)
        planted[new.relative_to(folder).as_posix()] = path.relative_to(folder).as_posix()
    return planted


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return sl.sample_scenes(tmp_path / "scenes", per_class=15)


def test_changed_photos_are_found_and_stay_on_one_side(scenes: Path) -> None:
    before = sl.audit(sl.scan(scenes))
    assert before.copies == before.blank == before.tiny == ()
    planted = plant(sorted(scenes.rglob("*.jpg")), scenes, 18)
    photos = sl.scan(scenes)
    found = sl.audit(photos)
    group = dict(zip(photos.paths, found.groups.tolist(), strict=True))
    assert all(group[new] == group[old] for new, old in planted.items())
    splits = sl.split(photos, seed=1, groups=found.groups)
    sides = [set(found.groups[getattr(splits, s)]) for s in ("train", "validation", "test")]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_copies_labels_and_sides(tmp_path: Path) -> None:
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
    assert [named(group) for group in found.copies] == [same]
    assert [named(group) for group in found.two_labels] == [same]
    assert [named(group) for group in found.across_sides] == [same]
    assert found.alike == ()
    assert named(found.blank) == {"train/a/blank.png"}
    assert named(found.tiny) == {"train/b/tiny.png"}
    assert "1 groups of identical files" in str(found)
    assert json.loads(json.dumps(found.to_json()))["n_photos"] == 6
    assert "<pre>" in found._repr_html_()


def test_photos_that_went_bad_since_the_scan_are_named(scenes: Path) -> None:
    photos = sl.scan(scenes)
    photos.file(0).unlink()
    photos.file(1).write_bytes(b"no photo any more")
    refused = {one.path: one for one in sl.audit(photos).refused}
    assert set(refused) == set(photos.paths[:2])
    assert all(one.reason is Reason.UNREADABLE for one in refused.values())
    assert "scan again" in refused[photos.paths[1]].detail


def test_the_command_lists_what_it_found(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = next(path for path in sorted(scenes.iterdir()) if path.is_dir())
    photo = sorted(folder.iterdir())[0]
    (folder / "again.jpg").write_bytes(photo.read_bytes())
    (folder / "broken.jpg").write_bytes(photo.read_bytes()[:200])
    assert cli.main(["audit", str(scenes), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {
        row["path"].split("/")[1] for row in value["findings"] if row["finding"] == "copies"
    } == {
        "again.jpg",
        photo.name,
    }
    assert [one["path"].split("/")[1] for one in value["refused"]] == ["broken.jpg"]


@pytest.mark.parametrize("groups", [[0, 1], [0.5] * 12])
def test_groups_must_be_one_number_a_photo(tmp_path: Path, groups: list[float]) -> None:
    photos = sl.scan(sl.sample_scenes(tmp_path / "few", per_class=2))
    with pytest.raises(ArgumentError, match="one whole number for each photo"):
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
    hit = sum(group[new] == group[old] for new, old in planted.items())
    assert hit >= 57  # 95 %
    real = [g for g in found.alike if not any(photos.paths[i] in planted for i in g)]
    assert sum(map(len, real)) <= 30, [[photos.paths[i] for i in g] for g in real]
