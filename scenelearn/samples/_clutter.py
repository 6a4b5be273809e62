"""Clutter that may appear in any scene: birds, people, cars, boats and wires."""

from __future__ import annotations

import numpy as np

from scenelearn.samples._canvas import Points, color
from scenelearn.samples._picture import Picture
from scenelearn.samples._trees import draw_twigs

_PAINTS = "80 80 82, 10 10 12, 60 10 10, 15 25 50, 90 72 10"


def draw_birds(picture: Picture, lowest: float) -> None:
    """Draw a flock in the sky above `lowest`."""
    rng = picture.rng
    dark = picture.surface("20 20 22", 0.05, 0.1)
    x, y = rng.uniform(0.2, 0.8), rng.uniform(0.1, max(lowest, 0.15))
    for _ in range(rng.integers(1, 9)):
        at_x, at_y = x + rng.normal(0, 0.15), y + rng.normal(0, 0.07)
        span, lift = rng.uniform(0.008, 0.025), rng.uniform(0.002, 0.01)
        wings = [(at_x - span, at_y - lift), (at_x, at_y), (at_x + span, at_y - lift)]
        picture.line(wings, dark, 0.005)


def draw_person(picture: Picture, x: float, base: float, height: float) -> None:
    """Draw a person standing at (x, base)."""
    rng = picture.rng
    coat = picture.surface("70 20 18, 15 20 40, 10 10 10, 85 80 72, 80 60 10", 0.06, 0.4)
    legs = picture.surface("16 17 22", 0.05, 0.4)
    width = height * rng.uniform(0.1, 0.15)
    stride = rng.uniform(0, 0.1) * height
    for foot in (x - stride, x + stride):
        picture.line([(foot, base), (x, base - height * 0.48)], legs, width * 0.8)
    picture.box(x - width, base - height * 0.84, x + width, base - height * 0.42, coat)
    skin = picture.surface("80 62 50, 45 30 22", 0.05, 0.4)
    picture.ellipse(x, base - height * 0.91, height * 0.07, height * 0.09, skin)


def _outline(x: float, base: float, width: float, height: float, corners: Points) -> Points:
    """Scale the corners of a shape, in fractions of its width and height, to the canvas."""
    return [(x + across * width, base - up * height) for across, up in corners]


def draw_car(picture: Picture, x: float, base: float, width: float) -> None:
    """Draw a car seen from behind or in front, standing at (x, base)."""
    rng, mood = picture.rng, picture.mood
    paint = picture.surface(_PAINTS, 0.05, 0.5)
    dark = mood.lit(color(0.08, 0.08, 0.1), 0.3)
    height, half = width * rng.uniform(0.7, 1.1), width / 2
    picture.ellipse(x, base, half * 1.15, width * 0.07, color(0.03, 0.03, 0.04), 0.5)
    for side in (-1, 1):
        wheel = x + side * half * 0.72
        picture.box(wheel - half * 0.17, base - height * 0.25, wheel + half * 0.17, base, dark)
    picture.box(x - half, base - height * 0.58, x + half, base - height * 0.12, paint)
    roof = [(-0.92, 0.56), (-0.7, 1.0), (0.7, 1.0), (0.92, 0.56)]
    picture.polygon(_outline(x, base, half, height, roof), paint * 0.92)
    pane = [(-0.76, 0.58), (-0.6, 0.93), (0.6, 0.93), (0.76, 0.58)]
    glass = mood.lit(color(0.2, 0.25, 0.3), 0.6)
    picture.polygon(_outline(x, base, half, height, pane), glass)
    lamp = color(1.0, 0.95, 0.75) if rng.random() < 0.5 else color(0.85, 0.1, 0.08)
    glow = lamp * (1.0 if mood.dark else 0.7)
    for at in _outline(x, base, half, height, [(-0.78, 0.4), (0.78, 0.4)]):
        picture.ellipse(*at, half * 0.15, half * 0.11, glow)
    picture.box(
        x - half * 0.3, base - height * 0.3, x + half * 0.3, base - height * 0.2, dark * 1.5
    )


