"""The bundle: a `.keras` file with entries more, which say what the numbers mean."""

from __future__ import annotations

import errno
import json
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._io import atomic_write, require_free_space
from scenelearn.backbones import filled
from scenelearn.classify._archive import (
    ARRAYS,
    ENTRY,
    UnfitError,
    check_entries,
    check_finite,
    model_of,
)
from scenelearn.errors import ArgumentError, BundleError, DiskSpaceError, PathMissingError

_DTYPES = ("<f2", "<f4", "<i4")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, a file's limit
_SAID = 500  # characters of what is wrong that a message repeats
_FORMAT = 2  # since 2 with arrays; 1 is still read


def write(
    model: Any, about: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], path: Path
) -> Path:
    """Write a model and what is to be known about it as one file.

    Args:
        model: a `keras.Model` of built-in layers.
        about: JSON values.
        arrays: by name, of float16, float32 or int32.
        path: ends in ``.keras``.

    Returns:
        `path`.

    Raises:
        ArgumentError: if `path` does not end in ``.keras``, or cannot be a file.
        DiskSpaceError: if it does not fit on the disk.
    """
    if path.suffix != ".keras":
        raise ArgumentError(
            f"`path` must end in '.keras'. Received: {str(path)!r}. "
            f"Pass e.g. {str(path.with_suffix('.keras'))!r}."
        )
    with _disk_named(path), atomic_write(path) as temporary:
        require_free_space(
            temporary.parent,
            # float32, and once more while the archive is made
            2 * (4 * model.count_params() + sum(array.nbytes for array in arrays.values())),
            advice="save to a folder on a larger disk",
        )
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            shapes = {
                name: {"dtype": array.dtype.str, "shape": array.shape}
                for name, array in arrays.items()
            }
            text = json.dumps({"format": _FORMAT, **about, "arrays": shapes}, indent=1)
            archive.writestr(ENTRY, text)
            for name, array in arrays.items():
                archive.writestr(ARRAYS + name, array.tobytes())
    return path


@contextmanager
def _disk_named(path: Path) -> Iterator[None]:
    """Say which file was being written when a disk that had room is full after all."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskSpaceError(
            f"{str(path)!r} could not be written to its end. Received: {error.strerror or error}. "
            "An older file is as it was. Free some space, or save to a folder on a larger disk."
        ) from None


def read(path: Path) -> tuple[Any, dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Open what `write` wrote.

    Args:
        path: the file.

    Returns:
        The model, what is known about it, and the arrays; none in a file of format 1.

    Raises:
        PathMissingError: if there is no such file.
        BundleError: if it is not a whole bundle. No code in it is run.
    """
    path = path.expanduser()
    if not path.is_file():
        raise PathMissingError(
            f"`path` must be a saved classifier. Received: {str(path)!r}, where there is no file. "
            "Check the path; `scenelearn fit` prints where it saves."
        )
    keras()
    from keras.src.saving import saving_lib  # whose public face takes no archive in memory

    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            sizes = check_entries(archive, path.stat().st_size)
            about = _about(archive)
            arrays = {
                name: _array(archive, sizes, name, **how)
                for name, how in (about["arrays"] if about["format"] == _FORMAT else {}).items()
            }
            checked = model_of(archive)
        with warnings.catch_warnings():
            # Keras would go on with random weights where some are missing.
            warnings.filterwarnings("error", message="Skipping nested container")
            model = filled(lambda: saving_lib.load_model(checked, compile=False, safe_mode=True))
        check_finite(model)
    except Exception as error:  # noqa: BLE001 - Keras, h5py, json, zipfile raise many kinds here
        said = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
        raise broken(path, said[:_SAID]) from None
    px, n_classes = about["image_px"], len(about["class_names"])
    if (model.input_shape, model.output_shape) != ((None, px, px, 3), (None, n_classes)):
        shapes = f"from {model.input_shape} to {model.output_shape}"
        raise broken(path, f"{n_classes} class names at {px} px with a network {shapes}")
    return model, about, arrays


def _about(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Our entry."""
    about: dict[str, Any] = json.loads(archive.read(ENTRY))
    if not _is_complete(about):
        raise UnfitError("an entry of scenelearn's that is incomplete or of a newer version")
    return about


def _array(
    archive: zipfile.ZipFile, sizes: dict[str, int], name: str, *, dtype: str, shape: list[int]
) -> npt.NDArray[Any]:
    """One array, if the entry holds as many bytes as its shape says; no more is ever read."""
    if dtype not in _DTYPES or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"array {name!r} of dtype {dtype!r} and shape {shape!r}")
    if sizes.get(ARRAYS + name) != np.dtype(dtype).itemsize * math.prod(shape):
        raise ValueError(f"array {name!r} of another size than shape {shape!r}")
    return np.frombuffer(archive.read(ARRAYS + name), dtype).reshape(shape)


def _is_complete(about: object) -> bool:
    return (
        isinstance(about, dict)
        and about.get("format") in (1, _FORMAT)
        and isinstance(about.get("class_names"), list)
        and all(isinstance(name, str) for name in about["class_names"])
        and len(set(about["class_names"])) == len(about["class_names"]) > 1
        and type(about.get("image_px")) is int
        and isinstance(about.get("facts"), dict)
        and all(isinstance(fact, str) for fact in about["facts"].values())
        and (about["format"] == 1 or _has_arrays(about))
    )


def _has_arrays(about: dict[str, Any]) -> bool:
    return (
        isinstance(about.get("arrays"), dict)
        and all(isinstance(how, dict) for how in about["arrays"].values())
        and isinstance(about.get("gallery"), list)
        and all(isinstance(path, str) for path in about["gallery"])
    )


def broken(path: Path, received: str) -> BundleError:
    """The error for a file that is no whole bundle."""
    return BundleError(
        f"{str(path)!r} must be a whole file that `save` of scenelearn wrote. "
        f"Received: {received}. Save "
        "the classifier again, or copy the file again from where it is whole."
    )
