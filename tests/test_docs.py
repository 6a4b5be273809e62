"""The README and the docs: snippets compile, name what exists and run; numbers were measured."""

from __future__ import annotations

import ast
import csv
import functools
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

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import cli, errors
from tests.helpers import REPOSITORY
from tests.helpers.marks import nightly, slow

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
EXECUTED = sorted((REPOSITORY / "docs").glob("[!_]*/*.py"))


def fences(page: Path, language: str, *, run: bool = False) -> list[str]:
    """The code blocks of a page in one language; with `run`, without those marked as not run."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":  # the prose of an executed page
        prose = [line for line in text.splitlines() if line.startswith("#")]
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in prose) + "\n"
    pattern = rf"(<!-- not run: .+ -->\n)?^( *)```{language}\n(.*?)^ *```$"
    matches = re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for skipped, _, code in matches if not (run and skipped)]


def cases(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{page.relative_to(REPOSITORY)}:{i}")
        for page in (*PAGES, *EXECUTED)
        for i, code in enumerate(fences(page, language), start=1)
    ]


def commands() -> list[object]:
    """The arguments of every scenelearn command in a shell block."""
    cases = []
    for page in (*PAGES, *EXECUTED):
        for code in fences(page, "sh"):
            for line in code.splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    if words and Path(words[0]).name == "scenelearn":
                        cases.append(pytest.param(words[1:], id=" ".join(words)))
    return cases


def assert_names_exist(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sl":
            assert hasattr(sl, node.attr), f"sl.{node.attr} does not exist"


@pytest.mark.parametrize("code", cases("python"))
def test_snippets_compile_and_names_exist(code: str) -> None:
    compile(code, "<snippet>", "exec")
    assert_names_exist(code)


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_names_in_executed_pages_exist(page: Path) -> None:
    assert_names_exist(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", commands())
def test_command_line_parses_every_command(words: list[str]) -> None:
    cli.parser().parse_args(words)  # exits, and so fails, if an option is unknown


def test_readme_opens_with_its_two_commands() -> None:
    lines = [code.strip() for code in fences(REPOSITORY / "README.md", "sh")]
    assert lines[0].startswith("python3 -m venv")
    assert lines[0].endswith("scenelearn fit")
    assert lines[1].startswith("python3 -m venv")
    assert lines[1].endswith("pytest")


RUN = [page for page in PAGES if fences(page, "python", run=True)]
SLOWEST = ("gpus.md", "small_datasets.md")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, fitted: Any) -> Path:
    """A folder with the files that snippets use: photos, a classifier, a weights file."""
    folder = tmp_path_factory.mktemp("workspace")
    sl.sample_scenes(folder / "photos", per_class=14, seed=3)
    for name, label in (("beach.jpg", "sea"), ("forest.jpg", "forest")):
        shutil.copy(next((folder / "photos" / label).iterdir()), folder / name)
    shutil.copytree(folder / "photos" / "sea", folder / "new")
    (folder / "run").mkdir()
    fitted.save(folder / "run" / "scenes.keras")
    (folder / "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5").touch()
    return folder


@pytest.mark.parametrize(
    "page",
    slow(*(page for page in RUN if page.name not in SLOWEST))
    + nightly(*(page for page in RUN if page.name in SLOWEST)),
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_snippets_run(page: Path, workspace: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Run the snippets of a page in order, unchanged except that fits are small."""
    shutil.copytree(workspace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    small = {"backbone": "scenelearn_tiny", "weights": None, "image_px": 32}
    fit = sl.finetune.fit

    @functools.cache
    def first_fit() -> Any:
        return fit(sl.split(sl.scan("photos/"), seed=0), epochs=1, batch_size=16, **small)

    def small_fit(splits: Any, **arguments: Any) -> Any:
        if page.name == "cookbook.md":  # many fits: only their settings are checked
            arguments.pop("callbacks", None)  # no setting
            sl.finetune.FitSettings(**arguments)
            return first_fit()
        return fit(splits, **({"epochs": 1, "batch_size": 16} | arguments | small))

    def small_cross_validate(photos: Any, folds: int, groups: Any = None, **arguments: Any) -> Any:
        sl.finetune.FitSettings(**arguments)
        return sl.finetune.cross_validate(
            photos, min(folds, 2), groups=groups, epochs=0, batch_size=16, **small
        )

    monkeypatch.setattr(sl, "fit", small_fit, raising=False)
    monkeypatch.setattr(sl, "cross_validate", small_cross_validate, raising=False)
    names: dict[str, Any] = {"__name__": "snippet"}
    for code in fences(page, "python", run=True):
        try:
            exec(compile(code, str(page), "exec"), names)  # noqa: S102 - from this repository
        except ModuleNotFoundError as error:  # an optional package, if it is not installed
            package = str(error.name).partition(".")[0]
            if package == "scenelearn" or importlib.util.find_spec(package) is not None:
                raise
            pytest.skip(f"{page.name}: {error}")
        except sl.errors.MissingExtraError as error:
            pytest.skip(f"{page.name}: {error}")


@pytest.mark.nightly
def test_first_example_runs(tmp_path: Path) -> None:
    code = "\n".join(fences(REPOSITORY / "docs" / "index.md", "python"))
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "scenes.keras").is_file()
    assert (tmp_path / "report" / "index.html").is_file()


