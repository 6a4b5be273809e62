"""The feature cache: what is cached, when it is used, and when it must not be."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import scenelearn as sl
from scenelearn.data import Photos
from scenelearn.errors import ArgumentError
from tests.helpers.faults import faults, needs_proc
from tests.helpers.marks import nightly, slow
from tests.helpers.systems import needs_posix

Usage = namedtuple("Usage", "total used free")
Table = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for each test."""
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file, as a download would be."""
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    network.get_layer("backbone").save_weights(path)
    return path


@pytest.fixture(scope="module")
def photos(scenes: Path) -> Photos:
    return sl.scan(scenes)


def features(photos: Photos, weights_file: Path, **others: Any) -> Table:
    settings = {"backbone": "scenelearn_tiny", "weights": weights_file, "image_px": 32}
    return sl.finetune.extract_features(photos, **settings | others)


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("features-*/*"))


def n_computed(photos: Photos, weights_file: Path) -> int:
    """The number of photos whose features are computed, by the progress."""
    cached: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "extracting features":
            cached.append(done)

    features(photos, weights_file, progress=progress)
    return len(photos) - cached[0] if cached else 0  # nothing to report


def test_second_call_computes_and_decodes_nothing(
    photos: Photos, weights_file: Path, cache: Path
) -> None:
    assert n_computed(photos, weights_file) == len(photos)
    first = features(photos, weights_file)
    assert np.isfinite(first).all()
    for folder in cache.glob("pixels-*"):
        shutil.rmtree(folder)
    assert n_computed(photos, weights_file) == 0
    assert list(cache.glob("pixels-*")) == []
    assert np.array_equal(first, features(photos, weights_file))


def test_cached_features_are_identical_bit_for_bit(
    photos: Photos, weights_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(photos, weights_file)
    cached = features(photos, weights_file)
    monkeypatch.setenv("SCENELEARN_CACHE", str(cache / "other"))
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    assert np.array_equal(features(photos, weights_file), cached)
    assert files(cache / "other") == []


@pytest.mark.skipif(os.environ.get("KERAS_BACKEND", "jax") != "jax", reason="promised for JAX")
def test_features_do_not_depend_on_other_photos(
    photos: Photos, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = features(photos, weights_file)
    monkeypatch.setenv("SCENELEARN_CACHE", os.environ["SCENELEARN_CACHE"] + "/other")
    some = np.random.default_rng(0).permutation(len(photos))[:50]
    fewer = replace(
        photos,
        paths=tuple(photos.paths[k] for k in some),
        hashes=tuple(photos.hashes[k] for k in some),
        labels=photos.labels[some],
    )
    assert np.array_equal(features(fewer, weights_file), cached[some])


def test_moved_and_renamed_photos_are_found_by_content(
    scenes: Path, photos: Photos, weights_file: Path, tmp_path: Path
) -> None:
    first = features(photos, weights_file)
    moved = shutil.copytree(scenes, tmp_path / "moved")
    for n, file in enumerate(sorted(moved.rglob("*.jpg"))):
        file.rename(file.with_name(f"{97 * n % 101:03}-{n}.jpg"))  # also in another order
    again = sl.scan(moved)
    assert n_computed(again, weights_file) == 0
    table = features(again, weights_file)
    row = {key: first[n] for n, key in enumerate(photos.hashes)}
    assert all(np.array_equal(table[n], row[key]) for n, key in enumerate(again.hashes))
    new = moved / again.class_names[0] / "new.jpg"
    new.write_bytes(again.read(0) + b"\0")
    assert n_computed(sl.scan(moved), weights_file) == 1
    assert np.isfinite(features(sl.scan(moved), weights_file)).all()


def test_interrupted_run_continues(photos: Photos, weights_file: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "extracting features" and done == total:  # the second part is not written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(photos, weights_file, progress=interrupt)
    assert n_computed(photos, weights_file) == len(photos) - 64
    assert np.isfinite(features(photos, weights_file)).all()


_KILLED = """
import os, signal, sys
import scenelearn as sl
folder, weights = sys.argv[1:]
def progress(what, done, total):
    if what == "extracting features" and done == total:
        os.kill(os.getpid(), signal.SIGKILL)
