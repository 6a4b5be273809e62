"""Everything that is run on this project, each as a session: `nox --list`.

`nox` alone runs the tests on JAX, the linter and the type checker. `nox -t check` adds the site,
`nox -t backends` runs the tests on TensorFlow and on Torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["tests(jax)", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    """The requirements of a dependency group (PEP 735)."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
@nox.parametrize(
    "backend",
    [
        nox.param("jax", id="jax", tags=["check"]),
        nox.param("tensorflow", id="tensorflow", tags=["backends"]),
        nox.param("torch", id="torch", tags=["backends"]),
    ],
)
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests on one backend of Keras; further arguments go to pytest."""
    extra = "" if backend == "jax" else f"[{backend}]"
    session.install("-e", f".{extra}", *group("test"))
    session.run("pytest", *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session(tags=["backends"])
def exports(session: nox.Session) -> None:
    """Write each export, and let its runtime judge it; needs no photos."""
    session.install("-e", ".[onnx,litert,saved-model]", *group("test"))
    run = ["tests/test_export.py", "-m", "not intel", *session.posargs]
    session.run("pytest", *run, env={"KERAS_BACKEND": "jax"})


@nox.session(tags=["check"])
def lint(session: nox.Session) -> None:
    """Check the code's style and its formatting; `nox -s lint -- --fix` mends what it can."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")


@nox.session(tags=["check"])
def types(session: nox.Session) -> None:
    """Check the types of scenelearn, strictly."""
    session.install("-e", ".", *group("types"))
    session.run("mypy", *session.posargs)


@nox.session(tags=["check"])
def docs(session: nox.Session) -> None:
    """Build the site into site/, strictly; `nox -s docs -- --serve` shows it while you write."""
    session.install("-e", ".", *group("docs"))
    env = {"KERAS_BACKEND": "jax", "NO_MKDOCS_2_WARNING": "1"}
    if "--serve" in session.posargs:
        session.run("mkdocs", "serve", env=env)
    else:
        session.run("mkdocs", "build", "--strict", *session.posargs, env=env)


@nox.session
def browser(session: nox.Session) -> None:
    """Open every page in headless Chromium, both themes, with axe-core; `-- --shots FOLDER`.

    Needs Chromium on the machine. The arguments go to tests/bench/browser.py.
    """
    docs(session)
    session.install("--no-deps", "axe-playwright-python")  # for the axe-core that it brings along
    session.run("python", "-m", "tests.bench.browser", "site", *session.posargs)


@nox.session
def results(session: nox.Session) -> None:
    """Measure what the docs report: `nox -s results -- --photos FOLDER [--weights FILE]`.

    Writes docs/results/*.json: the sample scenes always, the Intel photos where they are given.
    """
    options = argparse.ArgumentParser(prog="nox -s results --")
    options.add_argument("--photos", metavar="FOLDER", help="the Intel photos, in class folders")
    options.add_argument("--weights", metavar="FILE", help="ImageNet weights; else downloaded")
    given = options.parse_args(session.posargs)
    session.install("-e", ".", *group("test"))
    out = Path("docs", "results")
    session.run(
        "python", "-m", "tests.bench.sample_scenes", "--out", str(out / "sample_scenes.json")
    )
    if given.photos:
        weights = ["--weights", given.weights] if given.weights else []
        for name in ("intel", "trust"):
            where = ["--photos", given.photos, *weights, "--out", str(out / f"{name}.json")]
            session.run("python", "-m", f"tests.bench.{name}", *where)
        where = ["--photos", given.photos, *weights, "--out", str(out / "minutes.json")]
        more = ["--without-head", "--minutes", "10", "--seeds", "0"]
        session.run("python", "-m", "tests.bench.intel", *where, *more)


@nox.session
def backbones(session: nox.Session) -> None:
    """Compare networks: `-- --photos FOLDER --weights NAME=FILE … [--minutes 4.5]`.

    Writes docs/results/backbones.json: of each network heads alone and fits of so many minutes; the
    embedded one is `scenelearn_tiny=scenelearn`. Goes on where it was cut off. Further arguments go
    to tests.bench.intel: `--seeds 0 1 2`, `--image-px 192`, `--without-head`, `--recipe soup=4`.
    """
    options = argparse.ArgumentParser(prog="nox -s backbones --")
    options.add_argument("--photos", metavar="FOLDER", required=True, help="the Intel photos")
    options.add_argument("--weights", metavar="NAME=FILE", nargs="+", required=True)
    options.add_argument("--minutes", nargs="*", default=["4.5"])
    given, more = options.parse_known_args(session.posargs)
    session.install("-e", ".", *group("test"))
    where = ["--photos", given.photos, "--out", "docs/results/backbones.json"]
    for pair in given.weights:
        name, _, file = pair.partition("=")
        which = ["--backbone", name, "--weights", file, "--minutes", *given.minutes, *more]
        session.run("python", "-m", "tests.bench.intel", *where, *which)


@nox.session
def ablations(session: nox.Session) -> None:
    """Fine-tune with one thing changed at a time: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/ablations.json; takes about half an hour, and goes on where it was cut off.
    """
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "tests.bench.ablations", *session.posargs)


