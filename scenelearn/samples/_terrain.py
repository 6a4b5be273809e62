"""Terrain: height fields seen in perspective, ridge lines, and level ground."""

from __future__ import annotations

import dataclasses

import numpy as np

from scenelearn.samples._canvas import SIDE, Array, Rng, U, V, noise, noise_line, sample


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terrain:
    """A landscape along camera rays, sampled at (steps, SIDE) points of increasing distance.

    Attributes:
        x: sideways position of each point.
        z: distance of each point.
        height: height of each point.
        slope_x: rise to the right at each point.
        slope_z: rise away from the camera at each point.
        step: the step visible at each pixel, shape (SIDE, SIDE).
        between: the pixel's position between the previous step and that step, in [0, 1].
        visible: True where a pixel shows the landscape, not the sky.
    """

    x: Array
    z: Array
    height: Array
    slope_x: Array
    slope_z: Array
    step: np.ndarray[tuple[int, ...], np.dtype[np.intp]]
    between: Array
    visible: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

    def view(self, values: Array) -> Array:
        """Project point values to pixels, shape (SIDE, SIDE)."""
        flat = values.ravel()
        there = flat[self.step * SIDE + np.arange(SIDE)]
        before = flat[np.maximum(self.step - 1, 0) * SIDE + np.arange(SIDE)]
        projected: Array = before + (there - before) * self.between
        return projected

    def light(self, right: float, toward: float) -> Array:
        """Return the light on each point, about [0, 1], for a sun from the side."""
        normal = 1 / np.sqrt(1 + self.slope_x**2 + self.slope_z**2)
        facing = -right * self.slope_x - toward * self.slope_z + 0.45
        return np.clip(facing * normal, 0, 1)


def ray_grid(focal: float, near: float, far: float, n_steps: int = 130) -> tuple[Array, Array]:
    """Return the positions (x, z), each (n_steps, SIDE), at which rays are sampled."""
    z = np.geomspace(near, far, n_steps, dtype=np.float32)[:, None]
    x = (U - np.float32(0.5)) / np.float32(focal) * z
    return x, np.broadcast_to(z, x.shape)


def project_terrain(
    x: Array, z: Array, height: Array, *, focal: float, horizon: float, camera: float
) -> Terrain:
    """Project a landscape, seen from height `camera` with the horizon at a canvas fraction."""
    n_steps = z.shape[0]
    skyline = horizon - focal * (height - camera) / z
    nearest = np.minimum.accumulate(skyline, axis=0)
    row = np.clip(np.ceil(nearest * SIDE - 0.5), 0, SIDE).astype(np.intp)
    counts = np.bincount((row * SIDE + np.arange(SIDE)).ravel(), minlength=(SIDE + 1) * SIDE)
    step = n_steps - np.cumsum(counts.reshape(SIDE + 1, SIDE), axis=0)[:SIDE]
    visible = step < n_steps
    step = np.minimum(step, n_steps - 1)
    there = nearest[step, np.arange(SIDE)]
    before = nearest[np.maximum(step - 1, 0), np.arange(SIDE)]
    between = np.clip((before - V) / np.maximum(before - there, 1e-5), 0, 1)
    slope_x = np.gradient(height, axis=1) / (z / (focal * SIDE))
    slope_z = np.gradient(height, axis=0) / np.gradient(z, axis=0)
    return Terrain(
        x=x,
        z=z,
        height=height,
        slope_x=slope_x.astype(np.float32),
        slope_z=slope_z.astype(np.float32),
        step=step,
        between=between.astype(np.float32),
        visible=visible,
    )


def ridges(rng: Rng, x: Array, z: Array, size: float, roughness: float = 0.35) -> Array:
    """Sample mountains with ridges about `size` apart and heights of about [0, 1.4]."""
    coarse, fine = noise(rng, 2.4, side=96), noise(rng, 1.8, side=96)
    shift_x, shift_z = rng.random(2)
    scale = 1 / (size * 4)
    first = sample(coarse, x * scale + shift_x, z * scale + shift_z)
    second = sample(fine, x * scale * 2 + shift_z, z * scale * 2 + shift_x)
    third = sample(fine, x * scale * 6, z * scale * 6) / (1 + 0.15 * z)
    main = 1 - np.minimum(np.abs(first), 1.5) / 1.5
    side = 1 - np.minimum(np.abs(second), 2) / 2
    height: Array = main * main + roughness * (side - 0.4) * (0.3 + main) + 0.08 * roughness * third
    return height


def ridge_line(rng: Rng, height: float, roughness: float, power: float = 1.5) -> Array:
    """Sample the outline of distant mountains or hills, shape (SIDE,); up is positive."""
    line = noise_line(rng, power)
    peaks = np.abs(line) if rng.random() < 0.5 else line
    outline: Array = height * (1 + roughness * peaks)
    return outline


def project_ground(
    horizon: float, camera: float, lowest: float = 0.004
) -> tuple[Array, Array, Array]:
    """Project the pixels below the horizon onto level ground.

    Args:
        horizon: position of the horizon, as a fraction of the height.
        camera: height of the camera over the ground.
        lowest: minimum distance of a pixel from the horizon.

    Returns:
        Sideways position and distance of each pixel, and the mask of pixels below the
        horizon, each of shape (SIDE, SIDE).
    """
    drop = np.maximum(V - horizon, lowest).astype(np.float32)
    z = np.broadcast_to(camera / drop, (SIDE, SIDE))
    x = (U - np.float32(0.5)) * z
    below = np.broadcast_to(horizon < V, (SIDE, SIDE)).astype(np.float32)
    return x.astype(np.float32), z.astype(np.float32), below
