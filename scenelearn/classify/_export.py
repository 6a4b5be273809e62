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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

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
from scenelearn.data._resize import Resize
from scenelearn.errors import ArgumentError, ExportError, MissingExtraError, NoPhotosError
from scenelearn.samples import sample_scenes

TOLERANCE = 1e-4
"""The largest difference allowed between a probability of an export and the classifier's."""
_MAX_PHOTOS = 100  # to verify an export with
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
        n_photos: the number of photos that it was verified with.
        max_difference: the largest difference between one of its probabilities and the
            classifier's.
    """

    path: Path
    format: str
    n_photos: int
    max_difference: float

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.format}, verified with {self.n_photos:,} photos: the same labels, "
            f"probabilities within {self.max_difference:.1g}"
        )

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
        resize: how photos become the classifier's images.
        n_parameters: of its model.
        classes: the layers of the user's own in its model.
        predict: its probabilities for images (n, height, width, 3).
        save: writes it as a bundle.
    """
    kind = _check_format(path, format_)
    missing = [name for name in _REQUIREMENTS[kind] if importlib.util.find_spec(name) is None]
    if missing:
        extra = kind.replace("_", "-")
        raise MissingExtraError(
            f"Exporting to {kind!r} needs {', '.join(_REQUIREMENTS[kind])}. Received: no "
            f"{', no '.join(missing)}. Install what is missing: "
            f'`pip install "scenelearn[{extra}]"`.'
        )
    custom_objects = _importable(classes)
    images = _render_samples() if check is None else _load_images(check, resize)
    resized = [read_image(("", image), resize) for image in images]
    expected = predict(np.stack(resized))
    with _work_folder() as work:
        n_bytes = sum(image.nbytes for image in images) + 12 * n_parameters
        require_free_space(work, n_bytes, advice="set TMPDIR to a folder on a larger disk")
        save(work / "scenes.keras")
        for k, image in enumerate(resized if kind == "litert" else images):
            np.save(work / f"{k}.npy", image, allow_pickle=False)
        job = {"kind": kind, "n_images": len(images), "custom_objects": custom_objects}
        probabilities = _run_worker(work, job)
        max_difference = _check_agreement(probabilities, expected, kind)
        _check_unused(path, kind)
        if kind == "saved_model":
            with atomic_write_folder(path) as temporary:
                shutil.copytree(work / "export", temporary, dirs_exist_ok=True)
        else:
            with atomic_write(path) as temporary:
                shutil.copyfile(work / f"export{_SUFFIXES[kind]}", temporary)
    return ExportResult(path=path, format=kind, n_photos=len(images), max_difference=max_difference)


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
    with _work_folder() as folder:
        sample_scenes(folder, _PER_CLASS, 0, verbose=False)
        scenes = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*/*.jpg"))]
    return [image[3 * k :, : image.shape[1] - k] for k, image in enumerate(scenes)]


def _load_images(check: PhotosLike, resize: Resize) -> list[npt.NDArray[np.uint8]]:
    """The first photos, upright, in color, and not too large."""
    images = []
    for source in itertools.islice(resolve_photos(check), _MAX_PHOTOS):
        read_image(source, resize)  # raises if anything is wrong with the photo
        images.append(_load_image(source))
    if not images:
        raise NoPhotosError(
            f"`check` must contain at least one photo. Received: check={check!r:.200}."
        )
    return images


def _load_image(source: Source) -> npt.NDArray[np.uint8]:
    photo = load_source(source)
    if isinstance(photo, np.ndarray):
        image = Image.fromarray(photo)
    elif isinstance(photo, bytes):
        image = Image.open(io.BytesIO(photo))
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


def _check_agreement(
    probabilities: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], kind: str
) -> float:
    """The largest difference of probabilities.

    Raises:
        ExportError: if the difference is too large, or a label differs.
    """
    same_shape = probabilities.shape == expected.shape
    difference = float(np.abs(probabilities - expected).max()) if same_shape else float("inf")
    labels_differ = probabilities.argmax(axis=1) != expected.argmax(axis=1) if same_shape else None
    n_different = 0 if labels_differ is None else int(labels_differ.sum())
    if not difference <= TOLERANCE or n_different:
        raise ExportError(
            f"The {kind!r} model must give the classifier's labels, and its probabilities to "
            f"{TOLERANCE:g}. Received, on {len(expected):,} photos: a difference of "
            f"{difference:.2g}, and {n_different:,} different labels. Nothing was written. "
            "Try another format."
        )
    return difference
