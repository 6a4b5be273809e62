"""Read a network into a graph: from a Keras model, or from a list of layer descriptions.

Only what Keras recorded is looked at: shapes, arguments, flags. No variable is given a value, so a
model built without any (`keras.StatelessScope(initialize_variables=False)`) can be read as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from scenelearn import _backend
from scenelearn.errors import ArgumentError, UnknownLayerError

from . import _layers
from ._graph import Call, Graph
from ._layers import Dropout, Layer, Operation
from ._unfilled import without_values

_AS_DROPOUT = frozenset(
    (
        "AlphaDropout",
        "GaussianDropout",
        "GaussianNoise",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
        "StochasticDepth",
    )
)
_KINDS = {
    name: getattr(_layers, name) for name in _layers.__all__ if name not in {"Shape", "Weight"}
} | {"GroupedQueryAttention": _layers.GroupQueryAttention}  # the class that Keras exports so


def graph_of(model_or_layers: Any) -> Graph:
    """The graph of a Keras model, a Keras layer, or a list of descriptions.

    Args:
        model_or_layers: A functional or Sequential model; a model or layer of one's own whose
            `call` runs on symbolic tensors; a list or tuple of descriptions, each reading what
            the one before it made; or a graph, which is returned as it is.

    Returns:
        The graph, nested models taken apart, calls in order.

    Raises:
        ArgumentError: It is none of these, or a model without an input shape.
        UnknownLayerError: A layer that has no description and cannot be taken apart.
    """
    if isinstance(model_or_layers, Graph):
        return model_or_layers
    if isinstance(model_or_layers, Layer):
        return _chain([model_or_layers])
    if isinstance(model_or_layers, list | tuple):
        return _chain(model_or_layers)
    keras = _backend.keras()
    if isinstance(model_or_layers, keras.Model):
        return _Reader(keras).read(model_or_layers)
    raise ArgumentError(
        "`model_or_layers` must be a Keras model or a list of layer descriptions such as "
        f"sizing.Conv2D(32, 3). Received: {type(model_or_layers).__name__}."
    )


def _chain(layers: Sequence[Any]) -> Graph:
    if not layers:
        raise ArgumentError("The list of layers is empty. Give at least one layer.")
    calls = []
    names: dict[str, int] = {}
    for place, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"Layer {place} of the list must be a layer description such as "
                f"sizing.Conv2D(32, 3). Received: {type(layer).__name__}."
            )
        name = layer.name or type(layer).__name__.lower()
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name}_{names[name] - 1}"
        calls.append(Call(layer, (place,), (place + 1,), place, name))
    return Graph("layers", tuple(calls), (0,), (len(layers),), len(layers) + 1, ((),))


class _Reader:
    """One reading of a Keras model: which tensor is which value."""

    def __init__(self, keras: Any) -> None:
        self.keras = keras
        self.values: dict[int, int] = {}
        self.alive: list[Any] = []  # tensors whose identity is a key above
        self.calls: list[Call] = []
        self.owners: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.n_values = 0

    def read(self, model: Any) -> Graph:
        function = self._functional(model)
        inputs = tuple(self._value(tensor) for tensor in function.inputs)
        self._walk(function, "")
        outputs = tuple(self._value(tensor) for tensor in function.outputs)
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in function.inputs)
        return Graph(model.name, tuple(self.calls), inputs, outputs, self.n_values, shapes)

    def _functional(self, model: Any) -> Any:
        """The recorded graph of a model; a model of one's own is called to record one."""
        found = getattr(model, "_functional", None) or model
        if getattr(found, "_operations_by_depth", None):
            return found
        if isinstance(model, self.keras.Sequential):
            raise ArgumentError(
                f'The model "{model.name}" has no input shape yet. Start it with '
                "keras.layers.Input, or call it once."
            )
        config = getattr(model, "_build_shapes_dict", None) or {}
        shape = config.get("input_shape") or (
            next(iter(config.values())) if len(config) == 1 else None
        )
        if not shape or not isinstance(shape[-1], int):
            raise ArgumentError(
                f'The model "{model.name}" does not know its input shape. Call it once on a '
                "keras.Input of that shape."
            )
        return self._recorded(model, [self.keras.KerasTensor((None, *shape[1:]))])

    def _recorded(self, layer: Any, like: Sequence[Any], arguments: Any = None) -> Any:
        """What a layer's `call` does, recorded on symbolic inputs."""
        keras = self.keras
        inputs = [keras.Input(batch_shape=one.shape, dtype=one.dtype) for one in like]
        args, kwargs = tuple(inputs), {}
        try:
            if arguments is not None:
                stand_ins = {id(old): new for old, new in zip(like, inputs, strict=True)}
                args, kwargs = arguments.fill_in(stand_ins)
            with without_values(keras):
                outputs = layer.call(*args, **kwargs)
            return keras.Function(inputs, outputs)
        except Exception as error:
            raise UnknownLayerError(
                f'The layer "{layer.name}" ({type(layer).__name__}) has no description in sizing, '
                f"and its call could not be followed: {error}. Write it with Keras layers and "
                "keras.ops, or describe the network as a list of sizing's layers."
            ) from error

    def _walk(self, function: Any, prefix: str) -> None:
        for operation, node in _nodes(function):
            arguments = node.arguments
            tensors = list(arguments.keras_tensors)
            kind = type(operation).__name__
            if kind == "InputLayer":
                continue
            name = f"{prefix}{operation.name}"
            if _is_network(self.keras, operation):
                self._inline(self._functional(operation), node, tensors, name)
                continue
            layer = self._describe(operation, arguments)
            if layer is None:
                recorded = self._recorded(operation, tensors, arguments)
                self._inline(recorded, node, tensors, name)
                continue
            self._add(layer, operation, tensors, list(node.outputs), name)

    def _inline(self, function: Any, node: Any, tensors: list[Any], name: str) -> None:
        """Put a nested network's calls in the place of the call of it."""
        saved = dict(self.values)
        for inner, outer in zip(function.inputs, tensors, strict=True):
            self.values[id(inner)] = self._value(outer)
        self.alive.append(function)
        for operation, inner_node in _nodes(function):
            for tensor in inner_node.outputs:
                if type(operation).__name__ != "InputLayer":
                    self.values.pop(id(tensor), None)  # a second call makes values of its own
        self._walk(function, f"{name}/")
        results = [self._value(tensor) for tensor in function.outputs]
        self.values = {**self.values, **saved}
        for outer, value in zip(node.outputs, results, strict=True):
            self.values[id(outer)] = value

    def _add(
        self, layer: Layer, operation: Any, inputs: list[Any], outputs: list[Any], name: str
    ) -> None:
        self.names[name] = self.names.get(name, 0) + 1
        if self.names[name] > 1:
            name = f"{name}_{self.names[name] - 1}"
        owner = self.owners.setdefault(id(operation), len(self.owners))
        self.calls.append(
            Call(
                layer,
                tuple(self._value(tensor) for tensor in inputs),
                tuple(self._value(tensor) for tensor in outputs),
                owner,
                name,
            )
        )

    def _value(self, tensor: Any) -> int:
        if id(tensor) not in self.values:
            self.values[id(tensor)] = self.n_values
            self.alive.append(tensor)
            self.n_values += 1
        return self.values[id(tensor)]

    def _describe(self, operation: Any, arguments: Any) -> Layer | None:
        """The description of a Keras layer or operation; None if it has to be taken apart."""
        if not isinstance(operation, self.keras.layers.Layer):
            return _operation(operation, arguments)
        kind = type(operation).__name__
        if getattr(operation, "data_format", "channels_last") == "channels_first":
            raise UnknownLayerError(
                f'The layer "{operation.name}" has its channels first. Sizing reads channels_last '
                'only: build the model with data_format="channels_last".'
            )
        if kind in _AS_DROPOUT:
            drawn = (None, *(1,) * int(kind[-2]), None) if kind.startswith("Spatial") else None
            return Dropout(
                0.5, noise_shape=drawn, name=operation.name, trainable=operation.trainable
            )
        if kind == "LayerScale":
            return _layers.Scale(name=operation.name, trainable=operation.trainable)
        if kind == "EinsumDense":
            return _einsum(operation)
        described = _KINDS.get(kind)
        module = type(operation).__module__
        if described is None or not module.startswith(("keras.src.layers", "keras.layers")):
            return None
        found: Layer = described(**_arguments(described, operation))
        return found


