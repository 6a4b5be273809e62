"""Glacier: ice tongues in valleys, ice cliffs at the water, crevassed fields, icebergs."""

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
from scenelearn.samples._clutter import add_clutter
from scenelearn.samples._mood import Mood, paint_sky, sample_mood
from scenelearn.samples._mountain import paint_lake, paint_massif, paint_terrain
from scenelearn.samples._terrain import project_ground, project_terrain, ray_grid, ridges

_ICE = [
    (0.86, 0.91, 0.96),
    (0.72, 0.82, 0.9),
    (0.8, 0.82, 0.84),
    (0.62, 0.74, 0.84),
    (0.7, 0.68, 0.66),
]
_DEEP = [(0.2, 0.5, 0.68), (0.3, 0.52, 0.62), (0.25, 0.4, 0.52), (0.4, 0.5, 0.55)]


def paint_glacier(rng: Rng) -> tuple[Array, Mood]:
    """Paint a glacier scene and return it with its mood."""
    mood = sample_mood(rng)
    horizon = float(rng.uniform(0.3, 0.55))
    canvas = paint_sky(rng, mood, horizon)
    kind = rng.random()
    if kind < 0.36:
        canvas = _paint_tongue(rng, mood, canvas)
    elif kind < 0.62:
        canvas = _paint_cliff(rng, mood, canvas, horizon)
    elif kind < 0.84:
        canvas = _paint_field(rng, mood, canvas, horizon)
    else:
        canvas = _paint_bergs(rng, mood, canvas, horizon)
    return add_clutter(rng, canvas, mood, horizon * 0.6, rng.uniform(0.7, 1.0)), mood


def _ice_colors(rng: Rng) -> tuple[Array, Array]:
    return random_color(rng, _ICE, 0.03), random_color(rng, _DEEP, 0.04)


def _paint_tongue(rng: Rng, mood: Mood, canvas: Array) -> Array:
    """Paint a river of ice that winds down a valley toward the camera."""
    focal, horizon = float(rng.uniform(0.8, 1.3)), float(rng.uniform(0.25, 0.5))
    x, z = ray_grid(focal, 0.8, 8.0)
    bend, phase, drift = rng.normal(0, 0.35), rng.uniform(0, 6), rng.normal(0, 0.12)
    path = bend * np.sin(z * rng.uniform(0.5, 1.1) + phase) + drift * z
    width = float(rng.uniform(0.35, 0.9)) * (1 + 0.12 * z)
    across = (x - path) / width
    walls = ridges(rng, x, z, float(rng.uniform(1.0, 2.5)), 0.5)
    valley = smoothstep(0.6, 3.0, np.abs(across))
    floor = 0.045 * z + 0.06 * np.maximum(1 - across**2, 0)
    rocks = floor + valley * (0.25 + walls * rng.uniform(0.7, 1.6)) - 0.03
    is_ice = np.abs(across) < 0.95
    cracks = noise(rng, 1.3, 2.0, side=128)
    rough = sample(cracks, across * 0.35 + 3, z * 0.45) * rng.uniform(0.008, 0.03)
    height = np.where(is_ice, np.maximum(floor + rough, rocks * is_ice), rocks).astype(np.float32)
    camera = float(rng.uniform(0.5, 1.0))
    terrain = project_terrain(x, z, height, focal=focal, horizon=horizon, camera=camera)
    snow = float(rng.uniform(0.0, 1.6))
    canvas = paint_terrain(rng, mood, canvas, terrain, snow)
    ice, deep = _ice_colors(rng)
    at, depth = terrain.view(across.astype(np.float32)), terrain.view(z)
    cover = smoothstep(1.0, 0.88, np.abs(at)) * terrain.visible
    arc = depth * rng.uniform(5, 11) + at**2 * rng.uniform(0.6, 2.2)
    wobble = sample(cracks, at * 0.3, depth * 0.3)
    bands = np.sin(arc * 3 + wobble * 1.8)
    crevasse = smoothstep(0.55, 0.95, bands + 0.35 * wobble) * rng.uniform(0.5, 1.0)
    streak = np.sin(at * rng.uniform(6, 16) + 0.5 * wobble)
    dirt = smoothstep(0.75, 1.0, streak + 0.2 * wobble) * rng.uniform(0, 0.8)
    albedo = mix(np.broadcast_to(ice, (3, SIDE, SIDE)), deep, crevasse)
    albedo = mix(albedo, color(0.35, 0.32, 0.3), dirt)
    light = np.clip(0.55 + 0.3 * relief(noise(rng, 1.2, 1.6), 0.4 * mood.side, 0.5), 0.05, 1.1)
    shown = mood.far(mood.lit(albedo, light), np.clip((depth - 1) / 7, 0, 1))
    return mix(canvas, shown, cover.astype(np.float32))


