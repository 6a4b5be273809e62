"""Properties of photos that a classifier may do worse by: light, contrast, sharpness, size."""

from __future__ import annotations

import csv
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn.data import Photos

_KNOWN = {"path", "label", "hash"}  # columns of a manifest that are no properties
_MOST_GROUPS = 50
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow converts to gray


def looks(images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
    """Brightness, contrast and sharpness of images.

    Args:
        images: (n, height, width, 3).

    Returns:
        Each (n,): "brightness", the mean gray in [0, 255]; "contrast", its standard deviation;
        "sharpness", the standard deviation of its Laplacian (4 neighbors), 0 for a flat image.
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


def manifest_columns(
    manifest: str | os.PathLike[str], photos: Photos
) -> dict[str, npt.NDArray[Any]]:
    """The properties that a manifest has of its photos, for `Classifier.evaluate`.

    Args:
        manifest: the file that `photos` were scanned with.
        photos: from ``scan(folder, manifest)``.

    Returns:
        Each (n,): numbers where every cell that is filled is one, NaN where it is empty; else
        words. Left out are path, label and hash, columns that say the same of every photo, and
        words with more than 50 different values.
    """
    file = Path(manifest).expanduser()
    if file.suffix.lower() == ".parquet":
        from pyarrow import parquet

        rows = parquet.read_table(file).to_pylist()
    else:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
            rows = list(csv.DictReader(text))
    by_path = {str(row["path"]): row for row in rows}
    names = [name for name in (rows[0] if rows else ()) if name and name not in _KNOWN]
    found = {}
    for name in names:
        cells = [by_path.get(path, {}).get(name) for path in photos.paths]
        values = _typed(["" if cell is None else str(cell) for cell in cells])
        n_different = len(np.unique(values))
        if n_different > 1 and (values.dtype.kind == "f" or n_different <= _MOST_GROUPS):
            found[name] = values
    return found


def _typed(cells: list[str]) -> npt.NDArray[Any]:
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in cells], np.float64)
    except ValueError:
        return np.array(cells)
