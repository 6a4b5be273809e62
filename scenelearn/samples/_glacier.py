"""Glacier: ice tongues in valleys, ice cliffs at the water, crevassed fields, icebergs."""

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
    noise,
    relief,
    sample,
    smoothstep,
)
from scenelearn.samples._mountain import paint_massif, paint_terrain
from scenelearn.samples._picture import Picture, paint_lake, paint_sky
from scenelearn.samples._terrain import project_ground, project_terrain, ray_grid, ridges


def paint_glacier(picture: Picture) -> tuple[float, float]:
    """Paint a glacier scene."""
    rng = picture.rng
    horizon = rng.uniform(0.3, 0.55)
    paint_sky(picture, horizon)
    kind = rng.random()
    if kind < 0.36:
        _paint_tongue(picture)
    elif kind < 0.62:
        _paint_cliff(picture, horizon)
    elif kind < 0.84:
        _paint_field(picture, horizon)
    else:
        _paint_bergs(picture, horizon)
    return horizon * 0.6, rng.uniform(0.7, 1.0)


def _ice_colors(picture: Picture) -> tuple[Array, Array]:
    """Return a color of the surface and one of the depth."""
    ice = picture.color("86 91 96, 72 82 90, 80 82 84, 62 74 84, 70 68 66", 0.03)
    return ice, picture.color("20 50 68, 30 52 62, 25 40 52, 40 50 55", 0.04)


def _paint_tongue(picture: Picture) -> None:
    """Paint a river of ice that winds down a valley toward the camera."""
    rng, mood = picture.rng, picture.mood
    focal, horizon = rng.uniform(0.8, 1.3), rng.uniform(0.25, 0.5)
    x, z = ray_grid(focal, 0.8, 8.0)
    bend, phase, drift = rng.normal(0, 0.35), rng.uniform(0, 6), rng.normal(0, 0.12)
    path = bend * np.sin(z * rng.uniform(0.5, 1.1) + phase) + drift * z
    across = (x - path) / (rng.uniform(0.35, 0.9) * (1 + 0.12 * z))
    walls = ridges(rng, x, z, rng.uniform(1.0, 2.5), 0.5)
    valley = smoothstep(0.6, 3.0, np.abs(across))
    floor = 0.045 * z + 0.06 * np.maximum(1 - across**2, 0)
    rocks = floor + valley * (0.25 + walls * rng.uniform(0.7, 1.6)) - 0.03
    is_ice = np.abs(across) < 0.95
    cracks = noise(rng, 1.3, 2.0, side=128)
    rough = sample(cracks, across * 0.35 + 3, z * 0.45) * rng.uniform(0.008, 0.03)
    height = np.where(is_ice, np.maximum(floor + rough, rocks * is_ice), rocks).astype(np.float32)
    camera = rng.uniform(0.5, 1.0)
    terrain = project_terrain(x, z, height, focal=focal, horizon=horizon, camera=camera)
    paint_terrain(picture, terrain, rng.uniform(0.0, 1.6))
    ice, deep = _ice_colors(picture)
    at, depth = terrain.view(across.astype(np.float32)), terrain.view(z)
    cover = smoothstep(1.0, 0.88, np.abs(at)) * terrain.visible
    arc = depth * rng.uniform(5, 11) + at**2 * rng.uniform(0.6, 2.2)
    wobble = sample(cracks, at * 0.3, depth * 0.3)
    bands = np.sin(arc * 3 + wobble * 1.8)
    crevasse = smoothstep(0.55, 0.95, bands + 0.35 * wobble) * rng.uniform(0.5, 1.0)
    streak = np.sin(at * rng.uniform(6, 16) + 0.5 * wobble)
    dirt = smoothstep(0.75, 1.0, streak + 0.2 * wobble) * rng.uniform(0, 0.8)
    albedo = mix(mix(ice, deep, crevasse), color(0.35, 0.32, 0.3), dirt)
    bumps = relief(picture.noise(1.2, 1.6), 0.4 * mood.side, 0.5)
    light = np.clip(0.55 + 0.3 * bumps, 0.05, 1.1)
    picture.cover(mood.far(mood.lit(albedo, light), np.clip((depth - 1) / 7, 0, 1)), cover)


def _wall(picture: Picture, ice: Array, deep: Array, top: Array | float) -> Array:
    """Paint ice seen from the front: pillars, fissures and layers; shape (3, SIDE, SIDE)."""
    rng, mood = picture.rng, picture.mood
    bend, crack = picture.noise(1.7, 0.5), picture.noise(1.5, rng.choice([0.15, 0.3, 0.6]))
    width = rng.uniform(6, 20)
    phase = ((U + rng.uniform(0.01, 0.06) * bend) * width) % 1
    fissure = smoothstep(0.16, 0.0, np.minimum(phase, 1 - phase)) * rng.uniform(0.2, 0.9)
    fissure = np.maximum(fissure, smoothstep(0.14, 0.0, np.abs(crack)) * rng.uniform(0.3, 0.9))
    shade = 0.9 * mood.side * (0.5 - phase) * rng.uniform(0.2, 0.8)
    shade = shade + relief(crack, 0.5 * mood.side, 0.35) * rng.uniform(0.3, 0.9)
    layers = np.sin((V - 0.6 * top) * rng.uniform(30, 90) + bend) * rng.uniform(0, 0.1)
    albedo = mix(ice, deep, np.clip(fissure + 0.1 * bend, 0, 1))
    return mood.lit(albedo, np.clip(0.55 + 0.6 * shade + layers - 0.3 * fissure, 0.0, 1.15))


