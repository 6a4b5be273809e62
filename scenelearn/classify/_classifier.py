"""A trained network with everything that it needs to answer: names, size, preprocessing."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.classify import _bundle, _export
from scenelearn.classify._explanation import Explanation, cam_models, grad_cam
from scenelearn.classify._export import Exported
from scenelearn.classify._inputs import Photo, read, sources
from scenelearn.classify._labeled import Labeled, see_labeled
from scenelearn.classify._predictions import Prediction, name_them
from scenelearn.classify._sight import Sight, sight_model, sights, together
from scenelearn.classify._trust import COVERAGE, Trust
from scenelearn.data import Photos
from scenelearn.errors import ArgumentError, NoPhotosError, PhotoError
from scenelearn.metrics import Evaluation, evaluate

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
        trust: what validation photos say about how far to trust an answer; None in a classifier
            that an older version saved.
    """

    model: Any
    class_names: tuple[str, ...]
    image_px: int
    facts: dict[str, str]
    trust: Trust | None = None
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def predict(
        self,
        photos: Photo | Iterable[Photo],
        *,
        coverage: float | None = None,
        skip_broken: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Prediction]:
        """Say what each photo shows.

        Photos are read and judged a batch at a time, so that thousands fit in memory.

        Args:
            photos: a path, a folder, a pattern such as ``"photos/*.jpg"``, the bytes of a file,
                an array (height, width, 3) uint8 or (n, height, width, 3), a Pillow image, or a
                list or generator of these.
            coverage: how often `Prediction.classes` is to hold the true class, between 0 and 1;
                None for 0.95.
            skip_broken: leave out photos that cannot be read, with a logged warning for each,
                instead of raising.
            progress: called with (photos done, photos in all) after each batch; with 0 in all
                where that is not known beforehand.

        Returns:
            One prediction a photo, in the order given.

        Raises:
            ArgumentError: if something else than photos is given, or `coverage` is out of range
                or asked of a classifier that knows nothing about it.
            PathMissingError: if a path does not exist.
            PhotoError: if a photo cannot be decoded; the message names it.
            NoPhotosError: if there is nothing to predict.
        """
        return list(
            self.stream(photos, coverage=coverage, skip_broken=skip_broken, progress=progress)
        )

    def stream(
        self,
        photos: Photo | Iterable[Photo],
        *,
        coverage: float | None = None,
        skip_broken: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Prediction]:
        """As `predict`, one prediction after the other: for more photos than fit in memory.

        No more than a batch of 32 photos is held at once, also of a generator that goes on for
        ever.

        Args:
            photos: as in `predict`.
            coverage: as in `predict`.
            skip_broken: as in `predict`.
            progress: as in `predict`.

        Yields:
            One prediction a photo, in the order given.

        Raises:
            ArgumentError: as `predict`.
            PathMissingError: as `predict`.
            PhotoError: as `predict`.
            NoPhotosError: as `predict`.
        """
        asked = self._coverage(coverage)
        named = sources(photos)
        total = len(named) if isinstance(named, list) else 0
        rest = iter(named)
        n_taken = 0
        while part := list(itertools.islice(rest, _BATCH)):
            n_taken += len(part)
            names, images = [], []
            for source in part:
                try:
                    images.append(read(source, self.image_px))
                    names.append(source[0])
                except PhotoError as error:
                    if not skip_broken:
                        raise
                    _log.warning("%s", error)
            if images:
                seen = self._see(np.stack(images))
                yield from name_them(names, seen, self.class_names, self.trust, asked)
            if progress:
                progress(n_taken, total)
        if not n_taken:
            raise NoPhotosError(
                f"`photos` holds no photo. Received: {photos!r}. Pass at least one."
            )

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
        return self._see(images).probabilities

    def explain(self, photo: Photo, *, label: str | None = None, n_nearest: int = 6) -> Explanation:
        """Show what the answer for one photo rests on.

        Args:
            photo: a path, the bytes of a file, an array or a Pillow image.
            label: the class to explain; None for the one that is answered.
            n_nearest: how many of the most similar training photos to name, at least 0. Of at
                most 2,000 training photos the classifier keeps paths and features.

        Returns:
            A heat map over the photo (Grad-CAM) and the nearest training photos.

        Raises:
            ArgumentError: if it is not one photo, the classifier does not know the class, or
                `n_nearest` is below 0.
            PathMissingError: if a path does not exist.
            PhotoError: if the photo cannot be decoded.
        """
        if isinstance(n_nearest, bool) or not isinstance(n_nearest, int) or n_nearest < 0:
            raise ArgumentError(
                "`n_nearest` must be a whole number of at least 0. "
                f"Received: n_nearest={n_nearest!r}. 6 is usual."
            )
        if label is not None and label not in self.class_names:
            raise ArgumentError(
                f"`label` must be one of {', '.join(self.class_names)}. Received: {label!r}. "
                "Leave it out to explain the answer itself."
            )
        named = list(itertools.islice(sources(photo), 2))
        if len(named) != 1:
            raise ArgumentError(
                f"`photo` must be one photo. Received: {'several' if named else 'none'}. "
                "Explain them one by one."
            )
        image = read(named[0], self.image_px)
        seen = self._see(image[None])
        (prediction,) = name_them(
            [named[0][0]], seen, self.class_names, self.trust, self._coverage(None)
        )
        if "cam" not in self._made:
            self._made["cam"] = cam_models(self.model)
        explained = prediction.label if label is None else label
        heat = grad_cam(self._made["cam"], image, self.class_names.index(explained))
        nearest = (
            self.trust.gallery.nearest(seen.features[0], self.class_names, n_nearest)
            if self.trust
            else ()
        )
        return Explanation(
            prediction=prediction, label=explained, image=image, heat=heat, nearest=nearest
        )

    def evaluate(
        self,
        photos: Photos,
        *,
        coverage: float | None = None,
        columns: Mapping[str, npt.ArrayLike] | None = None,
        batch_size: int = _BATCH,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Evaluation:
        """Judge the classifier on photos whose classes are known.

        Classes are matched by name, whatever their order. Groups of photos on which it does worse
        are looked for by brightness, contrast, sharpness and size, and by `columns`.

        Args:
            photos: from `scan`; photos that cannot be decoded are left out.
            coverage: of the prediction sets that are judged; None for 0.95.
            columns: further properties, each with a value for each photo, see `metrics.slices`.
            batch_size: photos at once; it changes nothing but time and memory.
            progress: called with (what, photos done, photos in all).

        Returns:
            Accuracy with its interval, per class, confusion, calibration, groups, and how sets
            and abstaining fare.

        Raises:
            ArgumentError: if a number or a column is out of range.
            ClassMismatchError: if the photos have a class that the classifier does not know.
            NoPhotosError: if no photo can be decoded.
        """
        asked = self._coverage(coverage)
        found = self.see_labeled(photos, batch_size=batch_size, progress=progress)
        more = {
            name: np.asarray(values)[found.indices]
            for name, values in (columns or {}).items()
            if _one_each(name, values, len(photos))
        }
        trust, seen = self.trust, found.seen
        return evaluate(
            found.labels,
            seen.probabilities,
            self.class_names,
            columns=found.looks | more,
            sets=None if trust is None or asked is None else trust.sets(seen.probabilities, asked),
            unlike=found.unlike,
        )

    def see_labeled(
        self,
        photos: Photos,
        *,
        batch_size: int = _BATCH,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Labeled:
        """All that the network makes of photos whose classes are known: for evaluations.

        Args:
            photos: from `scan`.
            batch_size: photos at once.
            progress: called with (what, photos done, photos in all).

        Returns:
            Probabilities, true labels in the order of `class_names`, and properties of the
            photos. Where the classifier has `trust`, features are not kept.

        Raises:
            ArgumentError: if `batch_size` is out of range.
            ClassMismatchError: if the photos have a class that the classifier does not know.
            NoPhotosError: if no photo can be decoded.
        """
        return see_labeled(
            self._network(),
            self.class_names,
            photos,
            trust=self.trust,
            batch_size=batch_size,
            progress=progress,
        )

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
        about = {
            "class_names": list(self.class_names),
            "image_px": self.image_px,
            "facts": self.facts,
            "gallery": list(self.trust.gallery.paths) if self.trust else [],
        }
        arrays = self.trust.arrays() if self.trust else {}
        return _bundle.write(self.model, about, arrays, Path(path))

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - as Keras calls it
        check: Photo | Iterable[Photo] | None = None,
    ) -> Exported:
        """Write the classifier for another runtime, with everything that it needs inside.

        ONNX and SavedModel take images of any size, (batch, height, width, 3) uint8, as they come
        from a decoder, upright. LiteRT, which lacks what that takes, has them squared before as
        `data.square` does: (batch, image_px, image_px, 3) uint8. All give calibrated
        probabilities, (batch, n_classes) float32. Class names and where the classifier
        comes from are in its metadata: of ONNX in ``metadata_props``; of LiteRT in a zip archive
        at the file's end (``labels.txt``, ``scenelearn.json``); of a SavedModel in
        ``assets.extra/``. Before it is handed over, its own runtime judges photos: probabilities
        are the classifier's to 1e-4, and labels are the same, or nothing is written. Likeness,
        prediction sets and explanations stay with the bundle.

        Keras writes it in a process of its own, on TensorFlow, whichever backend is in use.

        Args:
            path: ends in ``.onnx`` or ``.tflite``, or names the folder of a SavedModel. An older
                export there is replaced.
            format: "onnx", "litert" or "saved_model"; None for what the path's ending says.
            check: photos to check it on, as in `predict`, of which the first 100 are taken, and
                reduced to at most 1,600 px; None for 18 sample scenes.

        Returns:
            Where it is, and how well it agrees.

        Raises:
            ArgumentError: if the format is none of these, or the path ends otherwise or is taken.
            MissingExtraError: if what the format needs is not installed.
            ExportError: if Keras cannot write it, or it does not agree. Nothing is written.
            PathMissingError: if a path in `check` does not exist.
            PhotoError: if a photo in `check` cannot be decoded.
            NoPhotosError: if `check` holds no photo.
            DiskSpaceError: if it does not fit on the disk.
        """
        return _export.export(self, Path(path).expanduser(), format_=format, check=check)

    def _network(self) -> Any:
        """The network with all its outputs, made when it is first needed."""
        if "sight" not in self._made:
            self._made["sight"] = sight_model(self.model)
        return self._made["sight"]

    def _see(self, images: npt.NDArray[np.uint8]) -> Sight:
        cut = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        return together(list(sights(self._network(), cut, _BATCH)))

    def _coverage(self, asked: float | None) -> float | None:
        """The coverage to use; None where this classifier can promise none."""
        if self.trust is None:
            if asked is not None:
                raise ArgumentError(
                    "`coverage` needs a classifier that was fitted with its validation photos. "
                    f"Received: coverage={asked!r} of one that an older version saved. Fit again."
                )
            return None
        self.trust.sets(np.ones((1, 1)), COVERAGE if asked is None else asked)  # checks the range
        return COVERAGE if asked is None else asked


def _one_each(name: str, values: npt.ArrayLike, n: int) -> bool:
    shape = np.shape(values)
    if shape != (n,):
        raise ArgumentError(
            f"`columns[{name!r}]` must have one value for each of the {n:,} photos. Received: "
            f"shape {shape}. Pass a list of the same length."
        )
    return True
