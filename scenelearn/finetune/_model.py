"""The model: backbone with a head, which of its layers train, and which weights it keeps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbones
from scenelearn._backend import keras
from scenelearn._keras_internals import build_loss, consumers_of, nested_layers
from scenelearn.backbones import fast_on_cpu
from scenelearn.backbones._network import Network, Several
from scenelearn.classify._bundle_checks import check_layers
from scenelearn.finetune._linear_probe import LinearProbe
from scenelearn.finetune._optimizer import build_optimizer
from scenelearn.finetune._settings import FitSettings

# The largest feature maps of trained layers, as a fraction of the image width.
_MAX_SIZE = {"stride16": 1 / 16, "all": np.inf, "none": -1.0}

COEFFICIENTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0: the linear probe, 1: the fine-tuned weights
_MIN_STANDARD_ERRORS = 2.0  # of a significant difference
# The usually best coefficient from so many training photos per class, as found on independent Intel
# photos for 8, 25, 100 and 500 per class. With 8, none was better than the linear probe in the mean
# of two splits; with 25, a coefficient of 1/2 reached 86.3%, the linear probe 84.6%, and the
# fine-tuned weights 84.1%; with 100 and 500, 3/4 reached 88.7% (87.9, 88.4) and 91.4% (89.7,
# 91.2).
_DEFAULTS = {0: 0.0, 15: 0.5, 50: 0.75}

_log = logging.getLogger(__name__)


def build_features(settings: FitSettings, network: Network | Several | None = None) -> Any:
    """Build the network from raw pixels to features, in the form that is fast on a CPU.

    Args:
        settings: of the fit, with the name of the backbone.
        network: the backbone, if it is one of the user's own, or several.

    Raises:
        ArgumentError: if its layers cannot be saved in a bundle.
    """
    features = backbones.build(
        settings.backbone if network is None else network,
        weights=settings.weights,
        image_px=settings.image_px,
        seed=settings.seed,
        train_batchnorm=settings.recipe.train_batchnorm,
        precision=settings.precision,
    )
    if network is not None:
        check_layers(features)
    return backbones.fast_on_cpu(features)


def add_head(features: Any, probe: LinearProbe) -> tuple[Any, Any]:
    """Add a head to a model of features.

    Args:
        features: from raw pixels to (batch, n_features).
        probe: initial weights of the head.

    Returns:
        Two models that share all layers: to logits, for training, and to probabilities.
    """
    k = keras()
    kernel, bias = k.ops.convert_to_tensor(probe.kernel), k.ops.convert_to_tensor(probe.bias)
    dense = k.layers.Dense(len(probe.bias), dtype="float32", name="logits")
    # Random initial values would be replaced below, and differ between processes.
    initializer, dense.kernel_initializer = dense.kernel_initializer, k.initializers.Zeros()
    dense.build(features.output.shape)
    dense.kernel_initializer = initializer
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)
    logits = dense(features.output)
    probabilities = k.layers.Softmax(dtype="float32", name="probabilities")(logits)
    model = k.Model(features.input, probabilities, name="scenes")
    return k.Model(features.input, logits), model


def add_zero_head(features: Any, n_classes: int) -> tuple[Any, Any]:
    """As `add_head`, with all weights of the head 0.

    Args:
        features: from `backbones.build`.
        n_classes: number of classes.
    """
    kernel = np.zeros((int(features.output.shape[-1]), n_classes), np.float32)
    return add_head(features, LinearProbe(kernel=kernel, bias=kernel[0].copy(), l2=1))


def freeze_layers(features: Any, image_px: int, unfreeze: str) -> None:
    """Freeze the lower layers of the backbone, and make the others trainable.

    Args:
        features: from `backbones.build`.
        image_px: width and height of its input.
        unfreeze: "stride16", "all" or "none", see `Recipe`.
    """
    max_px = np.ceil(image_px * _MAX_SIZE[unfreeze])
    frozen = set[int]()  # what large feature maps depend on, including squeeze-and-excitation
    for operation in reversed(features.get_layer("backbone").operations):
        consumers = {id(consumer) for consumer in consumers_of(operation)}
        if _feature_map_px(operation) > max_px or consumers & frozen:
            frozen.add(id(operation))
        if isinstance(operation, keras().Layer):
            operation.trainable = id(operation) not in frozen
    if unfreeze != "none" and not features.get_layer("backbone").trainable_variables:
        _log.warning(
            "Only the head is trained: the network has no feature maps as small as unfreeze=%r "
            "requires.",
            unfreeze,
        )


def _feature_map_px(operation: Any) -> float:
    """Width and height of an operation's output; 0 if it is not a feature map, or only padded."""
    shape = tuple(getattr(operation.output, "shape", ()))
    is_padding = isinstance(operation, keras().layers.ZeroPadding2D)
    return 0 if len(shape) != 4 or is_padding else np.inf if shape[1] is None else shape[1]


