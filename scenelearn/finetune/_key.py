"""Which runs are the same: a folder for the checkpoint of each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from scenelearn._devices import n_devices, process
from scenelearn._io import cache_path
from scenelearn.data import Pixels, Splits
from scenelearn.finetune._checkpoint import bytes_of
from scenelearn.finetune._environment import versions
from scenelearn.finetune._settings import FitSettings

_PACKAGE = Path(__file__).resolve().parent.parent


def checkpoint_file(settings: FitSettings, splits: Splits, pixels: Pixels, features: Any) -> Path:
    """Where the checkpoint of a run lies: another place if it would not go on in the same way.

    Args:
        settings: as asked for. `minutes` may differ: a run may go on with more time.
        splits: the photos, by their content and in their order, classes and sides.
        pixels: which of the photos can be decoded.
        features: the network before any training; its weights count, not the name of their file.

    Returns:
        A path below ``runs`` in scenelearn's cache.
    """
    asked = settings.to_json()
    del asked["minutes"]
    asked["weights"] = settings.weights is not None
    key = hashlib.blake2b(digest_size=12)
    about = [asked, versions(), splits.photos.class_names, n_devices(), process()[1]]
    key.update(json.dumps(about, sort_keys=True).encode())
    for source in sorted(_PACKAGE.rglob("*.py")):  # the version of a checkout says too little
        key.update(source.read_bytes())
    for content in splits.photos.hashes:
        key.update(content)
    sides = splits.train, splits.validation, splits.test
    for array in (splits.photos.labels, pixels.usable, *sides, *features.get_weights()):
        key.update(f"{array.shape}{array.dtype}".encode())
        key.update(bytes_of(array))
    return cache_path() / "runs" / key.hexdigest() / "state"
