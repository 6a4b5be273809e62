"""Properties of photos that a classifier may do worse by: light, contrast, sharpness, size."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn.data import Photos

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts to grey


def looks(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
    """Brightness, contrast and sharpness of images.

    Args:
        images: (n, height, width, 3).

    Returns:
        Each (n,): "brightness", the mean grey in [0, 255]; "contrast", its standard deviation;
        "sharpness", the standard deviation of its Laplacian (4 neighbours), 0 for a flat image.
    """
    grey = images.astype(np.float32) @ np.array(_LUMA, np.float32)
    inner = grey[:, 1:-1, 1:-1]
    edges = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return {
        "brightness": grey.mean(axis=(1, 2), dtype=np.float64),
        "contrast": grey.std(axis=(1, 2), dtype=np.float64),
        "sharpness": (edges - 4 * inner).std(axis=(1, 2), dtype=np.float64),
    }


def short_sides(photos: Photos, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The shorter side of photos' files, in pixels, read from their headers; NaN if unknown."""

    def side(index: int) -> float:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of large ones, which are well here
                with Image.open(io.BytesIO(photos.read(index))) as image:
                    return float(min(image.size))
        except Exception:  # noqa: BLE001  # Pillow raises many kinds; the photo counts without it
            return float("nan")

    return np.array([side(int(index)) for index in indices], np.float64)
