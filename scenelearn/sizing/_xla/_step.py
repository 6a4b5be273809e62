"""Keras's own steps, written down as XLA gets them, and the memory that XLA plans for each."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scenelearn.sizing._graph import Graph
from scenelearn.sizing._layers import Shape, Softmax
from scenelearn.sizing._memory import Memory, Moment, Situation, TrainingBytes
from scenelearn.sizing._textbook import textbook_memory

from ._buffers import Layout, copied, lay_out, scheduled
from ._fusion import kernels
from ._lower import lower
from ._site import Site
from ._trace import Trace

# What a process takes beside its own start was at most so much, of 27 steps of nine networks on a
# CPU: `python -m tests.bench.resident`, docs/results/resident.json.
_RESIDENT_BYTES, _RESIDENT_FACTOR = 100_000_000, 2.6

_POINTER_BYTES = 8  # a step with several results returns a table of where they are


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory of one compiled step, in the parts that XLA reports.

    Attributes:
        argument_bytes: What is handed to it: variables, batch, targets.
        output_bytes: What it hands back.
        temporary_bytes: The block for everything between.
        alias_bytes: Outputs that lie in the memory of arguments given away.
        layout: The block, array by array.
        trace: The step's operations.
    """

    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    alias_bytes: int
    layout: Layout
    trace: Trace

    @property
    def total_bytes(self) -> int:
        """Arguments, outputs and temporaries, what they share counted once."""
        return self.argument_bytes + self.output_bytes + self.temporary_bytes - self.alias_bytes

    @property
    def resident_bytes(self) -> int:
        """The most that a process takes beside its own start, scratch of the kernels included."""
        inside = max((kernel.n_bytes_inside for kernel in self.layout.order), default=0)
        return _RESIDENT_BYTES + int(_RESIDENT_FACTOR * (self.total_bytes + inside))


