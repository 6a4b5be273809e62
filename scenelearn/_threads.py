"""Making things in threads while the one before is used, in an order that threads cannot change."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_AT_ONCE = 32  # things that a thread takes on at a time; one by one they would wait for each other

T = TypeVar("T")
S = TypeVar("S")


def map_ahead(make: Callable[[int], T], numbers: Iterable[int], workers: int) -> Iterator[T]:
    """What `make` gives for each number, in their order.

    Threads, not processes: decoding and NumPy release the interpreter's lock, nothing is forked
    (which hangs once JAX runs), no copy is sent between processes, and none can be killed alone.

    Args:
        make: called once for each number, with several workers at once.
        numbers: what to call it with.
        workers: how many threads work ahead; with 0 each thing is made when it is asked for.

    Yields:
        The results. An error of `make` is raised in its result's place.

    Examples:
        >>> list(map_ahead(lambda k: k * k, range(5), workers=2))
        [0, 1, 4, 9, 16]
    """
    if not workers:
        yield from map(make, numbers)
        return
    coming: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for number in numbers:
            coming.append(pool.submit(make, number))
            if len(coming) > workers:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def map_in_threads(function: Callable[[S], T], things: Sequence[S]) -> Iterator[T]:
    """What `function` gives for each thing, in their order, by as many threads as there are cores.

    Args:
        function: called once for each thing.
        things: what to call it with.

    Yields:
        The results; of few more than have been asked for are kept.

    Examples:
        >>> list(map_in_threads(len, ["a", "bcd", ""]))
        [1, 3, 0]
    """

    def some(start: int) -> list[T]:
        return [function(thing) for thing in things[start : start + _AT_ONCE]]

    for part in map_ahead(some, range(0, len(things), _AT_ONCE), os.cpu_count() or 1):
        yield from part
