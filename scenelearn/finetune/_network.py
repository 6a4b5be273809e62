"""The whole network: preprocessing and backbone with a head on top, and which part trains."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from scenelearn import backbones
from scenelearn._backend import keras
from scenelearn.classify import mirrored as mirrored_of
from scenelearn.finetune._head import Head
from scenelearn.finetune._settings import FitSettings

# The largest maps of layers that train, as a share of the image's width.
_LARGEST = {"coarse": 1 / 16, "coarsest": 1 / 32, "all": np.inf, "head": -1.0}

_log = logging.getLogger(__name__)


def features_for(settings: FitSettings) -> Any:
    """The network of features that a fit begins with, fast on a CPU.

    Args:
        settings: with the network's name.
    """
    features = backbones.build(
        settings.backbone,
        weights=settings.weights,
        image_px=settings.image_px,
        seed=settings.seed,
        batch_statistics=settings.recipe.batch_statistics,
        precision=settings.precision,
    )
    return backbones.fast_on_cpu(features)


def with_head(features: Any, head: Head, *, mirrored: bool = False) -> tuple[Any, Any]:
    """Put a head onto a model of features.

    Args:
        features: from raw pixels to (batch, n_features).
        head: its first values.
        mirrored: whether the second model looks at the mirror image of each photo as well.

    Returns:
        Two models that share all layers: to logits, for training, and to probabilities.
    """
    k = keras()
    kernel, bias = k.ops.convert_to_tensor(head.kernel), k.ops.convert_to_tensor(head.bias)
    dense = k.layers.Dense(len(head.bias), dtype="float32", name="logits")
    # Drawn values would be replaced below, and differ from process to process.
    usual, dense.kernel_initializer = dense.kernel_initializer, k.initializers.Zeros()
    dense.build(features.output.shape)
    dense.kernel_initializer = usual
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)
    logits = dense(features.output)
    probabilities = k.layers.Softmax(dtype="float32", name="probabilities")(logits)
    model = k.Model(features.input, probabilities, name="scenes")
    return k.Model(features.input, logits), mirrored_of(model) if mirrored else model


def with_blank_head(features: Any, n_classes: int, *, mirrored: bool = False) -> tuple[Any, Any]:
    """As `with_head`, with a head of zeros.

    Args:
        features: from `backbones.build`.
        n_classes: how many classes.
        mirrored: as in `with_head`.
    """
    kernel = np.zeros((int(features.output.shape[-1]), n_classes), np.float32)
    head = Head(kernel=kernel, bias=kernel[0].copy(), strength=1)
    return with_head(features, head, mirrored=mirrored)


def choose_trained(features: Any, image_px: int, trained: str) -> None:
    """Freeze layers of the backbone, and let the others train.

    Args:
        features: from `backbones.build`.
        image_px: its image size.
        trained: "coarse", "coarsest", "all" or "head", see `Recipe`.
    """
    largest = np.ceil(image_px * _LARGEST[trained])
    frozen = set[int]()  # what large maps are made from, squeeze-and-excitation too
    for operation in reversed(features.get_layer("backbone").operations):
        fed = {id(node.operation) for node in operation._outbound_nodes}
        if _map_px(operation) > largest or fed & frozen:
            frozen.add(id(operation))
        if isinstance(operation, keras().Layer):
            operation.trainable = id(operation) not in frozen
    if trained != "head" and not features.get_layer("backbone").trainable_variables:
        _log.warning("The head trains alone: the network has no maps as small as %r asks", trained)


def parted(features: Any, to_logits: Any) -> tuple[Any, Any] | None:
    """The network in two parts, below and from where layers train.

    It is cut below the first layer that trains, at the last place where at most twice the fewest
    numbers pass, in one tensor; where only the head trains, below that. In training the lower part
    runs as in prediction: what it drops out at random elsewhere it does not drop out there.

    Args:
        features: from `backbones.build`, its layers frozen or not.
        to_logits: the same with its head.

    Returns:
        Two models, fast on a CPU, that share their layers and weights with it: from raw pixels to
        maps, and from these to logits; or None where less than half of the layers with weights that
        do not train lie below.
    """
    k, network = keras(), features.get_layer("backbone")
    operations, maps = network.operations, network.output
    trains = [bool(getattr(one, "trainable_variables", ())) for one in operations]
    if any(trains):
        frozen = [bool(getattr(one, "weights", ())) and not one.trainable for one in operations]
        ends = [
            handed[0]
            for n in range(1, trains.index(True) + 1)
            if 2 * sum(frozen[:n]) >= sum(frozen) > 0 and len(handed := _handed_on(network, n)) == 1
        ]
        if not ends:
            return None
        sizes = [int(np.prod(end.shape[1:])) for end in ends]
        maps = [end for end, size in zip(ends, sizes, strict=True) if size <= 2 * min(sizes)][-1]
    x = features.input
    for layer in features.layers[1:-1]:  # the preprocessing
        x = layer(x)
    below = k.Model(features.input, k.Model(network.input, maps)(x))
    start = end = k.Input(maps.shape[1:])
    if maps is not network.output:
        upper = k.Model(maps, network.output)
        start, end = upper.input, upper.output
    above = k.Model(start, to_logits.get_layer("logits")(end))
    return backbones.fast_on_cpu(below), backbones.fast_on_cpu(above)


def _handed_on(network: Any, n: int) -> list[Any]:
    """What the network's operations from the n-th on, or its user, have from those before it."""
    later, ends = {id(one) for one in network.operations[n:]}, {id(one) for one in network.outputs}

    def is_used(one: Any) -> bool:
        by_later = any(id(node.operation) in later for node in one._outbound_nodes)
        return by_later or id(one.output) in ends

    return [one.output for one in network.operations[:n] if is_used(one)]


def _map_px(operation: Any) -> float:
    """Width and height of what comes out; 0 if it is no map, or one with a border added."""
    shape = tuple(getattr(operation.output, "shape", ()))
    border = isinstance(operation, keras().layers.ZeroPadding2D)
    return 0 if len(shape) != 4 or border else np.inf if shape[1] is None else shape[1]


def start_afresh(features: Any, to_logits: Any) -> None:
    """Prepare random weights for training: a short memory, and a head of zeros.

    BatchNormalization made for ImageNet remembers a thousand steps, more than a short run has.
    And a head that was solved for random features fits none that are being learned.

    Args:
        features: from `backbones.build`, with random weights.
        to_logits: the same with its head.
    """
    for layer in features.get_layer("backbone").layers:
        if isinstance(layer, keras().layers.BatchNormalization):
            layer.momentum = 0.9
    divide_logits(to_logits, np.inf)


def divide_logits(model: Any, by: float) -> None:
    """Divide the head's values in place: so a temperature becomes part of the weights."""
    dense = model.get_layer("logits")
    dense.kernel.assign(dense.kernel / by)
    dense.bias.assign(dense.bias / by)
