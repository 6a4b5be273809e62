"""The pixel cache: each photo is decoded once, whatever happens to its files."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from scenelearn.data import Photos, Pixels, RejectionReason, _pixels, decode, scan, to_image
from scenelearn.data._decode import decode_photo
from scenelearn.errors import ArgumentError, DiskError, NoPhotosError, PhotoError
from tests.helpers.faults import faults, needs_proc

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache folder for each test."""
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
    return put_photos(tmp_path, 6)


@pytest.fixture
def many(tmp_path: Path) -> Photos:
    """150 photos, more than the 64 of the smallest shard."""
    return put_photos(tmp_path, 150)


def put_photos(tmp_path: Path, n: int) -> Photos:
    for k in range(n):
        file = tmp_path / f"photos/{'ab'[k % 2]}/{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(k))
    return scan(tmp_path / "photos")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def images_of(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """The images of all photos; each can be read."""
    images, indices = pixels.read(np.arange(len(pixels.usable)))
    assert indices.tolist() == list(range(len(pixels.usable)))
    return images


def shard_files(cache: Path, suffix: str = "npy") -> list[Path]:
    return sorted(cache.glob(f"pixels-*/*.{suffix}"))


@contextlib.contextmanager
def decoded_photos() -> Any:
    """The contents that are decoded while the context is open."""
    contents: list[bytes] = []
    original = Image.open

    def open_(file: io.BytesIO, *arguments: Any, **options: Any) -> Any:
        contents.append(file.getvalue())
        return original(file, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", open_)
        yield contents


# The cache


def test_each_image_equals_to_image_of_the_file(photos: Photos) -> None:
    pixels = decode(photos, 16)
    assert images_of(pixels).shape == (6, 16, 16, 3)
    assert images_of(pixels).dtype == np.uint8
    assert pixels.image_px == 16
    assert pixels.usable.all()
    assert pixels.rejected == ()
    for k in range(6):
        assert np.array_equal(images_of(pixels)[k], to_image(photos.file(k).read_bytes(), 16))


def test_each_shape_has_a_cache_of_its_own(photos: Photos) -> None:
    for _ in range(2):  # decoded, then from the cache
        for size, shape in ((16, "crop"), (16, "pad"), (16, "squash"), ((8, 16), "pad")):
            pixels = decode(photos, size, shape=shape)
            assert pixels.image_px == size
            expected = [to_image(photos.read(k), size, shape) for k in range(6)]
            assert np.array_equal(images_of(pixels), expected)
    with pytest.raises(ArgumentError, match="`shape` must be one of"):
        decode(photos, 16, shape="stretch")


def test_the_second_call_decodes_nothing(photos: Photos) -> None:
    with decoded_photos() as decoded:
        first = decode(photos, 16)
    assert len(decoded) == 6
    with decoded_photos() as decoded:
        second = decode(photos, 16)
    assert decoded == []
    assert np.array_equal(images_of(first), images_of(second))


def test_the_cache_survives_renaming_and_deleting(photos: Photos, tmp_path: Path) -> None:
    first = decode(photos, 16)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    moved = scan(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    assert np.array_equal(images_of(first), images_of(decode(moved, 16)))


def test_another_size_has_another_cache(photos: Photos, cache: Path) -> None:
    decode(photos, 16)
    assert images_of(decode(photos, 8)).shape == (6, 8, 8, 3)
    assert len(shard_files(cache)) == 2


def test_only_new_photos_are_decoded(photos: Photos) -> None:
    before = images_of(decode(photos, 16))
    photos.file(0).write_bytes(photo(99))
    (photos.folder / "b/new.jpg").write_bytes(photo(98))
    (photos.folder / "b/1.jpg").rename(photos.folder / "b/zzz.jpg")
    (photos.folder / "b/3.jpg").unlink()
    again = scan(photos.folder)
    with decoded_photos() as decoded:
        after = images_of(decode(again, 16))
    assert sorted(decoded) == sorted([photo(98), photo(99)])
    assert again.paths == ("a/0.jpg", "a/2.jpg", "a/4.jpg", "b/5.jpg", "b/new.jpg", "b/zzz.jpg")
    assert np.array_equal(after[0], to_image(photo(99), 16))
    assert np.array_equal(after[4], to_image(photo(98), 16))
    row_of = dict(zip(photos.hashes, before, strict=True))
    for k in (1, 2, 3, 5):
        assert np.array_equal(after[k], row_of[again.hashes[k]])


def test_identical_files_are_decoded_once(photos: Photos, cache: Path) -> None:
    (photos.folder / "b/copy.jpg").write_bytes(photos.read(0))
    pixels = decode(scan(photos.folder), 16)
    assert len(images_of(pixels)) == 7
    (file,) = shard_files(cache)
    assert len(np.load(file)) == 6


def test_a_duplicate_replaces_a_missing_file(photos: Photos) -> None:
    (photos.folder / "b/copy.jpg").write_bytes(photos.read(0))
    again = scan(photos.folder)
    again.file(0).unlink()
    assert decode(again, 16).usable.all()


def test_more_photos_than_a_shard_holds(many: Photos, cache: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    pixels = decode(many, 16, progress=lambda *call: calls.append(call))
    assert calls == [("decoding photos", done, 150) for done in (64, 128, 150)]
    assert len(shard_files(cache)) == 3
    for k in (0, 63, 64, 149):
        assert np.array_equal(images_of(pixels)[k], to_image(many.file(k).read_bytes(), 16))
    some, indices = pixels.read([75, 0, 75, 2])
    assert indices.tolist() == [75, 0, 75, 2]
    assert np.array_equal(some, images_of(pixels)[[75, 0, 75, 2]])


def test_what_an_interrupted_run_has_decoded_is_kept(many: Photos, cache: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(many, 16, progress=stop)
    n_kept = len(shard_files(cache))
    assert n_kept in {2, 3}  # a shard that is being written is finished
    calls: list[tuple[str, int, int]] = []
    with decoded_photos() as decoded:
        pixels = decode(many, 16, progress=lambda *call: calls.append(call))
    assert len(decoded) == max(0, 150 - 64 * n_kept)
    assert calls == ([("decoding photos", 150, 150)] if decoded else [])
    assert pixels.usable.all()


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY", b"half of what was wri", b"[]", b'{"hashes": 3}', b'{"hashes": [1]}', None],
)
def test_a_damaged_cache_is_rebuilt(
    photos: Photos, cache: Path, suffix: str, content: bytes | None
) -> None:
    before = images_of(decode(photos, 16))
    (file,) = shard_files(cache, suffix)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert np.array_equal(images_of(decode(photos, 16)), before)
    (file,) = shard_files(cache)
    assert len(np.load(file)) == 6


def test_a_truncated_cache_is_rebuilt(photos: Photos, cache: Path) -> None:
    before = images_of(decode(photos, 16))
    (file,) = shard_files(cache)
    os.truncate(file, file.stat().st_size - 1)
    assert np.array_equal(images_of(decode(photos, 16)), before)


@pytest.mark.parametrize("damage", ["cut off", "deleted"])
def test_photos_are_decoded_again_if_the_cache_is_damaged_meanwhile(
    photos: Photos, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = decode(photos, 16)
    before = images_of(pixels)
    (file,) = shard_files(cache)
    if damage == "cut off":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.unlink()
    for _ in range(2):
        assert np.array_equal(images_of(pixels), before)
    (message,) = caplog.messages
    assert f"{file} cannot be read anymore" in message
    assert not pixels.rejected
    assert np.array_equal(images_of(decode(photos, 16)), before)


# Photos that fail


def test_a_photo_deleted_after_the_scan_is_rejected_and_the_rest_is_decoded(photos: Photos) -> None:
    content = photos.file(2).read_bytes()
    photos.file(2).unlink()
    pixels = decode(photos, 16)
    assert pixels.usable.tolist() == [True, True, False, True, True, True]
    (rejection,) = pixels.rejected
    assert rejection.path == photos.paths[2]
    assert rejection.reason is RejectionReason.UNREADABLE
    assert "No such file" in rejection.detail
    images, indices = pixels.read([1, 2, 3])
    assert indices.tolist() == [1, 3]
    assert np.array_equal(images[1], to_image(photos.file(3).read_bytes(), 16))
    # Once the file is back it is used: its absence was not cached.
    photos.file(2).write_bytes(content)
    assert decode(photos, 16).usable.all()
    assert np.array_equal(images_of(decode(photos, 16))[2], to_image(content, 16))


def test_a_photo_changed_after_the_scan_is_rejected(photos: Photos) -> None:
    content = photos.file(2).read_bytes()
    photos.file(2).write_bytes(photo(99))
    (rejection,) = decode(photos, 16).rejected
    assert (rejection.path, rejection.reason) == (photos.paths[2], RejectionReason.UNREADABLE)
    assert "changed since the scan; scan again" in rejection.detail
    photos.file(2).write_bytes(content)
    assert np.array_equal(images_of(decode(photos, 16))[2], to_image(content, 16))


def test_a_missing_photo_is_not_remembered_even_if_the_cache_was_damaged(
    photos: Photos, cache: Path
) -> None:
    decode(photos, 16)
    (file,) = shard_files(cache)
    file.write_bytes(b"")
    content = photos.file(2).read_bytes()
    photos.file(2).unlink()
    assert not decode(photos, 16).usable[2]
    photos.file(2).write_bytes(content)
    pixels = decode(photos, 16)
    assert pixels.usable.all()
    assert np.array_equal(images_of(pixels)[2], to_image(content, 16))


def with_a_broken_code_table() -> bytes:
    """A JPEG that has a valid start and end."""
    content = photo(50)
    table = content.index(b"\xff\xc4") + 5
    return content[:table] + b"\xff" * 16 + content[table + 16 :]


def with_broken_data() -> bytes:
    """A PNG that has a valid start and end."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photo(50))).save(file, "PNG")
    content = file.getvalue()
    return content[:200] + b"\xff" * 200 + content[400:]


@pytest.mark.parametrize(
    ("content", "kind"), [(with_a_broken_code_table(), "JPEG"), (with_broken_data(), "PNG")]
)
def test_damage_that_the_scan_could_not_see_is_reported(
    photos: Photos, content: bytes, kind: str
) -> None:
    photos.file(4).write_bytes(content)
    again = scan(photos.folder)
    assert len(again) == 6
    pixels = decode(again, 16)
    (rejection,) = pixels.rejected
    assert (rejection.path, rejection.reason) == (photos.paths[4], RejectionReason.DAMAGED)
    assert rejection.detail.startswith(f"{kind}: ")
    # This failure follows from the content, so it is cached.
    with decoded_photos() as decoded:
        kept = decode(again, 16)
    assert decoded == []
    assert kept.rejected == pixels.rejected
    assert kept.usable.tolist() == pixels.usable.tolist()


def test_no_usable_photo_names_the_first_and_says_what_to_do(photos: Photos) -> None:
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


def streamed(photos: Photos, caplog: pytest.LogCaptureFixture) -> Pixels:
    """The pixels of photos that are not cached; checks that one warning says so."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        pixels = decode(photos, 16)
    (record,) = caplog.records
    assert "not cached, but decoded each time" in record.getMessage()
    assert "SCENELEARN_CACHE" in record.getMessage()
    caplog.clear()
    return pixels


def test_too_little_space_means_decoding_each_time(
    photos: Photos,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept = images_of(decode(photos, 16))
    shutil.rmtree(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 2**20, 2**20))
    assert np.array_equal(images_of(streamed(photos, caplog)), kept)
    assert shard_files(cache) == []


def test_the_cache_does_not_exceed_its_limit(
    photos: Photos,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = decode(photos, 16)
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    (photos.folder / "b/new.jpg").write_bytes(photo(98))
    again = scan(photos.folder)
    with decoded_photos() as decoded:
        pixels = streamed(again, caplog)
    assert decoded == []
    images = images_of(pixels)
    new = again.paths.index("b/new.jpg")
    assert np.array_equal(images[new], to_image(photo(98), 16))
    assert np.array_equal(np.delete(images, new, axis=0), images_of(first))


def test_what_fits_into_the_cache_is_cached(
    many: Photos, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", str(100.5 * 3 * 16 * 16 / 2**30))  # 100 photos
    first = decode(many, 16)
    assert "The pixels of 50 photos are not cached, but decoded each time" in caplog.text
    monkeypatch.delenv("SCENELEARN_CACHE_GIB")
    with decoded_photos() as decoded:
        second = decode(many, 16)
    assert len(decoded) == 50
    assert np.array_equal(images_of(first), images_of(second))


def test_a_full_cache_that_has_all_photos_is_no_reason_to_warn(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode(photos, 16)
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    decode(photos, 16)
    assert caplog.text == ""


def test_a_cache_that_takes_some_photos_leaves_space_for_all_else(
    many: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    image_bytes = 3 * 16 * 16
    free = 64 * 2**20 + 20 * image_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
        patch.setattr(_pixels, "_SPARE_BYTES", free - 10 * image_bytes)
        decode(many, 16)
    assert "The pixels of 140 photos are not cached" in caplog.text
    with decoded_photos() as decoded:
        decode(many, 16)
    assert len(decoded) == 140


def test_ctrl_c_ends_the_shards_that_are_being_written(
    many: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def slow(photos: Photos, index: int, function: Any) -> Any:
        decoded.append(index)
        time.sleep(0.01)
        return decode_photo(photos, index, function)

    def stop(*_: object) -> None:  # when the first shard is complete, and the last one begins
        raise KeyboardInterrupt

    monkeypatch.setenv("SCENELEARN_THREADS", "2")
    monkeypatch.setattr(_pixels, "_MIN_SHARD", 50)
    monkeypatch.setattr(_pixels, "decode_photo", slow)
    monkeypatch.setattr(_pixels, "add_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        decode(many, 16)
    assert 50 <= len(decoded) < 150


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "many"])
def test_a_cache_limit_that_is_not_a_number(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", value)
    with pytest.raises(ArgumentError, match=rf"`SCENELEARN_CACHE_GIB` must.*'{value}'.*e\.g\. 64"):
        decode(photos, 16)


@needs_proc
def test_a_disk_that_fills_up_costs_no_photo(
    photos: Photos, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with faults(cache) as disk:
        decode(photos, 16)
    shutil.rmtree(cache)
    n = next(k for k, call in enumerate(disk.calls) if call.kind == "write")
    with caplog.at_level(logging.WARNING), faults(cache, n, errno.ENOSPC):
        pixels = decode(photos, 16)
    assert "No space left on device" in caplog.text
    assert len(images_of(pixels)) == 6


@needs_proc
def test_a_cache_that_cannot_be_read_now_is_kept(photos: Photos, cache: Path) -> None:
    decode(photos, 16)
    with faults(cache) as disk:
        decode(photos, 16)
    assert len(disk.calls) >= 3
    for n in range(len(disk.calls)):
        with faults(cache, n, errno.EMFILE), contextlib.suppress(DiskError):
            decode(photos, 16)
        with decoded_photos() as decoded:
            assert decode(photos, 16).usable.all()
        assert decoded == []


def test_photos_lost_while_reading_are_logged_once(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    pixels = streamed(photos, caplog)
    assert pixels.rejected == ()
    photos.file(1).unlink()
    photos.file(4).write_bytes(b"no photo any more")
    for _ in range(2):
        images, indices = pixels.read(np.arange(6))
        assert indices.tolist() == [0, 2, 3, 5]
        assert np.array_equal(images[1], to_image(photos.read(2), 16))
    assert [one.path for one in pixels.rejected] == [photos.paths[1], photos.paths[4]]
    assert len(caplog.records) == 2
    assert photos.paths[1] in caplog.text


# Broken photos: skipped, or an error


def test_raise_names_the_first_broken_photo(photos: Photos) -> None:
    photos.file(2).write_bytes(with_broken_data())
    photos.file(4).write_bytes(with_broken_data())
    again = scan(photos.folder)
    with pytest.raises(PhotoError, match="since broken='raise'") as caught:
        decode(again, 16, broken="raise")
    assert photos.paths[2] in str(caught.value)
    assert photos.paths[4] not in str(caught.value)
    assert "damaged image" in str(caught.value)
    assert "or pass broken='skip'" in str(caught.value)
    assert decode(again, 16).usable.sum() == 4


def test_raise_also_stops_without_a_cache(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    pixels = decode(photos, 16, broken="raise")
    photos.file(2).unlink()
    with pytest.raises(PhotoError, match="No such file"):
        pixels.read([1, 2])


@pytest.mark.parametrize("value", ["ignore", None, True])
def test_invalid_values_of_broken(photos: Photos, value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`broken` must be one of 'skip', 'raise'.*Received"):
        decode(photos, 16, broken=value)  # type: ignore[arg-type]


def test_an_interrupted_shard_leaves_no_file(
    photos: Photos, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "open", stop)
    with pytest.raises(KeyboardInterrupt):
        decode(photos, 16)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


# The cache folder


def test_a_cache_folder_that_is_not_writable_names_the_variable(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(photos, 16)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ArgumentError, match=r"`SCENELEARN_CACHE` must name a writable folder"):
        decode(photos, 16)


def test_a_part_of_the_cache_that_is_not_writable_costs_no_photo(
    photos: Photos, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decode(photos, 16)
    (folder,) = cache.glob("pixels-*-16")
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert len(images_of(decode(photos, 16))) == 6
    assert "decoded each time" in caplog.text
