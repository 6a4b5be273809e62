"""What the README and the pages show is true: it compiles, it names what exists, it runs."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import scenelearn as sl
from scenelearn import cli, errors

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
EXECUTED = sorted((REPOSITORY / "docs").glob("[!_]*/*.py"))


def fences(page: Path, language: str, *, run: bool = False) -> list[str]:
    """The code of a page in one language; with `run`, without what says that it is not run."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":  # the prose of an executed page
        prose = [line for line in text.splitlines() if line.startswith("#")]
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in prose) + "\n"
    pattern = rf"(<!-- not run: .+ -->\n)?^( *)```{language}\n(.*?)^ *```$"
    found = re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for skipped, _, code in found if not (run and skipped)]


def cases(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{page.relative_to(REPOSITORY)}:{i}")
        for page in (*PAGES, *EXECUTED)
        for i, code in enumerate(fences(page, language), start=1)
    ]


def commands() -> list[object]:
    """Every line in a shell fence that calls scenelearn, up to the next command on that line."""
    found = []
    for page in (*PAGES, *EXECUTED):
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


RUN = [page for page in PAGES if fences(page, "python", run=True)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, fitted: Any) -> Path:
    """A folder with the files that snippets name: photos, a classifier, a weights file."""
    folder = tmp_path_factory.mktemp("desk")
    sl.sample_scenes(folder / "photos", per_class=14, seed=3)
    for name, label in (("beach.jpg", "sea"), ("forest.jpg", "forest")):
        shutil.copy(next((folder / "photos" / label).iterdir()), folder / name)
    shutil.copytree(folder / "photos" / "sea", folder / "new")
    (folder / "run").mkdir()
    fitted.save(folder / "run" / "scenes.keras")
    (folder / "mobilenet_v3_small_notop.h5").touch()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_snippets_run(page: Path, desk: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A page's snippets, one after the other, as they stand; but fits are made small."""
    shutil.copytree(desk, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    small = {"backbone": "scenelearn_tiny", "weights": None, "image_px": 32}
    fit = sl.finetune.fit

    def quick(splits: Any, **given: Any) -> Any:
        given = {"epochs": 1} | given | small
        return fit(splits, **given)

    monkeypatch.setattr(sl, "fit", quick, raising=False)
    names: dict[str, Any] = {"__name__": "snippet"}
    for code in fences(page, "python", run=True):
        try:
            exec(compile(code, str(page), "exec"), names)  # noqa: S102 - our own pages
        except ImportError as error:  # an optional package; a name that we lack is a mistake
            if str(error.name).startswith("scenelearn"):
                raise
            pytest.skip(f"{page.name}: {error}")


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

    networks = json.loads((REPOSITORY / "docs/results/backbones.json").read_text())

    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in [*intel["runs"], *networks["runs"]]:
        minutes = f"{run['minutes']:g}" if run["minutes"] else "head alone"
        network = run["settings"]["backbone"]
        how = run["what"].removeprefix(network).rpartition(", ")[0].removeprefix(" at 160 px")
        kinds.setdefault((f"`{network}`{how}", minutes), []).append(run)
    assert len(kinds) >= 5
    for (name, minutes), runs in kinds.items():
        reached = [100 * run["test"]["value"] for run in runs]
        each = ", ".join(f"{value:.1f}" for value in reached)
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        mean = f"{sum(reached) / len(reached):.1f} %"
        assert f"| {name} | {minutes} | {mean} | {each} | {seconds:.0f} |" in readme
    made_on = intel["runs"][0]["environment"]
    for key in ("keras", "jax", "python", "cores"):
        assert made_on[key] in readme
    for run in [*intel["runs"], *networks["runs"]]:
        assert run["environment"]["date"][:10] in readme
    for key in ("color_histogram", "linear_pixels"):
        assert f"{100 * scenes[key]['accuracy']:.1f} %" in readme
    accuracies = [run["accuracy"] for run in scenes["network"]["runs"]]
    assert f"{100 * sum(accuracies) / len(accuracies):.1f} %" in readme


# The site


def checks() -> ModuleType:
    """docs/_checks.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("_checks", REPOSITORY / "docs" / "_checks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def findings(site: Path, **pages: str) -> list[str]:
    for name, text in pages.items():
        (site / f"{name}.html").write_text(text, encoding="utf-8")
    return list(checks().check(site, checks().read_all(site)))


def test_a_sound_site_passes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    text = '<h1 id="top">A</h1><img src="a.png" alt="A"><a href="b.html#end">B</a><a href="#top">'
    away = '<p id="end"><a href="https://keras.io/">elsewhere</a>'
    assert findings(tmp_path, a=text, b=away) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<a href="gone.html">', "a link to gone.html, which is not there"),
        ('<a href="a.html#gone">', "a link to a.html#gone, where there is no such anchor"),
        ('<a href="#gone">', "a link to #gone, where there is no such anchor"),
        ('<img src="data:,">', "a picture without alternative text"),
        ('<img src="data:," alt="No description">', "a picture without alternative text"),
        ('<svg role="img"></svg>', "a picture without alternative text: a drawing"),
        ('<script src="https://cdn.example/x.js"></script>', "from another site"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "from another site"),
        ("x" * 300_001, "300,001 bytes, more than 300,000"),
    ],
)
def test_what_is_wrong_with_a_page_is_found(text: str, found: str, tmp_path: Path) -> None:
    (one,) = findings(tmp_path, a=text)
    assert found in one


def test_a_public_name_that_the_reference_lacks_is_found() -> None:
    module = checks()
    some = "".join(f'<h2 id="scenelearn.errors.{name}"></h2>' for name in errors.__all__[1:])
    pages = {"reference/errors.html": module.read(some)}
    assert list(module.undocumented(pages, ["errors"])) == [
        f"scenelearn.errors.{errors.__all__[0]} is public, and the reference does not have it."
    ]


def test_what_a_cell_prints_in_pieces_is_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    soup = pytest.importorskip("bs4").BeautifulSoup
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    hooks = importlib.import_module("_hooks")
    progress, result = "application/vnd.jupyter.stderr", "jp-OutputArea-executeResult"
    pieces = "".join(
        f'<div class="jp-OutputArea-output {name}" data-mime-type="{kind}"><pre>{text}</pre></div>'
        for text, kind, name in (
            ("a", "text/plain", ""),
            ("…", progress, ""),
            ("b", "text/plain", ""),
            ("c", "text/html", ""),
            ("d", "text/plain", ""),
            ("e", "text/plain", result),
        )
    )
    cell = soup(
        '<div class="jp-Cell celltag_folded"><div class="jp-InputArea"><pre>code</pre></div>'
        f"{pieces}</div>",
        "html.parser",
    ).div
    shown = soup(hooks._cell(cell), "html.parser")
    outputs = [one.get_text() for one in shown.select(".cell-output")]
    assert outputs == ["ab", "c", "d", "e"]
    assert shown.details.code.get_text() == "code"


def test_every_error_has_its_causes_and_remedies() -> None:
    page = (REPOSITORY / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    for part in page.split("<!-- names of scenelearn.errors: ")[1:]:
        assert "**Cause.**" in part
        assert "**Remedy.**" in part
    named = re.findall(r"<!-- names of scenelearn\.errors: (\w+) -->", page)
    assert sorted(named) == sorted(errors.__all__)


def test_an_error_knows_its_help_page() -> None:
    at = "reference/errors.html#scenelearn.errors."
    assert errors.DiskSpaceError("full").help_page == f"{at}DiskSpaceError"
    refused = sl.data.RefusedPhoto(sl.data.Reason.EMPTY_FILE, "")
    assert refused.help_page == f"{at}PhotoError"  # not public in errors: its nearest one that is


def test_every_command_has_its_help_on_the_site() -> None:
    page = (REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (commands,) = (
        action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)
    )
    for form in (r"^<!-- help: (\w+) -->$", r"^## `scenelearn (\w+)`$"):
        assert sorted(re.findall(form, page, flags=re.MULTILINE)) == sorted(commands)


def test_the_citation_names_this_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    page = (REPOSITORY / "docs" / "about" / "citation.md").read_text(encoding="utf-8")
    assert f"version = {{{project['version']}}}" in page
