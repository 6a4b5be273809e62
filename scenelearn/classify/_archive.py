"""What a bundle may hold, seen to before anything of it is unpacked, built or run.

A bundle comes from others, and Keras would follow much of what stands in it: name functions to
call, files to read, shapes to fill. So every part is compared with what `save` writes.
"""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from scenelearn._backend import keras
from scenelearn.classify._views import ACROSS

ENTRY = "scenelearn.json"
ARRAYS = "scenelearn/"  # one entry an array: its bytes, little-endian, and nothing else
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_OURS = re.compile(r"scenelearn/[a-z]{1,40}")
_MOST_ENTRIES = 64
_MAX_TEXT_BYTES = 16 * 2**20  # of config.json and ours; the largest of keras.applications has 1 MiB
_MAX_BYTES = 4 * 2**30  # unpacked; ConvNeXtXLarge, the largest of keras.applications, has 1.4 GB
_MOST_OBJECTS = 50_000  # of a config; the largest of keras.applications has 10,000
_MOST_NESTED = 64  # of a config's lists and dictionaries; they have 20
_MOST_GROUPS = 50_000  # of a weights file

# Everything that the networks of keras.applications, our own and a head are made of, by module and
# registered name. None of it takes code or names of files, or does anything but compute.
_PARTS: dict[tuple[object, object], frozenset[str]] = {
    ("keras.layers", None): frozenset(
        [
            "Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate",
            "Conv2D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "GlobalAveragePooling2D",
            "InputLayer", "LayerNormalization", "MaxPooling2D", "Multiply", "Normalization", "ReLU",
            "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "ZeroPadding2D",
        ]
    ),
    ("keras.initializers", None): frozenset(
        [
            "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal",
            "LecunUniform", "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal",
            "VarianceScaling", "Zeros",
        ]
    ),
    ("keras", None): frozenset(["DTypePolicy", "Sequential"]),
    (None, None): frozenset(["__keras_tensor__"]),
    ("keras.src.models.functional", "Functional"): frozenset(["Functional"]),
    ("keras.src.ops.numpy", "Add"): frozenset(["Add"]),
    ("keras.src.ops.numpy", "Flip"): frozenset(["Flip"]),
    ("keras.src.ops.numpy", "Multiply"): frozenset(["Multiply"]),
    ("keras.src.applications.convnext", "LayerScale"): frozenset(["LayerScale"]),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"): frozenset(
        ["CustomScaleLayer"]
    ),
}  # fmt: skip


class UnfitError(ValueError):
    """A part that no bundle of scenelearn's has; says which."""


def check_entries(archive: zipfile.ZipFile, n_bytes: int) -> dict[str, int]:
    """Names and sizes of the entries, if they are those of a bundle.

    Args:
        archive: open, of which only the directory is read.
        n_bytes: length of the file.

    Returns:
        The size of each entry, unpacked, in bytes.

    Raises:
        UnfitError: if an entry is of another name, kind or size than any that `save` writes.
    """
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if ENTRY not in sizes:
        raise UnfitError("a zip file without an entry of scenelearn's")
    if len(sizes) < len(entries) or len(entries) > _MOST_ENTRIES:
        raise UnfitError("two entries of one name, or very many")
    known = {ENTRY, CONFIG, METADATA, WEIGHTS}
    for entry in entries:
        name = entry.filename
        mode = entry.external_attr >> 16
        if name not in known and not _OURS.fullmatch(name):
            raise UnfitError(f"an entry {name[:80]!r}, which no bundle has")
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise UnfitError(f"an entry {name!r} that is no plain file")
        if entry.flag_bits & 1:
            raise UnfitError(f"an entry {name!r} that is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnfitError(f"an entry {name!r} that is packed in another way")
    missing = known - set(sizes)
    if missing:
        raise UnfitError(f"no entry {min(missing)!r}")
    texts = sizes[ENTRY], sizes[CONFIG], sizes[METADATA]
    packed = sum(entry.compress_size for entry in entries)
    if max(texts) > _MAX_TEXT_BYTES or sum(sizes.values()) > _MAX_BYTES or packed > n_bytes:
        raise UnfitError("entries of a size that no classifier has")
    return sizes


def model_of(archive: zipfile.ZipFile) -> BinaryIO:
    """The entries that are Keras' own, checked, as an archive in memory for Keras to load.

    Raises:
        UnfitError: if the network is made of anything but known layers, or its weights of anything
            but plain arrays.
    """
    config, weights = archive.read(CONFIG), archive.read(WEIGHTS)
    _check_config([json.loads(config)])
    _check_weights(weights)
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as checked:
        for name, content in (
            (METADATA, archive.read(METADATA)), (CONFIG, config), (WEIGHTS, weights),
        ):  # fmt: skip
            checked.writestr(name, content)
    copy.seek(0)
    return copy


def check_finite(model: Any) -> None:
    """See that every weight is a number.

    Raises:
        UnfitError: if one is not.
    """
    for variable in model.variables:
        values = keras().ops.convert_to_numpy(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UnfitError(f"weights {variable.path!r} that are no finite numbers")


def _check_config(config: Any) -> None:
    for n_before, value in enumerate(_objects(config)):
        if n_before >= _MOST_OBJECTS:
            raise UnfitError("a network of more parts than any has")
        _check_object(value)


def _check_object(value: dict[str, Any]) -> None:
    kind, where = value["class_name"], (value.get("module"), value.get("registered_name"))
    plain = all(isinstance(one, str | None) for one in (kind, *where))
    if not plain or kind not in _PARTS.get(where, ()):
        raise UnfitError(f"a network with {str(where[0])[:80]!r}, {str(kind)[:80]!r} in it")
    if kind == "Flip" and value["config"].get("axis") != ACROSS:
        raise UnfitError("a network that turns photos round in another way than left to right")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything within a JSON value that Keras would make an object of, without recursion."""
    left = [(config, 0)]
    while left:
        value, depth = left.pop()
        if depth > _MOST_NESTED:
            raise UnfitError("a network nested deeper than any is")
        if isinstance(value, dict) and "class_name" in value:
            yield value
        within = value.values() if isinstance(value, dict) else value
        left += [(one, depth + 1) for one in within if isinstance(one, dict | list)]


def _check_weights(content: bytes) -> None:
    """See that a weights file holds groups and plain arrays of numbers, each once and inside it."""
    import h5py

    n_bytes, seen = 0, set[int]()
    with h5py.File(io.BytesIO(content), "r") as file:
        left = [file["/"]]
        while left:
            group = left.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in seen or len(seen) >= _MOST_GROUPS:
                raise UnfitError("weights that lie in each other, or in very many groups")
            seen.add(address)
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise UnfitError(f"weights {name[:80]!r} that lie elsewhere")
                if group.get(name, getclass=True) is h5py.Group:
                    left.append(group[name])
                    continue
                n_bytes += _n_bytes(group[name])
                if n_bytes > len(content):
                    raise UnfitError("weights that say they are larger than their file")


def _n_bytes(array: Any) -> int:
    """The size of an array that is written out in full, right where it is."""
    import h5py

    if not isinstance(array, h5py.Dataset):
        raise UnfitError("weights that are no arrays")
    plain = array.id.get_create_plist().get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if not plain or array.external or array.is_virtual or array.dtype.kind not in "fiu":
        raise UnfitError(f"weights {array.name[:80]!r} that are no plain array of numbers")
    return int(array.nbytes)
