"""Every file of a folder is used, or rejected with a reason."""

from __future__ import annotations

import builtins
import copy
import hashlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn.data import Photo, Photos, RejectionReason, decode, scan
from scenelearn.data._manifest import write_manifest
from scenelearn.errors import (
    ArgumentError,
    DataError,
    MissingExtraError,
    NoPhotosError,
    PathMissingError,
    TooFewClassesError,
)
from tests.helpers.photo_files import PLAIN, classes, detail, photo, put_all, splits_by_path, why
from tests.helpers.systems import needs_byte_names, needs_posix, needs_symlinks

# Every file is accounted for


def test_truncated_empty_and_other_files_are_rejected_and_the_rest_is_used(
    tmp_path: Path,
) -> None:
    put_all(tmp_path, PLAIN)
    whole = photo(9, px=64)
    (tmp_path / "sea/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "sea/words.jpg").write_text("this is not a photo\n")
    (tmp_path / "street/nothing.jpg").write_bytes(b"")
    (tmp_path / "__MACOSX/sea").mkdir(parents=True)
    (tmp_path / "__MACOSX/sea/._1.jpg").write_bytes(b"\0\5\26\7")

    photos = scan(tmp_path)

    assert photos.paths == tuple(PLAIN)
    assert why(photos) == {
        "sea/cut.jpg": RejectionReason.TRUNCATED,
        "sea/words.jpg": RejectionReason.NOT_AN_IMAGE,
        "street/nothing.jpg": RejectionReason.EMPTY_FILE,
        "__MACOSX": RejectionReason.SYSTEM_FILE,
    }
    assert "a folder of 1 file" in detail(photos, "__MACOSX")
    assert all(rejection.detail for rejection in photos.rejected)
    assert str(photos).startswith("4 photos in 2 classes, 4 rejected")


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    put_all(tmp_path, [*PLAIN, "seg_pred/5.jpg", "loose.jpg", "sea/deep/er/6.jpg"])
    (tmp_path / "sea/notes.txt").write_text("x")
    (tmp_path / "street/.DS_Store").write_bytes(b"x")
    photos = scan(tmp_path)
    named = {*photos.paths, *photos.unlabeled, *why(photos)}
    there = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert named == there
    assert len(photos) + len(photos.unlabeled) + len(photos.rejected) == len(there)


def test_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match="Put the photos of each class into a folder") as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "an empty folder" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DataError)


def test_folder_without_a_usable_photo_names_the_first_rejected(tmp_path: Path) -> None:
    (tmp_path / "sea").mkdir()
    for k in range(7):
        (tmp_path / f"sea/{k}.jpg").write_bytes(b"")
    with pytest.raises(NoPhotosError, match=r"7 rejected: sea/0\.jpg: empty file") as caught:
        scan(tmp_path)
    assert "and 2 more" in str(caught.value)


def test_missing_path_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(
        PathMissingError, match=r"`folder`.*nowhere.*does not exist.*Check the path"
    ) as err:
        scan(missing)
    assert isinstance(err.value, FileNotFoundError)


def test_file_instead_of_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(photo())
    with pytest.raises(PathMissingError, match=r"one.jpg.*another kind.*one folder per class"):
        scan(tmp_path / "one.jpg")


# Layouts


def test_class_folders(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, PLAIN))
    assert len(photos) == 4
    assert photos.class_names == ("sea", "street")
    assert photos.labels.tolist() == [0, 0, 1, 1]
    assert photos.labels.dtype == np.int32
    assert photos.splits == ("", "", "", "")
    assert photos.counts() == {"sea": 2, "street": 2}
    assert photos.file(3) == tmp_path / "street/2.jpg"
    assert photos.rejected == ()


def test_photos_deep_in_a_class_folder_are_of_that_class(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, ["sea/a/b/1.jpg", "sea/2.jpg", "street/x/3.jpg"]))
    assert classes(photos) == {
        "sea/2.jpg": "sea",
        "sea/a/b/1.jpg": "sea",
        "street/x/3.jpg": "street",
    }


