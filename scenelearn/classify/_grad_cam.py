"""Grad-CAM, and the gradient of a model with respect to its input, for each backend."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn._backend import keras
from scenelearn._keras_internals import input_tensors_of, producer_of
from scenelearn.backbones._pooling import NETWORKS, TOKENS
from scenelearn.classify._inference import backbone_input, feature_map_layers, feature_map_of
from scenelearn.errors import ArgumentError, BackendError


class SplitModel(NamedTuple):
    """A model, split at the last feature map of its network, or at the tokens of a transformer.

    Attributes:
        to_feature_map: from images to the feature map (batch, h, w, channels), or to tokens
            (batch, n, dim); of several networks, to a list of these.
        to_logits: from there to logits.
    """

    to_feature_map: Any
    to_logits: Any


def split_model(model: Any) -> SplitModel:
    """Split a classifier's model: preprocessing, "backbone", "logits", "probabilities".

    Raises:
        ArgumentError: if a network has no feature maps and no grid of patch tokens.
    """
    k = keras()
    x, backbone = backbone_input(model)
    found = [_last_feature_map(k.Model(backbone.input, part)) for part in _parts(backbone)]
    found = list({id(tensor): tensor for tensor in found}.values())
    feature_map = found if found[1:] else found[0]
    to_feature_map = k.Model(model.input, k.Model(backbone.input, feature_map)(x))
    split = k.tree.map_structure(lambda tensor: k.Input(tensor.shape[1:]), feature_map)
    try:
        rest = k.Model(feature_map, backbone.output)
    except ValueError:  # a path from the image to the features that passes by them
        raise ArgumentError(
            "An explanation needs a backbone whose features depend on its last feature maps only. "
            "Received: a classifier whose backbone has other features, too. Fit with a backbone "
            "that ends in feature maps."
        ) from None
    return SplitModel(to_feature_map, k.Model(split, model.get_layer("logits")(rest(split))))


def _parts(backbone: Any) -> list[Any]:
    """The vectors that features are concatenated from, each with feature maps of its own."""
    last = producer_of(backbone.output)
    is_of_tokens = bool(_tokens(backbone))
    is_joined = isinstance(last, keras().layers.Concatenate)
    if not is_joined or (is_of_tokens and last.name != NETWORKS):
        return [backbone.output]
    return input_tensors_of(last) or [backbone.output]


def _tokens(network: Any) -> list[Any]:
    """The layers that take the patch tokens of a transformer from all its tokens."""
    kind = keras().layers.Cropping1D
    return [one for one in network.layers if isinstance(one, kind) and one.name.startswith(TOKENS)]


def _last_feature_map(network: Any) -> Any:
    """The last symbolic feature map of a network, or the tokens of a transformer."""
    tokens, layers = _tokens(network), feature_map_layers(network)
    if not tokens and not layers:
        raise ArgumentError(
            "An explanation needs a backbone that gives feature maps, or tokens of a square grid. "
            "Received: a classifier whose backbone gives a vector only. Fit with a backbone that "
            "ends before its pooling."
        )
    return tokens[-1].input if tokens else feature_map_of(layers[-1])


def grad_cam(
    split: SplitModel, image: npt.NDArray[np.uint8], label: int
) -> npt.NDArray[np.float32]:
    """Where the network found evidence for a class.

    Each channel of the last feature map, or of the patch tokens, is weighted by the gradient of the
    class's logit, averaged over all positions. The positive part of the weighted sum, enlarged to
    the image's size, is the heatmap. Those of several networks are added up.

    Args:
        split: from `split_model`.
        image: (height, width, 3) uint8.
        label: the index of the class.

    Returns:
        (height, width) float32 in [0, 1]; all 0 if there is no evidence for the class.

    References:
        R. R. Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via
        gradient-based localization. ICCV.
    """
    flatten = keras().tree.flatten
    feature_maps = split.to_feature_map.predict_on_batch(image[None])
    one_hot = np.zeros((1, split.to_logits.output.shape[1]), np.float32)
    one_hot[:, label] = 1
    gradients = input_gradient(split.to_logits, feature_maps, one_hot)
    heatmaps: list[npt.NDArray[np.float32]] = []
    for values, gradient in zip(flatten(feature_maps), flatten(gradients), strict=True):
        feature_map = _patch_grid(np.asarray(values, np.float32))
        weights = _patch_grid(gradient).mean(axis=(1, 2), keepdims=True)
        heatmap = np.maximum((feature_map * weights).sum(axis=3), 0)[0]
        # The gradient of an average over n positions is divided by n.
        heatmaps.append(heatmap * np.float32(heatmap.size / (heatmaps or [heatmap])[0].size))
    largest, size = max(heatmap.max() for heatmap in heatmaps) or 1, image.shape[:2][::-1]
    total = np.zeros(image.shape[:2], np.float32)
    for heatmap in heatmaps:
        scaled = Image.fromarray((heatmap / largest).astype(np.float32))
        total += np.asarray(scaled.resize(size, Image.Resampling.BILINEAR), np.float32)
    return np.clip(total / (total.max() or 1), 0, 1) if heatmaps[1:] else np.clip(total, 0, 1)


def _patch_grid(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The square grid of patches at the end of tokens (1, n, dim); a feature map as it is."""
    if values.ndim == 4:
        return values
    side = math.isqrt(values.shape[1])
    return values[:, -(side**2) :].reshape(1, side, side, -1)


