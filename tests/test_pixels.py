"""The pixel cache, and how files are written: whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import stat
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenelearn.data import (
    Photos,
    Reason,
    _pixels,
    cache_folder,
    decode,
    need_space,
    scan,
    to_square,
    written_whole,
)
from scenelearn.errors import ArgumentError, DiskSpaceError, NoPhotosError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SCENELEARN_CACHE", str(folder))
    return folder


def photo(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Six photos of two classes."""
    for k in range(6):
        file = tmp_path / f"photos/{'ab'[k % 2]}/{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(k))
    return scan(tmp_path / "photos")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def no_decoding(content: bytes, side_px: int) -> None:
    pytest.fail("a photo was decoded although the cache has it")


# The cache


def test_each_row_is_the_photo_as_to_square_gives_it(photos: Photos) -> None:
    pixels = decode(photos, 16)
    assert pixels.images.shape == (6, 16, 16, 3)
    assert pixels.images.dtype == np.uint8
    assert pixels.image_px == 16
    assert pixels.usable.all()
    assert pixels.refused == ()
    for k in range(6):
        assert np.array_equal(pixels.images[k], to_square(photos.file(k).read_bytes(), 16))


def test_the_second_call_decodes_nothing(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decode(photos, 16)
    monkeypatch.setattr(_pixels, "to_square", no_decoding)
    second = decode(photos, 16)
    assert np.array_equal(first.images, second.images)


def test_the_cache_outlives_renaming_and_deleting(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = decode(photos, 16)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    moved = scan(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    monkeypatch.setattr(_pixels, "to_square", no_decoding)
    assert np.array_equal(first.images, decode(moved, 16).images)


def test_another_size_has_another_cache(photos: Photos, cache: Path) -> None:
    decode(photos, 16)
    assert decode(photos, 8).images.shape == (6, 8, 8, 3)
    assert len(list(cache.glob("pixels-*.npy"))) == 2


def test_another_content_has_another_cache(photos: Photos) -> None:
    before = decode(photos, 16)
    photos.file(0).write_bytes(photo(99))
    after = decode(scan(photos.folder), 16)
    assert np.array_equal(after.images[0], to_square(photo(99), 16))
    assert not np.array_equal(after.images[0], before.images[0])
    assert np.array_equal(after.images[1:], before.images[1:])


def test_another_order_has_another_cache(photos: Photos) -> None:
    before = decode(photos, 16)
    photos.file(0).rename(photos.file(0).with_name("zzz.jpg"))
    after = decode(scan(photos.folder), 16)
    assert np.array_equal(after.images[[2, 0, 1, 3, 4, 5]], before.images)


def test_more_photos_than_are_decoded_at_once(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pixels, "_CHUNK", 4)
    calls: list[tuple[int, int]] = []
    pixels = decode(photos, 16, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 6), (6, 6)]
    for k in range(6):
        assert np.array_equal(pixels.images[k], to_square(photos.file(k).read_bytes(), 16))


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"half of what was wri", None])
def test_a_damaged_cache_is_made_anew(
    photos: Photos, cache: Path, suffix: str, content: bytes | None
) -> None:
    before = np.array(decode(photos, 16).images)
    (file,) = cache.glob(f"pixels-*.{suffix}")
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert np.array_equal(decode(photos, 16).images, before)
    (file,) = cache.glob("pixels-*.npy")
    assert np.array_equal(np.load(file), before)


def test_a_cut_cache_is_made_anew(photos: Photos, cache: Path) -> None:
    before = np.array(decode(photos, 16).images)
    (file,) = cache.glob("pixels-*.npy")
    os.truncate(file, file.stat().st_size - 1)
    assert np.array_equal(decode(photos, 16).images, before)


# Photos that fail


def test_a_photo_deleted_after_the_scan_is_refused_and_the_rest_goes_on(photos: Photos) -> None:
    content = photos.file(2).read_bytes()
    photos.file(2).unlink()
    pixels = decode(photos, 16)
    assert pixels.usable.tolist() == [True, True, False, True, True, True]
    (refusal,) = pixels.refused
    assert refusal.path == photos.paths[2]
    assert refusal.reason is Reason.UNREADABLE
    assert "No such file" in refusal.detail
    assert not pixels.images[2].any()
    assert np.array_equal(pixels.images[3], to_square(photos.file(3).read_bytes(), 16))
    # Once it is back it is used: its absence was not kept.
    photos.file(2).write_bytes(content)
    assert decode(photos, 16).usable.all()
    assert np.array_equal(decode(photos, 16).images[2], to_square(content, 16))


def test_a_photo_changed_after_the_scan_is_refused(photos: Photos) -> None:
    content = photos.file(2).read_bytes()
    photos.file(2).write_bytes(photo(99))
    (refusal,) = decode(photos, 16).refused
    assert (refusal.path, refusal.reason) == (photos.paths[2], Reason.UNREADABLE)
    assert "changed since the scan; scan again" in refusal.detail
    photos.file(2).write_bytes(content)
    assert np.array_equal(decode(photos, 16).images[2], to_square(content, 16))


