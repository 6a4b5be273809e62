"""The bundle: a `.keras` file with entries more, which say what the numbers mean."""

from __future__ import annotations

import errno
import json
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.backbone import filled
from scenelearn.data import need_space, written_whole
from scenelearn.errors import ArgumentError, BundleError, DiskSpaceError, PathMissingError

_ENTRY = "scenelearn.json"
_ARRAYS = "scenelearn/"  # one entry an array: its bytes, little-endian, and nothing else
_DTYPES = ("<f2", "<f4", "<i4")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, a file's limit
_FORMAT = 2  # since 2 with arrays; 1 is still read
_MAX_TEXT_BYTES = 16 * 2**20  # of config.json and ours; the largest of keras.applications has 1 MiB
_MAX_BYTES = 4 * 2**30  # unpacked; ConvNeXtXLarge, the largest of keras.applications, has 1.4 GB


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
    with _disk_named(path), written_whole(path) as temporary:
        need_space(
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
            archive.writestr(_ENTRY, text)
            for name, array in arrays.items():
                archive.writestr(_ARRAYS + name, array.tobytes())
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
    about, arrays = _about(path)
    k = keras()
    try:
        model = filled(lambda: k.saving.load_model(path, compile=False, safe_mode=True))
    except Exception as error:  # noqa: BLE001 - Keras, h5py, zipfile raise many kinds here
        raise broken(path, f"{type(error).__name__}: {error}") from None
    px, n_classes = about["image_px"], len(about["class_names"])
    if (model.input_shape, model.output_shape) != ((None, px, px, 3), (None, n_classes)):
        shapes = f"from {model.input_shape} to {model.output_shape}"
        raise broken(path, f"{n_classes} class names at {px} px with a network {shapes}")
    return model, about, arrays


def _about(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Our entries, read only after the archive's sizes were found sensible."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if _ENTRY not in sizes:
                raise broken(path, "a zip file without an entry of scenelearn's")
            texts = sizes[_ENTRY], sizes.get("config.json", 0), sizes.get("metadata.json", 0)
            if max(texts) > _MAX_TEXT_BYTES or sum(sizes.values()) > _MAX_BYTES:
                raise broken(path, "entries of a size that no classifier has")
            about: dict[str, Any] = json.loads(archive.read(_ENTRY))
            if not _is_complete(about):
                raise broken(
                    path, "an entry of scenelearn's that is incomplete or of a newer version"
                )
            arrays = {
                name: _array(archive, sizes, name, **how)
                for name, how in (about["arrays"] if about["format"] == _FORMAT else {}).items()
            }
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001 - json and zipfile raise many kinds here
        raise broken(path, f"{type(error).__name__}: {error}") from None
    return about, arrays


def _array(
    archive: zipfile.ZipFile, sizes: dict[str, int], name: str, *, dtype: str, shape: list[int]
) -> npt.NDArray[Any]:
    """One array, if the entry holds as many bytes as its shape says; no more is ever read."""
    if dtype not in _DTYPES or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"array {name!r} of dtype {dtype!r} and shape {shape!r}")
    if sizes.get(_ARRAYS + name) != np.dtype(dtype).itemsize * math.prod(shape):
        raise ValueError(f"array {name!r} of another size than shape {shape!r}")
    return np.frombuffer(archive.read(_ARRAYS + name), dtype).reshape(shape)


def _is_complete(about: object) -> bool:
    return (
        isinstance(about, dict)
        and about.get("format") in (1, _FORMAT)
        and isinstance(about.get("class_names"), list)
        and all(isinstance(name, str) for name in about["class_names"])
        and type(about.get("image_px")) is int
        and isinstance(about.get("facts"), dict)
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
