"""Which photos show the same picture: re-encoded, resized, mirrored, turned or slightly cropped.

Each photo becomes a gray square of 32 × 32 and its lowest 8 × 8 cosine coefficients c(u, v),
without c(0, 0), times √(u² + v²), since photos hold less of finer waves, and scaled to length 1:
brightness and contrast no longer count. Each photo's nearest few by these, in any orientation, are
laid on it by the affine map that makes the two most alike, with a gain and an offset as unknowns.
They are the same picture if that map is near to none and what is left without the coarse shades,
edges and texture, agrees.

Lucas and Kanade, "An iterative image registration technique with an application to stereo vision",
IJCAI 1981.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from scenelearn.data._near import N_WAVES, near_pairs, turned

GRAY_PX = 32
_SAME = 0.85  # correlation of edges and texture, once aligned
_STEPS = 8  # of the alignment
_FIRST_STEPS, _HOPELESS = 3, 0.3  # pairs below this correlation after so many are given up
_MOST = 0.2  # a larger turn, stretch or shift, in halves of the picture, is another picture
_BLOCK = 512
_PART = 4096

Floats = npt.NDArray[np.float32]


def alike(grays: npt.NDArray[np.uint8], among: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """The pairs of pictures that show the same.

    Args:
        grays: (n, 32, 32) uint8; may be mapped from a file, few are read at a time. Pictures of
            one gray alone are like no other.
        among: (m,) int64, ascending: the pictures to look at.

    Returns:
        Pairs (i, j) with i < j, ascending.
    """
    parts = range(0, len(among), _PART)
    coefficients = np.zeros((len(among), N_WAVES, N_WAVES), np.float32)
    contrast = np.zeros(len(among), np.float32)
    for start in parts:
        part = slice(start, start + _PART)
        coefficients[part], contrast[part] = _coefficients(grays[among[part]])
    usable = among[contrast > 1]
    near = near_pairs(coefficients[contrast > 1])
    found = []
    for start in range(0, len(near), _BLOCK):
        i, j, ways = near[start : start + _BLOCK].T
        firsts, seconds = _scaled(grays[usable[i]]), _scaled(grays[usable[j]])
        for way in range(8):
            seconds[ways == way] = turned(seconds[ways == way], way)
        hopeful = np.flatnonzero(likenesses(firsts, seconds, _FIRST_STEPS) >= _HOPELESS)
        same = hopeful[likenesses(firsts[hopeful], seconds[hopeful], _STEPS) >= _SAME]
        found += [sorted((int(usable[i[k]]), int(usable[j[k]]))) for k in same]
    return sorted((low, high) for low, high in found)


def _coefficients(grays: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """The scaled cosine coefficients (n, 8, 8), and each picture's contrast in gray levels."""
    place = (np.arange(GRAY_PX) + 0.5) * np.pi / GRAY_PX
    waves = np.cos(np.arange(N_WAVES)[:, None] * place) * np.sqrt(2 / GRAY_PX)
    found = waves.astype(np.float32) @ grays.astype(np.float32) @ waves.T.astype(np.float32)
    found[:, 0, :] *= np.float32(np.sqrt(0.5))
    found[:, :, 0] *= np.float32(np.sqrt(0.5))
    found[:, 0, 0] = 0
    contrast = np.sqrt((found**2).sum((1, 2))) / GRAY_PX
    found *= np.hypot(*np.indices((N_WAVES, N_WAVES))).astype(np.float32)
    length = np.sqrt((found**2).sum((1, 2), keepdims=True))
    return found / np.maximum(length, 1e-6), contrast


def _scaled(grays: npt.NDArray[np.uint8]) -> Floats:
    values = grays.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    return np.asarray(values / np.maximum(values.std((1, 2), keepdims=True), 1e-6), np.float32)