def _wall(rng: Rng, mood: Mood, ice: Array, deep: Array, top: Array) -> Array:
    """Paint ice seen from the front: pillars, fissures and layers; shape (3, SIDE, SIDE)."""
    bend, crack = noise(rng, 1.7, 0.5), noise(rng, 1.5, float(rng.choice([0.15, 0.3, 0.6])))
    width = rng.uniform(6, 20)
    phase = ((U + rng.uniform(0.01, 0.06) * bend) * width) % 1
    fissure = smoothstep(0.16, 0.0, np.minimum(phase, 1 - phase)) * rng.uniform(0.2, 0.9)
    fissure = np.maximum(fissure, smoothstep(0.14, 0.0, np.abs(crack)) * rng.uniform(0.3, 0.9))
    shade = 0.9 * mood.side * (0.5 - phase) * rng.uniform(0.2, 0.8)
    shade = shade + relief(crack, 0.5 * mood.side, 0.35) * rng.uniform(0.3, 0.9)
    layers = np.sin((V - 0.6 * top[None, :]) * rng.uniform(30, 90) + bend) * rng.uniform(0, 0.1)
    albedo = mix(np.broadcast_to(ice, (3, SIDE, SIDE)), deep, np.clip(fissure + 0.1 * bend, 0, 1))
    light = np.clip(0.55 + 0.6 * shade + layers - 0.3 * fissure, 0.0, 1.15)
    return mood.lit(albedo, light.astype(np.float32))


def _jagged(rng: Rng, height: float, roughness: float) -> Array:
    """Return the broken upper edge of an ice front, shape (SIDE,)."""
    coarse, fine = noise_line(rng, 1.6), noise_line(rng, 1.2)
    towers = rng.normal(0, 1, 40).astype(np.float32)
    blocks = towers[((U[0] + 0.02 * fine) * rng.uniform(8, 36)).astype(int)]
    edge: Array = height * (1 + roughness * (0.5 * coarse + 0.3 * blocks + 0.12 * fine))
    return edge


