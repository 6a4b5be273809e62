"""One run of the network, and all that is wanted from it: answers, features, traits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._devices import padded, predict
from scenelearn.backbones import fast_on_cpu
from scenelearn.classify._views import both_views, entrance, is_mirrored, parts_of
from scenelearn.data import Batches
from scenelearn.errors import NoPhotosError

Images = npt.NDArray[np.uint8]
_FINEST = 20  # traits are read where a map is at least this share of the image: about 1/16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """What the network makes of n photos.

    Attributes:
        logits: (n, n_classes) float32.
        probabilities: (n, n_classes) float32.
        features: (n, n_features) float32, what the head sees.
        traits: (n, n_traits) float32, means of the maps at 1/16 of the image's size: what tells
            photos of another kind. (Features do not: fine-tuning makes all photos of a class
            alike, and photos of no class as well.)
    """

    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    traits: npt.NDArray[np.float32]


def sight_model(model: Any) -> Any:
    """The same network with four outputs: logits, probabilities, features, traits.

    Of a network that looks at mirror images as well, features and traits are the means of both.

    Args:
        model: a classifier's: preprocessing, "backbone", "logits", "probabilities".

    Returns:
        A `keras.Model` that shares all layers and weights with it, fast on a CPU.
    """
    k = keras()
    x, backbone = entrance(model)
    mean = k.layers.GlobalAveragePooling2D(name="scenelearn_traits")(trait_map(backbone).output)
    look = k.Model(backbone.input, [backbone.output, mean])
    if is_mirrored(model):
        pairs = zip(*both_views(look, x), strict=True)
        features, traits = (k.layers.Average(dtype="float32")(pair) for pair in pairs)
    else:
        features, traits = look(x)
    logits = model.get_layer("logits")(features)
    probabilities = model.get_layer("probabilities")(logits)
    return fast_on_cpu(k.Model(model.input, [logits, probabilities, features, traits]))


def sizes_of(model: Any) -> tuple[int, int, int]:
    """How many classes, features and traits a classifier's network has.

    Raises:
        ValueError: if it is put together in another way than `fit` does it.
    """
    layers = {layer.name: layer for layer in model.layers}
    try:
        backbone, logits = layers["backbone"], layers["logits"]
        traits = trait_map(backbone).output.shape[-1]
        n_features, n_classes = logits.kernel.shape
        expected = parts_of(model)
        if [layer.name for layer in model.layers][-len(expected) :] != expected:
            raise KeyError(expected)
    except (AttributeError, IndexError, KeyError):
        raise ValueError("a network that `fit` did not make") from None
    return int(n_classes), int(n_features), int(traits)


def trait_map(backbone: Any) -> Any:
    """The layer whose maps traits are read from: the last with maps of 1/20 the image or more."""
    least = backbone.input.shape[1] / _FINEST
    return [one for one in map_layers(backbone) if one.output.shape[1] >= least][-1]


def map_layers(backbone: Any) -> list[Any]:
    """The backbone's layers whose output is a map (batch, height, width, channels), in order."""
    return [one for one in backbone.layers if len(getattr(one.output, "shape", ())) == 4]


def sights(
    model: Any,
    batches: Iterable[Images],
    batch_size: int,
    *,
    total: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Sight]:
    """What the network makes of a stream of images, batch by batch.

    Args:
        model: from `sight_model`.
        batches: (b, px, px, 3) uint8 each, b at most `batch_size`.
        batch_size: images at once.
        total: images in all, for `progress`.
        progress: called with (images done, images in all) at the start and after each batch.

    Yields:
        One row an image of the batch.
    """
    for found in run(model, batches, batch_size, total=total, progress=progress):
        logits, probabilities, features, traits = found
        yield Sight(logits=logits, probabilities=probabilities, features=features, traits=traits)


def together(parts: list[Sight]) -> Sight:
    """Batches, at least one, as one."""
    return Sight(
        logits=np.concatenate([part.logits for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        traits=np.concatenate([part.traits for part in parts]),
    )


def outputs(
    model: Any,
    batches: Iterable[Images],
    batch_size: int,
    *,
    total: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """A model's outputs for a stream of images, with one compiled program for all batches.

    Args:
        model: a `keras.Model` with one output.
        batches: (b, height, width, 3) each, b at most `batch_size`; a smaller one is filled up
            with zeros, and its outputs are cut again.
        batch_size: images at once.
        total: images in all, for `progress`.
        progress: called with (images done, images in all) at the start and after each batch.

    Returns:
        (n, n_outputs) float32.
    """
    parts = run(model, batches, batch_size, total=total, progress=progress)
    return np.concatenate([part[0] for part in parts])


def run(
    model: Any,
    batches: Iterable[Images],
    batch_size: int,
    *,
    total: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """For each batch, all outputs of a model; see `outputs`."""
    done = 0
    if progress:
        progress(0, total)
    for batch in batches:
        n = len(batch)
        fill = np.zeros((padded(batch_size) - n, *batch.shape[1:]), batch.dtype)
        whole = np.concatenate([batch, fill]) if len(fill) else batch
        yield [table[:n] for table in predict(model, whole)]
        done += n
        if progress:
            progress(done, total)


def judge(
    model: Any, batches: Batches, progress: Callable[[int, int], None] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """A model's outputs for a set of photos, in its order.

    Args:
        model: from what the batches hold, raw pixels or their maps, to one output.
        batches: the photos.
        progress: called with (photos done, photos in all).

    Returns:
        (n, n_outputs) float32, and (n,) int64: which photos were judged. Photos that cannot be
        read any more are missing in both.

    Raises:
        NoPhotosError: if none can be read any more.
    """
    judged: list[npt.NDArray[np.int64]] = []
    table = outputs(
        model,
        readable(batches, judged),
        batches.batch_size,
        total=batches.n_photos,
        progress=progress,
    )
    return table, np.concatenate(judged)


def readable(batches: Batches, judged: list[npt.NDArray[np.int64]]) -> Iterator[Images]:
    """The images of all batches; which photos they are is added to `judged`.

    Raises:
        NoPhotosError: if none can be read any more.
    """
    for images, _, indices in batches.in_order():
        judged.append(indices)
        yield images
    if not judged:
        raise NoPhotosError(
            f"None of the {batches.n_photos:,} photos can be read any more. "
            f"First: {next(iter(batches.pixels.refused), 'none')}. Check the files."
        )
