"""The model: backbone with a head, which of its layers train and how fast, and what it keeps.

The optimizer is AdamW with a learning rate multiplier per variable. Adam moves each weight by about
the learning rate per step, however large the weight is. The output of a layer, a sum over n inputs,
then changes by up to n times the rate, while the output itself grows only with √n and with the size
of the weights. So one rate for all kernels is too high for wide layers and for small weights, and a
network with BatchNormalization folded into its kernels needs another rate than the same network
without. Here the rate of each channel of a kernel is limited such that a step changes its output by
at most about a hundred times the rate: a tenth at a peak of 0.001. Only kernels are scaled, not
biases or the scales of normalization layers; AdamW's weight decay uses the unscaled rate.

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

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn import backbones
from scenelearn._backend import keras
from scenelearn._keras_internals import (
    build_loss,
    consumers_of,
    deferred_initialization,
    initialize_variable,
    is_empty,
    layers_in_order,
    nested_layers,
    own_trainable_variables,
    variable_index_method,
)
from scenelearn.backbones import fast_on_cpu
from scenelearn.backbones._network import Network, NetworkList
from scenelearn.classify._bundle_checks import check_layers
from scenelearn.errors import ArgumentError
from scenelearn.finetune._device import with_loss_scaling
from scenelearn.finetune._linear_probe import LinearProbe
from scenelearn.finetune._lora import check_lora, freeze_for_lora
from scenelearn.finetune._settings import FitSettings, Recipe
from scenelearn.finetune._teacher import FEATURE_HEAD

# The largest feature maps of trained layers, as a fraction of the image's height.
_MAX_SIZE = {"stride16": 1 / 16, "all": np.inf, "none": -1.0}

COEFFICIENTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # 0: the linear probe, 1: the fine-tuned weights
_MIN_STANDARD_ERRORS = 2.0  # of a significant difference
# The usually best coefficient from so many training photos per class, as found on independent Intel
# photos for 8, 25, 100 and 500 per class. With 8, none was better than the linear probe in the mean
# of two splits; with 25, a coefficient of 1/2 reached 86.3%, the linear probe 84.6%, and the
# fine-tuned weights 84.1%; with 100 and 500, 3/4 reached 88.7% (87.9, 88.4) and 91.4% (89.7,
# 91.2).
_DEFAULT_COEFFICIENTS = {0: 0.0, 15: 0.5, 50: 0.75}

# Learning rate multipliers
_LR_SCALE = 100.0  # kernels with fewer inputs and weights of the usual size get the full rate
_LAYER_DECAY = 0.75  # per attention layer: usual for transformers, not measured here
_MIN_LR_MULTIPLIER = 0.01  # so that weights of 0 are trained, too

_log = logging.getLogger(__name__)

Multiplier = npt.NDArray[np.float32]


def build_features(
    settings: FitSettings,
    network: Network | NetworkList | None = None,
    image_px: int | tuple[int, int] | None = None,
) -> Any:
    """Build the network from raw pixels to features, in the form that is fast on a CPU.

    Args:
        settings: of the fit, with the name of the backbone.
        network: the backbone, if it is one of the user's own, or several.
        image_px: the size of the images; None for that of the settings.

    Raises:
        ArgumentError: if its layers cannot be saved in a bundle, or it has none for LoRA.
    """
    features = backbones.build(
        settings.backbone if network is None else network,
        weights=settings.weights,
        image_px=settings.image_px if image_px is None else image_px,
        seed=settings.seed,
        train_batchnorm=settings.recipe.train_batchnorm,
        precision=settings.precision,
    )
    if network is not None:
        check_layers(features)
        if settings.weights is None:
            features.trainable = True  # it may be frozen
    if settings.recipe.lora_rank is not None and settings.epochs != 0:
        check_lora(features, settings.recipe.lora_rank)
    return backbones.fast_on_cpu(features)


def build_training_features(
    features: Any, settings: FitSettings, network: Network | NetworkList | None = None
) -> Any:
    """Build the network for the size of the training images.

    Args:
        features: from `build_features`.
        settings: of the fit.
        network: as for `build_features`.

    Returns:
        The same network with weights of its own; `features` itself if it is for this size.

    Raises:
        ArgumentError: if the network does not support this size, or its weights depend on the size.
    """
    if settings.train_px == settings.image_px:
        return features
    training_features = build_features(settings, network, settings.train_px)
    if [w.shape for w in training_features.weights] != [w.shape for w in features.weights]:
        raise ArgumentError(
            "`train_px` must be left out for a network whose weights depend on the size of the "
            f"images, such as position embeddings. Received: train_px={settings.train_px} for "
            f"image_px={settings.image_px}. Leave it out, or pass train_px={settings.image_px}."
        )
    return training_features


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


def select_layers(features: Any, settings: FitSettings) -> None:
    """Choose the layers of the backbone that are trained, as the settings say.

    Call this before anything is compiled: programs depend on it.
    """
    if settings.recipe.lora_rank is not None:
        freeze_for_lora(features)
    elif settings.weights is not None:
        freeze_layers(features, features.input_shape[1], settings.recipe.unfreeze)


def freeze_layers(features: Any, height: int, unfreeze: str) -> None:
    """Freeze the lower layers of the backbone, and make the others trainable.

    Args:
        features: from `backbones.build`.
        height: of its input, in pixels.
        unfreeze: "stride16", "all" or "none", see `Recipe`.
    """
    max_px = np.ceil(height * _MAX_SIZE[unfreeze])
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
    """Height of an operation's output; 0 if it is not a feature map, or only padded."""
    shape = tuple(getattr(operation.output, "shape", ()))
    is_padding = isinstance(operation, keras().layers.ZeroPadding2D)
    return 0 if len(shape) != 4 or is_padding else np.inf if shape[1] is None else shape[1]


