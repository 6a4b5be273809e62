"""Buildings: corners, towers from below, skylines, houses and facades close up."""

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
    from_image,
    jitter,
    mix,
    noise,
    random_color,
    to_image,
)
from scenelearn.samples._clutter import add_clutter, draw_person, draw_side_car, draw_wires
from scenelearn.samples._facade import draw_facade, place_facade
from scenelearn.samples._mood import Mood, paint_sky, sample_mood
from scenelearn.samples._mountain import paint_lake
from scenelearn.samples._trees import draw_tree

_ROOFS = [
    (0.55, 0.28, 0.2),
    (0.3, 0.28, 0.28),
    (0.42, 0.34, 0.3),
    (0.3, 0.36, 0.4),
    (0.5, 0.42, 0.3),
]
_GROUNDS = [(0.4, 0.4, 0.41), (0.55, 0.52, 0.47), (0.3, 0.38, 0.18), (0.5, 0.46, 0.36)]


def paint_buildings(rng: Rng) -> tuple[Array, Mood]:
    """Paint a scene of buildings and return it with its mood."""
    mood = sample_mood(rng, night=0.12)
    kind = rng.random()
    if kind < 0.3:
        canvas = _paint_corner(rng, mood)
    elif kind < 0.5:
        canvas = _paint_towers(rng, mood)
    elif kind < 0.68:
        canvas = _paint_skyline(rng, mood)
    elif kind < 0.86:
        canvas = _paint_houses(rng, mood)
    else:
        canvas = _paint_close_up(rng, mood)
    if rng.random() < 0.2:
        layer = Layer()
        draw_wires(rng, layer, mood)
        canvas = layer.composite(canvas)
    return add_clutter(rng, canvas, mood, 0.3, rng.uniform(0.9, 1.02)), mood


def _paint_ground(rng: Rng, mood: Mood, canvas: Array, level: float) -> Array:
    white = mood.season == "winter" and mood.weather == "snow"
    earth = color(0.85, 0.87, 0.9) if white else random_color(rng, _GROUNDS, 0.05)
    grain = 1 + 0.07 * noise(rng, 0.8, 3.0)
    fall = 0.9 + 0.4 * (V - level)
    shown = mood.lit(earth, 0.4) * (grain * fall)
    return mix(canvas, shown, np.clip((V - level) * SIDE, 0, 1) + 0 * U)


def _paint_corner(rng: Rng, mood: Mood) -> Array:
    """Paint one or two buildings in two-point perspective, seen at their corner."""
    eye = float(rng.uniform(0.55, 0.95))
    canvas = _paint_ground(rng, mood, paint_sky(rng, mood, eye), eye)
    n_buildings = int(rng.integers(1, 4))
    for number in range(n_buildings):
        near = (number + 1) / n_buildings
        x = float(rng.uniform(0.15, 0.85))
        above = float(rng.uniform(0.35, 1.0)) * (0.6 + 0.5 * near)
        below = float(rng.uniform(0.03, 0.14)) * near
        top, bottom = eye - above, eye + below
        sun_left = mood.side > 0
        for side in (-1, 1):
            reach = float(rng.uniform(0.25, 0.9)) * side
            squeeze = float(rng.uniform(0.3, 0.8)) ** abs(reach)
            end = x + reach
            lit = 0.65 if (side < 0) == sun_left else 0.15
            rows = max(2, int(above * rng.uniform(7, 13)))
            columns = max(2, int(abs(reach) * rng.uniform(8, 16)))
            shops = rng.random() < 0.3
            facade = draw_facade(rng, mood, columns, rows, shops=shops, light=lit)
            far_top, far_bottom = eye - above * squeeze, eye + below * squeeze
            if side < 0:
                corners = [(end, far_top), (x, top), (x, bottom), (end, far_bottom)]
            else:
                corners = [(x, top), (end, far_top), (end, far_bottom), (x, bottom)]
            canvas = place_facade(canvas, facade, corners, rng.uniform(0.85, 1.1))
        canvas = mood.far(canvas, 0.25 * (1 - near))
    return _paint_front(rng, mood, canvas, eye)


