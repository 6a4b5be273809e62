"""The rule that one can do on paper.

A map is what a layer puts out: one for each call, of the size of its output. An activation that is
an argument of a layer makes no map of its own. Layers that only rename axes (Flatten, Reshape,
the input) make none, and Dropout and its kin make none in prediction.

Predicting, a map is there from the layer that makes it to the last layer that reads it, so that
two neighboring maps are there at once, and more where a branch waits to be merged. The batch
itself is not counted as a map. Training, everything computed on the way forward is kept for the
way back, with the batch, the weights, their gradients and what the optimizer keeps. Where the
first layers are frozen, what lies before the first trained one need not be kept: only the map that
it reads (the textbook does not treat this).

References:
    Géron, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, 3rd edition,
    chapter 14, "Memory requirements".
"""

from __future__ import annotations

import math

from ._graph import Call, Graph
from ._layers import Dropout, Flatten, Identity, Reshape, Shape
from ._memory import Memory, Moment, Situation, TrainingBytes

_NO_MAP = (Flatten, Identity, Reshape)


def textbook_memory(graph: Graph, shapes: tuple[Shape, ...], situation: Situation) -> Memory:
    """Memory by the textbook rule.

    Args:
        graph: The network.
        shapes: The shape of each of its values, batch axes included.
        situation: What is trained, with which optimizer, in which precision.

    Returns:
        The bytes of a prediction and of a training step.
    """
    weights = n_weights(graph, shapes) * situation.weight_bytes
    gradients = n_trained(graph, shapes, situation) * situation.weight_bytes
    optimizer = 4 * (sum(math.prod(shape) for shape in situation.slots.of_weights))
    batch = sum(math.prod(shapes[value]) for value in graph.inputs) * situation.map_bytes
    size = {
        value: math.prod(shapes[value]) * situation.map_bytes
        for call in graph.calls
        for value in call.outputs
    }
    peak, peak_at, moments = _released(graph, size, weights)
    all_kept = sum(size[value] for call in graph.calls for value in _maps(call, training=False))
    first = next(
        (place for place, call in enumerate(graph.calls) if call.owner in situation.trained),
        len(graph.calls),
    )
    kept_values = {value for call in graph.calls[first:] for value in _maps(call, training=True)}
    if first < len(graph.calls):
        own = {value for call in graph.calls for value in _maps(call, training=True)}
        kept_values |= {value for value in graph.calls[first].inputs if value in own}
    activations = sum(size[value] for value in kept_values)
    fixed = weights + optimizer + batch
    training = TrainingBytes(
        parameters=weights,
        gradients=gradients,
        optimizer=optimizer,
        inputs=batch,
        activations=activations,
        temporaries=0,
    )
    steps, live = [], fixed
    for call in graph.calls:
        live += sum(size[value] for value in call.outputs if value in kept_values)
        steps.append(Moment(call.name, "forward", live))
    live += gradients
    for call in reversed(graph.calls[first:]):
        steps.append(Moment(call.name, "backward", live))
        live -= sum(size[value] for value in call.outputs if value in kept_values)
    return Memory(
        prediction_bytes=peak,
        prediction_bytes_all_kept=all_kept + weights,
        prediction_peak_at=peak_at,
        prediction_moments=moments,
        training=training,
        training_peak_at=graph.calls[-1].name,
        training_moments=tuple(steps),
    )


def n_weights(graph: Graph, shapes: tuple[Shape, ...]) -> int:
    """How many numbers the network's variables hold."""
    return sum(
        weight.n_elements
        for call in graph.owners()
        for weight in call.layer.weights(*graph.reads(call, shapes))
    )


def n_trained(graph: Graph, shapes: tuple[Shape, ...], situation: Situation) -> int:
    """How many of them are trained."""
    return sum(
        weight.n_elements
        for call in graph.owners()
        if call.owner in situation.trained
        for weight in call.layer.weights(*graph.reads(call, shapes))
        if weight.trainable
    )


def _maps(call: Call, *, training: bool) -> tuple[int, ...]:
    """The values of a call that are maps of their own."""
    if isinstance(call.layer, _NO_MAP) or (isinstance(call.layer, Dropout) and not training):
        return ()
    return call.outputs


def _released(
    graph: Graph, size: dict[int, int], weights: int
) -> tuple[int, str, tuple[Moment, ...]]:
    """The most that a prediction needs when each map goes after its last use, and where."""
    source: dict[int, int] = {}  # a renamed value -> the map that it is
    for call in graph.calls:
        if not _maps(call, training=False):
            for value in call.outputs:
                source[value] = source.get(call.inputs[0], call.inputs[0])
    last: dict[int, int] = {}
    for place, call in enumerate(graph.calls):
        for value in call.inputs:
            last[source.get(value, value)] = place
    for value in graph.outputs:
        last[source.get(value, value)] = len(graph.calls)
    live = peak = 0
    peak_at = graph.calls[0].name
    moments = []
    for place, call in enumerate(graph.calls):
        live += sum(size[value] for value in _maps(call, training=False))
        moments.append(Moment(call.name, "forward", weights + live))
        if live > peak:
            peak, peak_at = live, call.name
        gone = {source.get(value, value) for value in (*call.inputs, *call.outputs)}
        live -= sum(
            size[value] for value in gone if value in size and last.get(value, place) == place
        )
    return peak + weights, peak_at, tuple(moments)