def input_gradient(model: Any, inputs: Any, weights: npt.NDArray[np.float32]) -> Any:
    """The gradient of Σ (outputs · weights) with respect to the inputs.

    Args:
        model: a `keras.Model` with one output.
        inputs: one batch: an array, or a list of arrays.
        weights: of the outputs, in their shape.

    Returns:
        float32, structured as `inputs`.

    Raises:
        BackendError: if the backend has no gradients.
    """
    backend = keras().backend.backend()
    compute = {"jax": _jax_gradient, "tensorflow": _tensorflow_gradient, "torch": _torch_gradient}
    if backend not in compute:
        raise BackendError(
            f"An explanation needs a backend with gradients. Received: Keras on {backend!r}. Set "
            "KERAS_BACKEND to jax, tensorflow or torch."
        )
    to_numpy = partial(np.asarray, dtype=np.float32)
    tree = keras().tree
    gradient = compute[backend](model, tree.map_structure(to_numpy, inputs), weights)
    return tree.map_structure(to_numpy, gradient)


def _jax_gradient(model: Any, inputs: Any, weights: Any) -> Any:
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    non_trainable = [variable.value for variable in model.non_trainable_variables]

    def weighted_sum(x: Any) -> Any:
        outputs, _ = model.stateless_call(trainable, non_trainable, x, training=False)
        return (outputs * weights).sum()

    return jax.grad(weighted_sum)(keras().tree.map_structure(jax.numpy.asarray, inputs))


def _tensorflow_gradient(model: Any, inputs: Any, weights: Any) -> Any:
    import tensorflow  # type: ignore[import-untyped,import-not-found,unused-ignore]

    x = keras().tree.map_structure(tensorflow.convert_to_tensor, inputs)
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        weighted_sum = tensorflow.reduce_sum(model(x, training=False) * weights)
    return tape.gradient(weighted_sum, x)


def _torch_gradient(model: Any, inputs: Any, weights: Any) -> Any:
    import torch

    def to_leaf(values: Any) -> Any:
        return keras().ops.convert_to_tensor(values).clone().requires_grad_(True)

    x = keras().tree.map_structure(to_leaf, inputs)
    with torch.enable_grad():
        outputs = model(x, training=False)
        weighted_sum = (outputs * keras().ops.convert_to_tensor(weights)).sum()
        gradients = torch.autograd.grad(weighted_sum, keras().tree.flatten(x))
    arrays = [gradient.detach().cpu().numpy() for gradient in gradients]
    return keras().tree.pack_sequence_as(x, arrays)