def _paint_towers(rng: Rng, mood: Mood) -> Array:
    """Paint towers from below: their edges converge overhead."""
    canvas = paint_sky(rng, mood, 1.2)
    away_x, away_y = float(rng.uniform(0.2, 0.8)), float(rng.uniform(-1.6, -0.4))
    for _ in range(int(rng.integers(1, 5))):
        x, width = float(rng.uniform(-0.3, 1.0)), float(rng.uniform(0.3, 0.7))
        split = x + width * float(rng.uniform(0.15, 0.85))
        height = float(rng.uniform(0.35, 0.85))

        def lean(at: float, base: float, up: float = height) -> tuple[float, float]:
            return at + (away_x - at) * up, base + (away_y - base) * up

        low = 1.15
        for left, right, lift, light in (
            (x, split, (0.12, 0.0), 0.2 + 0.45 * (mood.side > 0)),
            (split, x + width, (0.0, 0.12), 0.2 + 0.45 * (mood.side < 0)),
        ):
            facade = draw_facade(
                rng, mood, int(rng.integers(3, 10)), int(rng.integers(10, 24)), light=light
            )
            foot_left, foot_right = low - lift[0], low - lift[1]
            corners = [lean(left, foot_left), lean(right, foot_right)]
            corners += [(right, foot_right), (left, foot_left)]
            canvas = place_facade(canvas, facade, corners, rng.uniform(0.85, 1.1))
    return canvas


def _paint_skyline(rng: Rng, mood: Mood) -> Array:
    """Paint a city from afar, sometimes behind water."""
    base = float(rng.uniform(0.6, 0.95))
    canvas = paint_sky(rng, mood, base)
    n_rows = int(rng.integers(2, 5))
    for row in range(n_rows):
        near = (row + 1) / n_rows
        x = -0.1
        while x < 1.05:
            width = float(rng.uniform(0.06, 0.22)) * (0.6 + 0.6 * near)
            height = float(rng.uniform(0.1, 0.6)) * rng.uniform(0.6, 1.1)
            rows, columns = max(3, int(height * 30)), max(2, int(width * 36))
            facade = draw_facade(rng, mood, columns, rows, light=rng.uniform(0.15, 0.6))
            top = base - height * (1.1 - 0.4 * near)
            corners = [(x, top), (x + width, top), (x + width, base), (x, base)]
            faded = to_image(mood.far(from_image(facade), 1 - near))
            canvas = place_facade(canvas, faded, corners, 1.0)
            if rng.random() < 0.2:
                mast = Layer()
                middle = x + width / 2
                mast.polygon(
                    [(middle - 0.008, top), (middle, top - 0.12), (middle + 0.008, top)],
                    mood.lit(color(0.4, 0.4, 0.42), 0.3),
                )
                canvas = mast.composite(canvas)
            x += width * rng.uniform(0.8, 1.5)
        base += rng.uniform(0.0, 0.05)
    if rng.random() < 0.4:
        return paint_lake(rng, mood, canvas, base)
    canvas = _paint_ground(rng, mood, canvas, base)
    return _paint_front(rng, mood, canvas, base)


