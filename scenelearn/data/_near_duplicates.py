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
   and an offset as unknowns. They look alike if that map is close to the identity and the aligned
   thumbnails, high-pass filtered to edges and texture, correlate.
4. Photos that look alike show the same picture if also their colors agree, everywhere: the largest
   difference of 3×3 pixels counts, relative to the contrast around them. So a scratch on a part,
   or another color of a shape, makes another picture.
5. Many photos that look alike, of which some fail step 4, are a series, such as photos of a fixed
   camera or drawn digits. There, photos show the same picture only if they differ much less than
   is usual in it.

References:
    B. Lucas and T. Kanade, "An iterative image registration technique with an application to stereo
    vision", IJCAI 1981.
    S. Dasgupta and Y. Freund, "Random projection trees and low dimensional manifolds", STOC 2008.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._distributed import concatenate_rows, share
from scenelearn._progress import Report
from scenelearn._threads import map_ahead, n_threads
from scenelearn.data._groups import connected_components

THUMBNAIL_PX = 32
_SAME = 0.75  # minimum correlation of edges and texture after alignment
_ALIKE = 0.6  # likewise, for photos of one series
# Chosen on half of the Intel photos, judged on the other: docs/results/near_duplicates.json.
_MAX_DIFFERENCE = 1.5  # of 3×3 pixels, relative to the contrast around them
_NOISE = 4  # gray levels, added to that contrast
_MAX_GAIN = 2
_SERIES, _LARGE_SERIES = 8, 12  # so many photos that look alike may be, or are, a series
_MAX_FAILURES = 0.1  # a smaller series in which a larger fraction of the pairs fails is one
_UNUSUAL = 0.4  # maximum difference in a series, relative to the lower quartile
_STEPS = 8  # of the alignment
_FIRST_STEPS, _HOPELESS = 3, 0.3  # pairs below this correlation after so many steps are dropped
_MAX_CHANGE = 0.2  # a larger rotation, scaling or shift, in half widths, is another picture
_PAIRS_AT_ONCE = 512
_PHOTOS_AT_ONCE = 4096

_N_WAVES = 8
_NEAR = 0.65  # minimum correlation of the descriptors of a candidate pair
_MAX_NEIGHBORS = 8  # candidates per photo
_LEAF_SIZE = 2048
_N_TREES = 8
_ROWS_AT_ONCE = 512
_DIRECTION_SAMPLE = 256  # points by which a direction is chosen
_SIGN = (-1.0) ** np.arange(_N_WAVES, dtype=np.float32)
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)  # rotating left undoes rotating right

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Candidates = npt.NDArray[np.int64]  # (n, 3): i, j and the orientation of j


def find_near_duplicates(
    thumbnails: npt.NDArray[np.uint8],
    indices: npt.NDArray[np.int64],
    progress: Report | None = None,
) -> list[tuple[int, int]]:
    """Find the pairs of thumbnails that show the same picture. Several processes share the work.

    Args:
        thumbnails: (n, 32, 32, 3) uint8; may be memory-mapped, since few are read at a time.
            Uniform thumbnails match none.
        indices: (m,) int64, ascending: the thumbnails to compare.
        progress: called with (candidates compared, total).

    Returns:
        Pairs (i, j) with i < j, ascending.
    """
    descriptors = np.zeros((len(indices), _N_WAVES, _N_WAVES), np.float32)
    contrast = np.zeros(len(indices), np.float32)
    for start in range(0, len(indices), _PHOTOS_AT_ONCE):
        part = slice(start, start + _PHOTOS_AT_ONCE)
        descriptors[part], contrast[part] = _describe(to_gray(thumbnails[indices[part]]))
    usable, descriptors = indices[contrast > 1], descriptors[contrast > 1]
    alike, differences = _compare(thumbnails, usable, find_candidates(descriptors), progress)
    # Neighbors alone may split a series into parts; one photo of each part joins them.
    firsts, sizes = np.unique(_find_series(alike, len(usable)), return_counts=True)
    firsts = firsts[sizes > 1]
    candidates = find_candidates(descriptors[firsts])
    candidates[:, :2] = firsts[candidates[:, :2]]
    more = _compare(thumbnails, usable, candidates)
    alike = np.concatenate([alike, more[0]])
    local, overall = np.concatenate([differences, more[1]], axis=1)
    same = local <= _MAX_DIFFERENCE
    series_of = _find_series(alike, len(usable))[alike[:, 0]]
    for series in np.unique(series_of):
        members = series_of == series
        n_photos, failures = len(np.unique(alike[members])), 1 - same[members].mean()
        if n_photos > _LARGE_SERIES or (n_photos > _SERIES and failures > _MAX_FAILURES):
            usual = np.quantile(overall[members], 0.25)
            same[members] &= overall[members] <= _UNUSUAL * usual
            same[members] &= local[members] <= _MAX_DIFFERENCE / 2
    pairs = np.unique(np.sort(usable[alike[same]], axis=1), axis=0)
    return [(low, high) for low, high in pairs.tolist()]


