"""Faults of the disk: older files stay, errors name the path, and the same call succeeds later.

A few calls here; `tests.bench.faults` lets every one fail.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import scenelearn as sl
from scenelearn._io import atomic_write, atomic_write_folder, temporary_array
from scenelearn.data._shards import open_shards
from scenelearn.errors import ArgumentError, DiskError, DiskSpaceError
from scenelearn.finetune import FitResult
from scenelearn.finetune._checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from scenelearn.finetune._features import read_features, write_features
from tests.helpers.faults import ERRORS, KILL, Killed, faults

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file names come from /proc")


def inject_all(folder: Path, work: Callable[[], object], check: Callable[[], None]) -> int:
    """Let each call of `work` fail in each way; check what is left, and do it again."""
    with faults(folder) as disk:
        work()
    n_faults = 0
    for n, call in enumerate(disk.calls):
        for error in (*ERRORS[call.kind], KILL):
            problem: Exception | None = None
            with faults(folder, n, error), contextlib.suppress(Killed):
                try:
                    work()
                except (DiskError, ArgumentError) as raised:
                    problem = raised
            if problem:
                kinds = {errno.EACCES: sl.errors.SceneLearnError, errno.ENOSPC: DiskSpaceError}
                assert isinstance(problem, kinds.get(error, DiskError))
                assert str(folder) in str(problem)
            check()
            work()
            n_faults += 1
    return n_faults


def test_written_files_are_old_or_new(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    contents = iter(range(10**6))

    def write() -> None:
        with atomic_write(file) as temporary:
            temporary.write_text(f"{next(contents):06d}")

    def check() -> None:
        assert len(file.read_text()) == 6

    assert inject_all(tmp_path, write, check) > 20


def test_written_folders_are_old_or_new(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write_folder(tmp_path / "model") as temporary:
            (temporary / "a").write_text("a")

    def check() -> None:
        assert (tmp_path / "model" / "a").read_text() == "a"

    write()
    assert inject_all(tmp_path, write, check) > 10


def test_splits_are_old_or_new(fitted: FitResult, tmp_path: Path) -> None:
    file = tmp_path / "split.csv"

    def check() -> None:
        assert file.read_text().count("\n") == 1 + len(fitted.splits.photos)

    assert inject_all(tmp_path, lambda: fitted.splits.save(file), check) > 20


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


def test_caches_that_cannot_be_read_now_are_kept(tmp_path: Path, fitted: FitResult) -> None:
    features = np.ones((1, 4), np.float32)
    write_features(tmp_path / "features", [bytes(16)], features)
    (file,) = (tmp_path / "features").iterdir()
    with faults(tmp_path, 0, errno.EMFILE):
        assert read_features(file.parent, {bytes(16): [0]}, features) == (set(), 0)
    assert read_features(file.parent, {bytes(16): [0]}, features)[0] == {bytes(16)}
    photos = fitted.splits.photos
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCENELEARN_CACHE", str(tmp_path / "cache"))
        sl.data.decode(photos, 8, verbose=False)
        whole = open_shards(tmp_path / "cache", 8)
        n_calls = 3 * len(whole.arrays)
        for n in range(n_calls):
            with faults(tmp_path, n, errno.EMFILE):
                open_shards(tmp_path / "cache", 8)
            assert len(open_shards(tmp_path / "cache", 8).places) == len(whole.places)


def test_array_that_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path))

    def work() -> None:
        with temporary_array((4, 4)) as array:
            array[:] = 1

    assert inject_all(tmp_path, work, lambda: None) >= 8


@pytest.mark.slow
def test_bundles_and_reports_are_old_or_new(fitted: FitResult, tmp_path: Path) -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    expected = fitted.classifier.predict_proba(image, verbose=False)
    bundle = tmp_path / "scenes.keras"
    with faults(tmp_path) as disk:
        fitted.classifier.save(bundle)
    for n in range(0, len(disk.calls), len(disk.calls) // 12):
        for error in (errno.ENOSPC, KILL):
            with faults(tmp_path, n, error), contextlib.suppress(DiskSpaceError, Killed):
                fitted.classifier.save(bundle)
            assert np.allclose(sl.load(bundle).predict_proba(image, verbose=False), expected)
    page = sl.report(fitted, tmp_path / "report")
    with faults(tmp_path) as disk:
        sl.report(fitted, tmp_path / "report")
    for n in range(0, len(disk.calls), 5):
        with (
            faults(tmp_path, n, errno.ENOSPC),
            contextlib.suppress(DiskSpaceError),  # the last removal has no effect
        ):
            sl.report(fitted, tmp_path / "report")
        assert page.read_text().rstrip().endswith("</html>")
