"""The optimizer: AdamW with a learning rate multiplier per variable.

Adam moves each weight by about the learning rate per step, however large the weight is. The output
of a layer, a sum over n inputs, then changes by up to n times the rate, while the output itself
grows only with √n and with the size of the weights. So one rate for all kernels is too high for
wide layers and for small weights, and a network with BatchNormalization folded into its kernels
needs another rate than the same network without. Here the rate of each channel of a kernel is
limited such that a step changes its output by at most about a hundred times the rate: a tenth at a
peak of 0.001. Only kernels are scaled, not biases or the scales of normalization layers; AdamW's
weight decay uses the unscaled rate.

On Intel photos, by the validation loss of one split after two minutes, always with a peak of 0.001:
MobileNetV2 reached 0.178, compared with 0.216 with one rate for all kernels. MobileNetV3Small with
folded BatchNormalization reached 0.213; with one rate for all kernels it diverged so far that its
accuracy fell to 50%. For MobileNetV3Small without folding, with 100 photos per class and ten
epochs, the differences were not significant (`nox -s ablations`).

References:
    Steps relative to the size of the weights: N. Shazeer, M. Stern (2018), Adafactor: adaptive
    learning rates with sublinear memory cost. ICML.
    Layer-wise decay: K. Clark et al. (2020), ELECTRA: pre-training text encoders as discriminators
    rather than generators. ICLR. 0.75 for ViTs: K. He et al. (2022), Masked autoencoders are
    scalable vision learners. CVPR.
    Rates by the number of inputs: G. Yang et al. (2021), Tensor programs V: tuning large neural
    networks via zero-shot hyperparameter transfer. NeurIPS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._keras_internals import (
    deferred_initialization,
    initialize_variable,
    is_empty,
    layers_in_order,
    nested_layers,
    own_trainable_variables,
    variable_index_method,
)
from scenelearn.finetune._device import with_loss_scaling
from scenelearn.finetune._settings import Recipe

_SCALE = 100.0  # kernels with fewer inputs and weights of the usual size get the full rate
_LAYER_DECAY = 0.75  # per attention layer: usual for transformers, not measured here
_MIN_MULTIPLIER = 0.01  # so that weights of 0 are trained, too

Multiplier = npt.NDArray[np.float32]


def build_optimizer(model: Any, recipe: Recipe, precision: str | None = None) -> Any:
    """AdamW for the trainable variables of a model; its learning rate is set before each step.

    Args:
        model: to logits; its layers are already frozen or not.
        recipe: its `weight_decay` and `scale_lr_by_weights` apply.
        precision: of the network, see `FitSettings`.

    Returns:
        A Keras optimizer. With JAX it is built already.
    """
    adamw = keras().optimizers.AdamW
    position = variable_index_method(adamw)
    multipliers = lr_multipliers(model) if recipe.scale_lr_by_weights and position else []

    class ScaledAdamW(adamw):  # type: ignore[misc, valid-type]
        """AdamW with a learning rate multiplier for each variable."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            # By index, as Keras' optimizers do: TensorFlow passes variables without a path.
            multiplier = multipliers[position(self, variable)]  # type: ignore[misc]
            multiplier = keras().ops.convert_to_tensor(multiplier, learning_rate.dtype)
            super().update_step(gradient, variable, learning_rate * multiplier)

    kind = ScaledAdamW if multipliers else adamw
    optimizer = with_loss_scaling(kind(0.0, weight_decay=recipe.weight_decay), precision)
    if keras().backend.backend() != "jax":
        return optimizer
    with deferred_initialization():  # Keras would compile a program for each shape of the moments
        optimizer.build(model.trainable_variables)
    for variable in optimizer.variables:
        if is_empty(variable):
            zeros = np.zeros(variable.shape, np.float32)
            initialize_variable(variable, zeros if variable.shape else None)
    return optimizer


def reset_optimizer(model: Any) -> None:
    """Reset a model's optimizer to its state before the first step; a loss scale is kept."""
    # A wrapper that scales the loss keeps the optimizer itself inside.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    for variable in optimizer.variables:
        variable.assign(np.zeros(variable.shape, np.float32))


def lr_multipliers(model: Any) -> list[Multiplier]:
    """The learning rate multiplier of each trainable variable.

    It is `kernel_lr_multiplier` for kernels, or 1; in a transformer, times 0.75 for each attention
    layer above the variable (layer-wise learning rate decay).

    Args:
        model: its layers are already frozen or not. The layer "logits" is not scaled.

    Returns:
        For each of `model.trainable_variables` an array in (0, 1] that broadcasts to its shape;
        an empty list if all multipliers are 1.
    """
    layers = layers_in_order(model)
    n_above = sum(map(_is_attention, layers))
    by_variable: dict[int, Multiplier] = {}
    for layer in layers:
        n_above -= _is_attention(layer)
        if not layer.trainable or layer.name == "logits":
            continue
        decay = np.asarray(_LAYER_DECAY**n_above, np.float32)
        own = own_trainable_variables(layer)
        by_variable |= {id(variable): decay for variable in own}
        if own:
            for kernel, n_output_axes in _kernels(layer):
                values = keras().ops.convert_to_numpy(kernel)
                by_variable[id(kernel)] = decay * kernel_lr_multiplier(values, n_output_axes)
    one = np.asarray(1, np.float32)
    multipliers = [by_variable.get(id(variable), one) for variable in model.trainable_variables]
    return [] if all((multiplier == 1).all() for multiplier in multipliers) else multipliers


def kernel_lr_multiplier(kernel: npt.NDArray[np.float32], n_output_axes: int = 1) -> Multiplier:
    """The learning rate multiplier of each channel of a kernel, by the size of its weights.

    Args:
        kernel: its last axes are the output axes; it sums over the others.
        n_output_axes: number of output axes.

    Returns:
        100 × root mean square of the channel's weights / √(number of its weights), clipped to
        [0.01, 1]. The shape is that of the kernel, with 1 for each axis summed over.

    Example:
        Channels of 400 inputs: LeCun initialization, weights of 1/√400; and ten times smaller:

        >>> print(kernel_lr_multiplier(np.full((1, 1, 400, 2), 0.05) * [1, 0.1]))
        [[[[0.25  0.025]]]]
    """
    input_axes = tuple(range(kernel.ndim - n_output_axes))
    rms = np.sqrt(np.square(kernel, dtype=np.float64).mean(axis=input_axes, keepdims=True))
    n_inputs = np.prod([kernel.shape[axis] for axis in input_axes])
    return np.asarray(np.clip(_SCALE * rms / np.sqrt(n_inputs), _MIN_MULTIPLIER, 1), np.float32)


def _is_attention(layer: Any) -> bool:
    """Whether a layer is the attention of a transformer's block, and not a part of one."""
    inner = nested_layers(layer)
    name = type(layer).__name__
    return "Attention" in name and not any("Attention" in type(part).__name__ for part in inner)


def _kernels(layer: Any) -> Iterator[tuple[Any, int]]:
    """A layer's kernels, each with its number of output axes."""
    k = keras().layers
    if isinstance(layer, k.DepthwiseConv2D):
        yield layer.kernel, 2
    elif isinstance(layer, k.SeparableConv2D):
        yield layer.depthwise_kernel, 2
        yield layer.pointwise_kernel, 1
    elif isinstance(layer, k.EinsumDense):
        inputs, kernel = layer.equation.split("->")[0].split(",")
        yield layer.kernel, len(set(kernel) - set(inputs))
    elif isinstance(layer, k.Conv2D | k.Dense):
        yield layer.kernel, 1
