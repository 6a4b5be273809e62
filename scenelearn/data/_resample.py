"""Resampling an image to a square, in the form that is fastest here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

try:
    import cykooz_resizer as fast
except ImportError:  # no wheel for this machine: Pillow does the same, four times slower
    fast = None

RESAMPLER = "pillow" if fast is None else "cykooz"
"""What resamples photos on this machine: "cykooz", or "pillow" where there is no wheel of it."""

_N_CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4}

Box = tuple[float, float, float, float]


def resampled(
    image: Image.Image, box: Box, side_px: int, filter_: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Part of an image squeezed into a square: antialiased where it shrinks.

    Cykooz's resizer does what Pillow's does with vector instructions, and rounds at other places:
    pixels differ by a quarter of a level in the mean, and by more only at hard edges. Averages
    (BOX) are always Pillow's.

    Args:
        image: of mode "L", "RGB" or "CMYK".
        box: left, top, right and bottom of the part, in pixels.
        side_px: width and height of the result, in pixels.
        filter_: BOX or BICUBIC.

    Returns:
        (side_px, side_px, n_channels) uint8.
    """
    n_channels = _N_CHANNELS[image.mode]
    if fast is None or filter_ is not Image.Resampling.BICUBIC:
        pixels = image.resize((side_px, side_px), filter_, box).tobytes()
    else:
        pixels = _bicubic(image, box, side_px)
    return np.frombuffer(pixels, np.uint8).reshape(side_px, side_px, n_channels)


def _bicubic(image: Image.Image, box: Box, side_px: int) -> bytes:
    kinds = {1: fast.PixelType.U8, 3: fast.PixelType.U8x3, 4: fast.PixelType.U8x4}
    kind = kinds[_N_CHANNELS[image.mode]]
    left, top, right, bottom = box
    options = fast.ResizeOptions(
        fast.ResizeAlg.convolution(fast.FilterType.catmull_rom),  # Pillow's, with a = -1/2
        use_alpha=False,
        crop_box=fast.CropBox(left, top, right - left, bottom - top),
    )
    source = fast.ImageData(image.width, image.height, kind, image.tobytes())
    result = fast.ImageData(side_px, side_px, kind)
    fast.Resizer().resize(source, result, options)
    pixels: bytes = result.get_buffer()
    return pixels
