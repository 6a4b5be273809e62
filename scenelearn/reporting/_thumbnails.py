"""Thumbnails of photos, embedded in the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup
from PIL import Image

from scenelearn.data._decode import to_square
from scenelearn.data._files import content_hash
from scenelearn.data._rejections import RejectedPhotoError

if TYPE_CHECKING:
    from scenelearn.data import Photos


class Thumbnail(NamedTuple):
    """A square image as a data URI; or a notice why the photo cannot be shown."""

    uri: Markup = Markup()
    size_px: int = 0
    notice: str = ""


def thumbnail(photos: Photos, index: int, size_px: int) -> Thumbnail:
    """The center crop of a photo, as the network sees it."""
    try:
        content = photos.read(index)
        if content_hash(content) != photos.hashes[index]:
            return Thumbnail(notice="This file has changed since the scan.")
        pixels = to_square(content, size_px)
    except FileNotFoundError:
        return Thumbnail(notice="This file no longer exists.")
    except (OSError, RejectedPhotoError):
        return Thumbnail(notice="This file can no longer be read.")
    return encode(Image.fromarray(pixels))


def encode(image: Image.Image) -> Thumbnail:
    """The image as a thumbnail."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, optimize=True)
    base = base64.b64encode(encoded.getvalue()).decode("ascii")
    return Thumbnail(Markup(f"data:image/jpeg;base64,{base}"), image.width)
