"""Buffer assignment: XLA's schedule, the live range of each buffer, and its offset.

The schedule is breadth first (BFScheduler). A donated weight is copied if it is still read when
its new value is written (CopyInsertion). Then arrays are assigned, largest first, to the memory of
arguments that are no longer needed (BufferAssigner). The others are packed into one block
(GlobalDecreasingSizeBestFitHeap, the better of two orders).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from scenelearn.sizing._xla._fusion import Kernel
from scenelearn.sizing._xla._program import Program


@dataclass(slots=True)
class Buffer:
    """A piece of memory and its live range, in steps of the schedule.

    Attributes:
        n_bytes: the size.
        start: the step that writes it.
        end: the last step that reads it.
        values: the arrays that share it, in order.
    """

    n_bytes: int
    start: int
    end: int
    values: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """The result of buffer assignment.

    Attributes:
        temporary_bytes: the size of the block for everything but arguments and results.
        order: the kernels in execution order.
        buffers: the buffers in the block.
        peak_step: the step with the most bytes in use.
    """

    temporary_bytes: int
    order: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    peak_step: int


def insert_copies(
    program: Program, kernels: list[Kernel], donated: Mapping[int, int]
) -> list[Kernel]:
    """Add a copy of each donated argument that may be read after its update.

    Args:
        program: the operations; copies are added to it.
        kernels: its kernels, in topological order.
        donated: the operation whose array replaces each donated argument.
    """
    argument_of = {result: argument for argument, result in donated.items()}
    bit = {argument: 1 << place for place, argument in enumerate(donated)}
    at = {kernel.root: place for place, kernel in enumerate(kernels)}
    before = [0] * len(kernels)  # the updates that depend on this kernel
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
    copy_kernels = [Kernel(copy, (argument,), frozenset()) for argument, copy in copies.items()]
    return copy_kernels + [
        Kernel(
            kernel.root,
            tuple(copies.get(read, read) for read in kernel.reads),
            frozenset(copies.get(read, read) for read in kernel.elementwise),
            kernel.n_bytes_inside,
        )
        for kernel in kernels
    ]


def schedule(program: Program, kernels: list[Kernel], arguments: Sequence[int]) -> list[Kernel]:
    """Order the kernels breadth first: each is queued when its last input is available."""
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
    for users in readers.values():  # the search for the maxima of windows goes first
        users.sort(key=lambda kernel: not _searches(program, kernel.root))
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


def postorder(kernels: Sequence[Kernel], outputs: Sequence[int]) -> dict[int, int]:
    """Number the arrays in depth-first postorder, starting from the outputs."""
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


def assign_buffers(
    program: Program,
    order: Sequence[Kernel],
    *,
    arguments: Sequence[int],
    outputs: Sequence[int],
    donated: Mapping[int, int],
) -> Layout:
    """Assign every array to memory; see the module's docstring."""
    n_bytes = program.n_bytes
    place = postorder(order, outputs)
    last_read: dict[int, int] = {}
    views: dict[int, int] = {}
    for step, kernel in enumerate(order):
        is_view = program.kind[kernel.root] == "view" and len(kernel.reads) == 1
        if is_view and n_bytes[kernel.reads[0]] <= n_bytes[kernel.root]:  # otherwise of a slice
            views[kernel.root] = views.get(kernel.reads[0], kernel.reads[0])
        for read in kernel.reads:
            last_read[views.get(read, read)] = step
    results = {views.get(index, index) for index in outputs}
    fixed = set(arguments) | results
    written = {kernel.root: step for step, kernel in enumerate(order)}
    gaps = [
        _FreeInterval(
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
    rest = _reuse_argument_memory(
        [
            _LiveRange(
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
                buffer = buffer_of.get(views.get(read, read))
                if buffer and buffer.end == step and buffer.n_bytes == n_bytes[root]:
                    shared = buffer
                    break
        if shared is None:
            shared = Buffer(n_bytes[root], step, end)
            buffers.append(shared)
        shared.end = end
        shared.values.append(root)
        buffer_of[root] = shared
    block = min((_packed_bytes(buffers, key) for key in (_by_size, _by_duration)), default=0)
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


class _FreeInterval(NamedTuple):
    """The time when a donated argument's memory is free: from its last read to its update."""

    n_bytes: int
    place: int
    opens: int
    closes: int
    before: int
    after: int


class _LiveRange(NamedTuple):
    """An array's size, its number in postorder, and its live range."""

    n_bytes: int
    place: int
    start: int
    end: int
    root: int


def _reuse_argument_memory(
    lives: Sequence[_LiveRange], gaps: Sequence[_FreeInterval], kernel_of: Mapping[int, Kernel]
) -> set[int]:
    """Assign each array, largest first, to the smallest argument free over its live range.

    Two arrays may share a step: a kernel may overwrite what it reads for the last time.

    Returns:
        The arrays that fit into no argument.
    """
    import numpy as np

    gaps = sorted(gaps, key=lambda gap: (-gap.n_bytes, gap.place))
    sizes = [-gap.n_bytes for gap in gaps]
    n = len(gaps)
    # each array assigned to a free interval splits it in two
    opens, closes, argument = np.zeros((3, n + len(lives)), np.int64)
    opens[:n] = [gap.opens for gap in gaps]
    closes[:n] = [gap.closes for gap in gaps]
    argument[:n] = range(n)
    before, after = [gap.before for gap in gaps], [gap.after for gap in gaps]
    rest = set()
    for root, size, start, end in (
        (life.root, life.n_bytes, life.start, life.end)
        for life in sorted(lives, key=lambda life: (-life.n_bytes, life.place))
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


def _packed_bytes(buffers: Sequence[Buffer], key: Callable[[Buffer], tuple[int, int]]) -> int:
    """The size of the block if buffers are placed in this order, each in the tightest gap."""
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
