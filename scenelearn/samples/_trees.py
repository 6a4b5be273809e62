"""Trees: conifers, crowns, bare branches, trunks and leaf textures."""

from __future__ import annotations

import math

import numpy as np

from scenelearn.samples._canvas import Array, Layer, Rng, color, jitter, noise, random_color, relief
from scenelearn.samples._mood import Mood

_LEAVES: dict[str, list[tuple[float, float, float]]] = {
    "spring": [(0.38, 0.52, 0.2), (0.3, 0.46, 0.22), (0.5, 0.56, 0.3), (0.75, 0.6, 0.65)],
    "summer": [(0.16, 0.34, 0.12), (0.22, 0.4, 0.16), (0.12, 0.27, 0.14), (0.3, 0.4, 0.18)],
    "autumn": [(0.65, 0.38, 0.1), (0.6, 0.25, 0.1), (0.7, 0.55, 0.2), (0.4, 0.32, 0.16)],
    "winter": [(0.3, 0.28, 0.25), (0.75, 0.78, 0.83), (0.42, 0.36, 0.32), (0.2, 0.26, 0.22)],
}
_NEEDLES: list[tuple[float, float, float]] = [
    (0.1, 0.22, 0.13),
    (0.14, 0.25, 0.2),
    (0.08, 0.17, 0.14),
    (0.2, 0.28, 0.15),
]


def leaf_color(rng: Rng, mood: Mood) -> Array:
    """Return a color of leaves in the season."""
    return random_color(rng, _LEAVES[mood.season], 0.04)


def needle_color(rng: Rng, mood: Mood) -> Array:
    """Return a color of conifers, sometimes white with snow in winter."""
    if mood.season == "winter" and rng.random() < 0.6:
        return random_color(rng, [(0.72, 0.77, 0.83), (0.5, 0.56, 0.6), (0.3, 0.36, 0.38)], 0.04)
    if mood.season == "autumn" and rng.random() < 0.3:
        return random_color(rng, [(0.6, 0.45, 0.15), (0.55, 0.35, 0.12)], 0.04)
    return random_color(rng, _NEEDLES, 0.03)


def leaf_texture(rng: Rng, mood: Mood, coarse: float, contrast: float = 1.0) -> Array:
    """Return brightness factors around 1 that look like leaves lit from above.

    Args:
        rng: Random number generator.
        mood: The direction of the light.
        coarse: Size of the clumps: about 0.9 for small ones, 1.6 for large ones.
        contrast: Strength of light and shade.

    Returns:
        Array of shape (SIDE, SIDE).
    """
    clumps = noise(rng, coarse, lowest=4)
    leaves = noise(rng, 0.45, lowest=16)
    shade = relief(clumps, 0.35 * mood.side, 0.7) + 0.25 * clumps + 0.2 * leaves
    factors: Array = np.clip(1 + contrast * 0.55 * shade, 0.15, 2.2)
    return factors


def draw_conifer(
    rng: Rng, layer: Layer, x: float, base: float, height: float, dark: Array, bright: Array
) -> None:
    """Draw a fir with its foot at (x, base), lighter on its left half."""
    n_tiers = int(rng.integers(5, 9))
    spread = height * rng.uniform(0.16, 0.26)
    left, right = [(x, base - height)], [(x, base - height)]
    for tier in range(1, n_tiers + 1):
        y = base - height * (1 - tier / n_tiers) * 0.97
        reach = spread * (tier / n_tiers) * rng.uniform(0.8, 1.15)
        left += [(x - reach, y), (x - reach * 0.5, y - height * 0.02)]
        right += [(x + reach, y), (x + reach * 0.5, y - height * 0.02)]
    layer.polygon(left + right[::-1], dark)
    layer.polygon([*left, (x, base - height * 0.03)], bright)
    layer.box(x - height * 0.012, base - height * 0.04, x + height * 0.012, base, dark * 0.6)


def draw_spruce(
    rng: Rng, layer: Layer, x: float, base: float, height: float, dark: Array, bright: Array
) -> None:
    """Draw a distant fir with two polygons."""
    reach = height * rng.uniform(0.16, 0.26)
    top, low = (x, base - height), base - height * 0.08
    layer.polygon([top, (x + reach, low), (x, base), (x - reach, low)], dark)
    layer.polygon([top, (x, low), (x - reach, low)], bright)


