"""Fusion: which operations XLA:CPU computes inside others, and which ones get a buffer.

First, the YNN library takes what it supports (`_library`). Then, from the outputs upward, each
operation fuses its producers where that is allowed (InstructionFusion with
CpuInstructionFusion::ShouldFuse). Only the remaining operations write to memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from scenelearn.sizing._xla._library import find_library_calls
from scenelearn.sizing._xla._program import ELEMENTWISE, EXPENSIVE, FUSIBLE, Program, true_rank

_ACTIVATIONS = frozenset(("convolution", "dot", "reduce_window"))
_REUSES_OPERANDS = ("broadcast", "gather", "concatenate")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A fused computation that reads buffers and writes one.

    Attributes:
        root: the operation whose array it writes.
        reads: the operations whose arrays it reads, in order, without duplicates.
        elementwise: the reads that the kernel may overwrite, because each output element needs only
            the same element of them.
        n_bytes_inside: the bytes of activations inside a library call.
    """

    root: int
    reads: tuple[int, ...]
    elementwise: frozenset[int]
    n_bytes_inside: int = 0


def fuse(program: Program, outputs: Sequence[int]) -> list[Kernel]:
    """Fuse a program into kernels, in the order of its operations."""
    return _Fusion(program, outputs).run()


class _Fusion:
    """The state of fusion: the users of each operation, while operations move into their users."""

    def __init__(self, program: Program, outputs: Sequence[int]) -> None:
        self.program = program
        self.outputs = set(outputs)
        alive = program.needed(outputs)
        n = len(program.kind)
        self.alive = alive
        self.users: list[set[int]] = [set() for _ in range(n)]
        for index in range(n):
            if alive[index]:
                for read in program.inputs[index]:
                    self.users[read].add(index)
        self.library: dict[int, set[int]] = {}  # the root of a library call -> its other operations
        self.unfusible: set[int] = set()  # must not be computed twice

    def run(self) -> list[Kernel]:
        program, alive = self.program, self.alive
        self._assign_library_calls()
        self._find_unfusible()
        kernels = []
        for root in range(len(program.kind) - 1, -1, -1):
            if not alive[root] or program.kind[root] in {"parameter", "constant"}:
                continue
            if not self.users[root] and root not in self.outputs:
                self._remove(root)
                continue
            kernels.append(self._fuse_into(root))
        kernels.reverse()
        return kernels

    def _remove(self, index: int) -> None:
        self.alive[index] = False
        for read in self.program.inputs[index]:
            self.users[read].discard(index)

    def _assign_library_calls(self) -> None:
        """Replace the operations of each library call by its root."""
        for call in find_library_calls(self.program, self.users, self.outputs, self.alive):
            inside = call.members - {call.root}
            for index in inside:
                self.alive[index] = False
            for read in call.reads:
                self.users[read] = (self.users[read] - call.members) | {call.root}
            self.library[call.root] = inside

    def _find_unfusible(self) -> None:
        """Find operations with several large inputs that not every user can fuse."""
        program = self.program
        kind, inputs, shape = program.kind, program.inputs, program.shape
        candidates = []
        for index in range(len(kind)):
            if self.alive[index] and len(inputs[index]) > 1 and index not in self.library:
                rank = true_rank(shape[index])
                big = [
                    read
                    for read in inputs[index]
                    if kind[read] not in {"broadcast", "iota"} and true_rank(shape[read]) >= rank
                ]
                if len(big) > 1:
                    size = sum(math.prod(shape[read]) for read in set(inputs[index]))
                    if size > math.prod(shape[index]):
                        candidates.append(index)
        bit = {index: 1 << place for place, index in enumerate(candidates)}
        below = [0] * len(kind)  # the candidates that an operation depends on
        for index in range(len(kind)):
            mask = bit.get(index, 0)
            for read in inputs[index]:
                mask |= below[read]
            below[index] = mask
        for index in reversed(candidates):
            known: dict[int, bool] = {}
            if (
                not all(
                    self._fits_on_all_paths(index, user, bit[index], below, known)
                    for user in self.users[index]
                )
                or index in self.outputs
            ):
                self.unfusible.add(index)

    def _fits_on_all_paths(
        self, producer: int, reader: int, bit: int, below: list[int], known: dict[int, bool]
    ) -> bool:
        if producer == reader:
            return True
        if reader in known:
            return known[reader]
        known[reader] = True
        for read in self.program.inputs[reader]:
            if below[read] & bit and (
                read in self.unfusible
                or not self._may_fuse(read, reader)
                or not self._fits_on_all_paths(producer, read, bit, below, known)
            ):
                known[reader] = False
                break
        return known[reader]

    def _may_fuse(
        self, producer: int, root: int, reused: frozenset[int] | set[int] = frozenset()
    ) -> bool:
        """CpuInstructionFusion::ShouldFuse: whether a user may compute this operand itself."""
        kind = self.program.kind
        producer_kind = kind[producer]
        if (
            producer_kind not in FUSIBLE
            or producer in self.library
            or root in self.library
            or kind[root] not in FUSIBLE
        ):
            return False
        if producer_kind in EXPENSIVE and (
            len(self.users[producer]) > 1 or producer in reused or kind[root] in _REUSES_OPERANDS
        ):
            return False
        return not any(
            kind[index] == "reduce" and not self._over_minor(index) for index in (producer, root)
        )

    def _over_minor(self, index: int) -> bool:
        """Whether a reduction includes the axis that is contiguous in memory."""
        return (
            len(self.program.shape[self.program.inputs[index][0]]) - 1
            in self.program.attribute[index]
        )

    def _fuse_into(self, root: int) -> Kernel:
        """Fuse the producers of an operation into it, latest first."""
        kind, inputs = self.program.kind, self.program.inputs
        if root in self.library:
            members = self.library[root] | {root}
            inner = [read for index in sorted(members, reverse=True) for read in inputs[index]]
            n_bytes = sum(
                self.program.n_bytes[i] for i in self.library[root] if kind[i] in _ACTIVATIONS
            )
            return Kernel(root, self._without_constants(inner, members), frozenset(), n_bytes)
        members = {root}
        reads = dict.fromkeys(inputs[root])
        reused = set(inputs[root]) if kind[root] in _REUSES_OPERANDS else set()
        # Latest first. A producer that may not be fused is tried again when it has lost a user.
        queue = [-read for read in reads] if kind[root] in FUSIBLE else []
        heapify(queue)
        while queue:
            producer = -heappop(queue)
            if (
                producer not in reads
                or producer in self.unfusible
                or not self._may_fuse(producer, root, reused)
            ):
                continue
            members.add(producer)
            del reads[producer]
            if producer in reused or kind[producer] in _REUSES_OPERANDS:
                reused.update(inputs[producer])
            for read in inputs[producer]:
                self.users[read].add(root)
                if read not in members:
                    reads.setdefault(read)
                    heappush(queue, -read)
            self.users[producer].discard(root)
            if not self.users[producer] and producer not in self.outputs:
                self._remove(producer)
        return Kernel(
            root,
            self._without_constants(reads, members),
            self._in_place_inputs(root, members, reads),
        )

    def _without_constants(self, reads: Iterable[int], members: set[int]) -> tuple[int, ...]:
        kind = self.program.kind
        return tuple(
            dict.fromkeys(
                read for read in reads if read not in members and kind[read] != "constant"
            )
        )

    def _in_place_inputs(
        self, root: int, members: set[int], reads: Iterable[int]
    ) -> frozenset[int]:
        """The reads whose every use on the way to the root is elementwise."""
        kind, inputs, n_bytes = self.program.kind, self.program.inputs, self.program.n_bytes
        scattered: set[int] = set()
        for index in sorted(members, reverse=True):
            if index in scattered or kind[index] not in ELEMENTWISE:
                scattered.update(inputs[index])
        return frozenset(
            read for read in reads if read not in scattered and n_bytes[read] == n_bytes[root]
        )
