"""Every private name of Keras and JAX that scenelearn touches.

No other module may use one, so that a new release of Keras or JAX is checked here. Tried with
Keras 3.12 to 3.15 and JAX 0.6 to 0.12; `nox -s versions` repeats it. Where a newer Keras lacks a
name, the log says so once, and scenelearn does without: mostly slower, with the same results.

This module knows nothing of backends. Before its functions are called, `scenelearn._backend.keras`
has imported Keras.

The classes in saved models, which `scenelearn.classify` compares with a list before it builds them,
are named by their private modules too: they are data and stay in that list.
"""

from __future__ import annotations

import functools
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

NEWEST_KERAS = (3, 15)  # of the versions that were tested

_GLOBAL_STATE = "keras.src.backend.common.global_state"
_FILE_UTILS = "keras.src.utils.file_utils"

_log = logging.getLogger(__name__)


@functools.cache
def check_version(version: str) -> None:
    """Log one warning if this Keras is newer than the versions that were tested."""
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) > NEWEST_KERAS:
        tested = ".".join(map(str, NEWEST_KERAS))
        _log.warning("scenelearn was tested with Keras up to %s. Received: %s.", tested, version)


def _private(owner: Any, name: str) -> Any:
    """Return a private attribute; None, with one warning in the log, if this Keras has none.

    Args:
        owner: an object, or the name of a module that Keras has imported.
        name: of the attribute.
    """
    try:
        return getattr(sys.modules[owner] if isinstance(owner, str) else owner, name)
    except (KeyError, AttributeError):
        _warn_missing(name)
        return None


@functools.cache
def _warn_missing(name: str) -> None:
    _log.warning("Keras %s has no %r: scenelearn does without.", _keras().__version__, name)


def _keras() -> Any:
    return sys.modules["keras"]


# Global state


@contextmanager
def default_dtype_policy() -> Iterator[None]:
    """Let the dtype policy of this thread follow from `keras.config.floatx` inside."""
    get = _private(_GLOBAL_STATE, "get_global_attribute")
    change = _private(_GLOBAL_STATE, "set_global_attribute")
    default: str | None = None
    key: tuple[str, ...] = ("dtype_policy",)
    if get is None or change is None:
        config = _keras().config
        get, change, default, key = config.dtype_policy, config.set_dtype_policy, "float32", ()
    before = get(*key)
    change(*key, default)
    try:
        yield
    finally:
        change(*key, before)


