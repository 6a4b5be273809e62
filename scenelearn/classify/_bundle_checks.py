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
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from scenelearn._backend import keras
from scenelearn.backbones._copy import custom_classes
from scenelearn.backbones._materialize import find_non_finite
from scenelearn.backbones._network import import_keras_hub
from scenelearn.errors import ArgumentError

ENTRY = "scenelearn.json"
ARRAYS = "scenelearn/"  # one entry per array: its bytes, little-endian, and nothing else
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ARRAY_NAME = re.compile(r"scenelearn/[a-z_]{1,40}")
_MAX_ENTRIES = 64
_MAX_TEXT_BYTES = 16 * 2**20  # per JSON entry; the largest of keras.applications has 1 MiB
_MAX_BYTES = 4 * 2**30  # unpacked; ConvNeXtXLarge, the largest of keras.applications, has 1.4 GB
_MAX_OBJECTS = 50_000  # in a config; the largest of keras.applications has 10,000
_MAX_DEPTH = 64  # of lists and dictionaries in a config; 20 are usual
_MAX_CALLS = 1_000  # of a layer in networks that call each other
_MAX_NUMBER = 2**24  # of an integer in a config, such as the units of a layer
_MAX_PARTS = 1_000  # blocks of a backbone of KerasHub, or outputs of a layer
_MAX_GROUPS = 50_000  # in a weights file
_MAX_RATIO = 20  # of the sizes of an entry before and after compression; weights have 1.1
_ANY_RATIO = 64 * 2**20  # bytes that may be compressed further

_NETWORKS = ("Functional", "Sequential")
_DTYPE = re.compile(r"(mixed_)?b?float(16|32|64)|u?int(8|16|32|64)|bool")
_CONSTANTS = ("__numpy__", "__tensor__")
_DEPTH = re.compile(r".*(num_(\w+_)?layers|num_blocks|num_repeats|depth)s?")
_SPLIT = "indices_or_sections"
_ANY_NUMBER = re.compile(r"seed|shared_object_id|^value$|^args$")  # in a constant or a call
_NOT_READ = ("lora_rank", "quantization_config")

