"""Street: roads between facades in perspective, suburbs, alleys and crossings."""

from __future__ import annotations

import dataclasses
import itertools

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
    random_color,
    smoothstep,
)
from scenelearn.samples._clutter import (
    add_clutter,
    draw_car,
    draw_person,
    draw_side_car,
    draw_wires,
)
from scenelearn.samples._facade import draw_facade, place_facade
from scenelearn.samples._mood import Mood, paint_sky, sample_mood
from scenelearn.samples._terrain import project_ground
from scenelearn.samples._trees import draw_tree

_ROADS = [(0.34, 0.34, 0.35), (0.45, 0.43, 0.41), (0.26, 0.27, 0.29), (0.52, 0.46, 0.4)]
_WALKS = [(0.58, 0.56, 0.53), (0.5, 0.48, 0.47), (0.65, 0.58, 0.5)]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Road:
    """A straight road to a vanishing point: half widths and heights in meters."""

    x: float
    y: float
    camera: float
    focal: float
    half_road: float
    half_street: float

    def project(self, across: float, up: float, away: float) -> tuple[float, float]:
        """Project a point of the street onto the canvas."""
        return (
            self.x + self.focal * across / away,
            self.y - self.focal * (up - self.camera) / away,
        )


def paint_street(rng: Rng) -> tuple[Array, Mood]:
    """Paint a street scene and return it with its mood."""
    mood = sample_mood(rng, night=0.15)
    if rng.random() < 0.15:
        return _paint_opposite_side(rng, mood), mood
    alley = rng.random() < 0.22
    half_road = float(rng.uniform(0.8, 1.6) if alley else rng.uniform(2.5, 6.0))
    walk = float(rng.uniform(0.2, 0.8) if alley else rng.uniform(1.0, 4.0))
    road = _Road(
        x=float(np.clip(rng.normal(0.5, 0.16), 0.1, 0.9)),
        y=float(rng.uniform(0.3, 0.68)),
        camera=float(rng.uniform(1.3, 2.2) if rng.random() < 0.75 else rng.uniform(2.5, 6.0)),
        focal=float(rng.uniform(0.7, 1.5)),
        half_road=half_road,
        half_street=half_road + walk,
    )
    canvas = paint_sky(rng, mood, road.y + 0.05)
    canvas = _paint_surface(rng, mood, canvas, road, cobbled=alley or rng.random() < 0.15)
    suburb = not alley and rng.random() < 0.25
    for side in (-1, 1):
        canvas = _paint_row(rng, mood, canvas, road, side, suburb)
    canvas = _paint_traffic(rng, mood, canvas, road, alley, suburb)
    return add_clutter(rng, canvas, mood, road.y * 0.5, rng.uniform(0.85, 1.0)), mood


def _paint_surface(rng: Rng, mood: Mood, canvas: Array, road: _Road, cobbled: bool) -> Array:
    """Paint road, sidewalks and markings."""
    x, z, below = project_ground(road.y, road.camera, 0.006)
    across = (x + (0.5 - road.x) * z) / 1.0
    away = z * road.focal
    snowy = mood.weather == "snow" or (mood.season == "winter" and rng.random() < 0.25)
    tar = random_color(rng, [(0.75, 0.77, 0.8)] if snowy else _ROADS, 0.04)
    walk = random_color(rng, [(0.85, 0.87, 0.9)] if snowy else _WALKS, 0.04)
    near = np.clip(1 / (1 + away * 0.12), 0, 1)
    distance = np.abs(across)
    on_walk = smoothstep(road.half_road - 0.02, road.half_road + 0.02, distance)
    albedo = mix(np.broadcast_to(tar, (3, SIDE, SIDE)), walk, on_walk)
    grain = 1 + 0.08 * noise(rng, 0.7, 3.0)
    if cobbled:
        stones = np.sin(across * 14) * np.sin(away * 7)
        grain = grain + 0.16 * stones * near
    curb = np.exp(-(((distance - road.half_road) / 0.14) ** 2))
    grain = grain - 0.3 * curb
    if rng.random() < 0.3:
        grain = grain * (1 - 0.35 * smoothstep(0.0, 0.8, noise(rng, 1.8, 4.0)))  # shadows
    surface: Array = mood.lit(albedo, 0.45) * grain
    if mood.weather == "rain" or rng.random() < 0.08:
        surface = mix(surface, mood.horizon, 0.45 * np.clip(0.6 + 0.4 * noise(rng, 1.6, 0.2), 0, 1))
    if not cobbled and rng.random() < 0.75:
        paint = mood.lit(random_color(rng, [(0.9, 0.9, 0.88), (0.85, 0.7, 0.2)], 0.04), 0.5)
        dashes = (away / 6.0 + rng.random()) % 1 < 0.5 if rng.random() < 0.7 else away > 0
        middle = smoothstep(0.14, 0.06, np.abs(across - rng.choice([0.0, 0.0, 1.2]))) * dashes
        edges = smoothstep(0.12, 0.05, np.abs(distance - road.half_road + 0.5))
        lines = np.maximum(middle, edges * (rng.random() < 0.5))
        if rng.random() < 0.3:
            start = rng.uniform(3, 9)
            stripes = (across % 1.0 < 0.5) * (away > start) * (away < start + 3)
            lines = np.maximum(lines, stripes * (distance < road.half_road))
        surface = mix(surface, paint, np.clip(lines * 0.85, 0, 1).astype(np.float32))
    shown = mood.far(surface, np.clip(away / 90, 0, 1))
    return mix(canvas, shown, below)


