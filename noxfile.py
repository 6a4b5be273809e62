"""Every command that maintains this project, each as a session: `nox --list`.

`nox` alone runs the tests on JAX, the linter and the type checker. `nox -t check` adds the site,
`nox -t backends` runs the tests on TensorFlow and on Torch. Arguments after `--` go to the command
that a session runs. Measurements resume where they were interrupted.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.sessions = ["tests(jax)", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")
RESULTS = Path("docs", "results")


def group(name: str) -> list[str]:
    """The requirements of a dependency group (PEP 735)."""
    return list(nox.project.dependency_groups(PROJECT, name))


def measure(
    session: nox.Session, name: str, *arguments: str, env: dict[str, str] | None = None
) -> None:
    """Run a module of tests/bench on JAX."""
    env = {"KERAS_BACKEND": "jax"} | (env or {})
    session.run("python", "-m", f"tests.bench.{name}", *arguments, env=env)


def run_mkdocs(session: nox.Session, *arguments: str) -> None:
    """Run MkDocs with what the site needs."""
    session.install("-e", ".", *group("docs"))
    session.run("mkdocs", *arguments, env={"KERAS_BACKEND": "jax", "NO_MKDOCS_2_WARNING": "1"})


def out(name: str) -> list[str]:
    """The option that names a file of results."""
    return ["--out", str(RESULTS / f"{name}.json")]


# Checks


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
    """Run the tests on one Keras backend."""
    extra = "" if backend == "jax" else f"[{backend}]"
    session.install("-e", f".{extra}", *group("test"))
    session.run("pytest", *session.posargs, env={"KERAS_BACKEND": backend})


@nox.session
@nox.parametrize(
    "python,keras,jax",
    [
        ("3.11", "3.12", "0.6"),  # the lowest, with the lowest versions of the other dependencies
        ("3.12", "3.13", "0.7"),
        ("3.13", "3.14", "0.8"),
        ("3.13", "3.15", "0.12"),
        ("3.14", "nightly", None),  # what comes next, with the newest release of JAX
    ],
    ids=["keras3.12-jax0.6", "keras3.13-jax0.7", "keras3.14-jax0.8", "keras3.15-jax0.12", "next"],
)
def versions(session: nox.Session, keras: str, jax: str | None) -> None:
    """Run the tests of what depends on Keras and JAX, with one pair of versions of them.

    Adds a row to docs/results/versions.json. Each row has its own Python, which uv downloads.
    """
    pins, env = [f"keras=={keras}.*", f"jax=={jax}.*"], {}
    if keras == "3.12":
        pins = [each.replace(">=", "==") for each in PROJECT["project"]["dependencies"]]
    elif keras == "nightly":
        pins, folder = ["--upgrade", "jax"], str(Path(session.cache_dir, "keras-nightly").resolve())
        session.install("--no-deps", "--upgrade", "--target", folder, "keras-nightly>=3.16.dev0")
        env = {"PYTHONPATH": folder}  # hides the Keras that is installed
    session.install("-e", ".", *group("test"), *pins)
    measure(session, "versions", *out("versions"), *session.posargs, env=env)


@nox.session
def nightly(session: nox.Session) -> None:
    """Run the slow tests that rarely find anything."""
    session.install("-e", ".", *group("test"))
    session.run("pytest", "-m", "nightly", *session.posargs, env={"KERAS_BACKEND": "jax"})


@nox.session(tags=["backends"])
def exports(session: nox.Session) -> None:
    """Test each export in the runtime that it is for."""
    session.install("-e", ".[onnx,litert,saved-model]", *group("test"))
    chosen = "slow or not slow" if "SCENELEARN_INTEL" in os.environ else "not intel"
    arguments = ["tests/classify/test_export.py", "-m", chosen, *session.posargs]
    session.run("pytest", *arguments, env={"KERAS_BACKEND": "jax"})


@nox.session
def app(session: nox.Session) -> None:
    """Test the app's pages and the reports in headless Chromium, with axe-core.

    Needs Chromium on the machine.
    """
    session.install("-e", ".[app]", *group("test"), "playwright")
    session.install("--no-deps", "axe-playwright-python")  # for the axe-core that it contains
    script = "import axe_playwright_python as a, pathlib; print(pathlib.Path(*a.__path__))"
    folder = session.run("python", "-c", script, silent=True)
    axe = str(Path(str(folder).strip(), "axe.min.js"))
    files = ["tests/app", "tests/reporting/test_browser.py"]
    arguments = [*files, "-m", "slow or not slow", *session.posargs]
    session.run("pytest", *arguments, env={"KERAS_BACKEND": "jax", "SCENELEARN_AXE": axe})


@nox.session(tags=["backends"])
def hub(session: nox.Session) -> None:
    """Fit, save and load tiny networks of KerasHub, one per family; ten minutes."""
    session.install("-e", ".[hub]", *group("test"))
    arguments = ["tests/backbones/test_hub.py", "-m", "slow", *session.posargs]
    env = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # compiling takes most of the time
    session.run("pytest", *arguments, env=env)


@nox.session(tags=["check"])
def lint(session: nox.Session) -> None:
    """Check style, formatting and spelling; `nox -s lint -- --fix` fixes what it can."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")
    session.run("codespell", "scenelearn", "tests", "docs", "README.md", "noxfile.py")


