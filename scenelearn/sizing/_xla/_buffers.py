"""Where the arrays lie: XLA's schedule, the life of every buffer, and how they are packed.

The schedule is breadth first (BFScheduler). Copies of donated weights are made where a weight is
still read when its new value is written (CopyInsertion). Then the buffers are given places,
largest first, in an argument's memory that nobody needs any more (BufferAssigner), and the others
are packed into one block (GlobalDecreasingSizeBestFitHeap, the better of two orders).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from ._fusion import Kernel
from ._program import Program


@dataclass(slots=True)
class Buffer:
    """A piece of memory and when it is needed, in steps of the schedule.

    Attributes:
        n_bytes: Its size.
        start: The step that writes it.
        end: The last step that reads it.
        values: The arrays that lie in it, one after the other.
    """

    n_bytes: int
    start: int
    end: int
    values: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the packing came to.

    Attributes:
        temporary_bytes: The block for all that is neither argument nor result.
        order: The kernels in the order in which they run.
        buffers: What lies in the block.
        peak_step: The step at which most of the block is in use.
    """

    temporary_bytes: int
    order: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    peak_step: int


def copied(program: Program, kernels: list[Kernel], donated: Mapping[int, int]) -> list[Kernel]:
    """Add a copy of each donated argument that is read by what may run after its update.

    Args:
        program: The operations; copies are added to it.
        kernels: Its kernels, each after those that it reads from.
        donated: For each donated argument the operation whose array takes its place.
    """
    argument_of = {result: argument for argument, result in donated.items()}
    bit = {argument: 1 << place for place, argument in enumerate(donated)}
    at = {kernel.root: place for place, kernel in enumerate(kernels)}
    before = [0] * len(kernels)  # the updates that need this kernel
    for place in range(len(kernels) - 1, -1, -1):
        kernel = kernels[place]
        if kernel.root in argument_of:
            before[place] |= bit[argument_of[kernel.root]]
        for read in kernel.reads:
            if read in at:
                before[at[read]] |= before[place]
    late: set[int] = set()
    for place, kernel in enumerate(kernels):
        for read in kernel.reads:
            if read in bit and not before[place] & bit[read]:
                late.add(read)
    if not late:
        return kernels
    copies = {
        argument: program.emit("copy", program.shape[argument], (argument,), "donated")
        for argument in sorted(late)
    }
    made = [Kernel(copy, (argument,), frozenset()) for argument, copy in copies.items()]
    return made + [
        Kernel(
            kernel.root,
            tuple(copies.get(read, read) for read in kernel.reads),
            frozenset(copies.get(read, read) for read in kernel.elementwise),
        )
        for kernel in kernels
    ]


def scheduled(program: Program, kernels: list[Kernel], arguments: Sequence[int]) -> list[Kernel]:
    """The kernels in breadth-first order: each joins the queue when its last input is there."""
    by_root = {kernel.root: kernel for kernel in kernels}
    readers: dict[int, list[Kernel]] = {}
    waiting: dict[int, int] = {}
    queue: deque[int] = deque()
    for kernel in kernels:
        waiting[kernel.root] = len(kernel.reads)
        for read in kernel.reads:
            readers.setdefault(read, []).append(kernel)
        if not kernel.reads:
            queue.append(kernel.root)
    queue.extend(arguments)
    for found in readers.values():  # the search for the winners of a window goes first
        found.sort(key=lambda kernel: not _searches(program, kernel.root))
    order = []
    while queue:
        index = queue.popleft()
        if index in by_root:
            order.append(by_root[index])
        for kernel in readers.get(index, ()):
            waiting[kernel.root] -= 1
            if not waiting[kernel.root]:
                queue.append(kernel.root)
    return order


def _searches(program: Program, index: int) -> bool:
    if program.kind[index] == "pad":
        return bool(program.attribute[index][1] == -math.inf)
    return program.kind[index] == "reduce_window_tuple"


def visited(kernels: Sequence[Kernel], outputs: Sequence[int]) -> dict[int, int]:
    """Each array's place when one walks from the outputs to what they read, depth first."""
    reads = {kernel.root: kernel.reads for kernel in kernels}
    place: dict[int, int] = {}
    for output in outputs:
        stack = [(output, False)]
        while stack:
            index, done = stack.pop()
            if index in place:
                continue
            if done:
                place[index] = len(place)
                continue
            stack.append((index, True))
            stack += [(read, False) for read in reversed(reads.get(index, ())) if read not in place]
    return place