def _paint_row(rng: Rng, mood: Mood, canvas: Array, road: _Road, side: int, suburb: bool) -> Array:
    """Paint the row of houses on one side, from far to near."""
    edges = [float(rng.uniform(1.2, 3.0))]
    while edges[-1] < 70 and len(edges) < 6:
        edges.append(edges[-1] + float(rng.uniform(5, 16)) * (1 + edges[-1] / 40))
    story_m = float(rng.uniform(2.8, 3.6))
    usual = int(rng.integers(2, 9))
    light = 0.6 if side * mood.side > 0 else 0.15
    for start, limit in reversed(list(itertools.pairwise(edges))):
        end = limit
        stories = max(1, usual + int(rng.integers(-2, 3)))
        at = road.half_street + (rng.uniform(3, 8) if suburb else rng.uniform(0, 0.4))
        if suburb:
            stories, end = min(stories, 2), start + (end - start) * rng.uniform(0.4, 0.8)
        height = stories * story_m
        columns = max(2, int((end - start) / rng.uniform(2.2, 3.5)))
        facade = draw_facade(
            rng,
            mood,
            min(columns, 10),
            stories,
            shops=not suburb and rng.random() < 0.6,
            light=light,
        )
        upper = [road.project(side * at, height, start), road.project(side * at, height, end)]
        lower = [road.project(side * at, 0, end), road.project(side * at, 0, start)]
        corners = upper + lower
        if side > 0:
            corners = [corners[1], corners[0], corners[3], corners[2]]
        distance = min(1.0, (start + end) / 130)
        shade = mood.far(color(1, 1, 1), distance * 0.6)
        if suburb or rng.random() < 0.3:
            layer = Layer(1)
            roof = mood.lit(random_color(rng, [(0.5, 0.27, 0.2), (0.3, 0.3, 0.31)], 0.05), light)
            ridge = story_m * rng.uniform(0.6, 1.2)
            back = side * (at + 3)
            tops = [
                road.project(back, height + ridge, end),
                road.project(back, height + ridge, start),
            ]
            layer.polygon([*upper, *tops], mood.far(roof, distance))
            wall = mood.lit(jitter(rng, color(0.6, 0.55, 0.48), 0.08), 0.6 - light)
            gable = [upper[0], road.project(side * (at + 6), height, start)]
            layer.polygon(
                [*gable, road.project(side * (at + 6), 0, start), lower[1]],
                mood.far(wall, distance),
            )
            canvas = layer.composite(canvas)
        canvas = place_facade(canvas, facade, corners, shade)
    return canvas


