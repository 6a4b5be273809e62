"""Classes of layouts: shapes in front of a ground and a sky that meet at a horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.bench.pretrain import _fields
from tests.bench.pretrain._color import Floats, palette, sample_colors

_SUPERSAMPLING = 2

Color = tuple[int, ...]
Rng = np.random.Generator


def layout(rng: Rng) -> Callable[[int, Rng], Floats]:
    """Create a class: a horizon, patterns of ground and sky, and one to three groups of shapes."""
    horizon = float(rng.choice([rng.uniform(0.25, 0.75), rng.uniform(0.25, 0.75), 1.1]))
    colors, covers = palette(rng, 7), (_fields.sample_pattern(rng), _fields.sample_pattern(rng))
    strong = rng.uniform(0.05, 0.6, 2)
    glow = rng.uniform(-0.5, 0.5, 2)  # of sky and ground toward the horizon
    groups = [_group(rng) for _ in range(int(rng.integers(1, 4)))]
    clutter = int(rng.choice([0, 0, 4]))

    def image(px: int, rng: Rng) -> Floats:
        known = sample_colors(colors, rng)
        line = horizon + rng.normal(0, 0.05)
        y = np.linspace(0, 1, px, dtype=np.float32)[:, None, None]
        tilt = rng.normal(0, 0.03) * np.linspace(-1, 1, px, dtype=np.float32)[None, :, None]
        sky = y < line + tilt
        far = np.abs(y - np.float32(line))
        sides = []
        for k in range(2):
            cover = _fields.render_pattern(px, rng, covers[k])[..., None]
            shade = known[k] * (1 + np.float32(glow[k]) * (1 - 2 * far))
            sides.append(shade * (1 - np.float32(strong[k]) * cover))
        base = np.where(sky, sides[0], sides[1])
        canvas = Image.fromarray((np.clip(base, 0, 1) * 255).astype(np.uint8))
        canvas = canvas.resize((_SUPERSAMPLING * px,) * 2, Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(canvas)
        sun = float(rng.choice([-1, 1]))
        for k, group in enumerate(groups):
            _draw(pen, _SUPERSAMPLING * px, rng, group, known[2 + k], line, sun)
        for _ in range(rng.poisson(clutter)):
            x, top, size = rng.random(), rng.random(), rng.uniform(0.01, 0.05)
            pen.ellipse([_SUPERSAMPLING * px * v for v in (x, top, x + size, top + size)],
                        fill=_byte(known[rng.integers(7)]))  # fmt: skip
        return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255

    return image


def _group(rng: Rng) -> dict[str, Any]:
    """Sample a group of shapes."""
    low = int(rng.integers(1, 9))
    return {
        "shape": str(rng.choice(list(_SHAPES))),
        "n": (low, low + int(rng.integers(1, 6))),
        "high": float(np.exp(rng.uniform(np.log(0.06), np.log(0.6)))),
        "wide": float(np.exp(rng.uniform(np.log(0.03), np.log(0.35)))),
        "spread": float(rng.choice([0.1, 0.4])),
        "place": str(rng.choice(["row", "row", "scatter", "near"])),
        "shadow": bool(rng.random() < 0.5),
        "detail": int(rng.integers(1, 6)),
        "side": rng.uniform(0.3, 0.9),
    }


def _draw(pen: Any, px: int, rng: Rng, group: dict[str, Any], shade: Floats,
          line: float, sun: float) -> None:  # fmt: skip
    """Draw a group from far to near; nearer shapes are larger and lower."""
    n = int(rng.integers(*group["n"]))
    at = (np.arange(n) + 0.5 + rng.normal(0, group["spread"], n)) / n if n else []
    base = min(line, 0.95)
    down = rng.uniform(0, 1, n) if group["place"] == "near" else np.zeros(n)
    for k in np.argsort(down):
        size = np.exp(rng.normal(0, group["spread"])) * (0.4 + 1.2 * down[k])
        size = size if group["place"] == "near" else np.exp(rng.normal(0, group["spread"]))
        w, h = group["wide"] * size, group["high"] * np.exp(rng.normal(0, group["spread"])) * size
        x = at[k] if group["place"] != "scatter" else rng.random()
        foot = base + down[k] * (1 - base) if group["place"] != "scatter" else rng.random()
        light = np.clip(shade * np.exp(rng.normal(0, 0.12)), 0, 1)
        box = np.array([x - w / 2, foot - h, x + w / 2, foot]) * px
        if group["shadow"]:
            lean = sun * 0.8 * h * px
            pen.polygon(
                [
                    (box[0], box[3]),
                    (box[2], box[3]),
                    (box[2] + lean, box[3] + 0.2 * h * px),
                    (box[0] + lean, box[3] + 0.2 * h * px),
                ],
                fill=_byte(0.25 * light),
            )
        _SHAPES[group["shape"]](pen, box, light, sun, group)


def _byte(color: Floats) -> Color:
    return tuple(int(255 * c) for c in np.clip(color, 0, 1))


def _block(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    """A box with a dark side and a grid of openings."""
    x0, y0, x1, y1 = box
    cut = x0 + (x1 - x0) * (group["side"] if sun < 0 else 1 - group["side"])
    pen.rectangle([x0, y0, x1, y1], fill=_byte(light))
    pen.rectangle([cut, y0, x1, y1] if sun < 0 else [x0, y0, cut, y1], fill=_byte(0.55 * light))
    n = group["detail"]
    if n > 1:
        w, h = (x1 - x0) / n, (y1 - y0) / (n + 1)
        for row in range(n + 1):
            for column in range(n):
                x, y = x0 + (column + 0.3) * w, y0 + (row + 0.3) * h
                pen.rectangle([x, y, x + 0.4 * w, y + 0.5 * h], fill=_byte(0.35 * light))


def _cone(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    x0, y0, x1, y1 = box
    top, foot = (x0 + x1) / 2, x0 + (x1 - x0) * group["side"]
    pen.polygon([(x0, y1), (top, y0), (x1, y1)], fill=_byte(light))
    pen.polygon([(foot, y1), (top, y0), (x1 if sun < 0 else x0, y1)], fill=_byte(0.6 * light))


def _ball(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    x0, y0, x1, y1 = box
    for k in range(group["detail"]):
        inner, shift = k / group["detail"] / 2, -sun * 0.3 * k / group["detail"] / 2
        w, h = x1 - x0, y1 - y0
        pen.ellipse([x0 + (inner + shift) * w, y0 + (inner - 0.05 * k / 5) * h,
                     x1 - (inner - shift) * w, y1 - (inner + 0.05 * k / 5) * h],
                    fill=_byte((0.5 + 0.6 * (k + 1) / group["detail"]) * light))  # fmt: skip


def _dome(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    x0, y0, x1, y1 = box
    pen.pieslice([x0, y0, x1, 2 * y1 - y0], 180, 360, fill=_byte(light))
    middle = 270 if sun < 0 else 180
    pen.pieslice([x0, y0, x1, 2 * y1 - y0], middle, middle + 90, fill=_byte(0.6 * light))


def _bar(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    x0, y0, x1, y1 = box
    middle, thin = (x0 + x1) / 2, max(1.0, (x1 - x0) / 8)
    pen.rectangle([middle - thin / 2, y0, middle + thin / 2, y1], fill=_byte(light))
    for k in range(group["detail"] - 1):
        y = y0 + (y1 - y0) * k / group["detail"]
        pen.line([(x0, y), (x1, y)], fill=_byte(0.8 * light), width=max(1, int(thin / 2)))


def _road(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    """A band that converges at the horizon, with lines along it."""
    x0, _, x1, y1 = box
    px = pen.im.size[0]
    far, wide, n = (x0 + x1) / 2, (x1 - x0) * 3 + 0.1 * px, group["detail"]
    pen.polygon([(far - 2, y1), (far + 2, y1), (px / 2 + wide, px), (px / 2 - wide, px)],
                fill=_byte(light))  # fmt: skip
    for k in range(1, n):
        foot = px / 2 + wide * (2 * k / n - 1)
        pen.line([(far, y1), (foot, px)], fill=_byte(1.6 * light), width=2)


def _rays(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    """Planes that converge from both sides, as in a street or a corridor."""
    x0, y0, x1, y1 = box
    px, far = pen.im.size[0], (x0 + x1) / 2
    for edge, brightness in ((0, 1.0), (px, 0.6)):
        pen.polygon([(far, y0), (far, y1), (edge, y1 + 0.6 * px), (edge, y0 - 0.6 * px)],
                    fill=_byte(brightness * light))  # fmt: skip
        for k in range(1, group["detail"] + 1):
            x = far + (edge - far) * k / (group["detail"] + 1)
            part = 0.6 * px * k / (group["detail"] + 1)
            pen.line([(x, y0 - part), (x, y1 + part)], fill=_byte(0.5 * light), width=2)


def _blob(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    """A polygon with a lit half."""
    x0, y0, x1, y1 = box
    n = 2 * group["detail"] + 3
    turns = 2 * np.pi * np.arange(n) / n
    radius = 0.5 + 0.12 * np.sin(3 * turns + x0) + 0.08 * np.cos(5 * turns + y0)
    xs = (x0 + x1) / 2 + (x1 - x0) * radius * np.cos(turns)
    ys = (y0 + y1) / 2 + (y1 - y0) * radius * np.sin(turns)
    pen.polygon(list(zip(xs, ys, strict=True)), fill=_byte(0.6 * light))
    shift = -sun * 0.1 * (x1 - x0)
    inner = [((x + (x0 + x1) / 2) / 2 + shift, (y + (y0 + y1) / 2) / 2 - 0.05 * (y1 - y0))
             for x, y in zip(xs, ys, strict=True)]  # fmt: skip
    pen.polygon(inner, fill=_byte(1.1 * light))


def _frame(pen: Any, box: Floats, light: Floats, sun: float, group: dict[str, Any]) -> None:
    """Nested frames."""
    x0, y0, x1, y1 = box
    for k in range(group["detail"]):
        inner = k / group["detail"] / 2
        w, h = (x1 - x0) * inner, (y1 - y0) * inner
        pen.rectangle([x0 + w, y0 + h, x1 - w, y1 - h], fill=_byte((1 - 0.5 * (k % 2)) * light))


_SHAPES: dict[str, Callable[[Any, Floats, Floats, float, dict[str, Any]], None]] = {
    "ball": _ball,
    "bar": _bar,
    "blob": _blob,
    "block": _block,
    "cone": _cone,
    "dome": _dome,
    "frame": _frame,
    "rays": _rays,
    "road": _road,
}
