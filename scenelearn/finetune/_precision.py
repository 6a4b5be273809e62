"""Mixed precision: 16 bits where the network computes, 32 where sums and small steps need them."""

from __future__ import annotations

import logging
from typing import Any

from scenelearn._backend import forget_programs, keras

PRECISIONS = ("mixed_bfloat16", "mixed_float16")

_log = logging.getLogger(__name__)


def usable(precision: str | None) -> str | None:
    """The precision that was asked for where the device has it; None on a CPU.

    A CPU computes in 16 bits by way of 32, which is slower and no more exact.
    """
    if precision is not None and _on_cpu():
        _log.warning(
            "precision=%r is left out: it is for accelerators, and this fit runs on a CPU.",
            precision,
        )
        return None
    return precision


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


def _on_cpu() -> bool:
    backend = keras().backend.backend()
    if backend == "torch":
        import torch

        return not torch.cuda.is_available()
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    return all(name.startswith("cpu") for name in keras().distribution.list_devices())
