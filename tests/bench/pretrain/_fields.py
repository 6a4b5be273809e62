"""Gray patterns: spectral noise, waves, walls, cells, rings, spots.

Each kind has a function that samples the parameters of a class (a dict), and one that renders an
image of the class: (px, px) float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rng = np.random.Generator
Parameters = dict[str, Any]


@cache
def _frequencies(px: int) -> tuple[Floats, Floats]:
    y = np.fft.fftfreq(px).astype(np.float32)[:, None] * px
    x = np.fft.rfftfreq(px).astype(np.float32)[None] * px
    return y, x


@cache
def _grid(px: int) -> tuple[Floats, Floats]:
    line = (np.arange(px, dtype=np.float32) + 0.5) / px
    return line[:, None], line[None]


def unit(field: Floats) -> Floats:
    """Rescale to [0, 1]."""
    low, high = field.min(), field.max()
    return (field - low) / (high - low + np.float32(1e-6))


def noise(px: int, rng: Rng, power: float, at: float = 0, width: float = 0.0,
          turn: float = 0.0, ratio: float = 1.0) -> Floats:  # fmt: skip
    """Sample noise with a power-law spectrum, or a band around `at` cycles, standardized."""
    y, x = _frequencies(px)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    f = np.sqrt((c * x + s * y) ** 2 + (ratio * (c * y - s * x)) ** 2) + np.float32(0.5)
    size = np.exp(-(((f - at) / width) ** 2)) if at else f ** np.float32(-power)
    size[0, 0] = 0
    phases = rng.standard_normal((2, *size.shape), np.float32)
    field = np.fft.irfft2(size * (phases[0] + 1j * phases[1]), (px, px)).astype(np.float32)
    return field / (field.std() + np.float32(1e-9))


def _noise_class(rng: Rng) -> Parameters:
    band = rng.random() < 0.6
    return {
        "power": rng.uniform(0.8, 2.6),
        "at": rng.uniform(3, 16) if band else 0.0,
        "width": rng.uniform(0.8, 4),
        "turn": rng.uniform(0, np.pi),
        "ratio": float(rng.choice([1, 1, rng.uniform(1.5, 5)])),
        "steep": float(
            rng.choice([0.7, 2, 8])
        ),  # steep: spots and labyrinths, as in reaction-diffusion
        "middle": rng.uniform(-0.8, 0.8),
    }


def _noise_image(px: int, rng: Rng, parameters: Parameters) -> Floats:
    turn = parameters["turn"] + rng.normal(0, 0.15)
    scale = np.exp(rng.normal(0, 0.12))
    field = noise(
        px,
        rng,
        parameters["power"],
        parameters["at"] * scale,
        parameters["width"] * scale,
        turn,
        parameters["ratio"],
    )
    return (np.tanh(parameters["steep"] * (field - parameters["middle"])) + 1) / 2


def _warped(px: int, rng: Rng, parameters: Parameters) -> tuple[Floats, Floats]:
    """Rotated, scaled and shifted coordinates, warped by low-frequency noise."""
    y, x = _grid(px)
    turn, scale = parameters["turn"] + rng.normal(0, 0.15), np.exp(rng.normal(0, 0.12))
    bend = np.float32(parameters["bend"]) * noise(px, rng, 2.2)
    c, s = np.float32(scale * np.cos(turn)), np.float32(scale * np.sin(turn))
    tilt = 1 + np.float32(parameters["tilt"]) * (y - np.float32(0.5))
    u = (c * x + s * y) * tilt + bend + np.float32(rng.random())
    v = (c * y - s * x) * tilt + bend + np.float32(rng.random())
    return u, v


def _warp_class(rng: Rng) -> Parameters:
    return {
        "turn": float(rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])),
        "bend": float(rng.choice([0, rng.uniform(0, 0.05)])),
        "tilt": float(rng.choice([0, rng.uniform(-0.9, 0.9)])),
    }


def _waves_class(rng: Rng) -> Parameters:
    return _warp_class(rng) | {
        "n": np.exp(rng.uniform(np.log(2), np.log(14))),
        "sharp": float(rng.choice([0.5, 2, 10])),
        "offset": rng.uniform(-0.7, 0.7),
        "second": float(rng.choice([0, 0, rng.uniform(0.3, 1)])),
    }


def _waves_image(px: int, rng: Rng, parameters: Parameters) -> Floats:
    u, v = _warped(px, rng, parameters)
    n = np.float32(2 * np.pi * parameters["n"])
    wave = np.sin(n * u) + np.float32(parameters["second"]) * np.sin(n * v)
    return (np.tanh(parameters["sharp"] * (wave - parameters["offset"])) + 1) / 2


def _wall_class(rng: Rng) -> Parameters:
    return _warp_class(rng) | {
        "rows": rng.uniform(2, 12),
        "long": float(np.exp(rng.uniform(-0.7, 1.2))),
        "shift": float(rng.choice([0, 0.5, rng.random()])),
        "gap": rng.uniform(0.03, 0.3),
        "variation": rng.uniform(0, 0.9),
    }


def _wall_image(px: int, rng: Rng, parameters: Parameters) -> Floats:
    u, v = _warped(px, rng, parameters)
    v = v * np.float32(parameters["rows"])
    row = np.floor(v)
    u = (
        u * np.float32(parameters["rows"] / parameters["long"])
        + np.float32(parameters["shift"]) * row
    )
    column = np.floor(u)
    table = rng.random(257).astype(np.float32)
    stone = table[((row * 57 + column * 131) % 257).astype(np.int32)]
    near = np.minimum(np.minimum(u - column, 1 - (u - column)) * parameters["long"],
                      np.minimum(v - row, 1 - (v - row)))  # fmt: skip
    inside = np.clip((near - parameters["gap"] / 2) * 12, 0, 1).astype(np.float32)
    return inside * (1 - np.float32(parameters["variation"]) * stone)


def _cells_class(rng: Rng) -> Parameters:
    return {
        "n": int(rng.integers(8, 45)),
        "what": int(rng.integers(4)),
        "even": rng.random(),
        "stretch": float(np.exp(rng.normal(0, 0.5))),
    }


def _cells_image(px: int, rng: Rng, parameters: Parameters) -> Floats:
    y, x = _grid(px)
    n, side = parameters["n"], int(np.ceil(np.sqrt(parameters["n"])))
    ordered = (np.stack([np.arange(n) // side, np.arange(n) % side], 1) + 0.5) / side
    points = ordered + (1.1 - parameters["even"]) * rng.uniform(-0.5, 0.5, (n, 2)) * 2.4 / side
    points = points.astype(np.float32)
    far = (y[..., None] - points[:, 0]) ** 2 + parameters["stretch"] * (
        x[..., None] - points[:, 1]
    ) ** 2
    nearest = far.min(2)
    if parameters["what"] == 0:
        return unit(np.sqrt(nearest))
    if parameters["what"] == 1:
        return np.asarray(rng.random(n).astype(np.float32)[far.argmin(2)])
    two = np.sqrt(np.partition(far, 1, axis=2)[..., :2])
    edge = np.clip((two[..., 1] - two[..., 0]) * side * 1.5, 0, 1)
    return edge if parameters["what"] == 2 else unit(edge * (1 - two[..., 0]))


def _rings_class(rng: Rng) -> Parameters:
    return {
        "n": rng.uniform(1.5, 10),
        "arms": int(rng.choice([0, 0, 1, 2, 3, 5, 8])),
        "power": rng.uniform(0.5, 1.5),
        "sharp": float(rng.choice([0.7, 3])),
        "stretch": float(np.exp(rng.normal(0, 0.4))),
    }


def _rings_image(px: int, rng: Rng, parameters: Parameters) -> Floats:
    y, x = _grid(px)
    y, x = y - np.float32(rng.uniform(0.2, 0.8)), (x - np.float32(rng.uniform(0.2, 0.8)))
    r = np.sqrt(y**2 + np.float32(parameters["stretch"]) * x**2) * np.float32(
        np.exp(rng.normal(0, 0.1))
    )
    angle = parameters["arms"] * np.arctan2(y, x)
    wave = np.sin(
        2 * np.pi * parameters["n"] * r ** parameters["power"] + angle + rng.uniform(0, 6.3)
    )
    return ((np.tanh(parameters["sharp"] * wave) + 1) / 2).astype(np.float32)


def _spots_class(rng: Rng) -> Parameters:
    return {
        "n": int(rng.integers(5, 40)),
        "size": rng.uniform(0.02, 0.12),
        "long": float(np.exp(rng.uniform(-1.2, 1.2))),
        "hard": float(rng.choice([1, 6])),
    }


def _spots_image(px: int, rng: Rng, parameters: Parameters) -> Floats:
    y, x = _grid(px)
    n = parameters["n"]
    at = rng.random((2, n)).astype(np.float32)
    size = (parameters["size"] * np.exp(rng.normal(0, 0.3, n))).astype(np.float32)
    long = np.float32(np.sqrt(parameters["long"]))
    down = np.exp(-(((y - at[0]) / (size * long)) ** 2))
    right = np.exp(-(((x.T - at[1]) / (size / long)) ** 2))
    return np.clip(((down @ right.T) - 0.3) * parameters["hard"] + 0.3, 0, 1)


KINDS: dict[str, tuple[Callable[[Rng], Parameters], Callable[[int, Rng, Parameters], Floats]]] = {
    "noise": (_noise_class, _noise_image),
    "waves": (_waves_class, _waves_image),
    "wall": (_wall_class, _wall_image),
    "cells": (_cells_class, _cells_image),
    "rings": (_rings_class, _rings_image),
    "spots": (_spots_class, _spots_image),
}


def sample_pattern(rng: Rng) -> tuple[str, Parameters]:
    """Sample a class of patterns; noise is twice as likely as each other kind."""
    kind = str(rng.choice(["noise", *KINDS]))
    return kind, KINDS[kind][0](rng)


def render_pattern(px: int, rng: Rng, pattern: tuple[str, Parameters]) -> Floats:
    """Render a pattern of a class: (px, px) float32 in [0, 1]."""
    kind, parameters = pattern
    return KINDS[kind][1](px, rng, parameters).astype(np.float32)
