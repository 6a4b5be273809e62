"""What a scan finds: the usable photos, and everything that was refused, with its reason."""

from __future__ import annotations

import enum
import hashlib
import html
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._display import printable
from scenelearn.data._store import read_file


def content_hash(content: bytes) -> bytes:
    """16 bytes that stand for a file's content: equal hash, equal file."""
    return hashlib.blake2b(content, digest_size=16).digest()


class Reason(enum.Enum):
    """Why a file is not used. The list is closed: every file found is used or has one of these."""

    EMPTY_FILE = "empty file"
    NOT_AN_IMAGE = "not an image"
    UNSUPPORTED = "unsupported image format"
    TRUNCATED = "truncated image"
    DAMAGED = "damaged image"
    TOO_LARGE = "image too large"
    UNREADABLE = "cannot be read"
    NO_CLASS_FOLDER = "not in a class folder"
    SYSTEM_FILE = "hidden or system file"
    SPECIAL_FILE = "not a regular file"
    MISSING = "listed, but not there"
    CHANGED = "changed since it was listed"


HARMLESS = frozenset({Reason.NO_CLASS_FOLDER, Reason.SYSTEM_FILE, Reason.SPECIAL_FILE})
"""Reasons of files that are no broken photos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One file or folder that is not used.

    Attributes:
        path: relative to the scanned folder, with forward slashes.
        reason: one of the closed list.
        detail: what exactly was found, in words; may be empty.
    """

    path: str
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason.value}" + (
            f" ({self.detail})" if self.detail else ""
        )

    def to_json(self) -> dict[str, str]:
        """The three fields as strings."""
        return {"path": self.path, "reason": self.reason.value, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photos:
    """The usable photos of a folder, column by column, in the order of their paths.

    Attributes:
        folder: the scanned folder or ``.zip`` file, absolute.
        paths: one path a photo, relative to `folder`, with forward slashes.
        labels: (n,) int32 in [0, n_classes), positions in `class_names`.
        class_names: the classes, sorted.
        hashes: `content_hash` of each photo's file.
        sides: the side that the folder gives each photo: "train", "validation", "test" or "".
        unlabeled: photos in a prediction folder (``seg_pred``): usable, but without a class.
        refused: everything else that was found.
        groups: from a manifest's column: photos of one name belong together, those of "" alone;
            empty where no manifest gives any.
    """

    folder: Path
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]
    hashes: tuple[bytes, ...]
    sides: tuple[str, ...]
    unlabeled: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def counts(self) -> dict[str, int]:
        """How many usable photos each class has."""
        totals = np.bincount(self.labels, minlength=self.n_classes)
        return {name: int(n) for name, n in zip(self.class_names, totals, strict=True)}

    def file(self, index: int) -> Path:
        """The absolute path of photo `index`; of one in an archive, below the archive's own."""
        return self.folder / self.paths[index]

    def read(self, index: int) -> bytes:
        """The bytes of photo `index`'s file.

        Raises:
            OSError: if it is gone or cannot be read.
        """
        return read_file(self.folder, self.paths[index])

    def __str__(self) -> str:
        text = f"{len(self):,} photos in {self.n_classes} classes"
        if self.unlabeled:
            text += f", {len(self.unlabeled):,} without a class"
        if self.refused:
            reasons = Counter(refusal.reason.value for refusal in self.refused)
            listed = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
            text += f", {len(self.refused):,} refused ({listed})"
        return text

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row a photo, ready for a table or a data frame."""
        return [
            {"path": path, "class": self.class_names[label], "side": side}
            for path, label, side in zip(self.paths, self.labels, self.sides, strict=True)
        ]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{n:,}</td></tr>"
            for name, n in self.counts().items()
        )
        refusals = "".join(f"<li>{html.escape(str(refusal))}</li>" for refusal in self.refused[:20])
        more = f"<li>and {len(self.refused) - 20:,} more</li>" if len(self.refused) > 20 else ""
        return (
            f"<p>{html.escape(str(self))}</p><table><thead><tr><th>class</th><th>photos</th></tr>"
            f"</thead><tbody>{rows}</tbody></table><ul>{refusals}{more}</ul>"
        )
