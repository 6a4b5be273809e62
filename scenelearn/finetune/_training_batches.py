"""Training batches: augmented images with soft labels, or the cached activations of frozen layers.

If the views of a photo repeat, so do the activations of the frozen layers, and a training step can
start from those. The activations of ten thousand photos are gigabytes. They are appended to a
temporary file, which the system keeps in memory as far as possible, and which disappears with the
process, however that ends. Cached activations are bit for bit what would be computed again.
"""

from __future__ import annotations

import logging
import math
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._distributed import padded_batch_size, process_count, process_index
from scenelearn._io import cache_folder, has_free_space
from scenelearn._threads import map_ahead
from scenelearn.augment import Policy, apply, apply_mix, policy, sample, sample_mix
from scenelearn.classify._inference import predict_images
from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError, DeviceError
from scenelearn.finetune._settings import Recipe

UNAUGMENTED = -1  # the view of a photo without augmentation, for validation

Table = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How training batches are made from photos.

    Attributes:
        policy: how each photo is augmented.
        recipe: whether photos are mixed, and how many views there are.
        n_classes: number of classes.
    """

    policy: Policy
    recipe: Recipe
    n_classes: int

    @property
    def n_views(self) -> int:
        """Number of views per photo; 0 if each epoch has new ones."""
        return 1 if self.policy == policy("none") else self.recipe.fixed_views

    def view(self, epoch: int) -> int:
        """The number of the view in an epoch."""
        return epoch % self.n_views if self.n_views else epoch

    def augment(self, images: Any, indices: Any, n: int, *, seed: int, view: int) -> Any:
        """Augment photos; always n of them, since each other number is a program to compile.

        Args:
            images: (b, height, width, 3) uint8, b from 1 to n; they are repeated.
            indices: (b,) positions of the photos.
            n: number of images in the output.
            seed: random seed.
            view: number of the view.
        """
        parameters = sample(self.policy, seed, np.resize(indices, n), epoch=view)
        return apply(np.resize(images, (n, *images.shape[1:])), parameters)


def augmented_batches(
    train: Batches, augmentation: Augmentation, *, epoch: int, steps: range
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The batches of some steps of an epoch, each made in a thread during the step before it.

    A batch is a function of (seed, epoch, step). If its size is not a multiple of the number of
    devices, it is padded with photos of weight 0. Of several processes, each makes only its part;
    if photos are mixed, each makes the whole batch and keeps its part.

    Args:
        train: the training photos.
        augmentation: how they are augmented and mixed.
        epoch: number of the epoch, at least 0.
        steps: the steps.

    Returns:
        The number of each step, and its batch: images (batch, height, width, 3) and labels
        (batch, n_classes) float32 with row sums of 1. A smaller last batch is filled by repeating
        its photos, so that a single compiled program serves all. Steps whose photos can no longer
        be read are skipped. If the batch is padded, sample weights (batch,) come third.

    Raises:
        DeviceError: by the iterator, if one of several processes can no longer read a photo.
    """
    order, view, recipe = train.order(epoch), augmentation.view(epoch), augmentation.recipe
    one_hot = np.eye(augmentation.n_classes, dtype=np.float32)
    n, n_padded = train.batch_size, padded_batch_size(train.batch_size)
    k, n_processes = process_index(), process_count()
    is_mixed, shard = recipe.mixup_alpha or recipe.cutmix_alpha, batch_sharder(n)
    own_part = replace(train, batch_size=n_padded, process=(k, n_processes))

    def make_batch(step: int) -> tuple[Any, ...]:
        n_rows = n
        if n_processes == 1 or is_mixed:
            images, labels, indices = train.take(order, step)
        else:
            n_rows = n_padded // n_processes
            filled = np.resize(order[step * n : (step + 1) * n], n)
            images, labels, indices = own_part.take(np.resize(filled, n_padded), 0)
        if n_processes > 1 and len(indices) < min(n_rows, len(order) - step * n):
            raise DeviceError(
                "All processes must be able to read all photos. Received: photos that process "
                f"{k} can no longer read. Check its disk, and call fit again with resume=True."
            )
        if not len(indices):
            return images, labels
        images = augmentation.augment(images, indices, n_rows, seed=train.seed, view=view)
        targets = one_hot[np.resize(labels, n_rows)]
        if is_mixed:
            mix = sample_mix(
                train.seed,
                n,
                epoch=epoch,
                step=step,
                mixup_alpha=recipe.mixup_alpha,
                cutmix_alpha=recipe.cutmix_alpha,
            )
            images, targets = apply_mix(images, targets, mix)
        return shard(images, targets)

    batches = map_ahead(make_batch, steps, workers=1)
    return ((k, batch) for k, batch in zip(steps, batches, strict=True) if len(batch[1]))