def test_intel_archive(tmp_path: Path) -> None:
    paths = [
        "seg_train/seg_train/forest/1.jpg",
        "seg_train/seg_train/sea/2.jpg",
        "seg_test/seg_test/forest/3.jpg",
        "seg_test/seg_test/sea/4.jpg",
        "seg_pred/seg_pred/5.jpg",
        "seg_pred/seg_pred/6.jpg",
    ]
    photos = scan(put_all(tmp_path, paths))
    assert photos.class_names == ("forest", "sea")
    assert splits_by_path(photos) == {
        "seg_test/seg_test/forest/3.jpg": "test",
        "seg_test/seg_test/sea/4.jpg": "test",
        "seg_train/seg_train/forest/1.jpg": "train",
        "seg_train/seg_train/sea/2.jpg": "train",
    }
    assert photos.unlabeled == ("seg_pred/seg_pred/5.jpg", "seg_pred/seg_pred/6.jpg")
    assert photos.rejected == ()
    assert "2 unlabeled" in str(photos)


def test_intel_archive_in_the_folder_it_was_unpacked_to(tmp_path: Path) -> None:
    paths = [
        "archive/seg_train/seg_train/sea/1.jpg",
        "archive/seg_test/seg_test/forest/2.jpg",
        "archive/seg_pred/3.jpg",
    ]
    photos = scan(put_all(tmp_path, paths))
    assert set(classes(photos).values()) == {"sea", "forest"}
    assert photos.unlabeled == ("archive/seg_pred/3.jpg",)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("valid", "validation"),
        ("val", "validation"),
        ("validation", "validation"),
        ("dev", "validation"),
        ("test", "test"),
        ("TEST", "test"),
    ],
)
def test_folders_that_name_a_split(tmp_path: Path, folder: str, split: str) -> None:
    photos = scan(put_all(tmp_path, [f"{folder}/sea/1.jpg", f"{folder}/street/1.jpg"]))
    assert photos.class_names == ("sea", "street")
    assert photos.splits == (split, split)


def test_train_valid_and_test_together(tmp_path: Path) -> None:
    paths = [f"{split}/{name}/1.jpg" for split in ("train", "valid", "test") for name in "ab"]
    photos = scan(put_all(tmp_path, paths))
    assert photos.counts() == {"a": 3, "b": 3}
    assert sorted(photos.splits) == ["test", "test", "train", "train", "validation", "validation"]


def test_wrapper_folders_are_not_classes(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, [f"my/holiday photos/{path}" for path in PLAIN]))
    assert photos.class_names == ("sea", "street")


def test_a_stray_photo_next_to_the_class_folders_does_not_hide_them(tmp_path: Path) -> None:
    stray = ["preview.jpg", "archive/preview.jpg"]
    photos = scan(put_all(tmp_path, [f"archive/{path}" for path in PLAIN] + stray))
    assert photos.class_names == ("sea", "street")
    assert why(photos) == dict.fromkeys(stray, RejectionReason.NO_CLASS_FOLDER)


def test_one_class_with_an_album_inside_stays_one_class(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, ["sea/1.jpg", "sea/2.jpg", "sea/best/3.jpg"]))
    assert photos.counts() == {"sea": 3}


def test_photos_in_the_root_are_rejected(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, [*PLAIN, "cover.jpg"]))
    assert why(photos) == {"cover.jpg": RejectionReason.NO_CLASS_FOLDER}


def test_photos_directly_in_a_split_folder_are_rejected(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, ["train/sea/1.jpg", "test/street/1.jpg", "train/1.jpg"]))
    assert why(photos) == {"train/1.jpg": RejectionReason.NO_CLASS_FOLDER}
    assert "'train' names a split, not a class" in detail(photos, "train/1.jpg")


