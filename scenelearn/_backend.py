"""The only module that imports Keras.

Keras chooses its backend once, when it is imported, and then writes a keras.json that says
"tensorflow" to the user's home folder. Here, JAX is chosen unless the user has selected another
installed backend, and the user's files are not modified.
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

from scenelearn.errors import BackendError

BACKENDS = ("jax", "tensorflow", "torch")  # in order of preference

_log = logging.getLogger(__name__)


def keras() -> ModuleType:
    """Import Keras with the backend that the user has selected, by default JAX.

    In this order: a Keras that the program has already imported; the environment variable
    ``KERAS_BACKEND``; ``"backend"`` in the user's keras.json; JAX. A backend that is not installed
    is skipped: with a warning in the log if the variable selects it, silently if keras.json does,
    since Keras itself writes "tensorflow" there. None of the user's files is modified.

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
    """Choose the backend to load, as described in `keras`.

    Args:
        environment: the environment variables, of which ``KERAS_BACKEND`` is used.
        keras_json: the user's settings file, which may not exist.

    Returns:
        "jax", "tensorflow" or "torch".

    Raises:
        BackendError: if none of the three is installed.
    """
    for source, name in (
        ("KERAS_BACKEND", environment.get("KERAS_BACKEND", "")),
        (str(keras_json), _read_backend(keras_json)),
    ):
        if name and _is_installed(name):
            return name
        if name and source == "KERAS_BACKEND":
            _log.warning("%s is %r, which is not installed; ignored.", source, name)
    for name in BACKENDS:
        if _is_installed(name):
            return name
    raise BackendError(
        "Keras requires JAX, TensorFlow or Torch. Received: none of them is installed. "
        "Install one, e.g. `pip install jax`, which is a dependency of scenelearn."
    )


def keras_home() -> Path:
    """Return the folder in which Keras stores its settings and downloads."""
    home = os.environ.get("KERAS_HOME")
    if home:
        return Path(home).expanduser()
    base = Path.home()
    return (base if os.access(base, os.W_OK) else Path("/tmp")) / ".keras"


def _read_backend(keras_json: Path) -> str:
    try:
        settings = json.loads(keras_json.read_text())
    except (OSError, ValueError):
        return ""
    name = settings.get("backend", "") if isinstance(settings, dict) else ""
    return name if isinstance(name, str) else ""


def _is_installed(name: str) -> bool:
    return name in BACKENDS and importlib.util.find_spec(name) is not None


def _import_without_writing() -> ModuleType:
    """Import Keras with an empty temporary folder as its home, then restore the home.

    Keras creates its home folder and keras.json on import, which cannot be disabled. The home is
    restored afterwards so that downloads go to the usual place.
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
    from scenelearn._keras_internals import set_keras_home

    set_keras_home(real_home)
    return module