def _is_network(keras: Any, operation: Any) -> bool:
    return isinstance(operation, keras.Model)


def _nodes(function: Any) -> Iterator[tuple[Any, Any]]:
    """The calls that a function recorded, in order."""
    depths = function._nodes_by_depth
    for depth in sorted(depths, reverse=True):
        for node in depths[depth]:
            yield node.operation, node


def _arguments(described: Any, operation: Any) -> dict[str, Any]:
    """The arguments of a description, from the attributes that a Keras layer keeps them in."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(described):
        name = field.name
        if name == "layer" or name == "backward_layer":
            inner = getattr(operation, "forward_layer" if name == "layer" else name, None)
            inner = inner or getattr(operation, name, None)
            if inner is not None:
                kind = _KINDS.get(type(inner).__name__)
                if kind is None:
                    raise UnknownLayerError(
                        f'The layer "{inner.name}" inside "{operation.name}" has no description '
                        f"in sizing: {type(inner).__name__}."
                    )
                found[name] = kind(**_arguments(kind, inner))
            continue
        value = getattr(operation, name, getattr(operation, f"_{name}", _MISSING))
        if name == "output_dim" and type(operation).__name__ == "MultiHeadAttention":
            shape = getattr(operation, "_output_shape", None)
            value = tuple(shape) if shape else None
        if name == "max_value" or name == "negative_slope":
            value = None if value in {None, _MISSING} else float(str(value))
        if value is _MISSING:
            continue
        if name == "activation":
            value = _activation_name(value)
        elif name == "padding" and isinstance(value, str):
            pass
        elif isinstance(value, list):
            value = tuple(value)
        found[name] = value
    if described is _layers.PReLU:
        found["shared_axes"] = tuple(operation.shared_axes or ())
    if described is _layers.Normalization:
        found["mean"] = operation.input_mean
        found["variance"] = operation.input_variance
        axis = operation.axis
        found["axis"] = axis if axis is None or isinstance(axis, int) else tuple(axis)
    return found


_MISSING = object()


def _activation_name(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    name = getattr(value, "__name__", None) or getattr(value, "name", None)
    return str(name) if name else type(value).__name__


def _einsum(layer: Any) -> Layer:
    return _layers.EinsumDense(
        layer.equation,
        tuple(layer._kernel.shape),
        None if layer.bias is None else tuple(layer.bias.shape),
        activation=_activation_name(layer.activation),
        name=layer.name,
        trainable=layer.trainable,
    )


def _operation(operation: Any, arguments: Any) -> Layer:
    """An operation of keras.ops."""
    kind = type(operation).__name__.lower()
    constants = [
        value
        for value in (*arguments.args, *arguments.kwargs.values())
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    shape = None
    inputs = arguments.keras_tensors
    out = operation._inbound_nodes[0].outputs[0]
    if kind not in _ELEMENTWISE or any(len(one.shape) > len(out.shape) for one in inputs):
        shape = tuple(out.shape)
        if any(size is None for size in shape[1:]):
            raise UnknownLayerError(
                f"The operation {kind} has an output of unknown size: {shape}. Build the model "
                "with a fixed input shape."
            )
    return Operation(kind, constants[0] if constants else None, shape, name=operation.name)


_ELEMENTWISE = frozenset(
    (
        "absolute",
        "add",
        "divide",
        "exp",
        "log",
        "maximum",
        "minimum",
        "multiply",
        "negative",
        "power",
        "relu",
        "relu6",
        "rsqrt",
        "sigmoid",
        "silu",
        "sqrt",
        "square",
        "subtract",
        "tanh",
        "truedivide",
        "softplus",
        "gelu",
        "hardsigmoid",
        "hardsilu",
    )
)
