"""Work in threads: how many, parallel maps, and a pool that all of them share.

``SCENELEARN_THREADS`` limits the number of threads; see `n_threads`.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from scenelearn._cgroups import cpu_quota
from scenelearn._checks import check_integer

_VARIABLE = "SCENELEARN_THREADS"

_CHUNK = 32  # items that a thread takes at a time; one by one, threads would wait for each other

T = TypeVar("T")
S = TypeVar("S")


def n_threads() -> int:
    """Return how many threads should compute at the same time.

    ``SCENELEARN_THREADS`` if it is set. Otherwise the number of cores that this process may use, or
    fewer if the CPU quota of its container is lower, such as 1 for a quota of 1.5 CPUs.

    Raises:
        ArgumentError: if ``SCENELEARN_THREADS`` is not a positive integer.
    """
    setting = os.environ.get(_VARIABLE)
    if setting:
        value = int(setting) if setting.strip().isdecimal() else setting
        return check_integer(_VARIABLE, value, low=1, advice="Unset it to use all cores.")
    try:
        n = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        n = os.cpu_count() or 1
    return max(1, int(min(n, cpu_quota())))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="scenelearn")


if hasattr(os, "register_at_fork"):  # the threads of a parent do not exist in its child
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_in_background(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread of the pool.

    Example:
        >>> run_in_background(lambda: 1 + 1).result()
        2
    """
    return _pool().submit(function)


def run_in_threads(function: Callable[[int], None], numbers: Iterable[int]) -> None:
    """Call a function with each number, in this thread and `n_threads` - 1 others.

    The threads are shared by all calls in this process. This one never waits for another call's
    work, so calls may also come from several threads.

    Args:
        function: called by several threads at once.
        numbers: its arguments, which are taken in their order.

    Raises:
        Exception: the first one that the function raised. Other calls are completed before.
    """
    items, errors = list(numbers), list[Exception]()
    remaining = iter(items)

    def work() -> None:
        try:
            for number in remaining:
                function(number)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
        finally:
            deque(remaining, maxlen=0)  # after an error, no thread starts another call

    helpers = [_pool().submit(work) for _ in range(min(n_threads(), len(items)) - 1)]
    try:
        work()
    finally:
        wait([helper for helper in helpers if not helper.cancel()])
    if errors:
        raise errors[0]


def map_ahead(
    function: Callable[[int], T],
    numbers: Iterable[int],
    workers: int,
    *,
    cancel: threading.Event | None = None,
) -> Generator[T]:
    """Map a function over numbers; workers compute the next results while one is used.

    These are threads, not processes: decoding and NumPy release the GIL, nothing is forked (which
    hangs once JAX runs), and no data is copied between processes.

    Args:
        function: called once per number, by several workers at once.
        numbers: its arguments.
        workers: number of threads; with 0, each result is computed when it is requested.
        cancel: set in the end, before this thread waits for the calls that are still running, so
            that long ones can stop: after Ctrl-C, say.

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
        if cancel is not None:
            cancel.set()
        pool.shutdown(cancel_futures=True)


def map_in_threads(function: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Map a function over a sequence, with `n_threads` threads.

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

    for chunk in map_ahead(map_chunk, range(0, len(items), _CHUNK), n_threads()):
        yield from chunk
