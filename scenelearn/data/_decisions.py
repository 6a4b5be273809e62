"""Decisions of a person about photos, in one file next to them. `scan` honors them."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scenelearn._display import printable
from scenelearn.data._manifest import read_table, write_table
from scenelearn.data._photos import Photos
from scenelearn.data._rejections import Rejected, RejectionReason
from scenelearn.errors import ManifestError, NoPhotosError

FILE_NAME = "scenelearn_decisions.csv"
KINDS = ("keep", "relabel", "quarantine")

_COLUMNS = ("path", "decision", "label", "new_label", "hash")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided about one photo.

    Attributes:
        path: the photo's path, relative to its folder or archive.
        decision: "keep", "relabel" or "quarantine".
        label: the name of the photo's class before.
        hash: the `content_hash` of its file.
        new_label: the name of the class that "relabel" gives it, else "".
    """

    path: str
    decision: str
    label: str
    hash: bytes
    new_label: str = ""


def decisions_file(folder: Path) -> Path:
    """The file of decisions about the photos of a folder, or next to their archive."""
    return folder / FILE_NAME if folder.is_dir() else folder.with_name(f"{folder.name}.{FILE_NAME}")


def read_decisions(file: Path) -> dict[str, Decision]:
    """The decisions by the path of the photo, the oldest first; none if there is no file.

    Raises:
        ManifestError: if the file cannot be read or is invalid.
    """
    if not file.exists():
        return {}
    decisions = {}
    for number, cells in enumerate(read_table(file), start=1):
        content_hash = b""
        with suppress(ValueError):
            content_hash = bytes.fromhex(cells.get("hash") or "")
        decision = Decision(
            path=cells["path"],
            decision=cells.get("decision") or "",
            label=cells["label"].strip(),
            new_label=unicodedata.normalize("NFC", (cells.get("new_label") or "").strip()),
            hash=content_hash,
        )
        is_valid = decision.decision in KINDS and len(content_hash) == 16
        if not is_valid or (decision.decision == "relabel") != bool(decision.new_label):
            raise ManifestError(
                f"{str(file)!r}, row {number}: 'decision' must be one of {', '.join(KINDS)}, "
                "'hash' 32 hexadecimal digits, and 'new_label' a class for relabel only. Received: "
                f"{printable(str(list(cells.values()))):.200}. Remove the line."
            )
        decisions[decision.path] = decision
    return decisions


def write_decisions(file: Path, decisions: Iterable[Decision]) -> None:
    """Write decisions, atomically.

    Raises:
        ArgumentError: if the folder is not writable.
        DiskSpaceError: if the disk is full.
        DiskError: if the system cannot write the file.
    """
    rows = ((d.path, d.decision, d.label, d.new_label, d.hash.hex()) for d in decisions)
    write_table(file, _COLUMNS, rows)


def apply_decisions(photos: Photos) -> Photos:
    """Relabel photos, and reject those in quarantine, as the file next to them says.

    A decision applies while the photo has the content and the label that it had then. Others are
    logged.

    Raises:
        ManifestError: if the file is invalid.
        NoPhotosError: if no photo is left.
    """
    file = decisions_file(photos.folder)
    decisions = read_decisions(file)
    labels = [photos.class_names[label] for label in photos.labels]
    kept: list[int] = []
    quarantined: list[Rejected] = []
    n_outdated = 0
    for index, path in enumerate(photos.paths):
        decision = decisions.get(path)
        applies = decision is not None and decision.hash == photos.hashes[index]
        if decision is None:
            kept.append(index)
        elif not applies or decision.label != labels[index]:
            n_outdated += not applies or decision.new_label != labels[index]
            kept.append(index)
        elif decision.decision == "quarantine":
            detail = f"by {file.name}"
            reason = RejectionReason.QUARANTINED
            quarantined.append(Rejected(path=path, reason=reason, detail=detail))
        else:
            labels[index] = decision.new_label or labels[index]
            kept.append(index)
    if n_outdated:
        _log.warning(
            "%s: %d decisions are about photos that have changed since, or have another label. "
            "They are ignored: decide again by `scenelearn clean`.",
            printable(str(file)),
            n_outdated,
        )
    if not decisions:
        return photos
    if not kept:
        raise NoPhotosError(
            f"{str(photos.folder)!r} has no usable photo. Received: {len(quarantined):,} photos, "
            f"all in quarantine by {str(file)!r}. Undo some, or delete this file."
        )
    names = tuple(sorted({labels[index] for index in kept}))
    position = {name: k for k, name in enumerate(names)}
    return replace(
        photos[kept],
        labels=np.array([position[labels[index]] for index in kept], np.int32),
        class_names=names,
        unlabeled=photos.unlabeled,
        rejected=tuple(sorted([*photos.rejected, *quarantined], key=lambda one: one.path)),
    )


def reviewed_photos(photos: Photos) -> tuple[int, ...]:
    """The positions of photos whose label a person has confirmed: by "keep", or by "relabel".

    Args:
        photos: from `scan`, which has applied the decisions.

    Raises:
        ManifestError: if the file of decisions is invalid.
    """
    decisions = read_decisions(decisions_file(photos.folder))
    found = []
    for index, path in enumerate(photos.paths if decisions else ()):
        decision = decisions.get(path)
        if decision is None or decision.hash != photos.hashes[index]:
            continue
        label = decision.new_label or decision.label
        if decision.decision != "quarantine" and label == photos.class_names[photos.labels[index]]:
            found.append(index)
    return tuple(found)
