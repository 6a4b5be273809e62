"""The choice of the backend and versions of Keras; the user's files are not modified."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import _backend, _keras_internals
from scenelearn.errors import BackendError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    names = {"jax", "torch"}
    monkeypatch.setattr(_backend, "_is_installed", lambda name: name in names)
    return names


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "keras.json"
    path.write_text(text)
    return path


def test_jax_is_the_default(installed: set[str], tmp_path: Path) -> None:
    assert _backend.choose_backend({}, tmp_path / "none.json") == "jax"


def test_environment_wins_over_settings_file(installed: set[str], tmp_path: Path) -> None:
    path = settings_file(tmp_path, json.dumps({"backend": "jax"}))
    assert _backend.choose_backend({"KERAS_BACKEND": "torch"}, path) == "torch"


def test_settings_file_wins_over_jax(installed: set[str], tmp_path: Path) -> None:
    path = settings_file(tmp_path, json.dumps({"backend": "torch"}))
    assert _backend.choose_backend({}, path) == "torch"


def test_backend_that_is_not_installed_is_skipped(
    installed: set[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = settings_file(tmp_path, json.dumps({"backend": "tensorflow"}))
    with caplog.at_level(logging.WARNING):
        assert _backend.choose_backend({"KERAS_BACKEND": "tensorflow"}, path) == "jax"
    assert "KERAS_BACKEND is 'tensorflow', which is not installed" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"backend": 3}', '{"backend": "nonsense"}'])
def test_invalid_settings_file_is_ignored(installed: set[str], tmp_path: Path, text: str) -> None:
    assert _backend.choose_backend({}, settings_file(tmp_path, text)) == "jax"


def test_another_installed_backend_is_used_without_jax(installed: set[str], tmp_path: Path) -> None:
    installed.discard("jax")
    assert _backend.choose_backend({}, tmp_path / "none.json") == "torch"


def test_error_without_a_backend_says_what_to_install(installed: set[str], tmp_path: Path) -> None:
    installed.clear()
    with pytest.raises(BackendError, match=r"none of them is installed.*pip install"):
        _backend.choose_backend({}, tmp_path / "none.json")


def in_a_new_process(code: str, home: Path, **more: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("KERAS")}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | {"HOME": str(home), "USERPROFILE": str(home)} | more,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


LOAD = "from scenelearn._backend import keras; print(keras().backend.backend())"


def test_loading_keras_writes_nothing_to_the_home_folder(tmp_path: Path) -> None:
    home_after = (
        "; import keras.src.backend.config as c; print(c.keras_home()); "
        "import os; print('KERAS_HOME' in os.environ)"
    )
    lines = in_a_new_process(LOAD + home_after, tmp_path).splitlines()
    assert lines == ["jax", str(tmp_path / ".keras"), "False"]
    assert list(tmp_path.iterdir()) == []


def test_threads_that_load_keras_together_get_all_of_it(tmp_path: Path) -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from scenelearn._backend import keras\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    futures = [pool.submit(lambda: keras().config.backend()) for _ in range(4)]\n"
        "print({future.result() for future in futures})"
    )
    assert in_a_new_process(code, tmp_path, KERAS_BACKEND="jax") == "{'jax'}"
    assert list(tmp_path.iterdir()) == []


def test_user_settings_are_read_and_not_modified(tmp_path: Path) -> None:
    text = json.dumps({"backend": "tensorflow", "epsilon": 1e-5})
    path = tmp_path / ".keras" / "keras.json"
    path.parent.mkdir()
    path.write_text(text)
    code = LOAD + "; print(keras().config.epsilon())"
    chosen, epsilon = in_a_new_process(code, tmp_path).splitlines()
    assert chosen in ("jax", "tensorflow")  # tensorflow only if it is installed
    assert epsilon == "1e-05"
    assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["keras.json"]


def test_keras_that_is_already_imported_is_used(tmp_path: Path) -> None:
    code = "import keras; from scenelearn import _backend; print(_backend.keras() is keras)"
    assert in_a_new_process(code, tmp_path, KERAS_BACKEND="jax") == "True"


# Versions of Keras


def test_keras_newer_than_tested_is_used_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_backend.keras(), "__version__", "3.99.0")
    assert _backend.keras() is _backend.keras()
    assert [record.getMessage() for record in caplog.records] == [
        "scenelearn was tested with Keras up to 3.15. Received: 3.99.0."
    ]


@pytest.mark.parametrize("version", ["3.12.0", "3.15.9", "3.15.0.dev2026", ""])
def test_tested_versions_of_keras_give_no_warning(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    _keras_internals.check_version(version)
    assert not caplog.records


@pytest.mark.slow
def test_keras_without_the_private_names_is_used_by_plain_paths(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scenes: Path,
    fit_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    def find_nothing(_: Any, name: str) -> None:
        _keras_internals._warn_missing(name)

    _keras_internals._warn_missing.cache_clear()
    monkeypatch.setattr(_keras_internals, "_private", find_nothing)
    photos = sl.scan(scenes)
    fit = sl.fit(sl.split(photos), **fit_settings)
    fit.save(tmp_path / "plain.keras")
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32)
    images = np.zeros((8, 32, 32, 3), np.float32)
    before = network.predict_on_batch(images)
    np.testing.assert_array_equal(sl.backbones.fast_on_cpu(network)(images), before)
    warnings = [record.getMessage() for record in caplog.records if "has no" in record.message]
    assert len(warnings) == len(set(warnings)) > 5

    monkeypatch.undo()  # the saved file is an ordinary one
    loaded = sl.load(tmp_path / "plain.keras").predict(photos)
    assert len(loaded) == len(photos)


@pytest.mark.parametrize(
    "name", ["_flatten_layers", "_inbound_nodes", "_update_metrics_variables", "_nodes_by_depth"]
)
def test_keras_without_one_private_name_predicts_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, images = _keras_internals._private, np.ones((8, 32, 32, 3), np.float32)
    monkeypatch.setattr(
        _keras_internals, "_private", lambda owner, n: None if n == name else find(owner, n)
    )
    build = partial(sl.backbones.build, "scenelearn_tiny", weights="scenelearn", image_px=32)
    plain = build().predict_on_batch(images)
    fast = sl.backbones.fast_on_cpu(build()).predict_on_batch(images)
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-5)


def test_full_precision_is_set_and_restored() -> None:
    jax = pytest.importorskip("jax")
    if _backend.keras().backend.backend() != "jax":
        pytest.skip("the setting of JAX")
    before = jax.config.jax_default_matmul_precision
    with _backend.full_precision():
        assert jax.config.jax_default_matmul_precision == "float32"
    assert jax.config.jax_default_matmul_precision == before
