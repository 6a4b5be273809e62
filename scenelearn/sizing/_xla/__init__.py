"""The "xla" method: the memory that XLA:CPU plans for a step, without compiling it.

It follows XLA's own passes, each from the source of the version in jaxlib 0.10.2:

1. `_lower`, `_sequence` and `_convolution` turn each layer into the operations that Keras' JAX
   backend emits, and `_trace` into their gradients as JAX transposes them, after algebraic
   simplification.
2. `_library` and `_fusion` decide which operations are computed inside others, and which ones get
   a buffer.
3. `_buffers` inserts copies of donated weights, schedules the kernels and assigns the buffers.

It holds for the versions in `_versions`, on a CPU, in float32. It counts what XLA reserves for
arrays; a process needs more (see `Estimate`).
"""

from __future__ import annotations

from scenelearn.sizing._xla._step import xla_memory

__all__ = ["xla_memory"]
