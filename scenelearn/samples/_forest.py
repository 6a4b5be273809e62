"""Forest: stands of trunks, edges of woods, wooded slopes, canopies from below."""

from __future__ import annotations

import math

import numpy as np

from scenelearn.samples._canvas import SIDE, Array, U, V, color, mix, noise, smoothstep
from scenelearn.samples._picture import Picture, paint_sky
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

_BARKS = "30 24 18, 20 17 15, 42 30 22, 80 79 75, 36 35 33"


def paint_forest(picture: Picture) -> tuple[float, float]:
    """Paint a forest scene."""
    picture.paint_one_of(
        (0.4, _paint_stand),
        (0.6, _paint_edge),
        (0.82, _paint_slope),
        (0.91, _paint_thicket),
        (1.0, _paint_from_below),
    )
    return 0.2, picture.rng.uniform(0.8, 1.0)


def _paint_stand(picture: Picture) -> None:
    """Paint the inside of a forest: trunks in the haze, floor, leaves, sometimes a path."""
    rng, mood = picture.rng, picture.mood
    floor = rng.uniform(0.5, 0.85)
    leaf = leaf_color(picture)
    light = rng.uniform(0.2, 0.7)
    behind = mix(mood.lit(leaf, 0.5), mood.horizon, rng.uniform(0.1, 0.75))
    glow = np.exp(-((U - mood.sun_x) ** 2) / 0.1 - (V - floor * 0.7) ** 2 / 0.15)
    picture.canvas = mix(behind, mood.horizon, glow * rng.uniform(0, 0.5))
    gaps = smoothstep(0.3, 1.3, picture.noise(1.1)) * rng.uniform(0.1, 0.7) * (floor > V)
    picture.cover(mood.far(mood.lit(leaf, 0.9), 0.5), gaps)
    far_trunks = 1 + rng.uniform(0.05, 0.2) * picture.noise(1.0, 0.03)
    picture.canvas = picture.canvas * far_trunks
    _paint_floor(picture, floor)
    if rng.random() < 0.45:
        _paint_path(picture, floor)
    bark = picture.color(_BARKS, 0.03)
    grain = np.clip(1 + 0.22 * picture.noise(0.8, 0.12), 0.4, 1.7)
    if float(bark.min()) > 0.6:  # birch: dark marks across
        grain *= 1 - 0.7 * smoothstep(1.2, 1.8, picture.noise(0.7, 4.0))
    n_rows = int(rng.integers(2, 5))
    foliage = rng.random() < 0.75
    for row in range(n_rows):
        near = (row + 1) / n_rows
        for _ in range(int(rng.integers(3, 12) / (0.4 + near))):
            x, width = rng.uniform(-0.05, 1.05), near**1.5 * rng.uniform(0.02, 0.08)
            base = floor + (near**1.7) * (1.02 - floor) * rng.uniform(0.6, 1.2)
            shade = mood.far(mood.lit(picture.jitter(bark, 0.03), light), 1 - near)
            draw_trunk(picture, x, width, base, shade, rng.normal(0, 0.03))
            if rng.random() < 0.4:
                start = (x, rng.uniform(0.05, floor * 0.8))
                angle = -math.pi / 2 + rng.choice([-1, 1]) * rng.uniform(0.4, 1.3)
                draw_branches(picture, start, angle, 0.1 * near + 0.04, width * 0.35, shade)
        picture.flatten(0.6 * (1 - near), grain)
        if foliage:
            _hang_leaves(picture, leaf, near, floor)


def _hang_leaves(picture: Picture, leaf: Array, near: float, floor: float) -> None:
    """Add leaves over the upper part, and brush over the foot of the trunks."""
    rng, mood = picture.rng, picture.mood
    clumps = picture.noise(1.2, 1.5) + 0.4 * picture.noise(0.5)
    roof = clumps + (rng.uniform(0.1, 0.6) * floor - V) * rng.uniform(3, 7)
    brush = clumps - np.abs(V - floor - 0.1 * near) * rng.uniform(8, 20) + rng.uniform(-0.8, 0.6)
    lit = mood.lit(picture.jitter(leaf, 0.05), rng.uniform(0.3, 0.9))
    shade = mood.far(lit, (1 - near) * 0.8) * leaf_texture(picture, 0.9, 0.9)
    picture.cover(shade, smoothstep(0.3, 0.6, np.maximum(roof, brush)))


