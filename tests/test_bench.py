"""Mistakes in benches that their figures would not show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scenelearn.finetune import FitResult
from tests.bench._common import require_complete


def test_fit_that_a_signal_stopped_is_not_a_measurement(fitted: FitResult) -> None:
    for stopped in ("", "time", "not finite"):  # results that users get, too
        require_complete(replace(fitted, stopped=stopped))
    for stopped in ("SIGINT", "SIGTERM"):
        with pytest.raises(SystemExit, match=rf"stopped \({stopped}\)"):
            require_complete(replace(fitted, stopped=stopped))


@pytest.mark.nightly
def test_every_stage_of_the_faults_bench_still_runs(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    subprocess.run(
        [sys.executable, "-m", "tests.bench.faults", "--stages", "split", "--out", str(out)],
        check=True, capture_output=True, env=os.environ | {"KERAS_BACKEND": "jax"},
    )  # fmt: skip
    result = json.loads(out.read_text())
    assert result["faults"] == result["possible_faults"] > 20
    assert result["failures"] == 0
