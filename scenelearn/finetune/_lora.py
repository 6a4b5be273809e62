"""Low-rank adaptation (LoRA): small matrices are trained in place of the kernels of dense layers.

A kernel W of n inputs becomes W + A B with a "rank" of a few: A has n × rank weights and is random,
B has rank × outputs and begins with zeros, so that nothing changes at first. Only A, B, the biases
of these layers and the head are trained, which saves the gradients and the optimizer's moments of
all other weights. Here x W + (x A) B is computed, where Keras computes x (W + A B): the gradient of
W, a third of a step's arithmetic in these layers, is never needed. After training, A B is added to
W, and the network is one without LoRA.

References:
    E. Hu et al. (2022), LoRA: low-rank adaptation of large language models. ICLR.
    All dense layers, not those of attention only: T. Dettmers et al. (2023), QLoRA: efficient
    finetuning of quantized LLMs. NeurIPS.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn._keras_internals import (
    can_remove_variables,
    kernel_of,
    layers_in_order,
    nested_layers,
    own_trainable_variables,
    remove_variables,
)
from scenelearn.errors import ArgumentError
from scenelearn.finetune._settings import FitSettings

_WEIGHTS = ("lora_kernel_a", "lora_kernel_b")


def check_lora(features: Any, rank: int) -> None:
    """Check that a network has layers for LoRA.

    Args:
        features: from `backbones.build`.
        rank: as in `Recipe.lora_rank`.

    Raises:
        ArgumentError: if it has none.
    """
    if not _dense_layers(features):
        raise ArgumentError(
            "`lora_rank` must be None for this network: LoRA needs layers of the classes Dense or "
            f"EinsumDense, as transformers have them. Received: lora_rank={rank}. Choose the "
            "layers to train with `unfreeze`."
        )


def freeze_for_lora(features: Any) -> None:
    """Make only the layers trainable to which `add_lora` will add matrices.

    Args:
        features: from `backbones.build`.
    """
    chosen = {id(layer) for layer in _dense_layers(features)}
    for layer in layers_in_order(features):
        if nested_layers(layer):  # stays trainable for the layers inside
            for variable in own_trainable_variables(layer):
                variable.trainable = False
        else:
            layer.trainable = id(layer) in chosen


def add_lora(features: Any, settings: FitSettings) -> None:
    """Add LoRA to each dense layer of a backbone, in place, if the settings say so.

    Args:
        features: from `backbones.build`, frozen by `freeze_for_lora`.
        settings: of the fit.
    """
    rank, seed = settings.recipe.lora_rank, settings.seed
    if rank is None:
        return
    for position, layer in enumerate(_dense_layers(features)):
        n_inputs = math.prod(kernel_of(layer).shape[: -_n_output_axes(layer)])
        rng = np.random.default_rng([seed, position])
        layer.enable_lora(rank, a_initializer=_he_uniform(rng, n_inputs))
        layer.call = functools.partial(_call, layer)


def merge_lora(features: Any) -> None:
    """Add A B to the kernels, and remove what `add_lora` has added. Nothing without LoRA.

    Args:
        features: from `backbones.build`.
    """
    to_numpy = keras().ops.convert_to_numpy
    for layer in filter(_has_lora, layers_in_order(features)):
        kernel = kernel_of(layer)
        a, b = (to_numpy(getattr(layer, name)) for name in _WEIGHTS)
        kernel.assign(to_numpy(kernel) + a @ b)
        _remove(layer)


@contextmanager
def with_lora(features: Any, settings: FitSettings) -> Iterator[None]:
    """Add LoRA inside if the settings have it, to estimate memory.

    Args:
        features: from `backbones.build`.
        settings: of the fit.
    """
    if settings.recipe.lora_rank is None or settings.epochs == 0:
        yield
        return
    layers = layers_in_order(features)
    flags = [(layer, layer.trainable) for layer in layers]
    freeze_for_lora(features)
    add_lora(features, settings)
    try:
        yield
    finally:
        for layer in filter(_has_lora, layers):
            _remove(layer)
        for layer, trainable in flags:  # outer layers first: they set those inside, too
            layer.trainable = trainable


def is_random_factor(variable: Any) -> bool:
    """Whether a variable is an A: A B is proportional to B, which begins with zeros."""
    return bool(variable.name == _WEIGHTS[0])


def _dense_layers(features: Any) -> list[Any]:
    """The layers of a backbone that can have LoRA, from the input on."""
    dense, einsum = keras().layers.Dense, keras().layers.EinsumDense
    return [
        layer
        for layer in layers_in_order(features)
        if getattr(type(layer), "call", None) in (dense.call, einsum.call)
        and layer.built
        and not layer.lora_enabled
        and not layer.kernel_constraint
        and layer.quantization_mode is None
        and _n_output_axes(layer)
        and can_remove_variables(layer)
    ]


def _n_output_axes(layer: Any) -> int:
    """The number of the kernel's last axes that it does not sum over; 0 if B cannot come last."""
    if not isinstance(layer, keras().layers.EinsumDense):
        return 1
    (inputs, kernel), output = layer.equation.split("->")[0].split(","), layer.equation[-1]
    return 0 if kernel[-1] in inputs or kernel[-1] != output else len(set(kernel) - set(inputs))


def _has_lora(layer: Any) -> bool:
    """Whether `add_lora` was called for a layer."""
    call = vars(layer).get("call")
    return isinstance(call, functools.partial) and call.func is _call


def _remove(layer: Any) -> None:
    """Remove from a layer what `add_lora` has added."""
    remove_variables(layer, _WEIGHTS)
    layer.lora_enabled, layer.lora_rank, layer.lora_alpha = False, None, None
    kernel_of(layer).trainable = layer.trainable
    del layer.call


def _call(layer: Any, inputs: Any, training: bool | None = None) -> Any:  # noqa: ARG001
    """A dense layer's `call`, x W + (x A) B."""
    ops = keras().ops
    multiply = ops.matmul
    if isinstance(layer, keras().layers.EinsumDense):
        multiply = functools.partial(ops.einsum, layer.equation)
    low_rank = ops.matmul(multiply(inputs, layer.lora_kernel_a), layer.lora_kernel_b)
    outputs = ops.add(multiply(inputs, kernel_of(layer)), low_rank)
    if layer.bias is not None:
        outputs = ops.add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


def _he_uniform(rng: np.random.Generator, n_inputs: int) -> Callable[..., Any]:
    """An initializer by NumPy: the same on all backends and processes, without compilation."""
    limit = math.sqrt(6 / n_inputs)

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras().ops.convert_to_tensor(rng.uniform(-limit, limit, shape), dtype)

    return initialize
