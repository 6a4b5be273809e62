"""The house keeps its own rules: light imports, floors, documented names, small modules."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import scenelearn
from scenelearn import errors

PACKAGE = Path(scenelearn.__file__).parent
REPOSITORY = PACKAGE.parent

HEAVY = ("h5py", "jax", "keras", "matplotlib", "numpy", "PIL", "scipy", "tensorflow", "torch")
BACKENDS = ("jax", "keras", "tensorflow", "torch")

# What each room may import, itself and the ground floor apart. Imports run down, never up.
GROUND = {path.stem for path in PACKAGE.glob("_[!_]*.py")} | {"errors"}
ALONE = {"augment", "metrics", "samples", "sizing"}  # they import no other room
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {"__init__", "reporting", "finetune", "classify", "backbones", "data"} | ALONE,
    "reporting": {"finetune", "classify", "backbones", "data"} | ALONE,
    "finetune": {"classify", "backbones", "data"} | ALONE,
    "classify": {"backbones", "data"} | ALONE,
    "backbones": set[str](),
    "data": ALONE,
    "augment": set[str](),
    "metrics": set[str](),
    "samples": set[str](),
    "sizing": set[str](),
    **{name: set[str]() for name in GROUND},
}

MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ["errors", *sorted(path.parent.name for path in PACKAGE.glob("[!_]*/__init__.py"))]


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of a module's full name; "__init__" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


# What importing costs


@pytest.mark.parametrize("statement", ["import scenelearn", "import scenelearn.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    loaded = python(f"{statement}; import sys; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("name", ["scan", "split", "sample_scenes"])
def test_the_room_of_photos_loads_no_backend(name: str) -> None:
    loaded = python(f"import scenelearn as sl; sl.{name}; import sys; print(*sys.modules)").split()
    assert not set(BACKENDS) & set(loaded)


def test_every_public_name_of_the_package_can_be_had() -> None:
    for name in scenelearn.__all__:
        assert getattr(scenelearn, name) is not None
    assert set(scenelearn.__all__) <= set(dir(scenelearn))
    with pytest.raises(AttributeError, match="no_such_name"):
        scenelearn.no_such_name  # noqa: B018


# Who imports whom


def imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Full names of the modules that a module imports, and where it does so."""
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            if module == "scenelearn":
                for alias in node.names:
                    yield f"scenelearn.{alias.name}", node
            else:
                yield module, node


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down_the_floors(path: Path) -> None:
    room = room_of(name_of(path))
    if room == "__init__":
        return  # the front door names every room
    assert room in MAY_IMPORT, f"{room} has no floor: give it one in {__file__}"
    for module, _ in imports(path):
        if module == "scenelearn" or module.startswith("scenelearn."):
            other = room_of(module)
            if other not in MAY_IMPORT:  # `from scenelearn import scan`: a name of the front door
                other = "__init__"
            assert other in MAY_IMPORT[room] | GROUND | {room}, f"{room} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_backend_is_imported_with_a_module(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    at_import = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and id(node) not in inside
        for alias in node.names
    } | {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and id(node) not in inside
    }
    assert not at_import & set(BACKENDS)


# What is public


def public_objects(room: ModuleType) -> Iterator[tuple[str, object]]:
    for name in room.__all__:
        value = getattr(room, name)
        yield name, value
        if inspect.isclass(value):
            for member_name, member in vars(value).items():
                if not member_name.startswith("_") and (
                    inspect.isfunction(member) or isinstance(member, property | classmethod)
                ):
                    yield f"{name}.{member_name}", member


def documented_constants(room: str) -> set[str]:
    """Names that some module of a room assigns and describes in a string right below."""
    found: set[str] = set()
    for path in MODULES:
        if room_of(name_of(path)) != room:
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


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_documented(room: str) -> None:
    module = importlib.import_module(f"scenelearn.{room}")
    assert module.__doc__
    constants = documented_constants(room)
    undocumented = [
        name
        for name, value in public_objects(module)
        if name not in constants
        and not (
            (inspect.isclass(value) or callable(value) or isinstance(value, property | classmethod))
            and inspect.getdoc(value)
            and getattr(value, "__module__", "scenelearn").startswith("scenelearn")
        )
    ]
    assert not undocumented


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_public_names_are_sorted(room: str) -> None:
    names = list(importlib.import_module(f"scenelearn.{room}".rstrip(".")).__all__)
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


# What a user and a reader meet first


@pytest.mark.parametrize(
    "command",
    [
        [str(Path(sysconfig.get_path("scripts"), "scenelearn"))],
        [sys.executable, "-m", "scenelearn"],
    ],
    ids=["scenelearn", "python -m scenelearn"],
)
def test_help_answers(command: list[str]) -> None:
    run = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all(word in run.stdout for word in ("fit", "predict", "evaluate", "sample"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_top_level_holds_nothing_else() -> None:
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
