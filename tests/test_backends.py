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
np.save(out + ".npy", sl.finetune.extract_features(photos, **small))
head = sl.fit(sl.split(photos), **small, epochs=0)
tuned = sl.fit(
    sl.split(photos), backbone="scenelearn_tiny", weights=None, image_px=32, epochs=6
)
kept = sl.fit(sl.split(photos), **small, augmentation="none", epochs=2)  # maps of lower layers
tiny = {"backbone": "scenelearn_tiny", "weights": "scenelearn", "image_px": 64, "epochs": 2}
half = sl.fit(sl.split(photos), **tiny, precision="mixed_bfloat16")
whole = sl.fit(sl.split(photos), **tiny)

def losses(fit):
    return [[epoch.train_loss, epoch.validation_loss] for epoch in fit.history[1:]]

answer = {
    "backend": head.environment["backend"],
    "head": head.test_probabilities.tolist(),
    "tuned": tuned.evaluation.accuracy.to_json(),
    "epochs": len(tuned.history),
    "losses": losses(kept),
    "device": head.environment["device"],
    "precision": half.settings.precision,
    "in_16_and_32_bits": [losses(half), losses(whole)],
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
def on_jax(folder: Path, weights_file: Path) -> dict[str, Any]:
    return answer_of("jax", folder, weights_file, weights_file.parent / "jax.json")


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_fit_is_the_same_on_another_backend(
    backend: str, folder: Path, weights_file: Path, request: pytest.FixtureRequest
) -> None:
    other = answer_of(backend, folder, weights_file, weights_file.parent / f"{backend}.json")
    on_jax = request.getfixturevalue("on_jax")  # not made where no other backend is installed
    np.testing.assert_allclose(other["features"], on_jax["features"], atol=1e-4)
    np.testing.assert_allclose(other["head"], on_jax["head"], atol=2e-3)
    assert other["epochs"] == on_jax["epochs"]
    np.testing.assert_allclose(other["losses"], on_jax["losses"], rtol=5e-3, atol=1e-4)
    # Rounding grows while a network trains: the accuracies agree as far as they are known.
    assert on_jax["tuned"]["low"] <= other["tuned"]["value"] <= on_jax["tuned"]["high"]
    see_precision(other)
    see_precision(on_jax)


def see_precision(answer: dict[str, Any]) -> None:
    """See that the fit in 16 bits is one where they are there, and close to the one in 32."""
    half, whole = answer["in_16_and_32_bits"]
    has = not answer["device"].startswith("cpu") or (
        answer["backend"] != "jax" and has_bfloat16()  # XLA has none for a CPU
    )
    assert answer["precision"] == ("mixed_bfloat16" if has else None)
    assert (half != whole) == has
    np.testing.assert_allclose(half, whole, rtol=0.05)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16, as far as the system tells."""
    about = Path("/proc/cpuinfo")
    words = about.read_text().split() if about.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)