def _paint_cliff(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint the front of a glacier that ends in water."""
    if rng.random() < 0.75:
        canvas = paint_massif(rng, mood, canvas, horizon + 0.1)
    water_line = float(rng.uniform(0.55, 0.9))
    height = float(rng.uniform(0.15, 0.5))
    tilt = rng.normal(0, 0.12) * (U[0] - 0.5)
    top = water_line - _jagged(rng, height, rng.uniform(0.15, 0.5)) + tilt
    ice, deep = _ice_colors(rng)
    slope = top - float(rng.uniform(0.04, 0.2)) * (1 + 0.3 * noise_line(rng, 1.6))
    field = np.clip(1 + 0.3 * relief(noise(rng, 1.5, 2.0), 0.5 * mood.side, 0.9), 0.4, 1.4)
    upper = mood.far(mood.lit(ice, 0.5) * field, 0.5)
    canvas = mix(canvas, upper, np.clip((V - slope[None, :]) * SIDE, 0, 1))
    wall = mood.far(_wall(rng, mood, ice, deep, top), 0.15)
    canvas = mix(canvas, wall, np.clip((V - top[None, :]) * SIDE, 0, 1))
    canvas = paint_lake(rng, mood, canvas, water_line)
    return _paint_floes(rng, mood, canvas, water_line, ice, int(rng.integers(0, 40)))


def _paint_floes(
    rng: Rng, mood: Mood, canvas: Array, water_line: float, ice: Array, n_floes: int
) -> Array:
    layer = Layer()
    for y in np.sort(rng.uniform(water_line + 0.01, 1.05, n_floes)):
        near = (y - water_line) + 0.02
        x, width = rng.uniform(-0.1, 1.1), near * rng.uniform(0.1, 0.7)
        flat = width * rng.uniform(0.15, 0.5)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        outline = [(x + width * np.cos(a), y + flat * np.sin(a) * 0.6) for a in angles]
        shade = mood.lit(jitter(rng, ice, 0.05), rng.uniform(0.35, 0.7))
        layer.polygon([(px, py + flat * 0.35) for px, py in outline], shade * 0.55)
        layer.polygon(outline, shade)
    return layer.composite(canvas)


def _paint_field(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint a plain of broken ice, seen from its edge."""
    if rng.random() < 0.7:
        canvas = paint_massif(rng, mood, canvas, horizon + 0.08)
    ice, deep = _ice_colors(rng)
    level = horizon - rng.uniform(0.0, 0.06)
    x, z, _ = project_ground(level, 0.35, 0.012)
    cracks = noise(rng, 1.5, float(rng.choice([0.5, 1.0, 3.0])))
    turn = rng.uniform(-0.9, 0.9)
    along, over = x * np.cos(turn) + z * np.sin(turn), z * np.cos(turn) - x * np.sin(turn)
    scale = rng.uniform(0.12, 0.3)
    field = sample(cracks, along * scale, over * scale)
    opening = rng.uniform(0.06, 0.25)
    gap = smoothstep(opening, opening * 0.3, np.abs(field)) * smoothstep(14, 2, z)
    slope = np.clip(relief(field, 0.7 * mood.side, 1.2) * 1.4, -0.7, 0.6) * smoothstep(16, 1, z)
    grain = noise(rng, 0.8, 2.0) * 0.05
    albedo = mix(np.broadcast_to(ice, (3, SIDE, SIDE)), deep * rng.uniform(0.5, 1.0), gap)
    light = np.clip(0.6 + slope + grain, 0.02, 1.2)
    shown = mood.far(mood.lit(albedo, light), np.clip(z / 14, 0, 1))
    edge = level - 0.03 * noise_line(rng, 1.5)[None, :]
    return mix(canvas, shown, np.clip((V - edge) * SIDE, 0, 1))


def _paint_bergs(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    """Paint icebergs on still water."""
    if rng.random() < 0.6:
        canvas = paint_massif(rng, mood, canvas, horizon + 0.12)
    ice, deep = _ice_colors(rng)
    shore = horizon + rng.uniform(0.02, 0.15)
    cover = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(int(rng.integers(1, 5))):
        middle, half = rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.32)
        hump = np.clip(1 - np.abs((U[0] - middle) / half) ** rng.uniform(1.2, 4), 0, 1)
        top = shore - hump * _jagged(rng, rng.uniform(0.1, 0.3), 0.5)
        cover = np.maximum(cover, np.clip((V - top[None, :]) * SIDE, 0, 1) * (hump > 0.02))
    wall = _wall(rng, mood, ice, deep, np.zeros(SIDE, np.float32))
    canvas = mix(canvas, wall, cover)
    canvas = paint_lake(rng, mood, canvas, shore)
    return _paint_floes(rng, mood, canvas, shore, ice, int(rng.integers(0, 50)))
