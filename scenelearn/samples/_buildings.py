"""Buildings: corners, towers from below, skylines, houses and facades close up."""

from __future__ import annotations

import numpy as np

from scenelearn.samples._canvas import V, color, from_image, to_image
from scenelearn.samples._clutter import draw_person, draw_side_car, draw_wires
from scenelearn.samples._facade import draw_facade, place_facade, upright
from scenelearn.samples._picture import Picture, paint_lake, paint_sky
from scenelearn.samples._trees import draw_tree


def paint_buildings(picture: Picture) -> tuple[float, float]:
    """Paint a scene of buildings."""
    picture.paint_one_of(
        (0.3, _paint_corner),
        (0.5, _paint_towers),
        (0.68, _paint_skyline),
        (0.86, _paint_houses),
        (1.0, _paint_close_up),
    )
    if picture.rng.random() < 0.2:
        draw_wires(picture)
        picture.flatten()
    return 0.3, picture.rng.uniform(0.9, 1.02)


def _paint_ground(picture: Picture, level: float) -> None:
    mood = picture.mood
    white = mood.season == "winter" and mood.weather == "snow"
    earth = color(0.85, 0.87, 0.9)
    if not white:
        earth = picture.color("40 40 41, 55 52 47, 30 38 18, 50 46 36", 0.05)
    grain = 1 + 0.07 * picture.noise(0.8, 3.0)
    picture.cover_below(level, mood.lit(earth, 0.4) * (grain * (0.9 + 0.4 * (V - level))))


def _paint_corner(picture: Picture) -> None:
    """Paint one or two buildings in two-point perspective, seen at their corner."""
    rng, mood = picture.rng, picture.mood
    eye = rng.uniform(0.55, 0.95)
    paint_sky(picture, eye)
    _paint_ground(picture, eye)
    n_buildings = int(rng.integers(1, 4))
    for number in range(n_buildings):
        near = (number + 1) / n_buildings
        x = rng.uniform(0.15, 0.85)
        above = rng.uniform(0.35, 1.0) * (0.6 + 0.5 * near)
        below = rng.uniform(0.03, 0.14) * near
        for side in (-1, 1):
            reach = rng.uniform(0.25, 0.9)
            squeeze = rng.uniform(0.3, 0.8) ** reach
            rows = max(2, int(above * rng.uniform(7, 13)))
            columns = max(2, int(reach * rng.uniform(8, 16)))
            shops, light = rng.random() < 0.3, 0.15 if side * mood.side > 0 else 0.65
            facade = draw_facade(picture, columns, rows, shops=shops, light=light)
            near_edge = [(x, eye - above), (x, eye + below)]
            end = x + reach * side
            far_edge = [(end, eye - above * squeeze), (end, eye + below * squeeze)]
            left, right = (far_edge, near_edge) if side < 0 else (near_edge, far_edge)
            corners = [left[0], *right, left[1]]
            place_facade(picture, facade, corners, rng.uniform(0.85, 1.1))
        picture.canvas = mood.far(picture.canvas, 0.25 * (1 - near))
    _paint_front(picture, eye)


def _paint_towers(picture: Picture) -> None:
    """Paint towers from below: their edges converge overhead."""
    rng, mood = picture.rng, picture.mood
    paint_sky(picture, 1.2)
    away_x, away_y = rng.uniform(0.2, 0.8), rng.uniform(-1.6, -0.4)
    for _ in range(rng.integers(1, 5)):
        x, width = rng.uniform(-0.3, 1.0), rng.uniform(0.3, 0.7)
        split = x + width * rng.uniform(0.15, 0.85)
        up = rng.uniform(0.35, 0.85)
        for left, right, lift, side in (
            (x, split, (0.12, 0.0), 1),
            (split, x + width, (0.0, 0.12), -1),
        ):
            columns, rows = int(rng.integers(3, 10)), int(rng.integers(10, 24))
            light = 0.2 + 0.45 * (mood.side == side)
            facade = draw_facade(picture, columns, rows, light=light)
            feet = [(left, 1.15 - lift[0]), (right, 1.15 - lift[1])]
            heads = [(at + (away_x - at) * up, base + (away_y - base) * up) for at, base in feet]
            place_facade(picture, facade, heads + feet[::-1], rng.uniform(0.85, 1.1))


def _paint_skyline(picture: Picture) -> None:
    """Paint a city from afar, sometimes behind water."""
    rng, mood = picture.rng, picture.mood
    base = rng.uniform(0.6, 0.95)
    paint_sky(picture, base)
    n_rows = int(rng.integers(2, 5))
    for row in range(n_rows):
        near, x = (row + 1) / n_rows, -0.1
        while x < 1.05:
            width = rng.uniform(0.06, 0.22) * (0.6 + 0.6 * near)
            height = rng.uniform(0.1, 0.6) * rng.uniform(0.6, 1.1)
            rows, columns = max(3, int(height * 30)), max(2, int(width * 36))
            facade = draw_facade(picture, columns, rows, light=rng.uniform(0.15, 0.6))
            top = base - height * (1.1 - 0.4 * near)
            faded = to_image(mood.far(from_image(facade), 1 - near))
            place_facade(picture, faded, upright(x, top, x + width, base))
            if rng.random() < 0.2:
                middle, gray = x + width / 2, mood.lit(color(0.4, 0.4, 0.42), 0.3)
                mast = [(middle - 0.008, top), (middle, top - 0.12), (middle + 0.008, top)]
                picture.polygon(mast, gray)
                picture.flatten()
            x += width * rng.uniform(0.8, 1.5)
        base += rng.uniform(0.0, 0.05)
    if rng.random() < 0.4:
        paint_lake(picture, base)
    else:
        _paint_ground(picture, base)
        _paint_front(picture, base)


