"""`Batches`: images and labels, as a function of (seed, epoch, step) and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_integer
from scenelearn._threads import map_ahead
from scenelearn.data._pixels import Pixels
from scenelearn.errors import ArgumentError

if TYPE_CHECKING:
    import keras

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Batches:
    """A set of photos in batches; each epoch has its own order.

    Any batch can be computed by itself, ``batch(epoch, step)``, so training resumes exactly at any
    step, and the number of workers changes nothing but the speed. ``len(batches)`` is the number of
    batches per epoch, the last, smaller one included.

    Attributes:
        pixels: of all photos.
        labels: (n,) int32, of all photos.
        indices: (m,) int64, the photos of this set; photos that cannot be decoded are left out.
        batch_size: photos per batch, at least 1; the last batch of an epoch may be smaller.
        seed: random seed of the orders, at least 0.
        balanced: whether each shuffled epoch contains all classes equally often: photos of small
            classes several times, some photos of large classes not at all.
        workers: threads that prepare batches ahead, at least 0.
        process: (k, n) for process k of n, with 0 ≤ k < n. Each process gets every n-th photo of
            each batch, starting with photo k. A last batch of fewer than n shuffled photos would
            leave a process without any, and is dropped.

    Raises:
        ArgumentError: if a number is out of range.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((103, 2, 2, 3), np.uint8)
        >>> batches = Batches(
        ...     pixels=Pixels.from_array(images), labels=np.zeros(103, np.int32),
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
        check_integer("batch_size", self.batch_size, low=1, advice="Pass e.g. 32.")
        check_integer("seed", self.seed, low=0, advice="Pass e.g. 0.")
        check_integer("workers", self.workers, low=0, advice="Pass e.g. 2.")
        k, n = self.process
        check_integer("process[1]", n, low=1, advice="Pass 1 for a single process.")
        check_integer("process[0]", k, low=0, advice="Pass 0 for a single process.")
        if k >= n:
            raise ArgumentError(
                f"`process` must be (k, n) with k below n. Received: process={self.process!r}. "
                "Pass (0, 1) for a single process."
            )
        usable = self.indices[self.pixels.usable[self.indices]]
        object.__setattr__(self, "indices", usable)

    def __len__(self) -> int:
        return math.ceil(len(self.indices) / self.batch_size)

    def __repr__(self) -> str:
        n, size = f"{self.n_photos:,}", f"{self.batch_size:,}"
        return f"<Batches: {n} photos, {len(self):,} batches of up to {size}>"

    @property
    def n_photos(self) -> int:
        """Photos per epoch, of all processes."""
        return len(self.indices)

    @property
    def n_steps(self) -> int:
        """Shuffled batches per epoch: `len`, unless several processes drop the last one."""
        n_last = len(self.indices) % self.batch_size
        return len(self) - (0 < n_last < self.process[1])

    def in_order(self) -> Iterator[Batch]:
        """Each photo once, in the order of `indices`: for features and evaluation."""
        return self._iterate(self.indices, range(len(self)))

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Each photo once, in the random order of an epoch: for training.

        Args:
            epoch: the epoch, at least 0; each has another order.
            start: the first step, to resume within an epoch.

        Yields:
            (images (b, height, width, 3) uint8, labels (b,) int32, indices (b,) int64).

        Raises:
            ArgumentError: if `epoch` or `start` is out of range.
        """
        check_integer("start", start, low=0, advice="Pass 0 for the whole epoch.")
        return self._iterate(self.order(epoch), range(start, self.n_steps))

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The photos in the random order of an epoch.

        Args:
            epoch: the epoch, at least 0.

        Returns:
            (m,) int64, positions among all photos.

        Raises:
            ArgumentError: if `epoch` is out of range.
        """
        check_integer("epoch", epoch, low=0, advice="Pass 0 for the first epoch.")
        random = np.random.default_rng([self.seed, epoch])
        if not self.balanced:
            return random.permutation(self.indices)
        permuted = random.permutation(self.indices)
        labels = self.labels[permuted]
        classes = random.permutation(np.unique(labels))
        n_each = np.full(len(classes), len(permuted) // max(len(classes), 1))
        n_each[: len(permuted) % max(len(classes), 1)] += 1  # other classes in another epoch
        chosen = [
            np.resize(permuted[labels == label], n)
            for label, n in zip(classes, n_each, strict=True)
        ]
        return random.permutation(np.concatenate([np.zeros(0, np.int64), *chosen]))

    def batch(self, epoch: int, step: int) -> Batch:
        """One batch of an epoch: what `shuffled` yields at this step.

        Args:
            epoch: the epoch, at least 0.
            step: in [0, `n_steps`).

        Raises:
            ArgumentError: if one of them is out of range.
        """
        advice = f"An epoch has {self.n_steps:,} batches."
        check_integer("step", step, low=0, high=self.n_steps - 1, advice=advice)
        return self.take(self.order(epoch), step)

    def take(self, order: npt.NDArray[np.int64], step: int) -> Batch:
        """One batch of a given order; `batch`, if the epoch's order is at hand.

        Args:
            order: (m,) int64, from `order`, or `indices`.
            step: in [0, `len`).
        """
        k, n = self.process
        start = step * self.batch_size
        images, indices = self.pixels.read(order[start : start + self.batch_size][k::n])
        return images, self.labels[indices], indices

    def _iterate(self, order: npt.NDArray[np.int64], steps: range) -> Iterator[Batch]:
        batches = map_ahead(lambda step: self.take(order, step), steps, self.workers)
        return (batch for batch in batches if len(batch[2]))

    def to_keras_dataset(self, *, shuffle: bool = True, epoch: int = 0) -> keras.utils.PyDataset:
        """A dataset for ``model.fit``, ``evaluate`` and ``predict``, on any Keras backend.

        Args:
            shuffle: whether each epoch has its own random order, for training; False for
                validation.
            epoch: the first epoch, to resume training.

        Returns:
            A dataset of (images, labels), with a length.

        Raises:
            ArgumentError: if `epoch` is out of range.
            BackendError: if no Keras backend is installed.
        """
        check_integer("epoch", epoch, low=0, advice="Pass 0 for the first epoch.")
        return _make_keras_dataset(self, shuffle=shuffle, epoch=epoch)

    def class_weights(self) -> dict[int, float]:
        """For each class n / (k · n of the class): the ``class_weight`` of ``model.fit``.

        With these weights all k classes count equally in the loss, and the mean weight is 1.
        """
        classes, counts = np.unique(self.labels[self.indices], return_counts=True)
        weights = len(self.indices) / (len(classes) * counts)
        return {int(label): float(w) for label, w in zip(classes, weights, strict=True)}


def _make_keras_dataset(batches: Batches, *, shuffle: bool, epoch: int) -> Any:
    from scenelearn._backend import keras

    class PhotoDataset(keras().utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        """The batches of one epoch after the other, in the order of `Batches`.

        ``model.fit`` shuffles step numbers by Python's global random state unless called with
        ``shuffle=False``, and takes a batch or two before the first epoch to see their shapes. So
        within an epoch the next batch is returned whatever number is requested, and an epoch of
        which at most one batch was taken does not count.
        """

        def __init__(self) -> None:
            super().__init__()  # one thread of Keras; the workers of `Batches` prepare ahead
            self._epoch, self._n_taken = epoch, 0
            self._stream: Iterator[Any] | None = None

        def __len__(self) -> int:
            return batches.n_steps if shuffle else len(batches)

        def __getitem__(self, step: int) -> tuple[Any, Any]:
            if self._stream is None:
                order = batches.order(self._epoch) if shuffle else batches.indices
                images, labels, _ = batches.take(order, step)
            else:
                images, labels, _ = next(self._stream)
                self._n_taken += 1
            return images, labels

        def on_epoch_begin(self) -> None:
            self._n_taken = 0
            self._stream = batches.shuffled(self._epoch) if shuffle else batches.in_order()

        def on_epoch_end(self) -> None:
            self._stream = None
            if self._n_taken > 1 or len(self) == self._n_taken:
                self._epoch += 1
            self._n_taken = 0

    return PhotoDataset()
