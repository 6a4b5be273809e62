"""The map of test photos: similar photos are close, none is hidden, mistakes are marked."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenelearn.reporting import _feature_map, report
from tests.helpers.results import Page, make_fit, with_errors


def test_tsne_keeps_groups_together() -> None:
    random = np.random.default_rng(0)
    centers = np.repeat(3 * random.normal(size=(4, 20)), 15, axis=0)
    x = centers + random.normal(size=(60, 20))
    y = _feature_map.tsne(x)
    distances = ((y[:, None] - y) ** 2).sum(axis=-1) + np.diag([np.inf] * 60)
    nearest = distances.argmin(axis=1)
    assert y.shape == (60, 2)
    assert ((nearest // 15) == (np.arange(60) // 15)).all()
    np.testing.assert_array_equal(y, _feature_map.tsne(x))


@pytest.mark.parametrize("x", [np.zeros((30, 4)), np.eye(30), np.ones((30, 1)) * 1e-30])
def test_tsne_of_degenerate_features_is_finite(x: np.ndarray) -> None:
    assert np.isfinite(_feature_map.tsne(x)).all()


def test_affinities_have_the_perplexity() -> None:
    x = np.random.default_rng(1).normal(size=(100, 3))
    p = _feature_map._affinities(((x[:, None] - x) ** 2).sum(axis=-1))
    assert p.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(p, p.T)


def test_each_photo_has_its_own_cell() -> None:
    points = np.random.default_rng(2).normal(size=(24, 2))
    cells = _feature_map.snap_to_grid(points, 6, 4)
    assert len({tuple(cell) for cell in cells.tolist()}) == 24
    corners = np.array([[0, 0], [5, 0], [0, 3], [5, 3], [2, 1]], float)
    np.testing.assert_array_equal(_feature_map.snap_to_grid(corners, 6, 4), corners)


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
