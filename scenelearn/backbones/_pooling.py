"""Pool what a network gives to one vector of features per photo, with built-in Keras layers."""

from __future__ import annotations

import math
from typing import Any

from scenelearn._backend import keras
from scenelearn._keras_internals import input_tensors_of, producer_of
from scenelearn.errors import ArgumentError

TOKENS = "patch_tokens"
"""The layer that selects the patch tokens, whose input is all tokens of a transformer."""

NETWORKS = "networks"
"""The layer that concatenates the features of several networks."""

_FEATURES, _GRID, _AVERAGE = "features", "patch_grid", "patch_average"
_CLASS_TOKEN, _CLASS_VECTOR = "class_token", "class_vector"
NAMES = frozenset([TOKENS, _FEATURES, _GRID, _AVERAGE, _CLASS_TOKEN, _CLASS_VECTOR])
"""The names of all layers that `pool` adds to a network."""

_MAX_OTHER_TOKENS = 8  # a class token, a distillation token, and registers


def pool(image: Any, outputs: Any) -> Any:
    """Pool symbolic outputs of a network.

    Of a list or dictionary, the smallest feature maps are used; without feature maps, the last
    tokens; otherwise the last vector.

    Args:
        image: the symbolic input of the network, (batch, height, width, 3).
        outputs: feature maps (batch, height, width, channels), tokens (batch, n, dim), a vector
            (batch, n), or a list, tuple or dictionary of these.

    Returns:
        (batch, n_features): the average of feature maps; of tokens, the class token, if there is
        one, and the average of the patch tokens; a vector as it is.

    Raises:
        ArgumentError: if the outputs have another rank, or an unknown size, or they are tokens of
            images that are not square.
    """
    tensors = [tensor for tensor in keras().tree.flatten(outputs) if len(tensor.shape) in (2, 3, 4)]
    usable = [tensor for tensor in tensors if None not in tensor.shape[1:]]
    if not usable:
        shapes = ", ".join(str(tuple(t.shape)) for t in keras().tree.flatten(outputs))
        raise ArgumentError(
            "`backbone` must give feature maps (batch, height, width, channels), tokens "
            "(batch, n, dim) or a vector (batch, n), with known sizes. Received: a network with "
            f"outputs of shape {shapes}. Pass the part of it up to such an output: "
            "keras.Model(network.input, network.get_layer(…).output)."
        )
    rank = max(len(tensor.shape) for tensor in usable)
    best = [tensor for tensor in usable if len(tensor.shape) == rank]
    if rank == 4:
        smallest = min(reversed(best), key=lambda tensor: tensor.shape[1] * tensor.shape[2])
        return keras().layers.GlobalAveragePooling2D(name=_FEATURES)(smallest)
    if rank == 3:
        height, width = image.shape[1:3]
        if height != width:
            raise not_square_error((height, width))
        return _pool_tokens(best[-1], height)
    return _without_classes(best[-1])


def not_square_error(size: tuple[int, int]) -> ArgumentError:
    """The error for a transformer and a rectangle: tokens and position embeddings are a square."""
    return ArgumentError(
        "`image_px` must be one number for a transformer, whose patches form a square grid. "
        f"Received: image_px={size}. Pass e.g. {max(size)}, or a convolutional network."
    )


def _pool_tokens(tokens: Any, image_px: int) -> Any:
    """The class token, and the average of the patch tokens, side by side.

    Patch tokens form a square grid at the end of the sequence. A layer makes feature maps of them,
    for Grad-CAM and out-of-distribution detection.
    """
    layers = keras().layers
    n, dim = tokens.shape[1:]
    side = math.isqrt(n)
    n_other = n - side**2
    if n_other > _MAX_OTHER_TOKENS or side < 2 or image_px // side < 2:  # no grid
        return layers.GlobalAveragePooling1D(name=_FEATURES)(tokens)
    patches = layers.Cropping1D((n_other, 0), name=TOKENS)(tokens)
    grid = layers.Reshape((side, side, dim), name=_GRID)(patches)
    average = layers.GlobalAveragePooling2D(name=_AVERAGE)(grid)
    if not n_other:
        return average
    class_token = layers.Cropping1D((0, n - 1), name=_CLASS_TOKEN)(tokens)
    class_token = layers.Flatten(name=_CLASS_VECTOR)(class_token)
    return layers.Concatenate(name=_FEATURES)([class_token, average])


def _without_classes(vector: Any) -> Any:
    """The input of a classification head: a last `Dense` layer with softmax; or the vector."""
    layers, activations = keras().layers, keras().activations
    dense = producer_of(vector)
    is_softmax = isinstance(dense, layers.Softmax) or (
        isinstance(dense, layers.Activation) and dense.activation is activations.softmax
    )
    if is_softmax:
        dense = producer_of((input_tensors_of(dense) or [None])[0])
    elif isinstance(dense, layers.Dense):
        is_softmax = dense.activation is activations.softmax
    sources = input_tensors_of(dense) if is_softmax and isinstance(dense, layers.Dense) else None
    return sources[0] if sources and len(sources[0].shape) == 2 else vector
