"""Find photos that show the same picture: re-encoded, resized, mirrored, rotated or cropped.

1. Each photo becomes a 32×32 gray thumbnail and a descriptor: its lowest 8×8 DCT coefficients
   c(u, v) without c(0, 0), weighted by √(u² + v²), since photos have less energy at high
   frequencies, and normalized to length 1. Brightness and contrast no longer matter.
2. Candidates are each photo's nearest neighbors by these descriptors, in any of eight orientations:
   mirroring a picture changes signs of coefficients, rotating it by 90° also swaps c(u, v) and
   c(v, u). Up to a few thousand photos are compared exhaustively, by matrix products. More are
   partitioned first by random projection trees: the points are split at the median along a random
   direction of large variance, and the halves likewise, until the parts are small. Near points
   mostly end up in the same part, and eight such trees find nearly all of them. That costs
   n · log n · 64 multiply-adds per tree for the partition, and n · 2,048 · 8 · 64 to compare.
3. Candidates are aligned by the affine map that makes the two thumbnails most similar, with a gain
   and an offset as unknowns. They show the same picture if that map is close to the identity and
   the aligned thumbnails, high-pass filtered to edges and texture, correlate.

References:
    B. Lucas and T. Kanade, "An iterative image registration technique with an application to stereo
    vision", IJCAI 1981.
    S. Dasgupta and Y. Freund, "Random projection trees and low dimensional manifolds", STOC 2008.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

THUMBNAIL_PX = 32
_SAME = 0.85  # minimum correlation of edges and texture after alignment
_STEPS = 8  # of the alignment
_FIRST_STEPS, _HOPELESS = 3, 0.3  # pairs below this correlation after so many steps are dropped
_MAX_CHANGE = 0.2  # a larger rotation, scaling or shift, in half widths, is another picture
_PAIRS_AT_ONCE = 512
_PHOTOS_AT_ONCE = 4096

_N_WAVES = 8
_NEAR = 0.7  # minimum correlation of the descriptors of a candidate pair
_MAX_NEIGHBORS = 8  # candidates per photo
_LEAF_SIZE = 2048
_N_TREES = 8
_ROWS_AT_ONCE = 512
_DIRECTION_SAMPLE = 256  # points by which a direction is chosen
_SIGN = (-1.0) ** np.arange(_N_WAVES, dtype=np.float32)
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)  # rotating left undoes rotating right

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def find_near_duplicates(
    thumbnails: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Find the pairs of thumbnails that show the same picture.

    Args:
        thumbnails: (n, 32, 32) uint8; may be memory-mapped, since few are read at a time. Uniform
            thumbnails match none.
        indices: (m,) int64, ascending: the thumbnails to compare.

    Returns:
        Pairs (i, j) with i < j, ascending.
    """
    descriptors = np.zeros((len(indices), _N_WAVES, _N_WAVES), np.float32)
    contrast = np.zeros(len(indices), np.float32)
    for start in range(0, len(indices), _PHOTOS_AT_ONCE):
        part = slice(start, start + _PHOTOS_AT_ONCE)
        descriptors[part], contrast[part] = _describe(thumbnails[indices[part]])
    usable = indices[contrast > 1]
    candidates = find_candidates(descriptors[contrast > 1])
    pairs = []
    for start in range(0, len(candidates), _PAIRS_AT_ONCE):
        i, j, orientations = candidates[start : start + _PAIRS_AT_ONCE].T
        firsts, seconds = _standardize(thumbnails[usable[i]]), _standardize(thumbnails[usable[j]])
        for orientation in range(8):
            chosen = orientations == orientation
            seconds[chosen] = orient(seconds[chosen], orientation)
        hopeful = np.flatnonzero(align_and_correlate(firsts, seconds, _FIRST_STEPS) >= _HOPELESS)
        correlations = align_and_correlate(firsts[hopeful], seconds[hopeful], _STEPS)
        same = hopeful[correlations >= _SAME]
        pairs += [sorted((int(usable[i[k]]), int(usable[j[k]]))) for k in same]
    return sorted((low, high) for low, high in pairs)


