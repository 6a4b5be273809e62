"""Malicious bundles: none of their code is run, nothing is written, and a typed error says why.

Each is a complete bundle with one thing changed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import BundleError
from scenelearn.finetune import FitResult
from tests.helpers.damage import move_directory
from tests.helpers.marks import nightly, slow
from tests.helpers.patches import limit_config_objects

Config = dict[str, Any]
CONFIG, WEIGHTS, ENTRY = "config.json", "model.weights.h5", "scenelearn.json"


@pytest.fixture(scope="module")
def parts(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The entries of a complete bundle."""
    path = fitted.save(tmp_path_factory.mktemp("whole") / "scenes.keras")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(autouse=True)
def nothing_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Notice files written next to the bundle, or into the folder for temporary files."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.chdir(elsewhere)
    yield
    assert list(elsewhere.iterdir()) == []
    assert {one.name for one in tmp_path.iterdir()} <= {"elsewhere", "odd.keras"}


def packed(path: Path, parts: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def rejected(path: Path, words: str, custom_objects: dict[str, type] | None = None) -> None:
    with pytest.raises(BundleError, match=words) as raised:
        sl.load(path, custom_objects=custom_objects)
    assert len(str(raised.value)) < 1500


def test_repacked_parts_are_a_bundle(parts: dict[str, bytes], tmp_path: Path) -> None:
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert sl.load(packed(tmp_path / "odd.keras", parts, kind)).image_px == 32


# The archive


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/outside", "assets/x", "scenelearn/../../x", "model.weights.npz"]
)
def test_entries_that_no_bundle_has(parts: dict[str, bytes], tmp_path: Path, name: str) -> None:
    rejected(packed(tmp_path / "odd.keras", parts | {name: b"x"}), "which no bundle has")


def test_duplicate_entries(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "odd.keras", parts)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(CONFIG, b"{}")
    rejected(path, "duplicate entries")


def test_too_many_entries(parts: dict[str, bytes], tmp_path: Path) -> None:
    many = {f"scenelearn/{'a' * k}": b"" for k in range(1, 40)} | {
        f"scenelearn/{'b' * k}": b"" for k in range(1, 40)
    }
    rejected(packed(tmp_path / "odd.keras", parts | many), "too many")


def test_entry_that_is_a_link(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "odd.keras"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name)
            if name == WEIGHTS:
                entry.external_attr = 0o120777 << 16
            archive.writestr(entry, b"/etc/passwd" if name == WEIGHTS else content)
    rejected(path, "that is not a regular file")


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS, "metadata.json"])
def test_entry_that_is_missing(parts: dict[str, bytes], tmp_path: Path, missing: str) -> None:
    rest = {name: content for name, content in parts.items() if name != missing}
    rejected(packed(tmp_path / "odd.keras", rest), f"no entry '{missing}'")


def test_entry_with_an_unusual_compression(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "odd.keras", parts, zipfile.ZIP_LZMA)
    rejected(path, "unknown compression")


def patched(path: Path, name: str, field: int, value: int) -> None:
    """Change a field of an entry's header in the archive's directory."""
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    struct.pack_into("<H" if field == 8 else "<I", content, at + field, value)
    path.write_bytes(content)


def test_entry_that_is_encrypted(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "odd.keras", parts)
    patched(path, CONFIG, 8, 1)
    rejected(path, "an encrypted entry")


def test_config_of_a_gibibyte_whether_it_says_so_or_not(
    parts: dict[str, bytes], tmp_path: Path
) -> None:
    size = 2**30
    path = tmp_path / "odd.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            if name == CONFIG:
                with archive.open(zipfile.ZipInfo(name), "w") as entry:  # stored at 1000:1
                    entry.write(b"")
                continue
            archive.writestr(name, content)
    patched(path, CONFIG, 24, size)
    start = time.process_time()
    rejected(path, "larger than those of any classifier")
    assert time.process_time() - start < 2
    # and an entry that is larger than it says
    packed(path, parts | {CONFIG: b" " * 2**24 + parts[CONFIG]}, zipfile.ZIP_DEFLATED)
    patched(path, CONFIG, 24, 1000)
    rejected(path, "BadZipFile")


