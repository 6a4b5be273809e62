"""A few random cases of each kind: a correct result, or an error of scenelearn. See tests/bench."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.bench.fuzz._cases import Case, try_case
from tests.bench.fuzz._kinds import KINDS
from tests.bench.fuzz._processes import run_cases

# As many as take about half a second.
FEW = {"images": 60, "manifests": 200, "archives": 60, "bundles": 24, "arguments": 12}


@pytest.mark.parametrize("kind", FEW)
def test_few_cases(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCENELEARN_CACHE", "HOME"):  # restored in the end
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    case = KINDS[kind](tmp_path)
    verdicts = [try_case(kind, case, 2, number) for number in range(FEW[kind])]
    assert [verdict.problem for verdict in verdicts if verdict.problem] == []
    assert len({verdict.outcome for verdict in verdicts}) > 1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_other_cases_each_time(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCENELEARN_CACHE", "HOME"):  # restored in the end
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    seed, n = time.time_ns() % 10**6, 10 if kind == "environments" else 20 * FEW[kind]
    case = KINDS[kind](tmp_path)
    problems = [try_case(kind, case, seed, number).problem for number in range(n)]
    assert list(filter(None, problems)) == [], f"seed {seed}"


def crashes(_folder: Path) -> Case:
    """Cases of which the third ends its process."""
    numbers = iter(range(4))

    def case(_random: random.Random) -> str:
        k = next(numbers)
        if k == 2:
            os._exit(7)
        return "fine"

    return case


def hangs(_folder: Path) -> Case:
    """Cases that take too long."""

    def case(_random: random.Random) -> str:
        time.sleep(60)
        return "fine"

    return case


@pytest.mark.slow
def test_a_crash_is_a_failure_of_its_case() -> None:
    part = run_cases(crashes, 60, 0, range(4))
    assert part.outcomes == {"fine": 3, "failed": 1}
    assert part.failures == ["crashes, case 2: the process ended, exit 7"]


@pytest.mark.slow
def test_a_hanging_case_is_a_failure() -> None:
    part = run_cases(hangs, 0.5, 0, range(1))
    assert part.failures == ["hangs, case 0: more than 0.5 s, exit -9"]
