"""Clutter that may appear in any scene: birds, people, cars, boats and wires."""

from __future__ import annotations

import numpy as np

from scenelearn.samples._canvas import Array, Layer, Rng, color, jitter, random_color
from scenelearn.samples._mood import Mood
from scenelearn.samples._trees import draw_twigs

_COATS = [(0.7, 0.2, 0.18), (0.15, 0.2, 0.4), (0.1, 0.1, 0.1), (0.85, 0.8, 0.72), (0.8, 0.6, 0.1)]
_PAINTS = [(0.8, 0.8, 0.82), (0.1, 0.1, 0.12), (0.6, 0.1, 0.1), (0.15, 0.25, 0.5), (0.9, 0.72, 0.1)]


def draw_birds(rng: Rng, layer: Layer, mood: Mood, lowest: float) -> None:
    """Draw a flock in the sky above `lowest`."""
    dark = mood.lit(jitter(rng, color(0.2, 0.2, 0.22), 0.05), 0.1)
    x, y = rng.uniform(0.2, 0.8), rng.uniform(0.1, max(lowest, 0.15))
    for _ in range(int(rng.integers(1, 9))):
        at_x, at_y = x + rng.normal(0, 0.15), y + rng.normal(0, 0.07)
        span, lift = rng.uniform(0.008, 0.025), rng.uniform(0.002, 0.01)
        wings = [(at_x - span, at_y - lift), (at_x, at_y), (at_x + span, at_y - lift)]
        layer.line(wings, dark, 0.005)


def draw_person(rng: Rng, layer: Layer, mood: Mood, x: float, base: float, height: float) -> None:
    """Draw a person standing at (x, base)."""
    coat = mood.lit(random_color(rng, _COATS, 0.06), 0.4)
    legs = mood.lit(jitter(rng, color(0.16, 0.17, 0.22), 0.05), 0.4)
    width = height * rng.uniform(0.1, 0.15)
    stride = rng.uniform(0, 0.1) * height
    layer.line([(x - stride, base), (x, base - height * 0.48)], legs, width * 0.8)
    layer.line([(x + stride, base), (x, base - height * 0.48)], legs, width * 0.8)
    layer.box(x - width, base - height * 0.84, x + width, base - height * 0.42, coat)
    skin = mood.lit(random_color(rng, [(0.8, 0.62, 0.5), (0.45, 0.3, 0.22)], 0.05), 0.4)
    layer.ellipse(x, base - height * 0.91, height * 0.07, height * 0.09, skin)


def draw_car(rng: Rng, layer: Layer, mood: Mood, x: float, base: float, width: float) -> None:
    """Draw a car seen from behind or in front, standing at (x, base)."""
    paint = mood.lit(random_color(rng, _PAINTS, 0.05), 0.5)
    dark = mood.lit(color(0.08, 0.08, 0.1), 0.3)
    height = width * rng.uniform(0.7, 1.1)
    half = width / 2
    layer.ellipse(x, base, half * 1.15, width * 0.07, color(0.03, 0.03, 0.04), 0.5)
    for side in (-1, 1):
        wheel = x + side * half * 0.72
        layer.box(wheel - half * 0.17, base - height * 0.25, wheel + half * 0.17, base, dark)
    layer.box(x - half, base - height * 0.58, x + half, base - height * 0.12, paint)
    roof = [(x - half * 0.92, base - height * 0.56), (x - half * 0.7, base - height)]
    roof += [(x + half * 0.7, base - height), (x + half * 0.92, base - height * 0.56)]
    layer.polygon(roof, paint * 0.92)
    glass = mood.lit(color(0.2, 0.25, 0.3), 0.6)
    pane = [(x - half * 0.76, base - height * 0.58), (x - half * 0.6, base - height * 0.93)]
    pane += [(x + half * 0.6, base - height * 0.93), (x + half * 0.76, base - height * 0.58)]
    layer.polygon(pane, glass)
    front = rng.random() < 0.5
    lamp = color(1.0, 0.95, 0.75) if front else color(0.85, 0.1, 0.08)
    glow = 1.0 if mood.hour in ("night", "dusk") else 0.7
    for side in (-1, 1):
        layer.ellipse(
            x + side * half * 0.78, base - height * 0.4, half * 0.15, half * 0.11, lamp * glow
        )
    layer.box(x - half * 0.3, base - height * 0.3, x + half * 0.3, base - height * 0.2, dark * 1.5)


