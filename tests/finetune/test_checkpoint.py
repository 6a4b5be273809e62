"""The file of a checkpoint, and what it and cached features depend on."""

from __future__ import annotations

import errno
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import backbones
from scenelearn.data._resize import Resize
from scenelearn.errors import DiskError
from scenelearn.finetune import FitResult, FitSettings, _checkpoint, _features
from scenelearn.finetune._checkpoint import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from scenelearn.finetune._features import feature_folder
from scenelearn.finetune._runtime import Clock, StopSignal
from tests.helpers.faults import inject_all, needs_proc


@pytest.fixture
def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "model/0": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "model/1": np.array(3, np.int64),
        "best/0": np.zeros((0, 4), np.uint8),
    }


def test_checkpoint_round_trip(tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    metadata = {"losses": [0.1, 1 / 3, math.inf], "elapsed_s": 1e-300}
    write_checkpoint(tmp_path / "new" / "state", metadata, arrays)
    found = read_checkpoint(tmp_path / "new" / "state")
    assert found.metadata == metadata
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)


def test_checkpoint_preserves_bfloat16(tmp_path: Path) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    write_checkpoint(tmp_path / "state", {}, {"a": np.array([1.5, -2], bfloat16)})
    found = read_checkpoint(tmp_path / "state").arrays["a"]
    assert found.dtype == bfloat16
    assert found.astype(float).tolist() == [1.5, -2]


def test_damaged_checkpoint_is_rejected(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state"
    write_checkpoint(file, {"n": 1}, arrays)
    content = file.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"not a checkpoint|damaged"):
            read_checkpoint(file)
    for torn in (b"", content[:10], content[:-1], content + b"\0"):
        file.write_bytes(torn)
        assert Checkpoint(file).read() is None
    assert caplog.text.count(f"{file}: damaged") == 2
    assert caplog.text.count(f"{file}: not a checkpoint") == 2
    file.unlink()
    assert Checkpoint(file).read() is None
    assert "This run starts from the beginning" in caplog.text


def test_full_disk_keeps_the_old_checkpoint_and_warns_once(
    tmp_path: Path,
    arrays: dict[str, np.ndarray[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoint = Checkpoint(tmp_path / "run" / "state")
    checkpoint.write({"n": 1}, arrays)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    checkpoint.write({"n": 2}, arrays)
    checkpoint.write({"n": 3}, arrays)
    assert caplog.text.count(f"Cannot write the checkpoint {checkpoint.file}") == 1
    assert "No space left on device" in caplog.text
    assert [path.name for path in checkpoint.file.parent.iterdir()] == ["state"]
    saved = checkpoint.read()
    assert saved is not None
    assert saved.metadata == {"n": 1}
    assert checkpoint.n_written == 1


def test_unwritable_folder_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Checkpoint(tmp_path / "file" / "state").write({}, {})  # only logs a warning
    Checkpoint(tmp_path / "file" / "state").remove()


def test_removing_a_checkpoint_removes_partial_files(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run" / "state")
    checkpoint.write({}, {})
    (tmp_path / "run" / ".state.x1y2").touch()
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    for k in range(25):
        write_checkpoint(tmp_path / f"run {k}" / "state", {}, {})
        os.utime(tmp_path / f"run {k}" / "state", (k, k))
    (tmp_path / "other").mkdir()
    Checkpoint(tmp_path / "run 24" / "state").remove()
    expected = {"other", *(f"run {k}" for k in range(4, 24))}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_writing_takes_a_small_fraction_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "state")
    assert checkpoint.is_due()

    def slow(*_: Any) -> None:
        now[0] += 2

    monkeypatch.setattr(_checkpoint, "write_checkpoint", slow)
    checkpoint.write({}, {})
    for later, within, at_end in [(99, False, False), (101, True, True)]:
        now[0] = 102.0 + later
        assert (checkpoint.is_due(), checkpoint.is_due(epoch_ended=True)) == (within, at_end)
    checkpoint._last_s = 0.01  # a fast disk
    for later, within, at_end in [(0.4, False, False), (1, False, True), (31, True, True)]:
        now[0] = 102.0 + later
        assert (checkpoint.is_due(), checkpoint.is_due(epoch_ended=True)) == (within, at_end)


@needs_proc
def test_checkpoints_are_old_or_new(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "a" / "state"

    def check() -> None:
        assert read_checkpoint(file).arrays["a"].tolist() == [0, 1, 2]

    assert inject_all(tmp_path, lambda: write_checkpoint(file, {}, {"a": np.arange(3)}), check) > 20


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO])
def test_checkpoint_that_cannot_be_read_now_is_kept(tmp_path: Path, error: int) -> None:
    checkpoint = Checkpoint(tmp_path / "runs" / "a" / "state")
    checkpoint.write({}, {"a": np.arange(3)})

    def fail(*_: object) -> None:
        raise OSError(error, "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "fromfile", fail)
        with pytest.raises(DiskError, match=r"state.*no"):
            checkpoint.read()
    assert checkpoint.read() is not None


# What a run and cached features depend on


def test_different_runs_have_different_checkpoints(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    splits = fitted.splits
    pixels = sl.data.decode(splits.photos, 32)
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32, seed=0)
    requested = FitSettings(**fit_settings)
    first = checkpoint_path(requested, splits, pixels, network)
    other = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32, seed=1)
    files = {
        first,
        *(
            checkpoint_path(replace(requested, **{name: value}), splits, pixels, network)
            for name, value in [("seed", 1), ("learning_rate", 1e-5), ("augmentation", "none")]
        ),
        checkpoint_path(requested, replace(splits, test=splits.test[1:]), pixels, network),
        checkpoint_path(requested, splits, pixels, other),
    }
    assert len(files) == 6
    assert checkpoint_path(replace(requested, minutes=99), splits, pixels, network) == first


def test_folder_name_depends_on_everything_that_features_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def network(px: int, seed: int) -> Any:
        return sl.backbones.build("scenelearn_tiny", weights=None, image_px=px, seed=seed)

    def folder(
        px: int = 32,
        seed: int = 0,
        batch_size: int = 32,
        *,
        mirrored: bool = False,
        shape: str = "crop",
    ) -> Path:
        resize = Resize(px, px, shape)
        return feature_folder(
            network(px, seed), "scenelearn_tiny", resize, batch_size, mirrored=mirrored
        )

    one = folder()
    assert folder() == one
    others = {folder(mirrored=True), folder(64), folder(seed=1), folder(batch_size=16)}
    others.add(folder(shape="pad"))
    monkeypatch.setattr(_features, "DECODER_VERSION", "another version")
    others.add(folder())
    assert len(others - {one}) == 6
    assert one.name.startswith("features-scenelearn_tiny-32-")


def test_feature_folder_depends_on_the_precision() -> None:
    def folder(precision: str | None) -> Path:
        model = backbones.build(
            "scenelearn_tiny", weights=None, image_px=32, seed=1, precision=precision
        )
        return feature_folder(model, "scenelearn_tiny", Resize(32, 32), 8, mirrored=False)

    assert len({folder(one) for one in (None, *("mixed_bfloat16", "mixed_float16"))}) == 3


def test_time_of_an_earlier_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 100.0)
    clock = Clock(1.0, lambda *_: None, StopSignal(), time.perf_counter())
    assert clock.left_s(reserve_s=5) == 55
    clock.add_earlier_run(40.0, "to step 3 of epoch 2")
    assert clock.left_s(reserve_s=5) == 15
    assert clock.elapsed_s() == 40
    assert clock.phases[0].seconds == 40
