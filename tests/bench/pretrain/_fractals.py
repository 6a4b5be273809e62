"""Classes of fractals: attractors of affine maps, and Julia sets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.bench.pretrain import _fields
from tests.bench.pretrain._color import Floats, palette, ramp, sample_colors

_WALKERS, _STEPS, _KEPT = 500, 34, 16


def attractor(rng: np.random.Generator) -> Callable[[int, np.random.Generator], Floats]:
    """Create a class: attractors of two to four affine contractions, by random walks.

    References:
        H. Kataoka et al. (2020), Pre-training without natural images. ACCV.
    """
    points, last = _walk(rng)
    colors, behind = palette(rng), _fields.sample_pattern(rng)

    def image(px: int, rng: np.random.Generator) -> Floats:
        turn, size = rng.uniform(-0.6, 0.6), rng.uniform(0.30, 0.5) * px
        c, s = np.cos(turn), np.sin(turn)
        stretch = np.exp(rng.normal(0, 0.15, 2))
        sides = rng.choice([-1, 1]), 1
        view = size * np.array([[c, s], [-s, c]]) * stretch * sides
        at = points @ view.T.astype(np.float32)
        at = at + (px / 2 + rng.normal(0, 0.08, 2) * px).astype(np.float32)
        seen = ((at >= 0) & (at < px)).all(1)
        cell = at[seen].astype(np.int32)
        places = cell[:, 0] * px + cell[:, 1]
        count = np.bincount(places, minlength=px * px).astype(np.float32)
        which = np.bincount(places, last[seen], px * px).astype(np.float32)
        which = (which / np.maximum(count, 1)).reshape(px, px)
        there = np.minimum(count.reshape(px, px) / 2, 1)[..., None]
        known = sample_colors(colors, rng)
        ground = known[0] * (0.6 + 0.4 * _fields.render_pattern(px, rng, behind)[..., None])
        return there * ramp(which, known[1:]) + (1 - there) * ground

    return image


def _walk(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Sample standardized points, and the map that led to each, in [0, 1]."""
    while True:
        n = int(rng.integers(2, 5))
        turns, back = rng.uniform(0, 2 * np.pi, (2, n))
        sizes = rng.uniform(0.25, 0.92, (2, n))
        maps = np.stack([
            _rotation(a) @ np.diag(s) @ _rotation(b)
            for a, b, s in zip(turns, back, sizes.T, strict=True)
        ])  # fmt: skip
        shift = rng.uniform(-1, 1, (n, 2))
        chance = np.abs(np.linalg.det(maps)) + 0.02
        at, kept, by = rng.uniform(-1, 1, (_WALKERS, 2)), [], []
        for step in range(_STEPS):
            which = rng.choice(n, _WALKERS, p=chance / chance.sum())
            at = np.einsum("nij,nj->ni", maps[which], at) + shift[which]
            if step >= _STEPS - _KEPT:
                kept.append(at)
                by.append(which / max(1, n - 1))
        points = np.concatenate(kept)
        deviation = points.std(0)
        points = (points - points.mean(0)) / deviation.max()
        n_cells = len(np.unique((points * 8).astype(int), axis=0))
        if deviation.min() > 0.25 * deviation.max() and n_cells > 100:
            return points.astype(np.float32), np.concatenate(by).astype(np.float32)


def _rotation(angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]], np.float32)


def julia(rng: np.random.Generator) -> Callable[[int, np.random.Generator], Floats]:
    """Create a class: escape times of z² + c, with c near the border of the Mandelbrot set."""
    angle = rng.uniform(0, 2 * np.pi)
    c = (np.exp(1j * angle) / 2 - np.exp(2j * angle) / 4) * rng.uniform(1.02, 1.12)
    colors, wide = palette(rng), rng.uniform(0.8, 1.5)

    def image(px: int, rng: np.random.Generator) -> Floats:
        view = wide * np.exp(rng.normal(0, 0.15)) * np.exp(1j * rng.uniform(-0.6, 0.6))
        line = np.linspace(-1, 1, px)
        z = (view * (line[None] + 1j * line[:, None]) + rng.normal(0, 0.1)).astype(np.complex64)
        near = np.complex64(c * np.exp(1j * rng.normal(0, 0.02)))
        left = np.zeros((px, px), np.float32)
        for _ in range(18):
            z = z * z + near
            inside = (z.real**2 + z.imag**2) < 16
            left += inside
            z[~inside] = 4
        return ramp(left / 18, sample_colors(colors, rng))

    return image
