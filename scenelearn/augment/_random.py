"""Uniform numbers as a function of their coordinates: the same in any order and any batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(
    seed: int, epoch: int, indices: npt.NDArray[np.int64], n_columns: int
) -> npt.NDArray[np.float64]:
    """One number for each photo and column, by hashing (seed, epoch, index, column).

    Args:
        seed: at least 0.
        epoch: at least 0.
        indices: (n,) at least 0.
        n_columns: how many for each photo.

    Returns:
        (n, n_columns) float64 in [0, 1).

    Example:
        >>> a, b = uniforms(0, 1, np.array([5, 9]), 3), uniforms(0, 1, np.array([9]), 4)
        >>> bool((a[1] == b[0, :3]).all())
        True

    References:
        The mixing is SplitMix64's: G. Steele, D. Lea, C. Flood (2014), Fast splittable
        pseudorandom number generators. OOPSLA.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        run = _mixed(_mixed(_words(seed)) ^ _words(epoch))
        photos = _mixed(_mixed(run ^ indices.astype(np.uint64)))
        columns = np.arange(1, n_columns + 1, dtype=np.uint64) * _GOLDEN
        hashed = _mixed(photos[:, None] + columns)
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _words(number: int) -> npt.NDArray[np.uint64]:
    """A whole number of any size as one word of 64 bits."""
    word = np.zeros(1, np.uint64)
    while True:
        word = _mixed(word ^ np.uint64(number & 0xFFFFFFFFFFFFFFFF))
        number >>= 64
        if not number:
            return word


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
