"""Shared fixtures: a temporary cache, sample scenes, a small fit, and real photos if available."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before anything imports Keras; also applies to doctests."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    cache = tempfile.mkdtemp(prefix="scenelearn-tests-")
    before = os.environ.get("SCENELEARN_CACHE")
    os.environ["SCENELEARN_CACHE"] = cache
    # Compiled programs are shared by all workers, and kept.
    if getattr(config, "cache", None) is not None:
        with suppress(OSError):  # Windows allows links to administrators only
            (Path(cache) / "programs").symlink_to(config.cache.mkdir("programs"))

    def restore() -> None:
        if before is None:
            del os.environ["SCENELEARN_CACHE"]
        else:
            os.environ["SCENELEARN_CACHE"] = before
        shutil.rmtree(cache, ignore_errors=True)

    config.add_cleanup(restore)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Keras draws the seeds of its initial weights from `random`: the same ones at every run."""
    random.seed(0)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 72 sample scenes, twelve per class. Tests must not change it."""
    import scenelearn as sl

    folder = tmp_path_factory.mktemp("scenes")
    sl.sample_scenes(folder, per_class=12, seed=0)
    return folder


@pytest.fixture(scope="session")
def fit_settings() -> dict[str, Any]:
    """Settings of a fit that takes a few seconds: two epochs of four steps.

    Fits of other shapes compile programs of their own, which takes longer than the fit.
    """
    return {
        "backbone": "scenelearn_tiny", "weights": None, "image_px": 32, "epochs": 2,
        "batch_size": 16,
    }  # fmt: skip


@pytest.fixture(scope="session")
def fitted(scenes: Path, fit_settings: dict[str, Any]) -> FitResult:
    """A small fit on the sample scenes, for tests of results."""
    import scenelearn as sl

    return sl.fit(sl.split(sl.scan(scenes)), **fit_settings)


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of "mobilenet_0.25", like a download."""
    import scenelearn as sl

    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    network = sl.backbones.build("mobilenet_0.25", weights=None, image_px=64)
    network.get_layer("backbone").save_weights(path)
    return path


@pytest.fixture(scope="session")
def intel() -> Path:
    """The folder of Intel photos named by SCENELEARN_INTEL."""
    return _from_environment("SCENELEARN_INTEL")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of ImageNet weights named by SCENELEARN_WEIGHTS."""
    return _from_environment("SCENELEARN_WEIGHTS")


def _from_environment(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable} names {value}, which is not a folder")
    return folder
