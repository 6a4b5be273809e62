"""The "textbook" method: memory as calculated by hand.

Activations are the outputs of layers, one array per call. An activation function that is an
argument of a layer has no array of its own. Layers that only reshape (Flatten, Reshape, Identity)
have none, and Dropout has none in prediction. A layer that was traced also has arrays inside: those
alive at the same time in prediction, and those that its gradients read in training.

In prediction, activations live from the layer that computes them to the last layer that reads them.
So two consecutive ones exist at the same time, and more where a branch waits to be merged. The
batch itself is not counted. In training, all activations of the forward pass are kept for the
backward pass, together with the batch, the weights, their gradients and the optimizer's slots.
Where the first layers are frozen, only the input of the first trained layer and what follows is
kept (the textbook does not cover this case).

References:
    Géron, Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow, 3rd edition,
    chapter 14, "Memory requirements".
"""

from __future__ import annotations

import math

from scenelearn.sizing._graph import Call, Graph
from scenelearn.sizing._layers import Dropout, Flatten, Identity, Reshape, Shape
from scenelearn.sizing._memory import MemoryEstimate, MemoryPoint, StepSettings, TrainingMemory

_VIEWS = (Flatten, Identity, Reshape)


def textbook_memory(
    graph: Graph, shapes: tuple[Shape, ...], settings: StepSettings
) -> MemoryEstimate:
    """Calculate the memory of prediction and training.

    Args:
        graph: the network.
        shapes: the shape of each of its values, batch axes included.
        settings: what is trained, the optimizer's slots, and the precision.

    Returns:
        The bytes of a prediction and of a training step.
    """
    weights = count_parameters(graph, shapes) * settings.weight_itemsize
    gradients = count_trainable_parameters(graph, shapes, settings) * settings.weight_itemsize
    slots = settings.weight_itemsize * sum(map(math.prod, settings.slots.shapes))
    batch = sum(math.prod(shapes[value]) for value in graph.inputs) * settings.activation_itemsize
    size = {
        value: math.prod(shapes[value]) * settings.activation_itemsize
        for call in graph.calls
        for value in call.outputs
    }
    peak, peak_layer, prediction_timeline = _prediction(graph, shapes, size, weights, settings)
    inside = [
        call.layer.n_kept(*graph.call_input_shapes(call, shapes)) * settings.activation_itemsize
        for call in graph.calls
    ]
    all_kept = sum(inside) + sum(
        size[value] for call in graph.calls for value in _activations(call, training=False)
    )
    first = next(
        (at for at, call in enumerate(graph.calls) if call.layer_id in settings.trained_layers),
        len(graph.calls),
    )
    kept = {value for call in graph.calls[first:] for value in _activations(call, training=True)}
    if first < len(graph.calls):
        stored = {value for call in graph.calls for value in _activations(call, training=True)}
        kept |= {value for value in graph.calls[first].inputs if value in stored}
    training = TrainingMemory(
        parameters=weights,
        gradients=gradients,
        optimizer_slots=slots,
        inputs=batch,
        activations=sum(size[value] for value in kept) + sum(inside[first:]),
        temporaries=0,
    )
    timeline, live = [], weights + slots + batch
    for at, call in enumerate(graph.calls):
        live += sum(size[value] for value in call.outputs if value in kept)
        live += inside[at] if at >= first else 0
        timeline.append(MemoryPoint(call.name, "forward", live))
    live += gradients
    for at in range(len(graph.calls) - 1, first - 1, -1):
        call = graph.calls[at]
        timeline.append(MemoryPoint(call.name, "backward", live))
        live -= inside[at] + sum(size[value] for value in call.outputs if value in kept)
    return MemoryEstimate(
        prediction_bytes=peak,
        prediction_bytes_without_reuse=all_kept + weights,
        prediction_peak_layer=peak_layer,
        prediction_timeline=prediction_timeline,
        training=training,
        training_peak_layer=graph.calls[-1].name,
        training_timeline=tuple(timeline),
    )


def count_parameters(graph: Graph, shapes: tuple[Shape, ...]) -> int:
    """Count the network's parameters."""
    return sum(
        weight.n_elements
        for call in graph.unique_layers()
        for weight in graph.weights(call, shapes)
    )


def count_trainable_parameters(
    graph: Graph, shapes: tuple[Shape, ...], settings: StepSettings
) -> int:
    """Count the parameters that are trained."""
    return sum(
        weight.n_elements
        for call in graph.unique_layers()
        if call.layer_id in settings.trained_layers
        for weight in graph.weights(call, shapes)
        if weight.trainable
    )


def _activations(call: Call, *, training: bool) -> tuple[int, ...]:
    """The outputs of a call that are arrays of their own."""
    if isinstance(call.layer, _VIEWS) or (isinstance(call.layer, Dropout) and not training):
        return ()
    return call.outputs


def _prediction(
    graph: Graph,
    shapes: tuple[Shape, ...],
    size: dict[int, int],
    weights: int,
    settings: StepSettings,
) -> tuple[int, str, tuple[MemoryPoint, ...]]:
    """The peak of a prediction with activations released after their last use, and its layer."""
    source: dict[int, int] = {}  # the output of a view -> the array that it shares
    for call in graph.calls:
        if not _activations(call, training=False):
            for value in call.outputs:
                source[value] = source.get(call.inputs[0], call.inputs[0])
    last: dict[int, int] = {}
    for at, call in enumerate(graph.calls):
        for value in call.inputs:
            last[source.get(value, value)] = at
    for value in graph.outputs:
        last[source.get(value, value)] = len(graph.calls)
    live = peak = 0
    peak_layer = graph.calls[0].name
    timeline = []
    for at, call in enumerate(graph.calls):
        live += sum(size[value] for value in _activations(call, training=False))
        working = call.layer.n_working(*graph.call_input_shapes(call, shapes))
        during = live + working * settings.activation_itemsize
        timeline.append(MemoryPoint(call.name, "forward", weights + during))
        if during > peak:
            peak, peak_layer = during, call.name
        ended = {source.get(value, value) for value in (*call.inputs, *call.outputs)}
        live -= sum(size[value] for value in ended if value in size and last.get(value, at) == at)
    return peak + weights, peak_layer, tuple(timeline)
