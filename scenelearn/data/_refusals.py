"""Why a file is no photo that can be used, as its bytes and Pillow's complaint tell."""

from __future__ import annotations

import io

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from scenelearn.data._photos import Reason
from scenelearn.errors import PhotoError

_SAVE = "save it with 8 bits a channel"
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
          "I", "I;16", "I;16L", "I;16B", "I;16N")  # fmt: skip
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


class RefusedPhoto(PhotoError):  # noqa: N818  # a PhotoError, named for what it refuses
    """A photo that cannot be used, with the reason from the closed list."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


def check_kind(image: Image.Image) -> None:
    """See that an image's pixels become color without a guess; floating-point ones do not, say.

    Raises:
        RefusedPhoto: if they are of another kind.
    """
    if image.mode not in _MODES:
        detail = f"{image.format} with pixels of kind {image.mode!r}; {_SAVE}"
        raise RefusedPhoto(Reason.UNSUPPORTED, detail)


def refusal(content: bytes, error: Exception) -> RefusedPhoto:
    """Why Pillow failed: too large, cut short, damaged, of a format we do not read, or no image."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return RefusedPhoto(Reason.UNREADABLE, "not enough memory to decode it")
    kind = begins_as(content)
    if not kind:
        return _not_ours(content)
    if isinstance(error, UnidentifiedImageError):
        text = "its header is unreadable"
        if kind == "TIFF" and _is_odd_tiff(content):
            return RefusedPhoto(Reason.UNSUPPORTED, f"TIFF with pixels of a rare kind; {_SAVE}")
    cut_short = any(word in text.lower() for word in ("truncated", "incomplete", "eof"))
    if cut_short or not ends_as_it_should(content, kind):
        return RefusedPhoto(Reason.TRUNCATED, f"{kind}: {text}")
    return RefusedPhoto(Reason.DAMAGED, f"{kind}: {text}")


def _is_odd_tiff(content: bytes) -> bool:
    """Whether Pillow understands a TIFF's directory, but has no such pixels: 16-bit color, say."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(content))
    except SyntaxError as error:
        return "unknown pixel mode" in str(error)
    except Exception:  # noqa: BLE001  # Pillow raises many kinds on damaged headers
        return False
    return False


def begins_as(content: bytes) -> str:
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


def ends_as_it_should(content: bytes, kind: str) -> bool:
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
