"""The map of test photos: t-SNE of their features, on a grid so that no thumbnail hides another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn.data._resize import Resize
from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting._thumbnails import Thumbnail, encode, read_image

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult

Array = npt.NDArray[np.float64]

MIN_PHOTOS = 30  # with fewer, neighborhoods mean nothing
_MAX_PHOTOS = 250
_CELLS_PER_PHOTO = 2  # more space shows gaps between groups, less makes thumbnails larger
_WIDTH = 840  # px
_PERPLEXITY = 20.0
_STEPS = 300


class Tile(NamedTuple):
    """A photo on the map: its classes and its corner, in px."""

    photo: analysis.PredictedPhoto
    x: int
    y: int


class FeatureMap(NamedTuple):
    """The picture of all thumbnails, and the photos on it."""

    image: Thumbnail
    cell_px: int
    height: int
    tiles: list[Tile]


def feature_map(fit: FitResult) -> FeatureMap | None:
    """Arrange test photos by the similarity of their features; None if there are too few."""
    photos = analysis.predicted_photos(fit.splits.photos, fit.test_indices, fit.test_probabilities)
    if len(photos) < MIN_PHOTOS:
        return None
    shown = [photos[k] for k in np.linspace(0, len(photos) - 1, _MAX_PHOTOS).astype(int)]
    shown = photos if len(photos) <= _MAX_PHOTOS else shown  # as many mistakes, in proportion
    row_of = {int(index): row for row, index in enumerate(fit.test_indices)}
    rows = [row_of[photo.position] for photo in shown]
    n_rows = math.ceil(math.sqrt(_CELLS_PER_PHOTO * len(shown) / 1.5))
    n_columns = math.ceil(1.5 * n_rows)
    cells = snap_to_grid(tsne(fit.test_embeddings[rows].astype(np.float64)), n_columns, n_rows)
    px = _WIDTH // n_columns
    canvas = Image.new("RGBA", (n_columns * px, n_rows * px))
    tiles, square = [], Resize(px - 2, px - 2, fit.settings.shape)
    for photo, (column, row) in zip(shown, cells.tolist(), strict=True):
        tile = Tile(photo, column * px, row * px)
        pixels = read_image(fit.splits.photos, photo.position, square)
        if not isinstance(pixels, str):
            canvas.paste(Image.fromarray(pixels), (tile.x + 1, tile.y + 1))
        tiles.append(tile)
    return FeatureMap(encode(canvas, "webp"), px, canvas.height, tiles)


def tsne(x: Array) -> Array:
    """Two-dimensional t-SNE, deterministic: it starts from the principal components.

    Args:
        x: (n, n_features), n of at most some hundreds, since time and memory grow as n².

    Returns:
        (n, 2). Photos that are close in x are close here; large distances mean little.

    References:
        L. van der Maaten and G. Hinton (2008), Visualizing Data using t-SNE. JMLR 9.
    """
    n = len(x)
    centered = x - x.mean(axis=0)
    u, scale, _ = np.linalg.svd(centered, full_matrices=False)
    y = np.zeros((n, 2))
    y[:, : u.shape[1]] = (u * scale)[:, :2]
    y *= 1e-4 / max(float(y.std()), 1e-12)
    p = _affinities(_squared_distances(x))
    rate = max(n / 48, 50.0)  # as scikit-learn
    step, gain = np.zeros_like(y), np.ones_like(y)
    for k in range(_STEPS):
        kernel = 1 / (1 + _squared_distances(y))
        np.fill_diagonal(kernel, 0)
        exaggeration = 12.0 if k < _STEPS // 4 else 1.0
        force = (exaggeration * p - kernel / kernel.sum()) * kernel
        gradient = 4 * (force.sum(axis=1)[:, None] * y - force @ y)
        same_sign = gradient * step > 0
        gain = np.maximum(np.where(same_sign, 0.8 * gain, gain + 0.2), 0.01)
        step = (0.5 if k < _STEPS // 4 else 0.8) * step - rate * gain * gradient
        y = y + step
    return np.asarray(y - y.mean(axis=0))


def _squared_distances(x: Array) -> Array:
    norms = (x * x).sum(axis=1)
    return np.asarray(np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0))


def _affinities(distances: Array) -> Array:
    """Joint probabilities of neighbors, with the bandwidths that give the perplexity."""
    n = len(distances)
    target = np.log(min(_PERPLEXITY, (n - 1) / 3))
    low, high = np.zeros(n), np.full(n, np.inf)
    precision = 1 / np.maximum(np.median(distances, axis=1), 1e-12)
    for _ in range(40):
        p = np.exp(-distances * precision[:, None])
        np.fill_diagonal(p, 0)
        p /= np.maximum(p.sum(axis=1, keepdims=True), 1e-300)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        is_wide = entropy > target
        low, high = np.where(is_wide, precision, low), np.where(is_wide, high, precision)
        precision = np.where(np.isinf(high), 2 * precision, (low + np.minimum(high, 1e300)) / 2)
    return np.asarray(np.maximum((p + p.T) / (2 * n), 1e-12))


def snap_to_grid(points: Array, columns: int, rows: int) -> npt.NDArray[np.int64]:
    """Give each point the nearest free cell of a grid that covers them, the outermost last.

    Args:
        points: (n, 2), n at most columns · rows.
        columns: cells in a row.
        rows: cells in a column.

    Returns:
        (n, 2), the column and the row of each point; no two are equal.
    """
    low, extent = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-12)
    targets = (points - low) / extent * (columns - 1, rows - 1)
    cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    free = np.ones(len(cells), bool)
    chosen = np.zeros((len(points), 2), np.int64)
    for k in np.argsort(((targets - targets.mean(axis=0)) ** 2).sum(axis=1), kind="stable"):
        distance = ((cells - targets[k]) ** 2).sum(axis=1)
        best = int(np.where(free, distance, np.inf).argmin())
        free[best] = False
        chosen[k] = cells[best]
    return chosen
