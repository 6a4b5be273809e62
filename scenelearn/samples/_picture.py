"""Picture: a scene while it is painted, its sky, and shapes drawn on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from scenelearn.samples import _canvas
from scenelearn.samples._canvas import (
    SIDE,
    Array,
    Points,
    Rng,
    U,
    V,
    below,
    color,
    from_image,
    mix,
    relief,
    rgba,
    smoothstep,
)
from scenelearn.samples._mood import sample_mood


class Picture:
    """A scene while it is painted.

    Shapes go to a transparent layer over the canvas until `flatten` adds them to it, antialiased.

    Args:
        rng: random number generator.
        night: probability of a scene at night.

    Attributes:
        rng: random number generator.
        mood: light, weather and season.
        canvas: the image, shape (3, SIDE, SIDE).
    """

    def __init__(self, rng: Rng, night: float = 0.0) -> None:
        self.rng, self.mood = rng, sample_mood(rng, night)
        self.canvas: Array = np.zeros((3, SIDE, SIDE), np.float32)
        self.start_layer()

    # What is drawn at random

    def noise(self, power: float, stretch: float = 1.0, *, lowest: float = 0.0) -> Array:
        """Sample a noise field, shape (SIDE, SIDE)."""
        return _canvas.noise(self.rng, power, stretch, lowest=lowest)

    def noise_line(self, power: float) -> Array:
        """Sample a noise line, shape (SIDE,)."""
        return _canvas.noise_line(self.rng, power)

    def jitter(self, base: Array, amount: float) -> Array:
        """Return a color with random changes."""
        return _canvas.jitter(self.rng, base, amount)

    def color(self, choices: str, amount: float) -> Array:
        """Return one of `choices` with random changes."""
        return _canvas.random_color(self.rng, choices, amount)

    def surface(self, choices: str, amount: float, light: Array | float) -> Array:
        """Return a random color under the light of the scene."""
        return self.mood.lit(self.color(choices, amount), light)

    def paint_one_of(self, *kinds: tuple[float, Callable[[Picture], None]]) -> None:
        """Call the first painter whose cumulative probability exceeds a random number."""
        draw = self.rng.random()
        for limit, paint in kinds:
            if draw < limit:
                paint(self)
                return

    # Areas

    def cover(self, shade: Array, weight: npt.NDArray[Any] | float) -> None:
        """Paint a color or an image over the canvas, with weights in [0, 1]."""
        self.canvas = mix(self.canvas, shade, weight)

    def cover_below(self, edge: Array | float, shade: Array, soft: float = 1.0) -> None:
        """Paint everything below an edge, with a transition over `soft` pixels."""
        self.cover(shade, below(edge, soft))

    # Shapes

    def start_layer(self, scale: int = 2) -> None:
        """Start an empty layer of `scale` times the resolution of the canvas."""
        self._unit = SIDE * scale
        self._image = Image.new("RGBA", (self._unit, self._unit), (0, 0, 0, 0))
        self._draw, self._empty = ImageDraw.Draw(self._image), True

    def polygon(self, points: Points, shade: Array) -> None:
        """Fill a polygon."""
        self._empty = False
        self._draw.polygon([(x * self._unit, y * self._unit) for x, y in points], rgba(shade))

    def box(self, left: float, top: float, right: float, bottom: float, shade: Array) -> None:
        """Fill an axis-aligned rectangle."""
        self._empty = False
        x0, x1 = sorted((left * self._unit, right * self._unit))
        y0, y1 = sorted((top * self._unit, bottom * self._unit))
        self._draw.rectangle((x0, y0, x1, y1), rgba(shade))

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, shade: Array, alpha: float = 1.0
    ) -> None:
        """Fill an ellipse with its center at (x, y)."""
        self._empty, unit = False, self._unit
        corners = ((x - rx) * unit, (y - ry) * unit, (x + rx) * unit, (y + ry) * unit)
        self._draw.ellipse(corners, rgba(shade, alpha))

    def line(self, points: Points, shade: Array, width: float, alpha: float = 1.0) -> None:
        """Draw a line; `width` is a fraction of the canvas."""
        self._empty = False
        ends = [(x * self._unit, y * self._unit) for x, y in points]
        self._draw.line(ends, rgba(shade, alpha), max(1, round(width * self._unit)))

    def flatten(self, blur: float = 0.0, texture: Array | None = None) -> None:
        """Add the shapes to the canvas and start a new layer.

        Args:
            blur: radius of a Gaussian blur in canvas pixels.
            texture: brightness factors of the layer, shape (SIDE, SIDE).
        """
        if not self._empty:
            image = self._image.convert("RGBa").reduce(self._unit // SIDE)
            if blur > 0:
                image = image.filter(ImageFilter.GaussianBlur(blur))
            sheet = from_image(image)
            shapes = sheet[:3] if texture is None else sheet[:3] * texture
            self.canvas = self.canvas * (1 - sheet[3]) + shapes
            self.start_layer()


def paint_sky(picture: Picture, horizon: float) -> None:
    """Paint the whole canvas as sky, down to `horizon` as a fraction of the height."""
    rng, mood = picture.rng, picture.mood
    height = np.clip(V / max(horizon, 0.3), 0, 1) ** rng.uniform(0.7, 1.8)
    picture.canvas = mix(mood.zenith, mood.horizon, np.broadcast_to(height, (SIDE, SIDE)))
    if mood.low_sun or (mood.weather == "clear" and rng.random() < 0.3):
        squared = (U - mood.sun_x) ** 2 + (V - (horizon - mood.sun_y)) ** 2
        glow = np.exp(-squared / rng.uniform(0.01, 0.15))
        picture.canvas = picture.canvas + glow * mood.sun * rng.uniform(0.1, 0.5)
        if mood.weather == "clear" and rng.random() < 0.6:
            disc = smoothstep(1.3, 0.7, squared / rng.uniform(0.0008, 0.003))
            picture.cover(color(1.0, 0.95, 0.8), disc)
    if mood.weather != "clear" or rng.random() < 0.3:
        _paint_clouds(picture, height)
    elif mood.hour == "night":
        picture.start_layer(1)
        for x, y in rng.random((rng.integers(0, 60), 2)):
            picture.ellipse(x, y, 0.002, 0.002, color(0.9, 0.9, 1), rng.uniform(0.3, 1))
        picture.flatten()
        picture.start_layer()


def _paint_clouds(picture: Picture, height: Array) -> None:
    rng, mood = picture.rng, picture.mood
    cloud = picture.noise(rng.choice([1.4, 1.7, 2.0]), rng.choice([1.0, 2.0, 4.0, 8.0]))
    threshold = rng.uniform(-0.6, 0.9)
    softness = rng.uniform(0.3, 1.6)
    cover = smoothstep(threshold, threshold + softness, cloud) * rng.uniform(0.5, 1.0)
    shade = relief(cloud, 0.3 * mood.side, 0.6) * rng.uniform(0.05, 0.35)
    body = mix(mood.horizon, mood.ambient + mood.sun * 0.75, 0.5 if mood.hour != "night" else 0.2)
    dark = rng.uniform(0.55, 1.0)
    tone = np.clip(dark + (1 - dark) * (1.6 - cover) + shade, 0.3, 1.25)
    picture.cover(body * tone, cover * np.clip(1.15 - height, 0.25, 1))


def paint_lake(picture: Picture, shore: float) -> None:
    """Replace everything below `shore` by water that mirrors what is above."""
    rng, mood = picture.rng, picture.mood
    row = int(np.clip(shore, 0.2, 0.97) * SIDE)
    depth = np.arange(SIDE - row)[:, None]
    ripple = (picture.noise(0.9, 12.0) * rng.uniform(0.0, 4.0))[: SIDE - row]
    offset = ripple * (0.3 + depth / SIDE * 2)
    source = np.clip(row - 1 - depth + offset, 0, row - 1).astype(np.intp)
    mirror = picture.canvas[:, source, np.arange(SIDE)]
    water = picture.color("20 30 34", 0.08) * (mood.ambient + mood.sun * 0.4)
    clarity = np.linspace(0.85, rng.uniform(0.3, 0.8), SIDE - row, dtype=np.float32)[:, None]
    picture.canvas = picture.canvas.copy()
    picture.canvas[:, row:] = mix(water, mirror, clarity) * (1 + 0.04 * ripple)
