"""The trained classifier: predict, explain, evaluate, save, export."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import default_settings
from scenelearn._checks import check_choice, check_integer, check_path
from scenelearn._display import html_text, printable
from scenelearn._progress import Progress, show_progress
from scenelearn.backbones import fast_on_cpu
from scenelearn.backbones._copy import custom_classes
from scenelearn.backbones._fast import batches_at_once
from scenelearn.classify import _bundle
from scenelearn.classify._benchmark import Benchmark, measure_throughput
from scenelearn.classify._calibration import Calibration, resolve_coverage
from scenelearn.classify._costs import Costs, cost_matrix
from scenelearn.classify._explanation import Explanation
from scenelearn.classify._export import ExportResult, export
from scenelearn.classify._grad_cam import grad_cam, split_model
from scenelearn.classify._inference import (
    Images,
    Outputs,
    compute_outputs,
    inference_model,
    one_thread_at_a_time,
    output_sizes,
)
from scenelearn.classify._inputs import (
    PhotoLike,
    PhotosLike,
    one_source,
    read_batches,
    read_image,
)
from scenelearn.classify._labeled_outputs import LabeledOutputs, predict_labeled
from scenelearn.classify._neighbors import Neighbor
from scenelearn.classify._predictions import Prediction, Predictions, build_predictions
from scenelearn.data import Photos, Splits
from scenelearn.data._resize import Resize, format_px, make_resize
from scenelearn.data._scan import as_photos
from scenelearn.errors import ArgumentError
from scenelearn.metrics import Evaluation, evaluate
from scenelearn.metrics._inputs import class_positions
from scenelearn.metrics._slices import as_column, check_columns

_BATCH_SIZE = 32  # the last batch is padded to it, so that one compiled program serves all
_FEW = 8  # so many photos are predicted one by one, which is faster than a padded batch

PATH_ADVICE = "Pass e.g. 'scenes.keras'."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Classifier:
    """A trained network with everything that it needs to predict the classes of photos.

    `fit` returns one as `FitResult.classifier`, and `load` opens a saved one.

    Attributes:
        model: a `keras.Model` from (batch, height, width, 3) values 0-255 to
            (batch, n_classes) calibrated probabilities. Preprocessing is part of it.
        class_names: the names of the columns.
        image_px: the side of the square images that the network is given, or (height, width).
        metadata: provenance: backbone, versions, date, test accuracy, fingerprint of the photos.
        calibration: what prediction sets, p-values and neighbors are computed from. None only in a
            classifier that was put together by hand: then prediction sets contain the predicted
            class only, no photo is flagged as out of distribution, and explanations have no
            neighbors.
        shape: what happens to photos of other proportions: "crop", "pad" or "squash", see `fit`.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     photos = sl.scan(sl.sample_scenes(folder, per_class=12))
        ...     fit = sl.fit(sl.split(photos), weights="scenelearn", image_px=32, epochs=0)
        ...     predictions = fit.classifier.predict(photos[:5])
        >>> predictions[0].label in photos.class_names
        True
    """

    model: Any
    class_names: tuple[str, ...]
    image_px: int | tuple[int, int]
    metadata: dict[str, str]
    calibration: Calibration | None = None
    shape: str = "crop"
    _cache: dict[str, Any] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        backbone = self.metadata.get("backbone")
        parts = [f"{len(self.class_names):,} classes", self.resize.title]
        parts += [printable(backbone)] if backbone else []
        return f"<Classifier: {', '.join(parts)}>"

    def __str__(self) -> str:
        """The classes, the metadata, and the size of the calibration."""
        calibration = "none" if self.calibration is None else str(self.calibration)[1:-1]
        rows = {"classes": ", ".join(self.class_names)}
        rows |= {"image size": f"{format_px(self.image_px)} px", "shape": self.shape}
        rows |= self.metadata | {"calibration": calibration.removeprefix("Calibration: ")}
        width = max(map(len, rows))
        lines = (f"{printable(name):<{width}}  {printable(text)}" for name, text in rows.items())
        return "\n".join(["Classifier", *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        return html_text(self)

    @property
    def resize(self) -> Resize:
        """How photos become images that the network is given: `image_px` and `shape`."""
        return make_resize(self.image_px, self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy everything but the models derived for inference."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return _restore, (values,)

    def predict(
        self,
        photos: PhotosLike,
        *,
        coverage: float | None = None,
        costs: Costs | None = None,
        broken: str = "raise",
        progress: Progress | None = None,
        verbose: bool | str = "auto",
    ) -> Predictions:
        """Predict the class of each photo.

        Photos are read and predicted in batches of 32, so thousands fit in memory; up to eight
        photos, one by one. Both ways agree to the rounding of float32.

        Args:
            photos: a path, a folder (with its subfolders), a pattern such as ``"photos/*.jpg"``,
                the bytes of a file, a file opened in binary mode, an array (height, width, 3) or
                (n, height, width, 3) uint8, a Pillow image, the result of `scan`, or a list, array
                or generator of these.
            coverage: how often `Prediction.prediction_set` is to contain the true class, between 0
                and 1; None for 0.95.
            costs: what mistakes cost, by true and predicted class: ``{"sea": {"street": 5}}``,
                where others cost 1; or a matrix with a row per true class, in the order of
                `class_names`. Each photo is then predicted as the class of least expected cost.
            broken: "raise" raises an error for the first photo that cannot be read; "skip" leaves
                such photos out, with a logged warning for each.
            progress: called with ("predicting", photos done, total) after each batch; the total is
                0 for a generator. It replaces the progress bar.
            verbose: True for a progress bar, False for none, "auto" for one on a terminal and in a
                notebook.

        Returns:
            One prediction per photo, in the order given: a list with ``.to_pandas()`` and
            ``.to_csv()``.

        Raises:
            ArgumentError: if `photos` has the wrong type, `coverage`, `costs`, `broken` or
                `verbose` is out of range, or `coverage` is given without a calibration.
            PathMissingError: if a path does not exist.
            PhotoError: if a photo cannot be read or decoded; the message names it.
            NoPhotosError: if there is no photo.
            ForkError: if the classifier was loaded before this process was forked.
        """
        with show_progress(progress, verbose) as report:
            stream = self._stream(photos, coverage, costs, broken=broken, report=report)
            return Predictions(stream)

    def stream(
        self,
        photos: PhotosLike,
        *,
        coverage: float | None = None,
        costs: Costs | None = None,
        broken: str = "raise",
        progress: Progress | None = None,
        verbose: bool | str = "auto",
    ) -> Iterator[Prediction]:
        """Predict the class of each photo, one at a time: for more photos than fit in memory.

        At most one batch is in memory at once, even from an endless generator: 32 photos, or 16
        for each core if these are more.

        Args:
            photos: as in `predict`.
            coverage: as in `predict`.
            costs: as in `predict`.
            broken: as in `predict`.
            progress: as in `predict`.
            verbose: as in `predict`.

        Yields:
            One prediction per photo, in the order given.

        Raises:
            ArgumentError: as in `predict`.
            PathMissingError: as in `predict`.
            PhotoError: as in `predict`.
            NoPhotosError: as in `predict`.
            ForkError: as in `predict`.
        """
        with show_progress(progress, verbose) as report:
            yield from self._stream(photos, coverage, costs, broken=broken, report=report)

    def predict_proba(
        self,
        photos: PhotosLike,
        *,
        progress: Progress | None = None,
        verbose: bool | str = "auto",
    ) -> npt.NDArray[np.float32]:
        """Predict the class probabilities of photos.

        Args:
            photos: as in `predict`. Arrays of the network's size, (n, height, width, 3), are
                used as they are.
            progress: as in `predict`.
            verbose: as in `predict`.

        Returns:
            (n, n_classes) float32, calibrated, rows that sum to 1; the columns are `class_names`.
            An array without images gives no rows.

        Raises:
            ArgumentError: if `photos` or `verbose` is something else.
            PathMissingError: if a path does not exist.
            PhotoError: if a photo cannot be read or decoded; the message names it.
            NoPhotosError: if there is no photo.
            ForkError: as in `predict`.
        """
        n_classes = len(self.class_names)
        return self._table(photos, "probabilities", n_classes, progress=progress, verbose=verbose)

    def embed(
        self,
        photos: PhotosLike,
        *,
        progress: Progress | None = None,
        verbose: bool | str = "auto",
    ) -> npt.NDArray[np.float32]:
        """Compute the features of photos: what the network's head is given.

        Args:
            photos: as in `predict_proba`.
            progress: as in `predict`.
            verbose: as in `predict`.

        Returns:
            (n, n_features) float32, one row per photo, in the order given. An array without images
            gives no rows.

        Raises:
            ArgumentError: if `photos` or `verbose` is something else.
            PathMissingError: if a path does not exist.
            PhotoError: if a photo cannot be read or decoded; the message names it.
            NoPhotosError: if there is no photo.
            ForkError: as in `predict`.
        """
        n_features = output_sizes(self.model)[1]
        return self._table(photos, "features", n_features, progress=progress, verbose=verbose)

    def similar(self, photo: PhotoLike, n_neighbors: int = 6) -> tuple[Neighbor, ...]:
        """Find the training photos that are most similar to a photo.

        Args:
            photo: a path, the bytes of a file, an array or a Pillow image.
            n_neighbors: how many to return, at least 0. The classifier keeps the paths and
                features of at most 2,000 training photos.

        Returns:
            The neighbors, most similar first, with paths relative to the training folder.

        Raises:
            ArgumentError: if `photo` is not one photo, `n_neighbors` is out of range, or the
                classifier has no calibration.
            PathMissingError: if the path does not exist.
            PhotoError: if the photo cannot be read or decoded.
            ForkError: as in `predict`.
        """
        check_integer("n_neighbors", n_neighbors, low=0, advice="The default is 6.")
        if self.calibration is None:
            raise ArgumentError(
                "`similar` needs a classifier with a calibration, as `fit` returns. Received: one "
                "without. Fit again, or compare the features that `embed` returns."
            )
        outputs = self._predict_images(read_image(one_source(photo), self.resize)[None])
        return self._neighbors(outputs, n_neighbors)

    def benchmark(self, photos: PhotosLike | None = None, *, seconds: float = 5) -> Benchmark:
        """Measure how many photos per second this machine decodes and predicts.

        The network is compiled first. Then batches of 32 photos alternate with single photos.

        Args:
            photos: photos like those that are to be predicted, as in `predict`; the first 32 are
                used. Large photos take longer to decode. None for sample scenes.
            seconds: how long to measure, above 0.

        Returns:
            The photos per second, with the interval of their median, and the time of one photo.

        Raises:
            ArgumentError: if `photos` has the wrong type, or `seconds` is not above 0.
            PathMissingError: if a path does not exist.
            PhotoError: if a photo cannot be read or decoded; the message names it.
            NoPhotosError: if there is no photo.
            ForkError: as in `predict`.
        """
        predict = partial(self.predict, verbose=False)
        return measure_throughput(predict, photos, batch_size=_BATCH_SIZE, seconds=seconds)

    def explain(
        self, photo: PhotoLike, *, label: str | None = None, n_neighbors: int = 6
    ) -> Explanation:
        """Show the evidence for the prediction of one photo.

        Args:
            photo: a path, the bytes of a file, an array or a Pillow image.
            label: the class to explain; None for the predicted class.
            n_neighbors: how many of the most similar training photos to return, at least 0. The
                classifier keeps the paths and features of at most 2,000 training photos.

        Returns:
            A Grad-CAM heatmap and the nearest training photos.

        Raises:
            ArgumentError: if `photo` is not one photo, `label` is not a class of the classifier,
                `n_neighbors` is out of range, or the backbone gives a vector only.
            PathMissingError: if the path does not exist.
            PhotoError: if the photo cannot be read or decoded.
            BackendError: if Keras runs on NumPy, which has no gradients.
            ForkError: as in `predict`.
        """
        check_integer("n_neighbors", n_neighbors, low=0, advice="The default is 6.")
        if label is not None:
            (k,) = class_positions([label], self.class_names) if isinstance(label, str) else [None]
            label = label if k is None else self.class_names[k]
            check_choice("label", label, self.class_names, advice="None explains the prediction.")
        source = one_source(photo)
        image = read_image(source, self.resize)
        outputs = self._predict_images(image[None])
        coverage = resolve_coverage(None, self.calibration)
        (prediction,) = build_predictions(
            [source[0]], outputs, self.class_names, self.calibration, coverage
        )
        explained = prediction.label if label is None else label
        with one_thread_at_a_time():
            if "cam" not in self._cache:
                self._cache["cam"] = split_model(self.model)
            heatmap = grad_cam(self._cache["cam"], image, self.class_names.index(explained))
        return Explanation(
            prediction=prediction,
            label=explained,
            image=image,
            heatmap=heatmap,
            neighbors=self._neighbors(outputs, n_neighbors),
        )

    def evaluate(
        self,
        photos: Photos | str | os.PathLike[str],
        *,
        coverage: float | None = None,
        columns: Mapping[str, npt.ArrayLike] | None = None,
        batch_size: int = _BATCH_SIZE,
        progress: Progress | None = None,
        verbose: bool | str = "auto",
    ) -> Evaluation:
        """Evaluate the classifier on labeled photos.

        Classes are matched by name, whatever their order. Slices on which the classifier does worse
        are searched by brightness, contrast, sharpness and size, and by `columns`.

        Args:
            photos: from `scan`, or the path of a folder or ``.zip`` file to scan. Photos that
                cannot be decoded are left out.
            coverage: of the prediction sets; None for 0.95.
            columns: further properties, each with one value per photo; see `manifest_columns`.
            batch_size: photos per batch. It affects time and memory only.
            progress: called with (what, photos done, total); it replaces the progress bar.
            verbose: True for a progress bar, False for none, "auto" for one on a terminal and in a
                notebook.

        Returns:
            Accuracy with its interval, per-class metrics, confusion matrix, calibration, slices,
            and metrics of prediction sets and abstention.

        Raises:
            ArgumentError: if `photos` is neither `Photos` nor a path, or `coverage`, `columns`,
                `batch_size` or `verbose` is out of range.
            ClassMismatchError: if the photos have a class that the classifier does not know.
            DataError: if `photos` is a path that cannot be scanned.
            NoPhotosError: if no photo can be decoded.
            ForkError: as in `predict`.
        """
        coverage = resolve_coverage(coverage, self.calibration)
        with show_progress(progress, verbose) as report:
            scanned = as_photos(photos, report)
            more = {} if columns is None else columns
            check_columns(more, len(scanned))
            labeled = self.predict_labeled(scanned, batch_size=batch_size, progress=report)
        more = {name: as_column(values)[labeled.indices] for name, values in more.items()}
        table = labeled.outputs.probabilities
        sets = None
        if self.calibration is not None and coverage is not None:
            sets = self.calibration.prediction_sets(table, coverage)
        return evaluate(
            labeled.labels,
            table,
            self.class_names,
            columns=labeled.image_statistics | more,
            prediction_sets=sets,
            is_ood=labeled.is_ood,
        )

    def predict_labeled(
        self,
        photos: Photos,
        *,
        batch_size: int = _BATCH_SIZE,
        measure: bool = True,
        progress: Progress,
    ) -> LabeledOutputs:
        """All outputs of the network for labeled photos: the basis of evaluations.

        Args:
            photos: from `scan`.
            batch_size: photos per batch.
            measure: whether to compute the statistics of the images, which reads each file again.
            progress: called with (what, photos done, total).

        Returns:
            Probabilities, true labels in the order of `class_names`, and statistics of the images.
            With a `calibration`, features are not kept. Errors are those of `evaluate`.
        """
        return predict_labeled(
            self._inference_model(), self.class_names, photos, resize=self.resize,
            calibration=self.calibration, batch_size=batch_size, measure=measure, progress=progress,
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the classifier as one file, which plain Keras can open, too.

        The file is written under a temporary name and renamed when it is complete. A crash or a
        full disk never damages an existing file.

        Args:
            path: ends in ``.keras``; an existing file is replaced.

        Returns:
            The path.

        Raises:
            ArgumentError: if `path` does not end in ``.keras``, or cannot be written.
            DiskSpaceError: if it does not fit on the disk.
            DiskError: if the system cannot write it.
        """
        calibration = self.calibration
        entry = {
            "class_names": list(self.class_names),
            "image_px": self.image_px,
            "shape": self.shape,
            "metadata": self.metadata,
            "neighbor_paths": list(calibration.neighbor_index.paths) if calibration else [],
        }
        arrays = calibration.to_arrays() if calibration else {}
        target = check_path("path", path, advice=PATH_ADVICE)
        return _bundle.write(self.model, entry, arrays, target)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - as Keras calls it
        check: PhotosLike | None = None,
        quantize: Splits | None = None,
    ) -> ExportResult:
        """Export the classifier for another runtime.

        ONNX and SavedModel models take images of any size, (batch, height, width, 3) uint8, as a
        decoder returns them, upright. LiteRT lacks the operations for that: its models take images
        that were resized as by `data.to_image` to `image_px`. All return calibrated probabilities,
        (batch, n_classes) float32. Class names, how to prepare a photo, and provenance are stored
        as metadata. OOD detection, prediction sets and explanations are not exported.

        The export is verified before it is written to `path`: its own runtime predicts photos, and
        the probabilities must agree with the classifier's (in full float32, also on a GPU) to 1e-4,
        and all labels be the same; of a quantized export, 95% of the labels. Keras writes it in a
        separate process, with TensorFlow, whichever backend is in use.

        Args:
            path: ends in ``.onnx`` or ``.tflite``, or names the folder of a SavedModel. An older
                export is replaced.
            format: "onnx", "litert" or "saved_model"; None for the one that `path` ends in.
            check: photos to verify the export with, as in `predict`; at most 100 of them, or 1,000
                if quantized. None for 18 sample scenes, or the validation photos of `quantize`.
            quantize: the splits of the fit, to write LiteRT in int8: 300 training photos give the
                ranges of activations, validation photos the loss of accuracy. None for float32.

        Returns:
            The path, and how closely the export agrees.

        Raises:
            ArgumentError: if `format` is unknown, `path` has another ending or is taken, or
                `quantize` is not splits, or the format not LiteRT.
            ClassMismatchError: if a class of the photos of `quantize` is unknown.
            MissingExtraError: if a package that the format needs is not installed.
            ExportError: if Keras cannot write the export, it does not agree, or a layer of your own
                is not defined in a module. Nothing is written.
            PathMissingError: if a path in `check` does not exist.
            PhotoError: if a photo cannot be decoded.
            NoPhotosError: if `check` contains no photo.
            DiskSpaceError: if it does not fit on the disk.
            DiskError: if the system cannot write it, or the files to verify it with.
        """
        return export(
            check_path("path", path, advice="Pass e.g. 'scenes.onnx'."),
            format_=format,
            check=check,
            quantize=quantize,
            class_names=self.class_names,
            resize=self.resize,
            n_parameters=self.model.count_params(),
            classes=custom_classes(self.model).values(),
            predict=partial(self.predict_proba, verbose=False),
            save=self.save,
        )

    def _neighbors(self, outputs: Outputs, n_neighbors: int) -> tuple[Neighbor, ...]:
        """The training photos most similar to one photo; none without a calibration."""
        if self.calibration is None:
            return ()
        index = self.calibration.neighbor_index
        return index.query(outputs.features[0], self.class_names, n_neighbors)

    def _table(
        self,
        photos: PhotosLike,
        name: str,
        n_columns: int,
        *,
        progress: Progress | None,
        verbose: bool | str,
    ) -> npt.NDArray[np.float32]:
        """One of the network's outputs for all photos."""
        if isinstance(photos, np.ndarray) and photos.ndim == 4 and not len(photos):
            return np.zeros((0, n_columns), np.float32)
        with show_progress(progress, verbose) as report:
            batches = self._predict_batches(photos, broken="raise", report=report)
            return np.concatenate([getattr(outputs, name) for _, outputs in batches])

    def _stream(
        self,
        photos: PhotosLike,
        coverage: float | None,
        costs: Costs | None,
        *,
        broken: str,
        report: Progress,
    ) -> Iterator[Prediction]:
        coverage = resolve_coverage(coverage, self.calibration)
        matrix = None if costs is None else cost_matrix(costs, self.class_names)
        for names, outputs in self._predict_batches(photos, broken=broken, report=report):
            yield from build_predictions(
                names, outputs, self.class_names, self.calibration, coverage, costs=matrix
            )

    def _predict_batches(
        self, photos: PhotosLike, *, broken: str, report: Progress
    ) -> Iterator[tuple[list[str], Outputs]]:
        """The names of the photos and the network's outputs, batch by batch."""
        n = _BATCH_SIZE * batches_at_once(self._inference_model(), _BATCH_SIZE)
        batches = read_batches(photos, self.resize, n, broken=broken, report=report)
        for k, (names, images) in enumerate(batches):
            is_few = k == 0 and len(images) <= _FEW
            yield names, self._predict_images(images, 1 if is_few else _BATCH_SIZE)

    def _inference_model(self) -> Any:
        with one_thread_at_a_time():
            if "inference" not in self._cache:
                self._cache["inference"] = inference_model(self.model)
        return self._cache["inference"]

    def _predict_images(self, images: Images, batch_size: int = 1) -> Outputs:
        """The network's outputs for some images."""
        return compute_outputs(self._inference_model(), images, batch_size)


def _restore(values: dict[str, Any]) -> Classifier:
    """A pickled or copied classifier."""
    with default_settings():
        return Classifier(**values | {"model": fast_on_cpu(values["model"])})
