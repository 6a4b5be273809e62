"""Forest: stands of trunks, edges of woods, wooded slopes, canopies from below."""

from __future__ import annotations

import math

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
from scenelearn.samples._terrain import project_ground, ridge_line
from scenelearn.samples._trees import (
    draw_branches,
    draw_conifer,
    draw_crown,
    draw_spruce,
    draw_trunk,
    leaf_color,
    leaf_texture,
    needle_color,
)

_BARKS = [
    (0.3, 0.24, 0.18),
    (0.2, 0.17, 0.15),
    (0.42, 0.3, 0.22),
    (0.8, 0.79, 0.75),
    (0.36, 0.35, 0.33),
]
_FLOORS = [(0.35, 0.27, 0.16), (0.25, 0.33, 0.14), (0.5, 0.34, 0.16), (0.3, 0.26, 0.2)]


def paint_forest(rng: Rng) -> tuple[Array, Mood]:
    """Paint a forest scene and return it with its mood."""
    mood = sample_mood(rng)
    kind = rng.random()
    if kind < 0.4:
        canvas = _paint_stand(rng, mood)
    elif kind < 0.6:
        canvas = _paint_edge(rng, mood)
    elif kind < 0.82:
        canvas = _paint_slope(rng, mood)
    elif kind < 0.91:
        canvas = _paint_thicket(rng, mood)
    else:
        canvas = _paint_from_below(rng, mood)
    return add_clutter(rng, canvas, mood, 0.2, rng.uniform(0.8, 1.0)), mood


def _paint_stand(rng: Rng, mood: Mood) -> Array:
    """Paint the inside of a forest: trunks in the haze, floor, leaves, sometimes a path."""
    floor = float(rng.uniform(0.5, 0.85))
    leaf = leaf_color(rng, mood)
    light = rng.uniform(0.2, 0.7)
    behind = mix(mood.lit(leaf, 0.5), mood.horizon, rng.uniform(0.1, 0.75))
    glow = np.exp(-((U - mood.sun_x) ** 2) / 0.1 - (V - floor * 0.7) ** 2 / 0.15) * rng.uniform(
        0, 0.5
    )
    canvas = mix(np.broadcast_to(behind, (3, SIDE, SIDE)), mood.horizon, glow.astype(np.float32))
    gaps = smoothstep(0.3, 1.3, noise(rng, 1.1)) * rng.uniform(0.1, 0.7) * (floor > V)
    canvas = mix(canvas, mood.far(mood.lit(leaf, 0.9), 0.5), gaps.astype(np.float32))
    far_trunks = 1 + rng.uniform(0.05, 0.2) * noise(rng, 1.0, 0.03)
    canvas = canvas * far_trunks
    canvas = _paint_floor(rng, mood, canvas, floor)
    if rng.random() < 0.45:
        canvas = _paint_path(rng, mood, canvas, floor)
    bark = random_color(rng, _BARKS, 0.03)
    grain = np.clip(1 + 0.22 * noise(rng, 0.8, 0.12), 0.4, 1.7)
    if float(bark.min()) > 0.6:  # birch: dark marks across
        grain *= 1 - 0.7 * smoothstep(1.2, 1.8, noise(rng, 0.7, 4.0))
    n_rows = int(rng.integers(2, 5))
    foliage = rng.random() < 0.75
    for row in range(n_rows):
        near = (row + 1) / n_rows
        layer = Layer()
        for _ in range(int(rng.integers(3, 12) / (0.4 + near))):
            x, width = rng.uniform(-0.05, 1.05), near**1.5 * rng.uniform(0.02, 0.08)
            base = floor + (near**1.7) * (1.02 - floor) * rng.uniform(0.6, 1.2)
            shade = mood.far(mood.lit(jitter(rng, bark, 0.03), light), 1 - near)
            draw_trunk(rng, layer, x, width, -0.05, base, shade, rng.normal(0, 0.03))
            if rng.random() < 0.4:
                start = (x, rng.uniform(0.05, floor * 0.8))
                angle = -math.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.4, 1.3)
                draw_branches(rng, layer, start, angle, 0.1 * near + 0.04, width * 0.35, shade)
        canvas = layer.composite(canvas, 0.6 * (1 - near), grain)
        if foliage:
            canvas = _hang_leaves(rng, mood, canvas, leaf, near, floor)
    return canvas


def _hang_leaves(
    rng: Rng, mood: Mood, canvas: Array, leaf: Array, near: float, floor: float
) -> Array:
    """Add leaves over the upper part, and brush over the foot of the trunks."""
    clumps = noise(rng, 1.2, 1.5) + 0.4 * noise(rng, 0.5)
    roof = clumps + (rng.uniform(0.1, 0.6) * floor - V) * rng.uniform(3, 7)
    brush = clumps - np.abs(V - floor - 0.1 * near) * rng.uniform(8, 20) + rng.uniform(-0.8, 0.6)
    shade = mood.far(mood.lit(jitter(rng, leaf, 0.05), rng.uniform(0.3, 0.9)), (1 - near) * 0.8)
    painted = shade * leaf_texture(rng, mood, 0.9, 0.9)
    return mix(canvas, painted, smoothstep(0.3, 0.6, np.maximum(roof, brush)))


