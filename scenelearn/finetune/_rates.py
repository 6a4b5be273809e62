"""Each variable's share of the learning rate: by its layer, and by how large its weights are.

A step of Adam moves each weight by about the rate, however large it is. A layer's answer, a sum
over so many inputs, then changes by up to the rate times their number, while the answer itself
grows with the root of that number and the size of the weights. So one rate is too much for wide
layers and for small weights, and the same network with BatchNormalization folded into its kernels
needs another one. Here the rate of each channel of a kernel is small enough that a step changes its
answer by about a hundred times the rate at most, a tenth at a peak of 0.001. Only kernels are
treated so, not biases or the scales of normalization; and AdamW's decay goes by the rate itself.

On Intel photos, by the loss on the validation photos of one split after two minutes, always with a
peak of 0.001: MobileNetV2 0.178, where one rate for all kernels gave 0.216; MobileNetV3Small, its
BatchNormalization folded into the kernels, 0.213, where one rate for all threw it so far off that
it told every second photo only. Of MobileNetV3Small as it is, with 100 photos a class and ten
epochs, chance may explain what either reached above the other (`nox -s ablations`).

References:
    Steps relative to the size of the weights: N. Shazeer, M. Stern (2018), Adafactor: adaptive
    learning rates with sublinear memory cost. ICML.
    Rates by the number of inputs: G. Yang et al. (2021), Tensor programs V: tuning large neural
    networks via zero-shot hyperparameter transfer. NeurIPS.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras

_TIMES = 100.0  # kernels of fewer inputs than this, with weights of the usual size, have it all
_LEAST = 0.01  # weights that are zero learn, too

Share = npt.NDArray[np.float32]


def shares(model: Any, *, decay: float, relative: bool) -> list[Share]:
    """What each trainable variable's rate is, as a share of the learning rate.

    Args:
        model: its layers are frozen or not already.
        decay: the share of the first layer that trains; between it and the last layer, which has
            1, it grows geometrically.
        relative: whether kernels of the layers below "logits" have a share by their size, too.

    Returns:
        For each of `model.trainable_variables` an array of a shape that broadcasts to its own, in
        (0, 1]; nothing if all of them have the whole rate.
    """
    if decay == 1 and not relative:
        return []
    place = {variable.path: n for n, variable in enumerate(model.trainable_variables)}
    layers = sorted(  # Keras flattens nested models from their end
        (
            layer
            for layer in model._flatten_layers(include_self=False, recursive=True)
            if layer.trainable and layer._trainable_variables
        ),
        key=lambda layer: min(place[variable.path] for variable in layer._trainable_variables),
    )
    last, by_path = max(1, len(layers) - 1), dict[str, Share]()
    for k, layer in enumerate(layers):
        of_layer = np.float32(decay ** ((last - k) / last))
        for variable in layer._trainable_variables:
            by_path[variable.path] = np.asarray(of_layer)
        if relative and layer.name != "logits":
            for kernel, n_output_axes in _kernels(layer):
                values = keras().ops.convert_to_numpy(kernel)
                by_path[kernel.path] = of_layer * share_of_kernel(values, n_output_axes)
    found = [by_path[variable.path] for variable in model.trainable_variables]
    return [] if all((share == 1).all() for share in found) else found


def share_of_kernel(kernel: npt.NDArray[np.float32], n_output_axes: int = 1) -> Share:
    """The share of the rate that is enough for each channel of a kernel.

    Args:
        kernel: its last axes are those of its outputs, the others those that it sums over.
        n_output_axes: how many these are.

    Returns:
        The root mean square of each channel's weights, over the root of their number, times 100; at
        least 0.01, at most 1. Its shape is that of the kernel, with 1 for each axis summed over.

    Example:
        Of 400 inputs, with weights of 1/√400, as LeCun drew them; and ten times smaller:

        >>> print(share_of_kernel(np.full((1, 1, 400, 2), 0.05) * [1, 0.1]))
        [[[[0.25  0.025]]]]
    """
    summed = tuple(range(kernel.ndim - n_output_axes))
    size = np.sqrt(np.square(kernel, dtype=np.float64).mean(axis=summed, keepdims=True))
    n_inputs = np.prod([kernel.shape[axis] for axis in summed])
    return np.asarray(np.clip(_TIMES * size / np.sqrt(n_inputs), _LEAST, 1), np.float32)


def _kernels(layer: Any) -> Iterator[tuple[Any, int]]:
    """A layer's kernels, and how many of the last axes are those of the outputs."""
    k = keras().layers
    if isinstance(layer, k.DepthwiseConv2D):
        yield layer.kernel, 2
    elif isinstance(layer, k.SeparableConv2D):
        yield layer.depthwise_kernel, 2
        yield layer.pointwise_kernel, 1
    elif isinstance(layer, k.Conv2D | k.Dense):
        yield layer.kernel, 1
