"""Export for other runtimes: written by Keras, verified on photos, then moved into place."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from scenelearn._backend import full_precision
from scenelearn._io import (
    atomic_write,
    atomic_write_folder,
    explain_disk_errors,
    require_free_space,
)
from scenelearn._json import dataclass_json
from scenelearn.classify._inputs import (
    PhotosLike,
    Source,
    load_source,
    read_image,
    resolve_photos,
)
from scenelearn.classify._labeled_outputs import match_labels
from scenelearn.data import Photos, Splits
from scenelearn.data._decode import STRICT
from scenelearn.data._resize import Resize
from scenelearn.errors import (
    ArgumentError,
    ExportError,
    MissingExtraError,
    NoPhotosError,
)
from scenelearn.metrics import Comparison, Interval, compare, wilson
from scenelearn.samples._scenes import render_scenes

TOLERANCE = 1e-4
"""The largest difference allowed between a probability of an export and the classifier's."""
MAX_CHANGED = 0.05
"""The largest proportion of photos for which a quantized export may predict another label."""
_MAX_PHOTOS = {"float32": 100, "int8": 1000}  # to verify an export with
_MAX_RANGE_PHOTOS = 300  # to find the ranges of activations with
_MAX_PX = 1600  # of the longer side of such a photo; larger ones are reduced
_PER_CLASS = 3  # sample scenes per class, if no photos are given
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "saved_model": ""}
_REQUIREMENTS = {  # the modules of each extra
    "onnx": ("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
    "litert": ("tensorflow", "ai_edge_litert"),
    "saved_model": ("tensorflow",),
}
_SAVED_MODEL_FILES = {
    "saved_model.pb", "fingerprint.pb", "keras_metadata.pb",
    "assets.extra/labels.txt", "assets.extra/scenelearn.json",
}  # fmt: skip
_MAX_DETAIL = 400  # characters of another process's error that a message repeats


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ExportResult:
    """A model file, or folder, for another runtime.

    Attributes:
        path: where it is.
        format: "onnx", "litert" or "saved_model".
        precision: "float32" or "int8".
        n_photos: the number of photos that it was verified with.
        max_difference: the largest difference between one of its probabilities and the
            classifier's.
        changed_labels: the proportion of photos for which it predicts another label than the
            classifier. Always 0 for float32.
        comparison: for int8, the accuracy of the classifier (a) and of the export (b) on these
            photos; None for float32, or if their labels are unknown.
    """

    path: Path
    format: str
    precision: str
    n_photos: int
    max_difference: float
    changed_labels: Interval
    comparison: Comparison | None

    def __str__(self) -> str:
        head = f"{self.path}: {self.format}, {self.precision}, verified with {self.n_photos:,} "
        if self.precision == "float32":
            return f"{head}photos: the same labels, probabilities within {self.max_difference:.1g}"
        return f"{head}photos: {_describe_loss(self.changed_labels, self.comparison)}"

    def __repr__(self) -> str:
        return f"<ExportResult: {self}>"

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclass_json(self)


def export(
    path: Path,
    *,
    format_: str | None,
    check: PhotosLike | None,
    quantize: Splits | None,
    class_names: tuple[str, ...],
    resize: Resize,
    n_parameters: int,
    classes: Iterable[type],
    predict: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
    save: Callable[[Path], object],
) -> ExportResult:
    """See `Classifier.export`.

    Args:
        path: as there.
        format_: as there.
        check: as there.
        quantize: as there.
        class_names: of the classifier.
        resize: how photos become the classifier's images.
        n_parameters: of its model.
        classes: the layers of the user's own in its model.
        predict: its probabilities for images (n, height, width, 3).
        save: writes it as a bundle.
    """
    kind = _check_format(path, format_)
    if quantize is not None:
        _check_splits(quantize, kind)
    missing = [name for name in _REQUIREMENTS[kind] if importlib.util.find_spec(name) is None]
    if missing:
        extra = kind.replace("_", "-")
        raise MissingExtraError(
            f"Exporting to {kind!r} needs {', '.join(_REQUIREMENTS[kind])}. Received: no "
            f"{', no '.join(missing)}. Install what is missing: "
            f'`pip install "scenelearn[{extra}]"`.'
        )
    custom_objects = _importable(classes)
    precision = "float32" if quantize is None else "int8"
    if quantize is not None:
        check = quantize.photos[quantize.validation] if check is None else check
    labels = _labels(check, class_names) if quantize is not None else None
    if check is None:
        sources: list[Source] = [("", image) for image in _render_samples()]
    else:
        sources = _choose_sources(check, _MAX_PHOTOS[precision])
    resized = [read_image(source, resize) for source in sources]
    images = resized
    if kind != "litert":  # it takes photos of any size
        images = [_load_image(source) for source in sources]
        resized = [read_image(("", image), resize) for image in images]
    with full_precision():  # as the other runtimes do
        expected = predict(np.stack(resized))
    with _work_folder() as work:
        n_bytes = sum(image.nbytes for image in images) + 12 * n_parameters
        require_free_space(work, n_bytes, advice="set TMPDIR to a folder on a larger disk")
        save(work / "scenes.keras")
        for k, image in enumerate(images):
            np.save(work / f"{k}.npy", image, allow_pickle=False)
        if quantize is not None:
            np.save(work / "ranges.npy", _range_images(quantize, resize), allow_pickle=False)
        job = {"kind": kind, "n_images": len(images), "custom_objects": custom_objects}
        probabilities = _run_worker(work, job | {"precision": precision})
        result = _compare_outputs(
            probabilities, expected, labels, path=path, kind=kind, precision=precision
        )
        _check_unused(path, kind)
        if kind == "saved_model":
            with atomic_write_folder(path) as temporary:
                shutil.copytree(work / "export", temporary, dirs_exist_ok=True)
        else:
            file = work / f"export{_SUFFIXES[kind]}"
            if quantize is not None:
                _add_measurement(file, result)
            with atomic_write(path) as temporary:
                shutil.copyfile(file, temporary)
    return result


def _check_format(path: Path, format_: str | None) -> str:
    """The format that was passed, or that the path ends in."""
    by_suffix = {suffix: kind for kind, suffix in _SUFFIXES.items()}
    kind = by_suffix.get(path.suffix) if format_ is None else format_
    if kind not in _SUFFIXES:
        raise ArgumentError(
            f"`format` must be 'onnx', 'litert' or 'saved_model'. Received: format={format_!r}, "
            f"path={str(path)!r}. Pass one of them, or a path that ends in '.onnx', in '.tflite', "
            "or, for the folder of a SavedModel, in neither."
        )
    if kind != "saved_model" and path.suffix != _SUFFIXES[kind]:
        raise ArgumentError(
            f"`path` must end in {_SUFFIXES[kind]!r} for {kind!r}. Received: {str(path)!r}. "
            f"Pass e.g. {str(path.with_suffix(_SUFFIXES[kind]))!r}."
        )
    _check_unused(path, kind)
    return kind


def _check_unused(path: Path, kind: str) -> None:
    """Check that an export may be written: nothing but an older one would be replaced.

    Raises:
        ArgumentError: if not.
    """
    others = [path] if path.is_dir() else []
    if kind == "saved_model":
        files = [file for file in path.rglob("*") if not file.is_dir() or file.is_symlink()]
        others = [file for file in files if not _is_of_saved_model(file.relative_to(path))]
        others += [path] if path.is_file() or path.is_symlink() else []
    if others:
        raise ArgumentError(
            f"`path` must be unused, or an older export. Received: {str(path)!r}, where "
            f"{str(others[0])!r} is something else. Pass another name, or remove it."
        )


def _is_of_saved_model(file: Path) -> bool:
    """Whether a file's name is one that TensorFlow or scenelearn writes into a SavedModel."""
    name = file.as_posix()
    return name in _SAVED_MODEL_FILES or name.startswith("variables/variables.")


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A temporary folder; errors of the system while it is used say where it is."""
    with (
        explain_disk_errors(Path(os.environ.get("TMPDIR", tempfile.tempdir or os.curdir))),
        tempfile.TemporaryDirectory(
            prefix="scenelearn-export-", ignore_cleanup_errors=True
        ) as folder,
    ):
        yield Path(folder)


def _render_samples() -> list[npt.NDArray[np.uint8]]:
    """Sample scenes, each cropped to a different size."""
    scenes = [np.asarray(Image.open(io.BytesIO(scene))) for scene in render_scenes(_PER_CLASS)]
    return [image[3 * k :, : image.shape[1] - k] for k, image in enumerate(scenes)]


def _check_splits(quantize: Any, kind: str) -> None:
    """Check the argument `quantize`.

    Raises:
        ArgumentError: if it is something else, or of no use for this format.
    """
    if kind != "litert":
        raise ArgumentError(
            f"`quantize` must be None for {kind!r}. Received: quantize={quantize!r:.80}. Only "
            "LiteRT models can be quantized: pass a path that ends in '.tflite'."
        )
    if not isinstance(quantize, Splits) or not len(quantize.train) or not len(quantize.validation):
        raise ArgumentError(
            "`quantize` must be the Splits of the fit, with training and validation photos. "
            f"Received: quantize={quantize!r:.80}. Pass fit.splits, or "
            "sl.split(sl.scan('photos/', 'report/split.csv'))."
        )


def _labels(check: Any, class_names: tuple[str, ...]) -> npt.NDArray[np.int32] | None:
    """The classifier's class of each photo that `_choose_sources` takes; None if unknown.

    Raises:
        ClassMismatchError: if a class is not one of the classifier's.
    """
    if not isinstance(check, Photos):
        return None
    labels = match_labels(check, class_names, advice="Pass the splits that it was fitted with.")
    return labels[_evenly_spaced(len(check), _MAX_PHOTOS["int8"])]


def _range_images(splits: Splits, resize: Resize) -> npt.NDArray[np.uint8]:
    """Training photos, to find the ranges of activations with: (n, height, width, 3)."""
    photos = splits.photos[splits.train]
    sources = _choose_sources(photos, _MAX_RANGE_PHOTOS)
    return np.stack([read_image(source, resize) for source in sources])


def _choose_sources(photos: PhotosLike, max_photos: int) -> list[Source]:
    """Evenly spaced photos, for folders list one class after the other; the first of a generator.

    Raises:
        NoPhotosError: if there is none.
    """
    found = resolve_photos(photos)
    if isinstance(found, list):
        sources = [found[k] for k in _evenly_spaced(len(found), max_photos)]
    else:
        sources = list(itertools.islice(found, max_photos))
    if not sources:
        raise NoPhotosError(
            f"`check` must contain at least one photo. Received: check={photos!r:.200}."
        )
    return sources


def _evenly_spaced(n: int, max_n: int) -> npt.NDArray[np.int64]:
    """At most `max_n` positions among n."""
    n_chosen = min(n, max_n)
    return np.arange(n_chosen) * n // max(n_chosen, 1)


def _load_image(source: Source) -> npt.NDArray[np.uint8]:
    photo = load_source(source)
    with STRICT:  # as for predictions
        if isinstance(photo, np.ndarray):
            image = Image.fromarray(photo)
        elif isinstance(photo, bytes):
            image = Image.open(io.BytesIO(photo))
            image.draft("RGB", (_MAX_PX, _MAX_PX))  # JPEGs are decoded at a smaller size
        else:
            image = photo.copy()
        upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((_MAX_PX, _MAX_PX))
    return np.asarray(upright)


def _importable(classes: Iterable[type]) -> dict[str, list[str]]:
    """The module and the qualified name of each class, by its name, for another process.

    Raises:
        ExportError: if a class cannot be imported.
    """
    for one in classes:
        if one.__module__ == "__main__" or "<" in one.__qualname__:
            raise ExportError(
                "A layer of your own must be defined in a module, at its top level: the process "
                f"that writes the export imports it from there. Received: {one.__qualname__!r} in "
                f"{one.__module__!r}. Move it to a file of its own, and import it."
            )
    return {one.__name__: [one.__module__, one.__qualname__] for one in classes}


def _run_worker(work: Path, job: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Write the export in another process; return its own runtime's probabilities for the photos.

    The process runs Keras on TensorFlow, whichever backend is used here. There Keras can write all
    formats, and TensorFlow stays out of this process.
    """
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    package = str(Path(__file__).parents[2])
    settings = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(filter(None, [package, *sys.path])),
    }
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "scenelearn.classify._export_worker", str(work)],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    result = work / "probabilities.npy"
    if run.returncode or not result.is_file():
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        detail = lines[-1][:_MAX_DETAIL] if lines else f"exit status {run.returncode}"
        raise ExportError(
            f"Keras must be able to write the network as {job['kind']!r}. Received: {detail} "
            "Nothing was written. Try another format, or another version of the package that "
            "writes it."
        )
    return np.asarray(np.load(result, allow_pickle=False))


