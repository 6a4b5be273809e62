"""Which operations get a buffer of their own, as XLA:CPU decides it.

First the library YNN gets what it can compute (`_library`). Then, from the outputs up, each
operation takes its producers into itself where that is allowed (InstructionFusion, with
CpuInstructionFusion::ShouldFuse). What is left over is computed into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from ._library import calls
from ._program import ELEMENTWISE, EXPENSIVE, FUSIBLE, Program, true_rank

_MAPS = frozenset(("convolution", "dot", "reduce_window"))
_REUSING = ("broadcast", "gather", "concatenate")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One piece of work that XLA runs: it reads buffers and writes one.

    Attributes:
        root: The operation whose array it writes.
        reads: The operations whose arrays it reads, in order, each once.
        elementwise: Those of them of which each element is needed only for the same element of
            the output: the kernel may write over them.
        n_bytes_inside: The maps that a call of the library keeps to itself.
    """

    root: int
    reads: tuple[int, ...]
    elementwise: frozenset[int]
    n_bytes_inside: int = 0


def kernels(program: Program, outputs: Sequence[int]) -> list[Kernel]:
    """The kernels of a program, in the order in which its operations were written."""
    return _Fusion(program, outputs).run()


class _Fusion:
    """The state of one run: who reads whom, while operations move into their readers."""

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
        self.library: dict[int, set[int]] = {}  # a reduction -> the operations that YNN takes in
        self.unique: set[int] = set()  # not to be computed twice

    def run(self) -> list[Kernel]:
        program, alive = self.program, self.alive
        self._give_to_library()
        self._find_unique()
        found = []
        for root in range(len(program.kind) - 1, -1, -1):
            if not alive[root] or program.kind[root] in {"parameter", "constant"}:
                continue
            if not self.users[root] and root not in self.outputs:
                self._remove(root)
                continue
            found.append(self._grow(root))
        found.reverse()
        return found

    def _remove(self, index: int) -> None:
        self.alive[index] = False
        for read in self.program.inputs[index]:
            self.users[read].discard(index)

    def _give_to_library(self) -> None:
        """Let the library have its calls: one kernel each, whose root stands for all of it."""
        for call in calls(self.program, self.users, self.outputs, self.alive):
            inside = call.members - {call.root}
            for index in inside:
                self.alive[index] = False
            for read in call.reads:
                self.users[read] = (self.users[read] - call.members) | {call.root}
            self.library[call.root] = inside

    def _find_unique(self) -> None:
        """Operations with several big inputs that not every reader can take in."""
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
        below = [0] * len(kind)  # which candidates an operation depends on
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
                self.unique.add(index)

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
                read in self.unique
                or not self._may_fuse(read, reader)
                or not self._fits_on_all_paths(producer, read, bit, below, known)
            ):
                known[reader] = False
                break
        return known[reader]

    def _may_fuse(
        self, producer: int, root: int, reused: frozenset[int] | set[int] = frozenset()
    ) -> bool:
        """CpuInstructionFusion::ShouldFuse: may the reader compute this input by itself?"""
        kind = self.program.kind
        made = kind[producer]
        if (
            made not in FUSIBLE
            or producer in self.library
            or root in self.library
            or kind[root] not in FUSIBLE
        ):
            return False
        if made in EXPENSIVE and (
            len(self.users[producer]) > 1 or producer in reused or kind[root] in _REUSING
        ):
            return False
        return not any(
            kind[one] == "reduce" and not self._over_minor(one) for one in (producer, root)
        )

    def _over_minor(self, index: int) -> bool:
        """Whether a reduction runs over the axis that lies together in memory."""
        return (
            len(self.program.shape[self.program.inputs[index][0]]) - 1
            in self.program.attribute[index]
        )

    def _grow(self, root: int) -> Kernel:
        """Take into an operation what it may compute by itself, latest first."""
        kind, inputs = self.program.kind, self.program.inputs
        if root in self.library:
            members = self.library[root] | {root}
            inner = [read for index in sorted(members, reverse=True) for read in inputs[index]]
            maps = sum(self.program.n_bytes[i] for i in self.library[root] if kind[i] in _MAPS)
            return Kernel(root, self._without_constants(inner, members), frozenset(), maps)
        members = {root}
        reads = dict.fromkeys(inputs[root])
        reused = set(inputs[root]) if kind[root] in _REUSING else set()
        # Latest first. One that may not join is asked again when it has lost a reader.
        asked = [-read for read in reads] if kind[root] in FUSIBLE else []
        heapify(asked)
        while asked:
            producer = -heappop(asked)
            if (
                producer not in reads
                or producer in self.unique
                or not self._may_fuse(producer, root, reused)
            ):
                continue
            members.add(producer)
            del reads[producer]
            if producer in reused or kind[producer] in _REUSING:
                reused.update(inputs[producer])
            for read in inputs[producer]:
                self.users[read].add(root)
                if read not in members:
                    reads.setdefault(read)
                    heappush(asked, -read)
            self.users[producer].discard(root)
            if not self.users[producer] and producer not in self.outputs:
                self._remove(producer)
        return Kernel(
            root, self._without_constants(reads, members), self._same_place(root, members, reads)
        )

    def _without_constants(self, reads: Iterable[int], members: set[int]) -> tuple[int, ...]:
        kind = self.program.kind
        return tuple(
            dict.fromkeys(
                read for read in reads if read not in members and kind[read] != "constant"
            )
        )

    def _same_place(self, root: int, members: set[int], reads: Iterable[int]) -> frozenset[int]:
        """The inputs of which every use on the way to the root is elementwise."""
        kind, inputs, n_bytes = self.program.kind, self.program.inputs, self.program.n_bytes
        scattered: set[int] = set()
        for index in sorted(members, reverse=True):
            if index in scattered or kind[index] not in ELEMENTWISE:
                scattered.update(inputs[index])
        return frozenset(
            read for read in reads if read not in scattered and n_bytes[read] == n_bytes[root]
        )
