"""Mountain: ridges with lit and shaded faces, above meadows, lakes, woods or deserts."""

from __future__ import annotations

import numpy as np

from scenelearn.samples._canvas import U, V, color, mix, smoothstep
from scenelearn.samples._picture import Picture, paint_lake, paint_sky
from scenelearn.samples._terrain import (
    Terrain,
    project_ground,
    project_terrain,
    ray_grid,
    ridge_line,
    ridges,
)
from scenelearn.samples._trees import draw_conifer, draw_tree, leaf_color, needle_color

_ROCKS = "42 40 39, 50 42 34, 30 31 34, 55 38 28, 60 58 54"
_GREENS = "28 38 16, 40 42 20, 20 30 15, 50 45 25"


def paint_mountain(picture: Picture) -> tuple[float, float]:
    """Paint a mountain scene."""
    rng = picture.rng
    horizon = rng.uniform(0.45, 0.8)
    paint_sky(picture, horizon)
    if rng.random() < 0.22:
        _paint_silhouettes(picture, horizon)
    else:
        paint_massif(picture, horizon)
    _paint_foreground(picture, horizon)
    return horizon * 0.6, rng.uniform(0.85, 1.0)


def paint_massif(picture: Picture, horizon: float) -> None:
    """Paint a mountain range over a sky; `horizon` is where level ground would meet the sky."""
    rng = picture.rng
    focal = rng.uniform(0.8, 1.8)
    x, z = ray_grid(focal, 1.0, 9.0)
    size = rng.uniform(1.8, 5.0)
    rise = smoothstep(1.0, rng.uniform(2.5, 5), z)
    height = ridges(rng, x, z, size, rng.uniform(0.25, 0.6))
    top = rng.uniform(0.9, 2.0) / focal
    terrain = project_terrain(x, z, height * rise * top, focal=focal, horizon=horizon, camera=0.25)
    snow = rng.uniform(0.0, 1.5) if picture.mood.season == "winter" else rng.uniform(0.35, 1.7)
    paint_terrain(picture, terrain, snow * top)


def paint_terrain(picture: Picture, terrain: Terrain, snow: float) -> None:
    """Paint rock, grass and, above height `snow`, snow onto a projected landscape."""
    rng, mood = picture.rng, picture.mood
    rough = picture.noise(1.1, rng.choice([0.4, 0.7, 1.0]))
    height, depth = terrain.view(terrain.height), terrain.view(terrain.z)
    steep = terrain.view(np.hypot(terrain.slope_x, terrain.slope_z))
    light = terrain.view(terrain.light(rng.uniform(0.6, 1.6) * mood.side, rng.uniform(0, 0.5)))
    light = np.clip(light * rng.uniform(0.9, 1.5) + 0.08 * rough * rng.uniform(0.4, 1.3), 0, 1.2)
    rock, green = picture.color(_ROCKS, 0.05), picture.color(_GREENS, 0.05)
    if mood.season == "autumn" and rng.random() < 0.5:
        green = leaf_color(picture)
    elif rng.random() < 0.25:
        green = rock * 1.15
    tree_line = rng.uniform(-0.1, 1.1) * max(snow, 0.3)
    albedo = mix(rock, green, smoothstep(tree_line + 0.15, tree_line - 0.15, height + 0.06 * rough))
    albedo = albedo * (1 + 0.1 * rough)
    edge = rng.uniform(0.05, 0.25)
    bare = steep * rng.uniform(0.02, 0.16)
    cover = smoothstep(snow - edge, snow + edge, height - bare + 0.1 * rough)
    albedo = mix(albedo, picture.color("88 90 95", 0.03), cover)
    shown = mood.far(mood.lit(albedo, light), np.clip((depth - 1) / 7, 0, 1))
    picture.cover(shown, terrain.visible)


def _paint_silhouettes(picture: Picture, horizon: float) -> None:
    rng, mood = picture.rng, picture.mood
    n_ridges = int(rng.integers(3, 7))
    near = picture.surface("15 20 18, 20 22 30, 30 26 22", 0.05, 0.35)
    texture = picture.noise(1.3, 0.7)
    base = horizon - rng.uniform(0.0, 0.15)
    for number in range(n_ridges):
        closeness = (number + 1) / n_ridges
        outline = base - ridge_line(rng, 0.1, rng.uniform(0.4, 1.0), rng.uniform(1.2, 1.8))
        shade = mix(mix(mood.horizon, mood.zenith, 0.25), near, closeness**1.2)
        fall = np.clip(1 + 0.1 * texture * closeness - 0.5 * (V - outline), 0.4, 1.3)
        mist = smoothstep(0.0, 0.4, V - outline) * mood.haze * (1 - closeness)
        picture.cover_below(outline, mix(shade * fall, mood.horizon, mist))
        base += rng.uniform(0.05, 0.14)


def _paint_foreground(picture: Picture, horizon: float) -> None:
    rng, mood = picture.rng, picture.mood
    kind = rng.random()
    if kind < 0.22:
        paint_lake(picture, horizon + rng.uniform(0.02, 0.16))
        return
    if kind < 0.55:
        _paint_meadow(picture, horizon + rng.uniform(0.06, 0.25))
    if kind < 0.4 or kind > 0.85:
        for _ in range(rng.integers(3, 30)):
            size, x, base = rng.uniform(0.06, 0.22), rng.uniform(0, 1), rng.uniform(0.9, 1.08)
            if rng.random() < 0.8:
                shade = mood.lit(needle_color(picture), 0.35)
                draw_conifer(picture, x, base, size, shade * 0.7, shade)
            else:
                draw_tree(picture, x, base, size)
        picture.flatten()


def _paint_meadow(picture: Picture, level: float) -> None:
    rng, mood = picture.rng, picture.mood
    edge = level + 0.05 * picture.noise_line(1.8)
    grass = color(0.85, 0.88, 0.93)
    if mood.season != "winter" or rng.random() >= 0.7:
        grass = picture.color(f"{_GREENS}, {_ROCKS}", 0.05)
    _, z, _ = project_ground(level - 0.1, 0.1, 0.05)
    blades = picture.noise(0.6, 2.0) * rng.uniform(0.05, 0.2) + 0.1 * picture.noise(1.6, 3.0)
    lit = mood.lit(grass, 0.45 + 0.25 * mood.side * (0.5 - U))
    picture.cover_below(edge, lit * (1 + blades / np.clip(z, 0.5, 2)), 2)
