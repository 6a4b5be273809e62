"""Emit a program operation by operation, with a tape for its gradients.

Each method emits what JAX lowers the operation to after XLA's algebraic simplification, and records
what JAX's transposition of it emits. Only operations that lead to a trainable weight are recorded,
as in JAX's partial evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from scenelearn.sizing._layers import Shape
from scenelearn.sizing._xla._program import Program

Back: TypeAlias = Callable[[int], Iterable[tuple[int, int]]]
"""Maps the gradient of an output to (input, its gradient) for the inputs that have one."""


class Trace:
    """A program under construction, and the tape of its differentiable operations."""

    def __init__(self) -> None:
        self.program = Program()
        self.call = 0
        self.differentiable: set[int] = set()
        self._tape: list[tuple[int, Back, int]] = []

    # Without gradients

    def parameter(self, shape: Shape, *, trainable: bool = False, itemsize: int = 4) -> int:
        """Emit an argument of the step."""
        index = self.program.emit("parameter", shape, call=self.call, itemsize=itemsize)
        if trainable:
            self.differentiable.add(index)
        return index

    def emit(
        self,
        kind: str,
        shape: Shape,
        inputs: tuple[int, ...] = (),
        attribute: Any = None,
        *,
        itemsize: int = 4,
    ) -> int:
        """Emit an operation without a gradient."""
        return self.program.emit(kind, shape, inputs, attribute, call=self.call, itemsize=itemsize)

    def full(self, value: float, shape: Shape) -> int:
        """Emit a constant array; equal ones are one array."""
        return self.emit("broadcast", shape, (), value)

    def buffer(self, shape: Shape) -> int:
        """Emit a new buffer for a loop to write into, distinct from all others."""
        return self.emit("zeros", shape, (), len(self.program.kind))

    def shape(self, index: int) -> Shape:
        """Return the shape of an array."""
        return self.program.shape[index]

    # The tape

    def record(self, output: int, inputs: Sequence[int], back: Back) -> int:
        """Record an operation if any of its inputs has a gradient."""
        if any(index in self.differentiable for index in inputs):
            if output in self.differentiable:
                return output  # an equal operation is recorded already
            self.differentiable.add(output)
            self._tape.append((output, back, self.call))
        return output

    def gradients(self, output: int, gradient: int) -> dict[int, int]:
        """Backpropagate from an output; return the gradient of every array that leads to it."""
        grads = {output: gradient}
        for index, back, call in reversed(self._tape):
            if index in grads:
                self.call = ~call
                for read, part in back(grads[index]):
                    if read in self.differentiable:
                        grads[read] = (
                            self.elementwise("add", grads[read], part) if read in grads else part
                        )
        return grads

    # Elementwise

    def elementwise(self, kind: str, *inputs: int, attribute: Any = None, itemsize: int = 4) -> int:
        """Emit an elementwise operation without a gradient."""
        if kind == "divide":
            program = self.program
            divisor = inputs[1]
            if program.kind[divisor] == "broadcast" and program.inputs[divisor]:
                # XLA inverts each repeated element once, then multiplies
                (small,) = program.inputs[divisor]
                shape = self.shape(small)
                inverse = self.emit("divide", shape, (self.full(1, shape), small))
                by = self.emit(
                    "broadcast", self.shape(divisor), (inverse,), program.attribute[divisor]
                )
                return self.emit("multiply", self.shape(divisor), (inputs[0], by))
        return self.emit(kind, self.shape(inputs[0]), inputs, attribute, itemsize=itemsize)

    def add(self, a: int, b: int) -> int:
        """Add two arrays of equal shape."""
        return self.record(self.elementwise("add", a, b), (a, b), lambda g: ((a, g), (b, g)))

    def subtract(self, a: int, b: int) -> int:
        """Subtract two arrays of equal shape."""
        return self.record(
            self.elementwise("subtract", a, b),
            (a, b),
            lambda g: (
                ((a, g), (b, self.elementwise("negate", g)))
                if b in self.differentiable
                else ((a, g),)
            ),
        )

    def multiply(self, a: int, b: int) -> int:
        """Multiply two arrays of equal shape."""

        def back(g: int) -> Iterable[tuple[int, int]]:
            if a in self.differentiable:
                yield a, self.elementwise("multiply", g, b)
            if b in self.differentiable:
                yield b, self.elementwise("multiply", a, g)

        return self.record(self.elementwise("multiply", a, b), (a, b), back)

    def divide(self, a: int, b: int) -> int:
        """Divide two arrays of equal shape."""
        out = self.elementwise("divide", a, b)

        def back(g: int) -> Iterable[tuple[int, int]]:
            if a in self.differentiable:
                yield a, self.elementwise("divide", g, b)
            if b in self.differentiable:
                square = self.elementwise("multiply", b, b)
                inverse = self.elementwise("divide", self.full(1, self.shape(b)), square)
                part = self.elementwise("multiply", self.elementwise("multiply", g, inverse), a)
                yield b, self.elementwise("negate", part)

        return self.record(out, (a, b), back)

    def scale(self, a: int, factor: float) -> int:
        """Multiply an array by a constant."""
        by = self.full(factor, self.shape(a))
        return self.record(
            self.elementwise("multiply", a, by),
            (a,),
            lambda g: ((a, self.elementwise("multiply", g, by)),),
        )

    def shift(self, a: int, term: float) -> int:
        """Add a constant to an array."""
        return self.record(
            self.elementwise("add", a, self.full(term, self.shape(a))), (a,), lambda g: ((a, g),)
        )

    def negate(self, a: int) -> int:
        """Negate an array."""
        return self.record(
            self.elementwise("negate", a), (a,), lambda g: ((a, self.elementwise("negate", g)),)
        )

    def function(self, kind: str, a: int, slope: Callable[[int, int], int]) -> int:
        """Apply an elementwise function; `slope(a, output)` emits its derivative."""
        out = self.elementwise(kind, a)
        if a not in self.differentiable:
            return out
        factor: list[int] = []

        def back(g: int) -> Iterable[tuple[int, int]]:
            if not factor:
                factor.append(slope(a, out))
            yield a, self.elementwise("multiply", g, factor[0])

        return self.record(out, (a,), back)

    def exp(self, a: int) -> int:
        """Apply the exponential function."""
        return self.function("exp", a, lambda _, out: out)

    def tanh(self, a: int) -> int:
        """Apply the hyperbolic tangent."""
        out = self.elementwise("tanh", a)

        def back(g: int) -> Iterable[tuple[int, int]]:
            # g * (1 + out) * (1 - out), as JAX factors it
            rest = self.elementwise("subtract", self.full(1, self.shape(a)), out)
            part = self.elementwise("multiply", g, rest)
            yield a, self.elementwise("add", part, self.elementwise("multiply", part, out))

        return self.record(out, (a,), back)

    def logistic(self, a: int) -> int:
        """Apply 1 / (1 + e^-a), as XLA expands it."""
        ones = self.full(1, self.shape(a))
        power = self.elementwise("exp", self.elementwise("negate", a))
        out = self.elementwise("divide", ones, self.elementwise("add", power, ones))

        def back(g: int) -> Iterable[tuple[int, int]]:
            slope = self.elementwise("multiply", out, self.elementwise("subtract", ones, out))
            yield a, self.elementwise("multiply", g, slope)

        return self.record(out, (a,), back)

    def gate(self, a: int, low: float | None, high: float | None, leak: float = 0.0) -> int:
        """Clip an array to a range, as ReLU and its variants do."""
        shape = self.shape(a)
        if leak:
            zero = self.full(0, shape)
            above = self.elementwise("compare", a, zero, attribute=">=", itemsize=1)
            by = self.full(leak, shape)
            out = self.elementwise("select", above, a, self.elementwise("multiply", a, by))

            def leaky(g: int) -> Iterable[tuple[int, int]]:
                left = self.elementwise("select", above, g, zero)
                right = self.elementwise("select", above, zero, g)
                yield a, self.elementwise("add", left, self.elementwise("multiply", right, by))

            return self.record(out, (a,), leaky)
        floor = self.full(low or 0.0, shape)
        if high is None:
            out = self.elementwise("maximum", a, floor)
        else:
            out = self.elementwise("clamp", floor, a, self.full(high, shape))

        def back(g: int) -> Iterable[tuple[int, int]]:
            inside = self.elementwise("compare", a, floor, attribute=">", itemsize=1)
            if high is not None:
                below = self.elementwise(
                    "compare", a, self.full(high, shape), attribute="<", itemsize=1
                )
                inside = self.elementwise("and", inside, below, itemsize=1)
            yield a, self.elementwise("select", inside, g, self.full(0.0, shape))

        return self.record(out, (a,), back)

    # Shapes

    def view(self, a: int, shape: Shape) -> int:
        """Reshape without moving bytes."""
        if self.shape(a) == shape:
            return a
        source = self.program.inputs[a][0] if self.program.kind[a] == "view" else a
        out = source if self.shape(source) == shape else self.emit("view", shape, (source,))
        return (
            self.record(out, (a,), lambda g: ((a, self.view(g, self.shape(a))),))
            if out != source
            else out
        )

    def broadcast(self, a: int, shape: Shape, axes: Sequence[int]) -> int:
        """Broadcast an array whose axes become `axes` of the new shape."""
        old = self.shape(a)
        kept = [axis for axis, size in zip(axes, old, strict=True) if size != 1 or shape[axis] == 1]
        source = self.view(a, tuple(shape[axis] for axis in kept))
        if len(kept) == len(shape):
            return source
        out = self.emit("broadcast", shape, (source,), tuple(kept))
        over = tuple(axis for axis in range(len(shape)) if axis not in kept)

        def back(g: int) -> Iterable[tuple[int, int]]:
            yield source, self.emit("reduce", self.shape(source), (g,), over)

        return self.record(out, (source,), back)

    def sum(self, a: int, axes: Sequence[int]) -> int:
        """Sum over axes and drop them."""
        shape = self.shape(a)
        axes = tuple(axes)
        kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
        out_shape = tuple(shape[axis] for axis in kept)
        if all(shape[axis] == 1 for axis in axes):
            return self.view(a, out_shape)
        out = self.emit("reduce", out_shape, (a,), axes)
        return self.record(out, (a,), lambda g: ((a, self.emit("broadcast", shape, (g,), kept)),))

    def transpose(self, a: int, order: Sequence[int]) -> int:
        """Permute the axes; a view if only axes of size one move."""
        shape = self.shape(a)
        new = tuple(shape[axis] for axis in order)
        long = [axis for axis in order if shape[axis] != 1]
        if long == sorted(long):
            return self.view(a, new)
        out = self.emit("transpose", new, (a,), tuple(order))
        back_order = tuple(sorted(range(len(order)), key=lambda place: order[place]))
        return self.record(out, (a,), lambda g: ((a, self.transpose(g, back_order)),))

    def flip(self, a: int, axis: str) -> int:
        """Reverse an axis; its name suffices, because no size depends on it."""
        out = self.emit("reverse", self.shape(a), (a,), axis)
        return self.record(
            out, (a,), lambda g: ((a, self.emit("reverse", self.shape(a), (g,), axis)),)
        )

    def pad(self, a: int, pads: Sequence[tuple[int, int]], value: float = 0.0) -> int:
        """Pad both ends of each axis."""
        shape = self.shape(a)
        if not any(low or high for low, high in pads):
            return a
        new = tuple(size + low + high for size, (low, high) in zip(shape, pads, strict=True))
        out = self.emit("pad", new, (a,), (tuple(pads), value))
        starts = tuple(low for low, _ in pads)
        return self.record(
            out,
            (a,),
            lambda g: ((a, self.emit("slice", shape, (g,), (starts, (1,) * len(shape)))),),
        )

    def slice(self, a: int, starts: Sequence[int], sizes: Shape) -> int:
        """Slice an array."""
        shape = self.shape(a)
        if shape == sizes:
            return a
        out = self.emit("slice", sizes, (a,), (tuple(starts), (1,) * len(shape)))
        pads = tuple(
            (start, whole - start - size)
            for start, size, whole in zip(starts, sizes, shape, strict=True)
        )
        return self.record(out, (a,), lambda g: ((a, self.emit("pad", shape, (g,), (pads, 0.0))),))

    def concatenate(self, parts: Sequence[int], axis: int) -> int:
        """Concatenate arrays along an axis."""
        shapes = [self.shape(part) for part in parts]
        whole = sum(shape[axis] for shape in shapes)
        new = (*shapes[0][:axis], whole, *shapes[0][axis + 1 :])
        out = self.emit("concatenate", new, tuple(parts), axis)

        def back(g: int) -> Iterable[tuple[int, int]]:
            start = 0
            for part, shape in zip(parts, shapes, strict=True):
                starts = tuple(start if at == axis else 0 for at in range(len(new)))
                if part in self.differentiable:
                    yield part, self.emit("slice", shape, (g,), (starts, (1,) * len(new)))
                start += shape[axis]

        return self.record(out, tuple(parts), back)

    # Products

    def dot(self, a: int, b: int) -> int:
        """Multiply (..., k) by (k, n)."""
        shape_a, shape_b = self.shape(a), self.shape(b)
        rows = math.prod(shape_a[:-1])
        flat = self.view(a, (rows, shape_a[-1]))
        out = self.emit("dot", (rows, shape_b[1]), (flat, b), "nn")

        def back(g: int) -> Iterable[tuple[int, int]]:
            if flat in self.differentiable:
                yield flat, self.emit("dot", (rows, shape_b[0]), (g, b), "nt")
            if b in self.differentiable and rows == 1:  # an outer product
                left = self.emit("broadcast", shape_b, (self.view(flat, shape_b[:1]),), (0,))
                right = self.emit("broadcast", shape_b, (self.view(g, shape_b[1:]),), (1,))
                yield b, self.elementwise("multiply", left, right)
            elif b in self.differentiable:
                right = g
                if len(shape_a) > 2:  # XLA's DotDecomposer first transposes the gradient
                    right = self.emit("transpose", (shape_b[1], rows), (g,), "product")
                yield b, self.emit("dot", shape_b, (flat, right), "tn")

        return self.view(self.record(out, (flat, b), back), (*shape_a[:-1], shape_b[1]))