def _describe(thumbnails: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """The descriptors (n, 8, 8), and each thumbnail's contrast in gray levels."""
    position = (np.arange(THUMBNAIL_PX) + 0.5) * np.pi / THUMBNAIL_PX
    waves = np.cos(np.arange(_N_WAVES)[:, None] * position) * np.sqrt(2 / THUMBNAIL_PX)
    dct = waves.astype(np.float32) @ thumbnails.astype(np.float32) @ waves.T.astype(np.float32)
    dct[:, 0, :] *= np.float32(np.sqrt(0.5))
    dct[:, :, 0] *= np.float32(np.sqrt(0.5))
    dct[:, 0, 0] = 0
    contrast = np.sqrt((dct**2).sum((1, 2))) / THUMBNAIL_PX
    dct *= np.hypot(*np.indices((_N_WAVES, _N_WAVES))).astype(np.float32)
    length = np.sqrt((dct**2).sum((1, 2), keepdims=True))
    return dct / np.maximum(length, 1e-6), contrast


def _standardize(thumbnails: npt.NDArray[np.uint8]) -> Floats:
    values = thumbnails.astype(np.float32)
    values -= values.mean((1, 2), keepdims=True)
    return np.asarray(values / np.maximum(values.std((1, 2), keepdims=True), 1e-6), np.float32)


def align_and_correlate(firsts: Floats, seconds: Floats, n_steps: int) -> Floats:
    """Correlate edges and texture of thumbnails after aligning each pair.

    Args:
        firsts: (n, 32, 32) with mean 0 and standard deviation 1.
        seconds: likewise.
        n_steps: steps of the alignment.

    Returns:
        (n,) correlations; -1 if no small affine map aligns the pair.
    """
    n = len(firsts)
    axis = ((np.arange(THUMBNAIL_PX) + 0.5) / THUMBNAIL_PX * 2 - 1).astype(np.float32)
    y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    ones = np.ones_like(x)
    points = np.stack([x, y, ones])  # (3, 1024)
    slopes_y, slopes_x = np.gradient(seconds, 2 / THUMBNAIL_PX, axis=(1, 2))
    layers = np.stack([seconds, slopes_x, slopes_y, _high_pass(seconds)], axis=1)
    affine = np.tile(np.eye(2, 3, dtype=np.float32), (n, 1, 1))
    target = firsts.reshape(n, THUMBNAIL_PX**2)
    for _ in range(n_steps):
        (warped, dx, dy), inside = _sample_bilinear(layers[:, :3], affine @ points)
        moves = [d[:, None] * points for d in (dx, dy)]
        gain_and_offset = np.stack([warped, np.broadcast_to(ones, warped.shape)], axis=1)
        jacobian = np.concatenate([*moves, gain_and_offset], axis=1) * inside[:, None]  # n, 8, 1024
        hessian = jacobian @ jacobian.transpose(0, 2, 1)
        hessian += 1e-3 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] / 8 * np.eye(8)
        residual = (target - warped) * inside
        step = np.linalg.solve(hessian, jacobian @ residual[:, :, None])[:, :6, 0]
        affine += np.clip(step, -0.1, 0.1).reshape(n, 2, 3).astype(np.float32)
        low, high = np.eye(2, 3) - 2 * _MAX_CHANGE, np.eye(2, 3) + 2 * _MAX_CHANGE
        affine = np.clip(affine, low, high).astype(np.float32)
    (texture,), inside = _sample_bilinear(layers[:, 3:], affine @ points)
    correlation = _correlate(_high_pass(firsts).reshape(n, THUMBNAIL_PX**2), texture, inside)
    too_far = np.abs(affine - np.eye(2, 3)).max((1, 2)) > _MAX_CHANGE
    return np.where(too_far, np.float32(-1), correlation)


def _high_pass(images: Floats) -> Floats:
    """Edges and texture: the difference of a little and a lot of smoothing."""

    def smooth(values: Floats) -> Floats:
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16)

    fine = smooth(images)
    coarse = fine
    for _ in range(4):
        coarse = smooth(coarse)
    return fine - coarse


def _sample_bilinear(layers: Floats, points: Floats) -> tuple[list[Floats], Floats]:
    """Layers (n, k, 32, 32) at points (n, 2, 1024), bilinear; and 1 where inside, else 0."""
    n, k = layers.shape[:2]
    spot = (points + 1) * (THUMBNAIL_PX / 2) - np.float32(0.5)
    inside = np.asarray(((spot > -0.5) & (spot < THUMBNAIL_PX - 0.5)).all(1), np.float32)
    spot = np.clip(spot, 0, THUMBNAIL_PX - 1.001)
    low = spot.astype(np.int64)
    fx, fy = (spot - low).transpose(1, 0, 2).astype(np.float32)
    corner = low[:, 1] * THUMBNAIL_PX + low[:, 0]
    sampled = []
    for layer in layers.reshape(n, k, THUMBNAIL_PX**2).transpose(1, 0, 2):
        a, b, c, d = (
            np.take_along_axis(layer, corner + offset, 1)
            for offset in (0, 1, THUMBNAIL_PX, THUMBNAIL_PX + 1)
        )
        top, bottom = a + (b - a) * fx, c + (d - c) * fx
        sampled.append(top + (bottom - top) * fy)
    return sampled, inside


def _correlate(first: Floats, second: Floats, weight: Floats) -> Floats:
    total = np.maximum(weight.sum(1, keepdims=True), 1)
    first = (first - (first * weight).sum(1, keepdims=True) / total) * weight
    second = (second - (second * weight).sum(1, keepdims=True) / total) * weight
    length = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.asarray((first * second).sum(1) / np.maximum(length, 1e-6))


