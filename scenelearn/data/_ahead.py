"""Making things in threads while the one before is used, in an order that threads cannot change."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def made_ahead(make: Callable[[int], T], numbers: Iterable[int], workers: int) -> Iterator[T]:
    """What `make` gives for each number, in their order.

    Threads, not processes: decoding and NumPy release the interpreter's lock, nothing is forked
    (which hangs once JAX runs), no copy is sent between processes, and none can be killed alone.

    Args:
        make: called once for each number, with several workers at once.
        numbers: what to call it with.
        workers: how many threads work ahead; with 0 each thing is made when it is asked for.

    Yields:
        The results. An error of `make` is raised in its result's place.

    Example:
        >>> list(made_ahead(lambda k: k * k, range(5), workers=2))
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
