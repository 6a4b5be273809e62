"""Rules for the package: light imports, layers, documented names, standard terms."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import itertools
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import scenelearn
from scenelearn import cli, errors

PACKAGE = Path(scenelearn.__file__).parent
REPOSITORY = PACKAGE.parent

HEAVY = ("h5py", "jax", "keras", "matplotlib", "numpy", "PIL", "scipy", "tensorflow", "torch")
BACKENDS = ("jax", "keras", "tensorflow", "torch")

# What each package may import besides itself and the modules at the root. Imports run down only.
ROOT = {path.stem for path in PACKAGE.glob("_[!_]*.py")} | {"errors"}
BOTTOM = {"metrics", "samples", "sizing"}  # these import no other package
MIDDLE = {"augment", "backbones", "data"} | BOTTOM
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {"__init__", "app", "reporting", "finetune", "classify"} | MIDDLE,
    "app": {"reporting", "finetune", "classify"} | MIDDLE,
    "reporting": {"finetune", "classify"} | MIDDLE,
    "finetune": {"classify"} | MIDDLE,
    "classify": MIDDLE,
    "augment": {"data"} | BOTTOM,
    "data": BOTTOM,
    "backbones": BOTTOM,
    **{name: set[str]() for name in BOTTOM | ROOT},
}

MODULES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = ["errors", *sorted(path.parent.name for path in PACKAGE.glob("[!_]*/__init__.py"))]

# Words that the project once had its own meaning for, and the standard terms that replaced them.
RETIRED = {
    "alike": "near-duplicates", "anew": "again", "beside": "next to, besides",
    "colour": "color",  # codespell:ignore colour
    "course": "schedule",
    "grey": "gray",  # codespell:ignore grey
    "judge": "predict, evaluate",
    "labelled": "labeled",  # codespell:ignore labelled
    "licence": "license",  # codespell:ignore licence
    "likeness": "out-of-distribution detector", "mend": "fix", "mirrored": "flipped",
    "refused": "rejected", "sides": "splits", "solved head": "linear probe",
    "strength of the penalty": "l2", "typicality": "OOD p-value", "unlike": "out of distribution",
    "varied": "augmented",
}  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def package_of(module: str) -> str:
    """The package of a module's full name; "__init__" for scenelearn itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


# Imports


