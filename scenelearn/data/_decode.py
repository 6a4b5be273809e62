"""Decode image files to pixels: upright, RGB, square, uint8."""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from scenelearn.data._convert import REDUCING_GAP, to_srgb_square
from scenelearn.data._files import content_hash
from scenelearn.data._photos import Photos
from scenelearn.data._rejections import (
    Rejected,
    RejectedPhotoError,
    RejectionReason,
    check_mode,
    explain_failure,
    has_end,
)

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")  # Pillow's names
MAX_PIXELS = 100_000_000  # 300 MB decoded; a phone's 200-megapixel JPEG is decoded at half size
_MAX_WORK = 3_000_000_000  # pixels times scans of a progressive JPEG: seconds
_MIN_SCAN_BYTES = 10  # the header of a scan alone
_MAX_PLAIN_BYTES = 32 * 2**20  # of a PPM file that spells its numbers out: seconds
_LARGE = 16_000_000  # images with more pixels than this are decoded one at a time

_FORMATS_WITH_END = ("JPEG", "PNG", "WEBP")  # their end shows whether a file was cut short
_TRANSPOSE_OF_ORIENTATION = {  # by the EXIF tag
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = {_TRANSPOSE_OF_ORIENTATION[orientation] for orientation in (5, 6, 7, 8)}
T = TypeVar("T")


def decode_photo(photos: Photos, index: int, decoder: Callable[[bytes], T]) -> T | Rejected:
    """Apply `decoder` to a photo's file; return why not if it is missing, changed or rejected."""

    def read_and_decode() -> T:
        content = photos.read(index)
        if content_hash(content) != photos.hashes[index]:
            detail = "it has changed since the scan; scan again"
            raise RejectedPhotoError(RejectionReason.UNREADABLE, detail)
        return decoder(content)

    return reject_failures(photos.paths[index], read_and_decode, {})


def reject_failures(
    path: str, work: Callable[[], T], reasons: Mapping[int, RejectionReason]
) -> T | Rejected:
    """Do work on one photo; whatever it raises becomes a rejection, so that the others go on.

    Args:
        path: of the photo.
        work: reads or decodes it.
        reasons: of errors of the file system, by number; of others the photo is unreadable.
    """
    try:
        return work()
    except RejectedPhotoError as error:
        reason, detail = error.reason, error.detail
    except OSError as error:
        reason = reasons.get(error.errno or 0, RejectionReason.UNREADABLE)
        detail = error.strerror or str(error)
    except Exception as error:  # noqa: BLE001
        reason, detail = RejectionReason.UNREADABLE, f"{type(error).__name__}: {error}"
    return Rejected(path=path, reason=reason, detail=detail)


def check_complete(content: bytes) -> None:
    """Check that a file is a complete image in a supported format, as cheaply as possible.

    JPEG, PNG and WebP files are checked by their header and their end. All other files, and those
    without a proper end, are decoded.

    Args:
        content: the content of the file.

    Raises:
        RejectedPhotoError: if it is not a complete image of a supported format, type and size.
    """
    with STRICT, _explained(content):
        image, _ = _open(content, 1)
        kind = image.format or ""
        if kind not in _FORMATS_WITH_END or not has_end(content, kind):
            with _limit_memory(image):
                image.load()


def to_square(image: bytes | Image.Image, image_px: int) -> npt.NDArray[np.uint8]:
    """Decode a photo: upright by its EXIF data, center-cropped to a square, resized.

    A photo at least eight times as large as `image_px` is first averaged down to four times that
    size or slightly more; JPEGs do this while decoding. Compared with resampling at full size,
    pixels change by a level or two, and decoding takes a fraction of the time and memory.

    Args:
        image: the content of a file in a supported format, or a Pillow image.
        image_px: width and height of the result, in pixels, at least 1.

    Returns:
        (image_px, image_px, 3) uint8: red, green, blue in sRGB, converted from the file's color
        profile if it has one. 16 bits per channel are scaled to 8; integers of 32 bits likewise, by
        the bits that the largest of the photo needs. Transparent pixels become white. Of an
        animation or a file with several pages, the first one is used.

    Raises:
        RejectedPhotoError: if `image` is not a complete image of a supported format, pixel type
            and size.
    """
    with STRICT, _explained(image):
        if isinstance(image, bytes):
            source, _ = _open(image, REDUCING_GAP * image_px)
            with _limit_memory(source):
                return _to_square(source, image_px)
        check_mode(image)
        return _to_square(image, image_px)


def to_preview(content: bytes, max_px: int) -> Image.Image:
    """Decode a whole photo for a person to look at: upright, RGB, in its own proportions.

    Args:
        content: the content of an image file.
        max_px: of the longer side of the result, in pixels. Smaller photos keep their size.

    Raises:
        RejectedPhotoError: if the photo cannot be decoded.
    """
    with STRICT, _explained(content):
        image, _ = _open(content, 2 * max_px)
        with _limit_memory(image):
            image.load()
            longer = max(image.size)
            image_px = min(max_px, longer)
            square = _convert(image, (0, 0, *image.size), image_px, Image.Resampling.BOX)
        width, height = (max(1, round(side * image_px / longer)) for side in image.size)
        if _find_transpose(image) in _SWAPS_SIDES:
            width, height = height, width
        return Image.fromarray(square).resize((width, height), Image.Resampling.BICUBIC)


class Thumbnail(NamedTuple):
    """A photo as `audit` sees it.

    Attributes:
        pixels: (side, side, 3) uint8, the whole photo, upright, squeezed into a square.
        shorter_px: the photo's shorter side, in pixels.
        is_animated: whether the file has several images or pages, of which the first is used.
    """

    pixels: npt.NDArray[np.uint8]
    shorter_px: int
    is_animated: bool


def to_thumbnail(content: bytes, image_px: int) -> Thumbnail:
    """Decode a photo to a small square.

    Args:
        content: the content of an image file.
        image_px: width and height of the square, in pixels.

    Raises:
        RejectedPhotoError: if the photo cannot be decoded.
    """
    with STRICT, _explained(content):
        image, shorter_px = _open(content, 2 * image_px)
        with _limit_memory(image):
            image.load()
            small = _convert(image, (0, 0, *image.size), image_px, Image.Resampling.BOX)
        return Thumbnail(small, shorter_px, _is_animated(image))


def _is_animated(image: Image.Image) -> bool:
    try:  # the further images of a phone's photo (MPO) are other views of the same, or its depth
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001  # Pillow raises many types for damage behind the first image
        return False


def _to_square(image: Image.Image, image_px: int) -> npt.NDArray[np.uint8]:
    image.load()
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return _convert(image, box, image_px, Image.Resampling.BICUBIC)


def _convert(
    image: Image.Image,
    box: tuple[float, float, float, float],
    image_px: int,
    filter_: Image.Resampling,
) -> npt.NDArray[np.uint8]:
    transpose = _find_transpose(image)
    return to_srgb_square(image, box, image_px, filter_=filter_, transpose=transpose)


@contextmanager
def _explained(image: bytes | Image.Image) -> Iterator[None]:
    """Turn exceptions into `RejectedPhotoError`: Pillow raises many types for damaged files."""
    try:
        yield
    except RejectedPhotoError:
        raise
    except Exception as error:  # noqa: BLE001
        raise explain_failure(image, error) from None


class _Strict:
    """While at least one thread decodes: no warnings, no size limit but ours, nothing made up.

    These are switches of the whole process. `warnings.catch_warnings` alone, entered and left by
    several threads in turn, would leave its "ignore" behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                # If this is True, Pillow fills missing parts with gray.
                before = ImageFile.LOAD_TRUNCATED_IMAGES
                self._undo.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", before)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                # `MAX_PIXELS` is our limit; Pillow's ignores that JPEGs are decoded at lower size.
                limit = Image.MAX_IMAGE_PIXELS
                self._undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", limit)
                Image.MAX_IMAGE_PIXELS = None
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._undo.close()


STRICT = _Strict()
"""Entered by each decoding; also around many of them, so that it is switched only once."""

_LARGE_LOCK = threading.Lock()


def _open(content: bytes, min_px: int) -> tuple[Image.Image, int]:
    """Open an image, reading only its header; return it and its shorter side, in pixels.

    If the format stores smaller versions, it is one of these, with both sides at least `min_px`.
    """
    if not content:
        raise RejectedPhotoError(RejectionReason.EMPTY_FILE, "0 bytes")
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    check_mode(image)
    if image.format == "PNG":
        _scale_transparency(image, content)
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        max_scans = len(content) // _MIN_SCAN_BYTES  # counting takes time in itself
        n_scans = content.count(b"\xff\xda") if width * height * max_scans > _MAX_WORK else 1
        if width * height * n_scans > _MAX_WORK:
            detail = f"{width}×{height} px in {n_scans:,} scans would take too long to decode"
            raise RejectedPhotoError(RejectionReason.TOO_LARGE, detail)
        if min(width, height) >= 2 * min_px:
            scale = min_px / min(width, height)
            image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
    if content[:2] in (b"P1", b"P2", b"P3") and len(content) > _MAX_PLAIN_BYTES:
        detail = "PPM in plain text would take too long to decode; save it as binary PPM or PNG"
        raise RejectedPhotoError(RejectionReason.TOO_LARGE, detail)
    if image.width * image.height > MAX_PIXELS:
        detail = f"{width}×{height} px, the limit is {MAX_PIXELS:,} pixels"
        raise RejectedPhotoError(RejectionReason.TOO_LARGE, detail)
    return image, min(width, height)


def _scale_transparency(image: Image.Image, content: bytes) -> None:
    """Scale a PNG's transparent color like Pillow scales pixels of 2, 4 and 16 bits to 8."""
    color, n_bits = image.info.get("transparency"), content[24]
    if isinstance(color, tuple) and n_bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in color)
    elif isinstance(color, int) and image.mode == "L" and n_bits < 8:
        image.info["transparency"] = color * 255 // (2**n_bits - 1)


def _limit_memory(image: Image.Image) -> AbstractContextManager[object]:
    """Let large images wait for each other, so that memory holds one at a time."""
    return _LARGE_LOCK if image.width * image.height > _LARGE else nullcontext()


def _find_transpose(image: Image.Image) -> Image.Transpose | None:
    """What makes an image upright, by its EXIF data."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return _TRANSPOSE_OF_ORIENTATION.get(orientation)
    except Exception:  # noqa: BLE001  # damaged EXIF data is ignored; the pixels are intact
        return None
