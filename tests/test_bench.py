"""Benches whose mistakes nobody would see in their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenelearn.finetune import FitResult
from tests.bench._whole import whole
from tests.bench.frozen_maps import measured


def test_a_fit_that_a_signal_ended_is_no_measurement(fitted: FitResult) -> None:
    for stopped in ("", "time", "not finite"):  # what a user gets, too
        whole(replace(fitted, stopped=stopped))
    for stopped in ("SIGINT", "SIGTERM"):
        with pytest.raises(SystemExit, match=rf"stopped \({stopped}\)"):
            whole(replace(fitted, stopped=stopped))


@pytest.mark.slow
def test_steps_on_kept_maps_are_timed_beside_those_of_the_whole_network() -> None:
    row = measured("mobilenet_0.25", 64, "coarse", 1)
    assert row["kept_bytes"] == 8 * 8 * 64 * 4  # see test_maps
    assert row["step_ms"] > 0
    assert row["ratio"] == pytest.approx(row["step_ms"] / row["kept_ms"], rel=1e-2)