def draw_side_car(picture: Picture, x: float, base: float, length: float) -> None:
    """Draw a car from its side."""
    mood = picture.mood
    paint, height = picture.surface(_PAINTS, 0.05, 0.5), length * 0.3
    body = [(0, 0.2), (0.02, 0.6), (0.2, 0.65), (0.34, 1.05), (0.72, 1.05), (0.9, 0.65)]
    body += [(1, 0.55), (1, 0.2)]
    picture.polygon(_outline(x, base, length, height, body), paint)
    pane = [(0.27, 0.68), (0.37, 0.97), (0.69, 0.97), (0.81, 0.68)]
    glass = mood.lit(color(0.18, 0.22, 0.27), 0.6)
    picture.polygon(_outline(x, base, length, height, pane), glass)
    dark = mood.lit(color(0.06, 0.06, 0.07), 0.3)
    for at in _outline(x, base, length, height, [(0.2, 0.15), (0.8, 0.15)]):
        picture.ellipse(*at, length * 0.075, length * 0.075, dark)


def draw_boat(picture: Picture, x: float, base: float, length: float) -> None:
    """Draw a sailing boat or a small ship floating at (x, base)."""
    rng = picture.rng
    hull = picture.surface(f"{_PAINTS}, 50 35 22", 0.05, 0.5)
    half, deck = length / 2, base - length * 0.16
    shape = [(x - half, deck), (x + half, deck), (x + half * 0.75, base), (x - half * 0.75, base)]
    picture.polygon(shape, hull)
    if rng.random() < 0.6:
        sail = picture.surface("92 92 90, 75 30 20", 0.05, 0.55)
        mast, low = deck - length * rng.uniform(0.9, 1.4), deck - 0.01
        picture.line([(x, deck), (x, mast)], hull * 0.5, max(0.003, length * 0.03))
        picture.polygon([(x + length * 0.03, low), (x + 0.01, mast), (x + half * 0.9, low)], sail)
        picture.polygon([(x - length * 0.03, low), (x, mast), (x - half * 0.7, low)], sail * 0.85)
    else:
        cabin = picture.mood.lit(color(0.85, 0.85, 0.83), 0.5)
        picture.box(x - half * 0.4, deck - length * 0.2, x + half * 0.3, deck, cabin)
        low, high = deck - length * 0.07, deck - length * 0.14
        picture.box(x - half * 0.3, high, x + half * 0.2, low, hull * 0.4)


def draw_wires(picture: Picture) -> None:
    """Draw a few sagging wires across the picture."""
    rng = picture.rng
    dark = picture.mood.lit(color(0.1, 0.1, 0.11), 0.2)
    across = np.linspace(-0.02, 1.02, 12)
    y, slope = rng.uniform(0.03, 0.4), rng.normal(0, 0.25)
    for _ in range(rng.integers(1, 5)):
        sag = rng.uniform(0.01, 0.08)
        heights = y + slope * across - sag * 4 * (across - 0.5) ** 2 + sag
        picture.line(list(zip(across.tolist(), heights.tolist(), strict=True)), dark, 0.004)
        y += rng.uniform(0.01, 0.06)


def add_clutter(picture: Picture, horizon: float, base: float) -> None:
    """Add random clutter, or none: birds, people, twigs, wires, a pole.

    Args:
        picture: the painted scene.
        horizon: position of the horizon; birds stay above it.
        base: where people stand, as a fraction of the height.
    """
    rng = picture.rng
    kinds = rng.random(5)
    if kinds.min() > 0.16:
        return
    if kinds[0] < 0.16:
        draw_birds(picture, horizon)
    if kinds[1] < 0.12:
        for _ in range(rng.integers(1, 4)):
            draw_person(picture, rng.uniform(0.1, 0.9), base, rng.uniform(0.06, 0.3))
    if kinds[2] < 0.1:
        draw_twigs(picture)
    if kinds[3] < 0.06:
        draw_wires(picture)
    if kinds[4] < 0.035:
        x, gray = rng.uniform(0.05, 0.95), picture.surface("35 33 30", 0.1, 0.3)
        picture.box(x - 0.008, rng.uniform(0, 0.4), x + 0.008, 1.0, gray)
    picture.flatten(rng.uniform(0, 1.2) if rng.random() < 0.3 else 0.0)