sl.finetune.extract_features(
    sl.scan(folder), backbone="scenelearn_tiny", weights=weights, image_px=32, progress=progress
)
"""


@needs_posix
@pytest.mark.nightly
def test_killed_run_loses_at_most_one_part(
    scenes: Path, photos: Photos, weights_file: Path
) -> None:
    command = [sys.executable, "-c", _KILLED, str(scenes), str(weights_file)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert n_computed(photos, weights_file) == len(photos) - 64
    table = features(photos, weights_file)
    shutil.rmtree(os.environ["SCENELEARN_CACHE"])
    assert np.array_equal(features(photos, weights_file), table)


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    "damage",
    slow(flipped, lambda content: content[: len(content) // 2])
    + nightly(lambda _: b"", lambda _: b"\x93NUMPY"),
    ids=["one bit", "cut off", "empty", "something else"],
)
def test_damaged_file_is_computed_again(
    photos: Photos, weights_file: Path, cache: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = features(photos, weights_file)
    file = files(cache)[0]
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.INFO):
        assert np.array_equal(features(photos, weights_file), whole)
    assert "damaged file of the feature cache" in caplog.text
    assert len(files(cache)) >= 1
    caplog.clear()
    with caplog.at_level(logging.INFO):
        features(photos, weights_file)
    assert "damaged" not in caplog.text


def test_file_with_unexpected_content_is_ignored(
    photos: Photos, weights_file: Path, cache: Path
) -> None:
    whole = features(photos, weights_file)
    file = files(cache)[0]
    np.save(cache / "x.npy", np.zeros(3))
    content = (cache / "x.npy").read_bytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    assert hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() == file.stem
    (file.parent / f"{digest}.npy").write_bytes(content)
    assert np.array_equal(features(photos, weights_file), whole)


def test_weights_are_identified_by_value(
    photos: Photos, weights_file: Path, tmp_path: Path
) -> None:
    features(photos, weights_file)
    copy = shutil.copy(weights_file, tmp_path / "copy.weights.h5")
    assert n_computed(photos, copy) == 0


def test_features_of_random_weights_are_not_cached(photos: Photos, cache: Path) -> None:
    table = features(photos, None)  # type: ignore[arg-type]
    assert np.isfinite(table).all()
    assert files(cache) == []


def test_full_cache_or_disk_disables_caching(
    photos: Photos,
    weights_file: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 2**20, 2**20))
    table = features(photos, weights_file)
    assert "are not cached, but computed each time" in caplog.text
    assert "SCENELEARN_CACHE_GIB" in caplog.text
    assert files(cache) == []
    monkeypatch.undo()
    monkeypatch.setenv("SCENELEARN_CACHE", str(cache))
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    assert np.array_equal(features(photos, weights_file), table)
    assert files(cache) == []


@needs_proc
def test_failed_write_loses_no_features(
    photos: Photos, weights_file: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sl.data.decode(photos, 32)
    with faults(cache) as disk:
        features(photos, weights_file)
    n = next(k for k, call in enumerate(disk.calls) if call.kind == "write")
    for folder in cache.glob("features-*"):
        shutil.rmtree(folder)
    with faults(cache, n, errno.ENOSPC):
        assert np.isfinite(features(photos, weights_file)).all()
    assert caplog.text.count("No space left on device") == 1


@needs_proc
def test_cache_that_cannot_be_read_now_is_kept(
    photos: Photos, weights_file: Path, cache: Path
) -> None:
    table = features(photos, weights_file)
    kept = {file: file.read_bytes() for file in files(cache)}
    with faults(cache) as disk:
        features(photos, weights_file)
    reads = [k for k, call in enumerate(disk.calls) if call.path.startswith("features-")]
    with faults(cache, reads[0], errno.EMFILE):
        assert np.array_equal(features(photos, weights_file), table)
    assert all(file.read_bytes() == content for file, content in kept.items())


def test_invalid_cache_folder_raises(
    photos: Photos, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArgumentError, match="`SCENELEARN_CACHE` must name a writable folder"):
        features(photos, weights_file)


def test_missing_photo_has_nan_features_until_restored(
    scenes: Path, weights_file: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(scenes, tmp_path / "copy")
    photos = sl.scan(copy)
    content = photos.file(3).read_bytes()
    photos.file(3).unlink()
    table = features(photos, weights_file)
    assert np.flatnonzero(np.isnan(table).any(axis=1)).tolist() == [3]
    photos.file(3).write_bytes(content)
    assert np.isfinite(features(photos, weights_file)).all()


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_photos_removed_during_the_run_have_nan_features(
    scenes: Path, weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(scenes, tmp_path / "copy")
    photos = sl.scan(copy)
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    removed = [5, *range(64, 72)]  # one photo of the first part, and the entire second part

    def lose(what: str, done: int, total: int) -> None:
        if what == "extracting features" and done == 0:
            for k in removed:
                photos.file(k).unlink(missing_ok=True)

    table = features(photos, weights_file, progress=lose)
    assert np.flatnonzero(np.isnan(table).any(axis=1)).tolist() == removed


def test_fit_shares_the_cache(photos: Photos, weights_file: Path, cache: Path) -> None:
    settings = {"backbone": "scenelearn_tiny", "weights": weights_file, "image_px": 32, "epochs": 0}
    splits = sl.split(photos)
    sl.fit(splits, **settings)
    n_cached = sum(len(np.load(file)) for file in files(cache))
    assert n_cached == 2 * len(splits.train) + len(splits.validation)
    assert n_computed(photos, weights_file) == len(splits.test)  # only these are new


def test_progress_counts_cached_photos_as_done(photos: Photos, weights_file: Path) -> None:
    reports: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "extracting features":
            reports.append((done, total))

    features(photos, weights_file, progress=progress)
    assert reports[0] == (0, len(photos))
    assert reports[-1] == (len(photos), len(photos))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
