"""The limits of the container that this process runs in: its control groups, on Linux."""

from __future__ import annotations

import functools
import math
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


@functools.cache
def cpu_quota() -> float:
    """The number of CPUs that the control groups of this process allow; infinity if all."""
    return min(map(_cpu_quota_of, _control_groups("cpu")), default=math.inf)


def free_memory_bytes() -> float:
    """The memory that the control groups of this process leave to it; infinity if all."""
    return min(map(_free_memory_of, _control_groups("memory")), default=math.inf)


def _control_groups(controller: str) -> list[Path]:
    """The folders of this process' control groups, of version 2 and of one controller of 1."""
    groups = []
    try:
        lines = _OF_PROCESS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _ROOT / controller if controllers else _ROOT
        folder = root / path.lstrip("/")
        groups += [group for group in (folder, *folder.parents) if group.is_relative_to(root)]
    return groups


def _cpu_quota_of(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def _free_memory_of(group: Path) -> float:
    try:
        if (group / "memory.max").exists():
            limit, used, prefix = "memory.max", "memory.current", ""
        else:
            limit, used, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        limit_bytes, used_bytes = (
            int((group / name).read_text(encoding="ascii")) for name in (limit, used)
        )
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        sizes = dict(line.split() for line in lines)
        # The cache of files counts as used, but the system frees it when memory is needed.
        cache_bytes = sum(int(sizes[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
        return max(0, limit_bytes - used_bytes + cache_bytes)
    except (OSError, ValueError, KeyError):  # no such file, or "max"
        return math.inf