def _paint_floor(rng: Rng, mood: Mood, canvas: Array, floor: float) -> Array:
    white = mood.season == "winter" and rng.random() < 0.6
    earth = color(0.85, 0.88, 0.92) if white else random_color(rng, _FLOORS, 0.04)
    edge = floor + 0.02 * noise_line(rng, 1.2)[None, :]
    _, z, _ = project_ground(floor - 0.05, 0.12, 0.05)
    litter = noise(rng, 0.5, 2.0) * 0.16 + noise(rng, 1.3, 3.0) * 0.14
    patches = smoothstep(0.2, 1.0, noise(rng, 1.6, 5.0)) * rng.uniform(0, 0.7)
    tone = 1 + litter / np.clip(z, 0.6, 3)
    shown: Array = mood.lit(earth, 0.25 + patches) * tone
    shown = mood.far(shown, smoothstep(0.2, 0.0, V - floor) + 0 * U)
    return mix(canvas, shown, np.clip((V - edge) * SIDE / 3, 0, 1))


def _paint_path(rng: Rng, mood: Mood, canvas: Array, floor: float) -> Array:
    down = np.clip((V - floor) / (1 - floor), 0, 1)
    end, start = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.8)
    middle = end + (start - end) * down + rng.normal(0, 0.08) * np.sin(down * math.pi)
    width = 0.015 + rng.uniform(0.1, 0.3) * down**1.3
    wobble = 0.15 * noise_line(rng, 1.3)[:, None]
    cover = smoothstep(1.15, 0.85, np.abs(U - middle) / width + wobble) * (down > 0)
    earth = random_color(rng, [(0.5, 0.43, 0.34), (0.4, 0.38, 0.36), (0.62, 0.55, 0.45)], 0.05)
    pebbles = 1 + 0.1 * noise(rng, 0.6, 2.0)
    return mix(canvas, mood.lit(earth, 0.45) * pebbles, cover.astype(np.float32))


def _paint_edge(rng: Rng, mood: Mood) -> Array:
    """Paint the edge of a forest: rows of crowns or firs, sometimes behind grass."""
    top = float(rng.uniform(-0.1, 0.45))
    canvas = paint_sky(rng, mood, 0.8)
    conifers = rng.random() < 0.5
    base = top + 0.3
    n_rows = int(rng.integers(3, 5))
    for row in range(n_rows):
        near = (row + 1) / n_rows
        if conifers:
            layer = Layer()
            tint = needle_color(rng, mood)
            for x in rng.permutation(np.linspace(-0.05, 1.05, int(26 - 14 * near))):
                size = (0.3 + 0.35 * near) * rng.uniform(0.65, 1.15)
                shade = mood.far(mood.lit(jitter(rng, tint, 0.025), 0.5), 1 - near)
                foot = base + rng.normal(0, 0.015)
                at = float(x + rng.normal(0, 0.02))
                draw_conifer(rng, layer, at, foot, size, shade * 0.7, shade * 1.1)
            dark = mood.far(mood.lit(tint, 0.2), 1 - near)
            canvas = _fill_below(canvas, dark * leaf_texture(rng, mood, 0.8), base - 0.06)
            canvas = layer.composite(canvas, 0.0, leaf_texture(rng, mood, 0.7, 0.6))
        else:
            canvas = _paint_crowns(rng, mood, canvas, base - 0.3, near)
        base += (1.05 - top - 0.3) / n_rows * rng.uniform(0.8, 1.3)
    if rng.random() < 0.5:
        canvas = _paint_floor(rng, mood, canvas, float(rng.uniform(0.78, 0.95)))
    return canvas


def _fill_below(canvas: Array, shade: Array, level: float) -> Array:
    return mix(canvas, shade, np.clip((V - level) * SIDE / 4, 0, 1) + 0 * U)


def _paint_crowns(rng: Rng, mood: Mood, canvas: Array, top: float, near: float) -> Array:
    """Paint one row of leafy crowns that hides everything below its outline."""
    bumps = int(rng.integers(4, 10))
    phase = U[0] * bumps + 0.4 * noise_line(rng, 1.6)
    dome = np.sqrt(np.clip(1 - (2 * (phase % 1) - 1) ** 2, 0, 1))
    outline = top - 0.14 * dome * near - 0.03 * noise_line(rng, 1.0)
    edge = (V - outline[None, :]) + 0.02 * noise(rng, 0.6, lowest=8)
    leaf = leaf_color(rng, mood)
    second = leaf_color(rng, mood)
    patches = smoothstep(-0.4, 0.6, noise(rng, 1.8, lowest=2))
    tint = mix(np.broadcast_to(leaf, (3, SIDE, SIDE)), second, patches)
    shade = mood.lit(tint, 0.55) * leaf_texture(rng, mood, 1.0 + 0.3 * near, 1.0)
    inner = np.clip(1.15 - 1.3 * (V - outline[None, :]), 0.45, 1.15)
    return mix(canvas, mood.far(shade * inner, 1 - near), np.clip(edge * SIDE / 3, 0, 1))