@nox.session(tags=["check"])
def types(session: nox.Session) -> None:
    """Check the types of scenelearn, strictly."""
    session.install("-e", ".", *group("types"))
    session.run("mypy", *session.posargs)


@nox.session(tags=["check"])
def docs(session: nox.Session) -> None:
    """Build the site into site/, strictly; `nox -s docs -- --serve` previews it as you write."""
    if "--serve" in session.posargs:
        run_mkdocs(session, "serve")
    else:
        run_mkdocs(session, "build", "--strict", *session.posargs)
        session.install(*group("test"))
        files = ["tests/test_docs.py", "tests/reporting/test_report.py"]
        session.run("pytest", "-m", "site", *files, env={"KERAS_BACKEND": "jax"})


@nox.session
def browser(session: nox.Session) -> None:
    """Open every page of the site in headless Chromium, in both themes, with axe-core.

    Needs Chromium on the machine. `-- --shots FOLDER` saves screenshots.
    """
    run_mkdocs(session, "build", "--strict")
    session.install("--no-deps", "axe-playwright-python")  # for the axe-core that it contains
    measure(session, "browser", "site", *session.posargs)


@nox.session
def report_picture(session: nox.Session) -> None:
    """Make the picture of a report on the home page, docs/assets/report.png; two minutes.

    Needs Chromium on the machine.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "report_picture", *session.posargs)


@nox.session
def page_pictures(session: nox.Session) -> None:
    """Make the pictures of the app and the cleaner in the docs; a minute.

    Needs Chromium on the machine.
    """
    session.install("-e", ".[app]", *group("test"), "playwright")
    measure(session, "page_pictures", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try a million random images, manifests, archives, bundles, arguments and environments.

    Writes docs/results/fuzz.json. `-- --cases 10000` tries fewer, `-- --kinds images` some kinds.
    """
    session.install("-e", ".[parquet]", *group("test"))
    measure(session, "fuzz", *out("fuzz"), *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Let each call that changes the disk fail, from `scan` to `export`; nothing may be lost.

    Writes docs/results/faults.json; ten minutes.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "faults", *out("faults"), *session.posargs)


@nox.session
def interruptions(session: nox.Session) -> None:
    """Kill, interrupt and terminate fits, and check that nothing is lost; half an hour.

    Writes docs/results/interruptions.json.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "interruptions", *out("interruptions"), *session.posargs)


# Measurements of accuracy


@nox.session
def results(session: nox.Session) -> None:
    """Measure the main results of the docs: `-- --photos FOLDER [--weights FILE]`.

    Writes sample_scenes.json; with the Intel photos also intel.json, uncertainty.json and
    minutes.json, all in docs/results.
    """
    parser = argparse.ArgumentParser(prog="nox -s results --")
    parser.add_argument("--photos", metavar="FOLDER", help="the Intel photos, in class folders")
    parser.add_argument("--weights", metavar="FILE", help="ImageNet weights; else downloaded")
    options = parser.parse_args(session.posargs)
    session.install("-e", ".", *group("test"))
    measure(session, "sample_scenes", *out("sample_scenes"))
    if options.photos:
        weights = ["--weights", options.weights] if options.weights else []
        inputs = ["--photos", options.photos, *weights]
        for name in ("intel", "uncertainty"):
            measure(session, name, *inputs, *out(name))
        budgets = ["--no-linear-probe", "--minutes", "10", "--seeds", "0"]
        measure(session, "intel", *inputs, *out("minutes"), *budgets)


@nox.session
def backbones(session: nox.Session) -> None:
    """Compare backbones: `-- --photos FOLDER --weights NAME=FILE … [--minutes 4.5]`.

    Writes docs/results/backbones.json: for each backbone the linear probe only, and fits with
    these time budgets. The bundled one is `scenelearn_tiny=scenelearn`. Other arguments go to
    tests.bench.intel: `--seeds 0 1 2`, `--image-px 192`, `--no-linear-probe`, `--recipe soup=4`.
    """
    parser = argparse.ArgumentParser(prog="nox -s backbones --")
    parser.add_argument("--photos", metavar="FOLDER", required=True, help="the Intel photos")
    parser.add_argument("--weights", metavar="NAME=FILE", nargs="+", required=True)
    parser.add_argument("--minutes", nargs="*", default=["4.5"])
    options, others = parser.parse_known_args(session.posargs)
    session.install("-e", ".", *group("test"))
    for pair in options.weights:
        name, _, file = pair.partition("=")
        network = ["--backbone", name, "--weights", file, "--minutes", *options.minutes]
        measure(session, "intel", "--photos", options.photos, *out("backbones"), *network, *others)


@nox.session
def own_backbone(session: nox.Session) -> None:
    """Measure a network of your own: `-- --photos FOLDER --backbone FILE.keras`.

    Writes docs/results/own_backbone.json. Other arguments go to tests.bench.intel: `--preprocessing
    torch`, `--image-px 224`, `--minutes 20`, `--no-linear-probe`. With `--save teachers --out
    teachers.json` its classifiers can teach a smaller network, see `distillation`.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "intel", *out("own_backbone"), *session.posargs)


