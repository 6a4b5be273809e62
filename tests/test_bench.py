"""Mistakes in benches that their figures would not show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenelearn.finetune import FitResult
from tests.bench._common import require_complete


def test_fit_that_a_signal_stopped_is_not_a_measurement(fitted: FitResult) -> None:
    for stopped in ("", "time", "not finite"):  # results that users get, too
        require_complete(replace(fitted, stopped=stopped))
    for stopped in ("SIGINT", "SIGTERM"):
        with pytest.raises(SystemExit, match=rf"stopped \({stopped}\)"):
            require_complete(replace(fitted, stopped=stopped))
