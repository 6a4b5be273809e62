"""The one place that loads Keras.

Keras reads its choice of backend once, while it is imported, and then writes a keras.json that
says "tensorflow" into the user's home. Both are handled here: JAX is picked unless the user chose
another installed backend, and the user's files stay as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from scenelearn.errors import BackendError

BACKENDS = ("jax", "tensorflow", "torch")  # in the order in which we look for one

_log = logging.getLogger(__name__)


def keras() -> ModuleType:
    """Keras, on the backend that the user chose, or else on JAX.

    The choice is, in this order: a Keras that the program has already imported; the environment
    variable ``KERAS_BACKEND``; ``"backend"`` in the user's keras.json; JAX. A chosen backend that
    is not installed is passed over: with a logged warning if the variable chose it, silently if
    keras.json did, where Keras itself writes "tensorflow" unasked. No file of the user's is
    written.

    Returns:
        The module `keras`.

    Raises:
        BackendError: if none of JAX, TensorFlow and Torch is installed.
    """
    loaded = sys.modules.get("keras")
    if loaded is not None:
        return loaded
    os.environ["KERAS_BACKEND"] = choose_backend(os.environ, keras_home() / "keras.json")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if (keras_home() / "keras.json").exists():
        return importlib.import_module("keras")
    return _import_without_writing()


def choose_backend(environment: Mapping[str, str], keras_json: Path) -> str:
    """The name of the backend to load, by the rule in `keras`.

    Args:
        environment: environment variables, of which ``KERAS_BACKEND`` is read.
        keras_json: the user's settings file; it need not exist.

    Returns:
        "jax", "tensorflow" or "torch".

    Raises:
        BackendError: if none of the three is installed.
    """
    for source, name in (
        ("KERAS_BACKEND", environment.get("KERAS_BACKEND", "")),
        (str(keras_json), _backend_in(keras_json)),
    ):
        if name and _installed(name):
            return name
        if name and source == "KERAS_BACKEND":
            _log.warning("%s asks for %r, which is not installed: passed over.", source, name)
    for name in BACKENDS:
        if _installed(name):
            return name
    raise BackendError(
        "Keras needs one of JAX, TensorFlow and Torch. Received: none of them is installed. "
        'Install one, e.g. `pip install "jax"` (it comes with scenelearn).'
    )


def keras_home() -> Path:
    """The folder in which Keras keeps its settings and downloads."""
    home = os.environ.get("KERAS_HOME")
    if home:
        return Path(home).expanduser()
    base = Path.home()
    return (base if os.access(base, os.W_OK) else Path("/tmp")) / ".keras"


def _backend_in(keras_json: Path) -> str:
    try:
        settings = json.loads(keras_json.read_text())
    except (OSError, ValueError):
        return ""
    name = settings.get("backend", "") if isinstance(settings, dict) else ""
    return name if isinstance(name, str) else ""


def _installed(name: str) -> bool:
    return name in BACKENDS and importlib.util.find_spec(name) is not None


def _import_without_writing() -> ModuleType:
    """Import Keras with its home in an empty temporary folder, then point it back.

    Keras creates its home and keras.json at import time and has no switch against it. Downloads
    must still go to the user's usual place, so the home is set back afterwards.
    """
    real_home, variable = keras_home(), os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory(prefix="scenelearn-keras-") as empty:
        os.environ["KERAS_HOME"] = empty
        try:
            module = importlib.import_module("keras")
        finally:
            if variable is None:
                del os.environ["KERAS_HOME"]
            else:
                os.environ["KERAS_HOME"] = variable
    config: Any = importlib.import_module("keras.src.backend.config")
    if hasattr(config, "_KERAS_DIR"):
        config._KERAS_DIR = str(real_home)
    return module


def forget_programs(layer: Any) -> None:
    """Let what Keras has compiled of a model be compiled anew; does nothing to other layers."""
    for program in ("predict_function", "train_function", "test_function"):
        if getattr(layer, program, None) is not None:
            setattr(layer, program, None)