@nox.session
def distillation(session: nox.Session) -> None:
    """Train a network with teachers: `-- --photos FOLDER --weights FILE --teacher FOLDER`.

    Writes docs/results/distillation.json. Without `--teacher`, the same without a teacher. Other
    arguments go to tests.bench.intel: `--minutes 10`, `--seeds 0 1 2`.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "intel", *out("distillation"), "--no-linear-probe", *session.posargs)


@nox.session
def ablations(session: nox.Session) -> None:
    """Fine-tune with one setting changed at a time: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/ablations.json; half an hour.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "ablations", *session.posargs)


@nox.session
def few_photos(session: nox.Session) -> None:
    """Compare with Keras' recipe on few photos per class: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/few_photos.json; an hour.
    """
    session.install("-e", ".[tensorflow]", *group("test"))
    measure(session, "few_photos", *session.posargs)


@nox.session
def imbalance(session: nox.Session) -> None:
    """Train with class weights and without: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/imbalance.json; an hour.
    """
    session.install("-e", ".[tensorflow]", *group("test"))
    measure(session, "imbalance", *session.posargs)


PEERS = {  # the environments of tests.bench.peers
    "autogluon": ["autogluon.multimodal"],
    "fastai": ["fastai", "timm"],
    "keras-hub": ["keras-hub", "tensorflow-cpu"],
    "timm": ["timm", "scikit-learn"],
}


@nox.session
def peers(session: nox.Session) -> None:
    """Compare with other libraries: `-- --photos FOLDER --backbone EFFICIENTNET_LITE0.keras`.

    Writes docs/results/peers.json; half an hour. Each peer has its own environment, 20 GB in all.
    """
    session.install("-e", ".", *group("test"))
    folder = Path(session.cache_dir, "peers")
    for name, requirements in PEERS.items():
        python = folder / name / "bin" / "python"
        if not python.exists():
            session.run("python", "-m", "venv", str(folder / name))
        session.run(str(python), "-m", "pip", "install", "-q", *requirements, external=True)
    measure(session, "peers", "--environments", str(folder), *session.posargs)


# Measurements of speed and memory


@nox.session
def bench(session: nox.Session) -> None:
    """Time networks on this CPU, in TensorFlow and Torch too; half an hour.

    Writes speed.json, few_at_once.json and cold_start.json in docs/results. With arguments, such as
    `-- --backbone vit_small convnext_tiny FILE.keras`, only speed.json, by tests.bench.speed.
    """
    session.install("-e", ".[tensorflow,torch]", *group("test"))
    measure(session, "speed", *out("speed"), *session.posargs)
    if not session.posargs:
        measure(session, "few_at_once", *out("few_at_once"))
        measure(session, "cold_start", *out("cold_start"))


@nox.session
def cores(session: nox.Session) -> None:
    """Time networks on some of the cores, in TensorFlow too: `-- --cores 1 2 4`; half an hour.

    Writes docs/results/cores.json.
    """
    session.install("-e", ".[tensorflow]", *group("test"))
    networks = ["mobilenet_v3_small", "mobilenet_v2", "efficientnet_b0", "resnet50"]
    arguments = session.posargs or ["--cores", "1", "2"]
    forms = ["--forms", "fast", "tensorflow"]
    measure(session, "speed", *out("cores"), "--backbone", *networks, *forms, *arguments)