def test_entries_that_share_their_bytes(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "odd.keras", parts)
    patched(path, CONFIG, 20, path.stat().st_size)
    rejected(path, "larger than those of any classifier")


def test_directory_that_points_to_before_the_file(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "odd.keras", parts)
    move_directory(path)
    rejected(path, "must be a complete file")  # and does not blame the disk


def test_random_damage_gives_a_typed_error(parts: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "odd.keras", parts)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(20):
        content = bytearray(whole)
        at = int(random.integers(len(content) - 4096, len(content) - 64))  # the directory
        content[at : at + 8] = random.bytes(8)
        path.write_bytes(content)
        with contextlib.suppress(BundleError):
            sl.load(path)


# The network


def with_layer(parts: dict[str, bytes], layer: Config) -> dict[str, bytes]:
    config = json.loads(parts[CONFIG])
    config["config"]["layers"].append(layer)
    return parts | {CONFIG: json.dumps(config).encode()}


def layer_of(module: str, kind: str, registered: str | None = None, **config: Any) -> Config:
    return {
        "module": module,
        "class_name": kind,
        "config": {"name": "odd", **config},
        "registered_name": registered,
        "name": "odd",
        "inbound_nodes": [],
    }


@pytest.mark.parametrize(
    "layer",
    [
        layer_of("keras.layers", "Lambda", function={"class_name": "__lambda__", "config": {}}),
        layer_of("keras.layers", "TFSMLayer", filepath="/tmp/x"),
        layer_of("keras.layers", "TorchModuleWrapper", code="x"),
        layer_of("keras.layers", "StringLookup", vocabulary="/etc/passwd"),
        layer_of("os", "system", command="touch pwned"),
        layer_of("builtins", "eval"),
        layer_of("scenelearn.classify", "load", path="x"),
        layer_of("keras.utils", "get_file", fname="x", origin="file:///etc/passwd"),
        layer_of("keras.layers", "Dense", "custom>Dense", units=3),
        layer_of("custom", "Dense", "custom>Dense", units=3),
        layer_of("keras.layers", "Activation", activation={"class_name": "f", "module": "os"}),
        layer_of(["keras.layers"], "Dense"),  # type: ignore[arg-type]
        layer_of("keras.layers", {"a": 1}),  # type: ignore[arg-type]
    ],
    ids=lambda layer: str(layer["class_name"])[:20],
)
def test_network_with_an_unknown_layer(
    parts: dict[str, bytes], tmp_path: Path, layer: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "keras.src.saving.saving_lib.load_model", lambda *_, **__: pytest.fail("too late")
    )
    rejected(packed(tmp_path / "odd.keras", with_layer(parts, layer)), "a network with ")


@pytest.mark.parametrize(
    ("module", "kind", "registered"),
    [
        ("keras_hub.src.models.clip.clip_tokenizer", "CLIPTokenizer", "keras_hub>CLIPTokenizer"),
        ("keras_hub.src.models.vit.vit_image_converter", "ViTImageConverter", None),
        ("keras_hub.src.models.vit.vit_layers", "MLP", "other>MLP"),
        ("keras_hub.src.utils.preset_utils", "load_json", "keras_hub>load_json"),
        ("keras.layers", "Lambda", None),
        ("builtins", "function", "function"),
        ("keras.src.ops.core", "Map", "Map"),
    ],
)
def test_custom_objects_allow_nothing_of_keras_or_python(
    parts: dict[str, bytes], tmp_path: Path, module: str, kind: str, registered: str | None
) -> None:
    path = packed(tmp_path / "odd.keras", with_layer(parts, layer_of(module, kind, registered)))
    custom_objects: dict[str, type] = {"Lambda": dict, "function": dict, "load_json": dict}
    rejected(path, f"a network with '{module}', '{kind}'", custom_objects)


