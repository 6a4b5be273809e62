"""Inference: one forward pass gives logits, probabilities and features.

`stream_outputs` runs an `inference_model` over images, and `_labeled_outputs.predict_photos` over
labeled photos. `predict_images` and `predict_batches` run a model with a single output, such as the
features of a backbone.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import default_settings, keras
from scenelearn._distributed import padded_batch_size, predict_on_devices
from scenelearn._keras_internals import output_of
from scenelearn._progress import Report
from scenelearn.backbones import fast_on_cpu
from scenelearn.backbones._fast import batches_at_once
from scenelearn.data import Batches
from scenelearn.errors import NoPhotosError

Images = npt.NDArray[np.uint8]
_OOD_STRIDE = 20  # OOD features come from the last feature map of at most this stride: usually 16


_lock = threading.RLock()


@contextmanager
def one_thread_at_a_time() -> Iterator[None]:
    """Build or run a network: Keras' models are not safe to use from several threads at once."""
    with default_settings(), _lock:  # in this order: a forked process raises and does not wait
        yield


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """The outputs of the inference model for n photos.

    Attributes:
        logits: (n, n_classes) float32.
        probabilities: (n, n_classes) float32.
        features: (n, n_features) float32, the input of the head.
        ood_features: (n, n_ood_features) float32, the averaged feature maps of stride 16, which
            separate photos of other things; `features` if the backbone has no feature maps.
            (`features` do not separate them: fine-tuning maps all photos of a class close together,
            and photos of no class as well.)
    """

    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    ood_features: npt.NDArray[np.float32]

    @staticmethod
    def concatenate(parts: list[Outputs]) -> Outputs:
        """Join batches, at least one."""
        return Outputs(
            logits=np.concatenate([part.logits for part in parts]),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            features=np.concatenate([part.features for part in parts]),
            ood_features=np.concatenate([part.ood_features for part in parts]),
        )


@default_settings()
def inference_model(model: Any) -> Any:
    """The same network with four outputs: logits, probabilities, features, OOD features.

    Args:
        model: a classifier's model: preprocessing, "backbone", "logits", "probabilities".

    Returns:
        A `keras.Model` that shares all layers and weights with `model`, optimized for the CPU.
    """
    k = keras()
    x, backbone = backbone_input(model)
    source = _ood_layer(backbone)
    if source is None:
        features = ood_features = backbone(x)
    else:
        pool = k.layers.GlobalAveragePooling2D(name="scenelearn_ood_features")
        extractor = k.Model(backbone.input, [backbone.output, pool(feature_map_of(source))])
        features, ood_features = extractor(x)
    logits = model.get_layer("logits")(features)
    probabilities = model.get_layer("probabilities")(logits)
    return fast_on_cpu(k.Model(model.input, [logits, probabilities, features, ood_features]))


def backbone_input(model: Any) -> tuple[Any, Any]:
    """The symbolic input of a classifier's backbone, and the backbone itself."""
    x = model.input
    for layer in model.layers[1:]:
        if layer.name == "backbone":
            break
        x = layer(x)
    return x, layer


def output_sizes(model: Any) -> tuple[int, int, int]:
    """The numbers of classes, features and OOD features of a classifier's model.

    Raises:
        ValueError: if the model is not structured as `fit` builds it.
    """
    layers = {layer.name: layer for layer in model.layers}
    try:
        backbone, logits = layers["backbone"], layers["logits"]
        source = _ood_layer(backbone)
        n_ood_features = (backbone if source is None else source).output.shape[-1]
        n_features, n_classes = logits.kernel.shape
        expected = ["backbone", "logits", "probabilities"]
        if [layer.name for layer in model.layers][-3:] != expected:
            raise KeyError(expected)
    except (AttributeError, IndexError, KeyError):
        raise ValueError("a network that `fit` did not build") from None
    return int(n_classes), int(n_features), int(n_ood_features)


def _ood_layer(backbone: Any) -> Any:
    """The last layer whose feature map is at least 1/20 of the image's size.

    If there is none, the last one with a smaller feature map; None without feature maps.
    """
    smallest = backbone.input.shape[1] / _OOD_STRIDE
    layers = feature_map_layers(backbone)
    large = [layer for layer in layers if layer.output.shape[1] >= smallest]
    chosen = large or layers
    return chosen[-1] if chosen else None


def feature_map_layers(backbone: Any) -> list[Any]:
    """The backbone's layers that output feature maps (batch, height, width, channels), in order.

    Those that output images are left out: the input, and preprocessing inside a network.
    """
    layers = []
    for layer in backbone.layers:
        shape = tuple(getattr(layer.output, "shape", ()))
        if len(shape) == 4 and shape[-1] not in (1, 3):
            layers.append(layer)
    return layers


