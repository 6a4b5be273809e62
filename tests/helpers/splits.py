"""Photos without files, and their splits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from scenelearn.data import Photos, Splits

SPLITS = ("train", "validation", "test")


def made_up(
    counts: dict[str, int], *, start: int = 0, given: dict[str, str] | None = None
) -> Photos:
    """Photos without files: photo k of all has the hash of k."""
    names = tuple(sorted(counts))
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [counts[name] for name in names])
    numbers = range(start, start + len(labels))
    return Photos(
        folder=Path("/photos"),
        paths=tuple(f"{names[k]}/{n}.jpg" for n, k in zip(numbers, labels, strict=True)),
        labels=labels,
        class_names=names,
        hashes=tuple(hashed(n) for n in numbers),
        splits=tuple((given or {}).get(names[k], "") for k in labels),
    )


def hashed(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def splits_of(splits: Splits) -> list[str]:
    """The split of each photo; each photo is in exactly one."""
    assigned = [""] * len(splits.photos)
    for name in SPLITS:
        for k in getattr(splits, name):
            assert assigned[k] == ""
            assigned[k] = name
    assert "" not in assigned
    return assigned


def with_splits(photos: Photos, given: list[str]) -> Photos:
    return Photos(
        folder=photos.folder,
        paths=photos.paths,
        labels=photos.labels,
        class_names=photos.class_names,
        hashes=photos.hashes,
        splits=tuple(given),
    )
