"""The memory that a container leaves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from scenelearn import _cgroups
from scenelearn.finetune import _device
from tests.helpers.patches import set_control_groups

STAT = """anon 900
active_file 50
inactive_file 100
total_active_file 50
total_inactive_file 100"""


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        (
            "0::/a/b",
            {"a/b/memory.max": "max", "a/memory.max": "4000", "a/memory.current": "1000",
             "a/memory.stat": STAT},
            3150,
        ),
        (
            "5:memory:/m\n4:cpu:/c",
            {"memory/m/memory.limit_in_bytes": "4000", "memory/m/memory.usage_in_bytes": "1000",
             "memory/m/memory.stat": STAT},
            3150,
        ),
        (
            "0::/",
            {"memory.max": "1000", "memory.current": "1500", "memory.stat": STAT},
            0,
        ),
        ("0::/", {"memory.max": "max", "memory.current": "1000"}, math.inf),
        ("0::/", {}, math.inf),
    ],
)  # fmt: skip
def test_memory_that_the_container_leaves(
    lines: str,
    files: dict[str, str],
    expected: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_control_groups(monkeypatch, tmp_path, lines, files)
    assert _cgroups.free_memory_bytes() == expected


def test_container_limits_the_free_memory_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_device, "_system_bytes", lambda: 10**9)
    monkeypatch.setattr(_device, "free_memory_bytes", lambda: 12345)
    monkeypatch.setattr(_device, "_on_cpu", lambda _: True)
    assert _device.available_bytes() == 12345
    monkeypatch.setattr(_device, "_on_cpu", lambda _: False)  # a device has memory of its own
    assert _device.available_bytes() is None