def xla_memory(graph: Graph, shapes: tuple[Shape, ...], situation: Situation) -> Memory:
    """Memory as XLA:CPU plans it for Keras's predict and train steps.

    Args:
        graph: The network.
        shapes: The shape of each of its values, batch axes included.
        situation: What is trained, with which optimizer.

    Returns:
        The bytes of a prediction and of a training step. `prediction_bytes_all_kept` is the
        textbook's: XLA keeps nothing that it does not need.
    """
    paper = textbook_memory(graph, shapes, situation)
    with _no_collection():
        predict = predict_plan(graph, shapes)
        predict_moments = _moments(graph, predict)
        train = train_plan(graph, shapes, situation)
        train_moments = _moments(graph, train)
    return Memory(
        prediction_bytes=predict.total_bytes,
        prediction_bytes_all_kept=paper.prediction_bytes_all_kept,
        prediction_peak_at=_at(predict_moments),
        prediction_moments=predict_moments,
        training=_parts(train, paper.training),
        training_peak_at=_at(train_moments),
        training_moments=train_moments,
        prediction_resident_bytes=predict.resident_bytes,
        training_resident_bytes=train.resident_bytes,
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let Python's cycle collector rest: a plan makes many small objects and no cycles.

    A collection walks over all that Keras and JAX have loaded; with it the largest networks take a
    third longer.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def predict_plan(graph: Graph, shapes: tuple[Shape, ...]) -> Plan:
    """The plan of `model.predict_step`: no dropout, moving averages handed through."""
    trace = Trace()
    variables, _, others = _variables(trace, graph, shapes, frozenset())
    values = {value: trace.parameter(shapes[value]) for value in graph.inputs}
    _forward(trace, graph, shapes, values, variables, training=False)
    results = [values[value] for value in graph.outputs]
    n = trace.program.n_bytes
    table = _POINTER_BYTES * (len(others) + len(results)) if others or len(results) > 1 else 0
    handed_back = sum(n[index] for index in (*results, *others)) + table
    return _planned(trace, results, {}, handed_back, 0)


def train_plan(graph: Graph, shapes: tuple[Shape, ...], situation: Situation) -> Plan:
    """The plan of `model.train_step`: loss, gradients, update, everything donated."""
    trace = Trace()
    variables, trained, others = _variables(trace, graph, shapes, situation.trained)
    slots = [trace.parameter(shape) for shape in situation.slots.of_weights]
    # the optimizer's scalars, the loss tracker's total and count
    scalars = [trace.parameter(()) for _ in range(situation.slots.n_scalars + 2)]
    values = {value: trace.parameter(shapes[value]) for value in graph.inputs}
    targets = [trace.parameter(shapes[value]) for value in graph.outputs]
    updates = _forward(trace, graph, shapes, values, variables, training=True)
    trace.call = len(graph.calls)
    soft = _ends_in_softmax(graph)
    loss = None
    for value, target in zip(graph.outputs, targets, strict=True):
        one = _loss(trace, values[value], target, crossentropy=soft)
        loss = one if loss is None else trace.add(loss, one)
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
    handed_back = alias + n[loss] + _POINTER_BYTES * (len(donated) + 1)
    moved = {argument: result for argument, result in donated.items() if result != argument}
    return _planned(trace, results, moved, handed_back, alias)


def _planned(
    trace: Trace, results: list[int], donated: dict[int, int], output: int, alias: int
) -> Plan:
    program = trace.program
    found = copied(program, kernels(program, results), donated)
    arguments = [index for index, kind in enumerate(program.kind) if kind == "parameter"]
    order = scheduled(program, found, arguments)
    layout = lay_out(program, order, arguments=arguments, outputs=results, donated=donated)
    given = sum(program.n_bytes[index] for index in arguments)
    return Plan(given, output, layout.temporary_bytes, alias, layout, trace)


def _variables(
    trace: Trace, graph: Graph, shapes: tuple[Shape, ...], trained: frozenset[int]
) -> tuple[dict[int, list[int]], list[int], list[int]]:
    """Each owner's variables; those that are trained; those that no gradient ever moves."""
    found: dict[int, list[int]] = {}
    moved, others = [], []
    for call in graph.owners():
        own = []
        for weight in call.layer.weights(*graph.reads(call, shapes)):
            on = call.owner in trained and weight.trainable
            index = trace.parameter(weight.shape, trainable=on)
            own.append(index)
            if on:
                moved.append(index)
            elif not (weight.trainable and call.layer.trainable) or trained:
                others.append(index)
        found[call.owner] = own
    return found, moved, others


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
        made = lower(
            Site(
                trace=trace,
                layer=call.layer,
                weights=variables[call.owner],
                inputs=[values[value] for value in call.inputs],
                shapes=[shapes[value] for value in call.outputs],
                training=training,
                updates=updates,
                name=call.name,
            )
        )
        values.update(zip(call.outputs, made, strict=True))
    return updates


def _ends_in_softmax(graph: Graph) -> bool:
    layer = graph.calls[-1].layer
    return isinstance(layer, Softmax) or getattr(layer, "activation", None) == "softmax"


def _loss(trace: Trace, output: int, target: int, *, crossentropy: bool) -> int:
    """Categorical crossentropy of probabilities, else the mean squared error; one number."""
    shape = trace.shape(output)
    last = len(shape) - 1
    rest = tuple(range(last))
    if crossentropy:
        total = trace.sum(output, (last,))
        share = trace.divide(output, trace.broadcast(total, shape, rest))
        share = trace.gate(share, 1e-7, 1 - 1e-7)
        log = trace.elementwise("log", share)
        log = trace.record(
            log, (share,), lambda g: ((share, trace.elementwise("divide", g, share)),)
        )
        each = trace.negate(trace.sum(trace.multiply(target, log), (last,)))
    else:
        distance = trace.subtract(output, target)
        each = trace.sum(trace.multiply(distance, distance), (last,))
    small = trace.shape(each)
    return trace.scale(trace.sum(each, tuple(range(len(small)))), 1.0) if small else each


def _updates(
    trace: Trace, trained: list[int], slots: list[int], gradients: dict[int, int], rate: int
) -> list[tuple[int, int]]:
    """The new value of each trained weight and of what the optimizer keeps for it."""
    moved = []
    kept: dict[int, list[int]] = {weight: [] for weight in trained}
    unused = list(slots)
    for weight in trained:  # an optimizer makes its variables weight by weight, or kind by kind
        n = len(slots) // max(1, len(trained))
        for _ in range(n):
            match = next((one for one in unused if trace.shape(one) == trace.shape(weight)), None)
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
    """The step of Adam: the mean of the gradient over the root of the mean of its square."""
    shape = trace.shape(gradient)
    means = []
    square = trace.elementwise("multiply", gradient, gradient)
    for slot, value, share in zip(
        own, (gradient, square, square), (0.1, 0.001, 0.002), strict=False
    ):
        distance = trace.elementwise("subtract", value, slot)
        mean = trace.elementwise(
            "add", slot, trace.elementwise("multiply", distance, trace.full(share, shape))
        )
        moved.append((slot, mean))
        means.append(mean)
    root = trace.elementwise("add", trace.elementwise("sqrt", means[1]), trace.full(1e-7, shape))
    return trace.elementwise("divide", trace.elementwise("multiply", means[0], step), root)


# What the plan says of each layer


def _moments(graph: Graph, plan: Plan) -> tuple[Moment, ...]:
    """The memory in use while each layer runs: the most of its kernels' steps."""
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
        Moment(graph.calls[place].name, phase, fixed + highest[place, phase])
        for place, phase in ordered
    )


def _at(moments: tuple[Moment, ...]) -> str:
    return max(moments, key=lambda moment: moment.n_bytes).name if moments else ""


def _parts(plan: Plan, paper: TrainingBytes) -> TrainingBytes:
    """The plan's total, split as the textbook splits its own."""
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
    inputs = plan.argument_bytes - paper.parameters - paper.optimizer
    rest = plan.total_bytes - paper.parameters - paper.optimizer - inputs
    return TrainingBytes(
        parameters=paper.parameters,
        gradients=gradients,
        optimizer=paper.optimizer,
        inputs=inputs,
        activations=activations,
        temporaries=rest - activations - gradients,
    )
