"""Batches of images and labels, as a function of (seed, epoch) and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenelearn.data._pixels import Pixels
from scenelearn.errors import ArgumentError

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batches:
    """A set of photos, cut into batches; each epoch in an order of its own.

    Attributes:
        pixels: of all photos.
        labels: (n,) int32, of all photos.
        indices: (m,) int64, the photos of this set; those that cannot be decoded are left out.
        batch_size: photos a batch, at least 1; the last batch of an epoch holds what is left.
        seed: of the orders, at least 0.

    Raises:
        ArgumentError: if `batch_size` or `seed` is out of range.
    """

    pixels: Pixels
    labels: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int64]
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("batch_size", self.batch_size, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(
                    f"`{name}` must be a whole number of at least {least}. "
                    f"Received: {name}={value!r}. Pass e.g. {32 * least}."
                )
        usable = self.indices[self.pixels.usable[self.indices]]
        object.__setattr__(self, "indices", usable)

    def __len__(self) -> int:
        """Batches an epoch, the last, partial one counted."""
        return math.ceil(len(self.indices) / self.batch_size)

    @property
    def n_photos(self) -> int:
        """Photos an epoch."""
        return len(self.indices)

    def in_order(self) -> Iterator[Batch]:
        """All photos once, in the order of `indices`: for features and evaluation."""
        return self._cut(self.indices)

    def shuffled(self, epoch: int) -> Iterator[Batch]:
        """All photos once, in the order of this epoch: for training.

        Args:
            epoch: its number, at least 0; another epoch has another order.

        Yields:
            (images (b, px, px, 3) uint8, labels (b,) int32, indices (b,) int64).
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(self.indices)
        return self._cut(order)

    def _cut(self, order: npt.NDArray[np.int64]) -> Iterator[Batch]:
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield np.asarray(self.pixels.images[chosen]), self.labels[chosen], chosen
