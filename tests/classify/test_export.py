"""Exports: the same predictions from other runtimes, or nothing is written."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn import cli
from scenelearn.classify import Classifier, _export, _export_worker
from scenelearn.classify._resize_layer import resize_layer
from scenelearn.data import to_image
from scenelearn.data._resize import SHAPES, Resize
from scenelearn.errors import (
    ArgumentError,
    ClassMismatchError,
    ExportError,
    MissingExtraError,
    NoPhotosError,
    PathMissingError,
)
from scenelearn.finetune import FitResult
from tests.helpers.patches import resample_by_pillow

REQUIREMENTS = {
    "onnx": ("onnx", "onnxruntime", "tensorflow", "tf2onnx"),
    "litert": ("ai_edge_litert", "tensorflow"),
    "saved_model": ("tensorflow",),
}
ENDING = {"onnx": "scenes.onnx", "litert": "scenes.tflite", "saved_model": "scenes"}


@pytest.fixture(scope="module")
def classifier(fitted: FitResult, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return sl.load(fitted.save(tmp_path_factory.mktemp("bundle") / "scenes.keras"))


def need(format_: str) -> None:
    for module in REQUIREMENTS[format_]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install scenelearn[{format_}]")


def of_runtime(
    path: Path, format_: str, images: list[npt.NDArray[np.uint8]]
) -> npt.NDArray[np.float32]:
    """The probabilities that a user without scenelearn gets from the file."""
    if format_ == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"image": one[None]})[0] for one in images])
    if format_ == "saved_model":
        code = (
            "import sys, numpy as np, tensorflow as tf\n"
            "model = tf.saved_model.load(sys.argv[1])\n"
            "found = [model.serve(np.load(file)[None]).numpy() for file in sys.argv[2:]]\n"
            "np.save(sys.argv[1] + '.npy', np.concatenate(found))\n"
        )
        files = []
        for k, one in enumerate(images):
            np.save(path.with_name(f"{k}.npy"), one)
            files.append(str(path.with_name(f"{k}.npy")))
        subprocess.run([sys.executable, "-c", code, str(path), *files], check=True)
        return np.asarray(np.load(f"{path}.npy"))
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    return np.concatenate([next(iter(runner(image=one[None]).values())) for one in images])


def metadata(path: Path, format_: str) -> dict[str, Any]:
    if format_ == "onnx":
        import onnx

        held = {one.key: one.value for one in onnx.load(path).metadata_props}
        return held | {key: json.loads(held[key]) for key in ("class_names", "provenance")}
    if format_ == "litert":
        with zipfile.ZipFile(path) as archive:
            return dict(json.loads(archive.read("scenelearn.json")))
    return dict(json.loads((path / "assets.extra" / "scenelearn.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["onnx", "litert", "saved_model"])
def test_export_predicts_like_the_classifier(
    classifier: Classifier, tmp_path: Path, format_: str
) -> None:
    need(format_)
    path = tmp_path / ENDING[format_]
    exported = classifier.export(path)
    assert (exported.path, exported.format, exported.n_photos) == (path, format_, 18)
    assert exported.max_difference <= 1e-4
    assert (exported.precision, exported.changed_labels.value) == ("float32", 0)
    random = np.random.default_rng(0)
    sizes = [(32, 32)] if format_ == "litert" else [(150, 150), (90, 61), (333, 500), (2, 3)]
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    expected = [list(one.probabilities.values()) for one in classifier.predict(images)]
    np.testing.assert_allclose(of_runtime(path, format_, images), expected, atol=1e-4)
    about = metadata(path, format_)
    assert about["class_names"] == list(classifier.class_names)
    assert about["provenance"] == classifier.metadata
    assert about["input"].startswith("(batch, ")
    assert sorted(one.name for one in tmp_path.glob(".*")) == []
    again = classifier.export(path, format=format_, check=images)  # replaces the first
    assert again.n_photos == len(images)


@pytest.mark.slow
@pytest.mark.parametrize(("format_", "shape"), [("onnx", "pad"), ("litert", "squash")])
def test_export_keeps_the_shape_of_photos(
    classifier: Classifier, tmp_path: Path, format_: str, shape: str
) -> None:
    need(format_)
    classifier = dataclasses.replace(classifier, shape=shape)
    image = np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8)
    path = classifier.export(tmp_path / ENDING[format_], check=[image]).path
    given = image if format_ == "onnx" else to_image(Image.fromarray(image), 32, shape)
    found, expected = of_runtime(path, format_, [given]), classifier.predict_proba(image)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    about = metadata(path, format_)
    assert (about["shape"], str(about["image_px"])) == (shape, "32")
    words = {"onnx": "None: the model takes", "litert": "Resize the whole photo to 32×32 px"}
    assert about["preparation"].startswith(words[format_])


@pytest.mark.intel
@pytest.mark.parametrize("format_", ["onnx", "litert", "saved_model"])
def test_exports_agree_on_100_photos(
    intel: Path, weights: Path, tmp_path: Path, format_: str
) -> None:
    need(format_)
    photos = sl.scan(intel)
    chosen = np.random.default_rng(0).permutation(len(photos))
    few = sl.split(photos, seed=0, quarantine=[photos.paths[k] for k in chosen[1000:]])
    fit = sl.fit(few, weights=weights / "mobilenet_v2_0.35_224_notop.h5", epochs=0)
    check = [photos.read(k) for k in chosen[-100:]]
    exported = fit.classifier.export(tmp_path / ENDING[format_], check=check)
    assert exported.n_photos == 100
    assert exported.max_difference <= 1e-4


@pytest.mark.intel
def test_int8_model_is_smaller_and_nearly_as_accurate(
    intel: Path, weights: Path, tmp_path: Path
) -> None:
    need("litert")
    photos = sl.scan(intel)
    chosen = np.random.default_rng(0).permutation(len(photos))
    few = sl.split(photos, seed=0, quarantine=[photos.paths[k] for k in chosen[1500:]])
    fit = sl.fit(few, weights=weights / "mobilenet_v2_0.35_224_notop.h5", epochs=0)
    exported = fit.classifier.export(tmp_path / "int8.tflite", quantize=few)
    assert exported.changed_labels.value <= 0.05
    assert exported.comparison is not None
    assert exported.comparison.accuracy_difference.value > -0.03
    plain = fit.classifier.export(tmp_path / "plain.tflite")
    assert exported.path.stat().st_size < plain.path.stat().st_size / 2
    images = [to_image(photos.read(k), 160) for k in few.test[:20].tolist()]
    found = of_runtime(exported.path, "litert", images)
    expected = fit.classifier.predict_proba(np.stack(images))
    np.testing.assert_allclose(found, expected, atol=0.3)
    with zipfile.ZipFile(exported.path) as archive:
        assert json.loads(archive.read("scenelearn.json"))["provenance"] == fit.classifier.metadata
        assert json.loads(archive.read("verification.json"))["precision"] == "int8"


@pytest.mark.nightly
@pytest.mark.parametrize("resampler", ["cykooz", "pillow"])
def test_resize_layer_agrees_with_to_image(resampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax
    import keras

    if resampler == "pillow":
        resample_by_pillow(monkeypatch)
    else:
        pytest.importorskip("cykooz_resizer", reason="there is no wheel for this machine")
    random = np.random.default_rng(0)
    n_other, n = 0, 0
    cases = itertools.product([(21, 14), (260, 401)], [(16, 16), (12, 20)], SHAPES)
    for (height, width), size, shape in cases:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = to_image(Image.fromarray(image), size, shape).astype(int)
        layer = resize_layer(Resize(*size, shape), resampler)
        with jax.enable_x64(True):  # no effect on other backends
            found = keras.ops.convert_to_numpy(layer(image[None]))[0]
        assert np.abs(found - expected).max() <= 1
        n_other, n = n_other + int((found != expected).sum()), n + expected.size
    assert n_other <= n / 2000


@pytest.mark.slow
def test_export_of_a_classifier_for_rectangles(tmp_path: Path) -> None:
    need("onnx")
    import keras

    features = sl.backbones.build("scenelearn_tiny", weights=None, image_px=(32, 48))
    x = keras.layers.Dense(2, dtype="float32", name="logits")(features.output)
    x = keras.layers.Softmax(name="probabilities")(x)
    made = Classifier(
        model=keras.Model(features.input, x),
        class_names=("a", "b"),
        image_px=(32, 48),
        metadata={},
        shape="crop",
    )
    images = [
        np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)
        for k, size in enumerate([(90, 100), (40, 200), (300, 200)])
    ]
    made.export(tmp_path / "odd.onnx", check=images)
    resized = [to_image(Image.fromarray(image), (32, 48)) for image in images]
    expected = made.model.predict_on_batch(np.stack(resized))
    np.testing.assert_allclose(
        of_runtime(tmp_path / "odd.onnx", "onnx", images), expected, atol=1e-4
    )


def test_metadata_of_names_that_are_not_unicode(classifier: Classifier) -> None:
    names = ("for\udceat", "s\x1b[2Jea", *classifier.class_names[2:])
    hostile = dataclasses.replace(classifier, class_names=names)
    files = _export_worker._metadata_files(_export_worker._description(hostile, any_size=True))
    assert files["labels.txt"].encode().splitlines()[0] == rb"for\udceat"
    assert json.loads(files["scenelearn.json"])["class_names"] == list(names)


# What is rejected, before anything is written


@pytest.mark.parametrize(
    ("name", "format_", "words"),
    [
        ("scenes.pb", None, "`format` must be 'onnx', 'litert' or 'saved_model'"),
        ("scenes.onnx", "tflite", "Received: format='tflite'"),
        ("scenes.tflite", "onnx", "`path` must end in '.onnx' for 'onnx'"),
        ("taken.onnx", None, "`path` must be unused, or an older export"),
        ("taken.onnx", "saved_model", "notes.txt.* is something else"),
    ],
)
def test_format_and_path_that_do_not_match(
    classifier: Classifier, tmp_path: Path, name: str, format_: str | None, words: str
) -> None:
    (tmp_path / "taken.onnx").mkdir()
    (tmp_path / "taken.onnx" / "notes.txt").touch()
    with pytest.raises(ArgumentError, match=words):
        classifier.export(tmp_path / name, format=format_)


def test_missing_package_is_named_with_its_install_command(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError) as raised:
        classifier.export(tmp_path / "scenes")
    assert "no tensorflow" in str(raised.value)
    assert 'pip install "scenelearn[saved-model]"' in str(raised.value)


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all packages were installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)


Worker = Callable[[Path, int], npt.NDArray[np.float32]]


@contextlib.contextmanager
def worker(export: Worker) -> Iterator[None]:
    """Instead of the process that exports, call a function of its folder and the photos' number."""

    def run(command: list[str], *_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        work = Path(command[-1])
        n = json.loads((work / "job.json").read_text())["n_images"]
        np.save(work / "probabilities.npy", export(work, n), allow_pickle=False)
        return subprocess.CompletedProcess(command, 0, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.run", run)
        yield


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table + 2e-4, "and its probabilities to 0"),
        (lambda table: table * np.nan, "must give the classifier's labels"),
        (lambda table: table[:, ::-1], "2 different labels"),
        (lambda table: table[:, :1], "a difference of inf"),
    ],
)
def test_export_that_does_not_agree_is_not_written(
    classifier: Classifier, tmp_path: Path, change: Any, words: str
) -> None:
    def export(work: Path, n: int) -> npt.NDArray[np.float32]:
        (work / "export.onnx").write_bytes(b"nearly")
        images = (Image.fromarray(np.load(work / f"{k}.npy")) for k in range(n))
        return change(classifier.predict_proba(np.stack([to_image(one, 32) for one in images])))

    (tmp_path / "scenes.onnx").write_bytes(b"older")
    with worker(export), pytest.raises(ExportError, match=words):
        classifier.export(tmp_path / "scenes.onnx", check=np.zeros((2, 40, 50, 3), np.uint8))
    assert (tmp_path / "scenes.onnx").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


