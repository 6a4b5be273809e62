"""Mood: the hour, weather and season of a scene, and the sky that goes with them.

Moods have the same distribution in all classes, so that light alone says little about the class.
"""

from __future__ import annotations

import dataclasses

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
    relief,
    smoothstep,
)

_HOURS = ("noon", "golden", "dusk", "night")
_WEATHERS = ("clear", "cloudy", "overcast", "fog", "rain", "snow")
_SEASONS = ("spring", "summer", "autumn", "winter")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """Light and weather of a scene.

    Attributes:
        hour: "noon", "golden", "dusk" or "night".
        weather: "clear", "cloudy", "overcast", "fog", "rain" or "snow".
        season: "spring", "summer", "autumn" or "winter".
        zenith: Color of the sky overhead.
        horizon: Color of the sky at the horizon; distant things fade toward it.
        sun: Color of the direct light.
        ambient: Color of the light in the shade.
        sun_x: Position of the sun, as a fraction of the width.
        sun_y: Height of the sun over the horizon, as a fraction of the height.
        haze: How much distant things fade, in [0, 1].
    """

    hour: str
    weather: str
    season: str
    zenith: Array
    horizon: Array
    sun: Array
    ambient: Array
    sun_x: float
    sun_y: float
    haze: float

    @property
    def side(self) -> float:
        """Sideways direction of the light: positive when it comes from the left."""
        return 1.0 if self.sun_x < 0.5 else -1.0

    def lit(self, albedo: Array, light: Array | float = 0.6) -> Array:
        """Return a surface of color `albedo` under ambient light and `light` of the sun."""
        shown: Array = albedo * (self.ambient + self.sun * np.asarray(light, np.float32))
        return shown

    def far(self, shade: Array, distance: Array | float) -> Array:
        """Fade a color or image into the haze; `distance` is in [0, 1]."""
        return mix(shade, self.horizon, np.asarray(distance, np.float32) * self.haze)


def sample_mood(rng: Rng, night: float = 0.0) -> Mood:
    """Sample a mood.

    Args:
        rng: Random number generator.
        night: Probability of a scene at night.

    Returns:
        The mood.
    """
    hour = "night" if rng.random() < night else _HOURS[rng.choice(3, p=[0.58, 0.24, 0.18])]
    weather = _WEATHERS[rng.choice(6, p=[0.3, 0.28, 0.16, 0.12, 0.07, 0.07])]
    season = _SEASONS[rng.integers(4)]
    if hour == "noon":
        zenith = random_color(rng, [(0.25, 0.48, 0.82), (0.4, 0.6, 0.86), (0.15, 0.36, 0.7)], 0.04)
        horizon = random_color(rng, [(0.78, 0.87, 0.95), (0.66, 0.78, 0.9), (0.9, 0.9, 0.88)], 0.03)
        sun, ambient = color(0.92, 0.88, 0.78), color(0.34, 0.37, 0.43)
    elif hour == "golden":
        zenith = random_color(rng, [(0.42, 0.55, 0.72), (0.55, 0.55, 0.6), (0.3, 0.42, 0.62)], 0.04)
        horizon = random_color(
            rng, [(1.0, 0.82, 0.52), (0.98, 0.72, 0.42), (0.95, 0.85, 0.7)], 0.04
        )
        sun, ambient = color(1.05, 0.72, 0.38), color(0.32, 0.3, 0.34)
    elif hour == "dusk":
        zenith = random_color(rng, [(0.2, 0.22, 0.42), (0.36, 0.26, 0.42), (0.25, 0.33, 0.5)], 0.04)
        horizon = random_color(
            rng, [(0.95, 0.5, 0.32), (0.85, 0.52, 0.55), (0.55, 0.55, 0.7)], 0.05
        )
        sun, ambient = color(0.6, 0.38, 0.3), color(0.24, 0.23, 0.32)
    else:
        zenith = jitter(rng, color(0.04, 0.06, 0.13), 0.02)
        horizon = random_color(
            rng, [(0.14, 0.15, 0.28), (0.25, 0.17, 0.14), (0.1, 0.16, 0.24)], 0.03
        )
        sun, ambient = color(0.12, 0.12, 0.16), color(0.14, 0.14, 0.19)
    haze = rng.uniform(0.1, 0.5)
    if weather in ("overcast", "rain", "snow", "fog") and hour != "night":
        gray = jitter(rng, color(0.72, 0.74, 0.77), 0.07)
        cover = rng.uniform(0.6, 0.95)
        horizon = mix(horizon, np.minimum(gray + 0.1, 1), cover)
        zenith = mix(zenith, gray, cover)
        sun, ambient = sun * 0.35, ambient * 1.45
        haze = rng.uniform(0.35, 0.7)
    if weather == "fog":
        haze = rng.uniform(0.75, 0.97)
    return Mood(
        hour=hour,
        weather=weather,
        season=season,
        zenith=zenith,
        horizon=horizon,
        sun=sun,
        ambient=ambient,
        sun_x=float(rng.uniform(0.05, 0.95)),
        sun_y=float(
            rng.uniform(0.02, 0.2) if hour in ("golden", "dusk") else rng.uniform(0.3, 0.9)
        ),
        haze=float(haze),
    )


