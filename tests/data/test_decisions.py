"""Decisions about photos: what `scan`, `split` and `audit` make of their file."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn.data import RejectionReason

FILE_NAME = "scenelearn_decisions.csv"


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    """Three photos of each of three classes."""
    for label in ("forest", "sea", "street"):
        (tmp_path / label).mkdir()
        for k, file in enumerate(sorted((scenes / label).iterdir())[:3]):
            shutil.copy(file, tmp_path / label / f"{k}.jpg")
    return tmp_path


def decide(folder: Path, *decisions: tuple[str, ...]) -> None:
    """Save (path, decision, new label) of photos whose labels are their folders."""
    photos = sl.scan(folder)
    hashes = {path: hash_.hex() for path, hash_ in zip(photos.paths, photos.hashes, strict=True)}
    with (folder / FILE_NAME).open(
        "w", newline="", encoding="utf-8", errors="surrogatepass"
    ) as file:
        table = csv.writer(file)
        table.writerow(("path", "decision", "label", "new_label", "hash"))
        for path, decision, *new_label in decisions:
            label = path.split("/")[0]
            table.writerow((path, decision, label, "".join(new_label), hashes[path]))


def labels(photos: sl.data.Photos) -> dict[str, str]:
    return {
        path: photos.class_names[label]
        for path, label in zip(photos.paths, photos.labels, strict=True)
    }


def test_scan_relabels_and_rejects(folder: Path) -> None:
    before = labels(sl.scan(folder))
    decide(
        folder,
        ("forest/0.jpg", "relabel", "sea"),
        ("sea/1.jpg", "quarantine"),
        ("sea/2.jpg", "keep"),
        ("street/0.jpg", "relabel", "lane"),  # a new class
    )
    photos = sl.scan(folder)
    del before["sea/1.jpg"]
    assert labels(photos) == before | {"forest/0.jpg": "sea", "street/0.jpg": "lane"}
    assert photos.class_names == ("forest", "lane", "sea", "street")
    assert [(one.path, one.reason, one.detail) for one in photos.rejected] == [
        (FILE_NAME, RejectionReason.SYSTEM_FILE, ""),
        ("sea/1.jpg", RejectionReason.QUARANTINED, f"by {FILE_NAME}"),
    ]
    assert "1 in quarantine" in photos.summary
    assert [len(photos.hashes), len(photos.splits)] == [8, 8]
    assert (folder / "sea" / "1.jpg").is_file()


def test_class_without_photos_is_gone_and_split_and_audit_honor_it(folder: Path) -> None:
    decide(folder, *((f"street/{k}.jpg", "relabel", "sea") for k in range(3)))
    assert sl.scan(folder).class_names == ("forest", "sea")
    splits = sl.split(folder)
    assert np.bincount(splits.photos.labels).tolist() == [3, 6]
    assert sl.audit(folder).photos.class_names == ("forest", "sea")


def test_manifest_that_has_the_new_label_already(folder: Path) -> None:
    decide(folder, ("sea/0.jpg", "relabel", "street"), ("street/1.jpg", "quarantine"))
    first = sl.scan(folder)
    manifest = sl.split(first, validation=0, test=0.5).save(folder / "split.csv")
    again = sl.scan(folder, manifest)
    assert labels(again) == labels(first)


def test_decisions_about_other_content_or_labels_are_ignored_and_logged(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decide(folder, ("sea/0.jpg", "quarantine"), ("sea/1.jpg", "relabel", "street"))
    shutil.copy(folder / "forest" / "0.jpg", folder / "sea" / "0.jpg")
    rows = ["path,label", *(f"sea/{k}.jpg,water" for k in range(3))]
    (folder / "other.csv").write_text("\n".join(rows))
    with caplog.at_level(logging.WARNING):
        photos = sl.scan(folder / "other.csv")
    assert set(labels(photos).values()) == {"water"}
    assert len(photos) == 3
    assert "2 decisions are about photos that have changed since" in caplog.text


def test_archive_has_its_decisions_next_to_it(folder: Path, tmp_path_factory: object) -> None:
    archive = folder / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.glob("*/*.jpg")):
            file.write(path, path.relative_to(folder).as_posix())
    decide(folder, ("sea/0.jpg", "quarantine"))
    (folder / FILE_NAME).rename(folder / f"photos.zip.{FILE_NAME}")
    assert "sea/0.jpg" not in sl.scan(archive).paths


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_valid_unicode(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n,.jpg")
    (folder / "sea" / "0.jpg").rename(folder / "sea" / name)
    decide(folder, (f"sea/{name}", "relabel", "street"))
    assert labels(sl.scan(folder))[f"sea/{name}"] == "street"


def test_everything_in_quarantine(folder: Path) -> None:
    decide(folder, *((path, "quarantine") for path in sl.scan(folder).paths))
    with pytest.raises(sl.errors.NoPhotosError, match="9 photos, all in quarantine"):
        sl.scan(folder)


@pytest.mark.parametrize(
    "row",
    [
        "sea/0.jpg,discard,sea,,{hash}",
        "sea/0.jpg,relabel,sea,,{hash}",
        "sea/0.jpg,keep,sea,street,{hash}",
        "sea/0.jpg,keep,sea,,12",
    ],
)
def test_invalid_rows(folder: Path, row: str) -> None:
    text = "path,decision,label,new_label,hash\n" + row.format(hash="0" * 32)
    (folder / FILE_NAME).write_text(text)
    with pytest.raises(sl.errors.ManifestError, match="row 1: 'decision' must be one of keep"):
        sl.scan(folder)


def test_the_quarantine_spares_photos_that_a_person_has_reviewed(folder: Path) -> None:
    shutil.copy(folder / "sea/0.jpg", folder / "street/copy.jpg")
    shutil.copy(folder / "forest/0.jpg", folder / "street/tree.jpg")
    Image.new("RGB", (64, 64), "gray").save(folder / "sea/fog.png")
    Image.new("RGB", (64, 64), "black").save(folder / "sea/night.png")
    pairs = ["forest/0.jpg", "sea/0.jpg", "street/copy.jpg", "street/tree.jpg"]
    assert sl.audit(folder).quarantine == (
        *pairs[:2], "sea/fog.png", "sea/night.png", *pairs[2:]
    )  # fmt: skip
    decide(folder, ("sea/0.jpg", "keep"), ("sea/night.png", "keep"))
    assert sl.audit(folder).quarantine == (
        "forest/0.jpg", "sea/fog.png", "street/copy.jpg", "street/tree.jpg"
    )  # fmt: skip
    # Relabeled: the pair agrees. Relabeled to a third class: a person has decided about one of two.
    decide(folder, ("street/copy.jpg", "relabel", "sea"), ("forest/0.jpg", "relabel", "wood"))
    audit = sl.audit(folder)
    assert audit.quarantine == ("sea/fog.png", "sea/night.png", "street/tree.jpg")
    assert [audit.photos.paths[k] for k in audit.reviewed] == ["forest/0.jpg", "street/copy.jpg"]
    # The decision no longer applies to a photo with another content.
    decide(folder, ("sea/fog.png", "keep"))
    Image.new("RGB", (65, 64), "gray").save(folder / "sea/fog.png")
    assert "sea/fog.png" in sl.audit(folder).quarantine


def test_a_leak_is_left_out_although_it_was_kept(folder: Path) -> None:
    for name in ("train", "test"):
        (folder / name).mkdir()
        for label in ("forest", "sea", "street"):
            shutil.copytree(folder / label, folder / name / label)
            for k, file in enumerate(sorted((folder / name / label).iterdir())):
                if (k == 2) == (name == "train"):
                    file.unlink()
    for label in ("forest", "sea", "street"):
        shutil.rmtree(folder / label)
    shutil.copy(folder / "test/sea/2.jpg", folder / "train/sea/2.jpg")
    photos = sl.scan(folder)
    hashes = dict(zip(photos.paths, photos.hashes, strict=True))
    row = f"train/sea/2.jpg,keep,sea,,{hashes['train/sea/2.jpg'].hex()}\n"
    (folder / FILE_NAME).write_text("path,decision,label,new_label,hash\n" + row)
    audit = sl.audit(folder)
    assert len(audit.reviewed) == 1
    assert audit.quarantine == ("train/sea/2.jpg",)
