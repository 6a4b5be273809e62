"""Batches of images and labels, as a function of (seed, epoch, step) and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scenelearn._threads import map_ahead
from scenelearn.data._pixels import Pixels
from scenelearn.errors import ArgumentError

if TYPE_CHECKING:
    import keras

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batches:
    """A set of photos, cut into batches; each epoch in an order of its own.

    Any batch can be had alone, `batch(epoch, step)`, so training goes on from any step exactly,
    and the number of workers changes nothing but the time.

    Attributes:
        pixels: of all photos.
        labels: (n,) int32, of all photos.
        indices: (m,) int64, the photos of this set; those that cannot be decoded are left out.
        batch_size: photos a batch, at least 1; the last batch of an epoch holds what is left.
        seed: of the orders, at least 0.
        balanced: whether an epoch's shuffled photos are drawn so that each class comes equally
            often: photos of small classes several times, some of large classes not at all.
        workers: threads that make batches ahead, at least 0.
        process: which process this is, of so many: (k, n) with 0 ≤ k < n. Each gets every n-th
            photo of each batch from its k-th on. A last batch of fewer than n shuffled photos,
            which would leave a process without any, is left out.

    Raises:
        ArgumentError: if a number is out of range.

    Examples:
        >>> import numpy as np
        >>> images = np.zeros((103, 2, 2, 3), np.uint8)
        >>> batches = Batches(
        ...     pixels=in_memory(images), labels=np.zeros(103, np.int32),
        ...     indices=np.arange(103), batch_size=10,
        ... )
        >>> len(batches), [len(labels) for _, labels, _ in batches.shuffled(epoch=0)][-2:]
        (11, [10, 3])
    """

    pixels: Pixels
    labels: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int64]
    batch_size: int
    seed: int = 0
    balanced: bool = False
    workers: int = 0
    process: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        _check_whole("batch_size", self.batch_size, 1, 32)
        _check_whole("seed", self.seed, 0, 0)
        _check_whole("workers", self.workers, 0, 2)
        k, n = self.process
        _check_whole("process[1]", n, 1, 1)
        _check_whole("process[0]", k, 0, 0)
        if k >= n:
            raise ArgumentError(
                f"`process` must be (k, n) with k below n. Received: process={self.process!r}. "
                "Pass e.g. (0, 1) where there is only one."
            )
        usable = self.indices[self.pixels.usable[self.indices]]
        object.__setattr__(self, "indices", usable)

    def __len__(self) -> int:
        """Batches an epoch, the last, partial one counted."""
        return math.ceil(len(self.indices) / self.batch_size)

    @property
    def n_photos(self) -> int:
        """Photos an epoch, of all processes."""
        return len(self.indices)

    @property
    def n_steps(self) -> int:
        """Shuffled batches an epoch: `len`, unless processes leave out the last."""
        n_last = len(self.indices) % self.batch_size
        return len(self) - (0 < n_last < self.process[1])

    def in_order(self) -> Iterator[Batch]:
        """All photos once, in the order of `indices`: for features and evaluation."""
        return self._cut(self.indices, range(len(self)))

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """All photos once, in the order of this epoch: for training.

        Args:
            epoch: its number, at least 0; another epoch has another order.
            start: the step to begin with, to go on where training stopped.

        Yields:
            (images (b, px, px, 3) uint8, labels (b,) int32, indices (b,) int64).

        Raises:
            ArgumentError: if `epoch` or `start` is out of range.
        """
        _check_whole("start", start, 0, 0)
        return self._cut(self.order(epoch), range(start, self.n_steps))

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The photos in the order of an epoch.

        Args:
            epoch: its number, at least 0.

        Returns:
            (m,) int64, positions in all photos.

        Raises:
            ArgumentError: if `epoch` is out of range.
        """
        _check_whole("epoch", epoch, 0, 0)
        random = np.random.default_rng([self.seed, epoch])
        if not self.balanced:
            return random.permutation(self.indices)
        mixed = random.permutation(self.indices)
        labels = self.labels[mixed]
        classes = random.permutation(np.unique(labels))
        n_each = np.full(len(classes), len(mixed) // max(len(classes), 1))
        n_each[: len(mixed) % max(len(classes), 1)] += 1  # other classes in another epoch
        drawn = [
            np.resize(mixed[labels == label], n) for label, n in zip(classes, n_each, strict=True)
        ]
        return random.permutation(np.concatenate([np.zeros(0, np.int64), *drawn]))

    def batch(self, epoch: int, step: int) -> Batch:
        """One batch of an epoch: what `shuffled` yields at this step.

        Args:
            epoch: its number, at least 0.
            step: in [0, `n_steps`).

        Raises:
            ArgumentError: if one is out of range.
        """
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < self.n_steps:
            raise ArgumentError(
                f"`step` must be a whole number below {self.n_steps:,}. Received: step={step!r}. "
                "An epoch has that many batches."
            )
        return self.at(self.order(epoch), step)

    def for_keras(self, *, shuffled: bool = True, epoch: int = 0) -> keras.utils.PyDataset:
        """This set as a dataset for ``model.fit``, ``evaluate`` and ``predict``, on any backend.

        Args:
            shuffled: each epoch in an order of its own, for training; False for validation.
            epoch: number of the first epoch, to go on after so many.

        Returns:
            A dataset with a length, of (images, labels).

        Raises:
            ArgumentError: if `epoch` is out of range.
            BackendError: if no backend of Keras is installed.
        """
        from scenelearn.data._keras import dataset

        _check_whole("epoch", epoch, 0, 0)
        return dataset(self, shuffled=shuffled, epoch=epoch)

    def class_weights(self) -> dict[int, float]:
        """For each class of this set n / (k · n of the class): ``model.fit``'s ``class_weight``.

        With them each of the k classes counts equally in the loss, and the mean weight is 1.
        """
        classes, counts = np.unique(self.labels[self.indices], return_counts=True)
        weights = len(self.indices) / (len(classes) * counts)
        return {int(label): float(w) for label, w in zip(classes, weights, strict=True)}

    def _cut(self, order: npt.NDArray[np.int64], steps: range) -> Iterator[Batch]:
        made = map_ahead(lambda step: self.at(order, step), steps, self.workers)
        return (batch for batch in made if len(batch[2]))

    def at(self, order: npt.NDArray[np.int64], step: int) -> Batch:
        """One batch of an order: `batch` for who has the epoch's order at hand.

        Args:
            order: (m,) int64, from `order`, or `indices`.
            step: in [0, `len`).
        """
        k, n = self.process
        start = step * self.batch_size
        images, indices = self.pixels.read(order[start : start + self.batch_size][k::n])
        return images, self.labels[indices], indices


def in_memory(images: npt.NDArray[np.uint8]) -> Pixels:
    """Images that are an array already, as pixels to cut into batches.

    Args:
        images: (n, px, px, 3) uint8.

    Raises:
        ArgumentError: if it is not such an array.
    """
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:] != (images.shape[1],) * 2 + (3,)
    ):
        raise ArgumentError(
            "`images` must have the shape (n, px, px, 3) and the dtype uint8. "
            f"Received: shape {images.shape}, dtype {images.dtype}. Resize and convert them."
        )
    return Pixels(
        image_px=images.shape[1],
        usable=np.ones(len(images), bool),
        rows=lambda indices: (images[indices], indices),
    )


def _check_whole(name: str, value: object, least: int, example: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(
            f"`{name}` must be a whole number of at least {least}. "
            f"Received: {name}={value!r}. Pass e.g. {example}."
        )