def _find_series(alike: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """The first photo of each photo's series; `alike` are pairs (m, 2)."""
    return connected_components(n, ((i, j) for i, j in alike.tolist()))


def _compare(
    thumbnails: npt.NDArray[np.uint8],
    usable: npt.NDArray[np.int64],
    candidates: Candidates,
    progress: Report | None = None,
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Compare the pixels of candidates, some on each core.

    Returns:
        The pairs that look alike, (m, 2), and their differences (2, m), as by `_compare_colors`;
        the first is infinite for pairs whose edges and texture do not correlate enough.
    """

    def compare_part(start: int) -> tuple[npt.NDArray[np.int64], Floats]:
        part = candidates[start : start + _PAIRS_AT_ONCE]
        firsts, seconds = thumbnails[usable[part[:, 0]]], thumbnails[usable[part[:, 1]]]
        for orientation in range(8):
            chosen = part[:, 2] == orientation
            seconds[chosen] = orient(seconds[chosen], orientation)
        grays = _standardize(to_gray(firsts)), _standardize(to_gray(seconds))
        kept = np.arange(len(part))
        for n_steps, minimum in ((_FIRST_STEPS, _HOPELESS), (_STEPS, _ALIKE)):
            maps, correlations = align(grays[0][kept], grays[1][kept], n_steps)
            passed = correlations >= minimum
            maps, correlations, kept = maps[passed], correlations[passed], kept[passed]
        local, overall = _compare_colors(firsts[kept], seconds[kept], maps)
        local[correlations < _SAME] = np.inf
        return part[kept, :2], np.stack([local, overall])

    pairs, differences = [np.zeros((0, 2), np.int64)], [np.zeros((2, 0), np.float32)]
    starts = range(0, len(candidates), _PAIRS_AT_ONCE)
    for start, part in zip(starts, map_ahead(compare_part, starts, n_threads()), strict=True):
        pairs.append(part[0])
        differences.append(part[1])
        if progress:
            progress(min(start + _PAIRS_AT_ONCE, len(candidates)), len(candidates))
    return np.concatenate(pairs), np.concatenate(differences, axis=1)


def to_gray(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The luma (…) uint8 of colors (…, 3) uint8, as Pillow computes it."""
    weights = np.array([19595, 38470, 7471], np.uint32)
    return np.asarray((pixels @ weights + 2**15) >> 16, np.uint8)


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


def align(firsts: Floats, seconds: Floats, n_steps: int) -> tuple[Floats, Floats]:
    """Align the second thumbnail of each pair to the first; correlate their edges and texture.

    Args:
        firsts: (n, 32, 32) with mean 0 and standard deviation 1.
        seconds: likewise.
        n_steps: steps of the alignment.

    Returns:
        (n, 2, 3) affine maps, and (n,) correlations; -1 if no small map aligns the pair.
    """
    n = len(firsts)
    points = _grid()
    ones = points[2]
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
    return affine, np.where(too_far, np.float32(-1), correlation)


def _grid() -> Floats:
    """The homogeneous coordinates (3, 1024) of all pixels, from -1 to 1."""
    axis = ((np.arange(THUMBNAIL_PX) + 0.5) / THUMBNAIL_PX * 2 - 1).astype(np.float32)
    y, x = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
    return np.stack([x, y, np.ones_like(x)])


def _compare_colors(
    firsts: npt.NDArray[np.uint8], seconds: npt.NDArray[np.uint8], maps: Floats
) -> tuple[Floats, Floats]:
    """How much aligned thumbnails differ after a gain and an offset, the same for all colors.

    Args:
        firsts: (n, 32, 32, 3).
        seconds: likewise.
        maps: (n, 2, 3), from `align`.

    Returns:
        (n,): the largest difference of 3×3 pixels, relative to the lower contrast of the two in the
        5×5 pixels around them; infinite if the gain is out of range. (n,): the root mean square
        difference of all pixels, in gray levels.
    """
    shape = (*firsts.shape[:3], 1)
    first = firsts.astype(np.float32)
    layers, inside = _sample_bilinear(np.moveaxis(seconds, 3, 1).astype(np.float32), maps @ _grid())
    second, inside = np.stack(layers, axis=2).reshape(first.shape), inside.reshape(shape)
    total = 3 * np.maximum(inside.sum((1, 2, 3), keepdims=True), 1)
    mean1, mean2 = (
        (image * inside).sum((1, 2, 3), keepdims=True) / total for image in (first, second)
    )
    centered = (second - mean2) * inside
    gain = (centered * (first - mean1)).sum((1, 2, 3), keepdims=True)
    gain /= np.maximum((centered**2).sum((1, 2, 3), keepdims=True), 1e-6)
    offset = mean1 - gain * mean2
    second = gain * second + offset
    # Where one of the two is overexposed, the other's details do not count.
    difference = np.clip(first, offset, gain * 255 + offset) - np.clip(second, 0, 255)
    difference *= inside
    contrast = np.minimum(*(_contrast(image.mean(3)) for image in (first, second)))
    local = np.sqrt((_mean_filter(difference, 1) ** 2).mean(3)) / (_NOISE + contrast)
    local *= _mean_filter(inside, 1)[:, :, :, 0] > 1 - 1e-3
    largest = local[:, 1:-1, 1:-1].max((1, 2), initial=0)
    largest[(gain.ravel() > _MAX_GAIN) | (gain.ravel() < 1 / _MAX_GAIN)] = np.inf
    overall = np.sqrt((difference**2).sum((1, 2, 3)) / total.ravel())
    return largest, overall


def _contrast(images: Floats) -> Floats:
    """The standard deviation of the 5×5 pixels around each."""
    variance = _mean_filter(images**2, 2) - _mean_filter(images, 2) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 0)))