def paint_sky(rng: Rng, mood: Mood, horizon: float) -> Array:
    """Paint the whole canvas as sky.

    Args:
        rng: Random number generator.
        mood: Light and weather.
        horizon: Position of the horizon, as a fraction of the height.

    Returns:
        A canvas of shape (3, SIDE, SIDE).
    """
    span = max(horizon, 0.3)
    height = np.clip(V / span, 0, 1) ** rng.uniform(0.7, 1.8)
    sky = mix(mood.zenith, mood.horizon, np.broadcast_to(height, (SIDE, SIDE)))
    if mood.hour in ("golden", "dusk") or (mood.weather == "clear" and rng.random() < 0.3):
        squared = (U - mood.sun_x) ** 2 + (V - (horizon - mood.sun_y)) ** 2
        glow = np.exp(-squared / rng.uniform(0.01, 0.15))
        sky = sky + glow * mood.sun * rng.uniform(0.1, 0.5)
        if mood.weather == "clear" and rng.random() < 0.6:
            disc = smoothstep(1.3, 0.7, squared / rng.uniform(0.0008, 0.003))
            sky = mix(sky, color(1.0, 0.95, 0.8), disc)
    if mood.weather != "clear" or rng.random() < 0.3:
        sky = _paint_clouds(rng, mood, sky, height)
    elif mood.hour == "night":
        stars = Layer(1)
        for x, y in rng.random((rng.integers(0, 60), 2)):
            stars.ellipse(x, y, 0.002, 0.002, color(0.9, 0.9, 1), rng.uniform(0.3, 1))
        sky = stars.composite(sky)
    return sky


def _paint_clouds(rng: Rng, mood: Mood, sky: Array, height: Array) -> Array:
    cloud = noise(rng, float(rng.choice([1.4, 1.7, 2.0])), float(rng.choice([1.0, 2.0, 4.0, 8.0])))
    threshold = rng.uniform(-0.6, 0.9)
    softness = rng.uniform(0.3, 1.6)
    cover = smoothstep(threshold, threshold + softness, cloud) * rng.uniform(0.5, 1.0)
    shade = relief(cloud, 0.3 * mood.side, 0.6) * rng.uniform(0.05, 0.35)
    body = mix(mood.horizon, mood.ambient + mood.sun * 0.75, 0.5 if mood.hour != "night" else 0.2)
    dark = rng.uniform(0.55, 1.0)
    tone = np.clip(dark + (1 - dark) * (1.6 - cover) + shade, 0.3, 1.25)
    fade = np.clip(1.15 - height, 0.25, 1)
    return mix(sky, body * tone, cover * fade)
