"""ZIP archives, manifests, and splits that are restored from a manifest."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.data import RejectionReason, decode, folds, scan, split
from scenelearn.errors import (
    ArgumentError,
    ManifestError,
    NoPhotosError,
    PathMissingError,
    TooFewPhotosError,
)
from tests.helpers.damage import move_directory
from tests.helpers.photo_files import PLAIN, classes, detail, photo, put_all, splits_by_path, why
from tests.helpers.splits import SPLITS, made_up, splits_of, with_splits
from tests.helpers.systems import needs_byte_names, needs_posix


def zipped(file: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


def table(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


# Archives


@needs_posix
def test_an_archive_is_read_as_its_folder_would_be(tmp_path: Path) -> None:
    names = [f"intel/seg_train/seg_train/{path}" for path in PLAIN]
    names += ["intel/seg_pred/1.jpg", "intel/seg_train/sea/größe\n.jpg"]
    folder = put_all(tmp_path / "folder", names)
    contents = {name: (folder / name).read_bytes() for name in names}
    archive = zipped(tmp_path / "photos.zip", contents)
    there, inside = scan(folder), scan(archive)
    assert (inside.paths, inside.hashes, inside.splits) == (there.paths, there.hashes, there.splits)
    assert inside.class_names == there.class_names == ("sea", "street")
    assert inside.labels.tolist() == there.labels.tolist()
    assert inside.unlabeled == there.unlabeled == ("intel/seg_pred/1.jpg",)
    assert np.array_equal(
        decode(inside, 8).read(np.arange(5))[0], decode(there, 8).read(np.arange(5))[0]
    )
    assert [inside.read(k) for k in range(5)] == [there.read(k) for k in range(5)]
    assert sl.audit(inside).groups.tolist() == [0, 1, 2, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "photos.zip"]  # not unpacked


def test_unusable_files_in_an_archive_are_rejected(tmp_path: Path) -> None:
    contents = {path: photo(k) for k, path in enumerate(PLAIN)}
    contents |= {"__MACOSX/sea/._1.jpg": b"\0\5", "sea/cut.jpg": photo(9)[:99], "sea/a.txt": b"x"}
    archive = zipped(tmp_path / "photos.zip", contents)
    link = zipfile.ZipInfo("sea/link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "1.jpg")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("sea/1.jpg", photo(50))
    photos = scan(archive)
    assert photos.paths == tuple(PLAIN)
    assert photos.read(0) == photo(50)  # the later file wins, as when unpacking
    assert {path: reason for path, reason in why(photos).items() if path != "sea/1.jpg"} == {
        "__MACOSX/sea/._1.jpg": RejectionReason.SYSTEM_FILE,
        "sea/cut.jpg": RejectionReason.TRUNCATED,
        "sea/a.txt": RejectionReason.NOT_AN_IMAGE,
        "sea/link.jpg": RejectionReason.SPECIAL_FILE,
    }
    assert "same name" in detail(photos, "sea/1.jpg")


def test_damage_in_an_archive_costs_one_photo(tmp_path: Path) -> None:
    contents = {path: photo(k) for k, path in enumerate(PLAIN)}
    archive = zipped(tmp_path / "photos.zip", contents, zipfile.ZIP_STORED)
    whole = archive.read_bytes()
    place = whole.index(contents["sea/2.jpg"]) + 200
    archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    photos = scan(archive)
    assert len(photos) == 3
    assert why(photos) == {"sea/2.jpg": RejectionReason.UNREADABLE}
    assert "CRC" in detail(photos, "sea/2.jpg")


def test_a_directory_that_points_to_before_the_archive(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", {path: photo(1) for path in PLAIN})
    move_directory(archive)
    with pytest.raises(NoPhotosError, match=r"photos\.zip.*damaged in the archive"):
        scan(archive)


def test_a_member_that_unpacks_to_gigabytes_is_rejected_unread(tmp_path: Path) -> None:
    contents = {path: photo(k) for k, path in enumerate(PLAIN)}
    contents["sea/bomb.jpg"] = photo(8) + bytes(520 * 2**20)
    photos = scan(zipped(tmp_path / "photos.zip", contents))
    assert why(photos) == {"sea/bomb.jpg": RejectionReason.TOO_LARGE}
    assert len(photos) == 4


def test_names_in_an_archive_never_reach_the_disk(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(photo(90))
    contents = {path: photo(k) for k, path in enumerate(PLAIN)}
    contents |= {"../outside.jpg": photo(91), f"{outside}": photo(92)}
    photos = scan(zipped(tmp_path / "in.zip", contents))
    read = {photos.paths[k]: photos.read(k) for k in range(len(photos))}
    assert photo(90) not in read.values()
    assert outside.read_bytes() == photo(90)


def test_a_truncated_archive_is_an_error(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", {path: photo(1) for path in PLAIN})
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(PathMissingError, match=r"a ZIP file of.*photos\.zip.*another kind of file"):
        scan(archive)


def test_an_archive_among_the_photos_is_rejected_with_advice(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    zipped(tmp_path / "sea/more.zip", {"a.jpg": photo(1)})
    assert detail(scan(tmp_path), "sea/more.zip").startswith("a ZIP archive; unpack it")


def test_an_archive_replaced_after_the_scan_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))  # it has none of these photos
    contents = {path: photo(k) for k, path in enumerate(PLAIN)}
    photos = scan(zipped(tmp_path / "photos.zip", contents))
    del contents["sea/1.jpg"]
    contents["sea/2.jpg"] = photo(77)
    zipped(tmp_path / "photos.zip", contents)
    pixels = decode(photos, 8)
    assert pixels.usable.tolist() == [False, False, True, True]
    assert [str(one) for one in pixels.rejected] == [
        "sea/1.jpg: cannot be read (no longer in the archive)",
        "sea/2.jpg: cannot be read (it has changed since the scan; scan again)",
    ]


# Manifests


def test_a_manifest_lists_photos_labels_splits_and_groups(tmp_path: Path) -> None:
    put_all(tmp_path, ["x/1.jpg", "x/2.jpg", "y/3.jpg", "y/4.jpg", "y/not listed.jpg"])
    file = table(
        tmp_path / "photos.csv",
        "label,path,split,group,camera",
        "sea,x/2.jpg,train,beach,A",
        "street,x/1.jpg,val,,B",
        "sea,y/3.jpg,TEST,beach,A",
        ",y/4.jpg,,,",
    )
    for photos in (scan(file), scan(tmp_path, file)):
        assert classes(photos) == {"x/1.jpg": "street", "x/2.jpg": "sea", "y/3.jpg": "sea"}
        assert splits_by_path(photos) == {
            "x/1.jpg": "validation",
            "x/2.jpg": "train",
            "y/3.jpg": "test",
        }
        assert photos.groups == ("", "beach", "beach")
        assert photos.unlabeled == ("y/4.jpg",)
        assert photos.rejected == ()


def test_a_parquet_manifest_gives_the_same_photos(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    put_all(tmp_path, PLAIN)
    columns = {"path": PLAIN, "label": ["a", "a", "b", "b"], "group": [None, "g", "g", None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "photos.parquet")
    photos = scan(tmp_path / "photos.parquet")
    assert classes(photos) == dict(zip(PLAIN, "aabb", strict=True))
    assert photos.groups == ("", "g", "g", "")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ManifestError, match=r"broken\.parquet' must be a table.*Fix"):
        scan(tmp_path / "broken.parquet")
    parquet.write_table(pyarrow.table({"path": PLAIN}), tmp_path / "short.parquet")
    with pytest.raises(ManifestError, match="Add 'label'"):
        scan(tmp_path / "short.parquet")


def test_a_manifest_may_list_an_archive(tmp_path: Path) -> None:
    contents = {path: photo(k) for k, path in enumerate(PLAIN)}
    archive = zipped(tmp_path / "photos.zip", contents)
    file = table(tmp_path / "list.csv", "path,label", "sea/1.jpg,a", "street/2.jpg,b")
    assert classes(scan(archive, file)) == {"sea/1.jpg": "a", "street/2.jpg": "b"}


@needs_posix
def test_listed_files_that_are_missing_or_not_photos_are_rejected(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "words.jpg").write_text("no photo")
    os.mkfifo(tmp_path / "pipe.jpg")
    rows = ["sea/1.jpg,a", "street/1.jpg,b", "gone.jpg,a", "words.jpg,a", "pipe.jpg,a", "sea,b"]
    photos = scan(table(tmp_path / "list.csv", "path,label", *rows))
    assert photos.paths == ("sea/1.jpg", "street/1.jpg")
    assert why(photos) == {
        "gone.jpg": RejectionReason.MISSING,
        "words.jpg": RejectionReason.NOT_AN_IMAGE,
        "pipe.jpg": RejectionReason.SPECIAL_FILE,
        "sea": RejectionReason.SPECIAL_FILE,
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "a,b"], r"columns 'path' and 'label'.*Received: 'file', 'label'.*'path'"),
        ([""], r"Received: none.*Add 'path' and 'label'"),
        (
            ["path,label", "a.jpg,x", "a.jpg,y"],
            r"line 3: each photo.*'a.jpg', which is also on",
        ),
        (["path,label", ",x"], r"line 2: 'path' must name a photo"),
        (["path,label,split", "a.jpg,x,maybe"], r"line 2: 'split' must be.*train.*'maybe'"),
        (["path,label,hash", "a.jpg,x,12"], r"line 2: 'hash' must be.*32 hex.*'12'"),
        (["path,label,hash", "a.jpg,x,zz"], r"line 2: 'hash' must be.*'zz'"),
    ],
)
def test_invalid_manifests(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        scan(table(tmp_path / "list.csv", *lines))
    assert "list.csv" in str(caught.value)


def test_a_manifest_that_is_not_a_table_or_missing(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    (tmp_path / "list.csv").write_bytes(b'path,label\n"' + b"x" * 200_000)
    with pytest.raises(ManifestError, match="must be a table of photos"):
        scan(tmp_path / "list.csv")
    with pytest.raises(PathMissingError, match=r"`manifest` must be.*none\.csv"):
        scan(tmp_path, tmp_path / "none.csv")
    with pytest.raises(NoPhotosError):
        scan(table(tmp_path / "empty.csv", "path,label"))


# Splits restored from a manifest


@needs_posix
def test_saved_splits_are_restored_from_their_manifest(tmp_path: Path) -> None:
    names = [f"{name}/{k},\n'{k}'.jpg" for name in "ab" for k in range(30)]
    folder = put_all(tmp_path / "photos", names)
    first = split(scan(folder), seed=3)
    file = first.save(tmp_path / "lists/split.csv")
    again = split(scan(folder, file), seed=99)
    assert again.photos.paths == first.photos.paths
    assert splits_of(again) == splits_of(first)
    with file.open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert list(rows[0]) == ["path", "label", "split", "group", "hash"]
    assert [bytes.fromhex(row["hash"]) for row in rows] == list(first.photos.hashes)


def test_photos_that_changed_since_are_rejected(tmp_path: Path) -> None:
    folder = put_all(tmp_path / "photos", [f"{name}/{k}.jpg" for name in "ab" for k in range(9)])
    file = split(scan(folder)).save(tmp_path / "split.csv")
    (folder / "a/3.jpg").unlink()
    (folder / "b/4.jpg").write_bytes(photo(444))
    (folder / "b/new.jpg").write_bytes(photo(555))
    photos = scan(folder, file)
    assert len(photos) == 16
    assert why(photos) == {"a/3.jpg": RejectionReason.MISSING, "b/4.jpg": RejectionReason.CHANGED}


def test_a_manifest_is_saved_as_csv_only(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"must be a \.csv file.*split\.json"):
        split(made_up({"a": 30, "b": 30})).save(tmp_path / "split.json")


# A manifest is read strictly, or refused by line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,wood, dark\n", r"line 2: a row must have 2 cells.*Received: 3: a\.jpg,wood, dark"),
        ("a.jpg\n", r"line 2: a row must have 2 cells.*Received: 1"),
        ('a.jpg,"sea\nb.jpg,sea\nc.jpg,ice\n', r"line 2: .*valid CSV.*unexpected end"),
        ('a.jpg,"sea\nb.jpg,sea\nc.jpg,"ice"\n', r"line 2: .*valid CSV.*Close each quot"),
        ('a.jpg,"sea\nb.jpg,sea\nc.jpg,ice"\n', r"line 2: 'label' must not contain other rows"),
        ('a.jpg,"sea" x\n', r"line 2: .*valid CSV"),
        ("\n\na.jpg,sea\n\n,sea\n", r"line 6: 'path' must name a photo"),
        ('"a\nb.jpg",sea\n,sea\n', r"line 4: 'path' must name a photo"),
        ("a.jpg,sea\na\0b.jpg,sea\n", r"line 3: 'path' must name a photo"),
    ],
)
def test_rows_that_are_not_clear_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text("path,label\n" + text)
    with pytest.raises(ManifestError, match=message):
        scan(tmp_path / "list.csv")


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="Name only one column 'label'"):
        scan(table(tmp_path / "list.csv", "path,label,label", "a.jpg,x,y"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252"])
def test_other_encodings_than_utf_8_are_refused(tmp_path: Path, encoding: str) -> None:
    content = "path,label\na.jpg,sea\nb.jpg,forêt\n".encode(encoding)
    (tmp_path / "list.csv").write_bytes(content)
    line = 1 if encoding == "utf-16" else 3
    with pytest.raises(ManifestError, match=rf"list\.csv', line {line}: .*encoded as UTF-8"):
        scan(tmp_path / "list.csv")


def test_spaces_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    rows = ["sea/1.jpg, sea", "sea/2.jpg,sea", "street/1.jpg,street ", "street/2.jpg,\tstreet"]
    text = "\r\n".join(["\ufeff path , label", *rows])
    (tmp_path / "list.csv").write_bytes(text.encode())
    assert scan(tmp_path / "list.csv").counts() == {"sea": 2, "street": 2}


@pytest.mark.parametrize(
    ("labels", "received"),
    [([1.0, math.nan, 2.0, 2.0], "1.0"), ([b"sea"] * 4, "b'sea'"), ([True] * 4, "True")],
)
def test_cells_of_a_parquet_manifest_must_be_text(
    tmp_path: Path, labels: list[object], received: str
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    put_all(tmp_path, PLAIN)
    parquet.write_table(pyarrow.table({"path": PLAIN, "label": labels}), tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match=r"row 1: 'label' must be text.*Convert") as caught:
        scan(tmp_path / "t.parquet")
    assert f"Received: {received}." in str(caught.value)


@needs_byte_names
def test_line_breaks_in_names_survive_a_manifest(tmp_path: Path) -> None:
    names = [f"{of}/{k}\r{k}\n.jpg" for of in ("sea\rside", "street") for k in range(3)]
    first = split(scan(put_all(tmp_path / "photos", names)))
    again = split(scan(tmp_path / "photos", first.save(tmp_path / "split.csv")), seed=99)
    assert splits_of(again) == splits_of(first)
    assert set(again.photos.paths) == set(names)


@needs_byte_names
def test_names_that_are_not_unicode_survive_a_manifest(tmp_path: Path) -> None:
    name = os.fsdecode(b"for\xeat")
    folder = put_all(
        tmp_path / "photos", [f"{of}/{k}.jpg" for of in (name, "sea") for k in range(9)]
    )
    first = split(scan(folder))
    again = split(scan(folder, first.save(tmp_path / "split.csv")), seed=99)
    assert again.photos.class_names == (name, "sea")
    assert splits_of(again) == splits_of(first)
    for shown in (first, first.photos, sl.audit(folder)):
        str(shown).encode()  # a terminal can show it
        json.dumps(shown.to_json())


@pytest.mark.parametrize(
    ("lines", "received"),
    [(["sea/1.jpg,", "sea/2.jpg,"], "2 unlabeled, such as 'sea/1.jpg'"), ([], "without photos")],
)
def test_a_manifest_without_labels_says_so(tmp_path: Path, lines: list[str], received: str) -> None:
    put_all(tmp_path, PLAIN)
    with pytest.raises(NoPhotosError, match=received):
        scan(table(tmp_path / "list.csv", "path,label", *lines))


def test_a_name_that_is_too_long_is_a_missing_photo(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    rows = ["sea/1.jpg,a", "street/1.jpg,b", "x" * 5000 + ".jpg,a"]
    photos = scan(table(tmp_path / "list.csv", "path,label", *rows))
    assert why(photos) == {"x" * 5000 + ".jpg": RejectionReason.MISSING}


# Names in archives


@pytest.mark.parametrize(
    "names",
    [
        ["./sea/1.jpg", "./street/2.jpg"],
        ["./", "./sea/", "./sea/1.jpg", "./street/2.jpg"],
        ["/sea/1.jpg", "/street//2.jpg"],
        ["sea\\1.jpg", "street\\2.jpg", "sea\\"],
        [".\\photos\\sea\\1.jpg", ".\\photos\\street\\2.jpg"],
    ],
)
def test_archivers_write_names_in_several_ways(tmp_path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for k, name in enumerate(names):
            info = zipfile.ZipInfo(name)
            info.filename = name  # `ZipInfo` would change it on Windows
            archive.writestr(info, b"" if name.endswith(("/", "\\")) else photo(k))
    photos = scan(tmp_path / "photos.zip")
    assert photos.counts() == {"sea": 1, "street": 1}
    assert photos.rejected == ()
    assert decode(photos, 8).usable.all()
    listed = table(
        tmp_path / "list.csv", "path,label", f"./{photos.paths[0]},a", f"{photos.paths[1]},b"
    )
    assert len(scan(tmp_path / "photos.zip", listed)) == 2


def test_the_same_name_in_two_ways_is_one_file(tmp_path: Path) -> None:
    contents = {"sea/1.jpg": photo(1), "./sea/1.jpg": photo(2), "street/1.jpg": photo(3)}
    photos = scan(zipped(tmp_path / "photos.zip", contents))
    assert photos.read(0) == photo(2)
    assert why(photos) == {"sea/1.jpg": RejectionReason.SPECIAL_FILE}


# Groups, quarantine, numbers of photos


def test_groups_of_the_manifest_stay_in_one_split() -> None:
    photos = made_up({"a": 300, "b": 300})
    grouped = type(photos)(
        folder=photos.folder,
        paths=photos.paths,
        labels=photos.labels,
        class_names=photos.class_names,
        hashes=photos.hashes,
        splits=photos.splits,
        groups=tuple(f"place {k % 60}" if k % 3 else "" for k in range(600)),
    )
    # Numbers link the places in pairs, and some photos without a place to each other.
    numbers = np.array([k % 30 if k % 3 else 1000 + k // 6 for k in range(600)])
    for parts in ((split(grouped, groups=numbers),), folds(grouped, 4, groups=numbers)):
        for part in parts:
            name = np.array(splits_of(part))
            for keys in (np.array(grouped.groups), numbers.astype(str)):
                for key in set(keys) - {""}:
                    assert len(set(name[keys == key])) == 1
    alone = split(grouped)
    of_the_ungrouped = np.array(splits_of(alone))[np.array(grouped.groups) == ""]
    assert set(of_the_ungrouped.tolist()) == set(SPLITS)


def test_quarantined_photos_are_in_no_split() -> None:
    photos = made_up({"a": 40, "b": 40})
    apart = photos.paths[3:9]
    splits = split(photos, quarantine=apart)
    plain = split(photos)
    assert splits.quarantined.tolist() == list(range(3, 9))
    for name in SPLITS:
        kept = set(getattr(plain, name).tolist()) - set(range(3, 9))
        assert set(getattr(splits, name).tolist()) == kept
    assert splits.summary.endswith("test, 6 in quarantine")
    assert splits.to_json()["quarantine"] == list(apart)


def test_an_unknown_quarantined_path_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        split(made_up({"a": 40, "b": 40}), quarantine=["a/gone.jpg"])
    assert "1 quarantined paths are not" in caplog.text


@pytest.mark.parametrize("value", ["a/1.jpg", b"x", [1, 2], None, 3])
def test_a_quarantine_that_is_not_a_list_of_paths(value: object) -> None:
    with pytest.raises(ArgumentError, match=r"`quarantine` must list paths.*Pass e\.g\."):
        split(made_up({"a": 40, "b": 40}), quarantine=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("validation", "test"), [(40, 100), (0.2, 100), (40, 0.2)])
def test_numbers_of_photos_are_exact(validation: float, test: float) -> None:
    photos = made_up({"a": 300, "b": 300})
    splits = split(photos, validation=validation, test=test)
    if isinstance(test, int):
        assert len(splits.test) == test
    if isinstance(validation, int):
        assert len(splits.validation) == validation


def test_a_number_of_photos_moves_few_when_one_is_added() -> None:
    before, after = made_up({"a": 300}), made_up({"a": 300, "b": 1})
    both = [
        split(
            with_splits(made_up({"a": 300, "b": 300 + more}), [""] * (600 + more)),
            validation=60,
            test=60,
        )
        for more in (0, 1)
    ]
    moved = sum(a != b for a, b in zip(*map(splits_of, both), strict=False))
    assert moved <= 2
    assert len(before) + 1 == len(after)


def test_more_photos_requested_than_available() -> None:
    with pytest.raises(TooFewPhotosError, match=r"leave photos to train on.*80 requested of"):
        split(made_up({"a": 40, "b": 40}), test=80)


# Folds


def test_each_photo_is_tested_in_one_fold_and_every_class_in_each() -> None:
    photos = made_up({"a": 53, "b": 31, "c": 8})
    parts = folds(photos, 5, seed=2)
    tested = np.concatenate([part.test for part in parts])
    assert sorted(tested.tolist()) == list(range(92))
    for part in parts:
        splits_of(part)
        for name, n in photos.counts().items():
            row = next(row for row in part.class_counts() if row["label"] == name)
            assert row["test"] in (n // 5, n // 5 + 1)
            assert row["train"] > 0
            assert row["validation"] > 0
    assert max(len(part.test) for part in parts) - min(len(part.test) for part in parts) <= 1
    assert [splits_of(part) for part in folds(photos, 5, seed=2)] == list(map(splits_of, parts))
    assert splits_of(folds(photos, 5, seed=3)[0]) != splits_of(parts[0])


def test_with_an_assigned_test_split_the_folds_validate_in_turn() -> None:
    photos = with_splits(made_up({"a": 30, "b": 30}), ["test", "train", "train"] * 20)
    parts = folds(photos, 4)
    assert all(part.test.tolist() == list(range(0, 60, 3)) for part in parts)
    validated = sorted(np.concatenate([part.validation for part in parts]).tolist())
    assert validated == [k for k in range(60) if k % 3]


def test_quarantined_photos_are_in_no_fold() -> None:
    photos = made_up({"a": 30, "b": 30})
    parts = folds(photos, 3, quarantine=photos.paths[:5])
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(5, 60))


@pytest.mark.parametrize("n", [1, 0, 2.0, True, None])
def test_folds_out_of_range(n: object) -> None:
    with pytest.raises(ArgumentError, match=r"`n_folds` must be.*at least 2\. Received: n_folds="):
        folds(made_up({"a": 30, "b": 30}), n)  # type: ignore[arg-type]


def test_too_few_photos_for_the_folds() -> None:
    with pytest.raises(TooFewPhotosError, match=r"'b' needs at least 6 .* 5 folds. Received: 5"):
        folds(made_up({"a": 30, "b": 5}), 5)


def test_no_split_left_for_the_folds() -> None:
    photos = with_splits(made_up({"a": 30, "b": 30}), list(SPLITS) * 20)
    with pytest.raises(
        ArgumentError, match=r"leave the test or validation split to the folds.*Use `split`"
    ):
        folds(photos)
