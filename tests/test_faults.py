"""Faults of the disk: older files stay, errors name the path, and the same call succeeds later.

A few calls here; `tests.bench.faults` lets every one fail.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import DiskSpaceError
from scenelearn.finetune import FitResult
from tests.helpers.faults import KILL, Killed, faults, inject_all, needs_proc

pytestmark = needs_proc


def test_splits_are_old_or_new(fitted: FitResult, tmp_path: Path) -> None:
    file = tmp_path / "split.csv"

    def check() -> None:
        assert file.read_text().count("\n") == 1 + len(fitted.splits.photos)

    assert inject_all(tmp_path, lambda: fitted.splits.save(file), check) > 20


@pytest.mark.nightly
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