@pytest.mark.parametrize(
    ("paths", "counts"),
    [
        (["valid/1.jpg", "invalid/2.jpg"], {"invalid": 1, "valid": 1}),
        (["valid/x/1.jpg", "invalid/x/2.jpg"], {"invalid": 1, "valid": 1}),
        (["top/test/1.jpg", "top/control/2.jpg"], {"control": 1, "test": 1}),
        ([*PLAIN, "train/1.jpg"], {"sea": 2, "street": 2, "train": 1}),
        (["train/steam/1.jpg", "train/diesel/2.jpg", "bus/3.jpg"], {"bus": 1, "train": 2}),
        (
            ["dev/room/1.jpg", "test/room/2.jpg", "prod/room/3.jpg"],
            {"dev": 1, "prod": 1, "test": 1},
        ),
    ],
)
def test_classes_may_be_named_like_splits(
    tmp_path: Path, paths: list[str], counts: dict[str, int]
) -> None:
    photos = scan(put_all(tmp_path, paths))
    assert photos.counts() == counts
    assert set(photos.splits) == {""}
    assert photos.rejected == ()


@pytest.mark.parametrize("names", [("train", "bus"), ("valid", "invalid")])
def test_a_class_may_be_named_like_its_split(tmp_path: Path, names: tuple[str, str]) -> None:
    paths = [f"{split}/{name}/1.jpg" for split in ("train", "test") for name in names]
    photos = scan(put_all(tmp_path, paths))
    assert photos.counts() == dict.fromkeys(sorted(names), 2)
    assert sorted(photos.splits) == ["test", "test", "train", "train"]


def test_splits_beside_another_folder_are_splits_if_they_share_classes(tmp_path: Path) -> None:
    paths = [f"{split}/{name}/1.jpg" for split in ("train", "val") for name in ("sea", "ice")]
    photos = scan(put_all(tmp_path, [*paths, "extra/1.jpg"]))
    assert photos.counts() == {"extra": 1, "ice": 2, "sea": 2}
    assert sorted(photos.splits) == ["", "train", "train", "validation", "validation"]


def test_errors_name_the_folders_that_were_taken_as_splits(tmp_path: Path) -> None:
    folder = put_all(tmp_path, ["train/sea/1.jpg", "test/sea/2.jpg"])
    with pytest.raises(TooFewClassesError, match=r"these folders are splits: 'test', 'train'"):
        sl.split(folder)
    with pytest.raises(NoPhotosError, match=r"'valid' names a split, not a class"):
        scan(put_all(tmp_path / "other", ["valid/1.jpg", "valid/2.jpg"]))


def test_only_loose_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match=r"1\.jpg: not in a class folder"):
        scan(put_all(tmp_path, ["1.jpg", "2.jpg"]))


def test_only_unlabeled_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match="Expected one folder per class"):
        scan(put_all(tmp_path, ["seg_pred/1.jpg"]))


# Names and order


def test_paths_are_sorted_and_use_slashes(tmp_path: Path) -> None:
    paths = ["b/10.jpg", "b/2.jpg", "a b/1.jpg", "a/z.jpg", "a/Z.jpg", "a/x/0.jpg"]
    photos = scan(put_all(tmp_path, paths))
    assert list(photos.paths) == sorted(paths)
    assert list(photos.class_names) == ["a", "a b", "b"]


def test_two_scans_are_equal(tmp_path: Path) -> None:
    put_all(tmp_path, [f"{name}/{k}.jpg" for name in "cab" for k in range(30)])
    first, second = scan(tmp_path), scan(str(tmp_path))
    assert (first.paths, first.hashes, first.class_names) == (
        second.paths,
        second.hashes,
        second.class_names,
    )


def test_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_all(tmp_path / "photos", PLAIN)
    monkeypatch.chdir(tmp_path)
    assert scan("photos").folder == tmp_path / "photos"


