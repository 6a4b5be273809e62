"""All images, rendered once into array files, one per block of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scenelearn._io import atomic_write
from tests.bench.pretrain import _kinds

_BLOCK = 20  # classes per file


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStore:
    """Rendered images on disk.

    Attributes:
        folder: the folder of the files.
        seed: seed of the classes and the images.
        n_classes: number of classes, a multiple of 20.
        per_class: images per class.
        px: width and height, in pixels.
        kinds: names of the generators that alternate; all if empty.
    """

    folder: Path
    seed: int
    n_classes: int
    per_class: int
    px: int
    kinds: tuple[str, ...] = ()

    def render(self, say: Callable[[str], None]) -> None:
        """Render the missing files."""
        for block in range(self.n_classes // _BLOCK):
            file = self._file(block)
            if file.exists():
                continue
            labels = range(block * _BLOCK, (block + 1) * _BLOCK)
            indices = range(self.per_class)
            parts = [
                _kinds.render_images(self.seed, label, indices, self.px, self.kinds)
                for label in labels
            ]
            with atomic_write(file) as partial, partial.open("wb") as stream:
                np.save(stream, np.concatenate(parts))
            say(f"rendered: {(block + 1) * _BLOCK} of {self.n_classes} classes")

    def reader(self) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]]:
        """Return a function from image numbers, label · per_class + index, to images."""
        blocks = [np.load(self._file(k), mmap_mode="r") for k in range(self.n_classes // _BLOCK)]
        size = _BLOCK * self.per_class

        def read(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
            return np.stack([blocks[n // size][n % size] for n in numbers.tolist()])

        return read

    def _file(self, block: int) -> Path:
        settings = "-".join(map(str, (*self.kinds, self.seed, self.per_class, self.px, _BLOCK)))
        return self.folder / f"{settings}-{block:04}.npy"
