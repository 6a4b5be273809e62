"""Everything that counts as a photo to predict, as one stream of named images."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn.data import RefusedPhoto, square, to_square
from scenelearn.errors import ArgumentError, PathMissingError, PhotoError

Image_ = npt.NDArray[np.uint8]
Photo = str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image.Image
Source = tuple[str, Photo]


def sources(photos: Photo | Iterable[Photo]) -> list[Source] | Iterator[Source]:
    """Name each photo: its path, or its kind and number.

    Args:
        photos: a path, a folder (its files, not those of its subfolders), a pattern such as
            ``"photos/**/*.jpg"``, the bytes of a file, an array (height, width, 3) or
            (n, height, width, 3), a Pillow image, or any number of these.

    Returns:
        (name, photo) pairs; of a generator, as they are asked for.

    Raises:
        ArgumentError: if something else is given.
        PathMissingError: if a path does not exist, or no file matches a pattern.
    """
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        return [(f"array {k}", image) for k, image in enumerate(photos)]
    if isinstance(photos, str | os.PathLike | bytes | bytearray | np.ndarray | Image.Image):
        return _named(photos, 0)
    if not isinstance(photos, Iterable):
        raise _not_a_photo(photos)
    named = (pair for k, photo in enumerate(photos) for pair in _named(photo, k))
    return list(named) if isinstance(photos, Sized) else named


def read(source: Source, image_px: int) -> Image_:
    """The image that the network sees.

    Args:
        source: from `sources`.
        image_px: width and height, in pixels.

    Returns:
        (image_px, image_px, 3) uint8.

    Raises:
        PhotoError: if it cannot be decoded; the message names it.
        ArgumentError: if an array is not an image of uint8.
    """
    name, photo = source
    if isinstance(photo, np.ndarray):
        _check_array(name, photo)
    try:
        if isinstance(photo, np.ndarray):
            return square(Image.fromarray(photo), image_px)
        if isinstance(photo, Image.Image):
            return square(photo, image_px)
        content = photo if isinstance(photo, bytes) else Path(photo).expanduser().read_bytes()
        return to_square(content, image_px)
    except RefusedPhoto as error:
        raise PhotoError(
            f"{name!r} cannot be used as a photo. Expected a whole JPEG, PNG, WebP, TIFF, BMP, GIF "
            f"or AVIF. Received: {error}. Export or copy it again, or leave it out."
        ) from None
    except OSError as error:
        raise PhotoError(
            f"{name!r} cannot be read: {error.strerror or error}. Check its permissions."
        ) from None


def _named(photo: Photo, k: int) -> list[Source]:
    if isinstance(photo, bytes | bytearray):
        return [(f"bytes {k}", bytes(photo))]
    if isinstance(photo, np.ndarray):
        return [(f"array {k}", photo)]
    if isinstance(photo, Image.Image):
        return [(f"image {k}", photo)]
    if not isinstance(photo, str | os.PathLike):
        raise _not_a_photo(photo)
    path = Path(photo).expanduser()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        return [(str(file), file) for file in files if not file.name.startswith(".")]
    if path.is_file():
        return [(str(photo), path)]
    matching: list[str] = []
    if glob.has_magic(str(path)):
        matching = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute ones too
    found = [name for name in matching if Path(name).is_file()]
    if not found:
        raise PathMissingError(
            f"{str(photo)!r} must be a photo, a folder of photos, or a pattern that matches some. "
            "Received: a path where there is neither. Check the path."
        )
    return [(name, Path(name)) for name in found]


def _not_a_photo(photo: object) -> ArgumentError:
    return ArgumentError(
        "`photos` must be a path, bytes, an array (height, width, 3) uint8, a Pillow image, or a "
        f"list or generator of these. Received: {type(photo).__name__}."
    )


def _check_array(name: str, array: npt.NDArray[Any]) -> None:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape or array.dtype != np.uint8:
        raise ArgumentError(
            f"{name} must have the shape (height, width, 3) and the dtype uint8, values 0-255. "
            f"Received: shape {array.shape}, dtype {array.dtype}. Scale it and convert it with "
            ".astype('uint8')."
        )
