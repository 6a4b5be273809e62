"""Programs that JAX traced, as XLA operations: the lowering of layers without a description.

Each primitive of JAX becomes the operations that remain of it after XLA's algebraic simplification.
The gradients are not derived here: JAX traces them, and what they read of the forward pass is the
same operation again, which the program holds once. A primitive that is not in the tables is taken
for a kernel of its own that reads its operands and writes its results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from scenelearn.sizing._jaxprs import VIEWS, TracedCall, inner_program
from scenelearn.sizing._layers import Shape
from scenelearn.sizing._xla._activations import expand_erfc
from scenelearn.sizing._xla._context import LoweringContext
from scenelearn.sizing._xla._convolution import convolve, kernel_gradient, scatter_into_maxima
from scenelearn.sizing._xla._trace import Trace

_UNARY = {
    "abs": "abs", "ceil": "floor", "cos": "cos", "erf": "erf", "erf_inv": "erf", "exp": "exp",
    "exp2": "exp", "expm1": "expm1", "floor": "floor", "is_finite": "compare", "log": "log",
    "log1p": "log1p", "neg": "negate", "not": "not", "round": "floor", "rsqrt": "rsqrt",
    "sign": "sign", "sin": "sin", "sqrt": "sqrt", "tan": "tanh", "tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "add": "add", "add_any": "add", "and": "and", "atan2": "divide", "div": "divide",
    "eq": "compare", "ge": "compare", "gt": "compare", "le": "compare", "lt": "compare",
    "max": "maximum", "min": "minimum", "mul": "multiply", "ne": "compare", "or": "or",
    "pow": "power", "rem": "divide", "shift_left": "xor", "shift_right_logical": "xor",
    "shift_right_arithmetic": "xor", "sub": "subtract", "xor": "xor",
}  # fmt: skip
_REDUCTIONS = {
    "argmax": "arg", "argmin": "arg", "reduce_and": "and", "reduce_max": "max",
    "reduce_min": "min", "reduce_or": "or", "reduce_prod": "product",
}  # fmt: skip
_NEUTRAL = {
    "add": 0, "divide": 1, "maximum": -math.inf, "minimum": math.inf, "multiply": 1, "subtract": 0
}  # fmt: skip
_IDENTITIES = VIEWS | {"bitcast_convert_type", "optimization_barrier", "reduce_precision"}


def traced(context: LoweringContext) -> list[int]:
    """Emit the program of a layer's call, and record its gradients."""
    trace, call = context.trace, context.layer.traced
    shapes = tuple(trace.shape(index) for index in context.inputs)
    program = call.program(shapes, training=context.training)
    n = len(context.weights)
    states = [
        trace.emit("constant", tuple(one.shape), (), ("state", id(one)))
        for one in call.variables[n:]
    ]
    values = [*context.weights, *states, *context.inputs]
    differentiable = trace.differentiable
    results = _run(trace, program, values)
    n_outputs = len(context.shapes)
    outputs, assigned = results[:n_outputs], results[n_outputs:]
    fixed = [at for at, one in enumerate(call.variables) if not one.trainable]
    for at, value in zip(fixed, assigned, strict=bool(assigned)):
        if at < n and value != context.weights[at]:
            context.updates[context.weights[at]] = value
    for at, output in enumerate(outputs):
        if output not in values:
            moving = tuple(place for place, one in enumerate(values) if one in differentiable)
            trace.record(output, values, _gradients(trace, call, (shapes, moving, at), values))
    return outputs


def _gradients(
    trace: Trace, call: TracedCall, key: tuple[Any, tuple[int, ...], int], values: Sequence[int]
) -> Callable[[int], list[tuple[int, int]]]:
    def back(g: int) -> list[tuple[int, int]]:
        moved = _run(trace, call.gradients(*key), [*values, g])
        return list(zip((values[at] for at in key[1]), moved, strict=True))

    return back


def _run(trace: Trace, program: Any, values: Sequence[int]) -> list[int]:
    """Emit a program without recording its operations one by one."""
    recorded, trace.differentiable = trace.differentiable, set()
    try:
        one_sample = trace.shape(values[-1])[:1] == (1,)
        return _Emitter(trace, one_sample=one_sample).run(program, values)
    finally:
        trace.differentiable = recorded


