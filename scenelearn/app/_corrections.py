"""Corrections: photos whose class a person named, in a folder with a manifest."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from pathlib import Path

from scenelearn._display import is_printable
from scenelearn._io import atomic_write, exclusive
from scenelearn.data._decode import check_complete
from scenelearn.data._files import content_hash
from scenelearn.data._manifest import ManifestRow, read_manifest, write_manifest
from scenelearn.data._rejections import RejectedPhotoError, detect_format
from scenelearn.errors import ArgumentError, PhotoError

MANIFEST = "manifest.csv"
MAX_LABEL = 200  # characters

_LOCK = threading.Lock()


def save_correction(
    folder: Path, content: bytes, label: str, class_names: Collection[str] = ()
) -> Path:
    """Save a photo with the class that a person named; an earlier one of it is replaced.

    The photo is written first and the manifest last, each atomically: a crash never leaves a row
    without its photo.

    Args:
        folder: created if it does not exist. Its ``manifest.csv`` lists the photos.
        content: of the photo's file.
        label: the name of its class, which may be new.
        class_names: those that are saved as they are; spaces of others are made single.

    Returns:
        The photo's path.

    Raises:
        ArgumentError: if `label` is empty, longer than 200 characters or has control characters,
            or the folder is not writable.
        PhotoError: if `content` is not a complete photo.
        ManifestError: if the folder has a manifest that is invalid.
        DiskError: if the system cannot write.
    """
    if label not in class_names:
        label = re.sub(r"\s+", " ", label.strip(), flags=re.ASCII)
    if not label or len(label) > MAX_LABEL or not is_printable(label):
        raise ArgumentError(
            f"`label` must be the name of a class, at most {MAX_LABEL} printable characters. "
            f"Received: label={label!r:.80}. Choose or type one."
        )
    try:
        check_complete(content)
    except RejectedPhotoError as error:
        raise PhotoError(
            f"The photo must be complete. Received: {error}. Choose it again."
        ) from None
    digest = content_hash(content)
    path = folder / f"{digest.hex()}.{detect_format(content).lower()}"
    manifest = folder / MANIFEST
    with _LOCK, exclusive(folder):
        rows = read_manifest(manifest) if manifest.is_file() else []
        kept = [row for row in rows if row.path != path.name]
        if not path.is_file():
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        write_manifest(manifest, [*kept, ManifestRow(path=path.name, label=label, hash=digest)])
    return path
