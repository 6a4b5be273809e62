"""Sea: open water, beaches, rocky coasts and breakers."""

from __future__ import annotations

import numpy as np

from scenelearn.samples._canvas import (
    SIDE,
    Array,
    U,
    V,
    below,
    color,
    mix,
    relief,
    sample,
    smoothstep,
)
from scenelearn.samples._clutter import draw_boat
from scenelearn.samples._mountain import paint_massif
from scenelearn.samples._picture import Picture, paint_sky
from scenelearn.samples._terrain import project_ground, ridge_line

_WATERS = "10 28 42, 12 40 42, 20 52 55, 16 30 24, 28 32 34, 34 32 24, 8 14 22"
_STONES = "36 33 30, 50 42 34, 25 27 28, 60 56 50, 30 36 22"


def paint_sea(picture: Picture) -> tuple[float, float]:
    """Paint a sea scene."""
    rng = picture.rng
    horizon = rng.uniform(0.12, 0.62)
    paint_sky(picture, horizon)
    if rng.random() < 0.4:
        _paint_coast(picture, horizon)
    _paint_water(picture, horizon)
    kind = rng.random()
    if kind < 0.32:
        _paint_beach(picture, horizon)
    elif kind < 0.55:
        _paint_rocks(picture, horizon)
    elif kind < 0.75:
        _paint_breaker(picture, horizon)
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 4)):
            y = horizon + rng.uniform(0.005, 0.12)
            draw_boat(picture, rng.uniform(0.1, 0.9), y, 0.02 + (y - horizon) * 1.3)
        picture.flatten()
    return horizon, rng.uniform(0.8, 1.0)


def _paint_coast(picture: Picture, horizon: float) -> None:
    """Paint land at the horizon: distant mountains or a headland."""
    rng, mood = picture.rng, picture.mood
    if rng.random() < 0.3:
        paint_massif(picture, horizon + 0.02)
        return
    for number in range(int(rng.integers(1, 4))):
        reach = rng.uniform(0.2, 1.0)
        side = U[0] if rng.random() < 0.5 else 1 - U[0]
        fall = np.clip((reach - side) / rng.uniform(0.05, 0.5), 0, 1)
        outline = horizon - ridge_line(rng, rng.uniform(0.02, 0.16), 0.35, 1.3) * fall
        land = picture.color(f"{_STONES}, 20 30 15", 0.05)
        bumps = relief(picture.noise(1.3, 0.7), 0.5 * mood.side, 0.3)
        shown = mood.far(mood.lit(land, np.clip(0.5 + 0.4 * bumps, 0, 1.2)), 0.9 - 0.25 * number)
        picture.cover(shown, below(outline) * (fall > 0))


def _paint_water(picture: Picture, horizon: float) -> None:
    """Paint waves in perspective, mirroring the sky, with glitter under the sun."""
    rng, mood = picture.rng, picture.mood
    x, z, sea = project_ground(horizon, rng.uniform(0.15, 0.6), 0.006)
    waves = picture.noise(rng.choice([1.1, 1.4, 1.8]), rng.choice([3.0, 6.0, 10.0]))
    size = rng.uniform(0.08, 0.35)
    shift = rng.random(2)
    swell = sample(waves, x * size + shift[0], z * size + shift[1])
    chop = sample(waves, x * size * 4.3 + shift[1], z * size * 4.3)
    calm = np.clip(1 / (1 + z * 0.15), 0.12, 1)
    strength = rng.uniform(0.08, 0.5)
    slope = (swell * 0.7 + chop * 0.5) * strength * calm
    slope += picture.noise(0.3, 14.0, lowest=8) * 0.08 * strength
    water = picture.surface(_WATERS, 0.04, 0.75)
    mirrored = mix(mood.horizon, mood.zenith, np.clip((V - horizon) * 1.5 + slope, 0, 1))
    grazing = np.clip(0.25 + 0.55 * np.exp(-(V - horizon) * 5) - slope, 0.02, 0.95)
    surface: Array = mix(water, mirrored, grazing) * (1 - 0.6 * slope)
    if mood.low_sun or rng.random() < 0.3:
        width = 0.05 + (V - horizon) * rng.uniform(0.1, 0.4)
        path = np.exp(-(((U - mood.sun_x) / np.maximum(width, 0.02)) ** 2))
        sparkle = smoothstep(0.0, 0.9, slope / strength + 0.3) * path * rng.uniform(0.4, 1.1)
        surface = surface + (mood.sun * 0.9 + 0.1) * sparkle
    if rng.random() < 0.5:
        limit = rng.uniform(1.2, 2.3)
        caps = smoothstep(limit, limit + 0.6, swell + 0.6 * chop) * rng.uniform(0.4, 0.9)
        surface = mix(surface, mood.lit(color(0.92, 0.94, 0.95), 0.55), caps)
    picture.cover(mood.far(surface, np.exp(-(V - horizon) * 14)), sea)


def _foam(picture: Picture) -> Array:
    """Return a lacy pattern of foam in [0, 1], shape (SIDE, SIDE)."""
    return smoothstep(0.55, 0.1, np.abs(picture.noise(1.2, 2.5, lowest=3)))