def batch_sharder(n: int) -> Callable[[Any, Any], tuple[Any, ...]]:
    """A function that takes this process' rows of a batch, and adds sample weights if it is padded.

    Call this in the training thread: other threads do not know the distribution set in Keras.

    Args:
        n: photos per batch.

    Returns:
        A function of images or activations, and labels, of the whole batch or of this process'
        part. With one device it returns them unchanged.
    """
    n_padded, k, n_processes = padded_batch_size(n), process_index(), process_count()

    def shard(images: Any, targets: Any) -> tuple[Any, ...]:
        if n_padded == n and n_processes == 1:
            return images, targets
        rows = np.arange(n_padded)[k::n_processes]
        if len(rows) != len(targets):
            images, targets = (np.asarray(one)[rows % n] for one in (images, targets))
        if n_padded == n:
            return images, targets
        return images, targets, np.where(rows < n, n_padded / n, 0).astype(np.float32)

    return shard


class ActivationCache:
    """The activations of the frozen layers for some views of photos. For one thread.

    Args:
        frozen: from raw pixels to activations.
        n_views: number of augmented views per photo.
        n_photos: number of all photos.
        n_rows: number of rows that will be needed; without space for all, nothing is cached.
        batch_size: photos per batch.
    """

    def __init__(
        self, frozen: Any, *, n_views: int, n_photos: int, n_rows: int, batch_size: int
    ) -> None:
        self.frozen, self.n_views, self.batch_size = frozen, n_views, batch_size
        self.shape = tuple(int(n) for n in frozen.output.shape[1:])
        self.row_bytes = 4 * math.prod(self.shape)
        self.has_space = self._open_file(n_rows)
        self._row = np.full((n_views + 1, n_photos), -1, np.int64)
        self._n_rows = 0

    def contains(self, view: int, indices: Indices) -> npt.NDArray[np.bool_]:
        """(b,) whether the activations of this view are cached, for each of (b,) photos."""
        return np.asarray(self._row[view, indices] >= 0)

    def count_new_views(self, indices: Indices) -> int:
        """Number of views that are not cached yet for most of these photos; 0 without caching."""
        if not self.has_space:
            return 0
        return sum(bool(self.contains(k, indices).mean() < 0.5) for k in range(self.n_views))

    def get(
        self, view: int, indices: Indices, images: npt.NDArray[np.uint8], found: Indices
    ) -> tuple[Table, Indices]:
        """The activations of a batch, computed for those that are not cached.

        Args:
            view: the view, below `n_views`, or `UNAUGMENTED`.
            indices: (b,) the photos, each once.
            images: (s, px, px, 3) this view of the photos that are not cached.
            found: (s,) which photos these are; photos that can no longer be read are missing.

        Returns:
            (m, height, width, channels) float32 and (m,): the photos, in the order of `indices`,
            without those that are missing.
        """
        new: dict[int, Table] = {}
        if len(found):
            computed = predict_images(self.frozen, [images], self.batch_size)
            new = dict(zip(found.tolist(), computed, strict=True))
        cached = self.contains(view, indices)
        available = [k for k, index in enumerate(indices.tolist()) if cached[k] or index in new]
        table = np.empty((len(available), *self.shape), np.float32)
        for row, k in zip(table, available, strict=True):
            index = int(indices[k])
            row[...] = new[index] if index in new else self._read(view, index)
        self._write(view, new)
        return table, indices[available]

    def _open_file(self, n_rows: int) -> bool:
        """Open the file if there is space for so many rows; otherwise log a warning."""
        what = "The activations of frozen layers are not cached, but computed at each step"
        try:
            folder = cache_folder()
            if not has_free_space(folder, 0, n_rows * self.row_bytes, what=what):
                return False
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see below
        except (OSError, ArgumentError) as error:
            _log.warning("%s: %s", what, error)
            return False
        weakref.finalize(self, self._file.close)
        return True

    def _read(self, view: int, index: int) -> Table:
        self._file.seek(int(self._row[view, index]) * self.row_bytes)
        return np.frombuffer(self._file.read(self.row_bytes), np.float32).reshape(self.shape)

    def _write(self, view: int, new: Mapping[int, Table]) -> None:
        """Append activations to the file; if that fails, cache no more."""
        for index, activations in new.items():
            if not self.has_space or self._row[view, index] >= 0:
                continue
            try:
                self._file.seek(self._n_rows * self.row_bytes)
                if self._file.write(activations.tobytes()) != self.row_bytes:
                    raise OSError("the disk is full")
            except OSError as error:
                _log.warning("No more activations are cached: %s: %s", cache_folder(), error)
                self.has_space = False
                return
            self._row[view, index] = self._n_rows
            self._n_rows += 1


