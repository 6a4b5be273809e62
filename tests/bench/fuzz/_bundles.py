"""Bundles: damaged, rewritten and mixed up. They predict correctly or are refused."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn.classify import Classifier
from tests.bench.fuzz._cases import Case, damage, odd_text

_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 3, 31, 10**4, 2**31, 2**63, 1e400, float("nan"), 0.5, "", "sea", [],
    {}, [1], [None, 32, 32, 3], "float16", "relu", "../x", {"class_name": "Dense", "config": {}},
)  # fmt: skip
_TEXTS = ("scenelearn.json", "config.json", "metadata.json")


def bundles(folder: Path) -> Case:
    """Load a file made from two bundles, and predict with it if it loads."""
    whole = [small_bundle(folder / f"{k}.keras", k) for k in range(2)]
    entries = [_entries(content) for content in whole]
    file, image = folder / "odd.keras", np.full((2, 8, 8, 3), 90, np.uint8)
    expected = sl.load(folder / "0.keras").predict_proba(image, verbose=False)

    def case(random: random.Random) -> str:
        kind = random.randrange(6)
        parts, other = dict(entries[0]), entries[1]
        name = random.choice(list(parts))
        if kind == 0:
            content = damage(whole[0], whole[1], random)
        else:
            if kind == 1:  # damage with a correct checksum
                parts[name] = damage(parts[name], other.get(name, b""), random)
            elif kind == 2:  # the entry of another bundle, or under another name
                parts[name] = random.choice((other, parts))[random.choice(list(parts))]
            elif kind == 3:
                del parts[name]
            else:  # other values in the JSON
                name = random.choice(_TEXTS[: 1 + (kind == 5)])
                value = json.loads(parts[name])
                for _ in range(random.choice((1, 1, 1, 2, 5))):
                    value = _change(value, random)
                parts[name] = json.dumps(value).encode()
            content = _pack(parts, random)
        file.write_bytes(content)
        classifier = sl.load(file)
        scores = classifier.predict_proba(image, verbose=False)
        assert np.allclose(scores.sum(1), 1, atol=1e-3)
        assert scores.min() >= 0
        assert scores.shape == (2, len(classifier.class_names))
        prediction = classifier.predict(image, verbose=False)[0]
        assert prediction.label in classifier.class_names
        str(classifier), repr(prediction), prediction.to_json()
        same = parts == entries[0] and content[:2] == b"PK" and kind
        assert not same or np.array_equal(scores, expected)
        return "loaded"

    return case


def small_bundle(path: Path, seed: int) -> bytes:
    """Save a very small classifier with a complete, made-up calibration."""
    from scenelearn._backend import keras
    from scenelearn.classify._calibration import calibration_from_arrays
    from scenelearn.finetune._linear_probe import LinearProbe
    from scenelearn.finetune._model import add_head

    keras().utils.set_random_seed(seed)
    layers, numbers = keras().layers, np.random.default_rng(seed)
    n_classes, px, n_features, n_known = 3 + seed, 8, 4, 5
    images = layers.Input((px, px, 3))
    x = layers.Conv2D(n_features, 3, activation="relu", kernel_initializer="ones")(images)
    x = layers.GlobalAveragePooling2D()(x)
    backbone = keras().Model(images, x, name="backbone")
    pixels = layers.Input((px, px, 3))
    features = keras().Model(pixels, backbone(layers.Rescaling(1 / 255)(pixels)))
    kernel = numbers.normal(size=(n_features, n_classes)).astype(np.float32)
    probe = LinearProbe(kernel=kernel, bias=kernel[0].copy(), l2=1)
    model = add_head(features, probe)[1]
    ones = np.ones(n_known, np.float32)
    arrays = {
        "conformal_scores": np.sort(numbers.random(n_known).astype(np.float32)),
        "ood_mean": ones[:n_features], "ood_whitening": np.eye(n_features, dtype=np.float32),
        "ood_medians": ones[:2], "ood_spreads": ones[:2], "ood_scores": ones,
        "neighbor_mean": ones[:n_features],
        "neighbor_components": np.eye(n_features, 2, dtype=np.float16),
        "neighbor_embeddings": np.full((n_known, 2), 0.7, np.float16),
        "neighbor_labels": np.arange(n_known, dtype=np.int32) % n_classes,
    }  # fmt: skip
    paths = [f"{k}.png" for k in range(n_known)]
    sizes = (n_classes, n_features, n_features)
    classifier = Classifier(
        model=model,
        class_names=tuple(f"class {k}" for k in range(n_classes)),
        image_px=px,
        metadata={"backbone": "small"},
        calibration=calibration_from_arrays(arrays, paths, sizes),
    )
    return classifier.save(path).read_bytes()


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _pack(parts: dict[str, bytes], random: random.Random) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        if random.random() < 0.02:
            archive.writestr(
                random.choice(
                    [
                        "../x",
                        "config.json",
                        "x" + odd_text(random, also="/").encode("utf-8", "replace").decode(),
                    ]
                ),
                b"{}",
            )
    return buffer.getvalue()


def _change(value: Any, random: random.Random) -> Any:
    """A JSON value with one value somewhere in it changed, removed, repeated or moved."""
    if isinstance(value, dict | list) and value and random.random() < 0.9:
        key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        copy = value.copy()
        kind = random.random()
        if kind < 0.06:
            del copy[key]
        elif kind < 0.1 and isinstance(value, dict):
            copy[odd_text(random)] = copy.pop(key)
        elif kind < 0.1:
            copy.insert(key, value[-1])
        else:
            copy[key] = _change(value[key], random)
        return copy
    if random.random() < 0.3:
        return odd_text(random)
    if isinstance(value, int) and random.random() < 0.3:
        return value + random.choice((-1, 1, 7)) * random.choice((1, 1000, 10**9))
    if isinstance(value, float):
        return struct.unpack("<f", random.randbytes(4))[0]
    return random.choice(_VALUES)
