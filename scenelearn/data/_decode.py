"""From a file's bytes to pixels: upright, in color, square, uint8."""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from scenelearn.data._color import REDUCING_GAP, in_color
from scenelearn.data._photos import Photos, Reason, Refused, content_hash
from scenelearn.data._refusals import RefusedPhoto, check_kind, ends_as_it_should, refusal

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # Pillow's names
MAX_PIXELS = 100_000_000  # decoded, 300 MB; a JPEG of a phone's 200 megapixels is decoded at half
_MAX_WORK = 3_000_000_000  # pixels times passes over them, of a progressive JPEG: seconds
_LEAST_PASS_BYTES = 10  # the header of a pass alone
_LARGE = 16_000_000  # from this number of pixels on, one photo at a time is decoded

_MARKED_END = ("JPEG", "PNG", "WEBP")  # formats whose end shows whether a file was cut short
_UPRIGHT = {  # what each EXIF orientation asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
T = TypeVar("T")


def of_photo(photos: Photos, index: int, decoder: Callable[[bytes], T]) -> T | Refused:
    """What `decoder` makes of a photo's file; or why not, if it is gone, changed or refused."""
    try:
        content = photos.read(index)
        if content_hash(content) != photos.hashes[index]:
            raise RefusedPhoto(Reason.UNREADABLE, "it has changed since the scan; scan again")
        return decoder(content)
    except RefusedPhoto as error:
        reason, detail = error.reason, error.detail
    except OSError as error:
        reason, detail = Reason.UNREADABLE, error.strerror or str(error)
    return Refused(path=photos.paths[index], reason=reason, detail=detail)


def check_whole(content: bytes) -> None:
    """See that the bytes are a whole image of a known format, as cheaply as certainty allows.

    A JPEG, PNG or WebP that ends as its format demands is taken as whole from its header and its
    end; everything else is decoded to find out.

    Args:
        content: the file.

    Raises:
        RefusedPhoto: with the reason, if it is not a whole, known image of sensible size.
    """
    with STRICT:
        image, _ = _open(content, 1)
        kind = image.format or ""
        if kind not in _MARKED_END or not ends_as_it_should(content, kind):
            with _room_for(image):
                _load(image, content)


def to_square(content: bytes, side_px: int) -> npt.NDArray[np.uint8]:
    """Decode a photo for the network: upright by EXIF, its central square, antialiased.

    A photo of eight times the size that is asked for, or more, is first reduced by averaging to
    four times that size or a little more; of a JPEG, that is done while decoding. Against
    resampling at full size this changes pixels by a level or two, and takes a fraction of the
    time and memory.

    Args:
        content: the file's bytes, in one of the known formats.
        side_px: width and height of the result, in pixels, at least 1.

    Returns:
        (side_px, side_px, 3) uint8: red, green, blue in sRGB, by the file's color profile if it
        has one. 16 bits a channel are scaled to 8. Transparent pixels show white; of an animation
        or a file of several pages, the first.

    Raises:
        RefusedPhoto: if the bytes are not a whole, known image of sensible size.
    """
    with STRICT:
        image, _ = _open(content, REDUCING_GAP * side_px)
        with _room_for(image):
            return _square(image, side_px, content)


def square(image: Image.Image, side_px: int) -> npt.NDArray[np.uint8]:
    """The central square of an image that is open already, upright by its EXIF, antialiased.

    Args:
        image: any Pillow image, of a file or from an array.
        side_px: width and height of the result, in pixels.

    Returns:
        (side_px, side_px, 3) uint8, as `to_square` gives for the file.

    Raises:
        RefusedPhoto: if its file is not whole, or its pixels are of a kind that we do not read.
    """
    with STRICT:
        check_kind(image)
        return _square(image, side_px, b"")


class Look(NamedTuple):
    """What an audit sees of a photo.

    Attributes:
        gray: (side, side) uint8, the whole photo, upright, squeezed into a square.
        shorter_px: the photo's shorter side, in pixels.
        animated: whether the file holds more pictures than the one that is used.
    """

    gray: npt.NDArray[np.uint8]
    shorter_px: int
    animated: bool


def to_gray(content: bytes, side_px: int) -> Look:
    """The whole photo in gray, and what else an audit needs to know.

    Args:
        content: the bytes of an image file.
        side_px: width and height of the square, in pixels.

    Raises:
        RefusedPhoto: if the photo cannot be decoded.
    """
    with STRICT:
        image, shorter = _open(content, 2 * side_px)
        with _room_for(image):
            _load(image, content)
            try:
                box, way = (0, 0, *image.size), _to_upright(image)
                small = in_color(image, box, side_px, filter_=Image.Resampling.BOX, way=way)
            except MemoryError as error:
                raise refusal(content, error) from None
        animated = _is_animated(image)
    return Look(np.asarray(Image.fromarray(small).convert("L")), shorter, animated)


def _is_animated(image: Image.Image) -> bool:
    try:  # of a phone's photo (MPO) the other pictures are views of the same, or its depth
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001  # Pillow raises many kinds on damage behind the first one
        return False


def _square(image: Image.Image, side_px: int, content: bytes) -> npt.NDArray[np.uint8]:
    _load(image, content)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    try:
        way = _to_upright(image)
        return in_color(image, box, side_px, filter_=Image.Resampling.BICUBIC, way=way)
    except MemoryError as error:
        raise refusal(content, error) from None


class _Strict:
    """While at least one thread decodes: no warnings, and no parts of photos made up.

    Both are switches of the whole process. `warnings.catch_warnings` alone, entered and left by
    several threads in turn, would leave its "ignore" behind for good.
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
                # With this switch of Pillow's, missing parts would be filled with gray.
                before = ImageFile.LOAD_TRUNCATED_IMAGES
                self._undo.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", before)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                # Ours is the limit to the size; Pillow's knows no reduced JPEGs.
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
"""Entered around each decoding; around many of them as well, it is switched once."""

_LARGE_ONES = threading.Lock()


def _open(content: bytes, least_px: int) -> tuple[Image.Image, int]:
    """The image, its header read, and the length of its shorter side, in pixels.

    It is a smaller version, both sides at least `least_px`, where the format has such versions.
    """
    if not content:
        raise RefusedPhoto(Reason.EMPTY_FILE, "0 bytes")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception as error:  # noqa: BLE001  # Pillow raises many kinds on damaged headers
        raise refusal(content, error) from None
    check_kind(image)
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        may_pass = len(content) // _LEAST_PASS_BYTES  # counting takes time in itself
        n_passes = content.count(b"\xff\xda") if width * height * may_pass > _MAX_WORK else 1
        if width * height * n_passes > _MAX_WORK:
            detail = f"{width}×{height} px in {n_passes:,} passes would take too long to decode"
            raise RefusedPhoto(Reason.TOO_LARGE, detail)
        if min(width, height) >= 2 * least_px:
            share = least_px / min(width, height)
            image.draft(None, (math.ceil(width * share), math.ceil(height * share)))
    if image.width * image.height > MAX_PIXELS:
        raise RefusedPhoto(Reason.TOO_LARGE, f"{width}×{height} px, at most {MAX_PIXELS:,} in all")
    return image, min(width, height)


def _room_for(image: Image.Image) -> AbstractContextManager[object]:
    """Large photos wait for each other: memory holds one of them, whatever the threads."""
    return _LARGE_ONES if image.width * image.height > _LARGE else nullcontext()


def _load(image: Image.Image, content: bytes) -> None:
    try:
        image.load()
    except Exception as error:  # noqa: BLE001  # Pillow raises many kinds on damaged data
        raise refusal(content, error) from None


def _to_upright(image: Image.Image) -> Image.Transpose | None:
    """What brings an image upright, by its EXIF."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # damaged EXIF says nothing; the pixels are well
        return None
