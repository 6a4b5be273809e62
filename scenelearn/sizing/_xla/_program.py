"""A step as XLA sees it: operations and the shapes of their arrays, without values.

Each operation is an index into parallel lists: large networks have tens of thousands, and lists are
several times faster than objects. Equal operations are one operation, as after XLA's common
subexpression elimination. A change of shape that moves no bytes is a view, XLA's bitcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scenelearn.sizing._layers import Shape

ELEMENTWISE = frozenset((
    "abs", "add", "and", "clamp", "compare", "convert", "cos", "divide", "erf", "exp", "expm1",
    "floor", "log", "log1p", "maximum", "minimum", "multiply", "negate", "not", "or", "power",
    "rsqrt", "select", "sign", "sin", "sqrt", "subtract", "tanh", "xor",
))  # fmt: skip
"""Operations whose output elements need one element of each input."""

FUSIBLE = ELEMENTWISE | frozenset((
    "broadcast", "concatenate", "dynamic_slice", "dynamic_update_slice", "gather", "iota", "pad",
    "reduce", "reverse", "slice", "transpose", "view",
))  # fmt: skip
"""Operations that XLA:CPU may fuse into a user (CanBeLoopFused in cpu_instruction_fusion.cc)."""

EXPENSIVE = frozenset((
    "cos", "divide", "erf", "exp", "expm1", "gather", "log", "log1p", "power", "reduce", "rsqrt",
    "sin", "sqrt", "tanh",
))  # fmt: skip
"""Operations that XLA does not duplicate into users (InstructionFusion::IsExpensive)."""


class Program:
    """A list of operations; an operation's index also stands for its array."""

    __slots__ = ("_known", "attribute", "call", "inputs", "kind", "n_bytes", "shape")

    def __init__(self) -> None:
        self.kind: list[str] = []
        self.shape: list[Shape] = []
        self.inputs: list[tuple[int, ...]] = []
        self.n_bytes: list[int] = []
        self.attribute: list[Any] = []
        self.call: list[int] = []  # the index of the layer call; ~index in the backward pass
        self._known: dict[tuple[Any, ...], int] = {}

    def emit(
        self,
        kind: str,
        shape: Shape,
        inputs: tuple[int, ...] = (),
        attribute: Any = None,
        *,
        call: int = 0,
        itemsize: int = 4,
    ) -> int:
        """Add an operation unless an equal one exists; return its index."""
        key = (kind, shape, inputs, attribute)
        existing = self._known.get(key)
        if existing is not None and kind != "parameter":
            return existing
        index = len(self.kind)
        self._known[key] = index
        self.kind.append(kind)
        self.shape.append(shape)
        self.inputs.append(inputs)
        self.n_bytes.append(int(math.prod(shape)) * itemsize)
        self.attribute.append(attribute)
        self.call.append(call)
        return index

    def needed(self, outputs: Sequence[int]) -> list[bool]:
        """Return for each operation whether an output depends on it."""
        alive = [False] * len(self.kind)
        for index in outputs:
            alive[index] = True
        for index in range(len(self.kind) - 1, -1, -1):
            if alive[index]:
                for read in self.inputs[index]:
                    alive[read] = True
        return alive


def true_rank(shape: Shape) -> int:
    """Return the number of axes longer than one."""
    return sum(size != 1 for size in shape)
