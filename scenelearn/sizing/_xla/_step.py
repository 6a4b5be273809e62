"""Keras' predict and train steps as XLA programs, and the memory that XLA plans for them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scenelearn.sizing._graph import Graph
from scenelearn.sizing._layers import Shape, Softmax
from scenelearn.sizing._memory import MemoryEstimate, MemoryPoint, StepSettings, TrainingMemory
from scenelearn.sizing._textbook import textbook_memory
from scenelearn.sizing._xla._buffers import Layout, assign_buffers, insert_copies, schedule
from scenelearn.sizing._xla._context import LoweringContext
from scenelearn.sizing._xla._fusion import fuse
from scenelearn.sizing._xla._lower import lower
from scenelearn.sizing._xla._trace import Trace
from scenelearn.sizing._xla._versions import version_note

# Upper bound on the growth of a process's resident memory, over 27 steps of nine networks on a CPU:
# `python -m tests.bench.resident_memory`, docs/results/resident_memory.json.
_RESIDENT_BYTES, _RESIDENT_FACTOR = 100_000_000, 2.6

_POINTER_BYTES = 8  # a step with several results returns a table of pointers


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of one compiled step, in the parts that XLA reports.

    Attributes:
        argument_bytes: the arguments: variables, batch and targets.
        output_bytes: the outputs.
        temporary_bytes: the block for everything in between.
        alias_bytes: outputs that share the memory of donated arguments.
        layout: the assignment of buffers.
        trace: the step's operations.
    """

    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    alias_bytes: int
    layout: Layout
    trace: Trace

    @property
    def total_bytes(self) -> int:
        """Arguments, outputs and temporaries, with shared memory counted once."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes - self.alias_bytes

    @property
    def resident_bytes(self) -> int:
        """Upper bound on the growth of a process's memory, including scratch memory of kernels."""
        inside = max((kernel.n_bytes_inside for kernel in self.layout.order), default=0)
        return _RESIDENT_BYTES + int(_RESIDENT_FACTOR * (self.total_bytes + inside))


