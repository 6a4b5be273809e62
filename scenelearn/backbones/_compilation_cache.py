"""JAX's persistent compilation cache, so that only the first run on a machine compiles.

It is enabled here with a folder of scenelearn unless the user has configured it. The first training
step of MobileNetV2-0.35 then takes 5 instead of 26 seconds of CPU time, most of it for tracing the
network in Keras and JAX.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelearn._io import cache_path

_LIMIT_BYTES = 512 * 2**20  # some hundreds of programs
_MIN_COMPILE_S = 0.3  # programs that compile faster are not kept

_PROCESSOR = (  # lines of /proc/cpuinfo, of x86 and of ARM
    "flags", "model name", "Features", "CPU implementer", "CPU part", "CPU variant",
)  # fmt: skip

_log = logging.getLogger(__name__)


@functools.cache
def keep_programs() -> None:
    """Enable JAX's compilation cache for the rest of this process.

    Does nothing if the user has chosen a folder (``JAX_COMPILATION_CACHE_DIR`` or `jax.config`) or
    disabled the cache (``JAX_ENABLE_COMPILATION_CACHE=0``), or if the folder cannot be written. It
    also does nothing with accelerators in several processes, which compile together: a process that
    finds the program in its cache would leave the others waiting. Programs are stored in
    ``programs`` in the cache folder of scenelearn (``SCENELEARN_CACHE``), separately by processor
    and version, since a program compiled for one processor may not run on another. The oldest are
    deleted beyond 512 MiB.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    if jax.default_backend() != "cpu" and jax.process_count() > 1:
        return
    folder = cache_path() / "programs" / _machine_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder.parent)
    except OSError as error:
        _log.info("Compiled programs are not kept: %s", error)
        return
    if not os.access(folder, os.W_OK):
        return
    # A program that cannot be read, for example after a full disk, is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_S)
    # XLA's own caches are for GPUs, and their path would become part of each program's key.
    if jax.default_backend() == "cpu":
        config.update("jax_persistent_cache_enable_xla_caches", "none")
    compilation_cache.reset_cache()  # JAX may have looked for a folder before and found none


def _machine_digest() -> str:
    """A digest of what a program depends on besides its source: processor, version and flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = sorted({line for line in lines if line.startswith(_PROCESSOR)})
    except OSError:
        processor = [platform.processor()]
    # Elsewhere it reads the executable, which fails for Python of the Microsoft Store.
    libc = platform.libc_ver() if sys.platform == "linux" else ()
    system = [platform.system(), platform.machine(), *libc]
    parts = [version("jaxlib"), *system, os.environ.get("XLA_FLAGS", ""), *processor]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _remove_oldest(folder: Path) -> None:
    files = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may delete files, too
            if path.is_file():
                files.append((path, path.stat()))
    total = sum(status.st_size for _, status in files)
    for path, status in sorted(files, key=lambda file: file[1].st_mtime):
        if total <= _LIMIT_BYTES:
            return
        with contextlib.suppress(OSError):  # on Windows, another process may have it open
            path.unlink(missing_ok=True)
            total -= status.st_size
