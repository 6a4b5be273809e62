"""Which operations get a buffer of their own, as XLA:CPU decides it.

First every reduction of 4,096 elements or more becomes a call of the library YNN, which takes in
the elementwise operations that only it reads (LibraryRewriter). Then, from the outputs up, each
operation takes its producers into itself where that is allowed (InstructionFusion, with
CpuInstructionFusion::ShouldFuse). What is left over is computed into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ._program import ELEMENTWISE, EXPENSIVE, FUSIBLE, Program, true_rank

YNN_MIN_ELEMENTS = 4096
"""Below this YNN leaves an operation to XLA (IsInstructionPreferredByYnn)."""

YNN_MAX_SIZE = 100
"""A call of YNN takes in nothing more from this many operations and arguments on."""

YNN_MAX_MERGED = 107
"""Up to this many together, two calls become one at once; seen in plans (105 did, 110 did not)."""

_YNN_ANY_SIZE = ("broadcast", "transpose", "view", "pad", "iota")
_YNN = (ELEMENTWISE - {"and", "clamp", "compare", "convert", "not", "or", "select", "xor"}).union(
    _YNN_ANY_SIZE
)
_STARTING = frozenset(("reduce", "reduce_window"))
_REUSING = ("broadcast", "gather", "concatenate")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One piece of work that XLA runs: it reads buffers and writes one.

    Attributes:
        root: The operation whose array it writes.
        reads: The operations whose arrays it reads, in order, each once.
        elementwise: Those of them of which each element is needed only for the same element of
            the output: the kernel may write over them.
    """

    root: int
    reads: tuple[int, ...]
    elementwise: frozenset[int]


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
        """Let YNN have what it can compute, with the neighbours that nobody else needs.

        From the outputs up, each product, reduction or window takes in its inputs as long as it is
        their only reader, and its reader as long as it has one (LibraryRewriter::FuseNeighbors).
        A convolution that none has taken in by then stays by itself.
        """
        kind = self.program.kind
        given: set[int] = set()
        for start in range(len(kind) - 1, -1, -1):
            if (
                kind[start] in _STARTING
                and self.alive[start]
                and start not in given
                and self._suits_library(start)
            ):
                taken = {start}
                root = self._take_neighbours(start, taken, given)
                readers = self.users[root] & self.library.keys()
                if readers and len(self.users[root]) == 1 and root not in self.outputs:
                    root = self._merge(root, next(iter(readers)), taken)
                given |= taken
                taken.discard(root)
                for index in taken:
                    self.alive[index] = False
                self.library[root] = taken

    def _take_neighbours(self, root: int, taken: set[int], given: set[int]) -> int:
        """Grow one call of the library both ways until nothing more joins; its last operation."""
        inputs = self.program.inputs
        around = set(inputs[root])  # what it reads from outside
        changed = True
        while changed:
            changed = False
            seen = set()
            queue = [
                (index, True) for index in sorted(around) if self._is_only_read_by(index, taken)
            ]
            if len(self.users[root]) == 1 and root not in self.outputs:
                queue.append((next(iter(self.users[root])), False))
            for index, upwards in queue:  # grows while it is walked
                if len(taken) + len(around) + self._n_scalars(taken) >= YNN_MAX_SIZE:
                    return root
                if not upwards and index in self.library:  # its only reader is such a call
                    both = self._n_instructions(taken) + self._n_instructions(
                        {index, *self.library[index]}
                    )
                    if both <= YNN_MAX_MERGED:
                        return self._merge(root, index, taken)
                    continue
                if (
                    index in seen
                    or index in taken
                    or index in given
                    or not self._suits_library(index)
                ):
                    continue
                seen.add(index)
                changed = True
                taken.add(index)
                around.discard(index)
                around.update(read for read in inputs[index] if read not in taken)
                for read in inputs[index]:
                    if upwards:
                        self.users[read].discard(index)
                        self.users[read].add(root)
                        if read not in taken and self._is_only_read_by(read, taken):
                            queue.append((read, True))
                if not upwards:
                    self._hand_over(root, index, taken)
                    root = index
                    if len(self.users[root]) == 1 and root not in self.outputs:
                        queue.append((next(iter(self.users[root])), False))
        return root

    def _merge(self, root: int, reader: int, taken: set[int]) -> int:
        """Make one call of two, of which the second alone reads the first."""
        taken |= {root, *self.library[reader]}
        self._hand_over(root, reader, taken)
        self.users[root].discard(reader)
        return reader

    def _n_instructions(self, members: set[int]) -> int:
        """What a call holds: operations, arguments and numbers."""
        inputs = self.program.inputs
        around = {read for index in members for read in inputs[index]} - members
        return len(members) + len(around) + self._n_scalars(members)

    def _hand_over(self, old: int, new: int, taken: set[int]) -> None:
        """What one operation read for a call of the library, another reads from now on."""
        for member in taken:
            for read in self.program.inputs[member]:
                if old in self.users[read]:
                    self.users[read].discard(old)
                    self.users[read].add(new)

    def _is_only_read_by(self, index: int, taken: set[int]) -> bool:
        return index not in self.outputs and self.users[index] <= taken

    def _n_scalars(self, taken: set[int]) -> int:
        """How many different numbers it is handed: to repeat, and to start reductions from."""
        program = self.program
        values = set()
        for index in taken:
            kind, attribute = program.kind[index], program.attribute[index]
            if kind == "broadcast" and not program.inputs[index]:
                values.add(attribute)
            elif kind == "reduce":
                values.add(-math.inf if "max" in attribute else 0.0)
            elif kind == "reduce_window":
                values.add(-math.inf if attribute[3] is True else 0.0)
        return len(values)

    def _suits_library(self, index: int) -> bool:
        """YnnMatcher::IsOpSupported, for 32-bit floats."""
        program = self.program
        kind = program.kind[index]
        if kind in _YNN_ANY_SIZE:
            return True
        if kind == "dot":
            rows, columns = program.shape[index][-2:]
            return program.attribute[index] != "tn" and rows > 1 and columns > 1
        if kind == "convolution":
            return self._suits_convolution(index)
        if kind == "reduce_window":
            window, strides, _, _ = program.attribute[index]
            if not all(
                width == stride or width == 1 for width, stride in zip(window, strides, strict=True)
            ):
                return False
        elif kind != "reduce" and kind not in _YNN:
            return False
        return self._is_large(index)

    def _suits_convolution(self, index: int) -> bool:
        program = self.program
        out, x = program.shape[index], program.shape[program.inputs[index][0]]
        kernel = program.shape[program.inputs[index][1]]
        return (
            program.attribute[index][0] == "forward"
            and len(out) == 4
            and max(x[-1], out[-1]) > 16
            and all(after <= before for after, before in zip(out[1:3], x[1:3], strict=True))
            and all(width <= before for width, before in zip(kernel[:2], x[1:3], strict=True))
        )

    def _is_large(self, index: int) -> bool:
        program = self.program
        return any(
            math.prod(program.shape[one]) >= YNN_MIN_ELEMENTS
            for one in (index, *program.inputs[index])
        )

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
            return Kernel(root, self._without_constants(inner, members), frozenset())
        members = {root}
        reads = list(dict.fromkeys(inputs[root]))
        reused = set(inputs[root]) if kind[root] in _REUSING else set()
        changed = kind[root] in FUSIBLE
        while changed:
            changed = False
            for producer in sorted(reads, reverse=True):
                if producer in self.unique or not self._may_fuse(producer, root, reused):
                    continue
                members.add(producer)
                reads.remove(producer)
                if producer in reused or kind[producer] in _REUSING:
                    reused.update(inputs[producer])
                for read in inputs[producer]:
                    self.users[read].add(root)
                    if read not in members and read not in reads:
                        reads.append(read)
                self.users[producer].discard(root)
                if not self.users[producer] and producer not in self.outputs:
                    self._remove(producer)
                changed = True
                break
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