def prepare_random_weights(features: Any, to_logits: Any) -> None:
    """Prepare random weights for training: faster BatchNormalization statistics, and a zero head.

    BatchNormalization made for ImageNet averages over a thousand steps, more than a short run has.
    And the linear probe of random features does not fit the features that will be learned.

    Args:
        features: from `backbones.build`, with random weights.
        to_logits: the same network with its head.
    """
    for layer in nested_layers(features.get_layer("backbone")):
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.9
    divide_logits(to_logits, np.inf)


def divide_logits(model: Any, divisor: float) -> None:
    """Divide the weights of the head in place, so that a temperature becomes part of them."""
    dense = model.get_layer("logits")
    dense.kernel.assign(dense.kernel / divisor)
    dense.bias.assign(dense.bias / divisor)


def compile_model(features: Any, model: Any, settings: FitSettings) -> None:
    """Give the model its loss and optimizer, and prepare random weights."""
    recipe = settings.recipe
    if settings.weights is None:
        prepare_random_weights(features, model)
        recipe = replace(recipe, scale_lr_by_weights=False)
    fast_on_cpu(model)
    loss = keras().losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=build_optimizer(model, recipe, settings.precision), loss=loss)
    build_loss(model)


# Interpolation of weights


def default_coefficient(photos_per_class: float) -> float:
    """The usually best coefficient, by the number of training photos per class.

    Example:
        >>> [default_coefficient(n) for n in (8, 25, 500)]
        [0.0, 0.5, 0.75]
    """
    return next(value for low, value in reversed(_DEFAULTS.items()) if photos_per_class >= low)


def choose_coefficient(losses: Mapping[float, npt.NDArray[np.float64]], default: float) -> float:
    """Choose the coefficient to keep.

    Another coefficient than the default must have a lower mean loss on the same photos, by more
    than two standard errors of the difference. Of several such coefficients, the one with the
    lowest mean loss is kept.

    Args:
        losses: for each coefficient the loss of each validation photo, (n,) float64; NaN or
            infinity if the network is unusable.
        default: the coefficient to keep otherwise.

    Returns:
        A coefficient; 0 if the network with the default coefficient is unusable.

    Example:
        >>> a, b = np.array([0.5, 0.7, 0.2, 0.4]), np.array([0.3, 0.6, 0.1, 0.2])
        >>> choose_coefficient({0.5: a, 1.0: b}, 0.5)
        1.0
        >>> choose_coefficient({0.5: a, 1.0: a - [0.3, -0.3, 0.1, 0]}, 0.5)
        0.5

    References:
        Keeping the simpler model unless the difference exceeds its standard error: L. Breiman,
        J. Friedman, R. Olshen, C. Stone (1984), Classification and Regression Trees, section 3.4.3.
    """
    if not np.isfinite(losses[default]).all():
        return 0.0
    improvement = {default: 0.0}
    for value, of_value in losses.items():
        difference = of_value - losses[default]
        if value == default or len(of_value) < 2 or not np.isfinite(difference).all():
            continue
        standard_error = float(difference.std(ddof=1)) / len(difference) ** 0.5
        if difference.mean() < -_MIN_STANDARD_ERRORS * standard_error:
            improvement[value] = float(difference.mean())
    return min(improvement, key=lambda value: improvement[value])
