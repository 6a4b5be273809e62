"""The bundle: a `.keras` file with one entry more, which says what the numbers mean."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from scenelearn._backend import keras
from scenelearn.backbone import filled
from scenelearn.data import need_space, written_whole
from scenelearn.errors import ArgumentError, BundleError, PathMissingError

_ENTRY = "scenelearn.json"
_FORMAT = 1
_MAX_TEXT_BYTES = 16 * 2**20  # of config.json and ours; the largest of keras.applications has 1 MiB
_MAX_BYTES = 4 * 2**30  # unpacked; ConvNeXtXLarge, the largest of keras.applications, has 1.4 GB


def write(model: Any, about: dict[str, Any], path: Path) -> Path:
    """Write a model and what is to be known about it as one file.

    Args:
        model: a `keras.Model` of built-in layers.
        about: JSON values.
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
    with written_whole(path) as temporary:
        need_space(
            temporary.parent,
            2 * 4 * model.count_params(),  # float32, and once more while the archive is made
            advice="save to a folder on a larger disk",
        )
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_ENTRY, json.dumps({"format": _FORMAT, **about}, indent=1))
    return path


def read(path: Path) -> tuple[Any, dict[str, Any]]:
    """Open what `write` wrote.

    Args:
        path: the file.

    Returns:
        The model and what is known about it.

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
    about = _about(path)
    k = keras()
    try:
        model = filled(lambda: k.saving.load_model(path, compile=False, safe_mode=True))
    except Exception as error:  # noqa: BLE001 - Keras, h5py, zipfile raise many kinds here
        raise _broken(path, f"{type(error).__name__}: {error}") from None
    px, n_classes = about["image_px"], len(about["class_names"])
    if (model.input_shape, model.output_shape) != ((None, px, px, 3), (None, n_classes)):
        shapes = f"from {model.input_shape} to {model.output_shape}"
        raise _broken(path, f"{n_classes} class names at {px} px with a network {shapes}")
    return model, about


def _about(path: Path) -> dict[str, Any]:
    """Our entry, read only after the archive's sizes were found sensible."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if _ENTRY not in sizes:
                raise _broken(path, "a zip file without an entry of scenelearn's")
            texts = sizes[_ENTRY], sizes.get("config.json", 0), sizes.get("metadata.json", 0)
            if max(texts) > _MAX_TEXT_BYTES or sum(sizes.values()) > _MAX_BYTES:
                raise _broken(path, "entries of a size that no classifier has")
            about: dict[str, Any] = json.loads(archive.read(_ENTRY))
    except BundleError:
        raise
    except Exception as error:  # noqa: BLE001 - json and zipfile raise many kinds here
        raise _broken(path, f"{type(error).__name__}: {error}") from None
    if not _is_complete(about):
        raise _broken(path, "an entry of scenelearn's that is incomplete or of a newer version")
    return about


def _is_complete(about: object) -> bool:
    return (
        isinstance(about, dict)
        and about.get("format") == _FORMAT
        and isinstance(about.get("class_names"), list)
        and all(isinstance(name, str) for name in about["class_names"])
        and type(about.get("image_px")) is int
        and isinstance(about.get("facts"), dict)
    )


def _broken(path: Path, received: str) -> BundleError:
    return BundleError(
        f"{str(path)!r} must be a whole file that `save` of scenelearn wrote. "
        f"Received: {received}. Save "
        "the classifier again, or copy the file again from where it is whole."
    )
