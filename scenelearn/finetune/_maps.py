"""Maps of the layers that do not train: kept from the first time on that they are computed.

Where the views of a photo come again, so do their maps below the first layer that trains, and a
training step can begin there. A few maps of ten thousand photos are gigabytes: they go to the end
of a temporary file, which the system keeps in memory as far as it has room, and which is gone with
the process, however that ends. What is read from it is what would be computed, to the bit.
"""

from __future__ import annotations

import logging
import math
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._io import cache_folder, has_free_space
from scenelearn._threads import map_ahead
from scenelearn.classify import outputs
from scenelearn.data import Batches, Pixels
from scenelearn.errors import ArgumentError
from scenelearn.finetune._vary import Variation, spreading

AS_IT_IS = -1  # the view of a photo that is not varied, as those that validate

Table = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


class Maps:
    """What the layers below those that train make of some views of photos.

    For one thread.

    Args:
        below: from raw pixels to maps.
        n_views: how many views there may be of a photo, beside the one `AS_IT_IS`.
        n_photos: how many photos there are in all.
        n_rows: how many views of photos will be asked for; without room for all, none is kept.
        batch_size: photos at once.
    """

    def __init__(
        self, below: Any, *, n_views: int, n_photos: int, n_rows: int, batch_size: int
    ) -> None:
        self.below, self.n_views, self.batch_size = below, n_views, batch_size
        self.shape = tuple(int(n) for n in below.output.shape[1:])
        self.row_bytes = 4 * math.prod(self.shape)
        self.has_free_space = self._opened(n_rows)
        self._row = np.full((n_views + 1, n_photos), -1, np.int64)
        self._n_rows = 0

    def are_kept(self, view: int, indices: Indices) -> npt.NDArray[np.bool_]:
        """(b,) whether there are maps of this view of each of (b,) photos."""
        return np.asarray(self._row[view, indices] >= 0)

    def n_new_views(self, indices: Indices) -> int:
        """How many of the views most of these photos have no maps of yet; 0 if none is kept."""
        if not self.has_free_space:
            return 0
        return sum(bool(self.are_kept(k, indices).mean() < 0.5) for k in range(self.n_views))

    def of(
        self, view: int, wanted: Indices, images: npt.NDArray[np.uint8], seen: Indices
    ) -> tuple[Table, Indices]:
        """The maps of a batch.

        Args:
            view: which one, below `n_views`, or `AS_IT_IS`.
            wanted: (b,) the photos, each once.
            images: (s, px, px, 3) this view of those of them of which nothing is kept.
            seen: (s,) which photos these are; one that cannot be read any more is missing.

        Returns:
            (m, height, width, channels) float32 and (m,): of which photos, in the order of
            `wanted`, less those that are missing.
        """
        new: dict[int, Table] = {}
        if len(seen):
            computed = outputs(self.below, [images], self.batch_size)
            new = dict(zip(seen.tolist(), computed, strict=True))
        kept = self.are_kept(view, wanted)
        there = [k for k, index in enumerate(wanted.tolist()) if kept[k] or index in new]
        table = np.empty((len(there), *self.shape), np.float32)
        for row, k in zip(table, there, strict=True):
            index = int(wanted[k])
            row[...] = new[index] if index in new else self._read(view, index)
        self._keep(view, new)
        return table, wanted[there]

    def _opened(self, n_rows: int) -> bool:
        """Open the file if there is room for so many rows; else that is logged."""
        what = "The maps of the layers that do not train are not kept but computed at each step"
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

    def _keep(self, view: int, new: Mapping[int, Table]) -> None:
        """Add maps to the file; where that fails it stays as it is."""
        for index, maps in new.items():
            if not self.has_free_space or self._row[view, index] >= 0:
                continue
            try:
                self._file.seek(self._n_rows * self.row_bytes)
                if self._file.write(maps.tobytes()) != self.row_bytes:
                    raise OSError("the disk is full")
            except OSError as error:
                _log.warning("No more maps are kept: %s: %s", cache_folder(), error)
                self.has_free_space = False
                return
            self._row[view, index] = self._n_rows
            self._n_rows += 1


def as_pixels(maps: Maps, pixels: Pixels) -> Pixels:
    """Maps of photos as they are, in the place of pixels: (b, height, width, channels) float32.

    Args:
        maps: where they are kept.
        pixels: of the photos.
    """

    def rows(indices: Indices) -> tuple[Any, Indices]:
        images, seen = pixels.rows(indices[~maps.are_kept(AS_IT_IS, indices)])
        return maps.of(AS_IT_IS, indices, images, seen)

    return Pixels(
        image_px=pixels.image_px, usable=pixels.usable, rows=rows,
        known=pixels.known, late=pixels.late,
    )  # fmt: skip


def mapped(
    train: Batches, maps: Maps, variation: Variation, *, epoch: int, steps: range
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """As `_vary.varied`, with the maps of the epoch's views in place of images.

    Args:
        train: the training photos.
        maps: where they are kept.
        variation: how the views differ; photos are not mixed.
        epoch: which one, at least 0.
        steps: which steps of it.

    Returns:
        The number of each step, and its batch: maps (batch, height, width, channels) float32 and
        labels (batch, n_classes) float32, with more of the same where it is a last, partial one;
        and weights, if photos fill it up for devices that do not divide it.
    """
    order, view, n = train.order(epoch), variation.view(epoch), train.batch_size
    spread_out = spreading(n)
    one_hot = np.eye(variation.n_classes, dtype=np.float32)

    def some(step: int) -> tuple[Indices, Any, Indices]:
        """The photos of a step, and this view of those that have no maps."""
        wanted = order[step * n : (step + 1) * n]
        images, _, seen = train.at(wanted[~maps.are_kept(view, wanted)], 0)
        if len(seen):
            whole = variation.seen(images, seen, n, seed=train.seed, view=view)
            images = np.asarray(whole)[: len(seen)]
        return wanted, images, seen

    for step, found in zip(steps, map_ahead(some, steps, workers=1), strict=True):
        rows, indices = maps.of(view, *found)
        if len(indices):
            targets = one_hot[train.labels[indices]]
            if len(indices) < n:
                rows, targets = (np.resize(one, (n, *one.shape[1:])) for one in (rows, targets))
            yield step, spread_out(rows, targets)
