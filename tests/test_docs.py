"""What the README and the pages show is true: it compiles, it names what exists, it runs."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import scenelearn as sl
from scenelearn import cli

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
EXECUTED = sorted((REPOSITORY / "docs").glob("[!_]*/*.py"))


def fences(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def cases(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{page.relative_to(REPOSITORY)}:{i}")
        for page in PAGES
        for i, code in enumerate(fences(page, language), start=1)
    ]


def commands() -> list[object]:
    """Every line in a shell fence that calls scenelearn, up to the next command on that line."""
    found = []
    for page in PAGES:
        for code in fences(page, "sh"):
            for line in code.splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    if words and Path(words[0]).name == "scenelearn":
                        found.append(pytest.param(words[1:], id=" ".join(words)))
    return found


def assert_names_exist(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sl":
            assert hasattr(sl, node.attr), f"sl.{node.attr} does not exist"


@pytest.mark.parametrize("code", cases("python"))
def test_snippets_compile_and_name_what_exists(code: str) -> None:
    compile(code, "<snippet>", "exec")
    assert_names_exist(code)


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_executed_pages_name_what_exists(page: Path) -> None:
    assert_names_exist(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", commands())
def test_the_command_line_knows_what_is_shown(words: list[str]) -> None:
    cli.parser().parse_args(words)  # exits, and so fails, on anything that it does not know


def test_the_readme_opens_with_its_two_commands() -> None:
    lines = [code.strip() for code in fences(REPOSITORY / "README.md", "sh")]
    assert lines[0].startswith("python3 -m venv")
    assert lines[0].endswith("scenelearn fit")
    assert lines[1].startswith("python3 -m venv")
    assert lines[1].endswith("pytest")


@pytest.mark.slow
def test_the_first_example_runs(tmp_path: Path) -> None:
    code = "\n".join(fences(REPOSITORY / "docs" / "index.md", "python"))
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "scenes.keras").is_file()
    assert (tmp_path / "report" / "index.html").is_file()


def test_nothing_names_a_path_of_one_machine() -> None:
    for page in [*PAGES, *EXECUTED]:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(?:home|root|Users|work|tmp)/", text), page


def test_figures_in_the_readme_are_those_that_were_measured() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    intel = json.loads((REPOSITORY / "docs/results/intel.json").read_text())
    scenes = json.loads((REPOSITORY / "docs/results/sample_scenes.json").read_text())

    assert intel["runs"]
    for run in intel["runs"]:
        test = run["test"]
        value, low, high = (f"{100 * test[key]:.1f}" for key in ("value", "low", "high"))
        row = next(line for line in readme.splitlines() if line.startswith(f"| {run['seed']} |"))
        assert f"{value} % ({low} to {high})" in row
        assert f"{run['seconds']:.0f}" in row
        assert str(test["n"]) in row
    made_on = intel["runs"][0]["environment"]
    for key in ("keras", "jax", "python", "cores"):
        assert made_on[key] in readme
    assert made_on["date"][:10] in readme
    for key in ("colour_histogram", "linear_pixels"):
        assert f"{100 * scenes[key]['accuracy']:.1f} %" in readme
    accuracies = [run["accuracy"] for run in scenes["network"]["runs"]]
    assert f"{100 * sum(accuracies) / len(accuracies):.1f} %" in readme