def draw_crown(
    rng: Rng, layer: Layer, x: float, y: float, radius: float, shade: Array, n_dabs: int = 34
) -> None:
    """Draw a leafy crown as dabs, dark below and bright above."""
    angle = rng.uniform(0, 2 * math.pi, n_dabs)
    reach = radius * np.sqrt(rng.random(n_dabs)) * 0.85
    heights = np.sin(angle) * reach * 0.85
    order = np.argsort(-heights)
    lights = 0.84 - 0.6 * heights / radius + rng.normal(0, 0.12, n_dabs)
    sizes = radius * rng.uniform(0.16, 0.36, n_dabs)
    shades = (shade.ravel() * lights[:, None]).astype(np.float32)
    across = np.cos(angle) * reach
    for dab in order.tolist():
        size = float(sizes[dab])
        layer.ellipse(x + across[dab], y + heights[dab], size, size * 0.8, shades[dab])


def draw_tree(rng: Rng, layer: Layer, mood: Mood, x: float, base: float, height: float) -> None:
    """Draw a free-standing tree of any kind with its foot at (x, base)."""
    bark = mood.lit(jitter(rng, color(0.28, 0.22, 0.17), 0.03), 0.3)
    if rng.random() < 0.25:
        shade = mood.lit(needle_color(rng, mood), 0.45)
        draw_conifer(rng, layer, x, base, height, shade * 0.75, shade * 1.15)
    elif mood.season == "winter" or rng.random() < 0.08:
        draw_branches(rng, layer, (x, base), -math.pi / 2, height * 0.36, height * 0.035, bark)
    else:
        layer.line([(x, base), (x + height * 0.02, base - height * 0.5)], bark, height * 0.05)
        shade = mood.lit(leaf_color(rng, mood), 0.5)
        draw_crown(rng, layer, x, base - height * 0.64, height * rng.uniform(0.28, 0.4), shade)


def draw_branches(
    rng: Rng,
    layer: Layer,
    start: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    shade: Array,
) -> None:
    """Draw a bare branch and its side branches, recursively."""
    if length < 0.02 or width < 0.0016:
        return
    x, y = start
    end = (x + math.cos(angle) * length, y + math.sin(angle) * length)
    layer.line([start, end], shade, width)
    for _ in range(int(rng.integers(2, 4))):
        turn = angle + rng.normal(0, 0.5)
        draw_branches(rng, layer, end, turn, length * rng.uniform(0.55, 0.8), width * 0.6, shade)


def draw_trunk(
    rng: Rng,
    layer: Layer,
    x: float,
    width: float,
    top: float,
    base: float,
    shade: Array,
    lean: float,
) -> None:
    """Draw a trunk as three strips: shaded, neutral and lit."""
    narrow = width * rng.uniform(0.6, 0.9)
    head = x + lean
    bend = rng.normal(0, 0.3) * width
    middle = (x + head) / 2 + bend
    y = (top + base) / 2
    for left, right, light in ((-0.5, 0.5, 0.72), (-0.42, 0.2, 1.0), (-0.32, -0.05, 1.28)):
        layer.polygon(
            [
                (x + left * width * 1.25, base),
                (x + left * width, base - 0.06),
                (middle + left * width * 0.9, y),
                (head + left * narrow, top),
                (head + right * narrow, top),
                (middle + right * width * 0.9, y),
                (x + right * width, base - 0.06),
                (x + right * width * 1.25, base),
            ],
            shade * light,
        )


def draw_twigs(rng: Rng, layer: Layer, mood: Mood) -> None:
    """Draw a branch that hangs into the picture from a corner, close to the camera."""
    side = 0.0 if rng.random() < 0.5 else 1.0
    dark = mood.lit(jitter(rng, color(0.12, 0.12, 0.09), 0.02), 0.2)
    angle = math.pi * (0.2 if side == 0 else 0.8) + rng.normal(0, 0.3)
    start = (side, float(rng.uniform(-0.05, 0.25)))
    draw_branches(rng, layer, start, angle, rng.uniform(0.1, 0.2), 0.012, dark)
    if mood.season != "winter":
        leaf = mood.lit(leaf_color(rng, mood), 0.3) * 0.7
        for _ in range(int(rng.integers(15, 50))):
            x = abs(side - abs(rng.normal(0, 0.16)))
            layer.ellipse(
                x, start[1] + abs(rng.normal(0, 0.1)), 0.012, 0.008, jitter(rng, leaf, 0.03)
            )