def activations_as_pixels(cache: ActivationCache, pixels: Pixels) -> Pixels:
    """`Pixels` that load activations (b, height, width, channels) float32 instead of images.

    Args:
        cache: of the activations.
        pixels: of the photos.
    """

    def load(indices: Indices) -> tuple[Any, Indices]:
        images, found = pixels.load(indices[~cache.contains(UNAUGMENTED, indices)])
        return cache.get(UNAUGMENTED, indices, images, found)

    return replace(pixels, load=load)


def cached_batches(
    train: Batches,
    cache: ActivationCache,
    augmentation: Augmentation,
    *,
    epoch: int,
    steps: range,
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """As `augmented_batches`, with the activations of the epoch's views instead of images.

    Args:
        train: the training photos.
        cache: of the activations.
        augmentation: how the views differ; photos are not mixed.
        epoch: number of the epoch, at least 0.
        steps: the steps.

    Returns:
        The number of each step, and its batch: activations (batch, height, width, channels) float32
        and labels (batch, n_classes) float32. A smaller last batch is filled by repeating its
        photos. If the batch is padded, sample weights (batch,) come third.
    """
    order, view, n = train.order(epoch), augmentation.view(epoch), train.batch_size
    shard = batch_sharder(n)
    one_hot = np.eye(augmentation.n_classes, dtype=np.float32)

    def load(step: int) -> tuple[Indices, Any, Indices]:
        """The photos of a step, and this view of those that are not cached."""
        indices = order[step * n : (step + 1) * n]
        images, _, found = train.take(indices[~cache.contains(view, indices)], 0)
        if len(found):
            augmented = augmentation.augment(images, found, n, seed=train.seed, view=view)
            images = np.asarray(augmented)[: len(found)]
        return indices, images, found

    for step, loaded in zip(steps, map_ahead(load, steps, workers=1), strict=True):
        rows, indices = cache.get(view, *loaded)
        if len(indices):
            targets = one_hot[train.labels[indices]]
            if len(indices) < n:
                rows, targets = (np.resize(one, (n, *one.shape[1:])) for one in (rows, targets))
            yield step, shard(rows, targets)
