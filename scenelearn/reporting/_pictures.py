"""Small copies of photos, inside the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from scenelearn.data import RefusedPhoto, content_hash, to_square
from scenelearn.reporting._markup import text

if TYPE_CHECKING:
    from scenelearn.data import Photos


def picture(photos: Photos, index: int, alt: str, side_px: int) -> str:
    """A photo's central square, as the network sees it; words where it cannot be shown."""
    try:
        content = photos.read(index)
        if content_hash(content) != photos.hashes[index]:
            return '<div class="gone">This file has changed since the scan.</div>'
        pixels = to_square(content, side_px)
    except FileNotFoundError:
        return '<div class="gone">This file is no longer there.</div>'
    except (OSError, RefusedPhoto):
        return '<div class="gone">This file can no longer be read.</div>'
    return inline(Image.fromarray(pixels), alt)


def inline(image: Image.Image, alt: str) -> str:
    """An image as an element that holds its own pixels."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
    return f'<img src="{uri}" width="{image.width}" height="{image.height}" alt="{text(alt)}">'
