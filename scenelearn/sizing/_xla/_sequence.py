"""Embedding, attention and recurrent layers with their gradients, as XLA:CPU lowers them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from scenelearn.sizing._layers import Shape
from scenelearn.sizing._xla._activations import softmax
from scenelearn.sizing._xla._context import LoweringContext
from scenelearn.sizing._xla._trace import Trace

SAVED_PER_STEP = {"SimpleRNN": 4, "GRU": 9, "LSTM": 13}
"""The number of (time, batch, units) arrays that a training step keeps per cell: its output and
what the gradients of its gates and activations read. Each is a buffer for all time steps that is
created before the loop and written in place, one slice at a time."""


def embed(trace: Trace, tokens: int, table: int, out: Shape) -> int:
    """Look up rows of a table; the gradient is scattered into a table of zeros."""
    rows = math.prod(out[:-1])
    wide = out[-1]
    gathered = trace.emit("gather", (rows, 1, wide), (table, tokens))
    flat = trace.view(gathered, (rows, wide))
    missing = trace.emit("convert", (rows, wide), (tokens,), "is inside", itemsize=1)
    taken = trace.elementwise("select", missing, flat, trace.full(math.nan, (rows, wide)))

    def back(g: int) -> Iterable[tuple[int, int]]:
        column = trace.emit("copy", (rows, 1, wide), (g,), "rows")
        zeros = trace.full(0.0, trace.shape(table))
        yield table, trace.emit("scatter", trace.shape(table), (zeros, tokens, column))

    return trace.view(trace.record(taken, (table,), back), out)


def _project(trace: Trace, x: int, kernel: int) -> int:
    """Rows times a kernel of more than two axes, as einsum writes it: (rows, units)."""
    inputs = trace.shape(x)[-1]
    flat_kernel = trace.view(kernel, (inputs, math.prod(trace.shape(kernel)) // inputs))
    rows = math.prod(trace.shape(x)[:-1])
    flat = trace.view(x, (rows, inputs))
    units = trace.shape(flat_kernel)[1]
    out = trace.emit("dot", (rows, units), (flat, flat_kernel), "nn")

    def back(g: int) -> Iterable[tuple[int, int]]:
        if flat in trace.differentiable:
            turned = trace.emit("transpose", (units, inputs), (flat_kernel,), "product")
            yield flat, trace.emit("dot", (rows, inputs), (g, turned), "nn")
        if flat_kernel in trace.differentiable:
            turned = trace.emit("transpose", (units, rows), (g,), "product")
            yield flat_kernel, trace.emit("dot", (inputs, units), (flat, turned), "tn")

    return trace.record(out, (flat, flat_kernel), back)


def attend(
    trace: Trace,
    query: int,
    value: int,
    key: int,
    weights: Sequence[int],
    *,
    heads: int,
    depth: int,
    value_depth: int,
    use_bias: bool,
) -> int:
    """Multi-head attention: three projections, softmax(query keys^T) values, one projection.

    The batched products want their operands with the axes in one order, so each projection is
    copied into it, forward and back; the probabilities are kept in both orders.
    """
    batch, length = trace.shape(query)[0], trace.shape(query)[1]
    source = trace.shape(value)[1]
    weights = list(weights)

    def projected(x: int, size: int, rows: int, order: tuple[int, ...]) -> tuple[int, int]:
        flat = _project(trace, x, weights.pop(0))
        heads_last = trace.view(flat, (batch, rows, heads, size))
        if use_bias:
            bias = weights.pop(0)
            heads_last = trace.add(
                heads_last, trace.broadcast(bias, (batch, rows, heads, size), (2, 3))
            )
        return heads_last, trace.transpose(heads_last, order)

    by_depth, by_row = (0, 2, 3, 1), (0, 2, 1, 3)
    _, q = projected(query, depth, length, by_row)
    keys, k = projected(key, depth, source, by_depth)
    _, v = projected(value, value_depth, source, by_depth)
    scores_shape = (batch, heads, length, source)
    scores = trace.emit("dot", scores_shape, (q, k), "nn")

    def back_scores(g: int) -> Iterable[tuple[int, int]]:
        turned = trace.emit("transpose", (batch, heads, source, length), (g,), "scores")
        to_keys = trace.emit("dot", (batch, heads, source, depth), (turned, q), "nn")
        by_rows = trace.emit("transpose", (batch, heads, source, depth), (keys,), by_row)
        if q in trace.differentiable:
            yield q, trace.emit("dot", (batch, heads, length, depth), (g, by_rows), "nn")
        if k in trace.differentiable:
            yield k, trace.emit("view", trace.shape(k), (to_keys,), "turned")

    scores = trace.record(scores, (q, k), back_scores)
    shares = softmax(trace, trace.scale(scores, 1 / math.sqrt(depth)))
    turned_shares = trace.emit("transpose", (batch, heads, source, length), (shares,), "shares")
    mixed = trace.emit("dot", (batch, heads, value_depth, length), (v, turned_shares), "nn")

    def back_mixed(g: int) -> Iterable[tuple[int, int]]:
        if v in trace.differentiable:
            yield v, trace.emit("dot", trace.shape(v), (g, shares), "nn")
        if shares in trace.differentiable:
            turned = trace.emit("transpose", (batch, heads, length, value_depth), (g,), "mixed")
            yield shares, trace.emit("dot", scores_shape, (turned, v), "nn")

    mixed = trace.record(mixed, (v, shares), back_mixed)
    joined = trace.transpose(mixed, (0, 3, 1, 2))
    flat = trace.view(joined, (batch, length, heads * value_depth))
    kernel = weights.pop(0)
    units = trace.shape(kernel)[-1]
    flat_kernel = trace.view(kernel, (heads * value_depth, units))
    out = trace.view(_project(trace, flat, flat_kernel), (batch, length, units))
    if use_bias:
        out = trace.add(out, trace.broadcast(weights.pop(0), (batch, length, units), (2,)))
    return out


def recur(
    trace: Trace,
    x: int,
    weights: Sequence[int],
    *,
    cell: str,
    units: int,
    sequences: bool,
    reverse: bool,
) -> tuple[int, int]:
    """Emit a loop over time and return the outputs of all steps and of the last one.

    Keras passes the input to the loop with the time axis first. For a GRU, the input of all steps
    is multiplied by the kernel before the loop.
    """
    batch, time, _ = trace.shape(x)
    weights = list(weights)
    if cell == "GRU":
        flat = trace.dot(x, weights.pop(0))
        x = add_row(trace, flat, weights.pop()) if len(weights) > 1 else flat
    by_time = trace.transpose(x, (1, 0, 2))
    if trace.program.kind[x] in {"parameter", "while"}:  # a stored array is read without a copy
        by_time = trace.emit("view", trace.shape(by_time), (x,), "by time")
        by_time = trace.record(by_time, (x,), lambda g: ((x, trace.transpose(g, (1, 0, 2))),))
    held = trace.emit("copy", trace.shape(by_time), (by_time,), ("loop", reverse))
    training = any(one in trace.differentiable for one in (x, *weights))
    n_saved = SAVED_PER_STEP[cell] if training else 1
    if cell == "GRU" and not training and not sequences:
        n_saved = 0  # Keras' GRU then reads only the state, and the outputs are never written
    saved = tuple(trace.buffer((time, batch, units)) for _ in range(n_saved))
    last = trace.emit("while", (batch, units), (held, *saved, *weights), (cell, reverse))
    every = _result(trace, last, saved[0]) if saved else last
    ordered = trace.transpose(every, (1, 0, 2)) if saved else last
    inside = (x, *weights)

    def back(g: int) -> Iterable[tuple[int, int]]:
        widened = trace.emit("pad", (time, batch, units), (g,), ("time", 0.0))
        sums = [trace.buffer(trace.shape(one)) for one in weights]
        parts = [trace.buffer(trace.shape(one)) for one in weights]
        to_input = trace.buffer(trace.shape(held))
        loop = trace.emit(
            "while",
            (batch, units),
            (widened, to_input, held, *saved[1:], *weights, *sums, *parts),
            "back",
        )
        if x in trace.differentiable:
            done = _result(trace, loop, to_input)
            yield x, trace.emit("transpose", trace.shape(x), (done,), "time")
        for one, total in zip(weights, sums, strict=True):
            yield one, _result(trace, loop, total)

    trace.record(last, inside, back)
    trace.record(ordered, inside, back)
    return ordered, last


def _result(trace: Trace, loop: int, buffer: int) -> int:
    """The contents of a buffer after a loop: the same memory."""
    return trace.emit("view", trace.shape(buffer), (buffer, loop), "loop")


def add_row(trace: Trace, x: int, bias: int) -> int:
    """Add a vector to each row."""
    shape = trace.shape(x)
    if len(trace.shape(bias)) > 1:
        bias = trace.slice(bias, (0, 0), (1, shape[-1]))
        bias = trace.view(bias, (shape[-1],))
    return trace.add(x, trace.broadcast(bias, shape, (len(shape) - 1,)))


def attention(context: LoweringContext) -> list[int]:
    """Multi-head attention, without masks."""
    layer = context.layer
    query, value, *rest = context.inputs
    return [
        attend(
            context.trace,
            query,
            value,
            rest[0] if rest else value,
            context.weights,
            heads=layer.num_heads,
            depth=layer.key_dim,
            value_depth=layer.value_dim or layer.key_dim,
            use_bias=layer.use_bias,
        )
    ]


def recurrent(context: LoweringContext) -> list[int]:
    """One recurrent layer: all outputs or the last one, and the states."""
    layer, trace = context.layer, context.trace
    every, last = recur(
        trace,
        context.inputs[0],
        context.weights,
        cell=type(layer).__name__,
        units=layer.units,
        sequences=layer.return_sequences,
        reverse=layer.go_backwards,
    )
    out = every if layer.return_sequences else last
    return [out, *([last] * (len(context.shapes) - 1))]


def bidirectional(context: LoweringContext) -> list[int]:
    """Two loops, one of them in reverse, and their merged outputs."""
    trace, layer, x = context.trace, context.layer, context.inputs[0]
    shape = trace.shape(x)
    backward = layer.backward_layer or replace(layer.layer, go_backwards=True)
    weights = list(context.weights)
    made = []
    for one in (layer.layer, backward):
        n = len(one.weights(shape))
        own, weights = weights[:n], weights[n:]
        shapes = one.output_shapes(shape)
        out, *states = recurrent(replace(context, layer=one, weights=own, shapes=shapes))
        if one.go_backwards and one.return_sequences:
            out = trace.flip(out, "time")
        made.append((out, states))
    (left, left_states), (right, right_states) = made
    if layer.merge_mode == "concat":
        merged = [trace.concatenate([left, right], len(trace.shape(left)) - 1)]
    elif layer.merge_mode is None:
        merged = [left, right]
    elif layer.merge_mode == "mul":
        merged = [trace.multiply(left, right)]
    else:
        total = trace.add(left, right)
        merged = [trace.scale(total, 0.5) if layer.merge_mode == "ave" else total]
    return [*merged, *left_states, *right_states]
