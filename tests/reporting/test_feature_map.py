"""The map of test photos: similar photos are close, none is hidden, mistakes are marked."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.manifold import trustworthiness

from scenelearn.finetune import FitResult
from scenelearn.reporting import report
from tests.helpers.patches import place_photos
from tests.helpers.results import Page, make_fit, with_errors


def fit_of(folder: Path, features: np.ndarray) -> FitResult:
    """A fit with these features of its test photos, all misclassified: the map marks them."""
    fit = make_fit(folder / "photos", tuple(f"class {k:02d}" for k in range(len(features) // 4)))
    wrong = with_errors(fit, len(features))
    return dataclasses.replace(wrong, test_embeddings=features.astype(np.float16))


def corners_on_map(fit: FitResult, folder: Path) -> np.ndarray:
    """The corner of each test photo on the map, (n, 2) in px, in the order of the photos."""
    page = report(fit, folder).read_text(encoding="utf-8")
    rows = re.findall(r'<rect x="(\d+)" y="(\d+)"[^>]*><title>[^<]*: ([^<]*)</title>', page)
    corner_of = {html.unescape(path): (int(x), int(y)) for x, y, path in rows}
    paths = fit.splits.photos.paths
    return np.array([corner_of[paths[k]] for k in fit.test_indices])


def test_similar_photos_are_close(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centers = np.repeat(3 * random.normal(size=(4, 20)), 15, axis=0)
    fit = fit_of(tmp_path, centers + random.normal(size=(60, 20)))
    y = corners_on_map(fit, tmp_path / "r")
    groups = y.reshape(4, 15, 2).mean(axis=1)
    distances = ((y[:, None] - groups) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) == np.arange(60) // 15).mean() > 0.9  # groups may touch
    np.testing.assert_array_equal(y, corners_on_map(fit, tmp_path / "again"))


def test_neighbors_on_the_map_are_neighbors_in_feature_space(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(100, 3))
    y = corners_on_map(fit_of(tmp_path, x), tmp_path / "r")
    assert trustworthiness(x, y, n_neighbors=5) > 0.8


@pytest.mark.parametrize("x", [np.zeros((32, 4)), np.eye(32), np.ones((32, 1)) * 1e-7])
def test_degenerate_features_have_a_map(x: np.ndarray, tmp_path: Path) -> None:
    y = corners_on_map(fit_of(tmp_path, x), tmp_path / "r")
    assert len({tuple(corner) for corner in y.tolist()}) == 32


def test_each_photo_has_its_own_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fit_of(tmp_path, np.eye(32))  # 7 rows of 11 cells, of 840 // 11 = 76 px
    points = np.random.default_rng(2).normal(size=(32, 2))
    place_photos(monkeypatch, points)
    cells = corners_on_map(fit, tmp_path / "random")
    assert len({tuple(cell) for cell in cells.tolist()}) == 32
    on_grid = np.array([(x, y) for y in (0, 2, 4, 6) for x in (0, 1, 2, 4, 5, 7, 8, 10)], float)
    place_photos(monkeypatch, on_grid)
    corners = corners_on_map(fit, tmp_path / "grid")
    np.testing.assert_array_equal((corners - 1) / 76, on_grid)


def test_map_shows_photos_and_marks_mistakes(tmp_path: Path) -> None:
    names = tuple(f"class {k}" for k in range(10))
    fit = with_errors(make_fit(tmp_path / "photos", names), 3)  # 40 test photos
    page = Page(report(fit, tmp_path / "r").read_text(encoding="utf-8"))
    assert "40 test photos: the more similar" in page.text
    assert "class 0, predicted class 1: class 0/photo '0'.jpg" in page.text
    (label,) = [svg for svg in page.all("svg") if "Map of" in str(svg.get("aria-label"))]
    assert "40 test photos by the similarity of their features, 3 of them" in (
        str(label["aria-label"]).replace("\N{NO-BREAK SPACE}", " ")
    )
    (picture,) = page.all("image")
    content = base64.b64decode(str(picture["href"]).partition("base64,")[2])
    with Image.open(io.BytesIO(content)) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    n_rows = int(np.ceil(np.sqrt(2 * 40 / 1.5)))
    px = image.height // n_rows
    assert (alpha > 128).sum() == 40 * (px - 2) ** 2


def test_few_photos_have_no_map(tmp_path: Path) -> None:
    fit = make_fit(tmp_path / "photos")
    page = Page(report(fit, tmp_path / "r").read_text(encoding="utf-8"))
    assert "There are too few test photos for a map." in page.text


def test_map_without_photos_on_disk(tmp_path: Path) -> None:
    names = tuple(f"class {k}" for k in range(10))
    fit = make_fit(tmp_path / "photos", names)
    folder = dataclasses.replace(fit.splits.photos, folder=tmp_path / "gone")
    fit = dataclasses.replace(fit, splits=dataclasses.replace(fit.splits, photos=folder))
    page = Page(report(fit, tmp_path / "r").read_text(encoding="utf-8"))
    assert "Feature map" in page.text
