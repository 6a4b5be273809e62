"""Which operations XLA:CPU hands to its library YNN, several to one call (LibraryRewriter).

From the outputs up, each matrix product, convolution, reduction and pooling window that YNN can
compute becomes a call. The calls of reductions and windows then grow, breadth first and again and
again until nothing more joins: upwards by operations that nobody else reads, downwards by their
reader as long as there is one only. A product or a convolution that has a call already joins as a
whole, and the walk goes no further behind it until the next round.

What the version in jaxlib 0.10.2 does was read off its own log (a program run with the environment
variables ``TF_CPP_VMODULE=library_rewriter=4`` and ``TF_CPP_MAX_VLOG_LEVEL=4``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ._program import ELEMENTWISE, Program

MIN_ELEMENTS = 4096
"""Below this YNN leaves an operation to XLA (IsInstructionPreferredByYnn)."""

MAX_SIZE = 100
"""From this many operations, arguments and constants on, a call grows no more."""

_ANY_SIZE = ("broadcast", "view", "pad", "iota")  # a transposition is a copy by then
_KNOWN = (ELEMENTWISE - {"and", "clamp", "compare", "convert", "not", "or", "select", "xor"}).union(
    _ANY_SIZE
)
_GROWING = frozenset(("reduce", "reduce_window"))
_STARTING = _GROWING | {"dot", "convolution"}


@dataclass(slots=True)
class Call:
    """One call of the library.

    Attributes:
        root: The operation whose array it gives.
        members: All its operations.
        reads: What it reads from outside, in the order in which it was met.
    """

    root: int
    members: set[int]
    reads: dict[int, None]


def calls(
    program: Program, users: Sequence[set[int]], outputs: set[int], alive: Sequence[bool]
) -> list[Call]:
    """The calls of a program.

    Args:
        program: The operations.
        users: For each operation those that read it.
        outputs: The operations whose arrays the step hands back.
        alive: Whether an operation is needed.

    Returns:
        Every call; no operation is in two.
    """
    kind = program.kind
    owner: dict[int, Call] = {}
    for start in range(len(kind) - 1, -1, -1):
        if kind[start] in _STARTING and alive[start] and start not in owner:
            if not _is_known(program, start):
                continue
            call = Call(start, {start}, dict.fromkeys(program.inputs[start]))
            owner[start] = call
            if kind[start] in _GROWING:
                while _grown(program, call, owner, users, outputs):
                    pass
    return list({id(call): call for call in owner.values()}.values())


def _grown(
    program: Program,
    call: Call,
    owner: dict[int, Call],
    users: Sequence[set[int]],
    outputs: set[int],
) -> bool:
    """Let a call grow for one round; whether anything joined."""

    def above(reads: Sequence[int], reader: int | None) -> Iterator[int]:
        """What is read by nobody but the call, and by the operation that is about to join."""
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
        """The one reader, be it an operation or a call."""
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
        if not _is_known(program, index):
            continue
        inputs = program.inputs[index]
        if upwards:
            queue.extend((one, True) for one in above(inputs, index))
        else:
            queue.extend((one, False) for one in below(index))
            call.root = index
        owner[index] = call
        call.members.add(index)
        call.reads.pop(index, None)
        call.reads.update(dict.fromkeys(one for one in inputs if one not in call.members))
        changed = True
    return changed


def _merge(call: Call, other: Call, owner: dict[int, Call], *, upwards: bool) -> None:
    """Take another call in whole."""
    if not upwards:
        call.root = other.root
    call.members |= other.members
    call.reads = {read: None for read in (*other.reads, *call.reads) if read not in call.members}
    for member in other.members:
        owner[member] = call


def _size(program: Program, call: Call) -> int:
    """Operations and arguments; numbers to repeat and to start reductions from count as these."""
    return len(call.members) + len(call.reads) + len(_numbers(program, call))


def _numbers(program: Program, call: Call) -> set[float]:
    found = set()
    for index in call.members:
        kind, attribute = program.kind[index], program.attribute[index]
        if kind == "broadcast" and not program.inputs[index]:
            found.add(attribute)
        elif kind == "reduce":
            found.add(-math.inf if "max" in attribute else 0.0)
        elif kind == "reduce_window":
            found.add(-math.inf if attribute[3] is True else 0.0)
    return found


# What YNN can compute (YnnMatcher::IsOpSupported), for 32-bit floats


def _is_known(program: Program, index: int) -> bool:
    kind = program.kind[index]
    if kind in _CHECKS:
        return _CHECKS[kind](program, index)
    return kind in _ANY_SIZE or (kind in _KNOWN and _is_large(program, index))


def _is_large(program: Program, index: int) -> bool:
    return any(
        math.prod(program.shape[one]) >= MIN_ELEMENTS for one in (index, *program.inputs[index])
    )


def _is_known_product(program: Program, index: int) -> bool:
    rows, columns = program.shape[index][-2:]
    return bool(program.attribute[index] != "tn") and rows > 1 and columns > 1


def _is_known_convolution(program: Program, index: int) -> bool:
    out, x = program.shape[index], program.shape[program.inputs[index][0]]
    kernel = program.shape[program.inputs[index][1]]
    return (
        program.attribute[index][0] == "forward"
        and len(out) == 4
        and max(x[-1], out[-1]) > 16
        and all(after <= before for after, before in zip(out[1:3], x[1:3], strict=True))
        and all(width <= before for width, before in zip(kernel[:2], x[1:3], strict=True))
    )


def _is_known_window(program: Program, index: int) -> bool:
    window, strides, _, _ = program.attribute[index]
    return _is_large(program, index) and all(
        width == stride or width == 1 for width, stride in zip(window, strides, strict=True)
    )


_CHECKS: dict[str, Callable[[Program, int], bool]] = {
    "convolution": _is_known_convolution,
    "dot": _is_known_product,
    "pad": lambda program, index: program.attribute[index][0] != "spread",
    "reduce": _is_large,
    "reduce_window": _is_known_window,
}
