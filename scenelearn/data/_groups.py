"""Groups of photos that belong together: connected components of a graph."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
import numpy.typing as npt


def connected_components(n: int, pairs: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """Label each of n nodes with the lowest node that it is connected to.

    Args:
        n: the number of nodes.
        pairs: the edges.

    Returns:
        (n,) int64.

    Example:
        >>> connected_components(5, [(3, 1), (4, 3)]).tolist()
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


def pairs_with_equal_keys(keys: Iterable[Hashable]) -> list[tuple[int, int]]:
    """Pair each position with the first one that has the same key.

    Example:
        >>> pairs_with_equal_keys(["a", "b", "a", "a"])
        [(0, 2), (0, 3)]
    """
    first: dict[Hashable, int] = {}
    pairs = ((first.setdefault(key, index), index) for index, key in enumerate(keys))
    return [(low, high) for low, high in pairs if low != high]