@nox.session
def few(session: nox.Session) -> None:
    """Few photos a class beside Keras' own recipe: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/few.json; takes about an hour, and goes on where it was cut off.
    """
    session.install("-e", ".[tensorflow]", *group("test"))
    env = {"KERAS_BACKEND": "jax"}
    session.run("python", "-m", "tests.bench.few", *session.posargs, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Time networks on this CPU, against TensorFlow and Torch too; further arguments go to speed.

    Writes docs/results/speed.json, cold_start.json and frozen_maps.json; takes about half an hour.
    """
    session.install("-e", ".[tensorflow,torch]", *group("test"))
    env, out = {"KERAS_BACKEND": "jax"}, Path("docs", "results")
    speed = ["--out", str(out / "speed.json"), *session.posargs]
    session.run("python", "-m", "tests.bench.speed", *speed, env=env)
    cold = str(out / "cold_start.json")
    session.run("python", "-m", "tests.bench.cold_start", "--out", cold, env=env)
    maps = str(out / "frozen_maps.json")
    session.run("python", "-m", "tests.bench.frozen_maps", "--out", maps, env=env)


@nox.session
def pretrain(session: nox.Session) -> None:
    """Draw images and pretrain the embedded backbone on them; goes on where it was cut off.

    Writes its weights and docs/results/pretrain.json; takes about an hour on two cores, and with
    `-- --minutes 30` so long. Further arguments go to tests.bench.pretrain.
    """
    session.install("-e", ".", *group("test"))
    env = {"KERAS_BACKEND": "jax"}
    out = str(Path("scenelearn", "backbones", "scenelearn_tiny.weights.h5"))
    session.run("python", "-m", "tests.bench.pretrain", "--out", out, *session.posargs, env=env)


@nox.session
def pretrain_ablations(session: nox.Session) -> None:
    """Pretrain shortly with one thing changed at a time: `-- --photos FOLDER`; about an hour.

    Writes docs/results/pretrain_ablations.json; what is there is not run again.
    """
    session.install("-e", ".", *group("test"))
    env = {"KERAS_BACKEND": "jax"}
    session.run("python", "-m", "tests.bench.pretrain_ablations", *session.posargs, env=env)


@nox.session
def embedded(session: nox.Session) -> None:
    """Measure the embedded backbone: `-- --photos FOLDER --weights FILE`.

    With `--sizes 25 100 500` and `--scenes 40 120 500` fits, too, on so many photos of each class.
    Writes docs/results/embedded.json, and the few numbers of it that an error message needs.
    """
    session.install("-e", ".", *group("test"))
    env = {"KERAS_BACKEND": "jax"}
    session.run("python", "-m", "tests.bench.embedded", *session.posargs, env=env)


@nox.session
def lost(session: nox.Session) -> None:
    """Kill, interrupt and terminate fits, and see what is lost; takes about half an hour.

    Writes docs/results/nothing_lost.json.
    """
    session.install("-e", ".", *group("test"))
    out = str(Path("docs", "results", "nothing_lost.json"))
    session.run("python", "-m", "tests.bench.nothing_lost", "--out", out, *session.posargs)


@nox.session
def head(session: nox.Session) -> None:
    """Time the solved head against scikit-learn; `nox -s head -- --photos FOLDER --weights FILE`.

    Writes docs/results/head.json.
    """
    session.install("-e", ".", *group("test"))
    out = str(Path("docs", "results", "head.json"))
    env = {"KERAS_BACKEND": "jax"}
    session.run("python", "-m", "tests.bench.head", "--out", out, *session.posargs, env=env)


@nox.session
def photos(session: nox.Session) -> None:
    """Measure growth up to 200,000 photos, and loaders: `nox -s photos -- --photos FOLDER`.

    Writes docs/results/scale.json and throughput.json; takes about ten minutes.
    """
    session.install("-e", ".[tensorflow,torch]", "grain", *group("test"))
    env, out = {"KERAS_BACKEND": "jax"}, Path("docs", "results")
    session.run("python", "-m", "tests.bench.scale", "--out", str(out / "scale.json"), env=env)
    if session.posargs:
        where = [*session.posargs, "--out", str(out / "throughput.json")]
        session.run("python", "-m", "tests.bench.throughput", *where, env=env)


@nox.session
def augment(session: nox.Session) -> None:
    """Time augmentation against other libraries; `-- --photos FOLDER` also measures what it brings.

    Writes docs/results/augment.json and augment_helps.json; the latter takes an hour, and goes on
    where it was cut off.
    """
    session.install("-e", ".", "albumentations", "torch", "torchvision", *group("test"))
    env, out = {"KERAS_BACKEND": "jax"}, Path("docs", "results")
    session.run("python", "-m", "tests.bench.augment", "--out", str(out / "augment.json"), env=env)
    if session.posargs:
        where = [*session.posargs, "--out", str(out / "augment_helps.json")]
        session.run("python", "-m", "tests.bench.augment_helps", *where, env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Damage image files at random: each is decoded or refused; `nox -s fuzz -- --minutes 10`."""
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "tests.bench.fuzz", *session.posargs)


@nox.session
def memory(session: nox.Session) -> None:
    """Compare the XLA rule of sizing with XLA: over an hour; it goes on where it was cut off.

    Writes docs/results/memory.json. `nox -s memory -- --only VGG` or `-- --minutes 30` for a part.
    """
    session.install("-e", ".", *group("test"))
    out = str(Path("docs", "results", "memory.json"))
    session.run("python", "-m", "tests.bench.memory", "--out", out, *session.posargs)