def _jagged(picture: Picture, height: float, roughness: float) -> Array:
    """Return the broken upper edge of an ice front, shape (SIDE,)."""
    rng = picture.rng
    coarse, fine = picture.noise_line(1.6), picture.noise_line(1.2)
    towers = rng.normal(0, 1, 40).astype(np.float32)
    blocks = towers[((U[0] + 0.02 * fine) * rng.uniform(8, 36)).astype(int)]
    edge: Array = height * (1 + roughness * (0.5 * coarse + 0.3 * blocks + 0.12 * fine))
    return edge


def _paint_cliff(picture: Picture, horizon: float) -> None:
    """Paint the front of a glacier that ends in water."""
    rng, mood = picture.rng, picture.mood
    if rng.random() < 0.75:
        paint_massif(picture, horizon + 0.1)
    water_line = rng.uniform(0.55, 0.9)
    height = rng.uniform(0.15, 0.5)
    tilt = rng.normal(0, 0.12) * (U[0] - 0.5)
    top = water_line - _jagged(picture, height, rng.uniform(0.15, 0.5)) + tilt
    ice, deep = _ice_colors(picture)
    slope = top - rng.uniform(0.04, 0.2) * (1 + 0.3 * picture.noise_line(1.6))
    field = np.clip(1 + 0.3 * relief(picture.noise(1.5, 2.0), 0.5 * mood.side, 0.9), 0.4, 1.4)
    picture.cover_below(slope, mood.far(mood.lit(ice, 0.5) * field, 0.5))
    picture.cover_below(top, mood.far(_wall(picture, ice, deep, top), 0.15))
    paint_lake(picture, water_line)
    _paint_floes(picture, water_line, ice, int(rng.integers(0, 40)))


def _paint_floes(picture: Picture, water_line: float, ice: Array, n_floes: int) -> None:
    rng = picture.rng
    for y in np.sort(rng.uniform(water_line + 0.01, 1.05, n_floes)):
        near = (y - water_line) + 0.02
        x, width = rng.uniform(-0.1, 1.1), near * rng.uniform(0.1, 0.7)
        flat = width * rng.uniform(0.15, 0.5)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        outline = [(x + width * np.cos(a), y + flat * np.sin(a) * 0.6) for a in angles]
        shade = picture.mood.lit(picture.jitter(ice, 0.05), rng.uniform(0.35, 0.7))
        picture.polygon([(px, py + flat * 0.35) for px, py in outline], shade * 0.55)
        picture.polygon(outline, shade)
    picture.flatten()


def _paint_field(picture: Picture, horizon: float) -> None:
    """Paint a plain of broken ice, seen from its edge."""
    rng, mood = picture.rng, picture.mood
    if rng.random() < 0.7:
        paint_massif(picture, horizon + 0.08)
    ice, deep = _ice_colors(picture)
    level = horizon - rng.uniform(0.0, 0.06)
    x, z, _ = project_ground(level, 0.35, 0.012)
    cracks = picture.noise(1.5, rng.choice([0.5, 1.0, 3.0]))
    turn = rng.uniform(-0.9, 0.9)
    along, over = x * np.cos(turn) + z * np.sin(turn), z * np.cos(turn) - x * np.sin(turn)
    scale = rng.uniform(0.12, 0.3)
    field = sample(cracks, along * scale, over * scale)
    opening = rng.uniform(0.06, 0.25)
    gap = smoothstep(opening, opening * 0.3, np.abs(field)) * smoothstep(14, 2, z)
    slope = np.clip(relief(field, 0.7 * mood.side, 1.2) * 1.4, -0.7, 0.6) * smoothstep(16, 1, z)
    light = np.clip(0.6 + slope + picture.noise(0.8, 2.0) * 0.05, 0.02, 1.2)
    albedo = mix(ice, deep * rng.uniform(0.5, 1.0), gap)
    edge = level - 0.03 * picture.noise_line(1.5)
    picture.cover_below(edge, mood.far(mood.lit(albedo, light), np.clip(z / 14, 0, 1)))


def _paint_bergs(picture: Picture, horizon: float) -> None:
    """Paint icebergs on still water."""
    rng = picture.rng
    if rng.random() < 0.6:
        paint_massif(picture, horizon + 0.12)
    ice, deep = _ice_colors(picture)
    shore = horizon + rng.uniform(0.02, 0.15)
    cover = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.integers(1, 5)):
        middle, half = rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.32)
        hump = np.clip(1 - np.abs((U[0] - middle) / half) ** rng.uniform(1.2, 4), 0, 1)
        top = shore - hump * _jagged(picture, rng.uniform(0.1, 0.3), 0.5)
        cover = np.maximum(cover, below(top) * (hump > 0.02))
    picture.cover(_wall(picture, ice, deep, 0.0), cover)
    paint_lake(picture, shore)
    _paint_floes(picture, shore, ice, int(rng.integers(0, 50)))