def _paint_houses(picture: Picture) -> None:
    """Paint one to four houses with pitched roofs, and their gardens."""
    rng = picture.rng
    level = rng.uniform(0.62, 0.9)
    paint_sky(picture, level)
    _paint_ground(picture, level - 0.05)
    n_houses = int(rng.integers(1, 4))
    for _ in range(rng.integers(0, 6)):
        draw_tree(picture, rng.uniform(0, 1), level, rng.uniform(0.2, 0.6))
    picture.flatten()
    for number in range(n_houses):
        width = rng.uniform(0.3, 0.75) / (0.6 + 0.4 * n_houses)
        x = (number + rng.uniform(0.2, 0.8)) / n_houses - width / 2
        end, stories = x + width, int(rng.integers(1, 5))
        height = stories * rng.uniform(0.09, 0.14)
        foot = level + rng.uniform(-0.03, 0.05)
        top, skew = foot - height, rng.normal(0, 0.04)
        light = rng.uniform(0.2, 0.65)
        facade = draw_facade(picture, max(2, int(width * 10)), stories, light=light)
        roof = picture.color("55 28 20, 30 28 28, 42 34 30, 30 36 40, 50 42 30", 0.05)
        roof = picture.mood.lit(roof, rng.uniform(0.2, 0.6))
        place_facade(
            picture, facade, [(x, top), (end, top + skew), (end, foot - skew * 0.3), (x, foot)]
        )
        eaves, peak = width * 0.06, top - width * rng.uniform(0.2, 0.5)
        if rng.random() < 0.5:
            ridge = (x + width * rng.uniform(0.4, 0.6), peak)
            gable = picture.mood.lit(color(0.7, 0.62, 0.52), 0.4)
            picture.polygon([(x, top + 0.01), ridge, (end, top + skew)], gable)
            slopes = [(x - eaves, top + 0.02), ridge, (end + eaves, top + skew + 0.02)]
            picture.line(slopes, roof, 0.025)
        else:
            inset = width * rng.uniform(0.05, 0.25)
            outline = [(x - eaves, top + 0.01), (x + inset, peak), (end - inset, peak + skew)]
            picture.polygon([*outline, (end + eaves, top + skew + 0.01)], roof)
            for course in np.linspace(0.2, 0.9, 5):
                y, narrow = peak + (top - peak) * course, inset * (1 - course)
                picture.line([(x + narrow, y), (end - narrow, y + skew)], roof * 0.85, 0.004)
        chimney = x + width * rng.uniform(0.2, 0.8)
        picture.box(chimney, peak - 0.04, chimney + 0.03, peak + 0.06, roof * 0.7)
        picture.flatten()
    _paint_front(picture, level)


def _paint_close_up(picture: Picture) -> None:
    """Paint a facade that fills the picture, straight or askew."""
    rng = picture.rng
    picture.cover(picture.mood.horizon, 1.0)
    columns, rows = int(rng.integers(3, 14)), int(rng.integers(3, 12))
    facade = draw_facade(picture, columns, rows, light=rng.uniform(0.1, 0.7))
    skew = rng.normal(0, 0.25, (4, 2)).clip(-0.5, 0.25)
    inward = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    place_facade(picture, facade, np.where(inward > 0, -0.25, 1.25) + inward * skew)
    shadow = np.clip(1.1 - 0.35 * np.abs(picture.noise(2.0)), 0.6, 1.1)
    picture.canvas = picture.canvas * shadow


def _paint_front(picture: Picture, level: float) -> None:
    """Place trees, people and parked cars in front of the buildings."""
    rng = picture.rng
    if rng.random() < 0.45:
        for _ in range(rng.integers(1, 5)):
            foot = level + rng.uniform(0.02, 0.15)
            draw_tree(picture, rng.uniform(0, 1), foot, rng.uniform(0.1, 0.45))
    if rng.random() < 0.2:
        for _ in range(rng.integers(1, 4)):
            size = rng.uniform(0.12, 0.25)
            draw_side_car(picture, rng.uniform(-0.1, 0.9), level + 0.06, size)
    if rng.random() < 0.25:
        for _ in range(rng.integers(1, 7)):
            draw_person(picture, rng.uniform(0, 1), level + 0.07, rng.uniform(0.05, 0.12))
    if rng.random() < 0.15:
        gray = picture.surface("40 40 40", 0.1, 0.3)
        for x in rng.uniform(0, 1, 2):
            picture.box(x - 0.006, level - 0.4, x + 0.006, level + 0.08, gray)
    picture.flatten()
