"""Surroundings that a program gives a classifier: forked processes, settings of Keras, warnings."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.classify import Classifier
from scenelearn.errors import BackendError, BundleError
from scenelearn.finetune import FitResult
from tests.helpers.networks import keras
from tests.helpers.systems import needs_posix


@pytest.fixture(scope="module")
def bundle(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted.classifier.save(tmp_path_factory.mktemp("bundle") / "scenes.keras")


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    return sl.load(bundle)


@pytest.fixture
def photo(scenes: Path) -> Path:
    return min((scenes / "forest").iterdir())


# Forked processes


def in_fork(work: Callable[[], Any]) -> str:
    """What a forked child gets from a function, or the error in it."""
    end, start = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # JAX and Python warn of forks
        child = os.fork()
    if child == 0:
        try:
            text = repr(work())
        except BaseException as error:  # noqa: BLE001 - it must not reach pytest in the child
            text = f"{type(error).__name__}: {error}"
        os.write(start, text.encode())
        os._exit(0)
    os.close(start)
    with os.fdopen(end) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@needs_posix
def test_forked_process_gets_an_error_and_does_not_wait(
    classifier: Classifier, bundle: Path, photo: Path, scenes: Path
) -> None:
    classifier.predict(photo)
    for work in (
        lambda: classifier.predict(photo),
        lambda: classifier.predict_proba(photo),
        lambda: classifier.explain(photo),
        lambda: sl.load(bundle),
        lambda: sl.backbones.build("scenelearn_tiny", weights=None, image_px=32),
    ):
        text = in_fork(work)
        assert text.startswith("ForkError: Keras must start after a process is forked")
        assert "Load the classifier in the forked process" in text
    assert in_fork(lambda: len(sl.scan(scenes))) == "72"
    classifier.predict(photo)


@pytest.mark.slow
@needs_posix
def test_classifier_that_is_loaded_after_the_fork_works(
    bundle: Path, photo: Path, tmp_path: Path
) -> None:
    code = (
        "import os, sys, scenelearn as sl, keras\n"  # imported, but not started
        "if (child := os.fork()) == 0:\n"
        "    print(len(sl.load(sys.argv[1]).predict(sys.argv[2])), flush=True); os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    assert run_python(code, str(bundle), str(photo), KERAS_HOME=str(tmp_path)).stdout == "1\n"


# Errors of the environment


def run_python(
    code: str, *arguments: str, options: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )


LOAD = "import sys, scenelearn as sl; print(len(sl.load(sys.argv[1]).predict(sys.argv[2])))"


@pytest.mark.slow
def test_device_that_does_not_exist_is_no_fault_of_the_bundle(bundle: Path, photo: Path) -> None:
    run = run_python(LOAD, str(bundle), str(photo), KERAS_BACKEND="jax", JAX_PLATFORMS="cuda")
    assert "scenelearn.errors.BackendError: Keras must be able to use a device" in run.stderr
    assert "JAX_PLATFORMS" in run.stderr


@pytest.mark.slow
def test_warnings_as_errors_are_no_fault_of_the_bundle(bundle: Path, photo: Path) -> None:
    run = run_python(LOAD, str(bundle), str(photo), options=("-W", "error"))
    assert (run.stdout, run.stderr) == ("1\n", "")


def test_device_that_cannot_start(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: float) -> None:
        raise RuntimeError("no cuda")

    monkeypatch.setattr(keras().ops, "convert_to_tensor", fail)
    with pytest.raises(BackendError, match=r"use a device through .*no cuda.*JAX_PLATFORMS"):
        sl.load(bundle)


@pytest.mark.parametrize("error", [MemoryError, ImportError("No module named 'h5py'")])
def test_error_of_the_environment_does_not_blame_the_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("h5py.File", fail)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        sl.load(bundle)


def test_bundle_without_some_of_its_weights(bundle: Path, tmp_path: Path) -> None:
    import h5py

    with zipfile.ZipFile(bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    weights = tmp_path / "weights.h5"
    weights.write_bytes(entries["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        del file["layers/logits" if "layers/logits" in file else "layers/dense"]
    entries["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(tmp_path / "odd.keras", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(BundleError, match=r"logits|dense"):
        sl.load(tmp_path / "odd.keras")


# Global settings of Keras

ODD = {"floatx": "float16", "epsilon": 0.5, "image_data_format": "channels_first"}


def current_settings() -> dict[str, Any]:
    config = keras().config
    return {name: getattr(config, name)() for name in ODD} | {"policy": config.dtype_policy().name}


@contextlib.contextmanager
def odd() -> Iterator[dict[str, Any]]:
    """With odd settings of Keras; yields all of them."""
    config, before = keras().config, current_settings()
    for name, value in ODD.items():
        getattr(config, f"set_{name}")(value)
    config.set_dtype_policy("mixed_float16")
    try:
        yield current_settings()
    finally:
        config.set_dtype_policy(before.pop("policy"))
        for name, value in before.items():
            getattr(config, f"set_{name}")(value)


@pytest.fixture
def odd_settings() -> Iterator[dict[str, Any]]:
    with odd() as settings:
        yield settings


def config_of(bundle: Path) -> Any:
    with zipfile.ZipFile(bundle) as archive:
        return json.loads(archive.read("config.json"))


def test_settings_of_keras_change_no_bundle(
    bundle: Path, tmp_path: Path, odd_settings: dict[str, Any]
) -> None:
    again = sl.load(bundle).save(tmp_path / "again.keras")
    assert without_numbers(config_of(again)) == without_numbers(config_of(bundle))
    assert current_settings() == odd_settings


@pytest.mark.slow
def test_settings_of_keras_change_no_prediction(
    fitted: FitResult, bundle: Path, photo: Path, odd_settings: dict[str, Any]
) -> None:
    expected, loaded = fitted.classifier.predict_proba(photo), sl.load(bundle)
    np.testing.assert_allclose(loaded.predict_proba(photo), expected, rtol=0, atol=1e-6)
    heatmaps = [c.explain(photo).heatmap for c in (loaded, fitted.classifier)]
    np.testing.assert_allclose(*heatmaps, rtol=0, atol=1e-5)
    assert current_settings() == odd_settings


def test_settings_of_keras_return_after_an_error(
    odd_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "odd.keras").write_bytes(b"no bundle")
    with pytest.raises(BundleError):
        sl.load(tmp_path / "odd.keras")
    assert current_settings() == odd_settings


def test_settings_of_keras_return_after_the_last_of_several_threads(
    bundle: Path, scenes: Path, fit_settings: dict[str, Any], odd_settings: dict[str, Any]
) -> None:
    inside, leave, seen = threading.Event(), threading.Event(), []
    splits = sl.split(sl.scan(scenes))

    class LeftError(Exception):
        pass

    def progress(*_: object) -> None:
        inside.set()
        leave.wait(600)
        seen.append(current_settings())
        raise LeftError

    def work() -> None:
        with contextlib.suppress(LeftError):
            sl.fit(splits, **fit_settings, progress=progress)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(600)
    sl.load(bundle)
    leave.set()
    thread.join()
    assert seen == [
        {
            "floatx": "float32",
            "epsilon": 1e-7,
            "image_data_format": "channels_last",
            "policy": "float32",
        }
    ]
    assert current_settings() == odd_settings


@pytest.mark.slow
def test_settings_of_keras_change_no_fit(
    scenes: Path, fit_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = fit_settings | {"epochs": 1}
    splits = sl.split(sl.scan(scenes))
    fit = sl.fit(splits, **settings)
    with odd() as odd_settings:
        other = sl.fit(splits, **settings)
        assert current_settings() == odd_settings
    np.testing.assert_array_equal(other.test_probabilities, fit.test_probabilities)
    bundles = [other.save(tmp_path / "odd.keras"), fit.save(tmp_path / "fit.keras")]
    first, second = (without_numbers(config_of(path)) for path in bundles)
    assert first == second


def without_numbers(value: Any) -> Any:
    """A configuration without the numbers that Keras counts names by."""
    if isinstance(value, dict):
        return {k: without_numbers(v) for k, v in value.items() if k != "shared_object_id"}
    if isinstance(value, list):
        return [without_numbers(inner) for inner in value]
    return value.rstrip("_0123456789") if isinstance(value, str) else value
