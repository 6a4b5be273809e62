"""Properties of photos by which `evaluate` searches for weak slices."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn._threads import map_in_threads
from scenelearn.data import Photos
from scenelearn.data._decode import STRICT
from scenelearn.data._manifest import COLUMNS, posix_path, read_table

_MAX_VALUES = 50  # different words in a column
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts to gray


def image_statistics(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
    """Brightness, contrast and sharpness of images.

    Args:
        images: (n, height, width, 3).

    Returns:
        Each (n,): "brightness", the mean gray level in [0, 255]; "contrast", its standard
        deviation; "sharpness", the standard deviation of its Laplacian (4 neighbors), 0 for a
        uniform image.
    """
    gray = images.astype(np.float32) @ np.array(_LUMA, np.float32)
    inner = gray[:, 1:-1, 1:-1]
    edges = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
    return {
        "brightness": gray.mean(axis=(1, 2), dtype=np.float64),
        "contrast": gray.std(axis=(1, 2), dtype=np.float64),
        "sharpness": (edges - 4 * inner).std(axis=(1, 2), dtype=np.float64),
    }


def short_sides(photos: Photos, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The shorter side of photos in pixels, read from the files' headers; NaN if unknown."""

    def short_side(index: int) -> float:
        try:
            path = photos.file(index)
            source = path if path.is_file() else io.BytesIO(photos.read(index))
            with Image.open(source) as image:
                return float(min(image.size))
        except Exception:  # noqa: BLE001  # Pillow raises many kinds; the photo counts without it
            return float("nan")

    with STRICT:
        return np.array(list(map_in_threads(short_side, indices.tolist())), np.float64)


def manifest_columns(
    manifest: str | os.PathLike[str], photos: Photos
) -> dict[str, npt.NDArray[Any]]:
    """Read the columns of a manifest, for the `columns` of `Classifier.evaluate`.

    Args:
        manifest: the file that `photos` were scanned with.
        photos: from ``scan(folder, manifest)``.

    Returns:
        One array (n,) per column: numbers if all cells are numbers or empty (NaN), else strings.
        The columns path, label, split, group and hash are left out, and so are columns with the
        same value for all photos, and strings with more than 50 different values.

    Raises:
        ManifestError: if the manifest cannot be read, or has no column "path" or "label".
    """
    rows = list(read_table(Path(manifest).expanduser()))
    by_path = {posix_path(str(row["path"])): row for row in rows}
    names = [name for name in (rows[0] if rows else ()) if name and name not in COLUMNS]
    columns = {}
    for name in names:
        cells = [by_path.get(path, {}).get(name) for path in photos.paths]
        values = _parse(["" if cell is None else str(cell) for cell in cells])
        n_values = len(np.unique(values))
        if n_values > 1 and (values.dtype.kind == "f" or n_values <= _MAX_VALUES):
            columns[name] = values
    return columns


def _parse(cells: list[str]) -> npt.NDArray[Any]:
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells], np.float64)
    except ValueError:
        return np.array(cells)
