"""The XLA rule: what XLA:CPU plans for a step, worked out without compiling it.

The way is XLA's own, each stage from the source of the version that jaxlib 0.10.2 carries:

1. `_lower`, `_sequence`, `_convolution`: each layer as the operations that Keras's JAX backend asks
   for, and `_trace` their gradients as JAX transposes them, after algebraic simplification.
2. `_fusion`: which operations are computed inside others, and which get memory.
3. `_buffers`: copies of donated weights, the order in which kernels run, and where arrays lie.

It holds for Keras 3.15 on JAX 0.10 on a CPU, in 32-bit floats. It says what XLA reserves for its
arrays: a process takes more than that (see `Estimate`).
"""

from __future__ import annotations

from ._step import Plan, predict_plan, train_plan, xla_memory

__all__ = ["Plan", "predict_plan", "train_plan", "xla_memory"]