def prepare_random_weights(features: Any, logits_model: Any) -> None:
    """Prepare random weights for training: faster BatchNormalization statistics, and a zero head.

    BatchNormalization made for ImageNet averages over a thousand steps, more than a short run has.
    And the linear probe of random features does not fit the features that will be learned.

    Args:
        features: from `backbones.build`, with random weights.
        logits_model: the same network with its head.
    """
    for layer in nested_layers(features.get_layer("backbone")):
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.9
    divide_logits(logits_model, np.inf)


def divide_logits(model: Any, divisor: float) -> None:
    """Divide the weights of the head in place, so that a temperature becomes part of them."""
    dense = model.get_layer("logits")
    dense.kernel.assign(dense.kernel / divisor)
    dense.bias.assign(dense.bias / divisor)


def compile_model(features: Any, model: Any, settings: FitSettings, loss: Any = None) -> None:
    """Give the model its loss and optimizer, and prepare random weights.

    Args:
        features: from `backbones.build`.
        model: the same network with its head.
        settings: of the fit.
        loss: None for the cross-entropy of logits.
    """
    recipe = settings.recipe
    if settings.weights is None:
        prepare_random_weights(features, model)
        recipe = replace(recipe, scale_lr_by_weights=False)
    fast_on_cpu(model)
    loss = loss or keras().losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=build_optimizer(model, recipe, settings.precision), loss=loss)
    build_loss(model)


# The optimizer


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
        model: its layers are already frozen or not. Heads are not scaled.

    Returns:
        For each of `model.trainable_variables` an array in (0, 1] that broadcasts to its shape;
        an empty list if all multipliers are 1.
    """
    layers = layers_in_order(model)
    n_above = sum(map(_is_attention, layers))
    by_variable: dict[int, Multiplier] = {}
    for layer in layers:
        n_above -= _is_attention(layer)
        if not layer.trainable or layer.name in ("logits", FEATURE_HEAD):
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
    return np.asarray(
        np.clip(_LR_SCALE * rms / np.sqrt(n_inputs), _MIN_LR_MULTIPLIER, 1), np.float32
    )


def _is_attention(layer: Any) -> bool:
    """Whether a layer is the attention of a transformer's block, and not a part of one."""
    inner = nested_layers(layer)
    name = type(layer).__name__
    return "Attention" in name and not any("Attention" in type(part).__name__ for part in inner)


def _kernels(layer: Any) -> Iterator[tuple[Any, int]]:
    """A layer's kernels, each with its number of output axes; those with LoRA are not trained."""
    k = keras().layers
    if getattr(layer, "lora_enabled", False):
        return
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


# Interpolation of weights


def default_coefficient(photos_per_class: float) -> float:
    """The usually best coefficient, by the number of training photos per class.

    Example:
        >>> [default_coefficient(n) for n in (8, 25, 500)]
        [0.0, 0.5, 0.75]
    """
    return next(
        value for low, value in reversed(_DEFAULT_COEFFICIENTS.items()) if photos_per_class >= low
    )


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