# The parts of the networks of keras.applications, the bundled one, and a head, by module and
# registered name. None of them takes code or file names, or does anything but compute.
_ALLOWED: dict[tuple[object, object], frozenset[str]] = {
    ("keras.layers", None): frozenset(
        [
            "Activation", "Add", "AlphaDropout", "Attention", "Average", "AveragePooling1D",
            "AveragePooling2D", "BatchNormalization", "CenterCrop", "Concatenate", "Conv1D",
            "Conv2D", "Conv2DTranspose", "Cropping1D", "Cropping2D", "Dense", "DepthwiseConv2D",
            "Dot", "Dropout", "ELU", "EinsumDense", "Embedding", "Flatten", "GaussianDropout",
            "GaussianNoise", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
            "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GroupNormalization",
            "GroupQueryAttention", "Identity", "InputLayer", "LayerNormalization", "LeakyReLU",
            "MaxPooling1D", "MaxPooling2D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply",
            "Normalization", "PReLU", "Permute", "RMSNormalization", "ReLU", "RepeatVector",
            "Rescaling", "Reshape", "Resizing", "SeparableConv2D", "Softmax", "SpatialDropout1D",
            "SpatialDropout2D", "Subtract", "UnitNormalization", "UpSampling2D", "ZeroPadding1D",
            "ZeroPadding2D",
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
    (None, None): frozenset(
        ["__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"]
    ),
    ("keras.src.models.functional", "Functional"): frozenset(["Functional"]),
    ("keras.constraints", None): frozenset(["MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"]),
    ("keras.src.applications.convnext", "LayerScale"): frozenset(["LayerScale"]),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"): frozenset(
        ["CustomScaleLayer"]
    ),
}  # fmt: skip

# Operations in the graph of a user's own network, each registered under its own name.
_ALLOWED_OPERATIONS = {
    "keras.src.ops.numpy": frozenset(
        [
            "Absolute", "Add", "Clip", "Concatenate", "Divide", "Exp", "ExpandDims", "GetItem",
            "Matmul", "Max", "Maximum", "Mean", "Minimum", "Multiply", "Negative", "Pad", "Power",
            "Reshape", "Split", "Sqrt", "Square", "Squeeze", "Stack", "Subtract", "Sum", "Swapaxes",
            "Tanh", "Transpose", "TrueDivide",
        ]
    ),
    "keras.src.ops.nn": frozenset(
        [
            "Elu", "Gelu", "HardSigmoid", "HardSilu", "LayerNorm", "LeakyRelu", "LogSoftmax",
            "Normalize", "Relu", "Relu6", "Sigmoid", "Silu", "Softmax", "Softplus",
        ]
    ),
    "keras.src.ops.core": frozenset(["Cast"]),
    "keras.src.ops.image": frozenset(["Resize"]),
    "keras.src.ops.math": frozenset(["Rsqrt"]),
}  # fmt: skip

# Backbones and layers of KerasHub, by the part of the package that defines them. Its tokenizers,
# preprocessors and converters, which read files, are in other modules.
_HUB_MODULE = re.compile(
    r"keras_hub\.src\.models\.("
    r"clip|cspnet|deit|densenet|dinov2|dinov3|efficientnet|hgnetv2|mit|mobilenet|mobilenetv5|resnet"
    r"|siglip|swin_transformer|vgg|video_prism|vit|vit_det|xception"
    r")\.[a-z0-9_]*(backbone|layers|encoder|block|attention|cba|mbconv|util)s?"
)


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
    for entry in entries:
        if entry.file_size > max(_ANY_RATIO, _MAX_RATIO * entry.compress_size):
            raise InvalidBundleError(f"an entry {entry.filename!r} that is compressed too far")
    return sizes


def check_layers(model: Any) -> None:
    """Check that a bundle may contain the layers of a network of the user's own.

    Args:
        model: a `keras.Model`. Its custom layers are allowed; `load` then needs `custom_objects`.

    Raises:
        ArgumentError: if `load` would reject a layer, or one has no configuration.
    """
    classes = custom_classes(model)
    try:
        with keras().saving.custom_object_scope(classes):
            config = keras().saving.serialize_keras_object(model)
        text = json.dumps(config)
        _check_config([json.loads(text)], classes)
    except (InvalidBundleError, NotImplementedError, TypeError, ValueError) as error:
        raise ArgumentError(
            "`backbone` must consist of layers that a bundle can store: those of Keras that only "
            "compute, those of KerasHub's networks for images, and classes of your own. Received: "
            f"{str(error)[:500]}. Replace the layer: write a Lambda as a Layer class, for example, "
            "and leave out layers that augment."
        ) from None


def check_model(
    archive: zipfile.ZipFile, custom_objects: Mapping[str, Any]
) -> tuple[BinaryIO, dict[str, Any]]:
    """Check the entries that Keras wrote.

    Args:
        archive: of the bundle.
        custom_objects: classes of the user's own, by name.

    Returns:
        An archive in memory with only these entries, for Keras to load; and the custom objects by
        all names that it uses for them.

    Raises:
        InvalidBundleError: if the network has anything but known layers, or the weights anything
            but plain arrays.
        MissingExtraError: if the network needs KerasHub, which is not installed.
    """
    config, weights = archive.read(CONFIG), archive.read(WEIGHTS)
    names = _check_config([json.loads(config)], custom_objects)
    _check_weights(weights)
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as checked:
        for name, content in (
            (METADATA, archive.read(METADATA)), (CONFIG, config), (WEIGHTS, weights),
        ):  # fmt: skip
            checked.writestr(name, content)
    copy.seek(0)
    return copy, names


def check_finite(model: Any) -> None:
    """Check that no weight is NaN or infinite.

    Raises:
        InvalidBundleError: if one is.
    """
    damaged = find_non_finite(model)
    if damaged is not None:
        raise InvalidBundleError(f"weights {damaged!r} that are NaN or infinite")


def _check_config(config: Any, custom_objects: Mapping[str, Any]) -> dict[str, Any]:
    """Check all objects; return the custom ones by all names that are used for them."""
    names: dict[str, Any] = dict(custom_objects)
    for count, item in enumerate(_objects(config)):
        if count >= _MAX_OBJECTS:
            raise InvalidBundleError("a network with too many parts")
        kind, module = item["class_name"], item.get("module")
        registered = item.get("registered_name")
        if not all(isinstance(name, str | None) for name in (kind, module, registered)):
            raise InvalidBundleError("a network with an object that has no name")
        _check_arguments(item)
        if kind in _ALLOWED.get((module, registered), ()):
            continue
        if kind == registered and kind in _ALLOWED_OPERATIONS.get(str(module), ()):
            continue
        package = str(module).split(".")[0]
        if package == "keras_hub" and _is_hub_layer(kind, str(module), registered):
            continue
        name = next((name for name in (kind, registered) if name in custom_objects), None)
        if name is not None and package not in ("builtins", "keras", "keras_hub"):
            names |= {str(kind): custom_objects[name], str(registered): custom_objects[name]}
            continue
        received = f"a network with {str(module)[:80]!r}, {str(kind)[:80]!r} in it"
        if package not in ("builtins", "keras", "keras_hub") and module and kind:
            received += (
                ": a class that scenelearn does not know. If it is your own, pass it: "
                f"sl.load(path, custom_objects={{{str(kind)[:80]!r}: …}})"
            )
        raise InvalidBundleError(received)
    return names


def _is_hub_layer(kind: str | None, module: str, registered: str | None) -> bool:
    """Whether a class is a layer for images that the installed KerasHub defines in this module."""
    if registered != f"keras_hub>{kind}" or not _HUB_MODULE.fullmatch(module):
        return False
    import_keras_hub()
    found = keras().saving.get_registered_object(registered)
    is_layer = isinstance(found, type) and issubclass(found, keras().layers.Layer)
    return is_layer and found.__module__ == module


def _check_arguments(item: dict[str, Any]) -> None:
    """Check that nothing is computed, and nothing large is made, before the weights are read.

    Keras calls a layer whose inputs are numbers at once, and only one with symbolic inputs later.
    What classes of the user's own do is their business.
    """
    kind, config = str(item["class_name"])[:80], item.get("config")
    for node in item.get("inbound_nodes") or ():
        if not isinstance(node, dict) or not _has_input([node.get("args"), node.get("kwargs")]):
            raise InvalidBundleError(f"a network that calls {kind!r} without an input")
    if kind in _CONSTANTS and not (isinstance(config, dict) and _is_constant(config)):
        raise InvalidBundleError("a network with a constant that is no array of numbers")
    if not isinstance(config, dict) or not _is_of_keras(item):
        return
    if any(config.get(name) for name in _NOT_READ):
        raise InvalidBundleError(f"a network with LoRA or a quantized layer, {kind!r}")
    if kind == "Normalization" and isinstance(config.get("axis"), list) and len(config["axis"]) > 1:
        raise InvalidBundleError("a network with a Normalization of several axes")
    dtype = config.get("name") if kind == "DTypePolicy" else config.get("dtype")
    if isinstance(dtype, str) and not _DTYPE.fullmatch(dtype):
        raise InvalidBundleError(f"a network with the dtype {dtype[:80]!r}")
    for name, value in config.items():
        is_depth = _DEPTH.fullmatch(name) is not None
        largest = max(_numbers(value), default=0) if is_depth or name == _SPLIT else 0
        if name == _SPLIT and isinstance(value, list):
            largest = len(value)
        if largest > _MAX_PARTS:
            raise InvalidBundleError(f"a network with {name}={value!r:.80}")


def _is_of_keras(item: dict[str, Any]) -> bool:
    """Whether something is of Keras or KerasHub, not of the user."""
    return str(item.get("module") or "keras").split(".")[0] in ("keras", "keras_hub")


def _has_input(value: Any) -> bool:
    """Whether the arguments of a call contain a symbolic tensor, where Keras looks for one."""
    if isinstance(value, dict) and "class_name" in value:
        return bool(value["class_name"] == "__keras_tensor__")
    children = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and any(_has_input(child) for child in children)


def _numbers(value: Any) -> Iterator[int]:
    """The integers in a number, or in a list of lists of them."""
    if isinstance(value, int):
        yield value
    for child in value if isinstance(value, list) else ():
        yield from _numbers(child)


def _is_constant(config: dict[str, Any]) -> bool:
    """Whether an array in a config consists of numbers."""
    stack = [config.get("value")]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack += value
        elif not isinstance(value, int | float):
            return False
    return isinstance(config.get("dtype"), str)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a JSON value that Keras would turn into an object, found without recursion."""
    stack = [("", config, 0, 1, True)]
    while stack:
        name, value, depth, n_calls, is_limited = stack.pop()
        if depth > _MAX_DEPTH:
            raise InvalidBundleError("a network that is nested too deeply")
        if isinstance(value, int):
            if abs(value) > _MAX_NUMBER and is_limited and not _ANY_NUMBER.search(name):
                raise InvalidBundleError(f"a network with the number {value!r:.40}")
            continue
        if isinstance(value, dict) and "class_name" in value:
            if value["class_name"] in _NETWORKS:  # Keras follows all of it at each of its calls
                nodes = value.get("inbound_nodes")
                n_calls *= max(1, len(nodes)) if isinstance(nodes, list) else 1
            if n_calls > _MAX_CALLS:
                raise InvalidBundleError("networks that call each other too often")
            is_limited = _is_of_keras(value)
            yield value
        children = value.items() if isinstance(value, dict) else ((name, one) for one in value)
        stack += [
            (key, child, depth + 1, n_calls, is_limited)
            for key, child in children
            if isinstance(child, dict | list | int)
        ]


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
    return int(max(array.nbytes, 4 * array.size if array.dtype.kind in "iu" else 0))
