"""Compiled programs kept on disk, so that only the first run on a machine waits for the compiler.

JAX can do that (its persistent compilation cache); here it is switched on, with a folder of ours,
where the user has not set one up. The first training step of MobileNetV2-0.35 then takes 7 instead
of 26 seconds of processor time, most of it Keras and JAX tracing the network.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scenelearn._io import cache_path

_LIMIT_BYTES = 512 * 2**20  # some hundreds of programs
_WORTH_S = 0.3  # programs that compile faster than this are not kept

_log = logging.getLogger(__name__)


@functools.cache
def keep_programs() -> None:
    """Let JAX keep the programs that it compiles for this machine, from now on, in this process.

    Does nothing where the user has chosen a folder (``JAX_COMPILATION_CACHE_DIR`` or
    `jax.config`), has switched JAX's cache off (``JAX_ENABLE_COMPILATION_CACHE=0``), or where
    the folder cannot be written; nor for several processes with accelerators, which compile
    together: those of a host that finds the program would not come, and the others wait. Programs
    lie in ``programs`` in scenelearn's cache (see ``SCENELEARN_CACHE``), apart by processor and
    version, since one made for another processor may not run on this one. The oldest go when they
    take more than 512 MiB.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    if jax.default_backend() != "cpu" and jax.process_count() > 1:
        return
    folder = cache_path() / "programs" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder)
    except OSError as error:
        _log.info("Compiled programs are not kept: %s", error)
        return
    if not os.access(folder, os.W_OK):
        return
    # A program that cannot be read, say after a full disk, is compiled again: nothing to tell.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_S)
    compilation_cache.reset_cache()  # JAX may have looked for a folder before, and found none


def _machine() -> str:
    """One word for all that a program depends on beside its source: processor, version, flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = sorted({line for line in lines if line.startswith(("flags", "model name"))})
    except OSError:
        processor = [platform.processor()]
    parts = [version("jaxlib"), platform.platform(), os.environ.get("XLA_FLAGS", ""), *processor]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _remove_oldest(folder: Path) -> None:
    files = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may clean up, too
            if path.is_file():
                files.append((path, path.stat()))
    total = sum(found.st_size for _, found in files)
    for path, found in sorted(files, key=lambda pair: pair[1].st_mtime):
        if total <= _LIMIT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= found.st_size
