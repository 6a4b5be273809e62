"""Estimate a network: read it, size it by a rule, and gather the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

from scenelearn.errors import ArgumentError

from ._graph import Graph
from ._layers import Shape
from ._layers._checks import one_of, positive
from ._memory import Memory, Situation
from ._optimizers import slots_of
from ._read import graph_of
from ._receptive import receptive_fields
from ._result import Estimate, Row
from ._textbook import n_trained, n_weights, textbook_memory

RULES = ("textbook", "xla")
"""The rules by which memory is counted."""


def estimate(
    model_or_layers: Any,
    *,
    input_shape: Sequence[Any] | None = None,
    batch_size: int = 1,
    dtype: str | None = None,
    optimizer: Any = None,
    trainable: bool | str | Collection[str] | None = None,
    mixed_precision: str | None = None,
    rule: str = "textbook",
) -> Estimate:
    """What a network takes to predict and to train, without running or building it.

    Args:
        model_or_layers: A Keras model, or a list of layer descriptions (`sizing.Conv2D(...)`).
        input_shape: The input's shape without its batch axis, (height, width, channels) for
            images; one shape for each input where there are several. Needed for a list of layers
            and where the model leaves axes open; else the model's own.
        batch_size: Samples in a batch.
        dtype: "float32" (the default), "float16", "bfloat16" or "float64".
        optimizer: A name of `keras.optimizers`, "sgd_momentum", or a Keras optimizer. By default
            that of the compiled model, else plain gradient descent.
        trainable: What training moves: None for each layer's own flag, True for everything, "head"
            for the last layer with weights, or names of layers.
        mixed_precision: "mixed_float16" or "mixed_bfloat16": maps of 2 bytes, weights of 4.
        rule: "textbook", as one computes it by hand, or "xla", as XLA:CPU plans it (32-bit floats
            only; see the page on sizing for its versions and limits).

    Returns:
        Rows and totals.

    Raises:
        ArgumentError: An argument is out of range, shapes do not fit, or a name is unknown.
        UnknownLayerError: A layer that has no description and cannot be taken apart.

    Examples:
        >>> from scenelearn import sizing
        >>> layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
        >>> found = sizing.estimate(layers, input_shape=(200, 300, 3))
        >>> found.n_parameters, found.prediction_bytes
        (903400, 12613600)

    References:
        Géron, Hands-On Machine Learning, 3rd edition, chapter 14, "Memory requirements".
    """
    positive("batch_size", batch_size)
    one_of("rule", rule, RULES)
    map_bytes, weight_bytes = _precision(dtype, mixed_precision)
    if rule == "xla" and (map_bytes, weight_bytes) != (4, 4):
        raise ArgumentError(
            'The rule "xla" holds for 32-bit floats. Received: '
            f'dtype={dtype!r}, mixed_precision={mixed_precision!r}. Use rule="textbook".'
        )
    graph = graph_of(model_or_layers)
    if optimizer is None:
        optimizer = getattr(model_or_layers, "optimizer", None)

    @lru_cache(maxsize=64)
    def again(*, batch_size: int, input_shape: Shape | None) -> Estimate:
        shapes = _input_shapes(graph, input_shape or given, batch_size)
        return _estimated(
            graph,
            graph.shapes(*shapes),
            again=again,
            rule=rule,
            optimizer=optimizer,
            trainable=trainable,
            map_bytes=map_bytes,
            weight_bytes=weight_bytes,
        )

    given = None if input_shape is None else _tuples(input_shape)
    return again(batch_size=batch_size, input_shape=None)


def _estimated(
    graph: Graph,
    shapes: tuple[Shape, ...],
    *,
    again: Callable[..., Estimate],
    rule: str,
    optimizer: Any,
    trainable: bool | str | Collection[str] | None,
    map_bytes: int,
    weight_bytes: int,
) -> Estimate:
    trained = _trained(graph, shapes, trainable)
    weights = [
        weight.shape
        for call in graph.owners()
        if call.owner in trained
        for weight in call.layer.weights(*graph.reads(call, shapes))
        if weight.trainable
    ]
    situation = Situation(
        trained=trained,
        slots=slots_of(optimizer, weights),
        map_bytes=map_bytes,
        weight_bytes=weight_bytes,
    )
    memory = _by_rule(rule, graph, shapes, situation)
    rows = _rows(graph, shapes, situation)
    n_parameters = n_weights(graph, shapes)
    inputs = tuple(shapes[value] for value in graph.inputs)
    return Estimate(
        name=graph.name,
        rule=rule,
        batch_size=inputs[0][0],
        input_shapes=inputs,
        optimizer=situation.slots.name,
        rows=rows,
        n_parameters=n_parameters,
        n_trainable=n_trained(graph, shapes, situation),
        n_multiply_adds=sum(row.n_multiply_adds for row in rows),
        parameter_bytes=n_parameters * weight_bytes,
        prediction_bytes=memory.prediction_bytes,
        prediction_bytes_all_kept=memory.prediction_bytes_all_kept,
        prediction_peak_at=memory.prediction_peak_at,
        training=memory.training,
        training_peak_at=memory.training_peak_at,
        prediction_moments=memory.prediction_moments,
        training_moments=memory.training_moments,
        _again=again,
        prediction_resident_bytes=memory.prediction_resident_bytes,
        training_resident_bytes=memory.training_resident_bytes,
    )


def _by_rule(rule: str, graph: Graph, shapes: tuple[Shape, ...], situation: Situation) -> Memory:
    if rule == "xla":
        from ._xla import xla_memory

        return xla_memory(graph, shapes, situation)
    return textbook_memory(graph, shapes, situation)


def _rows(graph: Graph, shapes: tuple[Shape, ...], situation: Situation) -> tuple[Row, ...]:
    rows = []
    counted: set[int] = set()
    fields = receptive_fields(graph, shapes)
    for call, field in zip(graph.calls, fields, strict=True):
        reads = graph.reads(call, shapes)
        weights = () if call.owner in counted else call.layer.weights(*reads)
        counted.add(call.owner)
        made = [shapes[value] for value in call.outputs]
        rows.append(
            Row(
                name=call.name,
                kind=type(call.layer).__name__,
                input_shapes=reads,
                output_shape=made[0],
                n_parameters=sum(weight.n_elements for weight in weights),
                n_trainable=sum(
                    weight.n_elements
                    for weight in weights
                    if weight.trainable and call.owner in situation.trained
                ),
                n_multiply_adds=call.layer.n_multiply_adds(*reads),
                activation_bytes=sum(map(math.prod, made)) * situation.map_bytes,
                receptive_field=field,
            )
        )
    return tuple(rows)


def _trained(
    graph: Graph, shapes: tuple[Shape, ...], trainable: bool | str | Collection[str] | None
) -> frozenset[int]:
    """The owners that training moves."""
    owners = [
        call
        for call in graph.owners()
        if any(weight.trainable for weight in call.layer.weights(*graph.reads(call, shapes)))
    ]
    if trainable is None:
        return frozenset(call.owner for call in owners if call.layer.trainable)
    if isinstance(trainable, bool):
        return frozenset(call.owner for call in owners) if trainable else frozenset()
    if trainable == "head":
        return frozenset(call.owner for call in owners[-1:])
    if isinstance(trainable, str):
        raise ArgumentError(
            '`trainable` must be None, True, False, "head" or a collection of layer names. '
            f"Received: trainable={trainable!r}."
        )
    names = {call.name for call in owners}
    unknown = sorted(set(trainable) - names)
    if unknown:
        raise ArgumentError(
            f"`trainable` names layers that have no weights here: {', '.join(unknown)}. "
            f"Those that have: {', '.join(sorted(names)[:20])}."
        )
    return frozenset(call.owner for call in owners if call.name in set(trainable))


def _tuples(shape: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tuple(one) if isinstance(one, list | tuple) else one for one in shape)


def _input_shapes(graph: Graph, given: Any, batch_size: int) -> tuple[Shape, ...]:
    """The inputs' shapes with the batch axis, from the model's own and those given."""
    shapes: Sequence[Sequence[Any]] = graph.input_shapes
    if given is not None:
        several = bool(given) and isinstance(given[0], tuple)
        shapes = given if several else (given,)
    for shape in shapes:
        if not shape or any(
            isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in shape
        ):
            raise ArgumentError(
                "`input_shape` must give the size of each axis but the batch's, as (200, 300, 3). "
                f"Received: input_shape={shape if given is not None else None}."
            )
    return tuple((batch_size, *shape) for shape in shapes)


_ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def _precision(dtype: str | None, mixed_precision: str | None) -> tuple[int, int]:
    """Bytes of an element of a map and of a weight."""
    one_of("dtype", dtype, (None, *_ELEMENT_BYTES))
    one_of("mixed_precision", mixed_precision, (None, "mixed_float16", "mixed_bfloat16"))
    if mixed_precision is not None:
        if dtype not in {None, "float32"}:
            raise ArgumentError(
                "Give `dtype` or `mixed_precision`, not both. Received: "
                f"dtype={dtype!r}, mixed_precision={mixed_precision!r}."
            )
        return 2, 4
    size = _ELEMENT_BYTES[dtype or "float32"]
    return size, size