class _Emitter:
    """Emits the operations of one program."""

    def __init__(self, trace: Trace, *, one_sample: bool) -> None:
        self.trace = trace
        self.one_sample = one_sample  # then the first axis stays, whose size is one
        self.products: dict[int, tuple[int, int, Any]] = {}  # as JAX wrote them

    def run(self, program: Any, values: Sequence[int]) -> list[int]:
        jaxpr = program.jaxpr
        known: dict[int, int] = {}
        for var, value in zip(program.jaxpr.constvars, program.consts, strict=True):
            known[id(var)] = self.constant(value, id(value))
        known.update(zip(map(id, jaxpr.invars), values, strict=True))

        def read(var: Any) -> int:
            return self.constant(var.val, None) if hasattr(var, "val") else known[id(var)]

        for eqn in jaxpr.eqns:
            inner = inner_program(eqn)
            operands = [read(var) for var in eqn.invars]
            if inner is not None:
                results = self.run(inner, operands[-len(inner.jaxpr.invars) :])
            else:
                results = self.emit(eqn, operands)
            known.update(zip(map(id, eqn.outvars), results, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def kept(self, shape: Shape) -> list[int]:
        """The axes that XLA's simplification leaves of a shape: those longer than one."""
        return [
            axis for axis, size in enumerate(shape) if size != 1 or (axis == 0 and self.one_sample)
        ]

    def packed(self, shape: Shape) -> Shape:
        return tuple(shape[axis] for axis in self.kept(shape))

    def constant(self, value: Any, identity: Any) -> int:
        shape = tuple(getattr(value, "shape", ()))
        if not shape:
            return self.trace.full(float(value), ())
        return self.trace.emit("constant", shape, (), ("constant", identity))

    def emit(self, eqn: Any, operands: list[int]) -> list[int]:
        """The arrays of one primitive's results."""
        trace, name = self.trace, eqn.primitive.name
        outs = [var.aval for var in eqn.outvars]
        shape = tuple(outs[0].shape)
        itemsize = _itemsize(outs[0])
        if name in _IDENTITIES:
            return [trace.view(operands[0], shape)]
        if name in _UNARY or name in _BINARY:
            return [self.elementwise({**_UNARY, **_BINARY}[name], name, operands, shape, itemsize)]
        special = getattr(self, f"_{name.replace('-', '_')}", None)
        if special is not None:
            return [special(eqn, *operands)]
        if name in _REDUCTIONS:
            return [self.reduce(operands[0], eqn, _REDUCTIONS[name])]
        if name in {"random_bits", "threefry2x32", "random_split", "random_fold_in"}:
            return [self.random(tuple(out.shape), operands, at) for at, out in enumerate(outs)]
        if name in {"random_wrap", "random_unwrap", "random_seed"}:
            return [trace.emit("view", shape, tuple(operands), name)]
        if name == "split":
            return self.split(eqn, operands[0])
        if name.startswith(("gather", "dynamic_slice")):
            attribute = (name, str(eqn.params.get("dimension_numbers")))
            return [trace.emit("gather", shape, tuple(operands), attribute, itemsize=itemsize)]
        parameters = str(sorted(eqn.params)) + str(len(eqn.invars))
        return [
            trace.emit(
                "kernel", tuple(out.shape), tuple(operands), (name, parameters, at),
                itemsize=_itemsize(out),
            )
            for at, out in enumerate(outs)
        ]  # fmt: skip

    # Elementwise

    def spread(self, value: int, shape: Shape) -> int:
        """An operand in the shape of the result; numbers become constant arrays."""
        trace, number = self.trace, self.number(value)
        if number is not None:
            return trace.full(number, self.packed(shape))
        old = trace.shape(value)
        return self.broadcast(value, shape, tuple(range(len(shape) - len(old), len(shape))))

    def broadcast(self, x: int, shape: Shape, axes: Sequence[int]) -> int:
        """Broadcast an array whose axes become `axes` of the new shape."""
        trace, packed = self.trace, self.packed(shape)
        place = {axis: at for at, axis in enumerate(self.kept(shape))}
        axes = tuple(axes)
        kept = [at for at, axis in enumerate(axes) if axis in place]
        small = trace.view(x, tuple(trace.shape(x)[at] for at in kept))
        out = trace.broadcast(small, packed, [place[axes[at]] for at in kept])
        return trace.view(out, shape)

    def number(self, value: int) -> float | None:
        """The number that all elements equal, if it is known."""
        program = self.trace.program
        if program.kind[value] == "view":
            (value, *_) = program.inputs[value]
        if program.kind[value] == "broadcast" and not program.inputs[value]:
            return float(program.attribute[value])
        return None

    def elementwise(
        self, kind: str, name: str, operands: Sequence[int], shape: Shape, itemsize: int
    ) -> int:
        trace = self.trace
        numbers = [self.number(value) for value in operands]
        if len(operands) == 2:
            left, right = numbers
            neutral = _NEUTRAL.get(kind)
            if neutral is not None and right == neutral:
                return trace.view(self.spread(operands[0], shape), shape)
            if neutral is not None and left == neutral and kind not in {"subtract", "divide"}:
                return trace.view(self.spread(operands[1], shape), shape)
            if kind == "divide" and right:
                kind, operands = "multiply", (operands[0], trace.full(1 / right, ()))
            elif name == "pow" and right in {2.0, 3.0}:
                return self._integer_pow(None, operands[0], power=int(right))
        if kind in {"multiply", "divide"} and len(set(operands)) == 1:
            attribute = None
        else:
            attribute = name if kind in {"compare", "xor", "floor", "erf"} else None
        parts = [trace.view(self.spread(value, shape), self.packed(shape)) for value in operands]
        out = trace.elementwise(kind, *parts, attribute=attribute, itemsize=itemsize)
        return trace.view(out, shape)

    def _integer_pow(self, eqn: Any, x: int, power: int | None = None) -> int:
        trace = self.trace
        y = eqn.params["y"] if power is None else power
        out = x
        for _ in range(abs(y) - 1 if abs(y) <= 4 else 0):
            out = trace.elementwise("multiply", out, x)
        if abs(y) > 4:
            out = trace.elementwise("power", x, trace.full(abs(y), trace.shape(x)))
        return out if y > 0 else trace.elementwise("divide", trace.full(1, trace.shape(x)), out)

    def _square(self, _: Any, x: int) -> int:
        return self.trace.elementwise("multiply", x, x)

    def _logistic(self, _: Any, x: int) -> int:
        return self.trace.logistic(x)

    def _erfc(self, _: Any, x: int) -> int:
        return expand_erfc(self.trace, x)

    def _select_n(self, eqn: Any, which: int, *cases: int) -> int:
        trace, out = self.trace, eqn.outvars[0].aval
        shape = tuple(out.shape)
        parts = [
            trace.view(self.spread(value, shape), self.packed(shape))
            for value in (which, *reversed(cases))
        ]
        result = trace.elementwise("select", *parts, itemsize=_itemsize(out), attribute="case")
        return trace.view(result, shape)

    def _clamp(self, eqn: Any, low: int, x: int, high: int) -> int:
        parts = [self.spread(value, self.trace.shape(x)) for value in (low, x, high)]
        out = eqn.outvars[0].aval
        return self.trace.emit("clamp", tuple(out.shape), tuple(parts), itemsize=_itemsize(out))

    def _convert_element_type(self, eqn: Any, x: int) -> int:
        old, new = eqn.invars[0].aval.dtype, eqn.outvars[0].aval
        if old == new.dtype or self.number(x) is not None:
            return x
        return self.trace.elementwise(
            "convert", x, attribute=str(new.dtype), itemsize=_itemsize(new)
        )

    # Shapes

    def _broadcast_in_dim(self, eqn: Any, x: int) -> int:
        shape = tuple(eqn.params["shape"])
        number = self.number(x)
        if number is not None:
            return self.trace.full(number, shape)
        return self.broadcast(x, shape, eqn.params["broadcast_dimensions"])

    def _transpose(self, eqn: Any, x: int) -> int:
        order = tuple(eqn.params["permutation"])
        rank = len(order)
        if x in self.products and order == (*range(rank - 2), rank - 1, rank - 2):
            a, b, ((sum_a, sum_b), (batch_a, batch_b)) = self.products[x]
            turned = ((sum_b, sum_a), (batch_b, batch_a))
            free = len(self.trace.shape(a)) - len(sum_a) - len(batch_a)
            if free == 1 and len(batch_a) == rank - 2:
                return self.product(b, a, turned)
        shape = self.trace.shape(x)
        kept = [axis for axis in order if axis in self.kept(shape)]
        packed = self.trace.view(x, self.packed(shape))
        out = self.trace.transpose(packed, [sorted(kept).index(axis) for axis in kept])
        return self.trace.view(out, tuple(shape[axis] for axis in order))

    def _concatenate(self, eqn: Any, *parts: int) -> int:
        return self.trace.concatenate(parts, eqn.params["dimension"])

    def _pad(self, eqn: Any, x: int, value: int) -> int:
        config = eqn.params["padding_config"]
        shape = tuple(eqn.outvars[0].aval.shape)
        if any(inner for _, _, inner in config):
            return self.trace.emit("pad", shape, (x,), ("spread", str(config)))
        grown = [(max(low, 0), max(high, 0)) for low, high, _ in config]
        x = self.trace.pad(x, grown, self.number(value) or 0.0)
        return self.trace.slice(x, [max(-low, 0) for low, _, _ in config], shape)

    def _slice(self, eqn: Any, x: int) -> int:
        shape = tuple(eqn.outvars[0].aval.shape)
        strides = eqn.params["strides"]
        if strides is None or all(stride == 1 for stride in strides):
            return self.trace.slice(x, eqn.params["start_indices"], shape)
        attribute = (tuple(eqn.params["start_indices"]), tuple(strides))
        return self.trace.emit("slice", shape, (x,), attribute)

    def split(self, eqn: Any, x: int) -> list[int]:
        axis, start, parts = eqn.params["axis"], 0, []
        for var in eqn.outvars:
            shape = tuple(var.aval.shape)
            parts.append(
                self.trace.slice(x, [start * (at == axis) for at in range(len(shape))], shape)
            )
            start += shape[axis]
        return parts

    def _rev(self, eqn: Any, x: int) -> int:
        axes = tuple(eqn.params["dimensions"])
        if all(self.trace.shape(x)[axis] == 1 for axis in axes):
            return x
        return self.trace.emit("reverse", self.trace.shape(x), (x,), axes)

    def _iota(self, eqn: Any) -> int:
        out = eqn.outvars[0].aval
        attribute = eqn.params["dimension"], str(out.dtype)
        return self.trace.emit("iota", tuple(out.shape), (), attribute, itemsize=_itemsize(out))

    def _reduce_sum(self, eqn: Any, x: int) -> int:
        return self.reduce(x, eqn)

    def reduce(self, x: int, eqn: Any, *how: str) -> int:
        trace, old, out = self.trace, self.trace.shape(x), eqn.outvars[0].aval
        axes = [at for at, axis in enumerate(self.kept(old)) if axis in eqn.params["axes"]]
        packed = self.packed(old)
        if math.prod(packed[at] for at in axes) > 1:
            small = tuple(size for at, size in enumerate(packed) if at not in axes)
            x = trace.view(x, packed)
            x = trace.emit("reduce", small, (x,), (*axes, *how), itemsize=_itemsize(out))
        return trace.view(x, tuple(out.shape))

    # Windows and random numbers

    def _reduce_window_max(self, eqn: Any, x: int) -> int:
        return self.window(eqn, x, maximum=True)

    def _reduce_window_sum(self, eqn: Any, x: int) -> int:
        return self.window(eqn, x, maximum=False)

    def window(self, eqn: Any, x: int, *, maximum: bool) -> int:
        shape = tuple(eqn.outvars[0].aval.shape)
        return self.trace.emit("reduce_window", shape, (x,), _window(eqn, maximum=maximum))

    def _select_and_scatter_add(self, eqn: Any, g: int, x: int) -> int:
        return scatter_into_maxima(self.trace, x, g, _window(eqn, maximum=True))

    def random(self, shape: Shape, operands: Sequence[int], at: int) -> int:
        trace = self.trace
        key = (*operands, shape, at)
        words = [trace.emit("zeros", shape, (), ("random", word, key)) for word in range(2)]
        loop = trace.emit("while", (), tuple(words), "random")
        done = [trace.emit("view", shape, (word, loop), "loop") for word in words]
        return trace.elementwise("xor", *done)

    # Products

    def _dot_general(self, eqn: Any, a: int, b: int) -> int:
        return self.product(a, b, eqn.params["dimension_numbers"])

    def product(self, a: int, b: int, dimensions: Any) -> int:
        """A product in the form that XLA's DotDecomposer gives it.

        Operands of more axes than rows, columns and batches are transposed first. A transposed
        matrix folds into the product.
        """
        trace = self.trace
        ((sum_a, sum_b), (batch_a, batch_b)) = dimensions
        shape_a, shape_b = trace.shape(a), trace.shape(b)
        free_a = [axis for axis in range(len(shape_a)) if axis not in (*sum_a, *batch_a)]
        free_b = [axis for axis in range(len(shape_b)) if axis not in (*sum_b, *batch_b)]
        batch = tuple(shape_a[axis] for axis in batch_a)
        rows = math.prod(shape_a[axis] for axis in free_a)
        columns = math.prod(shape_b[axis] for axis in free_b)
        depth = math.prod(shape_a[axis] for axis in sum_a)
        left, turned_a = self.matrix(a, batch_a, free_a, sum_a)
        right, turned_b = self.matrix(b, batch_b, sum_b, free_b)
        if not turned_a:
            left = trace.view(left, (*batch, rows, depth))
        if not turned_b:
            right = trace.view(right, (*batch, depth, columns))
        small = (*batch, rows, columns)
        if depth == 1 and not batch:  # an outer product
            left = trace.broadcast(trace.view(left, (rows,)), small, (0,))
            right = trace.broadcast(trace.view(right, (columns,)), small, (1,))
            out = trace.elementwise("multiply", left, right)
        else:
            attribute = f"{'t' if turned_a else 'n'}{'t' if turned_b else 'n'}"
            out = trace.emit("dot", small, (left, right), attribute)
        shape = (
            *batch, *(shape_a[axis] for axis in free_a), *(shape_b[axis] for axis in free_b)
        )  # fmt: skip
        out = trace.view(out, shape)
        self.products[out] = (a, b, dimensions)
        return out

    def matrix(
        self, x: int, batch: Sequence[int], rows: Sequence[int], columns: Sequence[int]
    ) -> tuple[int, bool]:
        """An operand of a product, and whether the product reads it transposed."""
        program = self.trace.program
        rank = len(self.trace.shape(x))
        swap = (*range(rank - 2), rank - 1, rank - 2)
        canonical = tuple(batch) == tuple(range(rank - 2)) and len(rows) == len(columns) == 1
        if not canonical:
            return self.trace.transpose(x, (*batch, *rows, *columns)), False
        turned = rows[0] > columns[0]
        if program.kind[x] == "transpose" and program.attribute[x] == swap:
            return program.inputs[x][0], not turned
        return x, turned

    def _conv_general_dilated(self, eqn: Any, x: int, kernel: int) -> int:
        """A convolution with its operands in XLA:CPU's order: channels last."""
        trace, parameters = self.trace, eqn.params
        spec = parameters["dimension_numbers"]
        shape = tuple(eqn.outvars[0].aval.shape)
        rank = len(shape)
        strides, dilations = parameters["window_strides"], parameters["rhs_dilation"]
        padding = "same" if any(map(any, parameters["padding"])) else "valid"
        strided = (tuple(strides), tuple(dilations), padding)
        groups = parameters["feature_group_count"]
        last = (0, rank - 1, *range(1, rank - 1))
        if tuple(spec.lhs_spec) == (rank - 1, 0, *range(1, rank - 1)):
            groups = parameters["batch_group_count"]
            return kernel_gradient(trace, x, kernel, shape, groups=groups, strided=strided)
        if tuple(spec.lhs_spec) != last:
            x = trace.transpose(x, _channels_last(spec.lhs_spec))
        natural = tuple(spec.rhs_spec) == (rank - 1, rank - 2, *range(rank - 2))
        order = (*spec.rhs_spec[2:], spec.rhs_spec[1], spec.rhs_spec[0])
        outs = tuple(shape[axis] for axis in _channels_last(spec.out_spec))
        dilated = any(n > 1 for n in parameters["lhs_dilation"])
        if natural and not dilated and trace.program.kind[kernel] != "reverse":
            out = convolve(trace, x, kernel, outs, groups=groups, strided=strided)
        else:
            turned = trace.transpose(kernel, order)
            out = trace.emit("convolution", outs, (x, turned), ("input", groups, strided))
        if tuple(spec.out_spec) == last:
            return out
        back = _channels_last(spec.out_spec)
        return trace.transpose(out, sorted(range(rank), key=lambda place: back[place]))


def _channels_last(spec: Sequence[int]) -> tuple[int, ...]:
    return (spec[0], *spec[2:], spec[1])


def _window(eqn: Any, *, maximum: bool) -> tuple[Any, ...]:
    parameters = eqn.params
    return (
        tuple(parameters["window_dimensions"]),
        tuple(parameters["window_strides"]),
        tuple(map(tuple, parameters["padding"])),
        maximum,
    )


def _itemsize(aval: Any) -> int:
    return int(getattr(aval.dtype, "itemsize", 8))
