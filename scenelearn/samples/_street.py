"""Street: roads between facades in perspective, suburbs, alleys and crossings."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from scenelearn.samples._canvas import Array, color, mix, smoothstep
from scenelearn.samples._clutter import draw_car, draw_person, draw_side_car, draw_wires
from scenelearn.samples._facade import draw_facade, place_facade, upright
from scenelearn.samples._picture import Picture, paint_sky
from scenelearn.samples._terrain import project_ground
from scenelearn.samples._trees import draw_tree

_ROADS = "34 34 35, 45 43 41, 26 27 29, 52 46 40"
_WALKS = "58 56 53, 50 48 47, 65 58 50"


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
        x, y = self.x + self.focal * across / away, self.y - self.focal * (up - self.camera) / away
        return x, y


def paint_street(picture: Picture) -> tuple[float, float] | None:
    """Paint a street scene."""
    rng = picture.rng
    if rng.random() < 0.15:
        _paint_opposite_side(picture)
        return None
    alley = rng.random() < 0.22
    half_road = rng.uniform(0.8, 1.6) if alley else rng.uniform(2.5, 6.0)
    walk = rng.uniform(0.2, 0.8) if alley else rng.uniform(1.0, 4.0)
    road = _Road(
        x=float(np.clip(rng.normal(0.5, 0.16), 0.1, 0.9)),
        y=rng.uniform(0.3, 0.68),
        camera=rng.uniform(1.3, 2.2) if rng.random() < 0.75 else rng.uniform(2.5, 6.0),
        focal=rng.uniform(0.7, 1.5),
        half_road=half_road,
        half_street=half_road + walk,
    )
    paint_sky(picture, road.y + 0.05)
    _paint_surface(picture, road, cobbled=alley or rng.random() < 0.15)
    suburb = not alley and rng.random() < 0.25
    for side in (-1, 1):
        _paint_row(picture, road, side, suburb)
    _paint_traffic(picture, road, alley, suburb)
    return road.y * 0.5, rng.uniform(0.85, 1.0)


def _paint_surface(picture: Picture, road: _Road, cobbled: bool) -> None:
    """Paint road, sidewalks and markings."""
    rng, mood = picture.rng, picture.mood
    x, z, below = project_ground(road.y, road.camera, 0.006)
    across, away = x + (0.5 - road.x) * z, z * road.focal
    snowy = mood.weather == "snow" or (mood.season == "winter" and rng.random() < 0.25)
    tar = picture.color("75 77 80" if snowy else _ROADS, 0.04)
    walk = picture.color("85 87 90" if snowy else _WALKS, 0.04)
    distance = np.abs(across)
    on_walk = smoothstep(road.half_road - 0.02, road.half_road + 0.02, distance)
    grain: Array = 1 + 0.08 * picture.noise(0.7, 3.0)
    if cobbled:
        stones = np.sin(across * 14) * np.sin(away * 7)
        grain = grain + 0.16 * stones * np.clip(1 / (1 + away * 0.12), 0, 1)
    grain = grain - 0.3 * np.exp(-(((distance - road.half_road) / 0.14) ** 2))  # curb
    if rng.random() < 0.3:
        grain = grain * (1 - 0.35 * smoothstep(0.0, 0.8, picture.noise(1.8, 4.0)))  # shadows
    surface: Array = mood.lit(mix(tar, walk, on_walk), 0.45) * grain
    if mood.weather == "rain" or rng.random() < 0.08:
        puddles = np.clip(0.6 + 0.4 * picture.noise(1.6, 0.2), 0, 1)
        surface = mix(surface, mood.horizon, 0.45 * puddles)
    if not cobbled and rng.random() < 0.75:
        paint = picture.surface("90 90 88, 85 70 20", 0.04, 0.5)
        dashes = (away / 6.0 + rng.random()) % 1 < 0.5 if rng.random() < 0.7 else away > 0
        middle = smoothstep(0.14, 0.06, np.abs(across - rng.choice([0.0, 0.0, 1.2]))) * dashes
        edges = smoothstep(0.12, 0.05, np.abs(distance - road.half_road + 0.5))
        lines = np.maximum(middle, edges * (rng.random() < 0.5))
        if rng.random() < 0.3:
            start = rng.uniform(3, 9)
            stripes = (across % 1.0 < 0.5) * (away > start) * (away < start + 3)
            lines = np.maximum(lines, stripes * (distance < road.half_road))
        surface = mix(surface, paint, np.clip(lines * 0.85, 0, 1))
    picture.cover(mood.far(surface, np.clip(away / 90, 0, 1)), below)


def _paint_row(picture: Picture, road: _Road, side: int, suburb: bool) -> None:
    """Paint the row of houses on one side, from far to near."""
    rng, mood = picture.rng, picture.mood
    edges = [rng.uniform(1.2, 3.0)]
    while edges[-1] < 70 and len(edges) < 6:
        edges.append(edges[-1] + rng.uniform(5, 16) * (1 + edges[-1] / 40))
    story_m = rng.uniform(2.8, 3.6)
    usual = int(rng.integers(2, 9))
    light = 0.6 if side * mood.side > 0 else 0.15
    for start, limit in reversed(list(itertools.pairwise(edges))):
        end, stories = limit, max(1, usual + int(rng.integers(-2, 3)))
        at = side * (road.half_street + (rng.uniform(3, 8) if suburb else rng.uniform(0, 0.4)))
        if suburb:
            stories, end = min(stories, 2), start + (end - start) * rng.uniform(0.4, 0.8)
        height = stories * story_m
        columns = min(10, max(2, int((end - start) / rng.uniform(2.2, 3.5))))
        shops = not suburb and rng.random() < 0.6
        facade = draw_facade(picture, columns, stories, shops=shops, light=light)
        near_edge = [road.project(at, height, start), road.project(at, 0, start)]
        far_edge = [road.project(at, height, end), road.project(at, 0, end)]
        left, right = (far_edge, near_edge) if side > 0 else (near_edge, far_edge)
        distance = min(1.0, (start + end) / 130)
        if suburb or rng.random() < 0.3:
            picture.start_layer(1)
            roof = picture.surface("50 27 20, 30 30 31", 0.05, light)
            ridge, back = height + story_m * rng.uniform(0.6, 1.2), at + side * 3
            eaves = [near_edge[0], far_edge[0]]
            tops = [road.project(back, ridge, end), road.project(back, ridge, start)]
            picture.polygon(eaves + tops, mood.far(roof, distance))
            wall = picture.surface("60 55 48", 0.08, 0.6 - light)
            back_edge = [road.project(at + side * 6, up, start) for up in (height, 0)]
            gable = [near_edge[0], *back_edge, near_edge[1]]
            picture.polygon(gable, mood.far(wall, distance))
            picture.flatten()
        shade = mood.far(color(1, 1, 1), distance * 0.6)
        place_facade(picture, facade, [left[0], *right, left[1]], shade)


def _paint_traffic(picture: Picture, road: _Road, alley: bool, suburb: bool) -> None:
    """Place lamps, trees, cars and people along the road, from far to near."""
    rng, mood = picture.rng, picture.mood
    things: list[tuple[float, str, float]] = []

    def scatter(kind: str, low: float, high: float, count: int) -> None:
        places = rng.uniform(low, high, count)
        things.extend((float(d), kind, float(rng.choice([-1, 1]))) for d in places)

    busy = rng.uniform(0, 1)
    if rng.random() < (0.75 if suburb else 0.35):
        scatter("tree", 5, 50, 9)
    if rng.random() < 0.5 and not alley:
        spacing, side = rng.uniform(8, 18), float(rng.choice([-1, 1]))
        things += [(4 + spacing * number, "lamp", side) for number in range(4)]
    if not alley:
        n_parked, n_driving = int(rng.integers(0, 8) * busy), int(rng.integers(0, 6) * busy)
        scatter("parked", 5, 40, n_parked)
        scatter("driving", 6, 45, n_driving)
    scatter("person", 3.5, 25, int(rng.integers(0, 12) * rng.random()))
    gray = picture.surface("25 25 26", 0.06, 0.3)
    for away, kind, side in sorted(things, reverse=True):
        verge, scale = (road.half_road + road.half_street) / 2 * side, road.focal / away
        if kind in ("parked", "driving"):
            lane = 0.86 if kind == "parked" else rng.uniform(0.35, 0.5)
            place = road.project(side * road.half_road * lane, 0, away)
            draw_car(picture, *place, road.focal * 1.8 / away)
        elif kind == "person":
            place = road.project(verge + rng.normal(0, 0.6), 0, away)
            draw_person(picture, *place, road.focal * 1.72 / away)
        elif kind == "tree":
            place = road.project(verge * (1.6 if suburb else 1.0), 0, away)
            draw_tree(picture, *place, min(0.8, road.focal * rng.uniform(5, 9) / away))
        else:
            foot, head = road.project(verge, 0, away), road.project(verge, 6.5, away)
            arm = road.project(verge - side * 1.5, 6.7, away)
            picture.line([foot, head, arm], gray, 0.16 * road.focal / away)
            lamp = color(1.0, 0.9, 0.6) if mood.dark else gray * 1.5
            picture.ellipse(*arm, 0.5 * scale, 0.25 * scale, lamp)
    if rng.random() < 0.25:
        draw_wires(picture)
    picture.flatten()


def _paint_opposite_side(picture: Picture) -> None:
    """Paint a street from its other side: shop fronts, sidewalk, cars, people."""
    rng, mood = picture.rng, picture.mood
    curb = rng.uniform(0.6, 0.8)
    paint_sky(picture, curb)
    x = rng.uniform(-0.3, 0.0)
    while x < 1.05:
        width, stories = rng.uniform(0.3, 0.6), int(rng.integers(2, 6))
        top = curb - stories * rng.uniform(0.12, 0.2)
        columns = max(2, int(width * rng.uniform(6, 11)))
        facade = draw_facade(picture, columns, stories, shops=True, light=rng.uniform(0.15, 0.65))
        place_facade(picture, facade, upright(x, top, x + width, curb))
        x += width
    walk, tar = picture.surface(_WALKS, 0.04, 0.45), picture.surface(_ROADS, 0.04, 0.45)
    grain = 1 + 0.08 * picture.noise(0.8, 5.0)
    edge = curb + rng.uniform(0.04, 0.09)
    picture.cover_below(curb, walk * grain)
    picture.cover_below(edge, tar * grain)
    for _ in range(rng.integers(0, 7)):
        draw_person(picture, rng.uniform(0, 1), curb + 0.03, rng.uniform(0.13, 0.19))
    for x in np.arange(rng.uniform(-0.3, 0.2), 1.0, rng.uniform(0.3, 0.7)).tolist():
        if rng.random() < 0.7:
            draw_side_car(picture, x, edge + 0.05, rng.uniform(0.22, 0.38))
    pole = mood.lit(color(0.2, 0.2, 0.2), 0.3)
    for x in rng.uniform(0, 1, 2):
        picture.box(x - 0.006, curb - 0.45, x + 0.006, curb + 0.03, pole)
    picture.flatten()
