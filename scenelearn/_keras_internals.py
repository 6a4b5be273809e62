"""Every private name of Keras and JAX that scenelearn touches.

No other module may use one, so that a new release of Keras or JAX is checked here. Tried with Keras
3.15.0 and 3.15.1, and with JAX 0.6 to 0.10; `pyproject.toml` allows no other versions of Keras.

The classes in saved models, which `scenelearn.classify` compares with a list before it builds them,
are named by their private modules too: they are data and stay in that list.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scenelearn._backend import keras

# Building models without running initializers


@contextmanager
def deferred_initialization() -> Iterator[Any]:
    """Create variables that have shapes but no values.

    Keras would fill each variable with random values at once, which takes memory, and on JAX one
    compilation per shape. Inside this context it only lists the variables to initialize them later.
    The list is restored on exit, so the variables stay empty until `initialize_variable` is called.

    Yields:
        A `keras.StatelessScope`, which holds the values that were assigned inside, for example by
        loading weights.
    """
    keras()  # selects the backend before Keras is imported
    from keras.src.backend.common import global_state

    key = "uninitialized_variables"
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, [])
    try:
        with keras().StatelessScope(initialize_variables=False) as scope:
            yield scope
    finally:
        global_state.set_global_attribute(key, [] if before is None else before)


def initialize_variable(variable: Any, value: Any | None) -> None:
    """Give an empty variable its value, or run its initializer if `value` is None."""
    if value is None:
        variable._deferred_initialize()
    else:
        variable._initialize(keras().ops.convert_to_tensor(value, dtype=variable.dtype))


def initializer_of(variable: Any) -> Any:
    """Return the initializer of an empty variable."""
    return variable._initializer


# Walking through models


def nested_layers(model: Any, *, include_self: bool = False) -> list[Any]:
    """Return the layers of a model and of the models nested in it.

    Args:
        model: any layer or model.
        include_self: whether to put `model` itself first.
    """
    return list(model._flatten_layers(include_self=include_self))


def own_trainable_variables(layer: Any) -> list[Any]:
    """Return the variables that belong to this layer itself, without those of nested layers."""
    return list(layer._trainable_variables)


def input_tensors_of(operation: Any) -> list[Any] | None:
    """Return the symbolic inputs of an operation; None unless it is called exactly once."""
    nodes = operation._inbound_nodes
    return list(nodes[0].input_tensors) if len(nodes) == 1 else None


def output_of(operation: Any) -> Any:
    """Return the first symbolic output of the first call of an operation."""
    return operation._inbound_nodes[0].outputs[0]


def producer_of(tensor: Any) -> Any:
    """Return the operation that produces a symbolic tensor."""
    return tensor._keras_history.operation


# Compiled programs and training


def forget_programs(layer: Any) -> None:
    """Drop the programs that Keras has compiled for a model; do nothing to other layers."""
    for program in ("predict_function", "train_function", "test_function"):
        if getattr(layer, program, None) is not None:
            setattr(layer, program, None)


def update_metrics(model: Any, metrics: Any, loss: Any, *, x: Any, y: Any, outputs: Any) -> Any:
    """Update a model's metrics within a JAX program, as Keras' `train_step` does.

    Returns:
        The logs and the new values of the metrics' variables.
    """
    return model._update_metrics_variables(metrics, loss, x, y, outputs, None)


def is_traced(tensor: Any) -> bool:
    """Return whether JAX is tracing a program to which this tensor belongs."""
    import jax

    return isinstance(tensor, jax.core.Tracer)


# Devices


def has_device_layout(variable: Any) -> bool:
    """Return whether a distribution has placed a variable."""
    return getattr(variable, "_layout", None) is not None


def clear_device_layout(variable: Any) -> None:
    """Detach a variable from its distribution, so that the next assignment places it again."""
    variable._layout = None


# Files


def set_keras_home(folder: Path) -> None:
    """Set the folder in which Keras, already imported, looks for downloads."""
    config: Any = importlib.import_module("keras.src.backend.config")
    if hasattr(config, "_KERAS_DIR"):
        config._KERAS_DIR = str(folder)


@contextmanager
def replace_download(file: str) -> Iterator[None]:
    """Let Keras find `file` wherever it would download one."""
    keras()  # selects the backend before Keras is imported
    from keras.src.utils import file_utils

    download = file_utils.get_file
    file_utils.get_file = lambda *_, **__: file
    try:
        yield
    finally:
        file_utils.get_file = download


@contextmanager
def report_downloads(report: Callable[[int, int], None]) -> Iterator[None]:
    """Report the progress of Keras' downloads, in place of what Keras prints.

    Args:
        report: called with the number of bytes received, and of all bytes, 0 if unknown.
    """
    keras()  # selects the backend before Keras is imported
    from keras.src.utils import file_utils

    class Reporter:
        """Stands in for Keras' progress bar."""

        def __init__(self, target: int | None) -> None:
            self.target = target

        def update(self, current: int) -> None:
            report(current, self.target or 0)

    config, progress_bar = keras().config, file_utils.Progbar
    interactive = config.is_interactive_logging_enabled()
    file_utils.Progbar = Reporter
    config.disable_interactive_logging()
    try:
        yield
    finally:
        file_utils.Progbar = progress_bar
        if interactive:
            config.enable_interactive_logging()


def load_model_from_archive(archive: Any) -> Any:
    """Load a model in safe mode from a binary file object that holds a .keras archive.

    `keras.saving.load_model` accepts paths only.
    """
    keras()
    from keras.src.saving import saving_lib

    return saving_lib.load_model(archive, compile=False, safe_mode=True)
