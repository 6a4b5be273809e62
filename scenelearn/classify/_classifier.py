"""A trained network with everything that it needs to answer: names, size, preprocessing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.backbone import fast_on_cpu
from scenelearn.classify import _bundle
from scenelearn.classify._inputs import Photo, read, sources
from scenelearn.classify._predictions import Prediction, name_them
from scenelearn.data import Batches, Photos, decode
from scenelearn.errors import ArgumentError, ClassMismatchError, NoPhotosError, PhotoError
from scenelearn.evaluate import Evaluation, evaluate

_BATCH = 32  # always this many at once, the last batch filled up: one compiled program serves all

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classifier:
    """Says which class a photo is of.

    Attributes:
        model: a `keras.Model` from (batch, image_px, image_px, 3) values 0-255 to
            (batch, n_classes) probabilities; preprocessing is inside.
        class_names: the columns' names.
        image_px: width and height at which the network sees a photo.
        facts: where it comes from: backbone, versions, date, accuracy, photo fingerprint.
    """

    model: Any
    class_names: tuple[str, ...]
    image_px: int
    facts: dict[str, str]

    def predict(
        self,
        photos: Photo | Iterable[Photo],
        *,
        skip_broken: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:
        """Say what each photo shows.

        Photos are read and judged a batch at a time, so that thousands fit in memory.

        Args:
            photos: a path, a folder, the bytes of a file, an array (height, width, 3) uint8 or
                (n, height, width, 3), a Pillow image, or a list of these.
            skip_broken: leave out photos that cannot be read, with a logged warning for each,
                instead of raising.
            progress: called with (photos done, photos in all) after each batch.

        Returns:
            One prediction a photo, in the order given.

        Raises:
            ArgumentError: if something else than photos is given.
            PathMissingError: if a path does not exist.
            PhotoError: if a photo cannot be decoded; the message names it.
            NoPhotosError: if there is nothing to predict.
        """
        named = sources(photos)
        if not named:
            raise NoPhotosError(
                f"`photos` holds no photo. Received: {photos!r}. Pass at least one."
            )
        predictions: list[Prediction] = []
        for start in range(0, len(named), _BATCH):
            names, images = [], []
            for source in named[start : start + _BATCH]:
                try:
                    images.append(read(source, self.image_px))
                    names.append(source[0])
                except PhotoError as error:
                    if not skip_broken:
                        raise
                    _log.warning("%s", error)
            if images:
                table = self.probabilities(np.stack(images))
                predictions += name_them(names, table, self.class_names)
            if progress:
                progress(min(start + _BATCH, len(named)), len(named))
        return predictions

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Class probabilities of images that have the network's size already.

        Args:
            images: (n, image_px, image_px, 3) uint8.

        Returns:
            (n, n_classes) float32, rows that sum to 1.

        Raises:
            ArgumentError: if the images have another shape or dtype.
        """
        expected = (self.image_px, self.image_px, 3)
        if images.ndim != 4 or images.shape[1:] != expected or images.dtype != np.uint8:
            raise ArgumentError(
                f"`images` must have the shape (n, {self.image_px}, {self.image_px}, 3) and the "
                f"dtype uint8, values 0-255. Received: {images.shape}, {images.dtype}. Use "
                "`predict` for photos of any size."
            )
        if not len(images):
            return np.zeros((0, len(self.class_names)), np.float32)
        return outputs(self.model, _cut(images), _BATCH)

    def evaluate(
        self, photos: Photos, *, progress: Callable[[str, int, int], None] | None = None
    ) -> Evaluation:
        """Judge the classifier on photos whose classes are known.

        Classes are matched by name, whatever their order.

        Args:
            photos: from `scan`; photos that cannot be decoded are left out.
            progress: called with (what, photos done, photos in all).

        Returns:
            Accuracy with its interval, per class, confusion.

        Raises:
            ClassMismatchError: if the photos have a class that the classifier does not know.
            NoPhotosError: if no photo can be decoded.
        """
        unknown = sorted(set(photos.class_names) - set(self.class_names))
        if unknown:
            raise ClassMismatchError(
                f"The classes of {str(photos.folder)!r} must be among those of the classifier: "
                f"{', '.join(self.class_names)}. Received also: {', '.join(unknown)}. "
                "Rename the folders, or leave these out."
            )
        place = np.array([self.class_names.index(name) for name in photos.class_names])
        decoding, judging = (
            partial(progress, what) if progress else None for what in ("decoding photos", "judging")
        )
        pixels = decode(photos, self.image_px, progress=decoding)
        batches = Batches(
            pixels=pixels,
            labels=place[photos.labels].astype(np.int32),
            indices=np.arange(len(photos)),
            batch_size=_BATCH,
        )
        table, indices = judge(self.model, batches, progress=judging)
        return evaluate(batches.labels[indices], table, self.class_names)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save everything as one file, which plain Keras opens too.

        The file is written beside its place and renamed when it is whole, so that a crash or a
        full disk never costs an older one.

        Args:
            path: ends in ``.keras``; an existing file is replaced.

        Returns:
            The path.

        Raises:
            ArgumentError: if `path` does not end in ``.keras``, or cannot be a file.
            DiskSpaceError: if it does not fit on the disk.
        """
        facts = {"class_names": list(self.class_names), "image_px": self.image_px}
        return _bundle.write(self.model, {**facts, "facts": self.facts}, Path(path))


def load(path: str | os.PathLike[str]) -> Classifier:
    """Open a saved classifier.

    Args:
        path: a file that `save` wrote.

    Returns:
        The classifier, ready to predict.

    Raises:
        PathMissingError: if there is no such file.
        BundleError: if it is not a whole bundle of scenelearn. No code in it is run.
    """
    model, about = _bundle.read(Path(path))
    return Classifier(
        model=fast_on_cpu(model),
        class_names=tuple(about["class_names"]),
        image_px=int(about["image_px"]),
        facts=dict(about["facts"]),
    )


def _cut(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def judge(
    model: Any, batches: Batches, progress: Callable[[int, int], None] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """A model's outputs for a set of photos, in its order.

    Args:
        model: from raw pixels on, with one output.
        batches: the photos.
        progress: called with (photos done, photos in all).

    Returns:
        (n, n_outputs) float32, and (n,) int64: which photos were judged. Photos that cannot be
        read any more are missing in both.

    Raises:
        NoPhotosError: if none can be read any more.
    """
    judged: list[npt.NDArray[np.int64]] = []

    def seen() -> Iterator[npt.NDArray[np.uint8]]:
        for images, _, indices in batches.in_order():
            judged.append(indices)
            yield images
        if not judged:
            raise NoPhotosError(
                f"None of the {batches.n_photos:,} photos can be read any more. "
                f"First: {next(iter(batches.pixels.refused), 'none')}. Check the files."
            )

    total = batches.n_photos
    table = outputs(model, seen(), batches.batch_size, total=total, progress=progress)
    return table, np.concatenate(judged)


def outputs(
    model: Any,
    batches: Iterable[npt.NDArray[np.uint8]],
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
    parts, done = [], 0
    if progress:
        progress(0, total)
    for batch in batches:
        n = len(batch)
        fill = np.zeros((batch_size - n, *batch.shape[1:]), batch.dtype)
        whole = np.concatenate([batch, fill]) if n < batch_size else batch
        parts.append(np.asarray(model.predict_on_batch(whole), np.float32)[:n])
        done += n
        if progress:
            progress(done, total)
    return np.concatenate(parts)
