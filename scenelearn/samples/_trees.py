"""Trees: conifers, crowns, bare branches, trunks and leaf textures."""

from __future__ import annotations

import math

import numpy as np

from scenelearn.samples._canvas import Array, relief
from scenelearn.samples._picture import Picture

_LEAVES = {
    "spring": "38 52 20, 30 46 22, 50 56 30, 75 60 65",
    "summer": "16 34 12, 22 40 16, 12 27 14, 30 40 18",
    "autumn": "65 38 10, 60 25 10, 70 55 20, 40 32 16",
    "winter": "30 28 25, 75 78 83, 42 36 32, 20 26 22",
}


def leaf_color(picture: Picture) -> Array:
    """Return a color of leaves in the season."""
    return picture.color(_LEAVES[picture.mood.season], 0.04)


def needle_color(picture: Picture) -> Array:
    """Return a color of conifers, sometimes white with snow in winter."""
    season, rng = picture.mood.season, picture.rng
    if season == "winter" and rng.random() < 0.6:
        return picture.color("72 77 83, 50 56 60, 30 36 38", 0.04)
    if season == "autumn" and rng.random() < 0.3:
        return picture.color("60 45 15, 55 35 12", 0.04)
    return picture.color("10 22 13, 14 25 20, 8 17 14, 20 28 15", 0.03)


def leaf_texture(picture: Picture, coarse: float, contrast: float = 1.0) -> Array:
    """Return brightness factors around 1 that look like leaves lit from above.

    Args:
        picture: the picture, for the direction of the light.
        coarse: size of the clumps: about 0.9 for small ones, 1.6 for large ones.
        contrast: strength of light and shade.

    Returns:
        Array of shape (SIDE, SIDE).
    """
    clumps, leaves = picture.noise(coarse, lowest=4), picture.noise(0.45, lowest=16)
    shade = relief(clumps, 0.35 * picture.mood.side, 0.7) + 0.25 * clumps + 0.2 * leaves
    factors: Array = np.clip(1 + contrast * 0.55 * shade, 0.15, 2.2)
    return factors


def draw_conifer(
    picture: Picture, x: float, base: float, height: float, dark: Array, bright: Array
) -> None:
    """Draw a fir with its foot at (x, base), lighter on its left half."""
    rng = picture.rng
    n_tiers = int(rng.integers(5, 9))
    spread = height * rng.uniform(0.16, 0.26)
    left, right = [(x, base - height)], [(x, base - height)]
    for tier in range(1, n_tiers + 1):
        y = base - height * (1 - tier / n_tiers) * 0.97
        reach = spread * (tier / n_tiers) * rng.uniform(0.8, 1.15)
        left += [(x - reach, y), (x - reach * 0.5, y - height * 0.02)]
        right += [(x + reach, y), (x + reach * 0.5, y - height * 0.02)]
    picture.polygon(left + right[::-1], dark)
    picture.polygon([*left, (x, base - height * 0.03)], bright)
    picture.box(x - height * 0.012, base - height * 0.04, x + height * 0.012, base, dark * 0.6)


def draw_spruce(
    picture: Picture, x: float, base: float, height: float, dark: Array, bright: Array
) -> None:
    """Draw a distant fir with two polygons."""
    reach = height * picture.rng.uniform(0.16, 0.26)
    top, low = (x, base - height), base - height * 0.08
    picture.polygon([top, (x + reach, low), (x, base), (x - reach, low)], dark)
    picture.polygon([top, (x, low), (x - reach, low)], bright)


def draw_crown(
    picture: Picture, x: float, y: float, radius: float, shade: Array, n_dabs: int = 34
) -> None:
    """Draw a leafy crown as dabs, dark below and bright above."""
    rng = picture.rng
    angle = rng.uniform(0, 2 * math.pi, n_dabs)
    reach = radius * np.sqrt(rng.random(n_dabs)) * 0.85
    heights, across = np.sin(angle) * reach * 0.85, np.cos(angle) * reach
    lights = 0.84 - 0.6 * heights / radius + rng.normal(0, 0.12, n_dabs)
    sizes = radius * rng.uniform(0.16, 0.36, n_dabs)
    shades = (shade.ravel() * lights[:, None]).astype(np.float32)
    for dab in np.argsort(-heights).tolist():
        size = float(sizes[dab])
        picture.ellipse(x + across[dab], y + heights[dab], size, size * 0.8, shades[dab])


def draw_tree(picture: Picture, x: float, base: float, height: float) -> None:
    """Draw a free-standing tree of any kind with its foot at (x, base)."""
    rng, mood = picture.rng, picture.mood
    bark = picture.surface("28 22 17", 0.03, 0.3)
    if rng.random() < 0.25:
        shade = mood.lit(needle_color(picture), 0.45)
        draw_conifer(picture, x, base, height, shade * 0.75, shade * 1.15)
    elif mood.season == "winter" or rng.random() < 0.08:
        draw_branches(picture, (x, base), -math.pi / 2, height * 0.36, height * 0.035, bark)
    else:
        picture.line([(x, base), (x + height * 0.02, base - height * 0.5)], bark, height * 0.05)
        shade = mood.lit(leaf_color(picture), 0.5)
        draw_crown(picture, x, base - height * 0.64, height * rng.uniform(0.28, 0.4), shade)


def draw_branches(
    picture: Picture,
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    shade: Array,
) -> None:
    """Draw a bare branch and its side branches, recursively."""
    if length < 0.02 or width < 0.0016:
        return
    rng = picture.rng
    end = (start[0] + math.cos(angle) * length, start[1] + math.sin(angle) * length)
    picture.line([start, end], shade, width)
    for _ in range(rng.integers(2, 4)):
        turn = angle + rng.normal(0, 0.5)
        draw_branches(picture, end, turn, length * rng.uniform(0.55, 0.8), width * 0.6, shade)


def draw_trunk(
    picture: Picture, x: float, width: float, base: float, shade: Array, lean: float
) -> None:
    """Draw a trunk to the upper edge as three strips: shaded, neutral and lit."""
    rng, top = picture.rng, -0.05
    narrow = width * rng.uniform(0.6, 0.9)
    head = x + lean
    middle = (x + head) / 2 + rng.normal(0, 0.3) * width
    for left, right, light in ((-0.5, 0.5, 0.72), (-0.42, 0.2, 1.0), (-0.32, -0.05, 1.28)):

        def edge(at: float) -> list[tuple[float, float]]:
            return [
                (x + at * width * 1.25, base),
                (x + at * width, base - 0.06),
                (middle + at * width * 0.9, (top + base) / 2),
                (head + at * narrow, top),
            ]

        picture.polygon(edge(left) + edge(right)[::-1], shade * light)


def draw_twigs(picture: Picture) -> None:
    """Draw a branch that hangs into the picture from a corner, close to the camera."""
    rng, mood = picture.rng, picture.mood
    side = 0.0 if rng.random() < 0.5 else 1.0
    dark = picture.surface("12 12 9", 0.02, 0.2)
    angle = math.pi * (0.2 if side == 0 else 0.8) + rng.normal(0, 0.3)
    y = rng.uniform(-0.05, 0.25)
    draw_branches(picture, (side, y), angle, rng.uniform(0.1, 0.2), 0.012, dark)
    if mood.season != "winter":
        leaf = mood.lit(leaf_color(picture), 0.3) * 0.7
        for _ in range(rng.integers(15, 50)):
            at_x, at_y = abs(side - abs(rng.normal(0, 0.16))), y + abs(rng.normal(0, 0.1))
            picture.ellipse(at_x, at_y, 0.012, 0.008, picture.jitter(leaf, 0.03))
