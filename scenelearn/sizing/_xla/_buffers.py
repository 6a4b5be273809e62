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
            kernel.n_bytes_inside,
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
    gaps = [
        _Gap(
            n_bytes[argument],
            place.get(argument, 0),
            last_read.get(argument, -1),
            written[result],
            argument,
            result,
        )
        for argument, result in donated.items()
        if result in written
    ]
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
        gaps,
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


class _Gap(NamedTuple):
    """When a donated argument's memory is free: between its last reader and its new value."""

    n_bytes: int
    place: int
    opens: int
    closes: int
    before: int
    after: int


class _Life(NamedTuple):
    """An array that needs a place: its size, its place in the walk, and when it is needed."""

    n_bytes: int
    place: int
    start: int
    end: int
    root: int


def _not_into_arguments(
    lives: Sequence[_Life], gaps: Sequence[_Gap], kernel_of: Mapping[int, Kernel]
) -> set[int]:
    """Put each array, largest first, into the smallest argument that is free all its life.

    Two arrays may meet in one step: a kernel may write over what it reads last.

    Returns:
        The arrays for which there is none.
    """
    import numpy as np

    gaps = sorted(gaps, key=lambda gap: (-gap.n_bytes, gap.place))
    sizes = [-gap.n_bytes for gap in gaps]
    n = len(gaps)
    # each array that is put into a gap makes two of it, of the same argument
    opens, closes, argument = np.zeros((3, n + len(lives)), np.int64)
    opens[:n] = [gap.opens for gap in gaps]
    closes[:n] = [gap.closes for gap in gaps]
    argument[:n] = range(n)
    before, after = [gap.before for gap in gaps], [gap.after for gap in gaps]
    rest = set()
    for root, size, start, end in (
        (life.root, life.n_bytes, life.start, life.end)
        for life in sorted(lives, key=lambda one: (-one.n_bytes, one.place))
    ):
        own = kernel_of[root].elementwise
        free = np.flatnonzero((opens[:n] <= start) & (closes[:n] >= end))
        large = bisect_right(sizes, -size)
        free = free[argument[free] < large]
        for at in free[np.argsort(-argument[free], kind="stable")].tolist():
            meets = (opens[at] == start and before[at] not in own) or (
                closes[at] == end and root not in kernel_of[after[at]].elementwise
            )
            if not meets:
                opens[n], closes[n], argument[n] = end, closes[at], argument[at]
                before.append(root)
                after.append(after[at])
                closes[at], after[at] = start, root
                n += 1
                break
        else:
            rest.add(root)
    return rest


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