def _paint_traffic(
    rng: Rng, mood: Mood, canvas: Array, road: _Road, alley: bool, suburb: bool
) -> Array:
    """Place lamps, trees, cars and people along the road, from far to near."""
    layer = Layer()
    things: list[tuple[float, str, float]] = []
    busy = rng.uniform(0, 1)
    if rng.random() < (0.75 if suburb else 0.35):
        things += [(float(d), "tree", float(rng.choice([-1, 1]))) for d in rng.uniform(5, 50, 9)]
    if rng.random() < 0.5 and not alley:
        spacing, side = float(rng.uniform(8, 18)), float(rng.choice([-1, 1]))
        things += [(4 + spacing * number, "lamp", side) for number in range(4)]
    if not alley:
        n_parked, n_driving = int(rng.integers(0, 8) * busy), int(rng.integers(0, 6) * busy)
        things += [
            (float(d), "parked", float(rng.choice([-1, 1]))) for d in rng.uniform(5, 40, n_parked)
        ]
        things += [
            (float(d), "driving", float(rng.choice([-1, 1]))) for d in rng.uniform(6, 45, n_driving)
        ]
    n_people = int(rng.integers(0, 12) * rng.random())
    things += [
        (float(d), "person", float(rng.choice([-1, 1]))) for d in rng.uniform(3.5, 25, n_people)
    ]
    gray = mood.lit(jitter(rng, color(0.25, 0.25, 0.26), 0.06), 0.3)
    for away, kind, side in sorted(things, reverse=True):
        verge = (road.half_road + road.half_street) / 2 * side
        if kind in ("parked", "driving"):
            lane = 0.86 if kind == "parked" else rng.uniform(0.35, 0.5)
            x, y = road.project(side * road.half_road * lane, 0, away)
            draw_car(rng, layer, mood, x, y, road.focal * 1.8 / away)
        elif kind == "person":
            x, y = road.project(verge + rng.normal(0, 0.6), 0, away)
            draw_person(rng, layer, mood, x, y, road.focal * 1.72 / away)
        elif kind == "tree":
            x, y = road.project(verge * (1.6 if suburb else 1.0), 0, away)
            draw_tree(rng, layer, mood, x, y, min(0.8, road.focal * rng.uniform(5, 9) / away))
        else:
            foot, head = road.project(verge, 0, away), road.project(verge, 6.5, away)
            arm = road.project(verge - side * 1.5, 6.7, away)
            layer.line([foot, head, arm], gray, 0.16 * road.focal / away)
            lamp = color(1.0, 0.9, 0.6) if mood.hour in ("night", "dusk") else gray * 1.5
            layer.ellipse(*arm, 0.5 * road.focal / away, 0.25 * road.focal / away, lamp)
    if rng.random() < 0.25:
        draw_wires(rng, layer, mood)
    return layer.composite(canvas)


def _paint_opposite_side(rng: Rng, mood: Mood) -> Array:
    """Paint a street from its other side: shop fronts, sidewalk, cars, people."""
    curb = float(rng.uniform(0.6, 0.8))
    canvas = paint_sky(rng, mood, curb)
    x = float(rng.uniform(-0.3, 0.0))
    while x < 1.05:
        width, stories = float(rng.uniform(0.3, 0.6)), int(rng.integers(2, 6))
        top = curb - stories * float(rng.uniform(0.12, 0.2))
        columns = max(2, int(width * rng.uniform(6, 11)))
        facade = draw_facade(rng, mood, columns, stories, shops=True, light=rng.uniform(0.15, 0.65))
        corners = [(x, top), (x + width, top), (x + width, curb), (x, curb)]
        canvas = place_facade(canvas, facade, corners, 1.0)
        x += width
    walk, tar = random_color(rng, _WALKS, 0.04), random_color(rng, _ROADS, 0.04)
    grain = 1 + 0.08 * noise(rng, 0.8, 5.0)
    canvas = mix(canvas, mood.lit(walk, 0.45) * grain, np.clip((V - curb) * SIDE, 0, 1) + 0 * U)
    edge = curb + float(rng.uniform(0.04, 0.09))
    canvas = mix(canvas, mood.lit(tar, 0.45) * grain, np.clip((V - edge) * SIDE, 0, 1) + 0 * U)
    layer = Layer()
    for _ in range(int(rng.integers(0, 7))):
        draw_person(rng, layer, mood, rng.uniform(0, 1), curb + 0.03, rng.uniform(0.13, 0.19))
    for x in np.arange(rng.uniform(-0.3, 0.2), 1.0, rng.uniform(0.3, 0.7)):
        if rng.random() < 0.7:
            draw_side_car(rng, layer, mood, float(x), edge + 0.05, rng.uniform(0.22, 0.38))
    for x in rng.uniform(0, 1, 2):
        layer.box(
            x - 0.006, curb - 0.45, x + 0.006, curb + 0.03, mood.lit(color(0.2, 0.2, 0.2), 0.3)
        )
    return layer.composite(canvas)
