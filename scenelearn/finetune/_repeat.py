"""A fit once more, from the JSON that the first one left."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from scenelearn._display import printable
from scenelearn.data import Photos, Splits, scan
from scenelearn.errors import ManifestError
from scenelearn.finetune._clock import Progress
from scenelearn.finetune._environment import environment, fingerprint
from scenelearn.finetune._fit import fit
from scenelearn.finetune._result import FitResult

_SIDES = ("train", "validation", "test")

_BEFORE = {"relative_rates": False}  # how fits were whose recipe does not say so

_log = logging.getLogger(__name__)


def repeat(
    result: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    manifest: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Run a fit again on the same photos, on the same sides, with the same settings.

    With the same versions on a CPU of the same kind, weights and history come out the same. What
    differs from then is logged as a warning. The number of epochs is the one that was planned
    then, however fast this machine is.

    Args:
        result: what `FitResult.to_json` gave, or `json.load` of the result.json of a report.
        folder: the photos, a folder or archive. Files that the fit did not use may be there, too.
        manifest: the one that the photos were scanned with, if any.
        weights: the path of the weights file where it lies now; None looks where it lay then.
        progress: called with (what, done, in all) as the work goes on.

    Returns:
        As `fit`.

    Raises:
        PathMissingError: if there is no such folder, or no weights file where it lay then.
        ManifestError: if a photo is missing, or has another content or class than then.

    Other errors are those of `scan` and `fit`.
    """
    splits = _same_splits(result["splits"], scan(folder, manifest))
    then, now = result["environment"], environment()
    if fingerprint(splits.photos) != then["photos"]:
        raise ManifestError(
            f"{str(folder)!r} must hold the photos in the classes that they had. Received: the "
            f"fingerprint {fingerprint(splits.photos)}, not {then['photos']}. Move photos back "
            "into their folders, or pass the `manifest` that they were scanned with."
        )
    other = [f"{k} {then.get(k)} (now {v})" for k, v in now.items() if then.get(k) != v]
    if differences := [one for one in other if not one.startswith("date ")]:
        _log.warning("The fit that is repeated ran with %s.", ", ".join(differences))
    settings = result["settings"] | ({} if weights is None else {"weights": weights})
    settings["recipe"] = _BEFORE | (settings.get("recipe") or {})
    return fit(splits, **settings, progress=progress)


def _same_splits(then: Mapping[str, Any], photos: Photos) -> Splits:
    """The sides of a JSON for photos that were scanned again."""
    hashes = {one["path"]: one["hash"] for side in _SIDES for one in then[side]}
    listed = {*hashes, *then["quarantine"]}
    kept = [k for k, path in enumerate(photos.paths) if path in listed]
    place = {photos.paths[k]: new for new, k in enumerate(kept)}
    content = {photos.paths[k]: photos.hashes[k].hex() for k in kept}
    changed = [path for path in hashes if content.get(path) != hashes[path]]
    if changed:
        what = "another content" if changed[0] in content else "no such photo"
        more = f", and {len(changed) - 1:,} more" if changed[1:] else ""
        raise ManifestError(
            f"{str(photos.folder)!r} must hold the photos of the fit that is repeated. Received: "
            f"{what} at {printable(changed[0])!r}{more}. Bring them back from where they are whole."
        )
    names = tuple(then["class_names"])
    labels = [photos.class_names[photos.labels[k]] for k in kept]
    number = {name: k for k, name in enumerate(names)}
    same = replace(
        photos,
        paths=tuple(photos.paths[k] for k in kept),
        labels=np.array([number.get(name, 0) for name in labels], np.int32),
        class_names=names,
        hashes=tuple(photos.hashes[k] for k in kept),
        sides=tuple(photos.sides[k] for k in kept),
        groups=(),
    )
    sides = {
        side: np.array(sorted(place[one["path"]] for one in then[side]), np.int64)
        for side in _SIDES
    }
    return Splits(
        photos=same,
        validation_share=then["validation_share"],
        test_share=then["test_share"],
        seed=then["seed"],
        quarantined=np.array([place[p] for p in then["quarantine"] if p in place], np.int64),
        **sides,
    )