def test_no_page_contains_a_local_path() -> None:
    for page in [*PAGES, *EXECUTED, *(REPOSITORY / "docs/results").glob("*.json")]:
        text = re.sub(r'"jpeg_base64": ".*"', "", page.read_text(encoding="utf-8"))
        assert not re.search(r"/(?:home|root|Users|work|tmp)/", text), page


def measured_rows() -> dict[tuple[str, str], tuple[str, str, str]]:
    """Mean accuracy, accuracy of each seed and mean seconds, by backbone and time budget."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in ("intel", "backbones"):
        results = json.loads((REPOSITORY / f"docs/results/{name}.json").read_text())
        assert results["photos"]["n"] == 6000
        assert len(results["photos"]["classes"]) == 6
        for run in results["runs"]:
            backbone = run["settings"]["backbone"]
            options = run["name"].removeprefix(backbone).rpartition(", ")[0]
            minutes = run["minutes"]
            budget = (
                f"{minutes:g} minute{'s' if minutes != 1 else ''}"
                if minutes
                else "linear probe only"
            )
            key = f"`{backbone}`{options.removeprefix(' at 160 px')}", budget
            groups.setdefault(key, []).append(run)
    rows = {}
    for key, runs in groups.items():
        for run in runs:  # "two CPU cores", "about 900 test photos", "about ±2 points"
            assert run["environment"]["cores"] == "2"
            assert 850 <= run["test"]["n"] <= 970
            assert 0.013 <= (run["test"]["high"] - run["test"]["low"]) / 2 <= 0.025
        values = [100 * run["test"]["value"] for run in runs]
        mean = f"{sum(values) / len(values):.1f}%"
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        rows[key] = mean, ", ".join(f"{value:.1f}" for value in values), f"{seconds:.0f}"
    return rows


def table_rows(page: Path) -> list[list[str]]:
    """The cells of all table rows that contain a test accuracy, without emphasis."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if any(re.fullmatch(r"[\d.]+%", cell) for cell in row)]


