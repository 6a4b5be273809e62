"""The bundle: a `.keras` file with additional entries that say what the numbers mean."""

from __future__ import annotations

import errno
import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras, start
from scenelearn._io import atomic_write, disk_error, is_disk_error, require_free_space
from scenelearn._keras_internals import load_model_from_archive
from scenelearn.backbones._copy import keep_position_embeddings
from scenelearn.backbones._materialize import materialize
from scenelearn.classify._bundle_checks import (
    ARRAYS,
    ENTRY,
    InvalidBundleError,
    check_entries,
    check_finite,
    check_model,
)
from scenelearn.data._resize import SHAPES, make_resize
from scenelearn.errors import ArgumentError, BundleError, PathMissingError

_DTYPES = ("<f2", "<f4", "<i4")
_MAX_DETAIL = 500  # characters of another library's error that a message repeats
_MAX_PX = 8192  # a batch of 32 such images would take 6 GiB
_FORMAT = 1


def write(
    model: Any, entry: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], path: Path
) -> Path:
    """Write a model and its description as one file.

    Args:
        model: a `keras.Model` of built-in layers.
        entry: the description: JSON values.
        arrays: by name, float16, float32 or int32.
        path: ends in ``.keras``.

    Returns:
        `path`.

    Raises:
        ArgumentError: if `path` does not end in ``.keras``, or cannot be written.
        DiskSpaceError: if it does not fit on the disk.
        DiskError: if the system cannot write it. An existing file is then unchanged.
    """
    if path.suffix != ".keras":
        raise ArgumentError(
            f"`path` must end in '.keras'. Received: {str(path)!r}. "
            f"Pass e.g. {str(path.with_suffix('.keras'))!r}."
        )
    with atomic_write(path) as temporary:
        require_free_space(
            temporary.parent,
            # float32, twice: while the archive is made, the weights are on the disk, too
            2 * (4 * model.count_params() + sum(array.nbytes for array in arrays.values())),
            advice="save to a folder on a larger disk",
        )
        keep_position_embeddings(model)
        model.save(temporary)
        with (  # if `ZipFile` cannot open a path to append, it starts an empty archive
            temporary.open("r+b") as file,
            zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive,
        ):
            shapes = {
                name: {"dtype": array.dtype.str, "shape": array.shape}
                for name, array in arrays.items()
            }
            text = json.dumps({"format": _FORMAT, **entry, "arrays": shapes}, indent=1)
            archive.writestr(ENTRY, text)
            for name, array in arrays.items():
                archive.writestr(ARRAYS + name, array.tobytes())
    return path


def read(
    path: Path, custom_objects: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read what `write` wrote.

    Args:
        path: the file.
        custom_objects: classes of the user's own that the network may consist of, by name.

    Returns:
        The model, its description, and the arrays.

    Raises:
        PathMissingError: if the file does not exist or cannot be read.
        BundleError: if it is not a complete bundle. No code in it is run.
        DiskError: if the system cannot read it.
        BackendError: if Keras cannot start.
        MissingExtraError: if the network needs KerasHub, which is not installed.
    """
    start()  # before anything that fails is the file's fault
    try:
        if not path.is_file():  # a pipe would wait
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        file = path.open("rb")
    except OSError as error:
        raise PathMissingError(
            f"`path` must be a saved classifier. Received: {str(path)!r}: {error.strerror}. "
            "Check the path; `scenelearn fit` prints where it saves."
        ) from None
    try:
        with file, zipfile.ZipFile(file) as archive:
            sizes = check_entries(archive, path.stat().st_size)
            entry = _read_entry(archive)
            arrays = {
                name: _read_array(archive, sizes, name, **spec)
                for name, spec in entry["arrays"].items()
            }
            checked, names = check_model(archive, custom_objects or {})
        with (
            warnings.catch_warnings(action="ignore"),
            keras().saving.custom_object_scope(names),
        ):
            model = materialize(lambda: load_model_from_archive(checked), seed=None)
        check_finite(model)
    except (ImportError, MemoryError):  # the environment's fault
        raise
    except Exception as error:  # Keras, h5py, json, zipfile raise many kinds here
        if is_disk_error(error):
            raise disk_error(path, error) from error
        known = isinstance(error, InvalidBundleError)
        detail = str(error) if known else f"{type(error).__name__}: {error}"
        raise bundle_error(path, detail[:_MAX_DETAIL]) from None
    resize, n_classes = make_resize(entry["image_px"], entry["shape"]), len(entry["class_names"])
    expected = ((None, resize.height, resize.width, 3), (None, n_classes))
    if (model.input_shape, model.output_shape) != expected:
        shapes = f"from {model.input_shape} to {model.output_shape}"
        raise bundle_error(
            path, f"{n_classes} class names at {resize.title} with a network {shapes}"
        )
    return model, entry, arrays


def _read_entry(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The entry with the description."""
    entry: dict[str, Any] = json.loads(archive.read(ENTRY))
    if not _is_complete(entry):
        raise InvalidBundleError(
            f"an entry {ENTRY!r} that is incomplete or from another version of scenelearn"
        )
    return entry


def _read_array(
    archive: zipfile.ZipFile, sizes: dict[str, int], name: str, *, dtype: str, shape: list[int]
) -> npt.NDArray[Any]:
    """One array, if its entry has exactly the size that its shape implies."""
    if dtype not in _DTYPES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"array {name!r} with dtype {dtype!r} and shape {shape!r}")
    if sizes.get(ARRAYS + name) != np.dtype(dtype).itemsize * math.prod(shape):
        raise ValueError(f"array {name!r} whose size does not match its shape {shape!r}")
    return np.frombuffer(archive.read(ARRAYS + name), dtype).reshape(shape)


def _is_complete(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("format") == _FORMAT
        and isinstance(entry.get("class_names"), list)
        and all(isinstance(name, str) for name in entry["class_names"])
        and len(set(entry["class_names"])) == len(entry["class_names"]) > 1
        and _is_size(entry.get("image_px"))
        and entry.get("shape") in SHAPES
        and isinstance(entry.get("metadata"), dict)
        and all(isinstance(value, str) for value in entry["metadata"].values())
        and isinstance(entry.get("arrays"), dict)
        and all(isinstance(spec, dict) for spec in entry["arrays"].values())
        and isinstance(entry.get("neighbor_paths"), list)
        and all(isinstance(path, str) for path in entry["neighbor_paths"])
    )


def _is_size(image_px: object) -> bool:
    sides = image_px if isinstance(image_px, list) and len(image_px) == 2 else [image_px]
    return all(type(side) is int and 0 < side <= _MAX_PX for side in sides)


def bundle_error(path: Path, received: str) -> BundleError:
    """The error for a file that is not a complete bundle."""
    return BundleError(
        f"{str(path)!r} must be a complete file written by `Classifier.save` of scenelearn. "
        f"Received: {received}. Save the classifier again, or copy the file again."
    )