def _paint_houses(rng: Rng, mood: Mood) -> Array:
    """Paint one to four houses with pitched roofs, and their gardens."""
    level = float(rng.uniform(0.62, 0.9))
    canvas = _paint_ground(rng, mood, paint_sky(rng, mood, level), level - 0.05)
    n_houses = int(rng.integers(1, 4))
    back = Layer()
    for _ in range(int(rng.integers(0, 6))):
        draw_tree(rng, back, mood, rng.uniform(0, 1), level, rng.uniform(0.2, 0.6))
    canvas = back.composite(canvas)
    for number in range(n_houses):
        width = float(rng.uniform(0.3, 0.75)) / (0.6 + 0.4 * n_houses)
        x = float((number + rng.uniform(0.2, 0.8)) / n_houses - width / 2)
        stories = int(rng.integers(1, 5))
        height = stories * float(rng.uniform(0.09, 0.14))
        foot = level + float(rng.uniform(-0.03, 0.05))
        top, skew = foot - height, float(rng.normal(0, 0.04))
        facade = draw_facade(
            rng, mood, max(2, int(width * 10)), stories, light=rng.uniform(0.2, 0.65)
        )
        corners = [(x, top), (x + width, top + skew), (x + width, foot - skew * 0.3), (x, foot)]
        roof = mood.lit(random_color(rng, _ROOFS, 0.05), rng.uniform(0.2, 0.6))
        canvas = place_facade(canvas, facade, corners, 1.0)
        layer = Layer()
        eaves, peak = width * 0.06, top - width * float(rng.uniform(0.2, 0.5))
        if rng.random() < 0.5:
            middle = x + width * rng.uniform(0.4, 0.6)
            layer.polygon(
                [(x, top + 0.01), (middle, peak), (x + width, top + skew)],
                mood.lit(color(0.7, 0.62, 0.52), 0.4),
            )
            layer.line(
                [(x - eaves, top + 0.02), (middle, peak), (x + width + eaves, top + skew + 0.02)],
                roof,
                0.025,
            )
        else:
            inset = width * rng.uniform(0.05, 0.25)
            outline = [(x - eaves, top + 0.01), (x + inset, peak), (x + width - inset, peak + skew)]
            layer.polygon([*outline, (x + width + eaves, top + skew + 0.01)], roof)
            for course in np.linspace(0.2, 0.9, 5):
                y = peak + (top - peak) * course
                layer.line(
                    [(x + inset * (1 - course), y), (x + width - inset * (1 - course), y + skew)],
                    roof * 0.85,
                    0.004,
                )
        chimney = x + width * rng.uniform(0.2, 0.8)
        layer.box(chimney, peak - 0.04, chimney + 0.03, peak + 0.06, roof * 0.7)
        canvas = layer.composite(canvas)
    return _paint_front(rng, mood, canvas, level)


def _paint_close_up(rng: Rng, mood: Mood) -> Array:
    """Paint a facade that fills the picture, straight or askew."""
    canvas = np.broadcast_to(mood.horizon, (3, SIDE, SIDE)).astype(np.float32)
    columns, rows = int(rng.integers(3, 14)), int(rng.integers(3, 12))
    facade = draw_facade(rng, mood, columns, rows, light=rng.uniform(0.1, 0.7))
    skew = rng.normal(0, 0.25, (4, 2)).clip(-0.5, 0.25)
    corners = [
        (skew[0, 0] - 0.25, skew[0, 1] - 0.25),
        (1.25 - skew[1, 0], skew[1, 1] - 0.25),
        (1.25 - skew[2, 0], 1.25 - skew[2, 1]),
        (skew[3, 0] - 0.25, 1.25 - skew[3, 1]),
    ]
    canvas = place_facade(canvas, facade, corners, 1.0)
    shadow = np.clip(1.1 - 0.35 * np.abs(noise(rng, 2.0)), 0.6, 1.1)
    return canvas * shadow


def _paint_front(rng: Rng, mood: Mood, canvas: Array, level: float) -> Array:
    """Place trees, people and parked cars in front of the buildings."""
    layer = Layer()
    if rng.random() < 0.45:
        for _ in range(int(rng.integers(1, 5))):
            foot = level + rng.uniform(0.02, 0.15)
            draw_tree(rng, layer, mood, rng.uniform(0, 1), foot, rng.uniform(0.1, 0.45))
    if rng.random() < 0.2:
        for _ in range(int(rng.integers(1, 4))):
            size = rng.uniform(0.12, 0.25)
            draw_side_car(rng, layer, mood, rng.uniform(-0.1, 0.9), level + 0.06, size)
    if rng.random() < 0.25:
        for _ in range(int(rng.integers(1, 7))):
            draw_person(rng, layer, mood, rng.uniform(0, 1), level + 0.07, rng.uniform(0.05, 0.12))
    if rng.random() < 0.15:
        gray = mood.lit(jitter(rng, color(0.4, 0.4, 0.4), 0.1), 0.3)
        for x in rng.uniform(0, 1, 2):
            layer.box(x - 0.006, level - 0.4, x + 0.006, level + 0.08, gray)
    return layer.composite(canvas)