def _paint_floor(picture: Picture, floor: float) -> None:
    rng, mood = picture.rng, picture.mood
    earth = color(0.85, 0.88, 0.92)
    if mood.season != "winter" or rng.random() >= 0.6:
        earth = picture.color("35 27 16, 25 33 14, 50 34 16, 30 26 20", 0.04)
    edge = floor + 0.02 * picture.noise_line(1.2)
    _, z, _ = project_ground(floor - 0.05, 0.12, 0.05)
    litter = picture.noise(0.5, 2.0) * 0.16 + picture.noise(1.3, 3.0) * 0.14
    patches = smoothstep(0.2, 1.0, picture.noise(1.6, 5.0)) * rng.uniform(0, 0.7)
    shown = mood.lit(earth, 0.25 + patches) * (1 + litter / np.clip(z, 0.6, 3))
    picture.cover_below(edge, mood.far(shown, smoothstep(0.2, 0.0, V - floor)), 3)


def _paint_path(picture: Picture, floor: float) -> None:
    rng = picture.rng
    down = np.clip((V - floor) / (1 - floor), 0, 1)
    end, start = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.8)
    middle = end + (start - end) * down + rng.normal(0, 0.08) * np.sin(down * math.pi)
    width = 0.015 + rng.uniform(0.1, 0.3) * down**1.3
    wobble = 0.15 * picture.noise_line(1.3)[:, None]
    cover = smoothstep(1.15, 0.85, np.abs(U - middle) / width + wobble) * (down > 0)
    earth = picture.surface("50 43 34, 40 38 36, 62 55 45", 0.05, 0.45)
    picture.cover(earth * (1 + 0.1 * picture.noise(0.6, 2.0)), cover)


def _paint_edge(picture: Picture) -> None:
    """Paint the edge of a forest: rows of crowns or firs, sometimes behind grass."""
    rng, mood = picture.rng, picture.mood
    top = rng.uniform(-0.1, 0.45)
    paint_sky(picture, 0.8)
    conifers = rng.random() < 0.5
    base = top + 0.3
    n_rows = int(rng.integers(3, 5))
    for row in range(n_rows):
        near = (row + 1) / n_rows
        if conifers:
            tint = needle_color(picture)
            for x in rng.permutation(np.linspace(-0.05, 1.05, int(26 - 14 * near))):
                size = (0.3 + 0.35 * near) * rng.uniform(0.65, 1.15)
                shade = mood.far(mood.lit(picture.jitter(tint, 0.025), 0.5), 1 - near)
                foot = base + rng.normal(0, 0.015)
                at = float(x + rng.normal(0, 0.02))
                draw_conifer(picture, at, foot, size, shade * 0.7, shade * 1.1)
            dark = mood.far(mood.lit(tint, 0.2), 1 - near)
            picture.cover_below(base - 0.06, dark * leaf_texture(picture, 0.8), 4)
            picture.flatten(0.0, leaf_texture(picture, 0.7, 0.6))
        else:
            _paint_crowns(picture, base - 0.3, near)
        base += (1.05 - top - 0.3) / n_rows * rng.uniform(0.8, 1.3)
    if rng.random() < 0.5:
        _paint_floor(picture, rng.uniform(0.78, 0.95))


def _paint_crowns(picture: Picture, top: float, near: float) -> None:
    """Paint one row of leafy crowns that hides everything below its outline."""
    phase = U[0] * int(picture.rng.integers(4, 10)) + 0.4 * picture.noise_line(1.6)
    dome = np.sqrt(np.clip(1 - (2 * (phase % 1) - 1) ** 2, 0, 1))
    outline = top - 0.14 * dome * near - 0.03 * picture.noise_line(1.0)
    edge = (V - outline) + 0.02 * picture.noise(0.6, lowest=8)
    leaf, second = leaf_color(picture), leaf_color(picture)
    tint = mix(leaf, second, smoothstep(-0.4, 0.6, picture.noise(1.8, lowest=2)))
    shade = picture.mood.lit(tint, 0.55) * leaf_texture(picture, 1.0 + 0.3 * near, 1.0)
    inner = np.clip(1.15 - 1.3 * (V - outline), 0.45, 1.15)
    picture.cover(picture.mood.far(shade * inner, 1 - near), np.clip(edge * SIDE / 3, 0, 1))