def quantized(classifier: Classifier, change: Any) -> Worker:
    """A worker that writes an int8 model with changed probabilities."""

    def export(work: Path, n: int) -> npt.NDArray[np.float32]:
        assert json.loads((work / "job.json").read_text())["precision"] == "int8"
        with zipfile.ZipFile(work / "export.tflite", "w") as archive:
            archive.writestr("labels.txt", "")
        assert np.load(work / "ranges.npy").shape[1:] == (32, 32, 3)
        images = np.stack([np.load(work / f"{k}.npy") for k in range(n)])
        return np.asarray(change(classifier.predict_proba(images)))

    return export


@pytest.mark.usefixtures("without_packages")
def test_loss_of_int8_is_measured_on_validation_photos(
    classifier: Classifier, fitted: FitResult, tmp_path: Path
) -> None:
    splits = fitted.splits
    photos = splits.photos[splits.validation]
    probabilities = classifier.predict_proba(photos)
    is_right = probabilities.argmax(axis=1) == photos.labels

    def coarse(table: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.round(256 * table) / 256

    with worker(quantized(classifier, coarse)), pytest.MonkeyPatch.context() as patch:
        patch.setattr("scenelearn.classify._export.MAX_CHANGED", 1)
        exported = classifier.export(tmp_path / "scenes.tflite", quantize=splits)
    changed = coarse(probabilities).argmax(axis=1) != probabilities.argmax(axis=1)
    assert (exported.precision, exported.n_photos) == ("int8", len(photos))
    assert exported.changed_labels.value == changed.mean()
    assert exported.comparison is not None
    assert exported.comparison.accuracy_a.value == is_right.mean()
    assert 0 < exported.max_difference <= 1 / 512
    assert "of the labels change; accuracy" in str(exported)
    with zipfile.ZipFile(exported.path) as archive:
        written = json.loads(archive.read("verification.json"))
    assert written["changed_labels"]["n"] == len(photos)
    assert written["comparison"]["accuracy_a"]["value"] == is_right.mean()
    assert "path" not in written


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table[:, ::-1], r"for 95% of the photos.*of the labels change; accuracy"),
        (lambda table: table * np.nan, r"100.0% .* of the labels change\. Nothing was written"),
    ],
)
def test_int8_that_changes_many_labels_is_not_written(
    classifier: Classifier, fitted: FitResult, tmp_path: Path, change: Any, words: str
) -> None:
    with worker(quantized(classifier, change)), pytest.raises(ExportError, match=words):
        classifier.export(tmp_path / "scenes.tflite", quantize=fitted.splits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_packages")
def test_quantize_with_other_things_than_splits(
    classifier: Classifier, fitted: FitResult, tmp_path: Path
) -> None:
    splits = fitted.splits
    with pytest.raises(ArgumentError, match="`quantize` must be None for 'onnx'"):
        classifier.export(tmp_path / "scenes.onnx", quantize=splits)
    for other in (True, splits.photos, dataclasses.replace(splits, validation=splits.test[:0])):
        with pytest.raises(ArgumentError, match="`quantize` must be the Splits of the fit"):
            classifier.export(tmp_path / "scenes.tflite", quantize=other)
    renamed = dataclasses.replace(splits.photos, class_names=("other", *classifier.class_names[1:]))
    with pytest.raises(ClassMismatchError, match="Received also: other"):
        classifier.export(
            tmp_path / "scenes.tflite", quantize=dataclasses.replace(splits, photos=renamed)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_packages")
def test_int8_from_the_command_line(
    fitted: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, manifest = fitted.save(tmp_path / "scenes.keras"), tmp_path / "split.csv"
    fitted.splits.save(manifest)
    arguments = ["export", str(bundle), "--out", str(tmp_path / "scenes.tflite")]
    folder = str(fitted.splits.photos.folder)
    with worker(quantized(fitted.classifier, lambda table: table)):
        command = [*arguments, "--quantize", folder, "--manifest", str(manifest), "--json"]
        assert cli.main(command) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["precision"], written["changed_labels"]["value"]) == ("int8", 0)
    assert written["n_photos"] == len(fitted.splits.validation)
    assert cli.main([*arguments, "--manifest", str(manifest)]) == 2
    assert "`--manifest` must list the photos of `--quantize`" in capsys.readouterr().err


@pytest.mark.usefixtures("without_packages")
def test_error_of_the_worker_is_repeated(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.CompletedProcess([], 1, "", "Traceback\nValueError: no such layer\n\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: ended)
    with pytest.raises(ExportError, match="Received: ValueError: no such layer"):
        classifier.export(tmp_path / "scenes", check=np.zeros((40, 50, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_packages")
def test_check_photos_that_do_not_exist(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(PathMissingError):
        classifier.export(tmp_path / "scenes", check=tmp_path / "nowhere.jpg")
    with pytest.raises(NoPhotosError, match="`check` must contain at least one photo"):
        classifier.export(tmp_path / "scenes", check=[])


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("foreign", ["notes.txt", "variables/notes.txt", "assets/photo.jpg"])
def test_folder_with_other_files_is_not_replaced(
    classifier: Classifier, tmp_path: Path, foreign: str
) -> None:
    for name in ("saved_model.pb", "variables/variables.index", foreign):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"as it was")
    with pytest.raises(ArgumentError, match="must be unused, or an older export") as raised:
        classifier.export(tmp_path)
    assert foreign in str(raised.value)
    assert (tmp_path / foreign).read_bytes() == b"as it was"


@pytest.mark.usefixtures("without_packages")
def test_folder_replaces_an_older_export_only_when_complete(
    classifier: Classifier,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export(work: Path, n: int) -> npt.NDArray[np.float32]:
        (work / "export").mkdir()
        (work / "export" / "saved_model.pb").write_bytes(b"new")
        return classifier.predict_proba(np.zeros((n, 32, 32, 3), np.uint8))

    photo = tmp_path / "black.png"
    Image.new("RGB", (50, 40)).save(photo)
    bundle = classifier.save(tmp_path / "scenes.keras")
    folder = tmp_path / "deep" / "scenes"
    for _ in range(2):
        arguments = ["export", str(bundle), "--out", str(folder), "--check", str(photo)]
        with worker(export):
            assert cli.main([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["n_photos"] == 1
        assert [one.name for one in folder.iterdir()] == ["saved_model.pb"]
        assert [one.name for one in folder.parent.iterdir()] == ["scenes"]


def test_large_photos_are_checked_as_they_are_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (3000, 2000), "gray").save(tmp_path / "large.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "large.jpg")
    content = (tmp_path / "large.jpg").read_bytes()
    image = _export._load_image(("large.jpg", content))
    assert max(image.shape) <= 1600
    assert abs(image.reshape(-1, 3).mean(axis=0) - 128).max() < 2
