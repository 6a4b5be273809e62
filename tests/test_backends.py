"""The same fit on JAX, TensorFlow and Torch, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl

pytestmark = pytest.mark.slow

_FIT = """
import json, sys
import numpy as np
import scenelearn as sl
folder, weights, out = sys.argv[1:]
photos = sl.scan(folder)
small = {"backbone": "mobilenet_0.25", "weights": weights, "image_px": 64}
np.save(out + ".npy", sl.finetune.features(photos, **small))
head = sl.fit(sl.split(photos), **small, epochs=0)
tuned = sl.fit(
    sl.split(photos), backbone="scenelearn_tiny", weights=None, image_px=32, epochs=6
)
kept = sl.fit(sl.split(photos), **small, augmentation="none", epochs=2)  # maps of lower layers
answer = {
    "backend": head.environment["backend"],
    "head": head.test_probabilities.tolist(),
    "tuned": tuned.evaluation.accuracy.to_json(),
    "epochs": len(tuned.history),
    "losses": [[epoch.train_loss, epoch.validation_loss] for epoch in kept.history[1:]],
}
with open(out, "w") as file:
    json.dump(answer, file)
"""


def answer_of(backend: str, folder: Path, weights: Path, out: Path) -> dict[str, Any]:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "SCENELEARN_CACHE": str(out.parent / f"cache-{backend}"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", _FIT, str(folder), str(weights), str(out)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["backend"] == backend
    return found | {"features": np.load(f"{out}.npy")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 sample scenes."""
    path = tmp_path_factory.mktemp("scenes")
    sl.sample_scenes(path, per_class=20, seed=0)
    return path


@pytest.fixture(scope="module")
def on_jax(folder: Path, stored: Path) -> dict[str, Any]:
    return answer_of("jax", folder, stored, stored.parent / "jax.json")


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_fit_is_the_same_on_another_backend(
    backend: str, on_jax: dict[str, Any], folder: Path, stored: Path
) -> None:
    other = answer_of(backend, folder, stored, stored.parent / f"{backend}.json")
    np.testing.assert_allclose(other["features"], on_jax["features"], atol=1e-4)
    np.testing.assert_allclose(other["head"], on_jax["head"], atol=2e-3)
    assert other["epochs"] == on_jax["epochs"]
    np.testing.assert_allclose(other["losses"], on_jax["losses"], rtol=5e-3, atol=1e-4)
    # Rounding grows while a network trains: the accuracies agree as far as they are known.
    assert on_jax["tuned"]["low"] <= other["tuned"]["value"] <= on_jax["tuned"]["high"]
