"""Thumbnails of photos, embedded in the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from scenelearn.data._decode import to_square
from scenelearn.data._files import content_hash
from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.reporting._html import escape

if TYPE_CHECKING:
    from scenelearn.data import Photos


def thumbnail(photos: Photos, index: int, alt: str, size_px: int) -> str:
    """The center crop of a photo, as the network sees it; a notice if it cannot be shown."""
    try:
        content = photos.read(index)
        if content_hash(content) != photos.hashes[index]:
            return '<div class="gone">This file has changed since the scan.</div>'
        pixels = to_square(content, size_px)
    except FileNotFoundError:
        return '<div class="gone">This file no longer exists.</div>'
    except (OSError, RejectedPhotoError):
        return '<div class="gone">This file can no longer be read.</div>'
    return inline_image(Image.fromarray(pixels), alt)


def inline_image(image: Image.Image, alt: str) -> str:
    """An ``<img>`` element that contains the image as a data URI."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
    return f'<img src="{uri}" width="{image.width}" height="{image.height}" alt="{escape(alt)}">'
