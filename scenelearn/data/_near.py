"""Which pictures come near each other in any of eight orientations, without comparing all pairs.

Each picture is a point: its lowest 8 × 8 cosine coefficients. Mirroring it changes signs of
coefficients, turning it by 90° swaps c(u, v) and c(v, u) as well. Up to a few thousand points
are compared pair by pair, by products of matrices. More are first divided: in two halves
at the median along a random direction of large spread, each half likewise, until the parts are
small; near points mostly fall into the same part. Eight such trees, each divided along other
directions, find nearly all that are near. That costs n · log n · 64 multiply-adds a tree for the
division and n · 2,048 · 8 · 64 for the comparisons.

Dasgupta and Freund, "Random projection trees and low dimensional manifolds", STOC 2008.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

N_WAVES = 8
_NEAR = 0.7  # correlation of coefficients from which a pair is looked at closely
_MOST = 8  # a picture's nearest that are looked at
_PART = 2048
_TREES = 8
_BLOCK = 512
_SAMPLE = 256  # points that a direction is chosen by
_SIGN = (-1.0) ** np.arange(N_WAVES, dtype=np.float32)
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)  # turning left undoes turning right

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def near_pairs(coefficients: Floats) -> npt.NDArray[np.int64]:
    """Pairs that come near, each picture with the few that come nearest.

    Args:
        coefficients: (n, 8, 8), each of length 1.

    Returns:
        (m, 3) int64: i, j and the orientation of j in which it comes near i, each pair once.
    """
    n = len(coefficients)
    best = np.zeros((0, 3), np.int64)
    scores = np.zeros(0, np.float32)
    random = np.random.default_rng(0)
    for _ in range(1 if n <= _PART else _TREES):
        found = [_compared(coefficients, *part) for part in _parts(coefficients, random)]
        best = np.concatenate([best, *(pairs for pairs, _ in found)])
        scores = np.concatenate([scores, *(score for _, score in found)])
        best, scores = _nearest(best, scores)
    unordered = np.sort(best[:, :2], axis=1)
    order = np.lexsort((-scores, unordered[:, 1], unordered[:, 0]))
    _, first = np.unique(unordered[order], axis=0, return_index=True)
    return np.asarray(best[order[first]], np.int64)


def turned(images: Floats, way: int) -> Floats:
    """Squares (n, k, k) in one of eight orientations: up-down, left-right, then transposed."""
    images = images[:, ::-1] if way & 1 else images
    images = images[:, :, ::-1] if way & 2 else images
    return images.transpose(0, 2, 1) if way & 4 else images


def _turned_waves(coefficients: Floats, way: int) -> Floats:
    """The coefficients (…, 8, 8) of pictures in one of the eight orientations."""
    coefficients = coefficients * _SIGN[:, None] if way & 1 else coefficients
    coefficients = coefficients * _SIGN if way & 2 else coefficients
    return coefficients.swapaxes(-1, -2) if way & 4 else coefficients


def _parts(coefficients: Floats, random: np.random.Generator) -> Iterator[tuple[Ints, list[Ints]]]:
    """Divide the points; for each part its points, and those that are in it when turned."""
    flat = coefficients.reshape(len(coefficients), -1)
    everything = np.arange(len(flat))
    waiting = [(everything, [everything] * 8)]
    while waiting:
        points, ways = waiting.pop()
        if len(points) <= _PART:
            yield points, ways
            continue
        some = flat[random.choice(points, min(_SAMPLE, len(points)), replace=False)]
        some = some - some.mean(axis=0)
        direction = some.T @ (some @ random.standard_normal(flat.shape[1]).astype(np.float32))
        middle = np.median(flat[points] @ direction)
        square = direction.reshape(N_WAVES, N_WAVES)
        low = []
        for way, indices in enumerate(ways):  # a turned point along it: the point along it turned
            back = _turned_waves(square, _INVERSE[way]).reshape(-1)
            low.append(flat[indices] @ back < middle)
        if not 0 < low[0].sum() < len(points):  # all alike
            yield points, ways
            continue
        for side in (True, False):
            chosen = [indices[is_low == side] for indices, is_low in zip(ways, low, strict=True)]
            waiting.append((chosen[0], chosen))


def _compared(
    coefficients: Floats, points: Ints, ways: list[Ints]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The near pairs of one part and how near they are, for each point its nearest."""
    pairs, scores = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
    for way, indices in enumerate(ways):
        others = _turned_waves(coefficients[indices], way).reshape(len(indices), N_WAVES**2)
        for start in range(0, len(points), _BLOCK):
            mine = points[start : start + _BLOCK]
            likeness = coefficients[mine].reshape(len(mine), N_WAVES**2) @ others.T
            row, column = np.nonzero(likeness >= _NEAR)
            i, j = mine[row], indices[column]
            apart = i != j  # or a symmetric picture would be its own mirror image
            pairs.append(np.stack([i, j, np.full_like(i, way)], axis=1)[apart])
            scores.append(likeness[row, column][apart])
    return _nearest(np.concatenate(pairs), np.concatenate(scores))


def _nearest(pairs: npt.NDArray[np.int64], scores: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each first one the `_MOST` nearest others, each in its best orientation."""
    order = np.lexsort((-scores, pairs[:, 1], pairs[:, 0]))
    pairs, scores = pairs[order], scores[order]
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = (pairs[1:, :2] != pairs[:-1, :2]).any(axis=1)
    pairs, scores = pairs[fresh], scores[fresh]
    order = np.lexsort((-scores, pairs[:, 0]))
    pairs, scores = pairs[order], scores[order]
    starts = np.flatnonzero(np.r_[True, pairs[1:, 0] != pairs[:-1, 0]])
    lengths = np.diff(np.r_[starts, len(pairs)]) if len(pairs) else np.zeros(0, np.int64)
    rank = np.arange(len(pairs)) - np.repeat(starts[: len(lengths)], lengths)
    return pairs[rank < _MOST], scores[rank < _MOST]
