"""Threads: how many, and a pool that several callers share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from scenelearn import _cgroups, _threads
from scenelearn._threads import map_ahead, n_threads, run_in_threads
from scenelearn.errors import ArgumentError
from tests.helpers.patches import set_control_groups
from tests.helpers.systems import needs_posix


def test_threads_follow_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_THREADS", "3")
    assert n_threads() == 3
    for wrong in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("SCENELEARN_THREADS", wrong)
        with pytest.raises(ArgumentError, match=r"`SCENELEARN_THREADS` must be .*Unset it"):
            n_threads()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux has affinities")
def test_threads_follow_the_affinity() -> None:
    code = (
        "import os; from scenelearn._threads import n_threads\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(n_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "SCENELEARN_THREADS"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),  # at least one
        ("0::/", {"cpu.max": "max 100000"}, 4),
        ("0::/", {}, 4),
        (
            "5:cpu,cpuacct:/c\n4:memory:/m",
            {"cpu/c/cpu.cfs_quota_us": "300000", "cpu/c/cpu.cfs_period_us": "100000"},
            3,
        ),
        (
            "5:cpu,cpuacct:/c",
            {"cpu/c/cpu.cfs_quota_us": "-1", "cpu/c/cpu.cfs_period_us": "100000"},
            4,
        ),
    ],
)
def test_threads_follow_the_quota_of_the_container(
    lines: str,
    files: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_control_groups(monkeypatch, tmp_path, lines, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.delenv("SCENELEARN_THREADS", raising=False)
    _cgroups.cpu_quota.cache_clear()
    try:
        assert n_threads() == expected
    finally:
        _cgroups.cpu_quota.cache_clear()


def test_each_number_is_used_once_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_THREADS", "2")
    done: list[tuple[int, str]] = []
    both = threading.Barrier(2, timeout=60)

    def work(k: int) -> None:
        if k < 2:
            both.wait()  # two threads run at the same time
        done.append((k, threading.current_thread().name))

    run_in_threads(work, range(50))
    assert sorted(k for k, _ in done) == list(range(50))
    assert len({name for _, name in done}) == 2


def test_an_error_ends_the_work_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_THREADS", "2")
    done, dropped = [], threading.Event()

    def drop(rest: Any, maxlen: int) -> None:
        deque(rest, maxlen)
        dropped.set()

    def work(k: int) -> None:
        if k == 3:
            raise ValueError("number 3")
        if k > 3:
            dropped.wait(60)  # the other thread may have the next number before the error
        done.append(k)

    monkeypatch.setattr(_threads, "deque", drop)
    with pytest.raises(ValueError, match="number 3"):
        run_in_threads(work, range(1000))
    assert sorted(done) in ([0, 1, 2], [0, 1, 2, 4])


def test_calls_inside_calls_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENELEARN_THREADS", "16")
    done: list[int] = []
    run_in_threads(
        lambda k: run_in_threads(lambda m: done.append(10 * k + m), range(10)), range(10)
    )
    assert sorted(done) == list(range(100))
    callers = [
        threading.Thread(target=run_in_threads, args=(done.append, range(100))) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(done) == 900


@needs_posix
def test_a_forked_child_has_threads_of_its_own() -> None:
    code = (
        "import os; from scenelearn._threads import run_in_threads\n"
        "os.environ['SCENELEARN_THREADS'] = '2'\n"
        "run_in_threads(print, range(3))\n"
        "if (child := os.fork()) == 0:\n"
        "    run_in_threads(print, range(3)); os._exit(0)\n"
        "print('ended', os.waitpid(child, 0)[1])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert "ended 0" in run.stdout


def test_calls_that_still_run_are_told_to_stop() -> None:
    cancel, started, told = threading.Event(), threading.Event(), list[bool]()

    def work(number: int) -> int:
        if number:
            started.set()
            told.append(cancel.wait(60))
        return number

    results = map_ahead(work, range(9), 2, cancel=cancel)
    assert next(results) == 0
    assert started.wait(60)
    results.close()
    assert told
    assert all(told)
