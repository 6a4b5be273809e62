"""Mixed precision: 16 bits where the network computes, 32 where sums and small steps need them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from scenelearn._backend import forget_programs, keras

# What each is called where Linux lists what a CPU can do: instructions for products in 16 bits.
_INSTRUCTIONS = {
    "mixed_bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},  # the last is Arm's
    "mixed_float16": {"avx512_fp16", "amx_fp16"},
}
_CPU_INFO = Path("/proc/cpuinfo")
PRECISIONS = tuple(_INSTRUCTIONS)

_log = logging.getLogger(__name__)


def usable(precision: str | None) -> str | None:
    """The precision that was asked for where the device has it; else None, with a warning.

    Every accelerator is taken to have it. A CPU has it if it has instructions for it and the
    backend uses them, as TensorFlow and Torch do through oneDNN. XLA's programs for CPUs and CPUs
    without these instructions go by way of 32 bits: slower, and no more exact.
    """
    if precision is None or (why := _lacking(precision)) is None:
        return precision
    _log.warning("precision=%r is left out: %s. This fit is in 32 bits.", precision, why)
    return None


def scaled(optimizer: Any, precision: str | None) -> Any:
    """The optimizer, with its loss scaled where gradients are in float16.

    Gradients below 6e-8 would be 0 there. So Keras multiplies the loss, by less whenever a
    gradient is infinite, and that step is left out; bfloat16 has float32's range and needs none.

    References:
        P. Micikevicius et al. (2018), Mixed precision training. ICLR.
    """
    if precision != "mixed_float16":
        return optimizer
    return keras().optimizers.LossScaleOptimizer(optimizer)


def in_float32(model: Any) -> Any:
    """Let a model compute in float32 throughout, as it does when it is saved and loaded.

    Args:
        model: any `keras.Model`; its weights are in float32 already, and stay as they are.

    Returns:
        The same model, its layers changed; programs that were compiled are compiled anew.
    """
    for layer in (model, *model._flatten_layers(include_self=False)):
        layer.dtype_policy = "float32"
        forget_programs(layer)
    return model


def _lacking(precision: str) -> str | None:
    """Why this device does not compute in that precision; None if it does."""
    backend = keras().backend.backend()
    if not _on_cpu(backend):
        return None
    if backend == "jax":
        return "JAX has no products in 16 bits for a CPU, TensorFlow and Torch have"
    named = _INSTRUCTIONS[precision]
    if named & _cpu_instructions():
        return None
    return f"this CPU lists no instructions for it ({', '.join(sorted(named))})"


def _cpu_instructions() -> set[str]:
    """What the first CPU can do, in the words of Linux; nothing is known on other systems."""
    try:
        about = _CPU_INFO.read_text()
    except OSError:
        return set()
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", about, re.MULTILINE)
    return set(line[1].split()) if line else set()


def _on_cpu(backend: str) -> bool:
    if backend == "torch":
        import torch

        return not torch.cuda.is_available()
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    return all(name.startswith("cpu") for name in keras().distribution.list_devices())
