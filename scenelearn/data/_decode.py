"""From a file's bytes to pixels: upright, in colour, square, uint8."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from scenelearn.data._photos import Photos, Reason, Refused, content_hash
from scenelearn.errors import PhotoError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # Pillow's names
MAX_PIXELS = 100_000_000  # 300 MB decoded; phones of today make 50 to 108 megapixels at most

_MATTE = (255, 255, 255)  # what shows through transparent pixels
# Kinds of pixels that become colour without a guess; floating-point ones, say, have no white.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
          "I", "I;16", "I;16L", "I;16B", "I;16N")  # fmt: skip
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
# How formats that we do not read begin.
_UNSUPPORTED = {
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\1\0": "ICO",
}
_ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip", b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip"}


T = TypeVar("T")


class RefusedPhoto(PhotoError):  # noqa: N818  # a PhotoError, named for what it refuses
    """A photo that cannot be used, with the reason from the closed list."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


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
    with _STRICT:
        image = _open(content)
        kind = image.format or ""
        if kind not in _MARKED_END or not _ends_as_it_should(content, kind):
            _load(image, content)


def to_square(content: bytes, side_px: int) -> npt.NDArray[np.uint8]:
    """Decode a photo for the network: upright by EXIF, its central square, antialiased.

    Args:
        content: the file's bytes, in one of the known formats.
        side_px: width and height of the result, in pixels, at least 1.

    Returns:
        (side_px, side_px, 3) uint8: red, green, blue, as the file has them (colour profiles are
        not applied). Transparent pixels show white; of an animation, the first frame.

    Raises:
        RefusedPhoto: if the bytes are not a whole, known image of sensible size.
    """
    with _STRICT:
        image = _open(content)
        _load(image, content)
        try:
            return _square(_upright(image), side_px)
        except MemoryError as error:
            raise _refusal(content, error) from None


def to_grey(content: bytes, side_px: int) -> tuple[npt.NDArray[np.uint8], int]:
    """The whole photo, upright, squeezed into a grey square; and its shorter side in pixels.

    Args:
        content: the bytes of an image file.
        side_px: width and height of the square, in pixels.

    Raises:
        RefusedPhoto: if the photo cannot be decoded.
    """
    with _STRICT:
        image = _open(content)
        shorter = min(image.size)
        image.draft("L", (2 * side_px, 2 * side_px))
        _load(image, content)
        try:
            grey = _in_colour(_upright(image)).convert("L")
            squeezed = grey.resize((side_px, side_px), Image.Resampling.BOX)
        except MemoryError as error:
            raise _refusal(content, error) from None
    return np.asarray(squeezed), shorter


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
    with _STRICT:
        _check_kind(image)
        _load(image, b"")
        return _square(_upright(image), side_px)


def _square(image: Image.Image, side_px: int) -> npt.NDArray[np.uint8]:
    colour = _in_colour(image)
    side = min(colour.size)
    left, top = (colour.width - side) / 2, (colour.height - side) / 2
    resized = colour.resize(
        (side_px, side_px), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    return np.asarray(resized, dtype=np.uint8)


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
                # With this switch of Pillow's, missing parts would be filled with grey.
                before = ImageFile.LOAD_TRUNCATED_IMAGES
                self._undo.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", before)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._undo.close()


_STRICT = _Strict()


def _open(content: bytes) -> Image.Image:
    if not content:
        raise RefusedPhoto(Reason.EMPTY_FILE, "0 bytes")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Exception as error:  # noqa: BLE001  # Pillow raises many kinds on damaged headers
        raise _refusal(content, error) from None
    _check_kind(image)
    return image


def _check_kind(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise RefusedPhoto(
            Reason.TOO_LARGE, f"{image.width}×{image.height} px, at most {MAX_PIXELS:,} in all"
        )
    if image.mode not in _MODES:
        detail = f"{image.format} with pixels of kind {image.mode!r}; save it with 8 bits a channel"
        raise RefusedPhoto(Reason.UNSUPPORTED, detail)


def _load(image: Image.Image, content: bytes) -> None:
    try:
        image.load()
    except Exception as error:  # noqa: BLE001  # Pillow raises many kinds on damaged data
        raise _refusal(content, error) from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        way = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  # damaged EXIF says nothing; the pixels are well
        return image
    return image if way is None else image.transpose(way)


def _refusal(content: bytes, error: Exception) -> RefusedPhoto:
    """Why Pillow failed: too large, cut short, damaged, of a format we do not read, or no image."""
    text = str(error) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return RefusedPhoto(Reason.TOO_LARGE, text)
    if isinstance(error, MemoryError):
        return RefusedPhoto(Reason.UNREADABLE, "not enough memory to decode it")
    kind = _begins_as(content)
    if not kind:
        return _not_ours(content)
    if isinstance(error, UnidentifiedImageError):
        text = "its header is unreadable"
    cut_short = any(word in text.lower() for word in ("truncated", "incomplete", "eof"))
    if cut_short or not _ends_as_it_should(content, kind):
        return RefusedPhoto(Reason.TRUNCATED, f"{kind}: {text}")
    return RefusedPhoto(Reason.DAMAGED, f"{kind}: {text}")


def _begins_as(content: bytes) -> str:
    """The one of `FORMATS` that the first bytes announce; empty for none."""
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return {b"\xff": "JPEG", b"\x89": "PNG", b"G": "GIF"}[content[:1]]
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content.startswith(b"BM") and content[6:10] == b"\0\0\0\0":
        return "BMP"
    return "AVIF" if content[4:8] == b"ftyp" and b"avi" in content[8:40] else ""


def _not_ours(content: bytes) -> RefusedPhoto:
    for start, name in _UNSUPPORTED.items():
        if content.startswith(start):
            return RefusedPhoto(Reason.UNSUPPORTED, f"{name}; export it as JPEG")
    for start, name in _ARCHIVES.items():
        if content.startswith(start):
            return RefusedPhoto(Reason.UNSUPPORTED, f"a {name} archive; unpack it, or scan a ZIP")
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return RefusedPhoto(Reason.UNSUPPORTED, "HEIC; convert it to JPEG")
    return RefusedPhoto(Reason.NOT_AN_IMAGE, "no known image format")


def _ends_as_it_should(content: bytes, kind: str) -> bool:
    """Whether the file reaches the end that its format marks or states; true if it has neither."""
    if kind == "JPEG":
        return content.rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
    if kind == "PNG":
        return content.endswith(b"IEND\xaeB`\x82")
    if kind == "WEBP":
        return len(content) >= 8 + int.from_bytes(content[4:8], "little")
    if kind == "GIF":
        return content.endswith(b";")
    if kind == "BMP":
        return len(content) >= int.from_bytes(content[2:6], "little")
    if kind == "TIFF":  # where its directory lies; that of a BigTIFF has another place
        return len(content) > int.from_bytes(
            content[4:8], "little" if content[:1] == b"I" else "big"
        )
    return True


def _in_colour(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel: scale, do not clip
        wide = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(wide / 257.0 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        matte = Image.new("RGBA", with_alpha.size, (*_MATTE, 255))
        image = Image.alpha_composite(matte, with_alpha)
    return image if image.mode == "RGB" else image.convert("RGB")
