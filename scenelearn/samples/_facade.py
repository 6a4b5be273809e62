"""Facades: flat walls with windows, and their projection onto any quadrilateral."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from scenelearn.samples._canvas import (
    SIDE,
    Array,
    Points,
    color,
    from_image,
    mix,
    noise,
    rgba,
    to_image,
)
from scenelearn.samples._picture import Picture

_WALLS = (
    "62 36 27, 78 70 58, 82 80 76, 55 53 50, 85 68 40, 70 48 42, "
    "42 38 35, 50 58 60, 50 56 42, 88 86 88, 30 36 42"
)
# Margins of the pane within its cell of each style: top, bottom, left, right
_STYLES = {
    "house": (3, 3, 3, 3),
    "old": (3, 3, 3, 3),
    "slab": (3, 3, 2, 1),
    "glass": (1, 0, 1, 0),
    "bands": (3, 3, 0, 0),
}


def draw_facade(
    picture: Picture, columns: int, rows: int, *, shops: bool = False, light: float = 0.5
) -> Image.Image:
    """Draw a flat facade of `columns` by `rows` windows.

    Args:
        picture: the picture, for its light; at night some windows are lit.
        columns: windows in a row.
        rows: stories.
        shops: whether the ground floor has shop windows and awnings.
        light: direct light on the wall.

    Returns:
        An RGB image, its size set by the number of windows.
    """
    rng, mood = picture.rng, picture.mood
    style = tuple(_STYLES)[rng.integers(len(_STYLES))]
    wide, tall = (10, 13) if style in ("house", "old") else (9, 11)
    wall = picture.color(_WALLS, 0.06)
    glass = mix(mood.lit(color(0.12, 0.15, 0.19), 0.5), mood.horizon, rng.uniform(0.0, 0.45))
    top, bottom, left, right = _STYLES[style]
    mask = np.zeros((tall, wide), np.float32)
    mask[top : tall - bottom, left : wide - right] = 1
    cell = _draw_cell(picture, style, mask, mood.lit(wall, light), glass)
    front = np.tile(cell, (1, rows, columns))
    pane = np.tile(mask, (rows, columns))
    shine = rng.normal(1, 0.28, (rows, columns)).clip(0.35, 2.0)
    front = front * (1 + pane * (_blocks(shine, tall, wide) - 1))
    lit_fraction = {"night": 0.45, "dusk": 0.22}.get(mood.hour, 0.02) * rng.uniform(0.3, 1.6)
    lamps = (rng.random((rows, columns)) < lit_fraction) * rng.uniform(0.5, 1.0, (rows, columns))
    glow = _blocks(lamps, tall, wide)
    front = np.where(pane * glow > 0, glow * picture.color("100 82 50", 0.05), front)
    height, width = front.shape[1:]
    weathering = noise(rng, 1.2, 0.6, side=64)[:height, :width]
    ragged = np.ones((height, width), np.float32)
    ragged[: weathering.shape[0], : weathering.shape[1]] += 0.05 * weathering
    front = front * ragged
    front[:, : max(2, tall // 6)] = mood.lit(wall * rng.uniform(0.6, 1.1), light)
    image = to_image(front)
    if shops:
        _draw_shops(picture, image, tall + 3)
    return image


def _blocks(values: Array, tall: int, wide: int) -> Array:
    grown: Array = values.repeat(tall, 0).repeat(wide, 1).astype(np.float32)
    return grown


def _draw_cell(picture: Picture, style: str, mask: Array, wall: Array, glass: Array) -> Array:
    """Draw one window with the wall around it, shape (3, tall, wide)."""
    rng = picture.rng
    tall, wide = mask.shape
    cell = np.empty((3, tall, wide), np.float32)
    cell[:] = wall
    if style in ("house", "old"):
        cell[:, 2 : tall - 2, 2 : wide - 2] = np.minimum(wall * rng.choice([0.6, 1.35, 1.6]), 1)
        if style == "old":
            cell[:, -1:] = wall * 1.2
            cell[:, -2:-1] = wall * 0.7
        elif rng.random() < 0.4:
            shutter = picture.color("20 32 25, 30 20 15, 30 40 50", 0.05) * wall.mean()
            cell[:, 3 : tall - 3, :2] = cell[:, 3 : tall - 3, -2:] = shutter
        if rng.random() < 0.25:  # balcony
            cell[:, tall - 4 : tall - 1, 1 : wide - 1 : 2] = wall * 0.35
    cell = mix(cell, glass, mask)
    if style in ("house", "old"):
        cell[:, 3 : tall - 3, wide // 2 : wide // 2 + 1] = mix(glass, wall, 0.75)
    if style == "glass":
        cell[:, 0] = cell[:, :, 0] = glass.mean() * rng.choice([0.5, 1.6])
    if style == "bands":
        cell[:, 3 : tall - 3, :1] = glass * 0.6
    return cell


def _draw_shops(picture: Picture, image: Image.Image, tall: int) -> None:
    rng, draw = picture.rng, ImageDraw.Draw(image)
    width, height = image.size
    top, left = height - tall, 0
    while left < width:
        right = left + int(rng.integers(14, 36))
        front = picture.surface("25 24 24", 0.08, 0.3)
        inside = color(0.95, 0.8, 0.55) if picture.mood.dark else front * 1.4
        sign = picture.surface("70 15 12, 10 30 50, 90 75 20, 15 40 25, 90 90 88", 0.05, 0.5)
        draw.rectangle((left, top, right, height), rgba(front)[:3])
        draw.rectangle((left + 2, top + 5, right - 2, height - 2), rgba(inside)[:3])
        draw.rectangle((left, top, right - 1, top + 3), rgba(sign)[:3])
        if rng.random() < 0.4:
            for stripe in range(left, right, 4):
                draw.rectangle((stripe, top + 3, stripe + 1, top + 7), rgba(sign * 0.9)[:3])
        middle = (left + right) // 2
        draw.rectangle((middle, top + 6, middle + 4, height), rgba(front * 0.6)[:3])
        left = right + 1


def upright(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the corners of an upright rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def place_facade(
    picture: Picture, facade: Image.Image, corners: Points, shade: Array | float = 1.0
) -> None:
    """Project a facade onto a quadrilateral of the canvas.

    Args:
        picture: the picture.
        facade: the flat facade.
        corners: upper left, upper right, lower right and lower left corner, as fractions of
            the canvas.
        shade: factor for the colors.
    """
    target = np.asarray(corners, np.float64) * SIDE
    left, top = np.floor(target.min(0)).clip(0, SIDE - 1).astype(int)
    right, bottom = np.ceil(target.max(0)).clip(1, SIDE).astype(int)
    if right - left < 1 or bottom - top < 1:
        return
    source = np.array(upright(0, 0, *facade.size), np.float64)
    system = np.zeros((8, 8))
    for number, ((x, y), (u, v)) in enumerate(zip(target - (left, top), source, strict=True)):
        system[2 * number] = (x, y, 1, 0, 0, 0, -u * x, -u * y)
        system[2 * number + 1] = (0, 0, 0, x, y, 1, -v * x, -v * y)
    try:
        solved = np.linalg.solve(system, source.ravel())
    except np.linalg.LinAlgError:
        return
    size = (int(right - left), int(bottom - top))
    seen = facade.convert("RGBA").transform(
        size, Image.Transform.PERSPECTIVE, solved.tolist(), Image.Resampling.BILINEAR
    )
    patch = from_image(seen)
    picture.canvas = picture.canvas.copy()
    region = picture.canvas[:, top:bottom, left:right]
    region[:] = mix(region, patch[:3] * shade, patch[3])