def _mean_filter(images: Floats, radius: int) -> Floats:
    """The mean of the pixels (n, h, w, …) around each."""
    for axis in (1, 2):
        width = [(radius, radius) if k == axis else (0, 0) for k in range(images.ndim)]
        padded = np.moveaxis(np.pad(images, width, mode="edge"), axis, 0)
        windows = [padded[k : k + images.shape[axis]] for k in range(2 * radius + 1)]
        images = np.moveaxis(np.sum(windows, axis=0), 0, axis)
    return np.asarray(images / (2 * radius + 1) ** 2, np.float32)


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
        leaves = list(_partition(descriptors, random))
        own = leaves[share(len(leaves))]  # of several processes each compares some leaves
        found = [_compare_leaf(descriptors, *leaf) for leaf in own]
        some = np.concatenate([pairs[:0], *(each for each, _ in found)])
        pairs = np.concatenate([pairs, concatenate_rows(some)])
        some_scores = np.concatenate([scores[:0], *(each for _, each in found)])
        scores = np.concatenate([scores, concatenate_rows(some_scores)])
        pairs, scores = _keep_nearest(pairs, scores)
    unordered = np.sort(pairs[:, :2], axis=1)
    order = np.lexsort((-scores, unordered[:, 1], unordered[:, 0]))
    _, first = np.unique(unordered[order], axis=0, return_index=True)
    return np.asarray(pairs[order[first]], np.int64)


def orient(images: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Squares (n, k, k, …) in one of eight orientations: flip up-down, left-right, transpose."""
    images = images[:, ::-1] if orientation & 1 else images
    images = images[:, :, ::-1] if orientation & 2 else images
    return images.swapaxes(1, 2) if orientation & 4 else images


def _orient_dct(descriptors: Floats, orientation: int) -> Floats:
    """The descriptors (…, 8, 8) of pictures in one of the eight orientations."""
    descriptors = descriptors * _SIGN[:, None] if orientation & 1 else descriptors
    descriptors = descriptors * _SIGN if orientation & 2 else descriptors
    return descriptors.swapaxes(-1, -2) if orientation & 4 else descriptors


def _partition(
    descriptors: Floats, random: np.random.Generator
) -> Iterator[tuple[Ints, list[Ints]]]:
    """One tree: for each leaf its points, and those that fall into it in each orientation."""
    flat = descriptors.reshape(len(descriptors), _N_WAVES**2)
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


def _compare_leaf(
    descriptors: Floats, points: Ints, oriented: list[Ints]
) -> tuple[npt.NDArray[np.int64], Floats]:
    """The similar pairs of one leaf and their scores: for each point its nearest neighbors."""
    pairs, scores = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.float32)]
    for orientation, indices in enumerate(oriented):
        others = _orient_dct(descriptors[indices], orientation).reshape(len(indices), _N_WAVES**2)
        for start in range(0, len(points), _ROWS_AT_ONCE):
            rows = points[start : start + _ROWS_AT_ONCE]
            similarity = descriptors[rows].reshape(len(rows), _N_WAVES**2) @ others.T
            near = similarity >= _NEAR
            if near.sum() > 4 * _MAX_NEIGHBORS * len(rows):  # as with photos of a fixed camera
                last = -1 - _MAX_NEIGHBORS  # one more, since each photo is near itself
                bound = np.partition(similarity, last, axis=1)[:, last]
                near &= similarity >= bound[:, None]
            row, column = np.nonzero(near)
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
