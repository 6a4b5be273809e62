"""Mistakes in benches that their figures would not show."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scenelearn.finetune import FitResult
from tests import bench
from tests.bench._common import new_runs, require_complete

BENCHES = [
    module.name
    for module in pkgutil.walk_packages(bench.__path__, "tests.bench.")
    if not module.ispkg and re.search(r"\.([a-z]\w*|__main__)$", module.name)
]


def test_fit_that_a_signal_stopped_is_not_a_measurement(fitted: FitResult) -> None:
    for stopped in ("", "time", "not finite"):  # results that users get, too
        require_complete(replace(fitted, stopped=stopped))
    for stopped in ("SIGINT", "SIGTERM"):
        with pytest.raises(SystemExit, match=rf"stopped \({stopped}\)"):
            require_complete(replace(fitted, stopped=stopped))


def test_runs_that_the_file_has_are_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"

    def measure(names: str, **options: Any) -> list[str]:
        measured = []
        cases = [{"name": name, "seed": 0} for name in names]
        for run in new_runs(file, {"command": "test"}, cases, show=("name",), **options):
            run.update(test=len(measured))
            measured.append(run["name"])
        return measured

    assert measure("ab") == ["a", "b"]
    assert measure("abc") == ["c"]
    next(new_runs(file, {}, [{"name": "d"}], show=()))  # its measurement fails
    expected = [{"name": name, "seed": 0, "test": k} for name, k in (("a", 0), ("b", 1), ("c", 0))]
    assert json.loads(file.read_text()) == {"command": "test", "runs": expected}
    assert measure("ab", counts=lambda run: run["test"] > 0) == ["a"]


def test_runs_with_other_settings_are_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    table = {"settings": {"backbone": "a"}}
    for run in new_runs(file, table, [{"name": "first"}], show=("name",)):
        run["test"] = 1
    assert list(new_runs(file, table, [{"name": "first"}], show=("name",))) == []
    for other, shown in (({"settings": {"backbone": "b"}}, "{'backbone': 'b'}"), ({}, "None")):
        with pytest.raises(SystemExit, match=f"runs with {{'backbone': 'a'}}, not {shown}"):
            next(new_runs(file, other, [{"name": "second"}], show=()))


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_shows_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(name).main()
    assert end.value.code == 0
    assert "--help" in capsys.readouterr().out


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