def lay_out(
    program: Program,
    order: Sequence[Kernel],
    *,
    arguments: Sequence[int],
    outputs: Sequence[int],
    donated: Mapping[int, int],
) -> Layout:
    """Give every array a place; see the module's head for how."""
    n_bytes = program.n_bytes
    place = visited(order, outputs)
    last_read: dict[int, int] = {}
    views: dict[int, int] = {}
    for step, kernel in enumerate(order):
        if program.kind[kernel.root] == "view" and len(kernel.reads) == 1:
            views[kernel.root] = views.get(kernel.reads[0], kernel.reads[0])
        for read in kernel.reads:
            last_read[views.get(read, read)] = step
    results = {views.get(index, index) for index in outputs}
    fixed = set(arguments) | results
    written = {kernel.root: step for step, kernel in enumerate(order)}
    spaces = {
        argument: _Space(
            n_bytes[argument],
            place.get(argument, 0),
            [(-1, last_read.get(argument, -1), argument), (written[result], len(order), result)],
        )
        for argument, result in donated.items()
        if result in written
    }
    kernel_of = {kernel.root: kernel for kernel in order}
    loose = [
        kernel.root for kernel in order if kernel.root not in views and kernel.root not in fixed
    ]
    rest = _not_into_arguments(
        [
            _Life(
                n_bytes[root],
                place.get(root, 0),
                written[root],
                last_read.get(root, written[root]),
                root,
            )
            for root in loose
        ],
        list(spaces.values()),
        kernel_of,
    )
    buffers: list[Buffer] = []
    buffer_of: dict[int, Buffer] = {}
    for step, kernel in enumerate(order):
        root = kernel.root
        if root not in rest:
            continue
        end = last_read.get(root, step)
        shared = None
        for read in kernel.reads:
            if read in kernel.elementwise:
                one = buffer_of.get(views.get(read, read))
                if one is not None and one.end == step and one.n_bytes == n_bytes[root]:
                    shared = one
                    break
        if shared is None:
            shared = Buffer(n_bytes[root], step, end)
            buffers.append(shared)
        shared.end = end
        shared.values.append(root)
        buffer_of[root] = shared
    block = min((_packed(buffers, key) for key in (_by_size, _by_duration)), default=0)
    changes = [0] * (len(order) + 1)
    for buffer in buffers:
        changes[buffer.start] += buffer.n_bytes
        changes[min(buffer.end + 1, len(order))] -= buffer.n_bytes
    live = peak = peak_step = 0
    for step, change in enumerate(changes):
        live += change
        if live > peak:
            peak, peak_step = live, step
    return Layout(block, tuple(order), tuple(buffers), peak_step)


@dataclass(slots=True)
class _Space:
    """The memory of a donated argument: its size, its place in the walk, and when it is taken."""

    n_bytes: int
    place: int
    taken: list[tuple[int, int, int]]


class _Life(NamedTuple):
    """An array that needs a place: its size, its place in the walk, and when it is needed."""

    n_bytes: int
    place: int
    start: int
    end: int
    root: int


def _not_into_arguments(
    lives: Sequence[_Life], spaces: Sequence[_Space], kernel_of: Mapping[int, Kernel]
) -> set[int]:
    """Put each array, largest first, into the smallest argument that is free all its life.

    Returns:
        The arrays for which there is none.
    """
    import numpy as np

    spaces = sorted(spaces, key=lambda space: (-space.n_bytes, space.place))
    sizes = [-space.n_bytes for space in spaces]
    # an argument is free between its own last reader and its update: most are ruled out by that
    opens = np.array([space.taken[0][1] for space in spaces], np.int64)
    closes = np.array([space.taken[1][0] for space in spaces], np.int64)
    rest = set()
    for life in sorted(lives, key=lambda one: (-one.n_bytes, one.place)):
        n = bisect_right(sizes, -life.n_bytes)
        free = np.flatnonzero((opens[:n] <= life.start) & (closes[:n] >= life.end))
        for at in free[::-1].tolist():
            taken = spaces[at].taken
            place = bisect_right(taken, life.end, key=itemgetter(0))
            if not _collides(life, taken, place, kernel_of):
                taken.insert(place, (life.start, life.end, life.root))
                break
        else:
            rest.add(life.root)
    return rest


def _collides(
    life: _Life, taken: list[tuple[int, int, int]], place: int, kernel_of: Mapping[int, Kernel]
) -> bool:
    """Whether an array cannot lie where others do, which are in order: `place` come before its end.

    Two may meet in one step: a kernel may write over what it reads last.
    """
    while place:
        place -= 1
        first, last, value = taken[place]
        if last < life.start:
            return False  # and so do all before it
        over_it = last == life.start and value in kernel_of[life.root].elementwise
        under_it = first == life.end and life.root in kernel_of[value].elementwise
        if not (over_it or under_it):
            return True
    return False


def _by_size(buffer: Buffer) -> tuple[int, int]:
    return (-buffer.n_bytes, buffer.start - buffer.end)


def _by_duration(buffer: Buffer) -> tuple[int, int]:
    return (buffer.start - buffer.end, -buffer.n_bytes)


def _packed(buffers: Sequence[Buffer], key: Callable[[Buffer], tuple[int, int]]) -> int:
    """The size of the block when buffers are placed in this order, each in its tightest gap."""
    import numpy as np

    buffers = sorted(buffers, key=key)
    n = len(buffers)
    starts, ends = np.empty(n, np.int64), np.empty(n, np.int64)
    lows, highs = np.empty(n, np.int64), np.empty(n, np.int64)
    total = 0
    for place, buffer in enumerate(buffers):
        near = (starts[:place] <= buffer.end) & (ends[:place] >= buffer.start)
        low, high = lows[:place][near], highs[:place][near]
        size = buffer.n_bytes
        if len(low):
            by = np.argsort(low, kind="stable")
            low, high = low[by], np.maximum.accumulate(high[by])
            gaps = low[1:] - high[:-1]
            fitting = np.flatnonzero(gaps >= size)
            if low[0] >= size and (not len(fitting) or low[0] <= gaps[fitting].min()):
                offset = 0
            elif len(fitting):
                offset = int(high[:-1][fitting[np.argmin(gaps[fitting])]])
            else:
                offset = int(high[-1])
        else:
            offset = 0
        starts[place], ends[place] = buffer.start, buffer.end
        lows[place], highs[place] = offset, offset + size
        total = max(total, offset + size)
    return total