def _compare_outputs(
    probabilities: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32] | None,
    *,
    path: Path,
    kind: str,
    precision: str,
) -> ExportResult:
    """Measure how closely an export agrees with the classifier.

    Raises:
        ExportError: if it does not agree closely enough.
    """
    n = len(expected)
    if probabilities.shape != expected.shape or not np.isfinite(probabilities).all():
        probabilities = np.full_like(expected, np.inf)
    difference = float(np.abs(probabilities - expected).max())
    is_valid = np.isfinite(difference)
    changed = probabilities.argmax(axis=1) != expected.argmax(axis=1) if is_valid else np.ones(n)
    changed_labels = wilson(int(changed.sum()), n)
    comparison = None
    if labels is not None and is_valid:
        names = list(map(str, range(expected.shape[1])))
        decisions = np.eye(len(names))[probabilities.argmax(axis=1)]  # int8 may not sum to 1
        comparison = compare(labels, expected, decisions, names)
    if precision == "float32" and (difference > TOLERANCE or changed_labels > 0):
        raise ExportError(
            f"The {kind!r} model must give the classifier's labels, and its probabilities to "
            f"{TOLERANCE:g}. Received, on {n:,} photos: a difference of "
            f"{difference:.2g}, and {int(changed.sum()):,} different labels. Nothing was written. "
            "Try another format."
        )
    if precision == "int8" and changed_labels > MAX_CHANGED:
        raise ExportError(
            f"The int8 model must give the classifier's labels for {1 - MAX_CHANGED:.0%} of the "
            f"photos. Received, on {n:,} photos: {_describe_loss(changed_labels, comparison)}. "
            "Nothing was written. Leave `quantize` out, or fit a network that loses less in int8, "
            "such as MobileNetV2."
        )
    return ExportResult(
        path=path,
        format=kind,
        precision=precision,
        n_photos=n,
        max_difference=difference,
        changed_labels=changed_labels,
        comparison=comparison,
    )


def _describe_loss(changed: Interval, comparison: Comparison | None) -> str:
    """What quantization costs, in words."""
    text = f"{changed} of the labels change"
    if comparison is None:
        return text
    a, b, d = comparison.accuracy_a, comparison.accuracy_b, comparison.accuracy_difference
    return (
        f"{text}; accuracy {a:.1%} before, {b:.1%} after: {100 * d.value:+.1f} points "
        f"({100 * d.low:+.1f} to {100 * d.high:+.1f})"
    )


def _add_measurement(file: Path, result: ExportResult) -> None:
    """Write what quantization costs into the archive at the end of a LiteRT model."""
    fields = result.to_json()
    del fields["path"]
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("verification.json", json.dumps(fields, indent=1) + "\n")
