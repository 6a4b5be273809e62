"""Every file of a folder is used, or refused with a reason."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenelearn.data import Photos, Reason, _scan, scan
from scenelearn.data._store import read_file
from scenelearn.errors import DataError, NoPhotosError, PathMissingError


def photo(seed: int = 0, kind: str = "JPEG", px: int = 16) -> bytes:
    """A small image file; another seed, another content."""
    noise = np.random.default_rng(seed).integers(0, 256, (px, px, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def put_all(root: Path, paths: list[str]) -> Path:
    """A different photo at each path."""
    for seed, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(seed))
    return root


def why(photos: Photos) -> dict[str, Reason]:
    return {refusal.path: refusal.reason for refusal in photos.refused}


def detail(photos: Photos, path: str) -> str:
    return next(refusal.detail for refusal in photos.refused if refusal.path == path)


def classes(photos: Photos) -> dict[str, str]:
    return {row["path"]: row["class"] for row in photos.to_rows()}


def sides(photos: Photos) -> dict[str, str]:
    return dict(zip(photos.paths, photos.sides, strict=True))


PLAIN = ["sea/1.jpg", "sea/2.jpg", "street/1.jpg", "street/2.jpg"]


# What the issue wants to see


def test_truncated_text_empty_and_macosx_are_all_named_and_the_rest_is_used(
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
        "sea/cut.jpg": Reason.TRUNCATED,
        "sea/words.jpg": Reason.NOT_AN_IMAGE,
        "street/nothing.jpg": Reason.EMPTY_FILE,
        "__MACOSX": Reason.SYSTEM_FILE,
    }
    assert "1 file in it" in detail(photos, "__MACOSX")
    assert all(refusal.detail for refusal in photos.refused)
    assert str(photos).startswith("4 photos in 2 classes, 4 refused")


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    put_all(tmp_path, [*PLAIN, "seg_pred/5.jpg", "loose.jpg", "sea/deep/er/6.jpg"])
    (tmp_path / "sea/notes.txt").write_text("x")
    (tmp_path / "street/.DS_Store").write_bytes(b"x")
    photos = scan(tmp_path)
    named = {*photos.paths, *photos.unlabeled, *why(photos)}
    there = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert named == there
    assert len(photos) + len(photos.unlabeled) + len(photos.refused) == len(there)


def test_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match="Put the photos of each class into a folder") as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "an empty folder" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, DataError)


def test_folder_without_a_usable_photo_names_the_first_refused(tmp_path: Path) -> None:
    (tmp_path / "sea").mkdir()
    for k in range(7):
        (tmp_path / f"sea/{k}.jpg").write_bytes(b"")
    with pytest.raises(NoPhotosError, match=r"7 refused: sea/0\.jpg: empty file") as caught:
        scan(tmp_path)
    assert "and 2 more" in str(caught.value)


def test_missing_path_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(
        PathMissingError, match=r"`folder`.*nowhere.*nothing.*Check the path"
    ) as err:
        scan(missing)
    assert isinstance(err.value, FileNotFoundError)


def test_file_instead_of_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(photo())
    with pytest.raises(PathMissingError, match=r"one.jpg.*a file.*one folder for each class"):
        scan(tmp_path / "one.jpg")


# Layouts


def test_class_folders(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, PLAIN))
    assert len(photos) == 4
    assert photos.class_names == ("sea", "street")
    assert photos.labels.tolist() == [0, 0, 1, 1]
    assert photos.labels.dtype == np.int32
    assert photos.sides == ("", "", "", "")
    assert photos.counts() == {"sea": 2, "street": 2}
    assert photos.file(3) == tmp_path / "street/2.jpg"
    assert photos.refused == ()


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
    assert sides(photos) == {
        "seg_test/seg_test/forest/3.jpg": "test",
        "seg_test/seg_test/sea/4.jpg": "test",
        "seg_train/seg_train/forest/1.jpg": "train",
        "seg_train/seg_train/sea/2.jpg": "train",
    }
    assert photos.unlabeled == ("seg_pred/seg_pred/5.jpg", "seg_pred/seg_pred/6.jpg")
    assert photos.refused == ()
    assert "2 without a class" in str(photos)


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
    ("folder", "side"),
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
def test_folders_that_name_a_side(tmp_path: Path, folder: str, side: str) -> None:
    photos = scan(put_all(tmp_path, [f"{folder}/sea/1.jpg", f"{folder}/street/1.jpg"]))
    assert photos.class_names == ("sea", "street")
    assert photos.sides == (side, side)


def test_train_valid_and_test_together(tmp_path: Path) -> None:
    paths = [f"{side}/{name}/1.jpg" for side in ("train", "valid", "test") for name in "ab"]
    photos = scan(put_all(tmp_path, paths))
    assert photos.counts() == {"a": 3, "b": 3}
    assert sorted(photos.sides) == ["test", "test", "train", "train", "validation", "validation"]


def test_wrapper_folders_are_taken_off(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, [f"my/holiday photos/{path}" for path in PLAIN]))
    assert photos.class_names == ("sea", "street")


def test_a_stray_photo_beside_the_class_folders_does_not_hide_them(tmp_path: Path) -> None:
    stray = ["preview.jpg", "archive/preview.jpg"]
    photos = scan(put_all(tmp_path, [f"archive/{path}" for path in PLAIN] + stray))
    assert photos.class_names == ("sea", "street")
    assert why(photos) == dict.fromkeys(stray, Reason.NO_CLASS_FOLDER)


def test_one_class_with_an_album_inside_stays_one_class(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, ["sea/1.jpg", "sea/2.jpg", "sea/best/3.jpg"]))
    assert photos.counts() == {"sea": 3}


def test_photos_in_the_root_are_refused(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, [*PLAIN, "cover.jpg"]))
    assert why(photos) == {"cover.jpg": Reason.NO_CLASS_FOLDER}


def test_photos_right_below_a_side_are_refused_with_the_side_named(tmp_path: Path) -> None:
    photos = scan(put_all(tmp_path, [*PLAIN, "train/1.jpg"]))
    assert why(photos) == {"train/1.jpg": Reason.NO_CLASS_FOLDER}
    assert "'train' is taken as a side" in detail(photos, "train/1.jpg")


def test_only_loose_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match=r"1\.jpg: not in a class folder"):
        scan(put_all(tmp_path, ["1.jpg", "2.jpg"]))


def test_only_unlabeled_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match="Expected one folder for each class"):
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_refusals_of_odd_names_print_on_one_line(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    odd = ["sea/two\nlines", "sea/\x1b[31mred", "sea/" + os.fsdecode(b"caf\xe9"), "sea/größe"]
    for name in odd:
        (tmp_path / name).write_bytes(b"")
    photos = scan(tmp_path)
    assert set(why(photos)) == set(odd)
    shown = [str(refusal).split(":")[0] for refusal in photos.refused]
    assert set(shown) == {"sea/two\\nlines", "sea/\\x1b[31mred", "sea/caf\\udce9", "sea/größe"}
    "".join(map(str, photos.refused)).encode()  # a terminal can show it


def test_hidden_and_system_files_are_named(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    hidden = [".hidden.jpg", "sea/Thumbs.db", "sea/desktop.ini", "street/._1.jpg", "sea/.DS_Store"]
    put_all(tmp_path, [*hidden, ".git/objects/1.jpg", ".git/2.jpg", "sea/@eaDir/3.jpg"])
    photos = scan(tmp_path)
    assert photos.paths == tuple(PLAIN)
    assert why(photos) == dict.fromkeys([*hidden, ".git", "sea/@eaDir"], Reason.SYSTEM_FILE)
    assert "2 files in it" in detail(photos, ".git")


# Contents


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG"])
def test_formats_are_told_by_content_not_by_name(tmp_path: Path, kind: str) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "sea/other.jpg").write_bytes(photo(5, kind))
    (tmp_path / "sea/no name at all").write_bytes(photo(6, kind))
    photos = scan(tmp_path)
    assert photos.counts()["sea"] == 4
    assert photos.refused == ()


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


def test_a_film_is_not_read_into_memory(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    with (tmp_path / "sea/film.mp4").open("wb") as file:
        file.truncate(600 * 2**20)  # sparse: takes no space
    photos = scan(tmp_path)
    assert why(photos) == {"sea/film.mp4": Reason.TOO_LARGE}
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
        ["sea/to_folder", "sea/to_parent", "sea/broken.jpg", "sea/loop.jpg"], Reason.SPECIAL_FILE
    )
    assert detail(photos, "sea/to_folder") == "link to a folder"
    assert "broken link" in detail(photos, "sea/broken.jpg")
    assert "broken link" in detail(photos, "sea/loop.jpg")


def test_the_scanned_folder_may_be_a_link(tmp_path: Path) -> None:
    put_all(tmp_path / "photos", PLAIN)
    (tmp_path / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    assert len(scan(tmp_path / "link")) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
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
        "for r in sl.scan(sys.argv[1]).refused: print(r.path, r.reason.name, r.detail)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )  # opening the pipe would wait for ever
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        f"sea/{name}.jpg SPECIAL_FILE pipe, socket or device" for name in ("link", "pipe", "plug")
    ]


def test_unreadable_file_is_named_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, PLAIN)

    def refuse_one(root: Path, path: str) -> bytes:
        if path == "sea/1.jpg":
            raise PermissionError(13, "Permission denied")
        return read_file(root, path)

    monkeypatch.setattr(_scan, "read_file", refuse_one)
    photos = scan(tmp_path)
    assert len(photos) == 3
    assert why(photos) == {"sea/1.jpg": Reason.UNREADABLE}
    assert detail(photos, "sea/1.jpg") == "Permission denied"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_files_and_folders_without_permission_are_named(tmp_path: Path) -> None:
    put_all(tmp_path, [*PLAIN, "closed/1.jpg", "listed/1.jpg"])
    (tmp_path / "sea/1.jpg").chmod(0)
    (tmp_path / "closed").chmod(0)
    (tmp_path / "listed").chmod(0o400)
    try:
        photos = scan(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
        (tmp_path / "listed").chmod(0o700)
    unreadable = dict.fromkeys(["sea/1.jpg", "closed", "listed/1.jpg"], Reason.UNREADABLE)
    assert why(photos) == unreadable
    assert len(photos) == 3


# What else it offers


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    put_all(tmp_path, [f"{name}/{k}.jpg" for name in "ab" for k in range(70)])
    calls: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (140, 140)
    assert calls == sorted(calls)


def test_what_a_notebook_shows_is_escaped(tmp_path: Path) -> None:
    put_all(tmp_path, [*PLAIN, "<b>bold<b>/1.jpg"])
    (tmp_path / "sea/<script>.jpg").write_bytes(b"")
    page = scan(tmp_path)._repr_html_()
    assert "<b>" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_refusals_become_json(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "sea/0.jpg").write_bytes(b"")
    (refusal,) = scan(tmp_path).refused
    assert refusal.to_json() == {"path": "sea/0.jpg", "reason": "empty file", "detail": "0 bytes"}
    assert str(refusal) == "sea/0.jpg: empty file (0 bytes)"
