"""Camera: precipitation, framing, exposure and noise turn a canvas into a photo."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from scenelearn.samples._canvas import SIDE, Array, Rng, U, V, color, from_image, noise, to_image
from scenelearn.samples._mood import Mood
from scenelearn.samples._picture import Picture

PHOTO_PX = 150
"""Side of a photo in pixels, that of the Intel scene photos."""

_LUMA = color(0.299, 0.587, 0.114)


def take_photo(picture: Picture) -> Image.Image:
    """Photograph a picture in its weather; the result is RGB, 150x150 px."""
    rng, mood = picture.rng, picture.mood
    _paint_weather(picture)
    image = _frame(rng, picture.canvas)
    if rng.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    graded = _grade(rng, from_image(image), mood)
    grain = abs(rng.normal(0, 0.012)) + (0.025 if rng.random() < 0.1 else 0.003)
    colored = 3 if rng.random() < 0.7 else 1
    speckle = rng.random((colored, PHOTO_PX, PHOTO_PX), np.float32) - np.float32(0.5)
    graded += speckle * np.float32(grain * math.sqrt(12))  # a uniform draw has variance 1/12
    return to_image(graded)


def _paint_weather(picture: Picture) -> None:
    rng, mood = picture.rng, picture.mood
    if mood.weather in ("rain", "snow") and rng.random() < 0.7:
        slant = rng.normal(0, 0.25)
        for x, y, size in rng.random((rng.integers(40, 160), 3)):
            if mood.weather == "rain":
                length = 0.02 + 0.05 * size
                end = (x + slant * length, y + length)
                picture.line([(x, y), end], color(0.85, 0.88, 0.92), 0.002, 0.35)
            else:
                radius = 0.002 + 0.006 * size**3
                picture.ellipse(x, y, radius, radius, color(0.97, 0.97, 1), 0.85)
        picture.flatten(0.4)
    if mood.weather == "fog" and rng.random() < 0.6:
        veil = np.clip(0.4 + 0.3 * noise(rng, 2.0, 2.0), 0, 1) * rng.uniform(0.1, 0.5)
        picture.canvas = picture.canvas * (1 - veil) + mood.horizon * veil


def _frame(rng: Rng, canvas: Array) -> Image.Image:
    angle = math.radians(np.clip(rng.normal(0, 2.5), -8, 8))
    if rng.random() < 0.35:
        angle = 0.0
    sine, cosine = math.sin(angle), math.cos(angle)
    largest = SIDE / (cosine + abs(sine)) - 2
    side = largest * rng.uniform(0.8, 1.0)
    slack = (largest - side) / 2
    center_x, center_y = SIDE / 2 + rng.uniform(-slack, slack, 2)
    zoom, half = side / PHOTO_PX, PHOTO_PX / 2
    flip = -1.0 if rng.random() < 0.5 else 1.0
    a, b = zoom * cosine * flip, -zoom * sine
    d, e = zoom * sine * flip, zoom * cosine
    shift_x, shift_y = center_x - (a + b) * half, center_y - (d + e) * half
    return to_image(canvas).transform(
        (PHOTO_PX, PHOTO_PX),
        Image.Transform.AFFINE,
        (a, b, shift_x, d, e, shift_y),
        Image.Resampling.BILINEAR,
    )


def _grade(rng: Rng, photo: Array, mood: Mood) -> Array:
    """Adjust white balance, saturation, exposure, contrast and vignette."""
    wanted = rng.normal(0.46, 0.09) if mood.hour != "night" else rng.normal(0.28, 0.06)
    gain = (np.clip(wanted, 0.15, 0.72) / (float(photo.mean()) + 1e-3)) ** 0.75
    photo = photo * np.float32(gain)
    warmth, tint = rng.normal(0, 0.08), rng.normal(0, 0.025)
    photo = photo * color(1 + warmth + tint, 1 - tint, 1 - warmth + tint)
    gray = (photo * _LUMA).sum(0)
    style = rng.random()
    if style < 0.1:
        saturation = rng.uniform(0.0, 0.12)
    elif style < 0.16:
        saturation = 0.15
        photo = photo * color(1.12, 1.0, 0.8)
    else:
        saturation = np.clip(rng.normal(0.85, 0.25), 0.25, 1.4)
    photo = gray + (photo - gray) * np.float32(saturation)
    if rng.random() < 0.12:
        cast = rng.normal(0, 0.12, (3, 1, 1)).astype(np.float32)
        photo = photo * (1 + cast)
    contrast = np.float32(np.clip(rng.normal(1.05, 0.15), 0.6, 1.5))
    photo = (photo - wanted) * contrast + wanted
    photo = np.clip(photo, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.13)))
    if rng.random() < 0.4:
        x, y = U[:, :PHOTO_PX] * SIDE / PHOTO_PX - 0.5, V[:PHOTO_PX] * SIDE / PHOTO_PX - 0.5
        photo = photo * (1 - rng.uniform(0.2, 1.0) * (x * x + y * y))
    return photo.astype(np.float32)
