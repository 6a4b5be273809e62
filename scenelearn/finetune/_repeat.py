"""Repeat a fit from its JSON."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from scenelearn._display import printable
from scenelearn._progress import Progress
from scenelearn.data import Photos, Splits, scan
from scenelearn.data._splits import SPLIT_NAMES
from scenelearn.errors import ManifestError
from scenelearn.finetune._device import environment, fingerprint
from scenelearn.finetune._fit import fit
from scenelearn.finetune._result import FitResult

_log = logging.getLogger(__name__)


def repeat(
    result: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    manifest: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    backbone: Any = None,
    teacher: Any = None,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> FitResult:
    """Run a fit again on the same photos with the same splits and settings.

    With the same versions on a CPU of the same kind, weights and history are identical. Any
    differences in the environment are logged as a warning. The number of epochs is that of the
    first fit, however fast this machine is.

    Args:
        result: from `FitResult.to_json`, or `json.load` of the result.json of a report.
        folder: the photos, a folder or archive. It may contain other files as well.
        manifest: the manifest with which the photos were scanned, if any.
        weights: path of the weights file; None for the path of the first fit.
        backbone: the network, if the first fit was given a `keras.Model`, or if its file or folder
            has moved; None for that of the first fit.
        teacher: the teacher, if the first fit was given a classifier or a result, or if its file
            has moved; None for that of the first fit.
        progress: called with (what, done, total) during the work.
        verbose: "auto" shows progress bars on a terminal and in a notebook; True and False show
            them always and never.

    Returns:
        As `fit`.

    Raises:
        PathMissingError: if there is no such folder, or no weights file at its path.
        ManifestError: if a photo is missing, or has another content or class than in the first fit.

    Other errors are those of `scan` and `fit`.
    """
    photos = scan(folder, manifest, progress=progress, verbose=verbose)
    splits = _restore_splits(result["splits"], photos)
    before, now = result["environment"], environment()
    if fingerprint(splits.photos) != before["photos"]:
        raise ManifestError(
            f"{str(folder)!r} must contain the photos in their original classes. Received: the "
            f"fingerprint {fingerprint(splits.photos)}, not {before['photos']}. Move the photos "
            "back to their folders, or pass the `manifest` that they were scanned with."
        )
    differences = [
        f"{name} {before.get(name)} (now {value})"
        for name, value in now.items()
        if name != "date" and before.get(name) != value
    ]
    if differences:
        _log.warning("The first fit ran with %s.", ", ".join(differences))
    changes = {"weights": weights, "backbone": backbone, "teacher": teacher}
    settings = result["settings"] | {k: v for k, v in changes.items() if v is not None}
    return fit(splits, **settings, progress=progress, verbose=verbose)


def _restore_splits(saved: Mapping[str, Any], photos: Photos) -> Splits:
    """The splits of a JSON, for photos that were scanned again."""
    hashes = {photo["path"]: photo["hash"] for name in SPLIT_NAMES for photo in saved[name]}
    listed = {*hashes, *saved["quarantine"]}
    kept = [k for k, path in enumerate(photos.paths) if path in listed]
    index_of = {photos.paths[k]: index for index, k in enumerate(kept)}
    found = {photos.paths[k]: photos.hashes[k].hex() for k in kept}
    changed = [path for path in hashes if found.get(path) != hashes[path]]
    if changed:
        what = "another content" if changed[0] in found else "no such photo"
        more = f", and {len(changed) - 1:,} more" if changed[1:] else ""
        raise ManifestError(
            f"{str(photos.folder)!r} must contain the photos of the first fit. Received: {what} at "
            f"{printable(changed[0])!r}{more}. Restore them from a backup."
        )
    class_names = tuple(saved["class_names"])
    labels = [photos.class_names[photos.labels[k]] for k in kept]
    number = {name: k for k, name in enumerate(class_names)}
    restored = replace(
        photos,
        paths=tuple(photos.paths[k] for k in kept),
        labels=np.array([number.get(name, 0) for name in labels], np.int32),
        class_names=class_names,
        hashes=tuple(photos.hashes[k] for k in kept),
        splits=tuple(photos.splits[k] for k in kept),
        groups=(),
    )
    indices = {
        name: np.array(sorted(index_of[photo["path"]] for photo in saved[name]), np.int64)
        for name in SPLIT_NAMES
    }
    quarantined = [index_of[path] for path in saved["quarantine"] if path in index_of]
    return Splits(
        photos=restored,
        validation_fraction=saved["validation_fraction"],
        test_fraction=saved["test_fraction"],
        seed=saved["seed"],
        quarantined=np.array(quarantined, np.int64),
        **indices,
    )
