"""Memory that one run of a program gives back is kept for the next, on Linux.

XLA asks the C library for the memory of a program's maps each time it runs, and gives it back at
the end. glibc hands pieces that large back to the system at once, which has to clear every page
anew for the next step: that was a tenth to a third of a training step's time.

(One heap for all threads, M_ARENA_MAX, would save the clearing in threads' heaps above 64 MB, too.
But while photos are made in threads beside the step, a step took 1.5 times as long with it.)
"""

from __future__ import annotations

import functools
import os
import platform

_LARGEST = 2**29  # bytes of an array that is kept; the system gets larger ones back at once
_MOST = 2**30  # bytes that are kept in all
_MORE = 2**27  # bytes that a heap grows by beyond what is asked for: with less, threads' heaps go
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to a gigabyte that is given back, for the rest of the process.

    Returns:
        Whether it does: not with another C library, and not where the user has set up malloc with
        environment variables (MALLOC_TRIM_THRESHOLD_ and the like, GLIBC_TUNABLES).

    References:
        mallopt(3), Linux manual pages.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    import ctypes

    set_option = ctypes.CDLL(None).mallopt
    options = {
        _MMAP_THRESHOLD: _LARGEST,
        _TRIM_THRESHOLD: _MOST,
        _TOP_PAD: _MORE,
    }
    return all(set_option(name, value) for name, value in options.items())
