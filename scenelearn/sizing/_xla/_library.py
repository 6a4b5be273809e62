"""Calls of the YNN library: which operations XLA:CPU hands over, several per call.

From the outputs upward, each matrix product, convolution, reduction and pooling window that YNN
supports starts a call (LibraryRewriter). The calls of reductions and windows then grow, breadth
first and in rounds until nothing more joins: upward by operations without other users, downward
by their user while there is only one. A call of a product or convolution joins as a whole, and the
search does not continue behind it until the next round.

The behavior of jaxlib 0.10.2 was taken from its own log (of a program run with the environment
variables ``TF_CPP_VMODULE=library_rewriter=4`` and ``TF_CPP_MAX_VLOG_LEVEL=4``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scenelearn.sizing._xla._program import ELEMENTWISE, Program

MIN_ELEMENTS = 4096
"""YNN leaves smaller operations to XLA (IsInstructionPreferredByYnn)."""

MAX_SIZE = 100
"""A call with this many operations, arguments and constants stops growing."""

_ANY_SIZE = ("broadcast", "view", "pad", "iota")  # transposes are copies at this stage
_SUPPORTED = (
    ELEMENTWISE - {"and", "clamp", "compare", "convert", "not", "or", "select", "xor"}
).union(_ANY_SIZE)
_GROWING = frozenset(("reduce", "reduce_window"))
_STARTING = _GROWING | {"dot", "convolution"}


@dataclass(slots=True)
class LibraryCall:
    """One call of the library.

    Attributes:
        root: the operation whose array it writes.
        members: all its operations.
        reads: the arrays that it reads from outside, in the order of discovery.
    """

    root: int
    members: set[int]
    reads: dict[int, None]


def find_library_calls(
    program: Program, users: Sequence[set[int]], outputs: set[int], alive: Sequence[bool]
) -> list[LibraryCall]:
    """Find the library calls of a program.

    Args:
        program: the operations.
        users: the operations that read each operation.
        outputs: the operations whose arrays the step returns.
        alive: whether each operation is needed.

    Returns:
        The calls; no operation is in two of them.
    """
    kind = program.kind
    owner: dict[int, LibraryCall] = {}
    for start in range(len(kind) - 1, -1, -1):
        if kind[start] in _STARTING and alive[start] and start not in owner:
            if not _is_supported(program, start):
                continue
            call = LibraryCall(start, {start}, dict.fromkeys(program.inputs[start]))
            owner[start] = call
            if kind[start] in _GROWING:
                while _grow(program, call, owner, users, outputs):
                    pass
    return list({id(call): call for call in owner.values()}.values())


def _grow(
    program: Program,
    call: LibraryCall,
    owner: dict[int, LibraryCall],
    users: Sequence[set[int]],
    outputs: set[int],
) -> bool:
    """Grow a call for one round; return whether anything joined."""

    def above(reads: Sequence[int], reader: int | None) -> Iterator[int]:
        """The reads whose only users are the call and the operation that is joining."""
        for read in reads:
            if (
                (read not in owner or owner[read] is not call)
                and read not in seen
                and read not in outputs
                and all(user in call.members or user == reader for user in users[read])
            ):
                seen.add(read)
                yield read

    def below(index: int) -> Iterator[int]:
        """The only user, an operation or a call."""
        readers = {owner[user].root if user in owner else user for user in users[index]}
        if len(readers) == 1 and index not in outputs:
            (reader,) = readers
            if reader not in seen:
                seen.add(reader)
                yield reader

    seen: set[int] = set()
    queue = deque((index, True) for index in above(list(call.reads), None))
    queue.extend((index, False) for index in below(call.root))
    changed = False
    while queue and _size(program, call) < MAX_SIZE:
        index, upwards = queue.popleft()
        other = owner.get(index)
        if other is not None:
            _merge(call, other, owner, upwards=upwards)
            changed = True
            continue
        if not _is_supported(program, index):
            continue
        inputs = program.inputs[index]
        if upwards:
            queue.extend((read, True) for read in above(inputs, index))
        else:
            queue.extend((read, False) for read in below(index))
            call.root = index
        owner[index] = call
        call.members.add(index)
        call.reads.pop(index, None)
        call.reads.update(dict.fromkeys(read for read in inputs if read not in call.members))
        changed = True
    return changed


def _merge(
    call: LibraryCall, other: LibraryCall, owner: dict[int, LibraryCall], *, upwards: bool
) -> None:
    """Merge another call into this one."""
    if not upwards:
        call.root = other.root
    call.members |= other.members
    call.reads = {read: None for read in (*other.reads, *call.reads) if read not in call.members}
    for member in other.members:
        owner[member] = call


def _size(program: Program, call: LibraryCall) -> int:
    """The number of operations, arguments and constants."""
    return len(call.members) + len(call.reads) + len(_constants(program, call))


def _constants(program: Program, call: LibraryCall) -> set[float]:
    constants = set()
    for index in call.members:
        kind, attribute = program.kind[index], program.attribute[index]
        if kind == "broadcast" and not program.inputs[index]:
            constants.add(attribute)
        elif kind == "reduce":
            constants.add(-math.inf if "max" in attribute else 0.0)
        elif kind == "reduce_window":
            constants.add(-math.inf if attribute[3] is True else 0.0)
    return constants


# What YNN supports (YnnMatcher::IsOpSupported), for float32


def _is_supported(program: Program, index: int) -> bool:
    kind = program.kind[index]
    if kind in _CHECKS:
        return _CHECKS[kind](program, index)
    return kind in _ANY_SIZE or (kind in _SUPPORTED and _is_large(program, index))


def _is_large(program: Program, index: int) -> bool:
    return any(
        math.prod(program.shape[at]) >= MIN_ELEMENTS for at in (index, *program.inputs[index])
    )


def _is_supported_product(program: Program, index: int) -> bool:
    rows, columns = program.shape[index][-2:]
    return bool(program.attribute[index] != "tn") and rows > 1 and columns > 1


def _is_supported_convolution(program: Program, index: int) -> bool:
    out, x = program.shape[index], program.shape[program.inputs[index][0]]
    kernel = program.shape[program.inputs[index][1]]
    return (
        program.attribute[index][0] == "forward"
        and len(out) == 4
        and max(x[-1], out[-1]) > 16
        and all(after <= before for after, before in zip(out[1:3], x[1:3], strict=True))
        and all(width <= before for width, before in zip(kernel[:2], x[1:3], strict=True))
    )


def _is_supported_window(program: Program, index: int) -> bool:
    window, strides, _, _ = program.attribute[index]
    return _is_large(program, index) and all(
        width == stride or width == 1 for width, stride in zip(window, strides, strict=True)
    )


_CHECKS: dict[str, Callable[[Program, int], bool]] = {
    "convolution": _is_supported_convolution,
    "dot": _is_supported_product,
    "pad": lambda program, index: program.attribute[index][0] != "spread",
    "reduce": _is_large,
    "reduce_window": _is_supported_window,
}
