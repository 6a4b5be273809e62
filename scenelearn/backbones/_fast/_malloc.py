"""Let glibc keep freed memory for the next run of a program, on Linux.

XLA allocates the memory for a program's activations on each run and frees it at the end. glibc
returns such large blocks to the system at once, which then has to clear every page again for the
next step: a tenth to a third of the time of a training step.

(A single heap for all threads, M_ARENA_MAX, would avoid the clearing in threads' heaps above 64 MB,
too. But while threads decode photos next to the step, a step took 1.5 times as long with it.)
"""

from __future__ import annotations

import functools
import os
import platform
import sys

_MAX_BLOCK = 2**29  # bytes; larger arrays are returned to the system at once
_MAX_KEPT = 2**30  # bytes kept in total
_TOP_PADDING = 2**27  # bytes that heaps grow in advance; with less, threads' heaps are freed
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep up to a gigabyte of freed memory for the rest of the process.

    Returns:
        Whether it does. False with another C library, or if the user has configured malloc by
        environment variables (MALLOC_TRIM_THRESHOLD_ and the like, GLIBC_TUNABLES).

    References:
        mallopt(3), Linux manual pages.
    """
    is_configured = any(name.startswith("MALLOC_") for name in os.environ)
    if is_configured or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    options = {
        _MMAP_THRESHOLD: _MAX_BLOCK,
        _TRIM_THRESHOLD: _MAX_KEPT,
        _TOP_PAD: _TOP_PADDING,
    }
    return all(mallopt(name, value) for name, value in options.items())
