"""Mistakes in benches that their figures would not show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenelearn.finetune import FitResult
from tests.bench._common import require_complete
from tests.bench.frozen_layers import measure


def test_fit_that_a_signal_stopped_is_not_a_measurement(fitted: FitResult) -> None:
    for stopped in ("", "time", "not finite"):  # results that users get, too
        require_complete(replace(fitted, stopped=stopped))
    for stopped in ("SIGINT", "SIGTERM"):
        with pytest.raises(SystemExit, match=rf"stopped \({stopped}\)"):
            require_complete(replace(fitted, stopped=stopped))


@pytest.mark.nightly
def test_steps_from_cached_activations_are_compared_with_full_steps() -> None:
    row = measure("mobilenet_0.25", 64, "coarse", 1)
    assert row["cached_bytes"] == 8 * 8 * 64 * 4  # see test_maps
    assert row["full_step_ms"] > 0
    assert row["ratio"] == pytest.approx(row["full_step_ms"] / row["cached_step_ms"], rel=1e-2)