def feature_map_of(layer: Any) -> Any:
    """The symbolic feature map of a layer of a backbone, which may be a whole model."""
    return output_of(layer) if isinstance(layer, keras().Model) else layer.output


def stream_outputs(
    model: Any,
    batches: Iterable[Images],
    batch_size: int,
    *,
    total: int = 0,
    report: Report | None = None,
) -> Iterator[Outputs]:
    """Run an inference model over a stream of images, batch by batch.

    Args:
        model: from `inference_model`.
        batches: (b, height, width, 3) uint8 each, b at most `batch_size`.
        batch_size: images per batch.
        total: the number of images, for `report`.
        report: called with (images done, total) at the start and after each batch.

    Yields:
        The outputs for each batch.
    """
    for tables in _predict(model, batches, batch_size, total=total, report=report):
        logits, probabilities, features, ood_features = tables
        yield Outputs(
            logits=logits,
            probabilities=probabilities,
            features=features,
            ood_features=ood_features,
        )


def compute_outputs(model: Any, images: Images, batch_size: int) -> Outputs:
    """Run an inference model on some images.

    Args:
        model: from `inference_model`.
        images: (n, height, width, 3) uint8, n at least 1.
        batch_size: images per batch, or the next multiple of the number of devices.
    """
    size = padded_batch_size(batch_size)
    parts = (images[start : start + size] for start in range(0, len(images), size))
    return Outputs.concatenate(list(stream_outputs(model, parts, size)))


def predict_images(
    model: Any,
    batches: Iterable[Images],
    batch_size: int,
    *,
    total: int = 0,
    report: Report | None = None,
) -> npt.NDArray[np.float32]:
    """The output of a model for a stream of images. One compiled program serves all batches.

    Args:
        model: a `keras.Model` with one output.
        batches: (b, height, width, 3) each, b at most `batch_size`. A smaller batch is padded with
            zeros, and its outputs are cut.
        batch_size: images per batch.
        total: the number of images, for `report`.
        report: called with (images done, total) at the start and after each batch.

    Returns:
        (n, n_outputs) float32.
    """
    parts = _predict(model, batches, batch_size, total=total, report=report)
    return np.concatenate([part[0] for part in parts])


def _predict(
    model: Any,
    batches: Iterable[Images],
    batch_size: int,
    *,
    total: int,
    report: Report | None,
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """All outputs of a model for each batch; see `predict_images`."""
    done, size = 0, padded_batch_size(batch_size)
    if report:
        report(0, total)
    remaining, n_at_once = iter(batches), batches_at_once(model, batch_size)
    while group := list(itertools.islice(remaining, n_at_once)):
        padded = [_pad(batch, size) for batch in group]
        with one_thread_at_a_time():
            tables = predict_on_devices(model, np.concatenate(padded) if padded[1:] else padded[0])
        for start, batch in zip(range(0, len(group) * size, size), group, strict=True):
            yield [table[start : start + len(batch)] for table in tables]
            done += len(batch)
            if report:
                report(done, total)


def _pad(batch: Images, size: int) -> Images:
    """A batch, filled up with images of zeros."""
    padding = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
    return np.concatenate([batch, padding]) if len(padding) else batch


def predict_batches(
    model: Any, batches: Batches, report: Report | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The output of a model for a set of photos, in their order.

    Args:
        model: from what the batches hold, pixels or feature maps, to one output.
        batches: the photos.
        report: called with (photos done, total).

    Returns:
        (n, n_outputs) float32, and (n,) int64, the indices of the photos. Both lack photos that
        can no longer be read.

    Raises:
        NoPhotosError: if no photo can be read anymore.
    """
    indices: list[npt.NDArray[np.int64]] = []
    table = predict_images(
        model,
        readable_images(batches, indices),
        batches.batch_size,
        total=batches.n_photos,
        report=report,
    )
    return table, np.concatenate(indices)


def readable_images(batches: Batches, indices: list[npt.NDArray[np.int64]]) -> Iterator[Images]:
    """The images of all batches. The indices of their photos are appended to `indices`.

    Raises:
        NoPhotosError: if no photo can be read anymore.
    """
    for images, _, batch_indices in batches.in_order():
        indices.append(batch_indices)
        yield images
    if not indices:
        raise NoPhotosError(
            f"At least one of the {batches.n_photos:,} photos must still be readable. Received: "
            f"none. The first one: {next(iter(batches.pixels.rejected), 'no photo')}. "
            "Check the files."
        )
