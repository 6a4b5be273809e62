"""Read networks into graphs, from Keras models and from lists of layer descriptions.

Only what Keras recorded is read: shapes, arguments and flags, never the values of variables. So
models built without values can be read, too.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from scenelearn import _backend
from scenelearn._keras_internals import (
    ELEMENTWISE,
    argument_of,
    deferred_initialization,
    functional_of,
    input_shape_of,
    kernel_of,
    nested_layers,
    nodes_of,
    output_of,
)
from scenelearn.errors import ArgumentError, UnknownLayerError
from scenelearn.sizing import _layers
from scenelearn.sizing._graph import Call, Graph
from scenelearn.sizing._jaxprs import TracedCall
from scenelearn.sizing._layers import Dropout, Layer, Operation, Weight
from scenelearn.sizing._layers._traced import Traced
from scenelearn.sizing._xla._activations import ACTIVATIONS

_AS_DROPOUT = frozenset((
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "StochasticDepth",
))  # fmt: skip
_KINDS = {
    name: getattr(_layers, name) for name in _layers.__all__ if name not in {"Shape", "Weight"}
} | {"GroupedQueryAttention": _layers.GroupQueryAttention}  # the class that Keras exports so


def read_graph(network: Any, input_shape: tuple[Any, ...] | None = None) -> Graph:
    """Read a network into a graph.

    Args:
        network: a Keras model; or a list of layer descriptions, applied one after the other.
        input_shape: of a model that has none yet, without the batch axis; it is built then.

    Returns:
        The graph in topological order, with nested models expanded.

    Raises:
        ArgumentError: if it is none of these, or a model without an input shape.
        UnknownLayerError: if a layer has neither a description nor, on this backend of Keras, a
            call that can be traced.
    """
    if isinstance(network, Layer):
        return _chain([network])
    if isinstance(network, list | tuple):
        return _chain(network)
    keras = _backend.keras()
    if isinstance(network, keras.Model):
        return _Reader(keras).read(network, input_shape)
    raise ArgumentError(
        "`network` must be a Keras model, a name of keras.applications, the path of a .keras file "
        "or a list of layer descriptions such as sizing.Conv2D(32, 3). Received: "
        f"{type(network).__name__}."
    )


def _chain(layers: Sequence[Any]) -> Graph:
    if not layers:
        raise ArgumentError("The list of layers must not be empty. Pass at least one layer.")
    calls = []
    names: dict[str, int] = {}
    for at, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ArgumentError(
                "A list of layers must hold layer descriptions such as sizing.Conv2D(32, 3). "
                f"Received: {type(layer).__name__} at index {at}. Pass Keras layers as a model: "
                "keras.Sequential([keras.Input(shape), ...])."
            )
        name = layer.name or type(layer).__name__.lower()
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name}_{names[name] - 1}"
        calls.append(Call(layer, (at,), (at + 1,), at, name))
    return Graph("layers", tuple(calls), (0,), (len(layers),), len(layers) + 1, ((),))


_ATTENTION = (
    _layers.AdditiveAttention,
    _layers.Attention,
    _layers.GroupQueryAttention,
    _layers.MultiHeadAttention,
)


class _Reader:
    """Reads one Keras model: maps its tensors to values of the graph."""

    def __init__(self, keras: Any) -> None:
        self.keras = keras
        self.values: dict[int, int] = {}
        self.alive: list[Any] = []  # keeps tensors whose id is a key above
        self.calls: list[Call] = []
        self.layer_ids: dict[int, int] = {}
        self.names: dict[str, int] = {}
        self.n_values = 0
        self.owners: dict[int, int] = {}  # the first layer that a weight belongs to

    def read(self, model: Any, input_shape: tuple[Any, ...] | None) -> Graph:
        function = self._functional(model, input_shape)
        inputs = tuple(self._value(tensor) for tensor in function.inputs)
        self._walk(function, "")
        outputs = tuple(self._value(tensor) for tensor in function.outputs)
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in function.inputs)
        return Graph(model.name, tuple(self.calls), inputs, outputs, self.n_values, shapes)

    def _functional(self, model: Any, input_shape: tuple[Any, ...] | None) -> Any:
        """The functional graph of a model; a subclassed model is traced."""
        functional = functional_of(model)
        if functional is None and input_shape is not None and not model.built:
            several = input_shape and isinstance(input_shape[0], tuple)
            inputs = [
                self.keras.Input(shape) for shape in (input_shape if several else [input_shape])
            ]
            model(inputs if several else inputs[0])
            functional = functional_of(model)
        if functional is not None:
            return functional
        shape = None if isinstance(model, self.keras.Sequential) else input_shape_of(model)
        if not shape or not isinstance(shape[-1], int):
            raise ArgumentError(
                f'The model "{model.name}" has no input shape yet. Pass `input_shape`, begin a '
                "Sequential model with keras.Input, or call the model once."
            )
        tensor = self.keras.Input(batch_shape=(None, *(input_shape or shape[1:])))
        followed = self._follow(model, [tensor], (tensor,), {})
        if followed is not None and not _has_own_weights(model, followed):
            return followed
        output = model(tensor)  # one call that stands for all of it
        return self.keras.Function(tensor, output)

    def _follow(
        self, layer: Any, tensors: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The layers and operations inside a layer's call; None if it needs numbers to run."""
        keras = self.keras
        inputs = {
            id(tensor): keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
            for tensor in tensors
        }
        args, kwargs = keras.tree.map_structure(
            lambda value: inputs.get(id(value), value), (args, kwargs)
        )
        try:
            with deferred_initialization():
                outputs = layer.call(*args, **kwargs)
            function = keras.Function(list(inputs.values()), outputs)
            nodes = [node for _, node in _nodes(function)]
        except Exception:  # noqa: BLE001 - any code of the user's; tracing it reports its errors
            return None
        sizes = [size for node in nodes for out in node.outputs for size in out.shape[1:]]
        open_sizes = [size for tensor in tensors for size in tensor.shape[1:]]
        return function if None not in sizes or None in open_sizes else None

    def _walk(self, function: Any, prefix: str) -> None:
        for operation, node in _nodes(function):
            arguments = node.arguments
            tensors = list(arguments.keras_tensors)
            if type(operation).__name__ == "InputLayer":
                continue
            name = f"{prefix}{operation.name}"
            if functional_of(operation) is not None:
                self._inline(functional_of(operation), node, tensors, name)
                continue
            layer = self._describe(operation, arguments)
            if isinstance(layer, _ATTENTION):
                layer, tensors = _with_attention_arguments(layer, operation, arguments)
            if layer is None:
                unique = list({id(tensor): tensor for tensor in tensors}.values())
                inner = self._follow(operation, unique, arguments.args, arguments.kwargs)
                if inner is not None and self._is_described(operation, inner):
                    self._inline(inner, node, unique, name)
                    continue
                own = [w for w in operation.weights if self._owner(w, operation) == id(operation)]
                layer, tensors = _traced_layer(operation, arguments, own), unique
            for weight in getattr(operation, "weights", ()):
                self._owner(weight, operation)
            self._add(layer, operation, tensors, list(node.outputs), name)

    def _owner(self, weight: Any, layer: Any) -> int:
        return self.owners.setdefault(id(weight), id(layer))

    def _is_described(self, layer: Any, function: Any) -> bool:
        """Whether a layer's call is nothing but layers and elementwise operations."""
        if self.keras.backend.backend() == "jax":
            for operation, node in _nodes(function):
                is_layer = isinstance(operation, self.keras.layers.Layer)
                if not is_layer and not _is_elementwise(operation, node.arguments):
                    return False
        return not _has_own_weights(layer, function)

    def _inline(self, function: Any, node: Any, tensors: list[Any], name: str) -> None:
        """Replace the call of a nested network by the calls inside it."""
        saved = dict(self.values)
        for inner, outer in zip(function.inputs, tensors, strict=True):
            self.values[id(inner)] = self._value(outer)
        self.alive.append(function)
        for operation, inner_node in _nodes(function):
            for tensor in inner_node.outputs:
                if type(operation).__name__ != "InputLayer":
                    self.values.pop(id(tensor), None)  # a second call has its own values
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
        layer_id = self.layer_ids.setdefault(id(operation), len(self.layer_ids))
        self.calls.append(
            Call(
                layer,
                tuple(self._value(tensor) for tensor in inputs),
                tuple(self._value(tensor) for tensor in outputs),
                layer_id,
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
        """The description of a Keras layer or operation; None if its call has to be traced."""
        if not isinstance(operation, self.keras.layers.Layer):
            return _operation(operation, arguments)
        name, trainable = operation.name, operation.trainable
        kind = type(operation).__name__
        parts = nested_layers(operation, include_self=True)
        if any(getattr(part, "lora_enabled", False) for part in parts):
            return None
        if getattr(operation, "data_format", "channels_last") == "channels_first":
            raise UnknownLayerError(
                f'The layer "{operation.name}" has data_format="channels_first". Sizing supports '
                'channels_last only: build the model with data_format="channels_last".'
            )
        if kind in _AS_DROPOUT:
            mask = (None, *(1,) * int(kind[-2]), None) if kind.startswith("Spatial") else None
            return Dropout(0.5, noise_shape=mask, name=name, trainable=trainable)
        if kind == "LayerScale":
            return _layers.LayerScale(name=name, trainable=trainable)
        if kind == "EinsumDense":
            return _einsum(operation)
        own = type(operation)
        base = _described_base(own)
        if base is None or (base.call, base.build) != (own.call, own.build):
            return None
        activation = _activation_name(getattr(operation, "activation", None))
        if activation not in ACTIVATIONS and self.keras.backend.backend() == "jax":
            return None
        described = _KINDS[base.__name__]
        layer: Layer = described(**_arguments(described, operation))
        return layer


def _with_attention_arguments(
    layer: Any, operation: Any, arguments: Any
) -> tuple[Layer, list[Any]]:
    """What a call says of an attention layer, and its query, value and key, without masks."""
    bound = inspect.signature(operation.call).bind(*arguments.args, **arguments.kwargs).arguments
    inputs = bound.get("inputs") or [bound.get(name) for name in ("query", "value", "key")]
    with_scores = bool(bound.get("return_attention_scores"))
    layer = dataclasses.replace(layer, return_attention_scores=with_scores)
    return layer, [tensor for tensor in inputs if tensor is not None]


def _has_own_weights(layer: Any, function: Any) -> bool:
    """Whether a layer holds weights that no layer inside its call holds."""
    inner = {id(weight) for part, _ in _nodes(function) for weight in getattr(part, "weights", ())}
    return any(id(weight) not in inner for weight in layer.weights)


def _traced_layer(layer: Any, arguments: Any, own_weights: Sequence[Any]) -> Traced:
    if _backend.keras().backend.backend() != "jax":
        raise UnknownLayerError(
            f'The layer "{layer.name}" ({type(layer).__name__}) has no description in sizing, and '
            "only the JAX backend of Keras can trace its call. Set KERAS_BACKEND=jax, or write it "
            "with layers of Keras."
        )
    weights = tuple(
        Weight(weight.name, tuple(weight.shape), trainable=weight.trainable)
        for weight in own_weights
    )
    return Traced(
        type(layer).__name__,
        _traced_call(layer, arguments, own_weights),
        weights,
        name=layer.name,
        trainable=layer.trainable,
    )


def _traced_call(operation: Any, arguments: Any, weights: Sequence[Any]) -> TracedCall:
    """The call of a layer or operation; its weights come first among the variables."""
    every = {id(one): one for one in (*weights, *getattr(operation, "variables", ()))}
    tensors = {id(tensor): tensor for tensor in arguments.keras_tensors}
    return TracedCall(
        operation, arguments.args, arguments.kwargs, [*tensors.values()], [*every.values()]
    )


def _described_base(kind: type) -> Any:
    """The class of Keras, itself or the nearest base, that has a description; None without one."""
    for base in kind.__mro__:
        if base.__module__.startswith(("keras.src.layers", "keras.layers")):
            return base if base.__name__ in _KINDS else None
    return None


def _nodes(function: Any) -> Iterator[tuple[Any, Any]]:
    """The calls of a functional graph, in topological order."""
    nodes = nodes_of(function)
    if not nodes:
        raise UnknownLayerError(
            "Sizing must know how the layers of a model are connected, which this version of Keras "
            "does not tell. Describe the network as a list of sizing layers."
        )
    for node in nodes:
        yield node.operation, node


def _arguments(described: Any, operation: Any) -> dict[str, Any]:
    """The arguments of a description, from the attributes of a Keras layer."""
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(described):
        name = field.name
        if name in {"layer", "backward_layer"}:
            inner = getattr(operation, "forward_layer" if name == "layer" else name, None)
            inner = inner or getattr(operation, name, None)
            if inner is not None:
                kind = _KINDS.get(type(inner).__name__)
                if kind is None:
                    raise UnknownLayerError(
                        f'The layer "{inner.name}" inside "{operation.name}" has no description '
                        f"in sizing: {type(inner).__name__}."
                    )
                arguments[name] = kind(**_arguments(kind, inner))
            continue
        value = argument_of(operation, name, _MISSING)
        if name == "output_dim" and type(operation).__name__ == "MultiHeadAttention":
            shape = argument_of(operation, "output_shape", None)
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
        arguments[name] = value
    if "layer" in arguments:  # a wrapper, which is frozen if the layer inside is
        arguments["trainable"] = operation.trainable and arguments["layer"].trainable
    if described is _layers.PReLU:
        arguments["shared_axes"] = tuple(operation.shared_axes or ())
    if described is _layers.Normalization:
        arguments["mean"] = operation.input_mean
        arguments["variance"] = operation.input_variance
        axis = operation.axis
        arguments["axis"] = axis if axis is None or isinstance(axis, int) else tuple(axis)
    return arguments


_MISSING = object()

_PRODUCTS = frozenset((
    "cdist", "conv", "convtranspose", "correlate", "depthwiseconv", "dot", "dotproductattention",
    "einsum", "inner", "kron", "matmul", "outer", "separableconv", "tensordot", "vdot",
))  # fmt: skip
"""The operations of `keras.ops` that multiply and add, by the lower-case class name."""


def _activation_name(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    name = getattr(value, "__name__", None) or getattr(value, "name", None)
    return str(name) if name else type(value).__name__


def _einsum(layer: Any) -> Layer:
    return _layers.EinsumDense(
        layer.equation,
        tuple(kernel_of(layer).shape),
        None if layer.bias is None else tuple(layer.bias.shape),
        activation=_activation_name(layer.activation),
        name=layer.name,
        trainable=layer.trainable,
    )


def _operation(operation: Any, arguments: Any) -> Layer:
    """The description of an operation of keras.ops."""
    kind = type(operation).__name__.lower()
    constants = [
        value
        for value in (*arguments.args, *arguments.kwargs.values())
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    shape = None
    if not _is_elementwise(operation, arguments):
        shape = tuple(output_of(operation).shape)
        if any(size is None for size in shape[1:]):
            raise UnknownLayerError(
                f"The operation {kind} has an output of unknown size: shape={shape}. Build the "
                "model with a fixed input shape."
            )
    constant = constants[0] if constants else None
    traced = None
    if _backend.keras().backend.backend() == "jax":
        traced = _traced_call(operation, arguments, ())
    elif kind in _PRODUCTS:
        raise UnknownLayerError(
            f"The multiply-adds of the operation {kind} can only be counted on the JAX backend of "
            "Keras. Set KERAS_BACKEND=jax, or use a layer of Keras in its place."
        )
    return Operation(kind, constant, shape, traced, name=operation.name)


def _is_elementwise(operation: Any, arguments: Any) -> bool:
    rank = len(output_of(operation).shape)
    return type(operation).__name__.lower() in ELEMENTWISE and all(
        len(tensor.shape) <= rank for tensor in arguments.keras_tensors
    )
