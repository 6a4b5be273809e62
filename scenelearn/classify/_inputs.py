"""Everything that counts as photos to predict, as one stream of named images."""

from __future__ import annotations

import glob
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn._checks import check_path
from scenelearn._progress import Progress
from scenelearn._threads import map_ahead, n_threads
from scenelearn.data import Photo, Photos
from scenelearn.data._decode import decode_image
from scenelearn.data._files import read_file
from scenelearn.data._pixels import check_broken
from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.data._resize import Resize
from scenelearn.errors import ArgumentError, NoPhotosError, PathMissingError, PhotoError

PhotoLike = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any] | Image.Image | Photo
"""One photo, in any of the forms that `Classifier.predict` understands."""
PhotosLike = PhotoLike | Iterable[PhotoLike] | Photos
"""One photo or several."""

_ONE = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image.Image, Photo)

_log = logging.getLogger(__name__)

# A photo's name, and its pixels, its file's content, or a function that reads the file.
Source = tuple[str, npt.NDArray[Any] | Image.Image | bytes | Callable[[], bytes]]


def resolve_photos(photos: Any) -> list[Source] | Iterator[Source]:
    """Name each photo by its path, or by its kind and position.

    Args:
        photos: a path, a folder (all files in it and its subfolders, except hidden ones), a
            pattern such as ``"photos/**/*.jpg"``, the bytes of a file, a file opened in binary
            mode, an array (height, width, 3) or (n, height, width, 3), a Pillow image, a `Photo`,
            `Photos`, or a list, array or generator of these.

    Returns:
        (name, photo) pairs. For a generator they are produced one at a time.

    Raises:
        ArgumentError: if something else is given.
        PathMissingError: if a path does not exist, or no file matches a pattern.
    """
    if isinstance(photos, Photos):
        return [
            (str(photos.file(index)), partial(photos.read, index)) for index in range(len(photos))
        ]
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        return [(f"array {k}", image) for k, image in enumerate(photos)]
    are_objects = isinstance(photos, np.ndarray) and photos.dtype.kind in "OU"  # paths, …
    several = list(photos.flat) if are_objects else photos
    is_one = isinstance(several, _ONE) or hasattr(several, "read")
    if not is_one and not isinstance(several, Iterable):
        raise _not_a_photo_error(photos)
    numbered = enumerate([several] if is_one else several)
    sources = (source for k, photo in numbered for source in _resolve(photo, k))
    return list(sources) if is_one or isinstance(several, Sized) else sources


def one_source(photo: Any) -> Source:
    """`resolve_photos` for a single photo.

    Raises:
        ArgumentError: if it is not exactly one photo.
        PathMissingError: if the path does not exist.
    """
    sources = list(itertools.islice(resolve_photos(photo), 2))
    if len(sources) != 1:
        raise ArgumentError(
            f"`photo` must be one photo. Received: {'several' if sources else 'none'}. "
            "Pass photos one at a time."
        )
    return sources[0]


def load_source(source: Source) -> npt.NDArray[Any] | Image.Image | bytes:
    """The pixels of a photo, or the content of its file.

    Raises:
        PhotoError: if the file cannot be read.
        ArgumentError: if an array is not a uint8 image.
    """
    name, photo = source
    if isinstance(photo, np.ndarray):
        _check_array(name, photo)
        return photo
    if isinstance(photo, Image.Image | bytes):
        return photo
    try:
        return photo()
    except OSError as error:
        raise PhotoError(
            f"{name!r} cannot be read: {error.strerror or error}. Check its permissions."
        ) from None


def read_image(source: Source, resize: Resize) -> npt.NDArray[np.uint8]:
    """The image that the network is given.

    Args:
        source: from `resolve_photos`.
        resize: how photos become images.

    Returns:
        (height, width, 3) uint8.

    Raises:
        PhotoError: if the photo cannot be read or decoded; the message names it.
        ArgumentError: if an array is not a uint8 image.
    """
    photo = load_source(source)
    if isinstance(photo, np.ndarray):
        if photo.shape == (resize.height, resize.width, 3):
            return photo
        photo = Image.fromarray(photo)
    try:
        return decode_image(photo, resize)
    except RejectedPhotoError as error:
        raise PhotoError(
            f"{source[0]!r} must be a complete JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or PPM. "
            f"Received: {error}. Export or copy it again, or leave it out."
        ) from None