def test_absence_is_not_kept_even_where_an_old_cache_was_damaged(
    photos: Photos, cache: Path
) -> None:
    decode(photos, 16)
    (file,) = cache.glob("pixels-*.npy")
    file.write_bytes(b"")
    content = photos.file(2).read_bytes()
    photos.file(2).unlink()
    assert not decode(photos, 16).usable[2]
    photos.file(2).write_bytes(content)
    pixels = decode(photos, 16)
    assert pixels.usable.all()
    assert np.array_equal(pixels.images[2], to_square(content, 16))


def with_a_broken_code_table() -> bytes:
    """A JPEG that begins and ends as it should."""
    content = photo(50)
    table = content.index(b"\xff\xc4") + 5
    return content[:table] + b"\xff" * 16 + content[table + 16 :]


def with_broken_data() -> bytes:
    """A PNG that begins and ends as it should."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photo(50))).save(file, "PNG")
    content = file.getvalue()
    return content[:200] + b"\xff" * 200 + content[400:]


@pytest.mark.parametrize(
    ("content", "kind"), [(with_a_broken_code_table(), "JPEG"), (with_broken_data(), "PNG")]
)
def test_damage_that_the_scan_could_not_see_is_refused_with_its_reason(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, content: bytes, kind: str
) -> None:
    photos.file(4).write_bytes(content)
    again = scan(photos.folder)
    assert len(again) == 6
    pixels = decode(again, 16)
    (refusal,) = pixels.refused
    assert (refusal.path, refusal.reason) == (photos.paths[4], Reason.DAMAGED)
    assert refusal.detail.startswith(f"{kind}: ")
    # This follows from the content and is kept.
    monkeypatch.setattr(_pixels, "to_square", no_decoding)
    kept = decode(again, 16)
    assert kept.refused == pixels.refused
    assert kept.usable.tolist() == pixels.usable.tolist()


def test_no_photo_left_names_the_first_and_says_what_to_do(photos: Photos) -> None:
    for k in range(6):
        photos.file(k).unlink()
    with pytest.raises(
        NoPhotosError, match=r"No photo of .*photos.* First: a/0\.jpg.*Check"
    ) as err:
        decode(photos, 16)
    assert str(photos.folder) in str(err.value)


@pytest.mark.parametrize("value", [0, -1, 16.5, True, None])
def test_sizes_out_of_range(photos: Photos, cache: Path, value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`image_px` must.*Received: image_px=.*Pass e\.g\."):
        decode(photos, value)  # type: ignore[arg-type]
    assert files(cache) == []


# Disk


def test_too_little_space_writes_nothing(
    photos: Photos, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 2**20, 2**20))
    with pytest.raises(DiskSpaceError, match=r"Received: 1 MiB free.*SCENELEARN_CACHE") as caught:
        decode(photos, 16)
    assert str(cache) in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert files(cache) == []


def test_need_space_leaves_some_to_spare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 0, 100 * 2**20))
    need_space(tmp_path, 36 * 2**20, advice="buy a disk")
    with pytest.raises(DiskSpaceError, match="needs 37 MiB of free space"):
        need_space(tmp_path, 37 * 2**20, advice="buy a disk")


def test_an_interrupted_decoding_leaves_no_file(photos: Photos, cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert len(files(cache)) == 1  # the file that is being written
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(photos, 16, progress=stop)
    assert files(cache) == []


# The folder of caches


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "x/y"))
    assert cache_folder() == tmp_path / "x/y"
    assert (tmp_path / "x/y").is_dir()
    monkeypatch.delenv("SCENELEARN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/scenelearn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/scenelearn"
    monkeypatch.setenv("SCENELEARN_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "home/mine"


def test_a_cache_folder_that_cannot_be_made_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(ArgumentError, match=r"`SCENELEARN_CACHE`.*file/cache.*another folder"):
        cache_folder()


# Written whole


def write(path: Path) -> None:
    with written_whole(path) as temporary:
        temporary.write_text("new")


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep/er/result.json"
    with written_whole(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert files(target.parent) == ["result.json"]


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    with suppress(KeyboardInterrupt), written_whole(target) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert files(tmp_path) == ["result.json"]


def test_the_old_content_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")
    with written_whole(str(target)) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with written_whole(tmp_path / "whole") as temporary:
        temporary.write_text("")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "whole")}
    assert len(modes) == 1


def test_a_long_name_is_no_trouble(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 250 + ".json")
    with written_whole(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_a_folder_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"`path` must name a file.*Add a file name"):
        write(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file/result.json", tmp_path / "file/deep/result.json"):
        with pytest.raises(ArgumentError, match=r"`path` must lie in a folder.*Choose another"):
            write(path)
    assert files(tmp_path) == ["file"]


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(ArgumentError, match=r"result\.json.*Permission denied"):
        write(tmp_path / "result.json")
