"""A few random cases of each kind: a correct result, or an error of scenelearn. See tests/bench."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.bench.fuzz._cases import try_case
from tests.bench.fuzz._kinds import KINDS
from tests.helpers.systems import needs_posix

pytestmark = needs_posix  # a signal ends a case that hangs

# As many as take about half a second.
FEW = {"images": 60, "manifests": 200, "archives": 60, "bundles": 12, "arguments": 12}


@pytest.mark.parametrize("kind", FEW)
def test_few_cases(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCENELEARN_CACHE", "HOME"):  # restored in the end
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    case = KINDS[kind](tmp_path)
    verdicts = [try_case(kind, case, 1, number) for number in range(FEW[kind])]
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
