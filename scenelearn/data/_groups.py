"""What belongs together: the connected parts of a set of links."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
import numpy.typing as npt


def joined(n: int, pairs: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """For each of n, the lowest that pairs connect it to.

    Args:
        n: how many there are.
        pairs: links between two of them.

    Returns:
        (n,) int64.

    Example:
        >>> joined(5, [(3, 1), (4, 3)]).tolist()
        [0, 1, 2, 1, 1]
    """
    parent = list(range(n))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for i, j in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return np.array([root(index) for index in range(n)], np.int64)


def links(keys: Iterable[Hashable]) -> list[tuple[int, int]]:
    """Link each position to the first one with the same key.

    Example:
        >>> links(["a", "b", "a", "a"])
        [(0, 2), (0, 3)]
    """
    first: dict[Hashable, int] = {}
    found = ((first.setdefault(key, index), index) for index, key in enumerate(keys))
    return [(low, high) for low, high in found if low != high]
