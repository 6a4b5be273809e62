"""Sea: open water, beaches, rocky coasts and breakers."""

from __future__ import annotations

import numpy as np

from scenelearn.samples._canvas import (
    SIDE,
    Array,
    Layer,
    Rng,
    U,
    V,
    color,
    jitter,
    mix,
    noise,
    noise_line,
    random_color,
    relief,
    sample,
    smoothstep,
)
from scenelearn.samples._clutter import add_clutter, draw_boat
from scenelearn.samples._mood import Mood, paint_sky, sample_mood
from scenelearn.samples._mountain import paint_massif
from scenelearn.samples._terrain import project_ground, ridge_line

_WATERS = [
    (0.1, 0.28, 0.42),
    (0.12, 0.4, 0.42),
    (0.2, 0.52, 0.55),
    (0.16, 0.3, 0.24),
    (0.28, 0.32, 0.34),
    (0.34, 0.32, 0.24),
    (0.08, 0.14, 0.22),
]
_SANDS = [
    (0.8, 0.7, 0.52),
    (0.66, 0.56, 0.42),
    (0.5, 0.46, 0.42),
    (0.88, 0.84, 0.76),
    (0.3, 0.29, 0.3),
]
_STONES = [
    (0.36, 0.33, 0.3),
    (0.5, 0.42, 0.34),
    (0.25, 0.27, 0.28),
    (0.6, 0.56, 0.5),
    (0.3, 0.36, 0.22),
]


def paint_sea(rng: Rng) -> tuple[Array, Mood]:
    """Paint a sea scene and return it with its mood."""
    mood = sample_mood(rng, night=0.02)
    horizon = float(rng.uniform(0.12, 0.62))
    canvas = paint_sky(rng, mood, horizon)
    if rng.random() < 0.4:
        canvas = _paint_coast(rng, mood, canvas, horizon)
    canvas = _paint_water(rng, mood, canvas, horizon)
    kind = rng.random()
    if kind < 0.32:
        canvas = _paint_beach(rng, mood, canvas, horizon)
    elif kind < 0.55:
        canvas = _paint_rocks(rng, mood, canvas, horizon)
    elif kind < 0.75:
        canvas = _paint_breaker(rng, mood, canvas, horizon)
    if rng.random() < 0.3:
        layer = Layer()
        for _ in range(int(rng.integers(1, 4))):
            y = horizon + rng.uniform(0.005, 0.12)
            draw_boat(rng, layer, mood, rng.uniform(0.1, 0.9), y, 0.02 + (y - horizon) * 1.3)
        canvas = layer.composite(canvas)
    return add_clutter(rng, canvas, mood, horizon, rng.uniform(0.8, 1.0)), mood


