"""`Splits`: which photos are for training, validation and testing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._display import html_text, printable
from scenelearn._pandas import to_pandas
from scenelearn.data._manifest import ManifestRow, write_manifest
from scenelearn.data._photos import Photos

SPLIT_NAMES = ("train", "validation", "test")
QUARANTINE = "quarantine"


def _no_indices() -> npt.NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Splits:
    """Photos, divided into train, validation and test.

    ``len(splits)`` is the number of photos in all three. ``splits.photos[splits.train]`` gives the
    photos of one split.

    Attributes:
        photos: all usable photos.
        train: (n_train,) int64, positions in `photos`, ascending.
        validation: (n_validation,) int64, likewise; empty after ``split(photos, validation=0)``.
        test: (n_test,) int64, likewise.
        validation_fraction: the fraction that was requested, in [0, 1), or the number of photos.
        test_fraction: likewise, in (0, 1).
        seed: the random seed.
        groups: (n,) int64, the same number for photos that were kept in one split.
        quarantined: (n_quarantined,) int64, positions of photos in no split.
    """

    photos: Photos
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    validation_fraction: float
    test_fraction: float
    seed: int
    groups: npt.NDArray[np.int64] = field(default_factory=_no_indices)
    quarantined: npt.NDArray[np.int64] = field(default_factory=_no_indices)

    def __len__(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write the splits as a manifest: path, label, split, group and content hash per photo.

        ``sl.scan(folder, manifest=file)`` reads it. Photos that are missing by then, or whose
        content has changed, are rejected; `split` keeps the splits that the manifest assigns.

        Args:
            file: the file to write or replace; its name ends in ``.csv``.

        Returns:
            The path.

        Raises:
            ManifestError: if the name does not end in ``.csv``.
            ArgumentError: if `file` is a folder, or its folder is not writable.
        """
        photos = self.photos
        rows = [
            ManifestRow(
                path=photos.paths[i],
                label=photos.class_names[photos.labels[i]],
                split=name,
                group=str(self.groups[i]) if len(self.groups) else "",
                hash=photos.hashes[i],
            )
            for name in SPLIT_NAMES
            for i in map(int, getattr(self, name))
        ]
        return write_manifest(file, sorted(rows, key=lambda row: row.path))

    def class_counts(self) -> list[dict[str, Any]]:
        """One plain row per class: its label and how many photos each split has of it."""
        labels, n_classes = self.photos.labels, self.photos.n_classes
        counts = {
            name: np.bincount(labels[getattr(self, name)], minlength=n_classes)
            for name in SPLIT_NAMES
        }
        return [
            {"label": label, **{name: int(counts[name][k]) for name in SPLIT_NAMES}}
            for k, label in enumerate(self.photos.class_names)
        ]

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row per photo of a split: path, label (the class name) and split."""
        paths, labels, class_names = self.photos.paths, self.photos.labels, self.photos.class_names
        return [
            {"path": paths[i], "label": class_names[labels[i]], "split": name}
            for name in SPLIT_NAMES
            for i in getattr(self, name)
        ]

    def to_pandas(self) -> Any:
        """The rows of `to_rows` as a ``pandas.DataFrame``.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> dict[str, Any]:
        """Fractions, seed, class names, and path, content hash and group of each photo."""
        paths, hashes = self.photos.paths, self.photos.hashes

        def to_row(i: int) -> dict[str, Any]:
            group = {"group": int(self.groups[i])} if len(self.groups) else {}
            return {"path": paths[i], "hash": hashes[i].hex(), **group}

        return {
            "validation_fraction": self.validation_fraction,
            "test_fraction": self.test_fraction,
            "seed": self.seed,
            "class_names": list(self.photos.class_names),
            **{name: [to_row(i) for i in getattr(self, name)] for name in SPLIT_NAMES},
            QUARANTINE: [paths[i] for i in self.quarantined],
        }

    @property
    def summary(self) -> str:
        """One line: how many photos each split has."""
        text = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in SPLIT_NAMES)
        n_quarantined = len(self.quarantined)
        return text + (f", {n_quarantined:,} in quarantine" if n_quarantined else "")

    def __repr__(self) -> str:
        return f"<Splits: {self.summary}>"

    def __str__(self) -> str:
        """The summary and a table of the photos per class and split."""
        lines = [self.summary, "".join(f"{name:>11}" for name in SPLIT_NAMES) + "  label"]
        for row in self.class_counts():
            numbers = "".join(f"{row[name]:11,}" for name in SPLIT_NAMES)
            lines.append(f"{numbers}  {printable(row['label'])}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_text(self)
