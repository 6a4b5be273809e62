"""Convert decoded images to small RGB arrays: resampled, without transparency, in sRGB."""

from __future__ import annotations

import functools
import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, TiffImagePlugin

try:
    import cykooz_resizer as fast
except ImportError:  # no wheel for this machine: Pillow does the same, four times slower
    fast = None

RESAMPLER = "pillow" if fast is None else "cykooz"
"""The resampler on this machine: "cykooz", or "pillow" if there is no wheel of cykooz_resizer."""

REDUCING_GAP = 4  # photos are first reduced to this multiple of the target size, then resampled
_BACKGROUND = (255, 255, 255)  # shows through transparent pixels
_T = Image.Transpose
SWAPS_SIDES = {_T.TRANSPOSE, _T.TRANSVERSE, _T.ROTATE_90, _T.ROTATE_270}
_STRIP_PIXELS = 2_000_000
_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC color space -> Pillow's mode
_N_CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4}

Box = tuple[float, float, float, float]


def to_srgb(
    image: Image.Image,
    box: Box,
    size: tuple[int, int],
    *,
    filter_: Image.Resampling,
    transpose: Image.Transpose | None,
) -> npt.NDArray[np.uint8]:
    """Resize part of an image, upright and in sRGB.

    Large images are converted in strips, so that little memory is needed besides the image's own
    pixels, whatever their type.

    Args:
        image: loaded, in a mode that `check_mode` accepts.
        box: left, top, right and bottom of the part, in pixels of the image as it is stored.
        size: height and width of the result, in pixels.
        filter_: BOX or BICUBIC.
        transpose: what makes the image upright. It is applied before resampling, since the
            resampler rounds between its horizontal and its vertical pass.

    Returns:
        (height, width, 3) uint8: red, green, blue.
    """
    profile = image.info.get("icc_profile")
    if image.mode == "I":
        image = _to_8_bits(image)
    convert_last = image.mode in ("L", "CMYK") and not image.has_transparency_data
    mode = image.mode if convert_last else "RGB"
    transform = _build_transform(profile, mode) if isinstance(profile, bytes) else None
    mode = mode if transform else "RGB"
    outer = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
    rows, columns = size[::-1] if transpose in SWAPS_SIDES else size
    scales = (int(box[3] - box[1]) // rows, int(box[2] - box[0]) // columns)
    factor = max(1, min(scales) // REDUCING_GAP)
    part = _crop_and_reduce(image, outer, factor, mode)
    left, top, right, bottom = ((edge - outer[k % 2]) / factor for k, edge in enumerate(box))
    inner = (left, top, right, bottom)
    if transpose is not None:
        inner = _transpose_box(inner, part.size, transpose)
        part = part.transpose(transpose)
    small = resample(part, inner, size, filter_)
    if transform is None:
        return small
    pixels = small[:, :, 0] if mode == "L" else small
    result = ImageCms.applyTransform(Image.fromarray(pixels, mode), transform)
    assert result is not None
    return np.asarray(result)


def _transpose_box(box: Box, size: tuple[int, int], transpose: Image.Transpose) -> Box:
    """The box in the transposed image; `size` is that of the image before."""
    left, top, right, bottom = box
    width, height = size
    if transpose in (_T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.ROTATE_90, _T.TRANSVERSE):
        left, right = width - right, width - left
    if transpose in (_T.FLIP_TOP_BOTTOM, _T.ROTATE_180, _T.ROTATE_270, _T.TRANSVERSE):
        top, bottom = height - bottom, height - top
    if transpose in SWAPS_SIDES:
        left, top, right, bottom = top, left, bottom, right
    return left, top, right, bottom


def _crop_and_reduce(
    image: Image.Image, box: tuple[int, int, int, int], factor: int, mode: str
) -> Image.Image:
    """Part of an image in the given mode, averaged over squares of `factor` pixels."""
    left, top, right, bottom = box
    if image.width * image.height <= _STRIP_PIXELS:
        is_whole = box == (0, 0, *image.size)
        part = _convert_mode(image if is_whole else image.crop(box), mode)
        return part.reduce(factor) if factor > 1 else part
    result = Image.new(
        mode, (math.ceil((right - left) / factor), math.ceil((bottom - top) / factor))
    )
    rows = max(1, _STRIP_PIXELS // ((right - left) * factor)) * factor
    for start in range(top, bottom, rows):
        strip = _convert_mode(image.crop((left, start, right, min(start + rows, bottom))), mode)
        result.paste(strip.reduce(factor) if factor > 1 else strip, (0, (start - top) // factor))
    return result


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 32-bit integers to 8 bits, by as many bits as the largest of them needs.

    The range of the type would not do: most files use a small part of it. A PGM file with 16 bits
    per pixel, which Pillow reads as 32-bit integers, has the range of 16.
    """
    low, high = (int(value) for value in image.getextrema())  # type: ignore[arg-type]
    unsigned = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(339) != (2,)
    if unsigned and low < 0:  # Pillow reads them as if they were signed
        low, high = 0, 2**32 - 1
    low = min(low, 0)
    n_bits = 16 if image.format == "PPM" else max(8, (high - low).bit_length())
    result = Image.new("L", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        wide = (np.asarray(strip, np.float64) - low) % 2**32
        result.paste(
            Image.fromarray((wide * (255 / (2**n_bits - 1)) + 0.5).astype(np.uint8)), (0, top)
        )
    return result


def _convert_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):  # scale, do not clip
        wide = np.asarray(image, dtype=np.float64)
        gray = np.clip(wide / 257.0 + 0.5, 0, 255).astype(np.uint8)
        gray[wide == image.info.get("transparency", -1)] = _BACKGROUND[0]
        image = Image.fromarray(gray)
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        background = Image.new("RGBA", with_alpha.size, (*_BACKGROUND, 255))
        image = Image.alpha_composite(background, with_alpha)
    return image if image.mode == mode else image.convert(mode)


@functools.lru_cache(maxsize=64)
def _build_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a color profile to sRGB; None for sRGB itself and unusable profiles."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = _MODE_OF_SPACE.get(source.profile.xcolor_space.strip(), "")
        if space != mode or "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, UnicodeError):
        return None  # a damaged profile is ignored; the pixels are intact


def resample(
    image: Image.Image, box: Box, size: tuple[int, int], filter_: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Resize part of an image, antialiased.

    Cykooz's resizer computes the same as Pillow's, with vector instructions and other intermediate
    rounding: pixels differ by a quarter of a level on average, and by more only at hard edges.
    Averages (BOX) are always Pillow's.

    Args:
        image: in mode "L", "RGB" or "CMYK".
        box: left, top, right and bottom of the part, in pixels.
        size: height and width of the result, in pixels.
        filter_: BOX or BICUBIC.

    Returns:
        (height, width, n_channels) uint8.
    """
    n_channels, (height, width), (left, top, right, bottom) = _N_CHANNELS[image.mode], size, box
    if filter_ is not Image.Resampling.BICUBIC:
        pixels = image.resize((width, height), filter_, box).tobytes()
    elif fast is None:  # in one call, Pillow would choose which pass comes first by the sizes
        across = image.resize((width, image.height), filter_, (left, 0, right, image.height))
        pixels = across.resize((width, height), filter_, (0, top, width, bottom)).tobytes()
    else:
        pixels = _resample_bicubic(image, box, size)
    return np.frombuffer(pixels, np.uint8).reshape(*size, n_channels)


def _resample_bicubic(image: Image.Image, box: Box, size: tuple[int, int]) -> bytes:
    types = {1: fast.PixelType.U8, 3: fast.PixelType.U8x3, 4: fast.PixelType.U8x4}
    pixel_type = types[_N_CHANNELS[image.mode]]
    left, top, right, bottom = box
    options = fast.ResizeOptions(
        fast.ResizeAlg.convolution(fast.FilterType.catmull_rom),  # Pillow's, with a = -1/2
        use_alpha=False,
        crop_box=fast.CropBox(left, top, right - left, bottom - top),
    )
    source = fast.ImageData(image.width, image.height, pixel_type, image.tobytes())
    result = fast.ImageData(size[1], size[0], pixel_type)
    fast.Resizer().resize(source, result, options)
    pixels: bytes = result.get_buffer()
    return pixels
