"""Features are computed once: what is kept, when it is used again, and when it must not be."""

from __future__ import annotations

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
from scenelearn.classify import judge
from scenelearn.data import Photos
from scenelearn.errors import ArgumentError
from scenelearn.finetune import _feature_rows, _features
from scenelearn.finetune._feature_files import folder_of

Usage = namedtuple("Usage", "total used free")
Table = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for each test."""
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file, as a download would be."""
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    network.get_layer("backbone").save_weights(path)
    return path


@pytest.fixture(scope="module")
def photos(scenes: Path) -> Photos:
    return sl.scan(scenes)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many photos the network has seen, call by call."""
    numbers: list[int] = []

    def counted(model: Any, batches: Any, progress: Any = None) -> Any:
        numbers.append(batches.n_photos)
        return judge(model, batches, progress)

    monkeypatch.setattr(_feature_rows, "judge", counted)
    return numbers


def features(photos: Photos, stored: Path, **others: Any) -> Table:
    settings = {"backbone": "scenelearn_tiny", "weights": stored, "image_px": 32}
    return sl.finetune.features(photos, **settings | others)


def files(cache: Path) -> list[Path]:
    return sorted(cache.glob("features-*/*"))


def test_second_call_computes_and_decodes_nothing(
    photos: Photos, stored: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = features(photos, stored)
    assert np.isfinite(first).all()
    assert sum(seen) == len(set(photos.hashes))
    monkeypatch.setattr(_features, "decode", lambda *_, **__: pytest.fail("decoded"))
    again = features(photos, stored)
    assert np.array_equal(first, again)
    assert sum(seen) == len(set(photos.hashes))


def test_kept_features_are_those_of_the_network_bit_for_bit(
    photos: Photos, stored: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features(photos, stored)
    kept = features(photos, stored)
    monkeypatch.setenv("SCENELEARN_CACHE", str(cache / "other"))
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    assert np.array_equal(features(photos, stored), kept)
    assert files(cache / "other") == []


@pytest.mark.skipif(os.environ.get("KERAS_BACKEND", "jax") != "jax", reason="promised for JAX")
def test_other_photos_that_were_seen_with_a_photo_leave_no_trace(
    photos: Photos, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = features(photos, stored)
    monkeypatch.setenv("SCENELEARN_CACHE", os.environ["SCENELEARN_CACHE"] + "/other")
    some = np.random.default_rng(0).permutation(len(photos))[:50]
    fewer = replace(
        photos,
        paths=tuple(photos.paths[k] for k in some),
        hashes=tuple(photos.hashes[k] for k in some),
        labels=photos.labels[some],
    )
    assert np.array_equal(features(fewer, stored), kept[some])


def test_other_folders_and_names_cost_nothing_and_a_new_photo_only_itself(
    scenes: Path, photos: Photos, stored: Path, seen: list[int], tmp_path: Path
) -> None:
    first = features(photos, stored)
    moved = shutil.copytree(scenes, tmp_path / "moved")
    for n, file in enumerate(sorted(moved.rglob("*.jpg"))):
        file.rename(file.with_name(f"{97 * n % 101:03}-{n}.jpg"))  # another order, too
    n_seen = sum(seen)
    again = sl.scan(moved)
    table = features(again, stored)
    assert sum(seen) == n_seen
    row = {key: first[n] for n, key in enumerate(photos.hashes)}
    assert all(np.array_equal(table[n], row[key]) for n, key in enumerate(again.hashes))
    new = moved / again.class_names[0] / "new.jpg"
    new.write_bytes(again.read(0) + b"\0")
    assert np.isfinite(features(sl.scan(moved), stored)).all()
    assert sum(seen) == n_seen + 1


def test_run_that_is_stopped_goes_on_where_it_was(
    photos: Photos, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers: list[int] = []

    def third_time_stopped(model: Any, batches: Any, progress: Any = None) -> Any:
        if len(numbers) == 2:
            raise KeyboardInterrupt
        numbers.append(batches.n_photos)
        return judge(model, batches, progress)

    monkeypatch.setattr(_feature_rows, "_FIRST", 16)
    monkeypatch.setattr(_feature_rows, "_MOST", 32)
    monkeypatch.setattr(_feature_rows, "judge", third_time_stopped)
    with pytest.raises(KeyboardInterrupt):
        features(photos, stored)
    assert numbers == [16, 32]
    left: list[int] = []

    def counted(model: Any, batches: Any, progress: Any = None) -> Any:
        left.append(batches.n_photos)
        return judge(model, batches, progress)

    monkeypatch.setattr(_feature_rows, "judge", counted)
    assert np.isfinite(features(photos, stored)).all()
    assert sum(left) == len(set(photos.hashes)) - 48


_KILLED = """
import os, signal, sys
from scenelearn.finetune import _feature_rows, _features
import scenelearn as sl
_features.FEATURE_BATCH = _feature_rows.FEATURE_BATCH = 8
_feature_rows._FIRST = _feature_rows._MOST = 8
folder, weights, limit = sys.argv[1:]
def progress(what, done, total):
    if what == "features" and done >= int(limit):
        os.kill(os.getpid(), signal.SIGKILL)