def _paint_coast(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint land at the horizon: distant mountains or a headland."""
    if rng.random() < 0.3:
        return paint_massif(rng, mood, canvas, horizon + 0.02)
    for number in range(int(rng.integers(1, 4))):
        reach = rng.uniform(0.2, 1.0)
        side = U[0] if rng.random() < 0.5 else 1 - U[0]
        fall = np.clip((reach - side) / rng.uniform(0.05, 0.5), 0, 1)
        outline = horizon - ridge_line(rng, rng.uniform(0.02, 0.16), 0.35, 1.3) * fall
        land = random_color(rng, [*_STONES, (0.2, 0.3, 0.15)], 0.05)
        texture = np.clip(0.5 + 0.4 * relief(noise(rng, 1.3, 0.7), 0.5 * mood.side, 0.3), 0, 1.2)
        shown = mood.far(mood.lit(land, texture), 0.9 - 0.25 * number)
        cover = np.clip((V - outline[None, :]) * SIDE, 0, 1) * (fall > 0)
        canvas = mix(canvas, shown, cover)
    return canvas


def _paint_water(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint waves in perspective, mirroring the sky, with glitter under the sun."""
    camera = float(rng.uniform(0.15, 0.6))
    x, z, below = project_ground(horizon, camera, 0.006)
    waves = noise(rng, float(rng.choice([1.1, 1.4, 1.8])), float(rng.choice([3.0, 6.0, 10.0])))
    size = rng.uniform(0.08, 0.35)
    shift = rng.random(2)
    swell = sample(waves, x * size + shift[0], z * size + shift[1])
    chop = sample(waves, x * size * 4.3 + shift[1], z * size * 4.3)
    calm = np.clip(1 / (1 + z * 0.15), 0.12, 1)
    strength = float(rng.uniform(0.08, 0.5))
    slope = (swell * 0.7 + chop * 0.5) * strength * calm
    slope += noise(rng, 0.3, 14.0, lowest=8) * 0.08 * strength
    water = mood.lit(random_color(rng, _WATERS, 0.04), 0.75)
    mirrored = mix(mood.horizon, mood.zenith, np.clip((V - horizon) * 1.5 + slope, 0, 1))
    grazing = np.clip(0.25 + 0.55 * np.exp(-(V - horizon) * 5) - slope, 0.02, 0.95)
    surface = mix(np.broadcast_to(water, (3, SIDE, SIDE)), mirrored, grazing)
    surface = surface * (1 - 0.6 * slope)
    if mood.hour in ("golden", "dusk") or rng.random() < 0.3:
        width = 0.05 + (V - horizon) * rng.uniform(0.1, 0.4)
        path = np.exp(-(((U - mood.sun_x) / np.maximum(width, 0.02)) ** 2))
        sparkle = smoothstep(0.0, 0.9, slope / strength + 0.3) * path * rng.uniform(0.4, 1.1)
        surface = surface + (mood.sun * 0.9 + 0.1) * sparkle
    if rng.random() < 0.5:
        limit = rng.uniform(1.2, 2.3)
        caps = smoothstep(limit, limit + 0.6, swell + 0.6 * chop) * rng.uniform(0.4, 0.9)
        surface = mix(surface, mood.lit(color(0.92, 0.94, 0.95), 0.55), caps)
    shown = mood.far(surface, np.exp(-(V - horizon) * 14) + 0 * U)
    return mix(canvas, shown, below)


def _foam(rng: Rng) -> Array:
    """Return a lacy pattern of foam in [0, 1], shape (SIDE, SIDE)."""
    lace = np.abs(noise(rng, 1.2, 2.5, lowest=3))
    return smoothstep(0.55, 0.1, lace)


def _paint_beach(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint a shore across the picture or toward the horizon."""
    sand = random_color(rng, _SANDS, 0.04)
    camera = float(rng.uniform(0.25, 0.6))
    x, z, below = project_ground(horizon, camera, 0.004)
    wavy = noise_line(rng, 1.7) * rng.uniform(0.02, 0.08)
    if rng.random() < 0.6:  # along the coast: the shore runs away from the camera
        side = rng.choice([-1, 1])
        shore = rng.uniform(-0.2, 0.3) + rng.uniform(-0.15, 0.3) * z + 0.3 * np.sin(z * 0.8)
        distance = (x * side - shore) / (1 + 0.6 * z)
    else:  # toward the sea: the shore runs across
        distance = (camera / rng.uniform(0.2, 0.6) - z + rng.normal(0, 0.3) * x) * 0.35 / z
    distance = (distance + wavy[None, :] / (1 + z)).astype(np.float32)
    distance = np.where(below > 0, distance, -9)
    foam = _foam(rng)
    white = mood.lit(color(0.95, 0.95, 0.94), 0.55)
    n_lines = int(rng.integers(1, 5))
    for number in range(n_lines):
        offset = -0.05 * (number + rng.uniform(0.2, 1)) * (1 + number * 0.3)
        ripple = 0.015 * noise_line(rng, 1.5)[None, :] + 0.01 * noise_line(rng, 1.5)[:, None]
        near = (distance - offset - ripple) / 0.02
        band = np.exp(-(near**2)) + smoothstep(0, 1.5, near) * smoothstep(3.5, 1.0, near) * foam
        canvas = mix(canvas, white, np.clip(band * rng.uniform(0.4, 1.0), 0, 1))
    grain = 1 + 0.06 * noise(rng, 0.4) + 0.07 * noise(rng, 1.6, 3.0)
    wet = smoothstep(rng.uniform(0.05, 0.2), 0.0, distance)
    ground_tone = mood.lit(sand, 0.5) * (grain * (1 - 0.42 * wet))
    ground_tone = mix(ground_tone, mood.horizon, 0.25 * wet)
    ground_tone = mood.far(ground_tone, np.exp(-(V - horizon) * 12) + 0 * U)
    canvas = mix(canvas, ground_tone, np.clip(distance * SIDE / 2, 0, 1))
    lace = np.exp(-((distance / 0.012) ** 2)) * np.clip(0.5 + foam, 0, 1)
    return mix(canvas, white, lace)


def _paint_rocks(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint rocks in the surf."""
    stone = random_color(rng, _STONES, 0.05)
    rough = relief(noise(rng, 1.3), 0.6 * mood.side, 0.6)
    texture = np.clip(0.45 + 0.5 * rough, 0.02, 1.1)
    shown = mood.lit(stone, texture)
    foam, white = _foam(rng), mood.lit(color(0.94, 0.95, 0.96), 0.55)
    for base in np.sort(rng.uniform(horizon + 0.08, 1.05, int(rng.integers(2, 9)))):
        near = base - horizon
        middle, half = rng.uniform(0, 1), near * rng.uniform(0.15, 0.6)
        hump = np.clip(1 - np.abs((U[0] - middle) / half) ** rng.uniform(1.5, 3), 0, 1)
        jagged = 1 + 0.25 * noise_line(rng, 1.1)
        top = base - hump * jagged * near * rng.uniform(0.15, 0.6)
        foot = base + 0.012 * noise_line(rng, 1.0)
        cover = np.clip((V - top[None, :]) * SIDE, 0, 1) * np.clip((foot[None, :] - V) * SIDE, 0, 1)
        canvas = mix(canvas, mood.far(shown, np.exp(-near * 8)), cover * (hump > 0))
        splash = np.exp(-(((V - base) / (0.02 + 0.05 * near)) ** 2)) * (hump > 0)
        canvas = mix(canvas, white, splash * foam * rng.uniform(0.4, 1.0))
    return canvas


def _paint_breaker(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint waves that curl and break toward the camera."""
    foam = np.clip(0.85 + 0.22 * relief(noise(rng, 1.5, 1.5), 0.4 * mood.side, 0.8), 0.4, 1.15)
    white = mood.lit(color(0.95, 0.96, 0.97), 0.5) * foam
    face = mood.lit(jitter(rng, random_color(rng, _WATERS, 0.03) * 1.15, 0.03), 0.7)
    streaks = 1 + 0.12 * noise(rng, 1.0, 0.25)
    y = horizon + rng.uniform(0.05, 0.15)
    for _ in range(int(rng.integers(1, 4))):
        near = y - horizon
        height = near * rng.uniform(0.3, 0.8)
        middle, spread = rng.uniform(0.1, 0.9), rng.uniform(0.25, 0.9)
        swell = np.exp(-(((U[0] - middle) / spread) ** 2))
        crest = y - height * swell * (1 + 0.04 * noise_line(rng, 1.5))
        foot = y + height * 0.25 + 0.008 * noise_line(rng, 1.6)
        rise = np.clip((V - crest[None, :]) / np.maximum(foot - crest, 0.01)[None, :], 0, 1)
        cover = np.clip((V - crest[None, :]) * SIDE, 0, 1) * (foot[None, :] > V)
        wall = face * ((1.2 - 0.5 * rise) * streaks)
        broken = np.clip(0.9 - np.abs(U[0] - middle) / spread + 0.12 * noise_line(rng, 1.6), 0, 1)
        limit = 0.06 + 0.9 * broken[None, :]
        curl = smoothstep(0.15, -0.1, rise - limit + 0.1 * (streaks - 1))
        canvas = mix(canvas, mix(wall, white, curl), cover.astype(np.float32))
        wash = np.exp(-(((V - foot[None, :]) / (0.03 + 0.1 * near)) ** 2)) * broken[None, :]
        canvas = mix(canvas, white, np.clip(wash * _foam(rng) * 1.3, 0, 1).astype(np.float32))
        y += rng.uniform(0.1, 0.3)
    return canvas