def has_device_threads() -> bool:
    """Return whether JAX or TensorFlow has started its devices, whose threads a fork loses."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and getattr(bridge, "backends_are_initialized", lambda: True)():
        return True
    context = sys.modules.get("tensorflow.python.eager.context")
    return context is not None and bool(getattr(context.context(), "_initialized", True))


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
    if not _defers_initialization():
        with _keras().StatelessScope() as scope:  # at its end, Keras initializes the variables
            yield scope
        return
    get = _private(_GLOBAL_STATE, "get_global_attribute")
    change = _private(_GLOBAL_STATE, "set_global_attribute")
    key = "uninitialized_variables"
    before = get(key)
    change(key, [])
    try:
        with _keras().StatelessScope(initialize_variables=False) as scope:
            yield scope
    finally:
        change(key, [] if before is None else before)


def _defers_initialization() -> bool:
    state = [_private(_GLOBAL_STATE, f"{verb}_global_attribute") for verb in ("get", "set")]
    variable = [
        _private(_keras().Variable, name) for name in ("_deferred_initialize", "_initialize")
    ]
    return None not in state + variable


def is_empty(variable: Any) -> bool:
    """Whether a variable was created with `deferred_initialization` and has no value yet."""
    return _defers_initialization() and variable._value is None


def initialize_variable(variable: Any, value: Any | None) -> None:
    """Give an empty variable its value, or run its initializer if `value` is None."""
    tensor = None if value is None else _keras().ops.convert_to_tensor(value, dtype=variable.dtype)
    if not _defers_initialization():
        if tensor is not None:
            variable.assign(tensor)
    elif tensor is None:
        variable._deferred_initialize()
    else:
        variable._initialize(tensor)


def initializer_of(variable: Any) -> Any:
    """Return the initializer of an empty variable."""
    return _private(variable, "_initializer")


# Walking through models


def nested_layers(model: Any, *, include_self: bool = False) -> list[Any]:
    """Return the layers of a model and of the models nested in it.

    Args:
        model: any layer or model; another operation has no layers.
        include_self: whether to put `model` itself first.
    """
    if not isinstance(model, _keras().Layer):
        return [model] * include_self
    flatten = _private(model, "_flatten_layers")
    if flatten is not None:
        return list(flatten(include_self=include_self))
    inner = [nested_layers(layer, include_self=True) for layer in getattr(model, "layers", ())]
    return [model] * include_self + [layer for layers in inner for layer in layers]


def layers_in_order(model: Any) -> list[Any]:
    """Return the layers of a model and of the layers nested in it, each once, from the input on.

    Keras' own list of them, and so `nested_layers`, reverses the order of nested ones.
    """
    found: dict[int, Any] = {}

    def visit(layer: Any) -> None:
        for inner in _private(layer, "_layers") or []:
            if id(inner) not in found:
                found[id(inner)] = inner
                visit(inner)

    visit(model)
    return list(found.values())


def own_trainable_variables(layer: Any) -> list[Any]:
    """Return the variables that belong to this layer itself, without those of nested layers."""
    variables = _private(layer, "_trainable_variables")
    if variables is None:
        return [] if getattr(layer, "layers", None) else list(layer.trainable_variables)
    return list(variables)


def own_variables(layer: Any) -> list[Any]:
    """Return the variables of this layer itself, in the order in which Keras saves them."""
    names = ("_trainable_variables", "_non_trainable_variables")
    return [variable for name in names for variable in _private(layer, name) or []]


def input_tensors_of(operation: Any) -> list[Any] | None:
    """Return the symbolic inputs of an operation; None unless it is called exactly once."""
    nodes = _private(operation, "_inbound_nodes") or []
    return list(nodes[0].input_tensors) if len(nodes) == 1 else None


def first_inputs_of(operation: Any) -> list[Any]:
    """Return the symbolic inputs of the first call of an operation; empty if it has none."""
    nodes = _private(operation, "_inbound_nodes") or []
    return list(nodes[0].input_tensors) if nodes else []


def output_of(operation: Any) -> Any:
    """Return the first symbolic output of the first call of an operation."""
    nodes = _private(operation, "_inbound_nodes")
    if nodes:
        return nodes[0].outputs[0]
    output = operation.output
    return output[0] if isinstance(output, list | tuple) else output


def kernel_of(layer: Any) -> Any:
    """Return the variable of a layer's kernel, without quantization or LoRA."""
    kernel = _private(layer, "_kernel")
    return layer.kernel if kernel is None else kernel


def can_remove_variables(layer: Any) -> bool:
    """Return whether `remove_variables` works for a layer."""
    return _private(layer, "_untrack_variable") is not None


def remove_variables(layer: Any, names: Iterable[str]) -> None:
    """Remove variables, which are attributes of a built layer. `del` would collect garbage."""
    for name in names:
        layer._untrack_variable(getattr(layer, name))
        del vars(layer)[name]


def producer_of(tensor: Any) -> Any:
    """Return the operation that produces a symbolic tensor; None if unknown."""
    return getattr(_private(tensor, "_keras_history"), "operation", None)


def consumers_of(operation: Any) -> list[Any]:
    """Return the operations that use an operation's outputs."""
    return [node.operation for node in _private(operation, "_outbound_nodes") or []]


def functional_of(model: Any) -> Any:
    """Return the graph of a functional or sequential model; None for other models."""
    function = getattr(model, "_functional", None) or model
    return function if getattr(function, "_operations_by_depth", None) else None


def can_read_graphs(model: Any) -> bool:
    """Return whether this Keras tells how the layers of a model are connected."""
    return functional_of(model) is None or bool(nodes_of(functional_of(model)))


ELEMENTWISE = frozenset((
    "absolute", "add", "divide", "exp", "log", "maximum", "minimum", "multiply", "negative",
    "power", "relu", "relu6", "rsqrt", "sigmoid", "silu", "sqrt", "square", "subtract", "tanh",
    "truedivide", "softplus", "gelu", "hardsigmoid", "hardsilu",
))  # fmt: skip
"""The operations of `keras.ops` that work element by element, by the lower-case class name."""


def nodes_of(function: Any) -> list[Any]:
    """Return the calls of a functional graph, in topological order; empty if unknown."""
    depths = _private(function, "_nodes_by_depth") or {}
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def replay(
    model: Any, inputs: Any, call: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
) -> Any:
    """Apply the calls of a functional model to other symbolic inputs.

    Args:
        model: a functional or sequential model.
        inputs: one symbolic tensor in place of each of its inputs, flat.
        call: called with each operation, its positional and its keyword arguments; returns its
            symbolic outputs.

    Returns:
        The outputs, structured as those of `model`.
    """
    tree = _keras().tree
    function = functional_of(model)
    tensors = {id(old): new for old, new in zip(function.inputs, inputs, strict=True)}
    for node in nodes_of(function):
        if node.is_input or all(id(output) in tensors for output in node.outputs):
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        outputs = tree.flatten(call(node.operation, args, kwargs))
        tensors |= {id(old): new for old, new in zip(node.outputs, outputs, strict=True)}
    return tree.map_structure(lambda tensor: tensors[id(tensor)], function.output)


