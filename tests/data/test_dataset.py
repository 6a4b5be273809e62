"""Scans of data frames, and of Hugging Face image datasets on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import scenelearn as sl
from scenelearn.data import RejectionReason, _dataset, decode, scan
from scenelearn.errors import ArgumentError, ManifestError, NoPhotosError
from tests.helpers.photo_files import PLAIN, classes, photo, put_all, splits_by_path, why

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

NAMES = ["street", "sea"]  # not sorted: the order of the labels is the dataset's


def table(
    contents: list[bytes | None],
    labels: list[Any],
    names: list[str] | None = NAMES,
    **columns: Any,
) -> Any:
    """Rows as the package `datasets` stores them, with its metadata."""
    features: dict[str, Any] = {"image": {"_type": "Image"}, "tags": [{"_type": "Value"}]}
    if names:
        features["label"] = {"names": names, "_type": "ClassLabel"}
    images = [{"bytes": content, "path": f"{k}.jpg"} for k, content in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.table({"image": pa.array(images, kind), "label": labels, **columns})
    return rows.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def write_parquet(file: Path, rows: Any, group: int = 2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(rows, file, row_group_size=group)


def write_arrow(file: Path, rows: Any, group: int = 2) -> None:
    """A stream of record batches, as `save_to_disk` writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=group)


# Data frames


