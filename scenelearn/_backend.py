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
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

from scenelearn._keras_internals import (
    check_version,
    default_dtype_policy,
    has_device_threads,
    set_keras_home,
)
from scenelearn.errors import BackendError, ForkError

BACKENDS = ("jax", "tensorflow", "torch")  # in order of preference
_is_forked = False  # after Keras had started: its threads are missing here
_lock = threading.Lock()
_import_lock = threading.RLock()
_contexts: list[ExitStack] = []  # the outermost one that is open, with how to restore the settings
_n_open = 0

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
        BackendError: if none of JAX, TensorFlow and Torch is installed, or Keras cannot be
            imported.
        ForkError: if this process was forked after Keras had started.
    """
    if _is_forked:
        raise ForkError(
            "Keras must start after a process is forked: its threads are not copied, and waiting "
            "for them would never end. Received: a process that was forked after Keras had "
            "started. Load the classifier in the forked process, or start the process by "
            "multiprocessing.get_context('spawn')."
        )
    with _import_lock:  # another thread may be importing it
        is_there = sys.modules.get("keras") is not None
        module = importlib.import_module("keras") if is_there else _import()
    check_version(getattr(module, "__version__", ""))
    return module


def _import() -> ModuleType:
    os.environ["KERAS_BACKEND"] = choose_backend(os.environ, keras_home() / "keras.json")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        if (keras_home() / "keras.json").exists():
            return importlib.import_module("keras")
        return _import_without_writing()
    except ImportError as error:
        raise BackendError(
            f"Keras must be installed completely. Received: {error}. Install it again: "
            "`pip install --force-reinstall keras jax`."
        ) from error


def start() -> ModuleType:
    """Import Keras, and let its backend start its devices.

    Returns:
        The module `keras`.

    Raises:
        BackendError: as in `keras`, or if the backend finds no device that it may use.
        ForkError: as in `keras`.
    """
    module = keras()
    name = module.backend.backend()
    try:
        module.ops.convert_to_tensor(0.0)
    except Exception as error:
        raise BackendError(
            f"Keras must be able to use a device through {name!r}. Received: "
            f"{error!r}. Check the environment variables "
            "that select devices, such as JAX_PLATFORMS and CUDA_VISIBLE_DEVICES, and the drivers."
        ) from error
    return module


@contextmanager
def default_settings() -> Iterator[None]:
    """Use Keras' defaults inside, whatever the user has set: float32, channels last, epsilon 1e-7.

    The user's settings return at the end; with several threads, at the end of the last one. Also
    ignored inside are deprecation warnings in Keras and its backends, which are not the user's.
    Works as a decorator, too.
    """
    global _n_open
    keras()
    with default_dtype_policy():
        with _lock:
            if not _n_open:
                _contexts.append(_use_defaults())
            _n_open += 1
        try:
            yield
        finally:
            with _lock:
                _n_open -= 1
                if not _n_open:
                    _contexts.pop().close()


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 as float32: GPUs since Ampere round the factors to TF32 by default."""
    backend = keras().backend.backend()
    with ExitStack() as stack:
        if backend == "jax":
            import jax

            stack.enter_context(jax.default_matmul_precision("float32"))
        elif backend == "torch":
            import torch

            for part in (torch.backends.cuda.matmul, torch.backends.cudnn):
                stack.callback(setattr, part, "allow_tf32", part.allow_tf32)
                part.allow_tf32 = False
        elif backend == "tensorflow":
            from tensorflow.config import experimental

            enable = experimental.enable_tensor_float_32_execution
            stack.callback(enable, experimental.tensor_float_32_execution_enabled())
            enable(False)
        yield


def _use_defaults() -> ExitStack:
    """Set the defaults of all threads; closing the result restores what was set before."""
    config, stack = keras().config, ExitStack()
    for name, default in (
        ("floatx", "float32"),
        ("epsilon", 1e-7),
        ("image_data_format", "channels_last"),
    ):
        change = getattr(config, f"set_{name}")
        stack.callback(change, getattr(config, name)())
        change(default)
    stack.enter_context(warnings.catch_warnings())
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"(keras|jax|tensorflow|torch)")
    return stack


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
    base = Path(os.path.expanduser("~"))  # noqa: PTH111 - pathlib's fails without a home
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
    set_keras_home(real_home)
    return module


def _after_fork() -> None:
    global _is_forked
    _is_forked = _is_forked or has_device_threads()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