def xla_memory(graph: Graph, shapes: tuple[Shape, ...], settings: StepSettings) -> MemoryEstimate:
    """Estimate the memory that XLA:CPU plans for Keras' predict and train steps.

    Args:
        graph: the network.
        shapes: the shape of each of its values, batch axes included.
        settings: what is trained, and the optimizer's slots.

    Returns:
        The bytes of a prediction and of a training step. `prediction_bytes_without_reuse` is that
        of the "textbook" method, because XLA keeps nothing that it does not need.
    """
    textbook = textbook_memory(graph, shapes, settings)
    with _no_collection():
        predict = plan_predict_step(graph, shapes)
        predict_timeline = _timeline(graph, predict)
        train = plan_train_step(graph, shapes, settings)
        train_timeline = _timeline(graph, train)
    return MemoryEstimate(
        prediction_bytes=predict.total_bytes,
        prediction_bytes_without_reuse=textbook.prediction_bytes_without_reuse,
        prediction_peak_layer=_peak_layer(predict_timeline),
        prediction_timeline=predict_timeline,
        training=_split_into_parts(train, textbook.training),
        training_peak_layer=_peak_layer(train_timeline),
        training_timeline=train_timeline,
        prediction_resident_bytes=predict.resident_bytes,
        training_resident_bytes=train.resident_bytes,
        note=version_note(),
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause Python's garbage collector: planning creates many small objects but no cycles.

    A collection visits all objects of Keras and JAX; with it, the largest networks take a third
    longer.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def plan_predict_step(graph: Graph, shapes: tuple[Shape, ...]) -> Plan:
    """Plan `model.predict_step`: no dropout, moving averages passed through."""
    trace = Trace()
    variables, _, others = _variables(trace, graph, shapes, frozenset())
    values = {value: trace.parameter(shapes[value]) for value in graph.inputs}
    _forward(trace, graph, shapes, values, variables, training=False)
    results = [values[value] for value in graph.outputs]
    n = trace.program.n_bytes
    table = _POINTER_BYTES * (len(others) + len(results)) if others or len(results) > 1 else 0
    returned_bytes = sum(n[index] for index in (*results, *others)) + table
    return _compile(trace, results, {}, returned_bytes, 0)


def plan_train_step(graph: Graph, shapes: tuple[Shape, ...], settings: StepSettings) -> Plan:
    """Plan `model.train_step`: loss, gradients and updates, with all variables donated."""
    trace = Trace()
    variables, trained, others = _variables(trace, graph, shapes, settings.trained_layers)
    slots = [trace.parameter(shape) for shape in settings.slots.shapes]
    # the optimizer's scalars, and the loss tracker's total and count
    scalars = [trace.parameter(()) for _ in range(settings.slots.n_scalars + 2)]
    values = {value: trace.parameter(shapes[value]) for value in graph.inputs}
    targets = [trace.parameter(shapes[value]) for value in graph.outputs]
    updates = _forward(trace, graph, shapes, values, variables, training=True)
    trace.call = len(graph.calls)
    soft = _ends_in_softmax(graph)
    loss = None
    for value, target in zip(graph.outputs, targets, strict=True):
        part = _loss(trace, values[value], target, crossentropy=soft)
        loss = part if loss is None else trace.add(loss, part)
    assert loss is not None
    gradients = trace.gradients(loss, trace.full(1.0, ()))
    trace.call = ~len(graph.calls)
    donated = dict(_updates(trace, trained, slots, gradients, scalars[0]))
    donated |= {variable: updates.get(variable, variable) for variable in others}
    donated |= {scalar: scalar for scalar in scalars}
    n = trace.program.n_bytes
    alias = sum(n[index] for index in donated)
    order = [*trained, *others, *slots]
    results = [loss, *(donated[index] for index in order if index in donated)]
    returned_bytes = alias + n[loss] + _POINTER_BYTES * (len(donated) + 1)
    moved = {argument: result for argument, result in donated.items() if result != argument}
    return _compile(trace, results, moved, returned_bytes, alias)


def _compile(
    trace: Trace, results: list[int], donated: dict[int, int], output: int, alias: int
) -> Plan:
    program = trace.program
    fused = insert_copies(program, fuse(program, results), donated)
    arguments = [index for index, kind in enumerate(program.kind) if kind == "parameter"]
    order = schedule(program, fused, arguments)
    layout = assign_buffers(program, order, arguments=arguments, outputs=results, donated=donated)
    argument_bytes = sum(program.n_bytes[index] for index in arguments)
    return Plan(argument_bytes, output, layout.temporary_bytes, alias, layout, trace)


def _variables(
    trace: Trace, graph: Graph, shapes: tuple[Shape, ...], trained: frozenset[int]
) -> tuple[dict[int, list[int]], list[int], list[int]]:
    """The variables of each layer, the trained ones, and those that gradients never update."""
    variables: dict[int, list[int]] = {}
    moved, others = [], []
    for call in graph.unique_layers():
        own = []
        for weight in graph.weights(call, shapes):
            on = call.layer_id in trained and weight.trainable
            index = trace.parameter(weight.shape, trainable=on)
            own.append(index)
            if on:
                moved.append(index)
            elif not (weight.trainable and call.layer.trainable) or trained:
                others.append(index)
        variables[call.layer_id] = own
    return variables, moved, others


def _forward(
    trace: Trace,
    graph: Graph,
    shapes: tuple[Shape, ...],
    values: dict[int, int],
    variables: dict[int, list[int]],
    *,
    training: bool,
) -> dict[int, int]:
    updates: dict[int, int] = {}
    for place, call in enumerate(graph.calls):
        trace.call = place
        outputs = lower(
            LoweringContext(
                trace=trace,
                layer=call.layer,
                weights=variables[call.layer_id],
                inputs=[values[value] for value in call.inputs],
                shapes=[shapes[value] for value in call.outputs],
                training=training,
                updates=updates,
                name=call.name,
            )
        )
        values.update(zip(call.outputs, outputs, strict=True))
    return updates


def _ends_in_softmax(graph: Graph) -> bool:
    layer = graph.calls[-1].layer
    return isinstance(layer, Softmax) or getattr(layer, "activation", None) == "softmax"


def _loss(trace: Trace, output: int, target: int, *, crossentropy: bool) -> int:
    """The categorical crossentropy of probabilities, otherwise the mean squared error; a scalar."""
    shape = trace.shape(output)
    last = len(shape) - 1
    rest = tuple(range(last))
    if crossentropy:
        total = trace.sum(output, (last,))
        p = trace.divide(output, trace.broadcast(total, shape, rest))
        p = trace.gate(p, 1e-7, 1 - 1e-7)
        log = trace.elementwise("log", p)
        log = trace.record(log, (p,), lambda g: ((p, trace.elementwise("divide", g, p)),))
        each = trace.negate(trace.sum(trace.multiply(target, log), (last,)))
    else:
        distance = trace.subtract(output, target)
        each = trace.sum(trace.multiply(distance, distance), (last,))
    small = trace.shape(each)
    return trace.scale(trace.sum(each, tuple(range(len(small)))), 1.0) if small else each


def _updates(
    trace: Trace, trained: list[int], slots: list[int], gradients: dict[int, int], rate: int
) -> list[tuple[int, int]]:
    """The new values of the trained weights and of their slots."""
    moved = []
    kept: dict[int, list[int]] = {weight: [] for weight in trained}
    unused = list(slots)
    for weight in trained:  # optimizers create slots weight by weight, or kind by kind
        n = len(slots) // max(1, len(trained))
        for _ in range(n):
            match = next(
                (slot for slot in unused if trace.shape(slot) == trace.shape(weight)), None
            )
            if match is not None:
                unused.remove(match)
                kept[weight].append(match)
    for weight in trained:
        gradient = gradients.get(weight)
        if gradient is None:
            continue
        shape = trace.shape(weight)
        step = trace.emit("broadcast", shape, (rate,), ())
        own = kept[weight]
        if not own:
            change = trace.elementwise("multiply", gradient, step)
        elif len(own) == 1:
            old = trace.elementwise("multiply", own[0], trace.full(0.9, shape))
            change = trace.elementwise(
                "subtract", old, trace.elementwise("multiply", gradient, step)
            )
            moved.append((own[0], change))
        else:
            change = _adaptive(trace, own, gradient, step, moved)
        moved.append((weight, trace.elementwise("add", weight, change)))
    return moved


def _adaptive(
    trace: Trace, own: list[int], gradient: int, step: int, moved: list[tuple[int, int]]
) -> int:
    """The step of Adam: the mean gradient over the root of its mean square."""
    shape = trace.shape(gradient)
    means = []
    square = trace.elementwise("multiply", gradient, gradient)
    for slot, value, rate in zip(
        own, (gradient, square, square), (0.1, 0.001, 0.002), strict=False
    ):
        distance = trace.elementwise("subtract", value, slot)
        mean = trace.elementwise(
            "add", slot, trace.elementwise("multiply", distance, trace.full(rate, shape))
        )
        moved.append((slot, mean))
        means.append(mean)
    root = trace.elementwise("add", trace.elementwise("sqrt", means[1]), trace.full(1e-7, shape))
    return trace.elementwise("divide", trace.elementwise("multiply", means[0], step), root)


def _timeline(graph: Graph, plan: Plan) -> tuple[MemoryPoint, ...]:
    """The memory in use while each layer runs: the highest of its kernels' steps."""
    layout, program = plan.layout, plan.trace.program
    fixed = plan.argument_bytes + plan.output_bytes - plan.alias_bytes
    changes = [0] * (len(layout.order) + 1)
    for buffer in layout.buffers:
        changes[buffer.start] += buffer.n_bytes
        changes[min(buffer.end + 1, len(layout.order))] -= buffer.n_bytes
    highest: dict[tuple[int, str], int] = {}
    live = 0
    for step, kernel in enumerate(layout.order):
        live += changes[step]
        call = program.call[kernel.root]
        backward = call < 0
        place = ~call if backward else call
        phase = "backward" if backward else "forward"
        if place >= len(graph.calls):
            phase, place = ("update" if backward else "forward"), len(graph.calls) - 1
        key = (place, phase)
        highest[key] = max(highest.get(key, 0), live)
    rank = {"forward": 0, "backward": 1, "update": 2}
    ordered = sorted(
        highest, key=lambda key: (rank[key[1]], key[0] if key[1] == "forward" else -key[0])
    )
    return tuple(
        MemoryPoint(graph.calls[place].name, phase, fixed + highest[place, phase])
        for place, phase in ordered
    )


def _peak_layer(timeline: tuple[MemoryPoint, ...]) -> str:
    return max(timeline, key=lambda point: point.n_bytes).layer if timeline else ""


def _split_into_parts(plan: Plan, textbook: TrainingMemory) -> TrainingMemory:
    """Split the plan's total into the parts of a training step."""
    layout, program = plan.layout, plan.trace.program
    step = layout.peak_step
    activations = gradients = 0
    forward_ends = max(
        (at for at, kernel in enumerate(layout.order) if program.call[kernel.root] >= 0), default=0
    )
    for buffer in layout.buffers:
        if buffer.start <= step <= buffer.end:
            value = buffer.values[-1]
            attribute = program.attribute[value]
            if attribute == "tn" or (isinstance(attribute, tuple) and attribute[:1] == ("kernel",)):
                gradients += buffer.n_bytes
            elif buffer.start <= forward_ends and program.attribute[value] != "donated":
                activations += buffer.n_bytes
    inputs = plan.argument_bytes - textbook.parameters - textbook.optimizer_slots
    rest = plan.total_bytes - textbook.parameters - textbook.optimizer_slots - inputs
    return TrainingMemory(
        parameters=textbook.parameters,
        gradients=gradients,
        optimizer_slots=textbook.optimizer_slots,
        inputs=inputs,
        activations=activations,
        temporaries=rest - activations - gradients,
    )