def test_data_frame_equals_its_manifest(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    frame = pd.DataFrame(
        {
            "path": PLAIN,
            "label": ["sea", "sea", 7, None],
            "split": ["train", "test", np.nan, ""],
            "camera": range(4),
        }
    )
    frame.to_csv(tmp_path / "photos.csv", index=False)
    expected = scan(tmp_path, tmp_path / "photos.csv")
    photos = scan(tmp_path, frame)
    assert photos.to_json() == expected.to_json()
    assert photos.hashes == expected.hashes
    assert classes(photos) == {"sea/1.jpg": "sea", "sea/2.jpg": "sea", "street/1.jpg": "7"}
    assert photos.unlabeled == ("street/2.jpg",)


def test_paths_of_a_data_frame_may_be_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path / "street")
    paths = [tmp_path / "sea" / "1.jpg", Path("1.jpg"), "gone.jpg"]
    photos = scan(pd.DataFrame({"path": paths, "label": ["sea", "street", "street"]}))
    assert photos.folder == tmp_path
    assert classes(photos) == {"sea/1.jpg": "sea", "street/1.jpg": "street"}
    assert why(photos) == {"street/gone.jpg": RejectionReason.MISSING}
    assert photos.read(0) == (tmp_path / "sea" / "1.jpg").read_bytes()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["a"], "label": ["b"]}, r"the data frame must have .*: 'file', 'label'"),
        ({"path": ["a", "a"], "label": ["b", "b"]}, "row 1: each photo must be listed once"),
        ({"path": ["a", None], "label": ["b", "b"]}, "row 1: 'path' must name a photo"),
        ({"path": ["a"], "label": [1.5]}, "row 0: 'label' must be text or an integer"),
        ({"path": ["a"], "label": ["b"], "split": ["both"]}, "row 0: 'split' must be empty or one"),
    ],
)  # fmt: skip
def test_invalid_data_frames(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        scan(pd.DataFrame(columns))


def test_two_tables_are_one_too_many(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": PLAIN, "label": "sea"})
    with pytest.raises(ArgumentError, match="two tables"):
        scan(frame, frame)
    with pytest.raises(NoPhotosError, match="a manifest without photos"):
        scan(frame[:0])


# Datasets


def test_downloaded_parquet_files(tmp_path: Path) -> None:
    contents = [photo(k) for k in range(12)]
    labels = [0, 1] * 6
    write_parquet(tmp_path / "data/train-00000-of-00002.parquet", table(contents[:5], labels[:5]))
    write_parquet(tmp_path / "data/train-00001-of-00002.parquet", table(contents[5:9], labels[5:9]))
    write_parquet(tmp_path / "data/test-00000-of-00001.parquet", table(contents[9:], labels[9:]))
    (tmp_path / "README.md").write_text("A dataset")
    photos = scan(tmp_path)
    assert photos.class_names == ("sea", "street")
    read = {content: k for k, content in enumerate(contents)}
    order = [read[photos.read(k)] for k in range(12)]
    assert order == [9, 10, 11, *range(9)]  # sorted by path: test, then train
    assert [photos[k].label for k in range(12)] == [NAMES[labels[k]] for k in order]
    assert photos.splits == ("test",) * 3 + ("train",) * 9
    assert photos.paths[3] == "data/train-00000-of-00002.parquet/0"
    assert why(photos) == {"README.md": RejectionReason.NOT_AN_IMAGE}


def test_saved_folder_of_arrow_files(tmp_path: Path) -> None:
    contents = [photo(k) for k in range(11)]
    for split, some in (("train", contents[:8]), ("test", contents[8:])):
        rows = table(some, ["sea", "street"] * 4 if split == "train" else ["sea"] * 3, None)
        write_arrow(tmp_path / split / "data-00000-of-00001.arrow", rows)
        (tmp_path / split / "state.json").write_text("{}")
        (tmp_path / split / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    photos = scan(tmp_path)
    assert photos.counts() == {"sea": 7, "street": 4}
    assert [photos.read(k) for k in range(11)] == [*contents[8:], *contents[:8]]
    assert set(why(photos).values()) == {RejectionReason.SYSTEM_FILE}
    one = scan(tmp_path / "test" / "data-00000-of-00001.arrow")  # a single file
    assert [one.read(k) for k in range(3)] == contents[8:]


def test_dataset_is_decoded_audited_and_predicted_like_files(tmp_path: Path, scenes: Path) -> None:
    folder = scan(scenes)[::6]
    contents = [folder.read(k) for k in range(len(folder))]
    rows = table(contents, folder.labels.tolist(), list(folder.class_names))
    write_parquet(tmp_path / "train.parquet", rows, group=5)
    photos = scan(tmp_path / "train.parquet")
    assert photos.hashes == folder.hashes
    assert photos.labels.tolist() == folder.labels.tolist()
    indices = np.arange(len(folder))
    np.testing.assert_array_equal(
        decode(photos, 24).read(indices)[0], decode(folder, 24).read(indices)[0]
    )
    assert sl.audit(photos).groups.tolist() == sl.audit(folder).groups.tolist()


def test_splits_of_a_dataset_are_saved_and_restored(tmp_path: Path) -> None:
    rows = table([photo(k) for k in range(40)], [0, 1] * 20)
    write_parquet(tmp_path / "photos.parquet", rows, group=7)
    splits = sl.split(scan(tmp_path), seed=0)
    again = scan(tmp_path, splits.save(tmp_path / "split.csv"))
    assert again.rejected == ()
    assert splits_by_path(again)["photos.parquet/00"] in ("train", "validation", "test")
    np.testing.assert_array_equal(sl.split(again, seed=1).test, splits.test)


def test_photos_are_predicted_by_the_path_of_their_row(fitted: Any, tmp_path: Path) -> None:
    write_parquet(tmp_path / "photos.parquet", table([photo(k, px=32) for k in range(3)], [0] * 3))
    photos = scan(tmp_path)
    one = fitted.classifier.predict_proba(photos[1])  # a `Photo` with the path of its row
    np.testing.assert_allclose(one[0], fitted.classifier.predict_proba(photos)[1], atol=1e-6)


def test_labels_without_names_unknown_labels_and_missing_bytes(tmp_path: Path) -> None:
    contents: list[bytes | None] = [photo(0), photo(1), photo(2), photo(3)[:50], None, b""]
    tags = [["a"]] * 6  # a list, whose feature may be a list
    write_parquet(tmp_path / "a.parquet", table(contents, [1, -1, None, 1, 1, 1], tags=tags))
    write_parquet(tmp_path / "b.parquet", table([photo(9)], [5], None))
    photos = scan(tmp_path)
    assert classes(photos) == {"a.parquet/0": "sea", "b.parquet/0": "5"}
    assert photos.unlabeled == ("a.parquet/1", "a.parquet/2")
    assert why(photos) == {
        "a.parquet/3": RejectionReason.TRUNCATED,
        "a.parquet/4": RejectionReason.MISSING,
        "a.parquet/5": RejectionReason.EMPTY_FILE,
    }


def test_first_class_label_is_the_class(tmp_path: Path) -> None:
    rows = table([photo(0), photo(1)], [3, 4], None, fine=[0, 1], coarse=[0, 0])
    features = {name: {"_type": "ClassLabel", "names": ["x", "y"]} for name in ("fine", "coarse")}
    text = json.dumps({"info": {"features": features}})
    write_parquet(tmp_path / "a.parquet", rows.replace_schema_metadata({"huggingface": text}))
    assert list(classes(scan(tmp_path)).values()) == ["x", "y"]


def test_row_groups_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [np.random.default_rng(k).bytes(1000) for k in range(40)]
    write_parquet(tmp_path / "a.parquet", table(contents, [0] * 40), group=4)
    groups = _dataset._RowGroups()
    monkeypatch.setenv("SCENELEARN_THREADS", "1")
    monkeypatch.setattr(_dataset, "_groups", groups)
    monkeypatch.setattr(_dataset, "_CACHE_BYTES", 13_000)  # three groups of about 4,000 bytes
    for row in (*range(40), 0, 39, 17):
        assert _dataset.read_row(tmp_path, f"a.parquet/{row}") == contents[row]
        assert sum(array.nbytes for _, array in groups._arrays.values()) <= 13_000
    monkeypatch.setattr(_dataset, "_CACHE_BYTES", 10)  # less than a group: one is kept
    assert _dataset.read_row(tmp_path, "a.parquet/5") == contents[5]
    assert len(groups._arrays) == 1


@pytest.mark.parametrize(("max_bytes", "n_reads"), [(2**20, 4), (9_000, 16)])
def test_threads_read_each_row_group_once_if_all_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bytes: int, n_reads: int
) -> None:
    contents = [np.random.default_rng(k).bytes(1000) for k in range(16)]
    write_parquet(tmp_path / "a.parquet", table(contents, [0] * 16), group=4)
    read_row_group, read = parquet.ParquetFile.read_row_group, []

    def count(self: Any, group: int, **options: Any) -> Any:
        read.append(group)
        return read_row_group(self, group, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", count)
    monkeypatch.setenv("SCENELEARN_THREADS", "4")
    monkeypatch.setattr(_dataset, "_CACHE_BYTES", 10)  # less than a group
    monkeypatch.setattr(_dataset, "_MAX_CACHE_BYTES", max_bytes)  # all four groups, or two
    for row in range(4):
        for group in range(4):  # as four threads do
            content = _dataset.read_row(tmp_path, f"a.parquet/{4 * group + row}")
            assert content == contents[4 * group + row]
    assert len(read) == n_reads


def test_row_group_that_states_gigabytes_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "a.parquet", table([photo(0)], [0]))
    monkeypatch.setattr(_dataset, "_MAX_GROUP_BYTES", 100)
    with pytest.raises(NoPhotosError, match="a row group of 0 GiB"):
        scan(tmp_path)


def test_damaged_and_changed_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))  # decoded nowhere before
    folder = tmp_path / "photos"
    file = folder / "a.parquet"
    write_parquet(file, table([photo(0), photo(1)], [0, 1]))
    photos = scan(folder)
    write_parquet(file, table([photo(5), photo(6)], [0, 1]))
    assert photos.read(0) == photo(5)
    with pytest.raises(NoPhotosError, match="has changed since the scan"):
        decode(photos, 8)
    write_parquet(file, table([photo(5)], [0]))
    with pytest.raises(FileNotFoundError, match="no longer in the dataset"):
        photos.read(1)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(OSError, match="damaged in the dataset"):
        photos.read(0)
    with pytest.raises(NoPhotosError, match="a Parquet file that is damaged"):
        scan(folder)


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 3, 5], np.int32))
    labels = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"sea\xff\xfe")])
    write_parquet(tmp_path / "a.parquet", table([photo(0), photo(1)], labels, names=None))
    with pytest.raises(ManifestError, match=r"must be a complete dataset.*damaged in the dataset"):
        scan(tmp_path)


def test_parquet_file_without_photos_is_no_dataset(tmp_path: Path) -> None:
    put_all(tmp_path, PLAIN)
    write_parquet(tmp_path / "photos.parquet", pa.table({"path": PLAIN, "label": ["sea"] * 4}))
    assert scan(tmp_path).class_names == ("sea", "street")  # class folders, beside a manifest
    assert scan(tmp_path / "photos.parquet").class_names == ("sea",)