def likenesses(firsts: Floats, seconds: Floats, n_steps: int) -> Floats:
    """How well edges and texture of pictures agree after alignment, each with its counterpart.

    Args:
        firsts: (n, 32, 32) of mean 0 and deviation 1.
        seconds: likewise.
        n_steps: of the alignment.

    Returns:
        (n,) correlations; -1 where no small map aligns the two.
    """
    n = len(firsts)
    at = ((np.arange(GRAY_PX) + 0.5) / GRAY_PX * 2 - 1).astype(np.float32)
    y, x = (one.ravel() for one in np.meshgrid(at, at, indexing="ij"))
    ones = np.ones_like(x)
    places = np.stack([x, y, ones])  # (3, 1024)
    slopes_y, slopes_x = np.gradient(seconds, 2 / GRAY_PX, axis=(1, 2))
    layers = np.stack([seconds, slopes_x, slopes_y, _texture(seconds)], axis=1)
    way = np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1))
    target = firsts.reshape(n, GRAY_PX**2)
    for _ in range(n_steps):
        (moved, dx, dy), inside = _sampled(layers[:, :3], way @ places)
        moves = [d[:, None] * places for d in (dx, dy)]
        shades = np.stack([moved, np.broadcast_to(ones, moved.shape)], axis=1)
        jacobian = np.concatenate([*moves, shades], axis=1) * inside[:, None]  # (n, 8, 1024)
        square = jacobian @ jacobian.transpose(0, 2, 1)
        square += 1e-3 * np.trace(square, axis1=1, axis2=2)[:, None, None] / 8 * np.eye(8)
        wrong = (target - moved) * inside
        step = np.linalg.solve(square, jacobian @ wrong[:, :, None])[:, :6, 0]
        way += np.clip(step, -0.1, 0.1).reshape(n, 2, 3).astype(np.float32)
        way = np.clip(way, np.eye(2, 3) - 2 * _MOST, np.eye(2, 3) + 2 * _MOST).astype(np.float32)
    (texture,), inside = _sampled(layers[:, 3:], way @ places)
    found = _correlations(_texture(firsts).reshape(n, GRAY_PX**2), texture, inside)
    far = np.abs(way - np.eye(2, 3)).max((1, 2)) > _MOST
    return np.where(far, np.float32(-1), found)


def _texture(images: Floats) -> Floats:
    """A picture less its coarse shades: smoothed a little minus smoothed a lot."""

    def smooth(values: Floats) -> Floats:
        wide = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
        return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16)

    fine = smooth(images)
    coarse = fine
    for _ in range(4):
        coarse = smooth(coarse)
    return fine - coarse


def _sampled(layers: Floats, places: Floats) -> tuple[list[Floats], Floats]:
    """Layers (n, k, 32, 32) at places (n, 2, 1024), bilinear; and 1 where inside, else 0."""
    n, k = layers.shape[:2]
    spot = (places + 1) * (GRAY_PX / 2) - np.float32(0.5)
    inside = np.asarray(((spot > -0.5) & (spot < GRAY_PX - 0.5)).all(1), np.float32)
    spot = np.clip(spot, 0, GRAY_PX - 1.001)
    low = spot.astype(np.int64)
    fx, fy = (spot - low).transpose(1, 0, 2).astype(np.float32)
    corner = low[:, 1] * GRAY_PX + low[:, 0]
    found = []
    for layer in layers.reshape(n, k, GRAY_PX**2).transpose(1, 0, 2):
        a, b, c, d = (
            np.take_along_axis(layer, corner + offset, 1) for offset in (0, 1, GRAY_PX, GRAY_PX + 1)
        )
        top, bottom = a + (b - a) * fx, c + (d - c) * fx
        found.append(top + (bottom - top) * fy)
    return found, inside


def _correlations(first: Floats, second: Floats, weight: Floats) -> Floats:
    total = np.maximum(weight.sum(1, keepdims=True), 1)
    first = (first - (first * weight).sum(1, keepdims=True) / total) * weight
    second = (second - (second * weight).sum(1, keepdims=True) / total) * weight
    length = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.asarray((first * second).sum(1) / np.maximum(length, 1e-6))