def draw_side_car(rng: Rng, layer: Layer, mood: Mood, x: float, base: float, length: float) -> None:
    """Draw a car from its side."""
    paint = mood.lit(random_color(rng, _PAINTS, 0.05), 0.5)
    dark = mood.lit(color(0.06, 0.06, 0.07), 0.3)
    height = length * 0.3
    end = x + length
    layer.polygon(
        [
            (x, base - height * 0.2),
            (x + length * 0.02, base - height * 0.6),
            (x + length * 0.2, base - height * 0.65),
            (x + length * 0.34, base - height * 1.05),
            (x + length * 0.72, base - height * 1.05),
            (x + length * 0.9, base - height * 0.65),
            (end, base - height * 0.55),
            (end, base - height * 0.2),
        ],
        paint,
    )
    glass = [(x + length * 0.27, base - height * 0.68), (x + length * 0.37, base - height * 0.97)]
    glass += [(x + length * 0.69, base - height * 0.97), (x + length * 0.81, base - height * 0.68)]
    layer.polygon(glass, mood.lit(color(0.18, 0.22, 0.27), 0.6))
    for wheel in (0.2, 0.8):
        layer.ellipse(
            x + length * wheel, base - height * 0.15, length * 0.075, length * 0.075, dark
        )


def draw_boat(rng: Rng, layer: Layer, mood: Mood, x: float, base: float, length: float) -> None:
    """Draw a sailing boat or a small ship floating at (x, base)."""
    hull = mood.lit(random_color(rng, [*_PAINTS, (0.5, 0.35, 0.22)], 0.05), 0.5)
    half = length / 2
    deck = base - length * 0.16
    shape = [(x - half, deck), (x + half, deck), (x + half * 0.75, base), (x - half * 0.75, base)]
    layer.polygon(shape, hull)
    if rng.random() < 0.6:
        sail = mood.lit(random_color(rng, [(0.92, 0.92, 0.9), (0.75, 0.3, 0.2)], 0.05), 0.55)
        mast = deck - length * rng.uniform(0.9, 1.4)
        layer.line([(x, deck), (x, mast)], hull * 0.5, max(0.003, length * 0.03))
        layer.polygon(
            [(x + length * 0.03, deck - 0.01), (x + 0.01, mast), (x + half * 0.9, deck - 0.01)],
            sail,
        )
        layer.polygon(
            [(x - length * 0.03, deck - 0.01), (x, mast), (x - half * 0.7, deck - 0.01)],
            sail * 0.85,
        )
    else:
        cabin = mood.lit(color(0.85, 0.85, 0.83), 0.5)
        layer.box(x - half * 0.4, deck - length * 0.2, x + half * 0.3, deck, cabin)
        layer.box(
            x - half * 0.3, deck - length * 0.14, x + half * 0.2, deck - length * 0.07, hull * 0.4
        )


def draw_wires(rng: Rng, layer: Layer, mood: Mood) -> None:
    """Draw a few sagging wires across the picture."""
    dark = mood.lit(color(0.1, 0.1, 0.11), 0.2)
    across = np.linspace(-0.02, 1.02, 12)
    y, slope = rng.uniform(0.03, 0.4), rng.normal(0, 0.25)
    for _ in range(int(rng.integers(1, 5))):
        sag = rng.uniform(0.01, 0.08)
        heights = y + slope * across - sag * 4 * (across - 0.5) ** 2 + sag
        layer.line(list(zip(across.tolist(), heights.tolist(), strict=True)), dark, 0.004)
        y += rng.uniform(0.01, 0.06)


def add_clutter(rng: Rng, canvas: Array, mood: Mood, horizon: float, base: float) -> Array:
    """Add random clutter, or none: birds, people, twigs, wires, a pole.

    Args:
        rng: Random number generator.
        canvas: Painted scene.
        mood: Light and weather.
        horizon: Position of the horizon; birds stay above it.
        base: Where people stand, as a fraction of the height.

    Returns:
        The new canvas.
    """
    kinds = rng.random(5)
    if kinds.min() > 0.16:
        return canvas
    layer = Layer()
    if kinds[0] < 0.16:
        draw_birds(rng, layer, mood, horizon)
    if kinds[1] < 0.12:
        for _ in range(int(rng.integers(1, 4))):
            draw_person(rng, layer, mood, rng.uniform(0.1, 0.9), base, rng.uniform(0.06, 0.3))
    if kinds[2] < 0.1:
        draw_twigs(rng, layer, mood)
    if kinds[3] < 0.06:
        draw_wires(rng, layer, mood)
    if kinds[4] < 0.035:
        x, gray = rng.uniform(0.05, 0.95), mood.lit(jitter(rng, color(0.35, 0.33, 0.3), 0.1), 0.3)
        layer.box(x - 0.008, rng.uniform(0, 0.4), x + 0.008, 1.0, gray)
    return layer.composite(canvas, float(rng.uniform(0, 1.2)) if rng.random() < 0.3 else 0.0)
