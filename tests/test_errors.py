"""Errors and results: every one survives pickling and copying, and no name steers a terminal."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import multiprocessing
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn import errors
from scenelearn.data import RejectionReason
from scenelearn.errors import PhotoError, SceneLearnError
from scenelearn.finetune import FitResult

ERRORS = [getattr(errors, name) for name in errors.__all__]
PACKAGES = "augment", "backbones", "classify", "data", "finetune", "metrics", "sizing"


def copies(value: Any) -> list[Any]:
    return [pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)]  # noqa: S301


@pytest.mark.parametrize("kind", ERRORS)
def test_error_survives_pickle_and_copy(kind: type[SceneLearnError]) -> None:
    for again in copies(kind("`x` must be …")):
        assert (type(again), str(again), again.args) == (kind, "`x` must be …", ("`x` must be …",))
        assert again.help_page == kind("").help_page


def test_rejected_photo_survives_pickle_and_copy() -> None:
    with pytest.raises(PhotoError) as caught:
        sl.data.to_image(b"\xff\xd8\xff", 8)
    error: Any = caught.value
    assert error.reason is RejectionReason.TRUNCATED
    for again in copies(error):
        found = (type(again), str(again), again.reason, again.detail)
        assert found == (type(error), str(error), error.reason, error.detail)


def decode_nothing(content: bytes) -> None:
    sl.data.to_image(content, 8)


@pytest.mark.slow
def test_error_comes_back_from_another_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(errors.PhotoError):
        pool.map_async(decode_nothing, [b"no photo"]).get(timeout=600)


def test_message_cannot_steer_a_terminal() -> None:
    error = errors.ClassMismatchError("Received: \x1b[2Jsea, for\udceat.\nRename them.")
    assert str(error) == r"Received: \x1b[2Jsea, for\udceat." + "\nRename them."


# Results


def public_classes() -> set[type]:
    """The public classes of the package, without the layers of `sizing`."""
    found = {
        value
        for package in PACKAGES
        for module in [importlib.import_module(f"scenelearn.{package}")]
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name))
    }
    return {kind for kind in found if not issubclass(kind, sl.sizing.Layer)}


def parts(value: Any, found: dict[int, Any]) -> dict[int, Any]:
    """A value and everything in its fields and items, by identity."""
    if id(value) not in found and not isinstance(value, str | bytes | np.ndarray):
        found[id(value)] = value
        inner = [*value] if isinstance(value, list | tuple) else []
        if dataclasses.is_dataclass(value):
            inner += [getattr(value, field.name) for field in dataclasses.fields(value)]
        for item in value.values() if isinstance(value, Mapping) else inner:
            parts(item, found)
    return found


def test_every_result_survives_pickle_and_copy(fitted: FitResult, scenes: Path) -> None:
    photos, classifier, policy = sl.scan(scenes), fitted.classifier, sl.augment.policy("strong")
    estimate = sl.estimate("Conv2D(8, 3), Flatten(), Dense(10)", input_shape=(32, 32, 3))
    features = np.eye(8, dtype=np.float32)
    labels = np.arange(8, dtype=np.int32) % 2
    image = np.zeros((1, 1, 8, 8, 3), np.uint8)
    results = [
        fitted,
        photos[0],
        sl.data.Rejected(path="a.txt", reason=RejectionReason.NOT_AN_IMAGE),
        sl.data.LabelIssue(0, 1, 0.05),
        sl.data.decode(photos, 8),
        sl.data.Pixels.from_array(image[0]),
        sl.audit(photos),
        classifier.predict(scenes / "sea"),
        classifier.explain(photos[0].path),
        sl.classify.ExportResult(
            path=Path("a"),
            format="onnx",
            precision="float32",
            n_photos=1,
            max_difference=0.0,
            changed_labels=sl.metrics.wilson(0, 1),
            comparison=None,
        ),
        sl.compare(classifier, classifier, photos),
        sl.classify.Ranking(
            folder=Path("new"),
            paths=("a.jpg",),
            labels=("sea",),
            margins=features[0, :1],
            n_photos=3,
        ),
        sl.classify.Benchmark(
            photos_per_second=9.0,
            low=8.0,
            high=9.5,
            ms_per_request=120.0,
            batch_size=32,
            n_batches=6,
            n_cores=2,
        ),
        sl.metrics.evaluate([0, 1], [[0.9, 0.1], [0.7, 0.3]], ["sea", "sky"]).most_confused(),
        sl.finetune.cross_validate_l2(features, labels, 2),
        estimate,
        sl.sizing.NetworkComparison((estimate,)),
        sl.sizing.recurrent_shapes(units=4, features=3),
        policy,
        sl.augment.sample(policy, 0, 2),
        sl.augment.sample_mix(0, 4),
        sl.augment.Preview(images=image, captions=(("a",),), title="t"),
    ]
    covered = set()
    for result in results:
        covered |= {type(value) for value in parts(result, {}).values()}
        for again in copies(result):
            assert (type(again), repr(again)) == (type(result), repr(result))
    names = {kind.__name__ for kind in public_classes() - covered}
    # These take seconds to make, or have fields of the same kinds.
    assert names <= {"Batches", "CrossValidation", "Figure", "Operation", "Plan"}