def _paint_beach(picture: Picture, horizon: float) -> None:
    """Paint a shore across the picture or toward the horizon."""
    rng, mood = picture.rng, picture.mood
    sand = picture.color("80 70 52, 66 56 42, 50 46 42, 88 84 76, 30 29 30", 0.04)
    camera = rng.uniform(0.25, 0.6)
    x, z, land = project_ground(horizon, camera, 0.004)
    wavy = picture.noise_line(1.7) * rng.uniform(0.02, 0.08)
    if rng.random() < 0.6:  # along the coast: the shore runs away from the camera
        side = rng.choice([-1, 1])
        shore = rng.uniform(-0.2, 0.3) + rng.uniform(-0.15, 0.3) * z + 0.3 * np.sin(z * 0.8)
        distance = (x * side - shore) / (1 + 0.6 * z)
    else:  # toward the sea: the shore runs across
        distance = (camera / rng.uniform(0.2, 0.6) - z + rng.normal(0, 0.3) * x) * 0.35 / z
    distance = (distance + wavy / (1 + z)).astype(np.float32)
    distance = np.where(land > 0, distance, -9)
    foam = _foam(picture)
    white = mood.lit(color(0.95, 0.95, 0.94), 0.55)
    for number in range(int(rng.integers(1, 5))):
        offset = -0.05 * (number + rng.uniform(0.2, 1)) * (1 + number * 0.3)
        ripple = 0.015 * picture.noise_line(1.5) + 0.01 * picture.noise_line(1.5)[:, None]
        near = (distance - offset - ripple) / 0.02
        band = np.exp(-(near**2)) + smoothstep(0, 1.5, near) * smoothstep(3.5, 1.0, near) * foam
        picture.cover(white, np.clip(band * rng.uniform(0.4, 1.0), 0, 1))
    grain = 1 + 0.06 * picture.noise(0.4) + 0.07 * picture.noise(1.6, 3.0)
    wet = smoothstep(rng.uniform(0.05, 0.2), 0.0, distance)
    ground = mix(mood.lit(sand, 0.5) * (grain * (1 - 0.42 * wet)), mood.horizon, 0.25 * wet)
    ground = mood.far(ground, np.exp(-(V - horizon) * 12))
    picture.cover(ground, np.clip(distance * SIDE / 2, 0, 1))
    picture.cover(white, np.exp(-((distance / 0.012) ** 2)) * np.clip(0.5 + foam, 0, 1))


def _paint_rocks(picture: Picture, horizon: float) -> None:
    """Paint rocks in the surf."""
    rng, mood = picture.rng, picture.mood
    stone = picture.color(_STONES, 0.05)
    rough = relief(picture.noise(1.3), 0.6 * mood.side, 0.6)
    shown = mood.lit(stone, np.clip(0.45 + 0.5 * rough, 0.02, 1.1))
    foam, white = _foam(picture), mood.lit(color(0.94, 0.95, 0.96), 0.55)
    for base in np.sort(rng.uniform(horizon + 0.08, 1.05, int(rng.integers(2, 9)))):
        near = base - horizon
        middle, half = rng.uniform(0, 1), near * rng.uniform(0.15, 0.6)
        hump = np.clip(1 - np.abs((U[0] - middle) / half) ** rng.uniform(1.5, 3), 0, 1)
        jagged = 1 + 0.25 * picture.noise_line(1.1)
        top = base - hump * jagged * near * rng.uniform(0.15, 0.6)
        foot = base + 0.012 * picture.noise_line(1.0)
        cover = below(top) * np.clip((foot - V) * SIDE, 0, 1)
        picture.cover(mood.far(shown, np.exp(-near * 8)), cover * (hump > 0))
        splash = np.exp(-(((V - base) / (0.02 + 0.05 * near)) ** 2)) * (hump > 0)
        picture.cover(white, splash * foam * rng.uniform(0.4, 1.0))


def _paint_breaker(picture: Picture, horizon: float) -> None:
    """Paint waves that curl and break toward the camera."""
    rng, mood = picture.rng, picture.mood
    foam = 0.85 + 0.22 * relief(picture.noise(1.5, 1.5), 0.4 * mood.side, 0.8)
    white = mood.lit(color(0.95, 0.96, 0.97), 0.5) * np.clip(foam, 0.4, 1.15)
    face = mood.lit(picture.jitter(picture.color(_WATERS, 0.03) * 1.15, 0.03), 0.7)
    streaks = 1 + 0.12 * picture.noise(1.0, 0.25)
    y = horizon + rng.uniform(0.05, 0.15)
    for _ in range(rng.integers(1, 4)):
        near = y - horizon
        height = near * rng.uniform(0.3, 0.8)
        middle, spread = rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.9)
        swell = np.exp(-(((U[0] - middle) / spread) ** 2))
        crest = y - height * swell * (1 + 0.04 * picture.noise_line(1.5))
        foot = y + height * 0.25 + 0.008 * picture.noise_line(1.6)
        rise = np.clip((V - crest) / np.maximum(foot - crest, 0.01), 0, 1)
        wall = face * ((1.2 - 0.5 * rise) * streaks)
        broken = 0.9 - np.abs(U[0] - middle) / spread + 0.12 * picture.noise_line(1.6)
        broken = np.clip(broken, 0, 1)
        curl = smoothstep(0.15, -0.1, rise - (0.06 + 0.9 * broken) + 0.1 * (streaks - 1))
        picture.cover(mix(wall, white, curl), below(crest) * (foot > V))
        wash = np.exp(-(((V - foot) / (0.03 + 0.1 * near)) ** 2)) * broken
        picture.cover(white, np.clip(wash * _foam(picture) * 1.3, 0, 1))
        y += rng.uniform(0.1, 0.3)
