"""The classifier for other runtimes: written by Keras, checked on photos, then handed over."""

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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from scenelearn._io import atomic_write, atomic_write_folder, require_free_space
from scenelearn.classify._inputs import Photo, Source, read, sources
from scenelearn.errors import ArgumentError, ExportError, MissingExtraError, NoPhotosError
from scenelearn.samples import sample_scenes

TOLERANCE = 1e-4
"""How far a probability of an exported file may be from the classifier's."""
_MOST_PHOTOS = 100  # that are checked
_LARGEST_PX = 1600  # of a photo that is checked: those of phones are reduced to this first
_PER_CLASS = 3  # sample scenes that are checked where no photos are given
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "saved_model": ""}  # that of a folder is its own
_NEEDS = {  # the modules of each extra
    "onnx": ("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
    "litert": ("tensorflow", "ai_edge_litert"),
    "saved_model": ("tensorflow",),
}
_SAID = 400  # characters of what went wrong that a message repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file, or a folder, for another runtime.

    Attributes:
        path: where it is.
        format: "onnx", "litert" or "saved_model".
        n_photos: how many photos it was checked on.
        difference: the largest difference between one of its probabilities and the classifier's.
    """

    path: Path
    format: str
    n_photos: int
    difference: float

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.format}, labels of {self.n_photos:,} photos identical, "
            f"probabilities within {self.difference:.1g}"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "path": str(self.path),
            "format": self.format,
            "n_photos": self.n_photos,
            "difference": self.difference,
        }


def export(
    classifier: Any, path: Path, *, format_: str | None, check: Photo | Iterable[Photo] | None
) -> Exported:
    """What `Classifier.export` does; see there."""
    kind = _kind(path, format_)
    missing = [name for name in _NEEDS[kind] if importlib.util.find_spec(name) is None]
    if missing:
        extra = kind.replace("_", "-")
        raise MissingExtraError(
            f"Exporting to {kind!r} needs {', '.join(_NEEDS[kind])}. Received: no "
            f"{', no '.join(missing)}. Install what is missing: "
            f'`pip install "scenelearn[{extra}]"`.'
        )
    images = _drawn() if check is None else _whole(check, classifier.image_px)
    squares = [read(("", image), classifier.image_px) for image in images]
    expected = classifier.probabilities(np.stack(squares))
    with tempfile.TemporaryDirectory(prefix="scenelearn-export-") as folder:
        work = Path(folder)
        n_bytes = sum(image.nbytes for image in images) + 12 * classifier.model.count_params()
        require_free_space(work, n_bytes, advice="set TMPDIR to a folder on a larger disk")
        classifier.save(work / "scenes.keras")
        given = squares if kind == "litert" else images
        for k, image in enumerate(given):
            np.save(work / f"{k}.npy", image, allow_pickle=False)
        found = _made(work, kind, len(images))
        difference = _compared(found, expected, kind)
        if kind == "saved_model":
            with atomic_write_folder(path) as temporary:
                shutil.copytree(work / "made", temporary, dirs_exist_ok=True)
        else:
            with atomic_write(path) as temporary:
                shutil.copyfile(work / f"made{_SUFFIXES[kind]}", temporary)
    return Exported(path=path, format=kind, n_photos=len(images), difference=difference)


def _kind(path: Path, format_: str | None) -> str:
    """The format that was asked for, or that the path's ending stands for."""
    of_suffix = {suffix: kind for kind, suffix in _SUFFIXES.items()}
    kind = of_suffix.get(path.suffix) if format_ is None else format_
    if kind not in _SUFFIXES:
        raise ArgumentError(
            f"`format` must be 'onnx', 'litert' or 'saved_model'. Received: format={format_!r}, "
            f"path={str(path)!r}. Pass one, or a path that ends in '.onnx', in '.tflite', or, for "
            "the folder of a SavedModel, in neither."
        )
    if kind != "saved_model" and path.suffix != _SUFFIXES[kind]:
        raise ArgumentError(
            f"`path` must end in {_SUFFIXES[kind]!r} for {kind!r}. Received: {str(path)!r}. "
            f"Pass e.g. {str(path.with_suffix(_SUFFIXES[kind]))!r}."
        )
    if path.is_dir() if kind != "saved_model" else _is_in_the_way(path):
        raise ArgumentError(
            f"`path` must be free, or an older export. Received: {str(path)!r}, where something "
            "else is. Pass another name, or remove it."
        )
    return kind


def _is_in_the_way(path: Path) -> bool:
    return path.exists() and not (path / "saved_model.pb").is_file()


def _drawn() -> list[npt.NDArray[np.uint8]]:
    """Sample scenes, each cut to a size of its own."""
    with tempfile.TemporaryDirectory(prefix="scenelearn-export-") as folder:
        sample_scenes(folder, _PER_CLASS, 0)
        drawn = [np.asarray(Image.open(file)) for file in sorted(Path(folder).glob("*/*.jpg"))]
    return [image[3 * k :, : image.shape[1] - k] for k, image in enumerate(drawn)]


def _whole(check: Photo | Iterable[Photo], image_px: int) -> list[npt.NDArray[np.uint8]]:
    """The first photos, upright and in color, and not as large as a phone makes them."""
    images = []
    for source in itertools.islice(sources(check), _MOST_PHOTOS):
        read(source, image_px)  # whatever is wrong with it is said here
        images.append(_pixels(source))
    if not images:
        raise NoPhotosError(f"`check` holds no photo. Received: {check!r}. Pass at least one.")
    return images


def _pixels(source: Source) -> npt.NDArray[np.uint8]:
    photo = source[1]
    if isinstance(photo, np.ndarray):
        image = Image.fromarray(photo)
    elif isinstance(photo, Image.Image):
        image = photo.copy()
    else:
        image = Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else Path(photo))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((_LARGEST_PX, _LARGEST_PX))
    return np.asarray(upright)


def _made(work: Path, kind: str, n_images: int) -> npt.NDArray[np.float32]:
    """Let another process write the export; what its own runtime makes of the photos.

    It runs Keras on TensorFlow, whichever backend runs here: there Keras can write all formats,
    and TensorFlow stays out of this process.
    """
    job = {"kind": kind, "n_images": n_images}
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    where = str(Path(__file__).parents[2])
    settings = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(filter(None, [where, os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "scenelearn.classify._exporter", str(work)],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not (work / "found.npy").is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = lines[-1][:_SAID] if lines else f"exit status {done.returncode}"
        raise ExportError(
            f"Keras must be able to write the network as {kind!r}. Received: {said} Nothing was "
            "written. Try another format, or another version of what writes it."
        )
    return np.asarray(np.load(work / "found.npy", allow_pickle=False))


def _compared(
    found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], kind: str
) -> float:
    """The largest difference of probabilities, if it is small and no label differs."""
    same_shape = found.shape == expected.shape
    difference = float(np.abs(found - expected).max()) if same_shape else float("inf")
    n_other = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()) if same_shape else 0
    if not difference <= TOLERANCE or n_other:
        raise ExportError(
            f"The {kind!r} file must give the classifier's probabilities to {TOLERANCE:g} and its "
            f"labels. Received, on {len(expected):,} photos: a difference of {difference:.2g} and "
            f"{n_other:,} other labels. Nothing was written. Try another format."
        )
    return difference