def _paint_slope(picture: Picture) -> None:
    """Paint a wooded slope seen from afar or above: rows of small trees."""
    rng, mood = picture.rng, picture.mood
    top = rng.uniform(-0.25, 0.35)
    paint_sky(picture, 0.7)
    outline = top - ridge_line(rng, 0.08, 0.8, 1.7) + rng.normal(0, 0.25) * (U[0] - 0.5)
    conifers = rng.random() < 0.6
    tint, other = needle_color(picture), leaf_color(picture)
    shift = rng.uniform(0, 0.7)
    size = rng.uniform(0.09, 0.16)
    picture.cover_below(outline, mood.lit(tint, 0.15))
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
        edges = outline[(inside * SIDE).astype(int)]
        for at, shade, edge in zip(places.tolist(), shades, edges, strict=True):
            if y < edge:
                continue
            if conifers:
                draw_spruce(picture, at, y + tall * 0.3, tall, shade * 0.6, shade * 1.15)
            else:
                draw_crown(picture, at, y, tall * 0.55, shade, 5)
        y += tall * (0.36 if conifers else 0.42)
    picture.flatten(0.0, leaf_texture(picture, 0.8, 0.45))


def _paint_thicket(picture: Picture) -> None:
    """Paint undergrowth that fills the picture: layers of leaves, or bare branches."""
    rng, mood = picture.rng, picture.mood
    leaf = leaf_color(picture)
    picture.cover(mood.lit(leaf, 0.1) * 0.6, 1.0)
    for row in range(3):
        cover = smoothstep(0.1, 0.5, picture.noise(1.4 - 0.2 * row, lowest=2))
        shade = mood.lit(picture.jitter(leaf, 0.07), 0.2 + 0.3 * row)
        picture.cover(shade * leaf_texture(picture, 0.8, 1.1), cover)
        bark = picture.surface(_BARKS, 0.04, 0.25 + 0.1 * row)
        for _ in range(rng.integers(1, 5)):
            start = (rng.uniform(0, 1), rng.uniform(0.7, 1.05))
            angle = -math.pi / 2 + rng.normal(0, 0.3)
            draw_branches(picture, start, angle, rng.uniform(0.15, 0.3), 0.02, bark)
        picture.flatten()


def _paint_from_below(picture: Picture) -> None:
    """Paint trunks that meet overhead, with leaves against the sky."""
    rng = picture.rng
    paint_sky(picture, 1.4)
    x, y = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.7)
    clumps = picture.noise(1.1) + 0.5 * picture.noise(0.6)
    clumps = clumps + (np.hypot(U - x, V - y) - rng.uniform(0.2, 0.4)) * 3.5
    leaf = picture.mood.lit(leaf_color(picture), rng.uniform(0.2, 0.6))
    picture.cover(leaf * leaf_texture(picture, 0.9), smoothstep(0.0, 0.3, clumps))
    bark = picture.surface(_BARKS, 0.03, 0.2)
    for angle in rng.uniform(0, 2 * math.pi, int(rng.integers(6, 15))):
        inner, thick = rng.uniform(0.06, 0.3), rng.uniform(0.02, 0.07)
        sine, cosine = math.sin(angle), math.cos(angle)
        foot_x, foot_y = x + cosine * 1.1, y + sine * 1.1
        tip_x, tip_y = x + cosine * inner, y + sine * inner
        for side, light in ((1.0, 0.8), (0.45, 1.15)):
            across_x, across_y = -sine * thick * side, cosine * thick * side
            tip = [(tip_x + across_x * 0.15, tip_y + across_y * 0.15), (tip_x, tip_y)]
            foot = [(foot_x - across_x, foot_y - across_y), (foot_x + across_x, foot_y + across_y)]
            picture.polygon(tip + foot, bark * light)
        draw_branches(picture, (tip_x, tip_y), angle + math.pi, 0.09, 0.008, bark)
    picture.flatten()
