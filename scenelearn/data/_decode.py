"""From a file's bytes to pixels: upright, in colour, square, uint8."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from scenelearn.data._photos import Reason
from scenelearn.errors import PhotoError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "MPO")
MAX_PIXELS = 100_000_000  # 300 MB decoded; phones of today make 50 to 108 megapixels at most

_MATTE = (255, 255, 255)  # what shows through transparent pixels


class RefusedPhoto(PhotoError):
    """A photo that cannot be used, with the reason from the closed list."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


def check_whole(content: bytes) -> None:
    """See that the bytes are a whole image of a known format, as cheaply as certainty allows.

    A JPEG, PNG or WebP that ends as its format demands is taken as whole from its header and its
    end; everything else is decoded to find out.

    Args:
        content: the file.

    Raises:
        RefusedPhoto: with the reason, if it is not a whole, known image of sensible size.
    """
    if not content:
        raise RefusedPhoto(Reason.EMPTY_FILE, "0 bytes")
    image = _open(content)
    if not _ends_as_it_should(content, image.format or ""):
        _load(image)


def to_square(content: bytes, side_px: int) -> npt.NDArray[np.uint8]:
    """Decode a photo for the network: upright by EXIF, its central square, antialiased.

    Args:
        content: the file's bytes, in one of the known formats.
        side_px: width and height of the result, in pixels.

    Returns:
        (side_px, side_px, 3) uint8, sRGB order. Transparent pixels show white.

    Raises:
        RefusedPhoto: if the bytes are not a whole, known image of sensible size.
    """
    if not content:
        raise RefusedPhoto(Reason.EMPTY_FILE, "0 bytes")
    image = _open(content)
    if image.format == "JPEG":  # decode at reduced size while that is at least what is asked
        image.draft("RGB", (side_px, side_px))
    _load(image)
    return square(ImageOps.exif_transpose(image), side_px)


def square(image: Image.Image, side_px: int) -> npt.NDArray[np.uint8]:
    """The central square of an image that is open already, resized with antialiasing.

    Args:
        image: any Pillow image.
        side_px: width and height of the result, in pixels.

    Returns:
        (side_px, side_px, 3) uint8.
    """
    colour = _in_colour(image)
    side = min(colour.size)
    left, top = (colour.width - side) / 2, (colour.height - side) / 2
    resized = colour.resize(
        (side_px, side_px), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
    )
    return np.asarray(resized, dtype=np.uint8)


def _open(content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise _unidentified(content) from None
    except Image.DecompressionBombError as error:
        raise RefusedPhoto(Reason.TOO_LARGE, str(error)) from None
    except Exception as error:  # Pillow's plugins raise many kinds on damaged headers
        raise RefusedPhoto(Reason.DAMAGED, f"{type(error).__name__}: {error}") from None
    if image.width * image.height > MAX_PIXELS:
        raise RefusedPhoto(
            Reason.TOO_LARGE, f"{image.width}×{image.height} px, at most {MAX_PIXELS:,} in all"
        )
    return image


def _unidentified(content: bytes) -> RefusedPhoto:
    """Tell a damaged header, a format that we do not read, and something else apart."""
    starts = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP"}
    for start, name in starts.items():
        if content.startswith(start):
            return RefusedPhoto(Reason.DAMAGED, f"starts as {name}, but its header is unreadable")
    if content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"mif1", b"msf1"):
        return RefusedPhoto(Reason.UNSUPPORTED, "HEIC; convert it to JPEG")
    if content.startswith((b"8BPS", b"%PDF", b"<svg")):
        return RefusedPhoto(Reason.UNSUPPORTED, "PSD, PDF or SVG; export it as JPEG")
    return RefusedPhoto(Reason.NOT_AN_IMAGE, "no known image format")


def _ends_as_it_should(content: bytes, kind: str) -> bool:
    if kind == "JPEG":
        return content.rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
    if kind == "PNG":
        return content.endswith(b"IEND\xaeB`\x82")
    if kind == "WEBP":
        return len(content) >= 8 + int.from_bytes(content[4:8], "little")
    return False


def _load(image: Image.Image) -> None:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # A global switch of Pillow's, off by default, that would fill missing parts with grey.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds on damaged data
        text = str(error)
        cut_short = any(word in text.lower() for word in ("truncated", "incomplete", "eof"))
        reason = Reason.TRUNCATED if cut_short else Reason.DAMAGED
        raise RefusedPhoto(reason, text or type(error).__name__) from None


def _in_colour(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel: scale, do not clip
        wide = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(wide / 257.0 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        matte = Image.new("RGBA", with_alpha.size, (*_MATTE, 255))
        image = Image.alpha_composite(matte, with_alpha)
    return image if image.mode == "RGB" else image.convert("RGB")
