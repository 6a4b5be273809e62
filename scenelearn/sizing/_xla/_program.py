"""The step as XLA sees it: arrays and the operations that make them, with no values in them.

Every operation is an index into parallel lists: a big network has tens of thousands, and lists are
several times faster than objects. Equal operations are one operation, as after XLA's common
subexpression elimination; a change of shape that moves no bytes is a view, as XLA's bitcast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scenelearn.sizing._layers import Shape

ELEMENTWISE = frozenset(
    (
        "abs",
        "add",
        "and",
        "clamp",
        "compare",
        "convert",
        "cos",
        "divide",
        "erf",
        "exp",
        "expm1",
        "floor",
        "log",
        "log1p",
        "maximum",
        "minimum",
        "multiply",
        "negate",
        "not",
        "or",
        "power",
        "rsqrt",
        "select",
        "sign",
        "sin",
        "sqrt",
        "subtract",
        "tanh",
        "xor",
    )
)
"""Operations of which each output element needs one element of each input."""

FUSIBLE = ELEMENTWISE | frozenset(
    (
        "broadcast",
        "concatenate",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "iota",
        "pad",
        "reduce",
        "reverse",
        "slice",
        "transpose",
        "view",
    )
)
"""What XLA:CPU may compute inside its reader (CanBeLoopFused in cpu_instruction_fusion.cc)."""

EXPENSIVE = frozenset(
    (
        "cos",
        "divide",
        "erf",
        "exp",
        "expm1",
        "gather",
        "log",
        "log1p",
        "power",
        "reduce",
        "rsqrt",
        "sin",
        "sqrt",
        "tanh",
    )
)
"""What XLA computes once rather than in each reader (InstructionFusion::IsExpensive)."""


class Program:
    """A straight list of operations; the index of one is the name of the array it makes."""

    __slots__ = ("_known", "_users", "attribute", "call", "inputs", "kind", "n_bytes", "shape")

    def __init__(self) -> None:
        self.kind: list[str] = []
        self.shape: list[Shape] = []
        self.inputs: list[tuple[int, ...]] = []
        self.n_bytes: list[int] = []
        self.attribute: list[Any] = []
        self.call: list[int] = []  # the layer call that it belongs to; backward calls are ~call
        self._known: dict[tuple[Any, ...], int] = {}
        self._users = 0

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
        """Add an operation, unless the same is there already; return its index."""
        key = (kind, shape, inputs, attribute)
        found = self._known.get(key)
        if found is not None and kind != "parameter":
            return found
        index = len(self.kind)
        self._known[key] = index
        self.kind.append(kind)
        self.shape.append(shape)
        self.inputs.append(inputs)
        self.n_bytes.append(math.prod(shape) * itemsize)
        self.attribute.append(attribute)
        self.call.append(call)
        return index

    def needed(self, outputs: Sequence[int]) -> list[bool]:
        """Which operations some output depends on."""
        alive = [False] * len(self.kind)
        for index in outputs:
            alive[index] = True
        for index in range(len(self.kind) - 1, -1, -1):
            if alive[index]:
                for read in self.inputs[index]:
                    alive[read] = True
        return alive


def true_rank(shape: Shape) -> int:
    """The number of axes longer than one."""
    return sum(size != 1 for size in shape)
