"""Parallel maps in threads, whose results come in the order of their inputs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_CHUNK = 32  # items that a thread takes at a time; one by one, threads would wait for each other

T = TypeVar("T")
S = TypeVar("S")


def map_ahead(function: Callable[[int], T], numbers: Iterable[int], workers: int) -> Iterator[T]:
    """Map a function over numbers; workers compute the next results while one is used.

    These are threads, not processes: decoding and NumPy release the GIL, nothing is forked (which
    hangs once JAX runs), and no data is copied between processes.

    Args:
        function: called once per number, by several workers at once.
        numbers: its arguments.
        workers: number of threads; with 0, each result is computed when it is requested.

    Yields:
        The results, in the order of `numbers`. An exception is raised in place of its result.

    Example:
        >>> list(map_ahead(lambda k: k * k, range(5), workers=2))
        [0, 1, 4, 9, 16]
    """
    if not workers:
        yield from map(function, numbers)
        return
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for number in numbers:
            pending.append(pool.submit(function, number))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def map_in_threads(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Map a function over a sequence, with one thread per core.

    Args:
        function: called once per item.
        items: its arguments.

    Yields:
        The results, in the order of `items`; only few are computed ahead.

    Example:
        >>> list(map_in_threads(len, ["a", "bcd", ""]))
        [1, 3, 0]
    """

    def map_chunk(start: int) -> list[T]:
        return [function(item) for item in items[start : start + _CHUNK]]

    for chunk in map_ahead(map_chunk, range(0, len(items), _CHUNK), os.cpu_count() or 1):
        yield from chunk