def test_numbers_in_the_readme_were_measured() -> None:
    measured = measured_rows()
    rows = table_rows(REPOSITORY / "README.md")
    assert len(rows) == 3
    for backbone, budget, *numbers in rows:
        name = re.sub(r", (no download|the default)$", "", backbone)
        assert tuple(numbers) == measured[name, budget]
    numbers = re.findall(r"\d+\.\d%", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert numbers == [row[2] for row in rows]  # no other accuracy


def docs_module(name: str) -> ModuleType:
    """Import a module of docs/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_numbers_on_the_home_page_were_measured() -> None:
    numbers = docs_module("_measured").numbers()
    rows = measured_rows()
    default = "`mobilenet_v3_small`"
    assert numbers["first accuracy"] == rows[default, "linear probe only"][0]
    assert numbers["first seconds"] == rows[default, "linear probe only"][2]
    assert numbers["accuracy"] == rows[default, f"{numbers['minutes']} minutes"][0]
    peers = json.loads((REPOSITORY / "docs/results/peers.json").read_text())["runs"]
    value = next(run["test"]["value"] for run in peers if run["name"] == "scenelearn")
    assert numbers["peers accuracy"] == f"{100 * value:.1f}%"
    page = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- measured: ([\w ]+) -->", page)) <= set(numbers)
    assert not re.search(r"\d%(?! confidence)", page)  # no other number than from a file


@pytest.mark.parametrize(("name", "tried"), [("faults", "faults"), ("fuzz", "cases")])
def test_published_trials_failed_nowhere(name: str, tried: str) -> None:
    measured = docs_module("_measured")
    page = (REPOSITORY / "docs" / "how-to" / "resume.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- measured: ([\w ]+) -->", page)) <= set(measured.numbers())
    found = measured.read(name)
    assert found["failures"] == sum(run["failures"] for run in found["runs"]) == 0
    assert found[tried] == sum(sum(run["outcomes"].values()) for run in found["runs"])


def test_measured_numbers_of_guides_come_from_files() -> None:
    module = docs_module("_measured")
    numbers = module.numbers()
    for page in PAGES:
        names = re.findall(r"<!-- measured: ([\w ]+) -->", page.read_text(encoding="utf-8"))
        assert set(names) <= set(numbers), page


def test_table_of_unbalanced_classes_is_that_of_the_runs() -> None:
    module = docs_module("_measured")
    runs, numbers = module.read("imbalance")["runs"], module.numbers()
    lines = [line.strip("| ").split(" | ") for line in numbers["imbalance"].splitlines()]
    assert len(runs) == int(numbers["imbalance seeds"]) * len(lines[2:]) > 0
    for ratio, name, *cells in lines[2:]:
        of_row = [run for run in runs if (f"1:{run['ratio']}", run["name"]) == (ratio, name)]
        values = [100 * run["balanced_accuracy"]["value"] for run in of_row]
        rare = [
            (run, label)
            for run in of_row
            for label, n in run["n_train"].items()
            if n < max(run["n_train"].values()) / 5
        ]
        assert len(rare) == 3 * len(values)
        recall, balanced, as_trained = (
            100 * float(np.mean([run[key][label] for run, label in rare]))
            for key in ("recall", "calibration_balanced", "calibration_as_trained")
        )
        assert cells == [
            f"{np.mean(values):.1f}% ({min(values):.1f} to {max(values):.1f})",
            f"{recall:.1f}%",
            f"{balanced:+.1f}",
            f"{as_trained:+.1f}",
        ]


def test_tables_of_results_are_flat() -> None:
    command, n_rows, text = docs_module("_measured").tables()["intel"]
    reader = csv.DictReader(text.splitlines())
    rows = list(reader)
    assert command == "python -m tests.bench.intel"
    assert len(rows) == n_rows
    assert {"seed", "test.value", "settings.recipe.unfreeze"} <= set(reader.fieldnames or ())
    measured = json.loads((REPOSITORY / "docs/results/intel.json").read_text())["runs"]
    assert [float(row["test.value"]) for row in rows] == [run["test"]["value"] for run in measured]


def test_figures_say_what_to_see_and_show_all_points() -> None:
    module = docs_module("_figures")
    figures = dict(module.FIGURES) | {"by time": module.accuracy_by_time}
    assert figures.pop("budgets")().startswith('<div class="sortable"><table>')
    for name, draw in figures.items():
        figure = draw()
        assert "What to see: " in figure, name
        width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', figure)[0])
        points = re.findall(r"translate\(([\d.-]+) ([\d.-]+)\)|M(\d+) (\d+)h0", figure)
        positions = [[float(number) for number in point if number] for point in points]
        assert positions, name
        assert all(30 < x < width - 10 and 0 < y < height - 35 for x, y in positions), name


def test_table_of_networks_joins_the_results_by_name() -> None:
    table = docs_module("_figures").networks({"mobilenet_v2": (2_258_000, 2**30), "new": (1, 1)})
    cells = re.findall(r"<td>(.*?)</td>", table)
    probe, tuned = (
        measured_rows()["`mobilenet_v2`", name][0] for name in ("linear probe only", "4.5 minutes")
    )
    assert cells[:4] == ["mobilenet_v2", probe, tuned, "71.3%"]
    assert cells[6:] == ["2.3", "1,024", "new", *["–"] * 5, "0.0", "0"]


def test_figure_of_known_points() -> None:
    figures = docs_module("_figures")
    series = {"a & b": [figures.Point(5.0, 0.5, "<5>", 0.4, 0.6)], "c": [figures.Point(1.0, 0.9)]}
    x, y = figures.number_axis("s", (1, 5, 25), logarithmic=True), figures.percent_axis("y", series)
    assert (x.at(1), x.at(5), x.at(25)) == pytest.approx((0, 0.5, 1))
    assert (min(y.ticks), max(y.ticks)) == pytest.approx((0.4, 0.9))
    figure = figures.plot(series, x, y, "Seconds")
    assert "a &amp; b" in figure
    assert "<title>&lt;5&gt;</title>" in figure
    assert figure.count('class="whisker"') == 1


# The site


def problems(site: Path, **pages: str) -> list[str]:
    module = docs_module("_checks")
    for name, text in pages.items():
        (site / f"{name}.html").write_text(text, encoding="utf-8")
    return list(module.check(site, module.parse_site(site)))


def test_valid_site_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    text = '<h1 id="top">A</h1><img src="a.png" alt="A"><a href="b.html#end">B</a><a href="#top">'
    other = '<p id="end"><a href="https://keras.io/">Keras</a>'
    assert problems(tmp_path, a=text, b=other) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<a href="gone.html">', "links to gone.html, which does not exist"),
        ('<a href="a.html#gone">', "links to a.html#gone, but the page has no such anchor"),
        ('<a href="#gone">', "links to #gone, but the page has no such anchor"),
        ('<img src="data:,">', "a picture without alternative text"),
        ('<img src="data:," alt="No description">', "a picture without alternative text"),
        ('<svg role="img"></svg>', "a picture without alternative text: an SVG figure"),
        ('<script src="https://cdn.example/x.js"></script>', "from another site"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "from another site"),
        ("x" * 300_001, "300,001 bytes, more than 300,000"),
        (f'<img alt="A" src="data:image/png;base64,{"A" * 10**6}">', "with its pictures, more"),
    ],
)
def test_problems_on_a_page_are_reported(text: str, problem: str, tmp_path: Path) -> None:
    (reported,) = problems(tmp_path, a=text)
    assert problem in reported


def test_undocumented_public_name_is_reported() -> None:
    module = docs_module("_checks")
    html = "".join(f'<h2 id="scenelearn.errors.{name}"></h2>' for name in errors.__all__[1:])
    pages = {"reference/errors.html": module.parse(html)}
    assert list(module.undocumented(pages, ["errors"])) == [
        f"scenelearn.errors.{errors.__all__[0]} is public but not in the API reference."
    ]


@pytest.mark.site
def test_printed_pieces_of_a_cell_become_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    soup = pytest.importorskip("bs4").BeautifulSoup
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    monkeypatch.setenv("TQDM_DISABLE", "")  # the hooks would disable the bars of later tests
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
    outputs = [output.get_text() for output in shown.select(".cell-output")]
    assert outputs == ["ab", "c", "d", "e"]
    assert shown.details.code.get_text() == "code"


@pytest.mark.site
def test_answer_comes_before_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    soup = pytest.importorskip("bs4").BeautifulSoup
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs"))
    monkeypatch.setenv("TQDM_DISABLE", "")
    hooks = importlib.import_module("_hooks")
    cell = soup(
        '<div class="jp-Cell celltag_answer"><div class="jp-InputArea"><pre>code</pre></div>'
        '<div class="jp-OutputArea-output" data-mime-type="text/markdown"><p>42</p></div></div>',
        "html.parser",
    ).div
    box, code = soup(hooks._cell(cell), "html.parser").find_all(recursive=False)
    assert box.get_text(" ", strip=True) == "Answer 42"
    assert code.name == "details"


@pytest.mark.site
def test_notebooks_to_download_have_no_links_within_the_site() -> None:
    pytest.importorskip("jupytext")
    page = REPOSITORY / "docs" / "answers" / "transfer_learning.py"
    notebook = json.loads(docs_module("_notebooks").downloadable(page))
    text = "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert "sl.fit(" in text
    assert "](../" not in text.split("Markdown(")[0]
    assert "][scenelearn" not in text
    assert notebook == json.loads(docs_module("_notebooks").downloadable(page))


def test_every_error_has_a_cause_and_a_remedy() -> None:
    page = (REPOSITORY / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    for part in page.split("<!-- names of scenelearn.errors: ")[1:]:
        assert "**Cause.**" in part
        assert "**Remedy.**" in part
    documented = re.findall(r"<!-- names of scenelearn\.errors: (\w+) -->", page)
    assert sorted(documented) == sorted(errors.__all__)


def test_messages_on_the_troubleshooting_page_exist() -> None:
    def literal(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(map(literal, node.values))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return re.sub(r"%[sdg]", "…", node.value)
        return "…"

    texts = {
        literal(node)
        for path in (REPOSITORY / "scenelearn").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    }
    page = (REPOSITORY / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r'^### "(.+)"$', page, flags=re.MULTILINE)
    assert len(quoted) > 10
    for message in quoted:
        assert any(message in text for text in texts), message


def test_error_links_to_its_help_page() -> None:
    prefix = "reference/errors.html#scenelearn.errors."
    assert errors.DiskSpaceError("full").help_page == f"{prefix}DiskSpaceError"
    with pytest.raises(errors.PhotoError) as caught:
        sl.data.to_image(b"", 8)
    assert type(caught.value).__name__ not in errors.__all__
    assert caught.value.help_page == f"{prefix}PhotoError"  # its nearest public base class


def test_every_command_is_on_the_command_line_page() -> None:
    page = (REPOSITORY / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    (commands,) = (
        action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)
    )
    for pattern in (r"^<!-- help: (\w+) -->$", r"^## `scenelearn (\w+)`$"):
        assert sorted(re.findall(pattern, page, flags=re.MULTILINE)) == sorted(commands)


def test_citation_has_the_current_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    page = (REPOSITORY / "docs" / "about" / "citation.md").read_text(encoding="utf-8")
    assert f"version = {{{project['version']}}}" in page