@needs_byte_names
def test_unicode_newline_and_undecodable_names(tmp_path: Path) -> None:
    names = [
        "überall/größe.jpg",
        "海/写真.jpg",
        "海/two\nlines.jpg",
        "海/ spaces .jpg",
        "海/a\\b.jpg",
    ]
    put_all(tmp_path, names)
    (tmp_path / "海" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(photo(77))
    photos = scan(tmp_path)
    assert set(photos.paths) == {*names, "海/" + os.fsdecode(b"caf\xe9.jpg")}
    assert photos.class_names == ("überall", "海")
    assert all(photos.file(k).read_bytes() for k in range(len(photos)))


@needs_byte_names
def test_rejections_of_odd_names_print_on_one_line(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    odd = ["sea/two\nlines", "sea/\x1b[31mred", "sea/" + os.fsdecode(b"caf\xe9"), "sea/größe"]
    for name in odd:
        (tmp_path / name).write_bytes(b"")
    photos = scan(tmp_path)
    assert set(why(photos)) == set(odd)
    shown = [str(rejection).split(":")[0] for rejection in photos.rejected]
    assert set(shown) == {"sea/two\\nlines", "sea/\\x1b[31mred", "sea/caf\\udce9", "sea/größe"}
    "".join(map(str, photos.rejected)).encode()  # a terminal can show it


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS stores both forms alike")
def test_names_in_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    paths = ["for\u00eat/1.jpg", "fore\u0302t/2.jpg", "sea/3.jpg"]
    photos = scan(put_all(tmp_path, paths))
    assert photos.counts() == {"for\u00eat": 2, "sea": 1}
    assert set(photos.paths) == set(paths)
    assert all(photos.read(k) for k in range(3))


def test_hidden_and_system_files_are_named(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    hidden = [".hidden.jpg", "sea/Thumbs.db", "sea/desktop.ini", "street/._1.jpg", "sea/.DS_Store"]
    hidden += ["cache-1a2b.arrow"]  # the result of `Dataset.map`
    put_all(tmp_path, [*hidden, ".git/objects/1.jpg", ".git/2.jpg", "sea/@eaDir/3.jpg"])
    photos = scan(tmp_path)
    assert photos.paths == tuple(PLAIN)
    assert why(photos) == dict.fromkeys(
        [*hidden, ".git", "sea/@eaDir"], RejectionReason.SYSTEM_FILE
    )
    assert "a folder of 2 files" in detail(photos, ".git")


# Contents


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG"])
def test_formats_are_detected_by_content_not_by_name(tmp_path: Path, kind: str) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "sea/other.jpg").write_bytes(photo(5, kind))
    (tmp_path / "sea/no name at all").write_bytes(photo(6, kind))
    photos = scan(tmp_path)
    assert photos.counts()["sea"] == 4
    assert photos.rejected == ()


def test_bytes_after_the_end_of_a_jpeg_are_accepted(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "sea/padded.jpg").write_bytes(photo(5) + b"\0" * 100)
    (tmp_path / "sea/trailer.jpg").write_bytes(photo(6) + b"MotionPhoto_Data" * 50)
    assert scan(tmp_path).counts()["sea"] == 4


def test_a_jpeg_with_a_second_image_inside_is_accepted(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    first, second = (Image.open(io.BytesIO(photo(k))) for k in (1, 2))
    first.save(tmp_path / "sea/both.jpg", "MPO", save_all=True, append_images=[second])
    assert scan(tmp_path).counts()["sea"] == 3


def test_a_video_is_not_read_into_memory(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    with (tmp_path / "sea/film.mp4").open("wb") as file:
        file.truncate(600 * 2**20)  # sparse: takes no space
    photos = scan(tmp_path)
    assert why(photos) == {"sea/film.mp4": RejectionReason.TOO_LARGE}
    assert "600 MiB" in detail(photos, "sea/film.mp4")


def test_hashes_are_of_the_content(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "street/copy.jpg").write_bytes((tmp_path / "sea/1.jpg").read_bytes())
    photos = scan(tmp_path)
    by_path = dict(zip(photos.paths, photos.hashes, strict=True))
    assert by_path["street/copy.jpg"] == by_path["sea/1.jpg"]
    assert len(set(photos.hashes)) == len(photos) - 1
    for path, value in by_path.items():
        content = (tmp_path / path).read_bytes()
        assert value == hashlib.blake2b(content, digest_size=16).digest()


# Links, pipes, permissions


@needs_symlinks
def test_links(tmp_path: Path) -> None:
    put_all(tmp_path / "photos", PLAIN)
    put_all(tmp_path / "elsewhere", ["1.jpg"])
    root = tmp_path / "photos"
    (root / "sea/to_file.jpg").symlink_to(tmp_path / "elsewhere/1.jpg")
    (root / "sea/to_folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "sea/to_parent").symlink_to(root, target_is_directory=True)
    (root / "sea/broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (root / "sea/loop.jpg").symlink_to(root / "sea/loop.jpg")
    photos = scan(root)
    assert "sea/to_file.jpg" in photos.paths
    assert why(photos) == dict.fromkeys(
        ["sea/to_folder", "sea/to_parent", "sea/broken.jpg", "sea/loop.jpg"],
        RejectionReason.SPECIAL_FILE,
    )
    assert detail(photos, "sea/to_folder") == "link to a folder"
    assert "broken link" in detail(photos, "sea/broken.jpg")
    assert "broken link" in detail(photos, "sea/loop.jpg")


@needs_symlinks
def test_the_scanned_folder_may_be_a_link(tmp_path: Path) -> None:
    put_all(tmp_path / "photos", PLAIN)
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    assert len(scan(tmp_path / "link")) == 4


@needs_posix
def test_pipes_and_sockets_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, PLAIN)
    os.mkfifo(tmp_path / "sea/pipe.jpg")
    (tmp_path / "sea/link.jpg").symlink_to(tmp_path / "sea/pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind("sea/plug.jpg")
    code = (
        "import sys, scenelearn as sl\n"
        "for r in sl.scan(sys.argv[1]).rejected: print(r.path, r.reason.name, r.detail)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=600
    )  # opening the pipe would block forever
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        f"sea/{name}.jpg SPECIAL_FILE pipe, socket or device" for name in ("link", "pipe", "plug")
    ]


def test_unreadable_files_are_rejected_and_the_rest_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, PLAIN)
    original = open

    def refuse_one(file: Any, *arguments: Any, **options: Any) -> Any:
        if os.fspath(file) == str(tmp_path / "sea/1.jpg"):
            raise PermissionError(13, "Permission denied")
        return original(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", refuse_one)
    photos = scan(tmp_path)
    assert len(photos) == 3
    assert why(photos) == {"sea/1.jpg": RejectionReason.UNREADABLE}
    assert detail(photos, "sea/1.jpg") == "Permission denied"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_files_and_folders_without_permission_are_rejected(tmp_path: Path) -> None:
    put_all(tmp_path, [*PLAIN, "closed/1.jpg", "listed/1.jpg"])
    (tmp_path / "sea/1.jpg").chmod(0)
    (tmp_path / "closed").chmod(0)
    (tmp_path / "listed").chmod(0o400)
    try:
        photos = scan(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
        (tmp_path / "listed").chmod(0o700)
    unreadable = dict.fromkeys(["sea/1.jpg", "closed", "listed/1.jpg"], RejectionReason.UNREADABLE)
    assert why(photos) == unreadable
    assert len(photos) == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_paths_below_a_folder_without_permission(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o600)
    try:
        for name in ("photos", "photos.csv", "photos.parquet", "photos.zip"):
            with pytest.raises(PathMissingError, match="does not exist or cannot be reached"):
                scan(closed / name)
        with pytest.raises(PathMissingError, match="does not exist or cannot be reached"):
            scan(tmp_path, closed / "photos.csv")
        with pytest.raises(ArgumentError, match="Permission denied"):
            write_manifest(closed / "a" / "split.csv", [])
    finally:
        closed.chmod(0o700)


# Progress


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    put_all(tmp_path, [f"{name}/{k}.jpg" for name in "ab" for k in range(70)])
    calls: list[tuple[str, int, int]] = []
    scan(tmp_path, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("scanning photos", 140, 140)
    assert calls == sorted(calls)


def test_verbose_shows_a_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_all(tmp_path, PLAIN)
    photos = scan(tmp_path)
    assert capsys.readouterr().err == ""  # nobody is looking
    scan(tmp_path, verbose=True)
    assert "scanning photos" in capsys.readouterr().err
    sl.audit(photos, verbose=True)
    assert "auditing photos" in capsys.readouterr().err
    decode(photos, 11, verbose=True)  # a size that no other test has cached
    assert "decoding photos" in capsys.readouterr().err
    scan(tmp_path, verbose=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(ArgumentError, match="`verbose` must be one of True, False, 'auto'"):
        scan(tmp_path, verbose=2)  # type: ignore[arg-type]


# The result as a sequence


def test_one_photo_is_a_tuple_of_path_label_and_split(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, ["train/sea/1.jpg", "train/street/2.jpg", "test/sea/3.jpg"]))
    first = photos[0]
    assert first == Photo(tmp_path / "test/sea/3.jpg", "sea", "test")
    assert (first.path.is_file(), first.label, first.split) == (True, "sea", "test")
    assert photos[-1] == photos[2] == photos[np.int64(2)]
    assert photos[-1].label == "street"
    assert list(photos) == [photos[k] for k in range(len(photos))]
    with pytest.raises(IndexError, match="out of bounds"):
        photos[3]


def test_several_photos_are_photos(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, [f"{name}/{k}.jpg" for name in "abc" for k in range(4)]))
    part = photos[2:6]
    assert isinstance(part, Photos)
    assert list(part) == list(photos)[2:6]
    assert part.class_names == photos.class_names  # labels mean the same
    assert part.hashes == photos.hashes[2:6]
    assert part.read(1) == photos.read(3)
    for index in ([0, 5], np.array([0, 5]), np.arange(12) % 5 == 0):
        assert photos[index].paths[:2] == (photos.paths[0], photos.paths[5])
    assert len(photos[::-1]) == 12
    assert photos[::-1].paths == photos.paths[::-1]
    assert len(photos[:0]) == len(photos[[]]) == 0
    with pytest.raises(IndexError, match="out of bounds"):
        photos[[0, 12]]


def test_an_empty_selection_cannot_be_used(tmp_path: Path) -> None:
    nothing = scan(put_all(tmp_path, PLAIN))[:0]
    assert repr(nothing) == "<Photos: 0 photos, 2 classes>"
    assert nothing.to_rows() == []
    for use in (sl.audit, sl.split, sl.folds, lambda photos: decode(photos, 8)):
        with pytest.raises(NoPhotosError, match="must contain at least one photo"):
            use(nothing)


@pytest.mark.parametrize("index", ["a/0.jpg", 1.0, None, (1, 2), [[0], [1]]])
def test_other_indices_are_errors(tmp_path: Path, index: object) -> None:
    photos = scan(put_all(tmp_path, PLAIN))
    with pytest.raises(ArgumentError, match=r"`photos\[\.\.\.\]` takes a position, a slice"):
        photos[index]  # type: ignore[index]


def test_repr_is_one_short_line(tmp_path: Path) -> None:
    folder = sl.sample_scenes(tmp_path / "scenes", per_class=4)
    (folder / "sea/broken.jpg").write_bytes(b"")
    photos = scan(folder)
    assert repr(photos) == "<Photos: 24 photos, 6 classes, 1 rejected>"
    splits = sl.split(photos)
    for result in (photos, sl.audit(photos), splits, decode(photos, 8)):
        assert "\n" not in repr(result)
        assert len(repr(result)) < 120
    assert str(photos).splitlines()[0] == photos.summary
    assert len(str(photos).splitlines()) == 9  # a summary, six classes, one rejected file


def test_a_data_frame_of_photos(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    photos = scan(put_all(tmp_path, PLAIN))
    table = photos.to_pandas()
    assert list(table.columns) == ["path", "label", "split"]
    assert table["path"].tolist() == list(photos.paths)
    assert sorted(set(table["label"])) == list(photos.class_names)


def test_without_pandas_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    photos = scan(put_all(tmp_path, PLAIN))
    with pytest.raises(MissingExtraError, match=r"pip install pandas.*to_rows"):
        photos.to_pandas()


def test_photos_as_json_pickle_and_copy(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, PLAIN))
    value = json.loads(json.dumps(photos.to_json(), allow_nan=False))
    assert value["photos"] == photos.to_rows()
    assert value["counts"] == photos.counts()
    unpickled = pickle.loads(pickle.dumps(photos))  # noqa: S301
    for again in (unpickled, copy.copy(photos), copy.deepcopy(photos)):
        assert again.to_json() == photos.to_json()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "that is not empty"),
        ("x" * 5000, "that is not too long"),
        ("a\0b", "without null characters and"),
        ("\ud800", "without null characters and lone surrogates"),
    ],
)
def test_paths_that_cannot_exist(path: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=rf"`folder` must be a path {message}.*Pass"):
        scan(path)
    with pytest.raises(ArgumentError, match=rf"`manifest` must be a path {message}"):
        scan(".", path)
    photos = Photos(
        folder=Path("/photos"), paths=("a/1",) * 9, labels=np.arange(9, dtype=np.int32) % 2,
        class_names=("a", "b"), hashes=tuple(bytes([k] * 16) for k in range(9)), splits=("",) * 9,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match=rf"`file` must be a path {message}"):
        sl.split(photos).save(path)


def test_a_tilde_that_names_no_user_is_part_of_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path / "~nobody here", PLAIN)
    monkeypatch.chdir(tmp_path)
    assert len(scan("~nobody here")) == 4


class _Name(str):
    """A path of another type than str, as NumPy's are."""


def test_subclasses_of_str_and_numpy_scalars_are_accepted(tmp_path: Path) -> None:
    put_all(tmp_path, [f"{name}/{k}.jpg" for name in "ab" for k in range(30)])
    photos = scan(np.str_(tmp_path), verbose=np.False_)  # type: ignore[arg-type]
    assert scan(_Name(tmp_path), verbose=_Name("auto")).paths == photos.paths
    splits = sl.split(photos, test=np.float32(0.25), validation=np.int64(9), seed=np.uint8(3))
    assert splits.to_json() == sl.split(photos, test=0.25, validation=9, seed=3).to_json()
    assert decode(photos, np.int16(8), broken=np.str_("skip")).image_px == 8


@pytest.mark.parametrize("folder", [None, 3, ["photos/"], b"photos/"])
def test_a_folder_of_another_type(folder: object) -> None:
    with pytest.raises(ArgumentError, match=r"`folder` must be a path.*Received.*Pass"):
        scan(folder)  # type: ignore[arg-type]


@needs_posix
def test_html_is_escaped(tmp_path: Path) -> None:
    put_all(tmp_path, [*PLAIN, "<b>bold<b>/1.jpg"])
    (tmp_path / "sea/<script>.jpg").write_bytes(b"")
    page = scan(tmp_path)._repr_html_()
    assert "<b>" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_rejected_files_as_json(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "sea/0.jpg").write_bytes(b"")
    (rejection,) = scan(tmp_path).rejected
    assert rejection.to_json() == {"path": "sea/0.jpg", "reason": "empty file", "detail": "0 bytes"}
    assert str(rejection) == "sea/0.jpg: empty file (0 bytes)"


def test_spaces_around_the_name_of_a_folder_are_no_part_of_the_class(tmp_path: Path) -> None:
    names = {"sea ": "sea", "sea": "sea", " street": "street", "street": "street"}
    put_all(tmp_path, [f"{name}/{k}.jpg" for name in names for k in range(3)])
    photos = scan(tmp_path)
    assert classes(photos) == {f"{name}/{k}.jpg": names[name] for name in names for k in range(3)}
    file = sl.split(photos).save(tmp_path.with_suffix(".csv"))
    assert classes(scan(tmp_path, file)) == classes(photos)
