"""Mountain: ridges with lit and shaded faces, above meadows, lakes, woods or deserts."""

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
    smoothstep,
)
from scenelearn.samples._clutter import add_clutter
from scenelearn.samples._mood import Mood, paint_sky, sample_mood
from scenelearn.samples._terrain import (
    Terrain,
    project_ground,
    project_terrain,
    ray_grid,
    ridge_line,
    ridges,
)
from scenelearn.samples._trees import draw_conifer, draw_tree, leaf_color, needle_color

_ROCKS = [
    (0.42, 0.4, 0.39),
    (0.5, 0.42, 0.34),
    (0.3, 0.31, 0.34),
    (0.55, 0.38, 0.28),
    (0.6, 0.58, 0.54),
]
_GREENS = [(0.28, 0.38, 0.16), (0.4, 0.42, 0.2), (0.2, 0.3, 0.15), (0.5, 0.45, 0.25)]


def paint_mountain(rng: Rng) -> tuple[Array, Mood]:
    """Paint a mountain scene and return it with its mood."""
    mood = sample_mood(rng, night=0.02)
    horizon = float(rng.uniform(0.45, 0.8))
    canvas = paint_sky(rng, mood, horizon)
    if rng.random() < 0.22:
        canvas = _paint_silhouettes(rng, mood, canvas, horizon)
    else:
        canvas = paint_massif(rng, mood, canvas, horizon)
    canvas = _paint_foreground(rng, mood, canvas, horizon)
    return add_clutter(rng, canvas, mood, horizon * 0.6, rng.uniform(0.85, 1.0)), mood


def paint_massif(
    rng: Rng, mood: Mood, canvas: Array, horizon: float, snow: float | None = None
) -> Array:
    """Paint a mountain range over a sky.

    Args:
        rng: Random number generator.
        mood: Light, weather and season.
        canvas: Painted sky.
        horizon: Where level ground would meet the sky.
        snow: Height of the snow line, 0 for all white, above 1.2 for none; drawn if None.

    Returns:
        The canvas with the range.
    """
    focal = float(rng.uniform(0.8, 1.8))
    x, z = ray_grid(focal, 1.0, 9.0)
    size = float(rng.uniform(1.8, 5.0))
    rise = smoothstep(1.0, float(rng.uniform(2.5, 5)), z)
    height = ridges(rng, x, z, size, float(rng.uniform(0.25, 0.6)))
    top = float(rng.uniform(0.9, 2.0)) / focal
    terrain = project_terrain(x, z, height * rise * top, focal=focal, horizon=horizon, camera=0.25)
    if snow is None:
        snow = float(rng.uniform(0.0, 1.5)) if mood.season == "winter" else rng.uniform(0.35, 1.7)
    return paint_terrain(rng, mood, canvas, terrain, snow * top)


def paint_terrain(rng: Rng, mood: Mood, canvas: Array, terrain: Terrain, snow: float) -> Array:
    """Paint rock, grass and snow onto a projected landscape."""
    rough = noise(rng, 1.1, float(rng.choice([0.4, 0.7, 1.0])))
    height, depth = terrain.view(terrain.height), terrain.view(terrain.z)
    steep = terrain.view(np.hypot(terrain.slope_x, terrain.slope_z))
    light = terrain.view(
        terrain.light(float(rng.uniform(0.6, 1.6)) * mood.side, rng.uniform(0, 0.5))
    )
    light = np.clip(light * rng.uniform(0.9, 1.5) + 0.08 * rough * rng.uniform(0.4, 1.3), 0, 1.2)
    rock, green = random_color(rng, _ROCKS, 0.05), random_color(rng, _GREENS, 0.05)
    if mood.season == "autumn" and rng.random() < 0.5:
        green = leaf_color(rng, mood)
    elif rng.random() < 0.25:
        green = rock * 1.15
    tree_line = rng.uniform(-0.1, 1.1) * max(snow, 0.3)
    albedo = mix(rock, green, smoothstep(tree_line + 0.15, tree_line - 0.15, height + 0.06 * rough))
    albedo = albedo * (1 + 0.1 * rough)
    edge = rng.uniform(0.05, 0.25)
    bare = steep * rng.uniform(0.02, 0.16)
    cover = smoothstep(snow - edge, snow + edge, height - bare + 0.1 * rough)
    albedo = mix(albedo, jitter(rng, color(0.88, 0.9, 0.95), 0.03), cover)
    shown = mood.far(mood.lit(albedo, light), np.clip((depth - 1) / 7, 0, 1))
    return mix(canvas, shown, terrain.visible.astype(np.float32))


