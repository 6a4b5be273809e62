"""Grad-CAM, and the gradient of a model with respect to its input, for each backend."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn._backend import keras
from scenelearn.backbones._pooling import TOKENS
from scenelearn.classify._inference import backbone_input, feature_map_layers, feature_map_of
from scenelearn.errors import ArgumentError, BackendError


class SplitModel(NamedTuple):
    """A model, split at the backbone's last feature map, or at the tokens of a transformer.

    Attributes:
        to_feature_map: from images to the feature map (batch, h, w, channels), or to tokens
            (batch, n, dim).
        to_logits: from there to logits.
    """

    to_feature_map: Any
    to_logits: Any


def split_model(model: Any) -> SplitModel:
    """Split a classifier's model: preprocessing, "backbone", "logits", "probabilities".

    Raises:
        ArgumentError: if the backbone has no feature maps and no grid of patch tokens.
    """
    k = keras()
    x, backbone = backbone_input(model)
    names = [layer.name for layer in backbone.layers]
    layers = feature_map_layers(backbone)
    if TOKENS in names:
        feature_map = backbone.get_layer(TOKENS).input
    elif layers:
        feature_map = feature_map_of(layers[-1])
    else:
        raise ArgumentError(
            "An explanation needs a backbone that gives feature maps, or tokens of a square grid. "
            "Received: a classifier whose backbone gives a vector only. Fit with a backbone that "
            "ends before its pooling."
        )
    to_feature_map = k.Model(model.input, k.Model(backbone.input, feature_map)(x))
    split = k.Input(feature_map.shape[1:])
    logits = model.get_layer("logits")(k.Model(feature_map, backbone.output)(split))
    return SplitModel(to_feature_map, k.Model(split, logits))


def grad_cam(
    split: SplitModel, image: npt.NDArray[np.uint8], label: int
) -> npt.NDArray[np.float32]:
    """Where the network found evidence for a class.

    Each channel of the last feature map, or of the patch tokens, is weighted by the gradient of the
    class's logit, averaged over all positions. The positive part of the weighted sum, enlarged to
    the image's size, is the heatmap.

    Args:
        split: from `split_model`.
        image: (px, px, 3) uint8.
        label: the index of the class.

    Returns:
        (px, px) float32 in [0, 1]; all 0 if there is no evidence for the class.

    References:
        R. R. Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via
        gradient-based localization. ICCV.
    """
    feature_maps = np.asarray(split.to_feature_map.predict_on_batch(image[None]), np.float32)
    one_hot = np.zeros((1, split.to_logits.output.shape[1]), np.float32)
    one_hot[:, label] = 1
    gradient = input_gradient(split.to_logits, feature_maps, one_hot)
    if feature_maps.ndim == 3:
        feature_maps, gradient = _patch_grid(feature_maps), _patch_grid(gradient)
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    heatmap = np.maximum((feature_maps * weights).sum(axis=3), 0)[0]
    if heatmap.max() > 0:
        heatmap = heatmap / heatmap.max()
    size = image.shape[:2][::-1]
    enlarged = Image.fromarray(heatmap.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(enlarged, np.float32), 0, 1)


def _patch_grid(tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The square grid of patches at the end of tokens (1, n, dim)."""
    side = math.isqrt(tokens.shape[1])
    return tokens[:, -(side**2) :].reshape(1, side, side, -1)


def input_gradient(
    model: Any, inputs: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The gradient of Σ (outputs · weights) with respect to the inputs.

    Args:
        model: a `keras.Model` with one output.
        inputs: one batch.
        weights: of the outputs, in their shape.

    Returns:
        In the shape of `inputs`.

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
    return np.asarray(compute[backend](model, inputs, weights), np.float32)


def _jax_gradient(model: Any, inputs: Any, weights: Any) -> Any:
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    non_trainable = [variable.value for variable in model.non_trainable_variables]

    def weighted_sum(x: Any) -> Any:
        outputs, _ = model.stateless_call(trainable, non_trainable, x, training=False)
        return (outputs * weights).sum()

    return jax.grad(weighted_sum)(jax.numpy.asarray(inputs))


def _tensorflow_gradient(model: Any, inputs: Any, weights: Any) -> Any:
    import tensorflow  # type: ignore[import-untyped,import-not-found,unused-ignore]

    x = tensorflow.convert_to_tensor(inputs)
    with tensorflow.GradientTape() as tape:
        tape.watch(x)
        weighted_sum = tensorflow.reduce_sum(model(x, training=False) * weights)
    return tape.gradient(weighted_sum, x)


def _torch_gradient(model: Any, inputs: Any, weights: Any) -> Any:
    import torch

    x = keras().ops.convert_to_tensor(inputs).clone().requires_grad_(True)
    with torch.enable_grad():
        outputs = model(x, training=False)
        weighted_sum = (outputs * keras().ops.convert_to_tensor(weights)).sum()
        (gradient,) = torch.autograd.grad(weighted_sum, x)
    return gradient.detach().cpu().numpy()