def _paint_slope(rng: Rng, mood: Mood) -> Array:
    """Paint a wooded slope seen from afar or above: rows of small trees."""
    top = float(rng.uniform(-0.25, 0.35))
    canvas = paint_sky(rng, mood, 0.7)
    outline = top - ridge_line(rng, 0.08, 0.8, 1.7) + rng.normal(0, 0.25) * (U[0] - 0.5)
    layer = Layer()
    conifers = rng.random() < 0.6
    tint, other = (needle_color(rng, mood), leaf_color(rng, mood))
    shift = rng.uniform(0, 0.7)
    size = float(rng.uniform(0.09, 0.16))
    canvas = mix(canvas, mood.lit(tint, 0.15), np.clip((V - outline[None, :]) * SIDE, 0, 1))
    patch = noise(rng, 1.8, side=64)
    y = float(outline.min())
    while y < 1.15:
        near = float(np.clip((y - top) / (1.1 - top), 0, 1))
        tall = size * (0.5 + near)
        places = np.arange(-0.02, 1.05, tall * (0.55 if conifers else 0.85))
        places += rng.normal(0, tall * 0.3, len(places))
        inside = np.clip(places, 0, 0.999)
        weight = np.clip(patch[int(near * 63), (inside * 64).astype(int)] * 0.4 + shift, 0, 1)
        tints = tint + (other - tint) * weight + rng.normal(0, 0.04, len(places))
        shades = np.clip(mood.far(mood.lit(tints, 0.5), 1 - near), 0.02, 1)[:, 0].T
        for at, shade, edge in zip(
            places.tolist(), shades, outline[(inside * SIDE).astype(int)], strict=True
        ):
            if y < edge:
                continue
            if conifers:
                draw_spruce(rng, layer, at, y + tall * 0.3, tall, shade * 0.6, shade * 1.15)
            else:
                draw_crown(rng, layer, at, y, tall * 0.55, shade, 5)
        y += tall * (0.36 if conifers else 0.42)
    return layer.composite(canvas, 0.0, leaf_texture(rng, mood, 0.8, 0.45))


def _paint_thicket(rng: Rng, mood: Mood) -> Array:
    """Paint undergrowth that fills the picture: layers of leaves, or bare branches."""
    leaf = leaf_color(rng, mood)
    canvas = np.broadcast_to(mood.lit(leaf, 0.1) * 0.6, (3, SIDE, SIDE)).astype(np.float32)
    for row in range(3):
        cover = smoothstep(0.1, 0.5, noise(rng, 1.4 - 0.2 * row, lowest=2))
        shade = mood.lit(jitter(rng, leaf, 0.07), 0.2 + 0.3 * row)
        canvas = mix(canvas, shade * leaf_texture(rng, mood, 0.8, 1.1), cover)
        layer = Layer()
        bark = mood.lit(random_color(rng, _BARKS, 0.04), 0.25 + 0.1 * row)
        for _ in range(int(rng.integers(1, 5))):
            start = (rng.uniform(0, 1), rng.uniform(0.7, 1.05))
            angle = -math.pi / 2 + rng.normal(0, 0.3)
            draw_branches(rng, layer, start, angle, rng.uniform(0.15, 0.3), 0.02, bark)
        canvas = layer.composite(canvas)
    return canvas


def _paint_from_below(rng: Rng, mood: Mood) -> Array:
    """Paint trunks that meet overhead, with leaves against the sky."""
    canvas = paint_sky(rng, mood, 1.4)
    middle_x, middle_y = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.7)
    radius = np.hypot(U - middle_x, V - middle_y)
    clumps = noise(rng, 1.1) + 0.5 * noise(rng, 0.6) + (radius - rng.uniform(0.2, 0.4)) * 3.5
    leaf = mood.lit(leaf_color(rng, mood), rng.uniform(0.2, 0.6))
    canvas = mix(canvas, leaf * leaf_texture(rng, mood, 0.9), smoothstep(0.0, 0.3, clumps))
    layer = Layer()
    bark = mood.lit(random_color(rng, _BARKS, 0.03), 0.2)
    for angle in rng.uniform(0, 2 * math.pi, int(rng.integers(6, 15))):
        inner, thick = rng.uniform(0.06, 0.3), rng.uniform(0.02, 0.07)
        sine, cosine = math.sin(angle), math.cos(angle)
        foot_x, foot_y = middle_x + cosine * 1.1, middle_y + sine * 1.1
        tip_x, tip_y = middle_x + cosine * inner, middle_y + sine * inner
        for side, light in ((1.0, 0.8), (0.45, 1.15)):
            across_x, across_y = -sine * thick * side, cosine * thick * side
            tip = [(tip_x + across_x * 0.15, tip_y + across_y * 0.15), (tip_x, tip_y)]
            foot = [(foot_x - across_x, foot_y - across_y), (foot_x + across_x, foot_y + across_y)]
            layer.polygon(tip + foot, bark * light)
        draw_branches(rng, layer, (tip_x, tip_y), angle + math.pi, 0.09, 0.008, bark)
    return layer.composite(canvas)
