"""Apply what was drawn: crop, mirror and gain in one resampling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn.augment._policy import Draws
from scenelearn.errors import ArgumentError

_VALUES = np.arange(256)


def apply(images: npt.NDArray[np.uint8], draws: Draws) -> npt.NDArray[np.uint8]:
    """Vary a batch of images as drawn.

    Args:
        images: (n, height, width, 3) uint8.
        draws: from `draw`, one for each image.

    Returns:
        (n, height, width, 3) uint8, the crops at the images' own size.

    Raises:
        ArgumentError: if the shapes do not fit together, or the images are not uint8.

    Example:
        >>> still = Draws(boxes=np.array([[0, 0, 1, 1.0]]), mirrored=np.array([True]),
        ...               gains=np.ones(1))
        >>> image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
        >>> bool((apply(image, still) == image[:, :, ::-1]).all())
        True
    """
    n = len(draws.gains)
    if images.ndim != 4 or images.shape[3] != 3 or len(images) != n or images.dtype != np.uint8:
        raise ArgumentError(
            f"`images` must have the shape ({n}, height, width, 3), one image for each draw, and "
            f"the dtype uint8. Received: {images.shape}, {images.dtype}. Draw with the indices of "
            "these images."
        )
    _, height, width, _ = images.shape
    out = np.empty_like(images)
    for k, image in enumerate(images):
        left, top, right, bottom = draws.boxes[k]
        box = (left * width, top * height, right * width, bottom * height)
        seen = Image.fromarray(image)
        if box != (0, 0, width, height):
            seen = seen.resize((width, height), Image.Resampling.BILINEAR, box)
        if draws.mirrored[k]:
            seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        brighter = np.minimum(np.rint(_VALUES * draws.gains[k]), 255).astype(np.uint8)
        out[k] = brighter[np.asarray(seen)]
    return out