def read_batches(
    photos: Any,
    resize: Resize,
    batch_size: int,
    *,
    broken: str,
    report: Progress,
) -> Iterator[tuple[list[str], npt.NDArray[np.uint8]]]:
    """Read photos batch by batch.

    Args:
        photos: as for `resolve_photos`.
        resize: how they become images.
        batch_size: photos per batch.
        broken: "raise" raises an error for the first photo that cannot be read; "skip" leaves such
            photos out, with a logged warning.
        report: called with ("predicting", photos done, total) after each batch was used.

    Yields:
        The names of the photos, and their images (b, height, width, 3) uint8.

    Raises:
        ArgumentError: if `photos` or `broken` is something else.
        PathMissingError: if a path does not exist.
        PhotoError: if a photo cannot be read or decoded.
        NoPhotosError: if there is no photo.
    """
    check_broken(broken)
    sources = resolve_photos(photos)
    total = len(sources) if isinstance(sources, list) else 0
    remaining = iter(sources)
    n_done = 0
    while batch := list(itertools.islice(remaining, batch_size)):
        n_done += len(batch)
        names, images = [], []
        for (name, _), image in zip(batch, _read_images(batch, resize), strict=True):
            if not isinstance(image, PhotoError):
                images.append(image)
                names.append(name)
            elif broken == "raise":
                raise image
            else:
                _log.warning("%s", image)
        if images:
            yield names, np.stack(images)
        report("predicting", n_done, total)
    if not n_done:
        raise NoPhotosError(
            f"`photos` must contain at least one photo. Received: photos={photos!r:.200}."
        )


def _read_images(
    sources: list[Source], resize: Resize
) -> Iterator[npt.NDArray[np.uint8] | PhotoError]:
    """The image of each photo, or why it cannot be read; files are decoded on all cores."""

    def read(source: Source) -> npt.NDArray[np.uint8] | PhotoError:
        try:
            return read_image(source, resize)
        except PhotoError as error:
            return error

    # Pillow images load when they are first used, which two threads must not do at once.
    if len(sources) == 1 or any(isinstance(photo, Image.Image) for _, photo in sources):
        return map(read, sources)
    return map_ahead(lambda k: read(sources[k]), range(len(sources)), n_threads())


def _resolve(photo: Any, position: int) -> list[Source]:
    if isinstance(photo, bytes | bytearray | memoryview):
        return [(f"bytes {position}", bytes(photo))]
    if isinstance(photo, np.ndarray):
        return [(f"array {position}", photo)]
    if isinstance(photo, Image.Image):
        return [(f"image {position}", photo)]
    if isinstance(photo, Photo):
        return [(str(photo.path), partial(_read_photo, photo.path))]
    if hasattr(photo, "read"):
        return [_read_stream(photo, position)]
    if not isinstance(photo, str | os.PathLike):
        raise _not_a_photo_error(photo)
    path = check_path("photos", photo, advice="Pass the path of a photo or a folder.")
    if path.is_dir():
        return [
            (str(file), file.read_bytes)
            for file in sorted(path.rglob("*"))
            if file.is_file() and not _is_hidden(file.relative_to(path))
        ]
    if path.is_file():
        return [(str(photo), path.read_bytes)]
    matches: list[str] = []
    if glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # absolute ones too
    files = [name for name in matches if Path(name).is_file()]
    if not files:
        raise PathMissingError(
            "`photos` must be a photo, a folder of photos, or a pattern that matches photos. "
            f"Received: {str(photo)!r}, which does not exist. Check the path."
        )
    return [(name, Path(name).read_bytes) for name in files]


def _read_stream(file: Any, position: int) -> Source:
    """The name and content of an open file."""
    try:
        if file.seekable():
            file.seek(0)
        content = file.read()
    except (AttributeError, OSError, ValueError) as error:  # not a file, or closed
        content = error
    if not isinstance(content, bytes):
        raise ArgumentError(
            "`photos` must be open in binary mode if it is a file. Received: "
            f"{type(file).__name__}, whose read() gives {content!r:.80}. Pass open(path, 'rb')."
        )
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else f"file {position}", content


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_photo(path: Path) -> bytes:
    """The content of a photo's file, in a folder or inside a ZIP archive."""
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is None:
        return path.read_bytes()
    return read_file(archive, path.relative_to(archive).as_posix())


def _not_a_photo_error(photo: object) -> ArgumentError:
    return ArgumentError(
        "`photos` must be a path, bytes, an open file, an array (height, width, 3) uint8, a Pillow "
        "image, the result of `scan`, or a list or generator of these. "
        f"Received: {type(photo).__name__}. Convert it to one of them."
    )


def _check_array(name: str, array: npt.NDArray[Any]) -> None:
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape or array.dtype != np.uint8:
        raise ArgumentError(
            f"{name!r} must have the shape (height, width, 3) and the dtype uint8, values 0-255. "
            f"Received: shape {array.shape}, dtype {array.dtype}. Scale it and convert it with "
            ".astype('uint8')."
        )
