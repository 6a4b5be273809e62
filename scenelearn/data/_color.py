"""From stored pixels to small red, green and blue ones: scaled, composed, in sRGB."""

from __future__ import annotations

import functools
import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from scenelearn.data._resample import Box, resampled

REDUCING_GAP = 4  # photos are reduced to so many times the size asked for, and resampled from there
_MATTE = (255, 255, 255)  # what shows through transparent pixels
_T = Image.Transpose
_STRIP_PIXELS = 2_000_000
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's name of a space, and Pillow's


def in_color(
    image: Image.Image,
    box: Box,
    side_px: int,
    *,
    filter_: Image.Resampling,
    way: Image.Transpose | None,
) -> npt.NDArray[np.uint8]:
    """Part of an image, upright, squeezed into a square, in sRGB.

    A large image passes through here in strips, so that beside its own pixels little memory is
    needed whatever their kind.

    Args:
        image: loaded, of a kind that `check_kind` lets pass.
        box: left, top, right and bottom of the part, in pixels.
        side_px: width and height of the result, in pixels.
        filter_: of the resampling.
        way: what brings the image upright. It is turned before it is resampled, since rounding
            between rows and columns makes a difference.

    Returns:
        (side_px, side_px, 3) uint8: red, green, blue.
    """
    profile = image.info.get("icc_profile")
    alone = image.mode in ("L", "CMYK") and not image.has_transparency_data
    mode = image.mode if alone else "RGB"
    transform = _to_srgb(profile, mode) if isinstance(profile, bytes) else None
    mode = mode if transform else "RGB"
    outer = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    factor = max(1, int(min(box[2] - box[0], box[3] - box[1])) // (REDUCING_GAP * side_px))
    part = _reduced(image, outer, factor, mode)
    left, top, right, bottom = ((edge - outer[k % 2]) / factor for k, edge in enumerate(box))
    inner = (left, top, right, bottom)
    if way is not None:
        part, inner = part.transpose(way), _turned_box(inner, part.size, way)
    small = resampled(part, inner, side_px, filter_)
    if transform is None:
        return small
    of_profile = small[:, :, 0] if mode == "L" else small
    done = ImageCms.applyTransform(Image.fromarray(of_profile, mode), transform)
    assert done is not None
    return np.asarray(done)


def _turned_box(box: Box, size: tuple[int, int], way: Image.Transpose) -> Box:
    """Where a box lies once its image is turned."""
    left, top, right, bottom = box
    width, height = size
    if way in (_T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.ROTATE_90, _T.TRANSVERSE):
        left, right = width - right, width - left
    if way in (_T.FLIP_TOP_BOTTOM, _T.ROTATE_180, _T.ROTATE_270, _T.TRANSVERSE):
        top, bottom = height - bottom, height - top
    if way in (_T.TRANSPOSE, _T.ROTATE_90, _T.ROTATE_270, _T.TRANSVERSE):
        left, top, right, bottom = top, left, bottom, right
    return left, top, right, bottom


def _reduced(
    image: Image.Image, box: tuple[int, int, int, int], factor: int, mode: str
) -> Image.Image:
    """Part of an image in the given mode, averaged over squares of `factor` pixels."""
    left, top, right, bottom = box
    if image.width * image.height <= _STRIP_PIXELS:
        whole = box == (0, 0, *image.size)
        part = _converted(image if whole else image.crop(box), mode)
        return part.reduce(factor) if factor > 1 else part
    result = Image.new(
        mode, (math.ceil((right - left) / factor), math.ceil((bottom - top) / factor))
    )
    rows = max(1, _STRIP_PIXELS // ((right - left) * factor)) * factor
    for start in range(top, bottom, rows):
        strip = _converted(image.crop((left, start, right, min(start + rows, bottom))), mode)
        result.paste(strip.reduce(factor) if factor > 1 else strip, (0, (start - top) // factor))
    return result


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits a pixel: scale, do not clip
        wide = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(wide / 257.0 + 0.5, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        matte = Image.new("RGBA", with_alpha.size, (*_MATTE, 255))
        image = Image.alpha_composite(matte, with_alpha)
    return image if image.mode == mode else image.convert(mode)


@functools.lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The way from a profile's colors to sRGB; none if they are that, or the profile is no use."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = _SPACES.get(given.profile.xcolor_space.strip(), "")
        if space != mode or "srgb" in ImageCms.getProfileDescription(given).lower():
            return None
        return ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, UnicodeError):
        return None  # a damaged profile says nothing; the pixels are well
