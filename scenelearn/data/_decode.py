"""Decode image files to pixels: upright, RGB, of one size, uint8."""

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

from scenelearn.data._convert import REDUCING_GAP, SWAPS_SIDES, to_srgb
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
from scenelearn.data._resize import Resize, make_resize

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
        image, _ = _open(content, Resize(1, 1))
        kind = image.format or ""
        if kind not in _FORMATS_WITH_END or not has_end(content, kind):
            with _limit_memory(image):
                image.load()


def to_image(
    image: bytes | Image.Image, image_px: int | tuple[int, int], shape: str = "crop"
) -> npt.NDArray[np.uint8]:
    """Decode a photo of any size to an image of one size: upright by its EXIF data, resized.

    A photo at least eight times as large as `image_px` is first averaged down to four times that
    size or slightly more; JPEGs do this while decoding. Compared with resampling at full size,
    pixels change by a level or two, and decoding takes a fraction of the time and memory.

    Args:
        image: the content of a file in a supported format, or a Pillow image.
        image_px: the side of a square, or (height, width), in pixels, at least 1.
        shape: what happens to a photo of other proportions. "crop": its center is cropped to those
            of the image. "pad": the whole photo is put in the middle, between black bars. "squash":
            the whole photo is stretched to the image.

    Returns:
        (height, width, 3) uint8: red, green, blue in sRGB, converted from the file's color
        profile if it has one. 16 bits per channel are scaled to 8; integers of 32 bits likewise, by
        the bits that the largest of the photo needs. Transparent pixels become white. Of an
        animation or a file with several pages, the first one is used.

    Raises:
        ArgumentError: if `image_px` or `shape` is out of range.
        RejectedPhotoError: if `image` is not a complete image of a supported format, pixel type
            and size.

    Example:
        >>> to_image(Image.new("RGB", (300, 200)), (120, 90), "pad").shape
        (120, 90, 3)
    """
    return decode_image(image, make_resize(image_px, shape))


def decode_image(image: bytes | Image.Image, resize: Resize) -> npt.NDArray[np.uint8]:
    """`to_image` for other packages."""
    with STRICT, _explained(image):
        if isinstance(image, bytes):
            source, _ = _open(image, resize, REDUCING_GAP)
            with _limit_memory(source):
                return _resize(source, resize)
        check_mode(image)
        return _resize(image, resize)


def to_preview(content: bytes, max_px: int) -> Image.Image:
    """Decode a whole photo for a person to look at: upright, RGB, in its own proportions.

    Args:
        content: the content of an image file.
        max_px: of the longer side of the result, in pixels. Smaller photos keep their size.

    Raises:
        RejectedPhotoError: if the photo cannot be decoded.
    """
    with STRICT, _explained(content):
        image, _ = _open(content, Resize(max_px, max_px), 2)
        with _limit_memory(image):
            image.load()
            longer = max(image.size)
            image_px = min(max_px, longer)
            size = (image_px, image_px)
            square = _convert(image, (0, 0, *image.size), size, Image.Resampling.BOX)
        width, height = (max(1, round(side * image_px / longer)) for side in image.size)
        if _find_transpose(image) in SWAPS_SIDES:
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
        image, shorter_px = _open(content, Resize(image_px, image_px), 2)
        with _limit_memory(image):
            image.load()
            size = (image_px, image_px)
            small = _convert(image, (0, 0, *image.size), size, Image.Resampling.BOX)
        return Thumbnail(small, shorter_px, _is_animated(image))


def _is_animated(image: Image.Image) -> bool:
    try:  # the further images of a phone's photo (MPO) are other views of the same, or its depth
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001  # Pillow raises many types for damage behind the first image
        return False


def _resize(image: Image.Image, resize: Resize) -> npt.NDArray[np.uint8]:
    image.load()
    stored = resize.transposed if _find_transpose(image) in SWAPS_SIDES else resize
    rows, columns = stored.content(image.height, image.width)
    size = (rows, columns) if stored is resize else (columns, rows)
    box = stored.box(image.height, image.width)
    return resize.pad(_convert(image, box, size, Image.Resampling.BICUBIC))


def _convert(
    image: Image.Image,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    filter_: Image.Resampling,
) -> npt.NDArray[np.uint8]:
    return to_srgb(image, box, size, filter_=filter_, transpose=_find_transpose(image))


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


def _open(content: bytes, resize: Resize, gap: int = 1) -> tuple[Image.Image, int]:
    """Open an image, reading only its header; return it and its shorter side, in pixels.

    If the format stores smaller versions, it is one of these, at least `gap` times as large as the
    image that it is to become.
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
        stored = resize.transposed if _find_transpose(image) in SWAPS_SIDES else resize
        rows, columns = (gap * side for side in stored.content(height, width))
        if height >= 2 * rows and width >= 2 * columns:
            scale = max(rows / height, columns / width)
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
