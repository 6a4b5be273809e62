"""What a split gives: which photos train, validate and test."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.data._manifest import Listed, write_manifest
from scenelearn.data._photos import Photos

SIDES = ("train", "validation", "test")
QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """The photos and their sides.

    Attributes:
        photos: all usable photos.
        train: (n_train,) int64, positions in `photos`, ascending.
        validation: (n_validation,) int64, likewise.
        test: (n_test,) int64, likewise.
        validation_share: the share that was asked for, in (0, 1), or the number of photos.
        test_share: likewise.
        seed: the seed of the draw.
        groups: (n,) int64, one number for photos that were kept together.
        quarantined: (n_quarantined,) int64, positions of photos that are on no side.
    """

    photos: Photos
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    validation_share: float
    test_share: float
    seed: int
    groups: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    quarantined: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __str__(self) -> str:
        apart = f", {len(self.quarantined):,} in quarantine" if len(self.quarantined) else ""
        return (
            f"{len(self.train):,} photos to train, {len(self.validation):,} to validate, "
            f"{len(self.test):,} to test{apart}"
        )

    def save(self, file: str | os.PathLike[str]) -> Path:
        """Write the split as a manifest: path, label, split, group and content hash a photo.

        ``sl.scan(folder, manifest=file)`` reads it. What is no longer there, or has another
        content, is then refused with its name; `split` keeps the sides that the manifest gives.

        Args:
            file: a name that ends in ``.csv``. An earlier file is replaced.

        Returns:
            The path.

        Raises:
            ManifestError: if the name has another ending.
            ArgumentError: if `file` is a folder, or its folder cannot be written to.
        """
        photos = self.photos
        rows = [
            Listed(
                path=photos.paths[i],
                label=photos.class_names[photos.labels[i]],
                side=side,
                group=str(self.groups[i]) if len(self.groups) else "",
                hash=photos.hashes[i],
            )
            for side in SIDES
            for i in map(int, getattr(self, side))
        ]
        return write_manifest(file, sorted(rows, key=lambda row: row.path))

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row a class: how many photos it has on each side."""
        return [
            {
                "class": name,
                **{
                    side: int((self.photos.labels[getattr(self, side)] == k).sum())
                    for side in SIDES
                },
            }
            for k, name in enumerate(self.photos.class_names)
        ]

    def to_json(self) -> dict[str, Any]:
        """Shares, seed and, for each side, the photos' paths with their content hashes."""
        paths, hashes = self.photos.paths, self.photos.hashes
        return {
            "validation_share": self.validation_share,
            "test_share": self.test_share,
            "seed": self.seed,
            "class_names": list(self.photos.class_names),
            **{
                side: [{"path": paths[i], "hash": hashes[i].hex()} for i in getattr(self, side)]
                for side in SIDES
            },
            QUARANTINE: [paths[i] for i in self.quarantined],
        }

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("class", *SIDES))
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row.values())
            + "</tr>"
            for row in self.to_rows()
        )
        return (
            f"<p>{html.escape(str(self))}</p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )
