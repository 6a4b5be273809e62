"""Security checks of a bundle, before any of it is unpacked, built or run.

A bundle may come from a stranger, and Keras follows much of what it says: functions to call, files
to read, shapes to allocate. So every part is compared with what `Classifier.save` writes.
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

ENTRY = "scenelearn.json"
ARRAYS = "scenelearn/"  # one entry per array: its bytes, little-endian, and nothing else
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ARRAY_NAME = re.compile(r"scenelearn/[a-z_]{1,40}")
_MAX_ENTRIES = 64
_MAX_TEXT_BYTES = 16 * 2**20  # per JSON entry; the largest of keras.applications has 1 MiB
_MAX_BYTES = 4 * 2**30  # unpacked; ConvNeXtXLarge, the largest of keras.applications, has 1.4 GB
_MAX_OBJECTS = 50_000  # in a config; the largest of keras.applications has 10,000
_MAX_DEPTH = 64  # of lists and dictionaries in a config; 20 are usual
_MAX_GROUPS = 50_000  # in a weights file

# The parts of the networks of keras.applications, the bundled one, and a head, by module and
# registered name. None of them takes code or file names, or does anything but compute.
_ALLOWED: dict[tuple[object, object], frozenset[str]] = {
    ("keras.layers", None): frozenset(
        [
            "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate",
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
    ("keras.src.ops.numpy", "Multiply"): frozenset(["Multiply"]),
    ("keras.src.applications.convnext", "LayerScale"): frozenset(["LayerScale"]),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"): frozenset(
        ["CustomScaleLayer"]
    ),
}  # fmt: skip


class InvalidBundleError(ValueError):
    """A part that no scenelearn bundle contains. The message says which."""


def check_entries(archive: zipfile.ZipFile, n_bytes: int) -> dict[str, int]:
    """Check the names, kinds and sizes of the entries against those of a bundle.

    Args:
        archive: an open archive, of which only the directory is read.
        n_bytes: the size of the file.

    Returns:
        The uncompressed size of each entry, in bytes.

    Raises:
        InvalidBundleError: if `save` never writes an entry of such a name, kind or size.
    """
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if ENTRY not in sizes:
        raise InvalidBundleError("a ZIP file that scenelearn did not write")
    if len(sizes) < len(entries) or len(entries) > _MAX_ENTRIES:
        raise InvalidBundleError("duplicate entries, or too many")
    known = {ENTRY, CONFIG, METADATA, WEIGHTS}
    for entry in entries:
        name = entry.filename
        mode = entry.external_attr >> 16
        if name not in known and not _ARRAY_NAME.fullmatch(name):
            raise InvalidBundleError(f"an entry {name[:80]!r}, which no bundle has")
        if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise InvalidBundleError(f"an entry {name!r} that is not a regular file")
        if entry.flag_bits & 1:
            raise InvalidBundleError(f"an encrypted entry {name!r}")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidBundleError(f"an entry {name!r} with an unknown compression")
    missing = known - set(sizes)
    if missing:
        raise InvalidBundleError(f"no entry {min(missing)!r}")
    texts = sizes[ENTRY], sizes[CONFIG], sizes[METADATA]
    compressed = sum(entry.compress_size for entry in entries)
    if max(texts) > _MAX_TEXT_BYTES or sum(sizes.values()) > _MAX_BYTES or compressed > n_bytes:
        raise InvalidBundleError("entries larger than those of any classifier")
    return sizes


def check_model(archive: zipfile.ZipFile) -> BinaryIO:
    """Check the entries that Keras wrote.

    Returns:
        An archive in memory with only these entries, for Keras to load.

    Raises:
        InvalidBundleError: if the network has anything but known layers, or the weights anything
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
    """Check that no weight is NaN or infinite.

    Raises:
        InvalidBundleError: if one is.
    """
    for variable in model.variables:
        values = keras().ops.convert_to_numpy(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InvalidBundleError(f"weights {variable.path!r} that are NaN or infinite")


def _check_config(config: Any) -> None:
    for count, item in enumerate(_objects(config)):
        if count >= _MAX_OBJECTS:
            raise InvalidBundleError("a network with too many parts")
        _check_object(item)


def _check_object(item: dict[str, Any]) -> None:
    kind, where = item["class_name"], (item.get("module"), item.get("registered_name"))
    are_names = all(isinstance(name, str | None) for name in (kind, *where))
    if not are_names or kind not in _ALLOWED.get(where, ()):
        raise InvalidBundleError(f"a network with {str(where[0])[:80]!r}, {str(kind)[:80]!r} in it")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a JSON value that Keras would turn into an object, found without recursion."""
    stack = [(config, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise InvalidBundleError("a network that is nested too deeply")
        if isinstance(value, dict) and "class_name" in value:
            yield value
        children = value.values() if isinstance(value, dict) else value
        stack += [(child, depth + 1) for child in children if isinstance(child, dict | list)]


def _check_weights(content: bytes) -> None:
    """Check that a weights file has only groups and plain arrays, each once and inside the file."""
    import h5py

    n_bytes, visited = 0, set[int]()
    with h5py.File(io.BytesIO(content), "r") as file:
        stack = [file["/"]]
        while stack:
            group = stack.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in visited or len(visited) >= _MAX_GROUPS:
                raise InvalidBundleError("weights in groups that contain each other, or too many")
            visited.add(address)
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise InvalidBundleError(f"weights {name[:80]!r} that are stored elsewhere")
                if group.get(name, getclass=True) is h5py.Group:
                    stack.append(group[name])
                    continue
                n_bytes += _check_array(group[name])
                if n_bytes > len(content):
                    raise InvalidBundleError("weights that claim to be larger than their file")


def _check_array(array: Any) -> int:
    """The size in bytes of an array that is stored plainly, right where it is."""
    import h5py

    if not isinstance(array, h5py.Dataset):
        raise InvalidBundleError("weights that are not arrays")
    plain = array.id.get_create_plist().get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
    if not plain or array.external or array.is_virtual or array.dtype.kind not in "fiu":
        raise InvalidBundleError(f"weights {array.name[:80]!r} that are not plain numeric arrays")
    return int(array.nbytes)