def paint_lake(rng: Rng, mood: Mood, canvas: Array, shore: float) -> Array:
    """Replace everything below `shore` by water that mirrors what is above."""
    row = int(np.clip(shore, 0.2, 0.97) * SIDE)
    depth = np.arange(SIDE - row)
    ripple = noise(rng, 0.9, 12.0) * rng.uniform(0.0, 4.0)
    offset = ripple[: len(depth)] * (0.3 + depth[:, None] / SIDE * 2)
    source = np.clip(row - 1 - depth[:, None] + offset, 0, row - 1).astype(np.intp)
    mirror = canvas[:, source, np.arange(SIDE)]
    water = jitter(rng, color(0.2, 0.3, 0.34), 0.08) * (mood.ambient + mood.sun * 0.4)
    clarity = np.linspace(0.85, rng.uniform(0.3, 0.8), len(depth), dtype=np.float32)[:, None]
    shine = 1 + 0.04 * ripple[: len(depth)]
    painted = canvas.copy()
    painted[:, row:] = (water + (mirror - water) * clarity) * shine
    return painted


def _paint_silhouettes(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    n_ridges = int(rng.integers(3, 7))
    near = random_color(rng, [(0.15, 0.2, 0.18), (0.2, 0.22, 0.3), (0.3, 0.26, 0.22)], 0.05)
    texture = noise(rng, 1.3, 0.7)
    base = horizon - rng.uniform(0.0, 0.15)
    for number in range(n_ridges):
        closeness = (number + 1) / n_ridges
        outline = base - ridge_line(rng, 0.1, rng.uniform(0.4, 1.0), rng.uniform(1.2, 1.8))
        cover = np.clip((V - outline[None, :]) * SIDE, 0, 1)
        shade = mix(mix(mood.horizon, mood.zenith, 0.25), mood.lit(near, 0.35), closeness**1.2)
        fall = np.clip(1 + 0.1 * texture * closeness - 0.5 * (V - outline[None, :]), 0.4, 1.3)
        mist = smoothstep(0.0, 0.4, V - outline[None, :]) * mood.haze * (1 - closeness)
        canvas = mix(canvas, mix(shade * fall, mood.horizon, mist), cover)
        base += rng.uniform(0.05, 0.14)
    return canvas


def _paint_foreground(rng: Rng, mood: Mood, canvas: Array, horizon: float) -> Array:
    kind = rng.random()
    if kind < 0.22:
        return paint_lake(rng, mood, canvas, horizon + rng.uniform(0.02, 0.16))
    if kind < 0.55:
        canvas = _paint_meadow(rng, mood, canvas, horizon + rng.uniform(0.06, 0.25))
    if kind < 0.4 or kind > 0.85:
        layer = Layer()
        n_trees = int(rng.integers(3, 30))
        for _ in range(n_trees):
            size = float(rng.uniform(0.06, 0.22))
            place = float(rng.uniform(0, 1)), float(rng.uniform(0.9, 1.08))
            if rng.random() < 0.8:
                shade = mood.lit(needle_color(rng, mood), 0.35)
                draw_conifer(rng, layer, *place, size, shade * 0.7, shade)
            else:
                draw_tree(rng, layer, mood, *place, size)
        canvas = layer.composite(canvas)
    return canvas


def _paint_meadow(rng: Rng, mood: Mood, canvas: Array, level: float) -> Array:
    edge = level + 0.05 * noise_line(rng, 1.8)[None, :]
    cover = np.clip((V - edge) * SIDE / 2, 0, 1)
    white = mood.season == "winter" and rng.random() < 0.7
    grass = color(0.85, 0.88, 0.93) if white else random_color(rng, [*_GREENS, *_ROCKS], 0.05)
    _, z, _ = project_ground(level - 0.1, 0.1, 0.05)
    blades = noise(rng, 0.6, 2.0) * rng.uniform(0.05, 0.2) + 0.1 * noise(rng, 1.6, 3.0)
    tone = 1 + blades / np.clip(z, 0.5, 2)
    light = 0.45 + 0.25 * mood.side * (0.5 - U) + 0 * V
    return mix(canvas, mood.lit(grass, light.astype(np.float32)) * tone, cover)