def called_with(value: Any, module: str, kind: str, **config: Any) -> Config:
    """An operation that is called with numbers, which Keras computes while it builds the model."""
    layer = layer_of(module, kind, kind, **config)
    return layer | {"inbound_nodes": [{"args": [value], "kwargs": {}}]}


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (called_with([1.0], "keras.src.ops.numpy", "Pad", pad_width=9_000_000), "without an input"),
        (called_with("__keras_tensor__", "keras.src.ops.nn", "Relu"), "without an input"),
        (called_with([1.0], "keras.src.ops.numpy", "Pad", pad_width=10**10), "without an input"),
        (layer_of("keras.src.ops.numpy", "Pad", "Pad", pad_width=10**10), "the number 10000000000"),
        (
            layer_of("keras.src.ops.numpy", "Split", "Split", indices_or_sections=10**6, axis=0),
            "indices_or_sections=1000000",
        ),
        (
            layer_of("keras.layers", "Normalization", axis=[1, 2, 3], mean=0.0, variance=1.0)
            | {"build_config": {"input_shape": [None, 60_000, 60_000, 1]}},
            "Normalization of several axes",
        ),
        (layer_of("keras.layers", "Dense", units=10**7, lora_rank=1), "LoRA or a quantized layer"),
        (layer_of("keras.layers", "Dense", units=8, dtype="int8_from_float32"), "the dtype 'int8"),
        (layer_of("keras.layers", "Dense", num_layers=10**7), "num_layers=10000000"),
        (layer_of("keras.layers", "Dense", depths=[[2], [5000]]), "depths="),
        (
            called_with([1.0], "keras.src.ops.nn", "Relu")
            | {"inbound_nodes": [{"args": [[1.0]], "x": {"class_name": "__keras_tensor__"}}]},
            "without an input",
        ),
        (
            {"class_name": "__tensor__", "config": {"value": [["x" * 9]], "dtype": "U1000000000"}},
            "no array of numbers",
        ),
    ],
)
def test_nothing_large_is_made_before_the_weights_are_read(
    parts: dict[str, bytes], tmp_path: Path, layer: Config, words: str
) -> None:
    start = time.monotonic()
    rejected(packed(tmp_path / "odd.keras", with_layer(parts, layer)), words)
    assert time.monotonic() - start < 20


def test_networks_that_call_each_other_many_times(parts: dict[str, bytes], tmp_path: Path) -> None:
    tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}
    inner = layer_of("keras.layers", "ReLU")
    for _ in range(3):
        inner = layer_of("keras.src.models.functional", "Functional", "Functional", layers=[inner])
        inner["inbound_nodes"] = [{"args": [tensor], "kwargs": {}}] * 20
    rejected(packed(tmp_path / "odd.keras", with_layer(parts, inner)), "call each other too often")


