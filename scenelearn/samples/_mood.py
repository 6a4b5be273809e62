"""Mood: the hour, weather and season of a scene.

Moods have the same distribution in all classes, so that light alone says little about the class.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from scenelearn.samples._canvas import Array, Rng, color, mix, random_color

# Zenith and horizon, each with its random changes; direct light and light in the shade.
_HOURS = {
    "noon": (
        ("25 48 82, 40 60 86, 15 36 70", 0.04),
        ("78 87 95, 66 78 90, 90 90 88", 0.03),
        (color(0.92, 0.88, 0.78), color(0.34, 0.37, 0.43)),
    ),
    "golden": (
        ("42 55 72, 55 55 60, 30 42 62", 0.04),
        ("100 82 52, 98 72 42, 95 85 70", 0.04),
        (color(1.05, 0.72, 0.38), color(0.32, 0.3, 0.34)),
    ),
    "dusk": (
        ("20 22 42, 36 26 42, 25 33 50", 0.04),
        ("95 50 32, 85 52 55, 55 55 70", 0.05),
        (color(0.6, 0.38, 0.3), color(0.24, 0.23, 0.32)),
    ),
    "night": (
        ("4 6 13", 0.02),
        ("14 15 28, 25 17 14, 10 16 24", 0.03),
        (color(0.12, 0.12, 0.16), color(0.14, 0.14, 0.19)),
    ),
}
_WEATHERS = ("clear", "cloudy", "overcast", "fog", "rain", "snow")
_SEASONS = ("spring", "summer", "autumn", "winter")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """Light and weather of a scene.

    Attributes:
        hour: "noon", "golden", "dusk" or "night".
        weather: "clear", "cloudy", "overcast", "fog", "rain" or "snow".
        season: "spring", "summer", "autumn" or "winter".
        zenith: color of the sky overhead.
        horizon: color of the sky at the horizon; distant things fade toward it.
        sun: color of the direct light.
        ambient: color of the light in the shade.
        haze: how much distant things fade, in [0, 1].
        sun_x: position of the sun, as a fraction of the width.
        sun_y: height of the sun over the horizon, as a fraction of the height.
    """

    hour: str
    weather: str
    season: str
    zenith: Array
    horizon: Array
    sun: Array
    ambient: Array
    haze: float
    sun_x: float
    sun_y: float

    @property
    def side(self) -> float:
        """Sideways direction of the light: positive when it comes from the left."""
        return 1.0 if self.sun_x < 0.5 else -1.0

    @property
    def low_sun(self) -> bool:
        """Whether the sun is close to the horizon."""
        return self.hour in ("golden", "dusk")

    @property
    def dark(self) -> bool:
        """Whether lamps are on."""
        return self.hour in ("night", "dusk")

    def lit(self, albedo: Array, light: Array | float = 0.6) -> Array:
        """Return a surface of color `albedo` under ambient light and `light` of the sun."""
        shown: Array = albedo * (self.ambient + self.sun * np.asarray(light, np.float32))
        return shown

    def far(self, shade: Array, distance: Array | float) -> Array:
        """Fade a color or image into the haze; `distance` is in [0, 1]."""
        return mix(shade, self.horizon, np.asarray(distance, np.float32) * self.haze)


def sample_mood(rng: Rng, night: float = 0.0) -> Mood:
    """Sample a mood; `night` is the probability of a scene at night."""
    hour = "night" if rng.random() < night else tuple(_HOURS)[rng.choice(3, p=[0.58, 0.24, 0.18])]
    weather = _WEATHERS[rng.choice(6, p=[0.3, 0.28, 0.16, 0.12, 0.07, 0.07])]
    season = _SEASONS[rng.integers(4)]
    overhead, low, (sun, ambient) = _HOURS[hour]
    zenith, horizon = random_color(rng, *overhead), random_color(rng, *low)
    haze = rng.uniform(0.1, 0.5)
    if weather in ("overcast", "rain", "snow", "fog") and hour != "night":
        gray = random_color(rng, "72 74 77", 0.07)
        cover = rng.uniform(0.6, 0.95)
        horizon, zenith = mix(horizon, np.minimum(gray + 0.1, 1), cover), mix(zenith, gray, cover)
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
        haze=haze,
        sun_x=rng.uniform(0.05, 0.95),
        sun_y=rng.uniform(0.02, 0.2) if hour in ("golden", "dusk") else rng.uniform(0.3, 0.9),
    )