@pytest.mark.parametrize("statement", ["import scenelearn", "import scenelearn.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    loaded = python(f"{statement}; import sys; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_working_with_photos_loads_no_backend(tmp_path: Path) -> None:
    loaded = python(
        f"import scenelearn as sl; folder = sl.sample_scenes({str(tmp_path)!r}, per_class=4)\n"
        "sl.split(sl.scan(folder, verbose=False)); import sys; print(*sys.modules)"
    ).split()
    assert not set(BACKENDS) & set(loaded)


def test_type_checkers_read_the_annotations() -> None:
    assert Path(scenelearn.__file__).with_name("py.typed").is_file()  # PEP 561


def test_every_public_name_of_scenelearn_can_be_imported() -> None:
    for name in scenelearn.__all__:
        assert getattr(scenelearn, name) is not None
    assert set(scenelearn.__all__) <= set(dir(scenelearn))
    with pytest.raises(AttributeError, match="no_such_name"):
        scenelearn.no_such_name  # noqa: B018


def imports(path: Path) -> Iterator[str]:
    """Full names of the modules that a module imports."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            if module == "scenelearn":
                yield from (f"scenelearn.{alias.name}" for alias in node.names)
            else:
                yield module


def test_imports_run_down_only() -> None:
    wrong = []
    for path in MODULES:
        package = package_of(name_of(path))
        if package == "__init__":
            continue  # it names every package
        assert package in MAY_IMPORT, f"{package} has no layer: add it to MAY_IMPORT in {__file__}"
        for module in imports(path):
            if module == "scenelearn" or module.startswith("scenelearn."):
                other = package_of(module)
                if other not in MAY_IMPORT:  # `from scenelearn import scan`
                    other = "__init__"
                if other not in MAY_IMPORT[package] | ROOT | {package}:
                    wrong.append(f"{name_of(path)} imports {module}")
    assert not wrong


def test_no_modules_import_each_other() -> None:
    names = {name_of(path) for path in MODULES}
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        wanted = set[str]()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                members = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= members & names or {str(node.module)}
        graph[name_of(path)] = wanted & names
    graphlib.TopologicalSorter(graph).prepare()  # raises if there is a cycle


def test_tests_mirror_the_packages_and_import_no_other_test() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "tests").glob("*/test_*.py")}
    assert folders <= set(MAY_IMPORT)
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in (REPOSITORY / "tests").rglob("*.py")
        for module in imports(path)
        if ".test_" in module
    ]
    assert not wrong


def test_docs_do_not_import_tests() -> None:
    pages = (REPOSITORY / "docs").rglob("*.py")
    assert not [page for page in pages if any(m.startswith("tests") for m in imports(page))]


def test_no_module_imports_a_backend_when_it_is_imported() -> None:
    wrong = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in inside:
                continue
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            wrong += [f"{name_of(path)}: {n}" for n in names if n.split(".")[0] in BACKENDS]
    assert not wrong


# Public names


def public_objects(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public names and, for classes, their public methods and properties."""
    for name in module.__all__:
        value = getattr(module, name)
        yield name, value
        if inspect.isclass(value):
            for member_name, member in vars(value).items():
                if not member_name.startswith("_") and (
                    inspect.isfunction(member) or isinstance(member, property | classmethod)
                ):
                    yield f"{name}.{member_name}", member


def public_words(module: ModuleType) -> Iterator[str]:
    """Public names, those of their members, fields and arguments."""
    for name, value in public_objects(module):
        yield name
        yield from getattr(value, "__dataclass_fields__", {})
        if inspect.isfunction(value):
            yield from inspect.signature(value).parameters


def documented_constants(package: str) -> set[str]:
    """Names that a module of the package assigns and describes in a string right below."""
    found: set[str] = set()
    for path in MODULES:
        if package_of(name_of(path)) != package:
            continue
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, below in itertools.pairwise(body):
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                targets = (
                    node.targets
                    if isinstance(node, ast.Assign)
                    else [node.target]
                    if isinstance(node, ast.AnnAssign)
                    else []
                )
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_every_public_name_is_documented() -> None:
    undocumented = []
    for package in PACKAGES:
        module = importlib.import_module(f"scenelearn.{package}")
        assert module.__doc__
        constants = documented_constants(package)
        undocumented += [
            f"{package}.{name}"
            for name, value in public_objects(module)
            if name not in constants
            and not (
                (callable(value) or isinstance(value, property | classmethod))
                and inspect.getdoc(value)
                and getattr(value, "__module__", "scenelearn").startswith("scenelearn")
            )
        ]
    assert not undocumented


def test_public_names_are_sorted() -> None:
    for package in ["", *PACKAGES]:
        names = list(importlib.import_module(f"scenelearn.{package}".rstrip(".")).__all__)
        # CONSTANTS, then Classes, then functions, as ruff's RUF022 sorts them
        assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
        assert len(names) == len(set(names))


def test_every_error_is_public_and_in_the_tree() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)
    for name in defined:
        assert issubclass(getattr(errors, name), errors.SceneLearnError)
        assert name in (errors.__doc__ or "")


# Standard terms


def retired(text: str) -> set[str]:
    """The retired terms in a text; words of a name are apart at "_", "-" and capitals."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-]", " ", text).lower()
    return {term for term in RETIRED if re.search(rf"\b{term}\b", words)}


def test_retired_terms_are_found() -> None:
    assert retired("is_unlike") == {"unlike"}
    assert retired("TrainingCourse") == {"course"}
    assert retired("The solved head, anew") == {"solved head", "anew"}
    assert retired("besides, of course not: inside") == {"course"}
    assert retired("OODDetector.from_outputs") == set()


def test_no_public_name_uses_a_retired_term() -> None:
    names = {
        f"{package}: {name}"
        for package in PACKAGES
        for name in public_words(importlib.import_module(f"scenelearn.{package}"))
    } | {f"scenelearn: {name}" for name in scenelearn.__all__}
    assert {name: found for name in sorted(names) if (found := retired(name))} == {}


def test_no_module_name_uses_a_retired_term() -> None:
    names = [name_of(path) for path in MODULES]
    names += [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.*")]
    names += [path.name for path in (REPOSITORY / "tests").rglob("*.py")]
    assert {name: found for name in names if (found := retired(name))} == {}


def test_no_command_uses_a_retired_term() -> None:
    top = cli.parser()
    texts = [top.format_help()]
    for group in top._subparsers._group_actions:  # type: ignore[union-attr]
        texts += [command.format_help() for command in group.choices.values()]  # type: ignore[union-attr]
    assert [found for text in texts if (found := retired(text))] == []


def test_no_heading_of_the_docs_uses_a_retired_term() -> None:
    headings = [
        f"{page.name}: {line}"
        for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.*")]
        if page.suffix in (".md", ".py") and page.is_file()
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.match(r"(# )?#+ ", line) and not (page.suffix == ".py" and line[:3] != "# #")
    ]
    assert len(headings) > 50
    assert {line: found for line in headings if (found := retired(line))} == {}


# The command, modules and the repository


@pytest.mark.parametrize(
    "command",
    [
        [str(Path(sysconfig.get_path("scripts"), "scenelearn"))],
        [sys.executable, "-m", "scenelearn"],
    ],
    ids=["scenelearn", "python -m scenelearn"],
)
def test_command_prints_help(command: list[str]) -> None:
    run = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("fit", "predict", "evaluate", "sample"))


def test_no_module_is_long() -> None:
    lengths = {name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert {name: n for name, n in lengths.items() if n > 600} == {}


def test_top_level_of_the_repository_holds_nothing_else() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "safe.directory=*", "ls-files"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    top = {line.split("/")[0].strip('"') for line in listed.stdout.splitlines()}
    folders = {"scenelearn", "docs", "tests"}
    files = {"mkdocs.yml", "pyproject.toml", "noxfile.py", "README.md", "LICENSE"}
    assert not {
        name
        for name in top - folders - files
        if not name.startswith(".") and not name.endswith((".lock", "-lock.json"))
    }