sl.finetune.features(
    sl.scan(folder), backbone="scenelearn_tiny", weights=weights, image_px=32, progress=progress
)
"""


@pytest.mark.slow
def test_killed_runs_lose_at_most_the_part_they_were_at(
    scenes: Path,
    photos: Photos,
    stored: Path,
    seen: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in ("20", "30", "55"):
        command = [sys.executable, "-c", _KILLED, str(scenes), str(stored), limit]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    monkeypatch.setattr(_feature_rows, "FEATURE_BATCH", 8)
    monkeypatch.setattr(_features, "FEATURE_BATCH", 8)
    table = features(photos, stored)
    assert sum(seen) <= len(photos) - 48
    shutil.rmtree(os.environ["SCENELEARN_CACHE"])
    assert np.array_equal(features(photos, stored), table)


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"\x93NUMPY"],
    ids=["one bit", "cut off", "empty", "something else"],
)
def test_damaged_part_is_found_and_computed_again(
    photos: Photos, stored: Path, cache: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = features(photos, stored)
    file = files(cache)[0]
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.INFO):
        assert np.array_equal(features(photos, stored), whole)
    assert "damaged part of the feature cache" in caplog.text
    assert len(files(cache)) >= 1
    caplog.clear()
    with caplog.at_level(logging.INFO):
        features(photos, stored)
    assert "damaged" not in caplog.text


def test_file_of_another_kind_under_its_own_digest_is_not_believed(
    photos: Photos, stored: Path, cache: Path
) -> None:
    whole = features(photos, stored)
    file = files(cache)[0]
    np.save(cache / "x.npy", np.zeros(3))
    from scenelearn.finetune._feature_files import _digest

    content = (cache / "x.npy").read_bytes()
    (file.parent / f"{_digest(content)}.npy").write_bytes(content)
    assert np.array_equal(features(photos, stored), whole)


def test_all_that_features_depend_on_is_in_the_name(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(px: int, seed: int) -> Any:
        return sl.backbones.build("scenelearn_tiny", weights=None, image_px=px, seed=seed)

    def folder(
        px: int = 32, seed: int = 0, batch_size: int = 32, *, mirrored: bool = False
    ) -> Path:
        return folder_of(network(px, seed), "scenelearn_tiny", px, batch_size, mirrored=mirrored)

    one = folder()
    assert folder() == one
    others = {folder(mirrored=True), folder(64), folder(seed=1), folder(batch_size=16)}
    monkeypatch.setattr("scenelearn.finetune._feature_files.DECODING", "another way")
    others.add(folder())
    assert len(others - {one}) == 5
    assert one.name.startswith("features-scenelearn_tiny-32-")


def test_weights_count_by_value_not_by_name(
    photos: Photos, stored: Path, seen: list[int], tmp_path: Path
) -> None:
    features(photos, stored)
    n_seen = sum(seen)
    features(photos, shutil.copy(stored, tmp_path / "copy.weights.h5"))
    assert sum(seen) == n_seen


def test_features_of_random_weights_are_not_kept(photos: Photos, cache: Path) -> None:
    table = features(photos, None)  # type: ignore[arg-type]
    assert np.isfinite(table).all()
    assert files(cache) == []


def test_cache_beyond_its_limit_or_without_space_is_not_written(
    photos: Photos,
    stored: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40 - 2**20, 2**20))
    table = features(photos, stored)
    assert "are not kept but computed each time" in caplog.text
    assert "SCENELEARN_CACHE_GIB" in caplog.text
    assert files(cache) == []
    monkeypatch.undo()
    monkeypatch.setenv("SCENELEARN_CACHE", str(cache))
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    assert np.array_equal(features(photos, stored), table)
    assert files(cache) == []


def test_disk_that_fills_up_costs_no_photo(
    photos: Photos,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_feature_rows, "put", full)
    assert np.isfinite(features(photos, stored)).all()
    assert caplog.text.count("No space left on device") == 1


def test_cache_folder_that_cannot_be_made(
    photos: Photos, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArgumentError, match="`SCENELEARN_CACHE` must name a folder"):
        features(photos, stored)


def test_photo_that_is_gone_has_no_features_until_it_is_back(
    scenes: Path, stored: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(scenes, tmp_path / "copy")
    photos = sl.scan(copy)
    content = photos.file(3).read_bytes()
    photos.file(3).unlink()
    table = features(photos, stored)
    assert np.flatnonzero(np.isnan(table).any(axis=1)).tolist() == [3]
    photos.file(3).write_bytes(content)
    assert np.isfinite(features(photos, stored)).all()


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_photos_that_go_while_they_are_read_are_left_out(
    scenes: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(scenes, tmp_path / "copy")
    photos = sl.scan(copy)
    monkeypatch.setenv("SCENELEARN_CACHE_GIB", "0")
    gone = [5, *range(64, 72)]  # one of the first part, and the whole second one

    def lose(what: str, done: int, total: int) -> None:
        if what == "features" and done == 0:
            for k in gone:
                photos.file(k).unlink(missing_ok=True)

    table = features(photos, stored, progress=lose)
    assert np.flatnonzero(np.isnan(table).any(axis=1)).tolist() == gone


def test_fit_keeps_its_features_and_uses_those_that_are_kept(
    scenes: Path, photos: Photos, stored: Path, seen: list[int]
) -> None:
    settings = {"backbone": "scenelearn_tiny", "weights": stored, "image_px": 32, "epochs": 0}
    splits = sl.split(photos)
    first = sl.fit(splits, **settings)
    n_seen = 2 * len(splits.train) + len(splits.validation)
    assert sum(seen) == n_seen
    again = sl.fit(splits, **settings)
    assert sum(seen) == n_seen
    assert np.array_equal(first.test_probabilities, again.test_probabilities)
    features(photos, stored)  # only those that test are new
    assert sum(seen) == n_seen + len(splits.test)


def test_progress_counts_what_is_kept_as_done(photos: Photos, stored: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "features":
            told.append((done, total))

    features(photos, stored, progress=progress)
    assert told[0] == (0, len(photos))
    assert told[-1] == (len(photos), len(photos))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
