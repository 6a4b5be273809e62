"""`estimate`: read a network, infer its shapes, and count parameters, multiply-adds and memory."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn._checks import check_choice, check_integer
from scenelearn.errors import ArgumentError, UnknownLayerError
from scenelearn.sizing._graph import Graph
from scenelearn.sizing._layers import Layer, Shape
from scenelearn.sizing._memory import MemoryEstimate, StepSettings
from scenelearn.sizing._networks import load_network
from scenelearn.sizing._optimizers import optimizer_slots
from scenelearn.sizing._reader import read_graph
from scenelearn.sizing._receptive import receptive_fields
from scenelearn.sizing._result import Estimate
from scenelearn.sizing._textbook import (
    count_parameters,
    count_trainable_parameters,
    textbook_memory,
)
from scenelearn.sizing._values import LayerEstimate

METHODS = ("textbook", "xla")
"""The methods by which memory is estimated."""


def estimate(
    network: Any,
    *,
    input_shape: Sequence[Any] | None = None,
    batch_size: int = 1,
    dtype: str | None = None,
    optimizer: Any = None,
    trainable: bool | str | Collection[str] | None = None,
    mixed_precision: str | None = None,
    method: str = "textbook",
) -> Estimate:
    """Estimate the parameters, multiply-adds and memory of a network without running it.

    Args:
        network: a Keras model; a name of `keras.applications` such as "mobilenet_v2"; the path of a
            `.keras` file; a list of layer descriptions such as `sizing.Conv2D(32, 3)`; or such a
            list as text, "Conv2D(32, 3), Flatten(), Dense(10)". No weights are created or loaded.
        input_shape: the input's shape without the batch axis, (height, width, channels) for images;
            one shape per input if there are several. Required for layer descriptions and where the
            model leaves sizes open. A model that was not built yet is built with it. By default the
            model's own.
        batch_size: samples per batch.
        dtype: "float32" (the default), "float16", "bfloat16" or "float64".
        optimizer: a name of `keras.optimizers`, "sgd_momentum", or a Keras optimizer. By default
            that of the compiled model, else SGD without momentum.
        trainable: what is trained: None for each layer's own `trainable` flag, True for all layers,
            False for none, "head" for the last layer with weights, or a collection of layer names.
        mixed_precision: "mixed_float16" or "mixed_bfloat16": activations of 2 bytes, weights of 4.
        method: "textbook" for a calculation by hand, or "xla" for the memory that XLA:CPU plans
            (float32 only; the page on sizing names its versions and limits).

    Returns:
        The estimate, per layer and in total.

    Raises:
        ArgumentError: if an argument is out of range, or shapes do not match.
        BundleError: if the file is not a complete `.keras` file.
        PathMissingError: if the file does not exist.
        UnknownBackboneError: if the name is not in `keras.applications`.
        UnknownLayerError: if a layer has no description in sizing and its call cannot be traced
            (which needs the JAX backend of Keras), or the parameters do not add up to those that
            Keras counts.

    Examples:
        >>> from scenelearn import sizing
        >>> layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
        >>> result = sizing.estimate(layers, input_shape=(200, 300, 3))
        >>> result.n_parameters, result.prediction_bytes
        (903400, 12613600)

    References:
        Géron, Hands-On Machine Learning, 3rd edition, chapter 14, "Memory requirements".
    """
    batch_size = check_integer("batch_size", batch_size, low=1)
    check_choice("method", method, METHODS)
    activation_itemsize, weight_itemsize = _itemsizes(dtype, mixed_precision)
    if method == "xla" and (activation_itemsize, weight_itemsize) != (4, 4):
        raise ArgumentError(
            '`method="xla"` supports float32 only. Received: '
            f'dtype={dtype!r}, mixed_precision={mixed_precision!r}. Use method="textbook".'
        )
    shape = None if input_shape is None else _check_input_shape(input_shape)
    if isinstance(network, str | os.PathLike):
        network = load_network(network, shape)
    graph = read_graph(network, shape)
    if not graph.calls:
        raise ArgumentError(
            "`network` must have at least one layer. Received: only an input. Add e.g. Dense(10)."
        )
    if optimizer is None:
        optimizer = getattr(network, "optimizer", None)
    estimator = _Estimator(
        graph=graph,
        input_shape=shape,
        method=method,
        optimizer=optimizer,
        trainable=trainable,
        activation_itemsize=activation_itemsize,
        weight_itemsize=weight_itemsize,
    )
    result = estimator(batch_size=batch_size)
    if not isinstance(network, Layer | Sequence):
        _check_total(network, result, graph)
    return result


def _check_total(network: Any, result: Estimate, graph: Graph) -> None:
    """Check the number of parameters against Keras', for the shapes with which Keras built it."""
    shapes = zip(graph.input_shapes, result.input_shapes, strict=True)
    pairs = (pair for own, shape in shapes for pair in zip(own, shape[1:], strict=True))
    same = all(size in (None, n) for size, n in pairs)
    n_keras = sum(math.prod(weight.shape) for weight in network.weights)
    if same and n_keras != result.n_parameters:
        raise UnknownLayerError(
            f"Sizing counts {result.n_parameters:,} parameters in {graph.name!r}, Keras "
            f"{n_keras:,}. A layer holds weights that sizing cannot read: write it with Keras "
            "layers, or describe the network as a list of sizing layers."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimator:
    """Estimates one network for any batch size and input shape."""

    graph: Graph
    input_shape: tuple[Any, ...] | None
    method: str
    optimizer: Any
    trainable: bool | str | Collection[str] | None
    activation_itemsize: int
    weight_itemsize: int

    def __call__(self, *, batch_size: int, input_shape: Shape | None = None) -> Estimate:
        graph = self.graph
        inputs = _batch_shapes(graph, input_shape or self.input_shape, batch_size)
        shapes = graph.infer_shapes(*inputs)
        trained = _trained_layers(graph, shapes, self.trainable)
        weights = [
            weight.shape
            for call in graph.unique_layers()
            if call.layer_id in trained
            for weight in graph.weights(call, shapes)
            if weight.trainable
        ]
        settings = StepSettings(
            trained_layers=trained,
            slots=optimizer_slots(self.optimizer, weights),
            activation_itemsize=self.activation_itemsize,
            weight_itemsize=self.weight_itemsize,
        )
        memory = _memory(self.method, graph, shapes, settings)
        layers = _layer_estimates(graph, shapes, settings)
        n_parameters = count_parameters(graph, shapes)
        return Estimate(
            name=graph.name,
            method=self.method,
            batch_size=batch_size,
            input_shapes=inputs,
            optimizer=settings.slots.name,
            layers=layers,
            n_parameters=n_parameters,
            n_trainable_parameters=count_trainable_parameters(graph, shapes, settings),
            n_multiply_adds=sum(layer.n_multiply_adds for layer in layers),
            parameter_bytes=n_parameters * self.weight_itemsize,
            **{name: getattr(memory, name) for name in MemoryEstimate.__slots__},
            _reestimate=self,
        )


def _memory(
    method: str, graph: Graph, shapes: tuple[Shape, ...], settings: StepSettings
) -> MemoryEstimate:
    if method == "xla":
        from scenelearn.sizing._xla import xla_memory

        return xla_memory(graph, shapes, settings)
    return textbook_memory(graph, shapes, settings)


def _layer_estimates(
    graph: Graph, shapes: tuple[Shape, ...], settings: StepSettings
) -> tuple[LayerEstimate, ...]:
    layers = []
    counted: set[int] = set()
    for call, field in zip(graph.calls, receptive_fields(graph, shapes), strict=True):
        inputs = graph.call_input_shapes(call, shapes)
        weights = () if call.layer_id in counted else graph.weights(call, shapes)
        counted.add(call.layer_id)
        outputs = [shapes[value] for value in call.outputs]
        layers.append(
            LayerEstimate(
                name=call.name,
                layer_type=call.layer.type_name,
                input_shapes=inputs,
                output_shape=outputs[0],
                n_parameters=sum(weight.n_elements for weight in weights),
                n_trainable_parameters=sum(
                    weight.n_elements
                    for weight in weights
                    if weight.trainable and call.layer_id in settings.trained_layers
                ),
                n_multiply_adds=call.layer.n_multiply_adds(*inputs),
                activation_bytes=(sum(map(math.prod, outputs)) + call.layer.n_kept(*inputs))
                * settings.activation_itemsize,
                receptive_field=field,
            )
        )
    return tuple(layers)


def _trained_layers(
    graph: Graph, shapes: tuple[Shape, ...], trainable: bool | str | Collection[str] | None
) -> frozenset[int]:
    """The ids of the layers that are trained."""
    candidates = [
        call
        for call in graph.unique_layers()
        if any(weight.trainable for weight in graph.weights(call, shapes))
    ]
    if trainable is None:
        return frozenset(call.layer_id for call in candidates if call.layer.trainable)
    if isinstance(trainable, bool):
        return frozenset(call.layer_id for call in candidates) if trainable else frozenset()
    if trainable == "head":
        return frozenset(call.layer_id for call in candidates[-1:])
    if isinstance(trainable, str) or not isinstance(trainable, Collection):
        raise ArgumentError(
            '`trainable` must be None, True, False, "head" or a collection of layer names. '
            f"Received: trainable={trainable!r}."
        )
    names = {call.name for call in candidates}
    unknown = sorted({str(name) for name in trainable} - names)
    if unknown:
        raise ArgumentError(
            "`trainable` must name layers with trainable weights. Received: "
            f"{', '.join(unknown)}. Layers with trainable weights: {', '.join(sorted(names)[:20])}."
        )
    return frozenset(call.layer_id for call in candidates if call.name in set(trainable))


def _check_input_shape(shape: Any) -> tuple[Any, ...]:
    """The shape, or the shapes of several inputs, as tuples."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise ArgumentError(
            "`input_shape` must be the size of each axis except the batch axis, such as "
            f"(200, 300, 3). Received: input_shape={shape!r}."
        )
    return tuple(
        _check_input_shape(item)
        if isinstance(item, list | tuple)
        else (
            int(item) if isinstance(item, numbers.Integral) and not isinstance(item, bool) else item
        )
        for item in shape
    )


def _batch_shapes(graph: Graph, given: Any, batch_size: int) -> tuple[Shape, ...]:
    """The shape of each input with its batch axis, from the given shapes or the model's own."""
    shapes: Sequence[Sequence[Any]] = graph.input_shapes
    if given is not None:
        several = bool(given) and isinstance(given[0], tuple)
        shapes = given if several else (given,)
    for shape in shapes:
        if not shape or any(
            isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape
        ):
            raise ArgumentError(
                "`input_shape` must be the size of each axis except the batch axis, such as "
                f"(200, 300, 3). Received: input_shape={shape if given is not None else None}."
            )
    return tuple((batch_size, *shape) for shape in shapes)


_ITEMSIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def _itemsizes(dtype: str | None, mixed_precision: str | None) -> tuple[int, int]:
    """Bytes per element of activations and of weights."""
    check_choice("dtype", dtype, (None, *_ITEMSIZES))
    check_choice("mixed_precision", mixed_precision, (None, "mixed_float16", "mixed_bfloat16"))
    if mixed_precision is not None:
        if dtype not in {None, "float32"}:
            raise ArgumentError(
                "Pass `dtype` or `mixed_precision`, not both. Received: "
                f"dtype={dtype!r}, mixed_precision={mixed_precision!r}."
            )
        return 2, 4
    itemsize = _ITEMSIZES[dtype or "float32"]
    return itemsize, itemsize
