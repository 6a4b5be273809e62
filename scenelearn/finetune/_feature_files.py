"""The files of the feature cache: rows of features, each with the hash of the photo it is of.

A file is named by the digest of what it holds, written whole or not at all, and never changed. So
an interrupted run leaves what it has done for the next one, two runs at a time do each other no
harm, and a damaged file is found when it is read, and its rows are computed again.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._devices import n_devices
from scenelearn._io import atomic_write, cache_folder
from scenelearn.data import DECODING
from scenelearn.finetune._environment import environment

_RECIPE = "1"  # change it whenever the same network and photo give other features

Table = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)


def folder_of(model: Any, backbone: str, image_px: int, batch_size: int, *, mirrored: bool) -> Path:
    """The folder for a network's features of photos at one size.

    Its name depends on all that they depend on but the photo: how photos are decoded, the
    network's weights by their values, Keras and its backend by their versions, the device, the
    precision, and how many photos the network sees at once: with JAX on a CPU that can change the
    last bits, while a photo's place among the others does not.

    Args:
        model: from raw pixels to features.
        backbone: the network's name.
        image_px: width and height at which it sees a photo.
        batch_size: photos at once.
        mirrored: whether it sees the photos mirrored.

    Raises:
        ArgumentError: if the cache folder cannot be created.
    """
    facts = environment()
    here = [facts[name] for name in ("keras", "backend", facts["backend"], "device")]
    at_once = str(batch_size) if n_devices() == 1 else f"{batch_size}/{n_devices()}"
    policies = {layer.dtype_policy.name for layer in model._flatten_layers()}
    sizes = [str(image_px), at_once, *sorted(policies)]
    parts = [_RECIPE, DECODING, backbone, *sizes, *here]
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=12)
    for weight in model.weights:
        value = np.asarray(keras().ops.convert_to_numpy(weight))
        digest.update(f"\n{value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    view = "mirrored" if mirrored else "plain"
    return cache_folder() / f"features-{backbone}-{image_px}-{digest.hexdigest()}-{view}"


def take(
    folder: Path, wanted: Mapping[bytes, Sequence[int]], table: Table
) -> tuple[set[bytes], int]:
    """Copy the features that are there into a table; files that are damaged are removed.

    Args:
        folder: from `folder_of`; it may not exist yet.
        wanted: for each content's hash the rows of `table` that want it.
        table: (n, n_features) float32, to be filled.

    Returns:
        The contents that were found, and how many bytes the folder holds.
    """
    found: set[bytes] = set()
    n_bytes = 0
    for file in sorted(folder.glob("[!.]*.npy")):
        try:
            content = file.read_bytes()
            if _digest(content) != file.stem:
                raise ValueError("not what its name says")
            rows = np.load(io.BytesIO(content), allow_pickle=False)
            if rows.dtype != _row(table.shape[1]):
                raise ValueError("rows of another kind")
        except (OSError, EOFError, ValueError) as error:
            _log.info("A damaged part of the feature cache is made anew: %s: %s", file, error)
            with suppress(OSError):
                file.unlink()
            continue
        n_bytes += len(content)
        for row, key in enumerate(rows["photo"].tolist()):
            if key in wanted and key not in found:
                found.add(key)
                table[wanted[key]] = rows["features"][row]
    return found, n_bytes


def put(folder: Path, contents: Sequence[bytes], features: Table) -> None:
    """Add features to the cache.

    Args:
        folder: from `folder_of`.
        contents: hashes of the photos.
        features: (n, n_features) float32, of these photos.

    Raises:
        OSError: if they cannot be written. Nothing is left of them then.
        ArgumentError: if the folder cannot be made.
    """
    rows = np.empty(len(contents), _row(features.shape[1]))
    rows["photo"] = np.frombuffer(b"".join(contents), "V16")
    rows["features"] = features
    whole = io.BytesIO()
    np.save(whole, rows, allow_pickle=False)
    content = whole.getvalue()
    with atomic_write(folder / f"{_digest(content)}.npy") as temporary:
        temporary.write_bytes(content)


def _row(n_features: int) -> np.dtype[Any]:
    return np.dtype([("photo", "V16"), ("features", "<f4", (n_features,))])


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