@nox.session
def lora(session: nox.Session) -> None:
    """Time a step of a vision transformer with LoRA and without, and measure its memory.

    Writes docs/results/lora.json; ten minutes.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "lora", *out("lora"), *session.posargs)


@nox.session
def inner_features(session: nox.Session) -> None:
    """Judge linear probes with inner feature maps: `-- --photos FOLDER --backbone FILE.keras`.

    Writes docs/results/inner_features.json.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "inner_features", *out("inner_features"), *session.posargs)


@nox.session
def linear_probe(session: nox.Session) -> None:
    """Time the linear probe against scikit-learn: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/linear_probe.json.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "linear_probe", *out("linear_probe"), *session.posargs)


@nox.session
def data_pipeline(session: nox.Session) -> None:
    """Measure scaling to 200,000 photos; `-- --photos FOLDER` also times data loaders.

    Writes scale.json in docs/results; with photos also throughput.json and near_duplicates.json,
    which has the near-duplicates that the audit finds; fifteen minutes.
    """
    session.install("-e", ".[tensorflow,torch]", "grain", *group("test"))
    measure(session, "scale", *out("scale"))
    if session.posargs:
        for name in ("throughput", "near_duplicates"):
            measure(session, name, *session.posargs, *out(name))


@nox.session
def shards(session: nox.Session) -> None:
    """Measure 100,000 photos in 20 Parquet shards, in one process and in two.

    Writes docs/results/shards.json; half an hour.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "shards", *session.posargs)


@nox.session
def int8(session: nox.Session) -> None:
    """Measure exports in int8: `-- --photos FOLDER --weights FILE FILE`.

    Writes docs/results/int8.json; ten minutes.
    """
    session.install("-e", ".[litert]", *group("test"))
    measure(session, "int8", *session.posargs)


@nox.session
def label_errors(session: nox.Session) -> None:
    """Plant wrong labels and compare with cleanlab: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/label_errors.json; two minutes.
    """
    session.install("-e", ".", "cleanlab", *group("test"))
    measure(session, "label_errors", *session.posargs)


@nox.session
def added_class(session: nox.Session) -> None:
    """Time a linear probe after a class was added: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/added_class.json.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "added_class", *session.posargs)


@nox.session
def rank(session: nox.Session) -> None:
    """Label photos by `sl.rank` or at random: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/rank.json; a minute.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "rank", *session.posargs)


@nox.session
def shapes(session: nox.Session) -> None:
    """Compare shapes on photos that are not square: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/shapes.json; fifteen minutes.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "shapes", *session.posargs)


@nox.session
def augmentation(session: nox.Session) -> None:
    """Time augmentation against other libraries; `-- --photos FOLDER` also measures accuracy.

    Writes augmentation_speed.json and augmentation_accuracy.json in docs/results; the latter takes
    an hour.
    """
    session.install("-e", ".", "albumentations", "torch", "torchvision", *group("test"))
    measure(session, "augmentation_speed", *out("augmentation_speed"))
    if session.posargs:
        measure(session, "augmentation_accuracy", *session.posargs, *out("augmentation_accuracy"))


@nox.session
def memory(session: nox.Session) -> None:
    """Compare the memory that sizing estimates with what XLA plans; over an hour.

    Writes docs/results/memory.json. `-- --only VGG` or `-- --minutes 30` measures a part.
    `-- --hub` measures tiny KerasHub backbones instead, into hub_memory.json.
    """
    hub = "--hub" in session.posargs
    session.install("-e", ".", *group("test"), *["keras-hub"] * hub)
    measure(session, "memory", *out("hub_memory" if hub else "memory"), *session.posargs)


# The bundled backbone


@nox.session
def pretrain(session: nox.Session) -> None:
    """Render images and pretrain the bundled backbone on them; an hour on two cores.

    Writes its weights, and pretrain.json and pretrain_classes.json in docs/results. `-- --minutes
    30` sets another time.
    """
    session.install("-e", ".", *group("test"))
    weights = str(Path("scenelearn", "backbones", "scenelearn_tiny.weights.h5"))
    measure(session, "pretrain", "--out", weights, *session.posargs)
    measure(session, "pretrain.picture", *out("pretrain_classes"))


@nox.session
def pretrain_ablations(session: nox.Session) -> None:
    """Pretrain briefly with one setting changed at a time: `-- --photos FOLDER`; an hour.

    Writes docs/results/pretrain_ablations.json.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "pretrain_ablations", *session.posargs)


@nox.session
def bundled_backbone(session: nox.Session) -> None:
    """Measure the bundled backbone: `-- --photos FOLDER --weights FILE`.

    Writes docs/results/bundled_backbone.json, and the few figures from it that an error message
    quotes. `--sizes 25 100 500` and `--scenes 40 120 500` add fits on that many images per class.
    """
    session.install("-e", ".", *group("test"))
    measure(session, "bundled_backbone", *session.posargs)