def find_candidates(descriptors: Floats) -> npt.NDArray[np.int64]:
    """Find pairs of similar descriptors: for each photo, its nearest neighbors.

    Args:
        descriptors: (n, 8, 8), each of length 1.

    Returns:
        (m, 3) int64: i, j and the orientation of j in which it is similar to i, each pair once.
    """
    n = len(descriptors)
    pairs = np.zeros((0, 3), np.int64)
    scores = np.zeros(0, np.float32)
    random = np.random.default_rng(0)
    for _ in range(1 if n <= _LEAF_SIZE else _N_TREES):
        found = [_compare(descriptors, *part) for part in _partition(descriptors, random)]
        pairs = np.concatenate([pairs, *(some for some, _ in found)])
        scores = np.concatenate([scores, *(score for _, score in found)])
        pairs, scores = _keep_nearest(pairs, scores)
    unordered = np.sort(pairs[:, :2], axis=1)
    order = np.lexsort((-scores, unordered[:, 1], unordered[:, 0]))
    _, first = np.unique(unordered[order], axis=0, return_index=True)
    return np.asarray(pairs[order[first]], np.int64)


def orient(images: Floats, orientation: int) -> Floats:
    """Squares (n, k, k) in one of eight orientations: flip up-down, left-right, then transpose."""
    images = images[:, ::-1] if orientation & 1 else images
    images = images[:, :, ::-1] if orientation & 2 else images
    return images.transpose(0, 2, 1) if orientation & 4 else images


def _orient_dct(descriptors: Floats, orientation: int) -> Floats:
    """The descriptors (…, 8, 8) of pictures in one of the eight orientations."""
    descriptors = descriptors * _SIGN[:, None] if orientation & 1 else descriptors
    descriptors = descriptors * _SIGN if orientation & 2 else descriptors
    return descriptors.swapaxes(-1, -2) if orientation & 4 else descriptors


def _partition(
    descriptors: Floats, random: np.random.Generator
) -> Iterator[tuple[Ints, list[Ints]]]:
    """One tree: for each leaf its points, and those that fall into it in each orientation."""
    flat = descriptors.reshape(len(descriptors), -1)
    everything = np.arange(len(flat))
    waiting = [(everything, [everything] * 8)]
    while waiting:
        points, oriented = waiting.pop()
        if len(points) <= _LEAF_SIZE:
            yield points, oriented
            continue
        n_sample = min(_DIRECTION_SAMPLE, len(points))
        sample = flat[random.choice(points, n_sample, replace=False)]
        sample = sample - sample.mean(axis=0)
        noise = random.standard_normal(flat.shape[1]).astype(np.float32)
        direction = sample.T @ (sample @ noise)
        median = np.median(flat[points] @ direction)
        square = direction.reshape(_N_WAVES, _N_WAVES)
        is_low = []
        for orientation, indices in enumerate(oriented):  # orient the direction, not the points
            inverse = _orient_dct(square, _INVERSE[orientation]).reshape(-1)
            is_low.append(flat[indices] @ inverse < median)
        if not 0 < is_low[0].sum() < len(points):  # all points are equal
            yield points, oriented
            continue
        for half in (True, False):
            chosen = [i[low == half] for i, low in zip(oriented, is_low, strict=True)]
            waiting.append((chosen[0], chosen))


def _compare(
    descriptors: Floats, points: Ints, oriented: list[Ints]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The similar pairs of one leaf and their scores: for each point its nearest neighbors."""
    pairs, scores = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
    for orientation, indices in enumerate(oriented):
        others = _orient_dct(descriptors[indices], orientation).reshape(len(indices), _N_WAVES**2)
        for start in range(0, len(points), _ROWS_AT_ONCE):
            rows = points[start : start + _ROWS_AT_ONCE]
            similarity = descriptors[rows].reshape(len(rows), _N_WAVES**2) @ others.T
            row, column = np.nonzero(similarity >= _NEAR)
            i, j = rows[row], indices[column]
            differ = i != j  # or a symmetric picture would match its own mirror image
            pairs.append(np.stack([i, j, np.full_like(i, orientation)], axis=1)[differ])
            scores.append(similarity[row, column][differ])
    return _keep_nearest(np.concatenate(pairs), np.concatenate(scores))


def _keep_nearest(
    pairs: npt.NDArray[np.int64], scores: Floats
) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each first photo its `_MAX_NEIGHBORS` nearest, each in its best orientation."""
    order = np.lexsort((-scores, pairs[:, 1], pairs[:, 0]))
    pairs, scores = pairs[order], scores[order]
    is_new = np.ones(len(pairs), bool)
    is_new[1:] = (pairs[1:, :2] != pairs[:-1, :2]).any(axis=1)
    pairs, scores = pairs[is_new], scores[is_new]
    order = np.lexsort((-scores, pairs[:, 0]))
    pairs, scores = pairs[order], scores[order]
    starts = np.flatnonzero(np.r_[True, pairs[1:, 0] != pairs[:-1, 0]])
    lengths = np.diff(np.r_[starts, len(pairs)]) if len(pairs) else np.zeros(0, np.int64)
    rank = np.arange(len(pairs)) - np.repeat(starts[: len(lengths)], lengths)
    return pairs[rank < _MAX_NEIGHBORS], scores[rank < _MAX_NEIGHBORS]