def test_weights_that_are_compressed_a_thousandfold(
    parts: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "odd.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content + bytes(100 * 2**20 if name == WEIGHTS else 0))
    assert path.stat().st_size < 8 * 2**20
    rejected(path, "'model.weights.h5' that is compressed too far")


def test_lambda_with_code_is_not_run(parts: dict[str, bytes], tmp_path: Path) -> None:
    import keras

    made = keras.layers.Lambda(lambda x: __import__("pathlib").Path("pwned").touch() or x)
    config = keras.saving.serialize_keras_object(made) | {"name": "odd", "inbound_nodes": []}
    rejected(packed(tmp_path / "odd.keras", with_layer(parts, config)), "'Lambda'")


def test_function_hidden_where_a_number_is_expected(
    parts: dict[str, bytes], tmp_path: Path
) -> None:
    hidden = layer_of("os", "system")
    layer = layer_of("keras.layers", "Dense", units=3, deep=[[{"x": [hidden]}]])
    rejected(packed(tmp_path / "odd.keras", with_layer(parts, layer)), "'os', 'system'")


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deeply_nested_config(parts: dict[str, bytes], tmp_path: Path, depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    rejected(packed(tmp_path / "odd.keras", parts | {CONFIG: deep}), "nested too deeply|Recursion")


def test_config_with_too_many_parts(
    parts: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_config_objects(monkeypatch, 10)
    rejected(packed(tmp_path / "odd.keras", parts), "too many parts")


@pytest.mark.parametrize("units", [10**9, 10**15])
def test_shape_bomb_in_the_config(parts: dict[str, bytes], tmp_path: Path, units: int) -> None:
    text = parts[CONFIG].decode().replace('"units": 6', f'"units": {units}')
    assert text != parts[CONFIG].decode()
    rejected(packed(tmp_path / "odd.keras", parts | {CONFIG: text.encode()}), "Received: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_names": ["a", "b"]}, "2 class names at 32 px"),
        ({"class_names": ["a"] * 6}, "incomplete"),
        ({"class_names": []}, "incomplete"),
        ({"image_px": 8000}, "class names at 8000 px"),
        ({"image_px": 30_000}, "incomplete or from another version"),
        ({"image_px": 10**9}, "incomplete or from another version"),
        ({"image_px": [32, 64]}, "class names at 32×64 px"),
        ({"metadata": {"a": ["b"]}}, "incomplete"),
        ({"arrays": {"scores": {"dtype": "|O", "shape": [2]}}}, "with dtype"),
        ({"arrays": {"scores": {"dtype": "<f4", "shape": [10**15]}}}, "does not match its shape"),
        ({"arrays": {"scores": {"dtype": "<f4", "shape": [-1, -1]}}}, "and shape"),
        ({"arrays": {"../x": {"dtype": "<f4", "shape": [1]}}}, "does not match its shape"),
    ],
)
def test_description_that_lies(
    parts: dict[str, bytes], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    entry = json.loads(parts[ENTRY]) | change
    rejected(packed(tmp_path / "odd.keras", parts | {ENTRY: json.dumps(entry).encode()}), words)


# The weights


def with_weights(parts: dict[str, bytes], change: Callable[[h5py.File], None]) -> dict[str, bytes]:
    file = io.BytesIO(parts[WEIGHTS])
    with h5py.File(file, "r+") as weights:
        change(weights)
    return parts | {WEIGHTS: file.getvalue()}


def kernel(weights: h5py.File) -> str:
    """The path of the head's kernel."""
    found: list[str] = []
    weights.visititems(
        lambda name, one: found.append(name) if getattr(one, "shape", ())[-1:] == (6,) else None
    )
    return next(one for one in found if len(weights[one].shape) == 2)


def soft_link(weights: h5py.File) -> None:
    path = kernel(weights)
    del weights[path]
    weights[path] = h5py.SoftLink("/elsewhere")


def external_link(weights: h5py.File) -> None:
    path = kernel(weights)
    del weights[path]
    weights[path] = h5py.ExternalLink("/etc/passwd", "/x")


def external_storage(weights: h5py.File) -> None:
    path, shape = kernel(weights), weights[kernel(weights)].shape
    del weights[path]
    weights.create_dataset(path, shape, "<f4", external=[("/etc/passwd", 0, 4 * shape[0] * 6)])


def virtual(weights: h5py.File) -> None:
    path, shape = kernel(weights), weights[kernel(weights)].shape
    del weights[path]
    layout = h5py.VirtualLayout(shape, "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape)
    weights.create_virtual_dataset(path, layout)


def shape_bomb(weights: h5py.File) -> None:
    path = kernel(weights)
    del weights[path]
    weights.create_dataset(path, (10**6, 10**6), "<f4", chunks=(1000, 1000), compression="gzip")


def unwritten(weights: h5py.File) -> None:
    path = kernel(weights)
    del weights[path]
    weights.create_dataset(path, (10**6, 10**6), "<f4")


def words(weights: h5py.File) -> None:
    path = kernel(weights)
    del weights[path]
    weights.create_dataset(path, data=["a", "b"])


def loop(weights: h5py.File) -> None:
    weights["layers/again"] = weights["/"]


def not_a_number(weights: h5py.File) -> None:
    weights[kernel(weights)][0, 0] = np.nan


def infinite(weights: h5py.File) -> None:
    weights[kernel(weights)][0, 0] = np.inf


def other_shape(weights: h5py.File) -> None:
    path = kernel(weights)
    del weights[path]
    weights.create_dataset(path, data=np.zeros((3, 6), np.float32))


def gone(weights: h5py.File) -> None:
    del weights[kernel(weights)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (soft_link, "that are stored elsewhere"),
        (external_link, "that are stored elsewhere"),
        (external_storage, "not plain numeric arrays"),
        (virtual, "not plain numeric arrays"),
        (shape_bomb, "not plain numeric arrays"),
        (unwritten, "larger than their file"),
        (words, "not plain numeric arrays"),
        (loop, "contain each other"),
        (not_a_number, "NaN or infinite"),
        (infinite, "NaN or infinite"),
        (other_shape, "Received"),
        (gone, "Received"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_that_are_not_plain_arrays(
    parts: dict[str, bytes], tmp_path: Path, change: Callable[[h5py.File], None], said: str
) -> None:
    rejected(packed(tmp_path / "odd.keras", with_weights(parts, change)), said)


def test_weights_that_are_not_hdf5(parts: dict[str, bytes], tmp_path: Path) -> None:
    pickled = io.BytesIO()
    np.save(pickled, np.array([object()], dtype=object), allow_pickle=True)
    for content in (b"", b"no HDF5", pickled.getvalue(), parts[WEIGHTS][:5000]):
        rejected(packed(tmp_path / "odd.keras", parts | {WEIGHTS: content}), "OSError")


# Harmless bundles


@pytest.mark.parametrize(
    "name",
    # random layers; layers of an own class; squeeze-and-excitation
    slow("efficientnet_b0", "convnext_tiny", "mobilenet_v3_small")
    + nightly(
        "densenet121", "efficientnet_v2_b0", "inception_v3", "inception_resnet_v2",
        "mobilenet_0.25", "mobilenet_v2_0.35", "nasnet_mobile", "resnet50", "resnet50_v2",
        "vgg16", "xception",
    ),
)  # fmt: skip
def test_every_architecture_makes_a_bundle_that_loads(tmp_path: Path, name: str) -> None:
    import keras

    features = sl.backbones.build(name, weights=None, image_px=96)
    x = keras.layers.Dense(2, dtype="float32", name="logits")(features.output)
    x = keras.layers.Softmax(name="probabilities")(x)
    made = sl.classify.Classifier(
        model=keras.Model(features.input, x), class_names=("a", "b"), image_px=96, metadata={}
    )
    loaded = sl.load(made.save(tmp_path / "odd.keras"))
    for one, other in zip(made.model.weights, loaded.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


# The cost of loading


@pytest.mark.intel
def test_loading_takes_at_most_two_seconds_and_200_mebibytes(
    intel: Path, weights: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    photos = sl.scan(intel)
    chosen = np.random.default_rng(0).permutation(len(photos))
    few = sl.split(photos, seed=0, quarantine=[photos.paths[k] for k in chosen[600:]])
    fit = sl.fit(few, weights=weights / "mobilenet_v2_0.35_224_notop.h5", epochs=0)
    path = fit.save(tmp_path / "odd.keras")
    code = (
        "import resource, sys, time\n"
        "import h5py, keras as k\n"
        "import scenelearn as sl; sl.load; k.ops.zeros((2, 2)) + 1\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "start = time.process_time(); sl.load(sys.argv[1])\n"
        "print(time.process_time() - start)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"KERAS_HOME": str(tmp_path_factory.mktemp("keras"))},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, mebibytes = map(float, run.stdout.split())
    assert seconds < 2
    assert mebibytes < 200
