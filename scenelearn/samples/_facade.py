"""Facades: flat walls with windows, and their projection onto any quadrilateral."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from scenelearn.samples._canvas import (
    SIDE,
    Array,
    Points,
    Rng,
    color,
    from_image,
    jitter,
    mix,
    noise,
    random_color,
    rgba,
    to_image,
)
from scenelearn.samples._mood import Mood

_WALLS = [
    (0.62, 0.36, 0.27),
    (0.78, 0.7, 0.58),
    (0.82, 0.8, 0.76),
    (0.55, 0.53, 0.5),
    (0.85, 0.68, 0.4),
    (0.7, 0.48, 0.42),
    (0.42, 0.38, 0.35),
    (0.5, 0.58, 0.6),
    (0.5, 0.56, 0.42),
    (0.88, 0.86, 0.88),
    (0.3, 0.36, 0.42),
]
_STYLES = ("house", "old", "slab", "glass", "bands")
_SIGNS = [(0.7, 0.15, 0.12), (0.1, 0.3, 0.5), (0.9, 0.75, 0.2), (0.15, 0.4, 0.25), (0.9, 0.9, 0.88)]


def draw_facade(
    rng: Rng, mood: Mood, columns: int, rows: int, *, shops: bool = False, light: float = 0.5
) -> Image.Image:
    """Draw a flat facade of `columns` by `rows` windows.

    Args:
        rng: Random number generator.
        mood: Light; at night some windows are lit.
        columns: Windows in a row.
        rows: Stories.
        shops: Whether the ground floor has shop windows and awnings.
        light: Direct light on the wall.

    Returns:
        An RGB image, its size set by the number of windows.
    """
    style = _STYLES[rng.integers(len(_STYLES))]
    wide, tall = (10, 13) if style in ("house", "old") else (9, 11)
    wall = random_color(rng, _WALLS, 0.06)
    glass = mix(mood.lit(color(0.12, 0.15, 0.19), 0.5), mood.horizon, rng.uniform(0.0, 0.45))
    cell = _draw_cell(rng, style, wide, tall, mood.lit(wall, light), glass)
    front = np.tile(cell, (1, rows, columns))
    pane = np.tile(_pane_mask(style, wide, tall), (rows, columns))
    shine = rng.normal(1, 0.28, (rows, columns)).clip(0.35, 2.0)
    front = front * (1 + pane * (_blocks(shine, tall, wide) - 1))
    lit_fraction = {"night": 0.45, "dusk": 0.22}.get(mood.hour, 0.02) * rng.uniform(0.3, 1.6)
    lamps = (rng.random((rows, columns)) < lit_fraction) * rng.uniform(0.5, 1.0, (rows, columns))
    glow = _blocks(lamps, tall, wide)
    shining = glow * jitter(rng, color(1.0, 0.82, 0.5), 0.05)
    front = np.where(pane * glow > 0, shining, front)
    height, width = front.shape[1:]
    weathering = noise(rng, 1.2, 0.6, side=64)[:height, :width]
    ragged = np.ones((height, width), np.float32)
    ragged[: weathering.shape[0], : weathering.shape[1]] += 0.05 * weathering
    front = front * ragged
    front[:, : max(2, tall // 6)] = mood.lit(wall * rng.uniform(0.6, 1.1), light)
    image = to_image(front)
    if shops:
        _draw_shops(rng, mood, image, tall + 3)
    return image


def _blocks(values: Array, tall: int, wide: int) -> Array:
    grown: Array = values.repeat(tall, 0).repeat(wide, 1).astype(np.float32)
    return grown


def _pane_mask(style: str, wide: int, tall: int) -> Array:
    mask = np.zeros((tall, wide), np.float32)
    if style == "glass":
        mask[1:, 1:] = 1
    elif style == "bands":
        mask[3 : tall - 3] = 1
    elif style == "slab":
        mask[3 : tall - 3, 2 : wide - 1] = 1
    else:
        mask[3 : tall - 3, 3 : wide - 3] = 1
    return mask


def _draw_cell(rng: Rng, style: str, wide: int, tall: int, wall: Array, glass: Array) -> Array:
    """Draw one window with the wall around it, shape (3, tall, wide)."""
    cell = np.empty((3, tall, wide), np.float32)
    cell[:] = wall
    mask = _pane_mask(style, wide, tall)
    if style in ("house", "old"):
        frame = np.minimum(wall * rng.choice([0.6, 1.35, 1.6]), 1)
        cell[:, 2 : tall - 2, 2 : wide - 2] = frame
        if style == "old":
            cell[:, -1:] = wall * 1.2
            cell[:, -2:-1] = wall * 0.7
        elif rng.random() < 0.4:  # shutters
            shutter = random_color(
                rng, [(0.2, 0.32, 0.25), (0.3, 0.2, 0.15), (0.3, 0.4, 0.5)], 0.05
            )
            cell[:, 3 : tall - 3, :2] = shutter * wall.mean()
            cell[:, 3 : tall - 3, -2:] = shutter * wall.mean()
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


def _draw_shops(rng: Rng, mood: Mood, image: Image.Image, tall: int) -> None:
    draw = ImageDraw.Draw(image)
    width, height = image.size
    top = height - tall
    left = 0
    while left < width:
        right = left + int(rng.integers(14, 36))
        front = mood.lit(jitter(rng, color(0.25, 0.24, 0.24), 0.08), 0.3)
        inside = color(0.95, 0.8, 0.55) if mood.hour in ("night", "dusk") else front * 1.4
        sign = mood.lit(random_color(rng, _SIGNS, 0.05), 0.5)
        draw.rectangle((left, top, right, height), fill=rgba(front)[:3])
        draw.rectangle((left + 2, top + 5, right - 2, height - 2), fill=rgba(inside)[:3])
        draw.rectangle((left, top, right - 1, top + 3), fill=rgba(sign)[:3])
        if rng.random() < 0.4:
            for stripe in range(left, right, 4):
                draw.rectangle((stripe, top + 3, stripe + 1, top + 7), fill=rgba(sign * 0.9)[:3])
        middle = (left + right) // 2
        draw.rectangle((middle, top + 6, middle + 4, height), fill=rgba(front * 0.6)[:3])
        left = right + 1


def place_facade(
    canvas: Array, facade: Image.Image, corners: Points, shade: Array | float
) -> Array:
    """Project a facade onto a quadrilateral of the canvas.

    Args:
        canvas: Image of shape (3, SIDE, SIDE).
        facade: The flat facade.
        corners: Upper left, upper right, lower right and lower left corner, as fractions of
            the canvas.
        shade: Factor for the colors.

    Returns:
        The new canvas.
    """
    target = np.asarray(corners, np.float64) * SIDE
    left, top = np.floor(target.min(0)).clip(0, SIDE - 1).astype(int)
    right, bottom = np.ceil(target.max(0)).clip(1, SIDE).astype(int)
    if right - left < 1 or bottom - top < 1:
        return canvas
    width, height = facade.size
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    system, wanted = np.zeros((8, 8)), source.ravel()
    for number, ((x, y), (u, v)) in enumerate(zip(target - (left, top), source, strict=True)):
        system[2 * number] = (x, y, 1, 0, 0, 0, -u * x, -u * y)
        system[2 * number + 1] = (0, 0, 0, x, y, 1, -v * x, -v * y)
    try:
        solved = np.linalg.solve(system, wanted)
    except np.linalg.LinAlgError:
        return canvas
    size = (int(right - left), int(bottom - top))
    seen = facade.convert("RGBA").transform(
        size, Image.Transform.PERSPECTIVE, solved.tolist(), Image.Resampling.BILINEAR
    )
    patch = from_image(seen)
    painted = canvas.copy()
    region = painted[:, top:bottom, left:right]
    painted[:, top:bottom, left:right] = mix(region, patch[:3] * shade, patch[3])
    return painted
