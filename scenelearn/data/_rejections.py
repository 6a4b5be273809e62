"""Rejected files: the reasons, and how they follow from a file's bytes and Pillow's error."""

from __future__ import annotations

import enum
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from scenelearn._display import printable
from scenelearn._json import dataclass_json
from scenelearn.errors import PhotoError

_ADVICE = "save it with 8 bits per channel"
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
          "I", "I;16", "I;16L", "I;16B", "I;16N")  # fmt: skip
# Signatures of image formats that are not supported, and of archives.
_UNSUPPORTED = {
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\1\0": "ICO",
}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip", b"Rar!": "RAR", b"7z\xbc\xaf": "7-Zip"}


class RejectionReason(enum.Enum):
    """Why a file is not used. Every file that `scan` finds is used or has one of these reasons."""

    EMPTY_FILE = "empty file"
    NOT_AN_IMAGE = "not an image"
    UNSUPPORTED = "unsupported image format"
    TRUNCATED = "truncated image"
    DAMAGED = "damaged image"
    TOO_LARGE = "image too large"
    UNREADABLE = "cannot be read"
    NO_CLASS_FOLDER = "not in a class folder"
    SYSTEM_FILE = "hidden or system file"
    SPECIAL_FILE = "not a regular file"
    MISSING = "listed, but missing"
    CHANGED = "changed since it was listed"
    QUARANTINED = "in quarantine"


HARMLESS = frozenset(
    {
        RejectionReason.NO_CLASS_FOLDER,
        RejectionReason.SYSTEM_FILE,
        RejectionReason.SPECIAL_FILE,
        RejectionReason.QUARANTINED,
    }
)
"""Reasons of files that are not broken photos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A file or folder that is not used.

    Attributes:
        path: relative to the scanned folder, with forward slashes.
        reason: the reason.
        detail: details in words; may be empty.
    """

    path: str
    reason: RejectionReason
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{printable(self.path)}: {self.reason.value}{detail}"

    def to_json(self) -> dict[str, str]:
        """The three fields as strings."""
        return dataclass_json(self)


def rejected_from_json(fields: Mapping[str, str]) -> Rejected:
    """The inverse of `Rejected.to_json`."""
    reason = RejectionReason(fields["reason"])
    return Rejected(path=fields["path"], reason=reason, detail=fields["detail"])


class RejectedPhotoError(PhotoError):
    """A photo that cannot be used.

    Attributes:
        reason: the reason.
        detail: details in words; may be empty.
    """

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[RejectionReason, str]]:
        return type(self), (self.reason, self.detail)


def check_mode(image: Image.Image) -> None:
    """Check that an image's pixels can be converted to RGB without guessing their range.

    Raises:
        RejectedPhotoError: if they cannot; floating-point pixels, for example.
    """
    if image.mode not in _MODES:
        detail = f"{image.format} with pixels of type {image.mode!r}; {_ADVICE}"
        raise RejectedPhotoError(RejectionReason.UNSUPPORTED, detail)


def explain_failure(content: bytes | Image.Image, error: Exception) -> RejectedPhotoError:
    """Why Pillow failed: the image is truncated, damaged, unsupported, too large, or not one."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return RejectedPhotoError(RejectionReason.UNREADABLE, "not enough memory to decode it")
    if not isinstance(content, bytes):
        return RejectedPhotoError(RejectionReason.DAMAGED, text)
    kind = detect_format(content)
    if not kind:
        return _unsupported(content)
    if isinstance(error, UnidentifiedImageError):
        text = "its header is unreadable"
        if kind == "TIFF" and _is_unsupported_tiff(content):
            detail = f"TIFF with pixels of an unsupported type; {_ADVICE}"
            return RejectedPhotoError(RejectionReason.UNSUPPORTED, detail)
    cut_short = any(word in text.lower() for word in ("truncated", "incomplete", "eof"))
    if cut_short or not has_end(content, kind):
        return RejectedPhotoError(RejectionReason.TRUNCATED, f"{kind}: {text}")
    return RejectedPhotoError(RejectionReason.DAMAGED, f"{kind}: {text}")


def _is_unsupported_tiff(content: bytes) -> bool:
    """Whether Pillow can read a TIFF's directory, but not its pixels: 16-bit color, say."""
    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(content))
    except SyntaxError as error:
        return "unknown pixel mode" in str(error)
    except Exception:  # noqa: BLE001  # Pillow raises many types for damaged headers
        return False
    return False


def detect_format(content: bytes) -> str:
    """The supported format that the first bytes announce; empty if none."""
    if content.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return {b"\xff": "JPEG", b"\x89": "PNG", b"G": "GIF"}[content[:1]]
    if content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6") and content[2:3].isspace():
        return "PPM"
    if content.startswith(b"BM") and content[6:10] == b"\0\0\0\0":
        return "BMP"
    return "AVIF" if content[4:8] == b"ftyp" and b"avi" in content[8:40] else ""


def _unsupported(content: bytes) -> RejectedPhotoError:
    for start, name in _UNSUPPORTED.items():
        if content.startswith(start):
            return RejectedPhotoError(RejectionReason.UNSUPPORTED, f"{name}; export it as JPEG")
    for start, name in _ARCHIVES.items():
        if content.startswith(start):
            detail = f"a {name} archive; unpack it, or scan a ZIP file"
            return RejectedPhotoError(RejectionReason.UNSUPPORTED, detail)
    if content.startswith(b"PAR1"):
        detail = "a Parquet file that is damaged, has no photos, or needs pyarrow to be read"
        return RejectedPhotoError(RejectionReason.UNSUPPORTED, detail)
    end = min(int.from_bytes(content[:4]), 256)  # of the box that lists the brands
    if content[4:8] == b"ftyp" and _HEIC & {content[k : k + 4] for k in range(8, end, 4)}:
        detail = "HEIC; convert it to JPEG, e.g. by Pillow with the package pillow-heif"
        return RejectedPhotoError(RejectionReason.UNSUPPORTED, detail)
    return RejectedPhotoError(RejectionReason.NOT_AN_IMAGE, "unknown format")


def has_end(content: bytes, kind: str) -> bool:
    """Whether a file reaches the end that its format marks or states; True if it has neither."""
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
    if kind == "TIFF":  # the offset of its directory; a BigTIFF has it elsewhere
        return len(content) > int.from_bytes(
            content[4:8], "little" if content[:1] == b"I" else "big"
        )
    return True
