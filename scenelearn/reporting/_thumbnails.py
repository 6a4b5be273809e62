"""Thumbnails of photos, embedded in the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from scenelearn.data._decode import decode_image
from scenelearn.data._files import content_hash
from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.data._resize import Resize

if TYPE_CHECKING:
    from scenelearn.data import Photos


class Thumbnail(NamedTuple):
    """An image as a data URI; or a notice why the photo cannot be shown."""

    uri: Markup = Markup()
    width: int = 0
    height: int = 0
    notice: str = ""


def thumbnail(photos: Photos, index: int, resize: Resize) -> Thumbnail:
    """A photo as the network sees it, at another size."""
    pixels = read_image(photos, index, resize)
    return Thumbnail(notice=pixels) if isinstance(pixels, str) else encode(Image.fromarray(pixels))


def read_image(photos: Photos, index: int, resize: Resize) -> npt.NDArray[np.uint8] | str:
    """The pixels of a photo, or a notice why there are none."""
    try:
        content = photos.read(index)
        if content_hash(content) != photos.hashes[index]:
            return "This file has changed since the scan."
        return decode_image(content, resize)
    except FileNotFoundError:
        return "This file no longer exists."
    except (OSError, RejectedPhotoError):
        return "This file can no longer be read."


def encode(image: Image.Image, kind: str = "jpeg") -> Thumbnail:
    """The image as a thumbnail; WebP keeps its transparency."""
    encoded = io.BytesIO()
    image.save(encoded, kind, quality=80, **({"optimize": True} if kind == "jpeg" else {}))
    base = base64.b64encode(encoded.getvalue()).decode("ascii")
    return Thumbnail(Markup(f"data:image/{kind};base64,{base}"), *image.size)