def input_shape_of(model: Any) -> tuple[Any, ...] | None:
    """Return the input shape with which a custom model was built; None if it was not."""
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    only = next(iter(shapes.values())) if len(shapes) == 1 else None
    return shapes.get("input_shape") or only


def input_structure_of(model: Any) -> Any:
    """Return how the inputs of a functional model are structured: one, or in a list or dictionary.

    None for other models.
    """
    function = functional_of(model)
    return None if function is None else getattr(function, "_inputs_struct", function.inputs[0])


def argument_of(layer: Any, name: str, default: Any) -> Any:
    """Return the value of an argument of a layer, from its attribute of that name."""
    return getattr(layer, name, getattr(layer, f"_{name}", default))


# Compiled programs and training


def forget_programs(layer: Any) -> None:
    """Drop the programs that Keras has compiled for a model; do nothing to other layers."""
    for program in ("predict_function", "train_function", "test_function"):
        if getattr(layer, program, None) is not None:
            setattr(layer, program, None)


def has_training_internals(model: Any) -> bool:
    """Return whether the fast forms of layers and of training can be put into a model."""
    names = ("_flatten_layers", "_inbound_nodes", "_update_metrics_variables")
    methods = ("compute_loss_and_updates", "make_predict_function", "make_train_function")
    return all(_private(model, name) is not None for name in (*names, *methods))


def build_loss(model: Any) -> None:
    """Build the loss of a compiled functional model, whose targets have the shape of its outputs.

    In the first training step, Keras would trace the whole network for that shape.
    """
    loss = _private(model, "_compile_loss")
    if loss is not None and not loss.built:
        loss.build(model.output, model.output)


def update_metrics(
    model: Any, metrics: Any, loss: Any, *, x: Any, y: Any, outputs: Any, weights: Any
) -> Any:
    """Update a model's metrics within a JAX program, as Keras' `train_step` does.

    Returns:
        The logs and the new values of the metrics' variables.
    """
    return model._update_metrics_variables(metrics, loss, x, y, outputs, weights)


def is_traced(tensor: Any) -> bool:
    """Return whether JAX is tracing a program to which this tensor belongs."""
    import jax

    return isinstance(tensor, jax.core.Tracer)


def variable_index_method(optimizer_class: Any) -> Callable[[Any, Any], int] | None:
    """Return the method for the position of a variable among those that an optimizer trains."""
    method: Callable[[Any, Any], int] | None = _private(optimizer_class, "_get_variable_index")
    return method


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
    config = "keras.src.backend.config"
    if _private(config, "_KERAS_DIR") is not None:
        sys.modules[config]._KERAS_DIR = str(folder)  # type: ignore[attr-defined]


@contextmanager
def _replaced(name: str, value: Any) -> Iterator[None]:
    """Replace a name in Keras' module of downloads inside, if it has this name."""
    original = _private(_FILE_UTILS, name)
    if original is None:
        yield
        return
    module = sys.modules[_FILE_UTILS]
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def replace_download(file: str) -> AbstractContextManager[None]:
    """Let Keras find `file` inside wherever it would download one."""
    return _replaced("get_file", lambda *_, **__: file)


@contextmanager
def report_downloads(report: Callable[[int, int], None]) -> Iterator[None]:
    """Report the progress of Keras' downloads, in place of what Keras prints.

    Args:
        report: called with the number of bytes received, and of all bytes, 0 if unknown.
    """

    class Reporter:
        """Stands in for Keras' progress bar."""

        def __init__(self, target: int | None) -> None:
            self.target = target

        def update(self, current: int) -> None:
            report(current, self.target or 0)

    config = _keras().config
    interactive = config.is_interactive_logging_enabled()
    config.disable_interactive_logging()
    try:
        with _replaced("Progbar", Reporter):
            yield
    finally:
        if interactive:
            config.enable_interactive_logging()


def load_model_from_archive(archive: Any) -> Any:
    """Load a model in safe mode from a binary file object that holds a .keras archive.

    `keras.saving.load_model` accepts paths only.
    """
    load = _private("keras.src.saving.saving_lib", "load_model")
    if load is not None:
        return load(archive, compile=False, safe_mode=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        path.write_bytes(archive.read())
        return _keras().saving.load_model(path, compile=False, safe_mode=True)
