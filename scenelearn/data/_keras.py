"""Batches as a dataset of Keras; the one module of this room that loads it, when it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from scenelearn._backend import keras

if TYPE_CHECKING:
    from scenelearn.data._batches import Batches


def dataset(batches: Batches, *, shuffled: bool, epoch: int) -> Any:
    """See `Batches.for_keras`."""

    class BatchesOfPhotos(keras().utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        """The batches of one epoch after the other, in the order of `Batches`.

        ``model.fit`` mixes batch numbers by Python's global random state unless told
        ``shuffle=False``, and takes a batch or two before the first epoch to see their shapes. So
        within an epoch the next batch is given whichever number is asked for, and an epoch of
        which one batch at most was taken has not been.
        """

        def __init__(self) -> None:
            super().__init__()  # one thread of Keras asks; ours work ahead
            self._epoch, self._n_given = epoch, 0
            self._stream: Iterator[Any] | None = None

        def __len__(self) -> int:
            return batches.n_steps if shuffled else len(batches)

        def __getitem__(self, step: int) -> tuple[Any, Any]:
            if self._stream is None:
                order = batches.order(self._epoch) if shuffled else batches.indices
                images, labels, _ = batches.at(order, step)
            else:
                images, labels, _ = next(self._stream)
                self._n_given += 1
            return images, labels

        def on_epoch_begin(self) -> None:
            self._n_given = 0
            self._stream = batches.shuffled(self._epoch) if shuffled else batches.in_order()

        def on_epoch_end(self) -> None:
            self._stream = None
            if self._n_given > 1 or len(self) == self._n_given:
                self._epoch += 1
            self._n_given = 0

    return BatchesOfPhotos()
