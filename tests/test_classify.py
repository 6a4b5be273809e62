"""Predict, evaluate, save and load: the same answer for every way to hand over a photo."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn.classify import Classifier, softmax, temperature
from scenelearn.errors import (
    ArgumentError,
    BundleError,
    ClassMismatchError,
    DiskSpaceError,
    NoPhotosError,
    PathMissingError,
    PhotoError,
)
from scenelearn.finetune import FitResult


@pytest.fixture
def photo(scenes: Path) -> Path:
    return sorted(scenes.glob("sea/*.jpg"))[0]


@pytest.fixture
def classifier(fitted: FitResult) -> Classifier:
    return fitted.classifier


def test_paths_bytes_arrays_and_images_get_the_same_answer(
    classifier: Classifier, photo: Path
) -> None:
    content = photo.read_bytes()
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    array = np.asarray(image)
    answers = [
        classifier.predict(photo)[0],
        classifier.predict(str(photo))[0],
        classifier.predict(content)[0],
        classifier.predict(array)[0],
        classifier.predict(array[None])[0],
        classifier.predict(image)[0],
        classifier.predict([photo, content])[1],
    ]
    for answer in answers:
        np.testing.assert_allclose(answer.probabilities, answers[0].probabilities, atol=1e-6)
    assert [a.source for a in answers[:4]] == [str(photo), str(photo), "bytes 0", "array 0"]


@pytest.mark.parametrize(("width", "tolerance"), [(250, 1e-5), (900, 5e-3)])
def test_large_photo_gets_the_same_answer_as_path_and_as_array(
    classifier: Classifier, tmp_path: Path, width: int, tolerance: float
) -> None:
    """From eight times the network's 32 px on, JPEGs are decoded at reduced size."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    large = Image.fromarray(noise).resize((width, 2 * width // 3), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    array = np.asarray(Image.open(tmp_path / "large.jpg"))
    a, b = classifier.predict([tmp_path / "large.jpg", array])
    np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=0, atol=tolerance)


def test_prediction_is_named_and_complete(classifier: Classifier, photo: Path) -> None:
    (answer,) = classifier.predict(photo)
    assert list(answer.probabilities) == list(classifier.class_names)
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert answer.probability == max(answer.probabilities.values())
    assert answer.probabilities[answer.label] == answer.probability
    assert json.loads(json.dumps(answer.to_json()))["label"] == answer.label


def test_answer_does_not_depend_on_the_company(classifier: Classifier, scenes: Path) -> None:
    files = sorted(scenes.glob("*/*.jpg"))[:40]
    seen: list[tuple[int, int]] = []
    together = classifier.predict(files, progress=lambda *p: seen.append(p))
    alone = [classifier.predict(file)[0] for file in files[30:35]]
    for a, b in zip(together[30:35], alone, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)
    assert seen == [(32, 40), (40, 40)]


def test_folder_is_its_photos_in_order(classifier: Classifier, scenes: Path) -> None:
    answers = classifier.predict(scenes / "sea")
    assert [a.source for a in answers] == [str(p) for p in sorted((scenes / "sea").iterdir())]


def test_saved_bundle_gives_the_same_probabilities_in_a_fresh_process(
    fitted: FitResult, photo: Path, tmp_path: Path
) -> None:
    bundle = fitted.save(tmp_path / "scenes.keras")
    code = (
        "import sys, json, numpy as np, scenelearn as sl; from PIL import Image\n"
        "c = sl.load(sys.argv[1]); p = sys.argv[2]\n"
        "ways = [p, open(p, 'rb').read(), np.asarray(Image.open(p).convert('RGB'))]\n"
        "print(json.dumps([a.probabilities for a in c.predict(ways)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(bundle), str(photo)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = fitted.classifier.predict(photo)[0].probabilities
    for probabilities in json.loads(run.stdout):
        assert list(probabilities) == list(expected)
        np.testing.assert_allclose(list(probabilities.values()), np.asarray(expected), atol=1e-5)


def test_plain_keras_opens_the_bundle(fitted: FitResult, photo: Path, tmp_path: Path) -> None:
    import keras

    bundle = fitted.save(tmp_path / "scenes.keras")
    model = keras.saving.load_model(bundle)
    px = fitted.classifier.image_px
    image = sl.data.to_square(photo.read_bytes(), px)
    expected = fitted.classifier.probabilities(image[None])
    np.testing.assert_allclose(model.predict_on_batch(image[None]), expected, atol=1e-5)


def test_loaded_bundle_knows_where_it_comes_from(fitted: FitResult, tmp_path: Path) -> None:
    loaded = sl.load(fitted.save(tmp_path / "scenes.keras"))
    assert loaded.class_names == fitted.classifier.class_names
    assert loaded.image_px == fitted.classifier.image_px
    assert loaded.facts == fitted.environment


def test_saving_replaces_and_leaves_nothing_else(fitted: FitResult, tmp_path: Path) -> None:
    for _ in range(2):
        fitted.save(tmp_path / "new" / "scenes.keras")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["scenes.keras"]


def test_save_that_fails_spares_the_old_file(
    fitted: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fitted.save(tmp_path / "scenes.keras")
    before = path.read_bytes()

    class Usage:
        free = 0

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(DiskSpaceError, match="MiB of free space"):
        fitted.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["scenes", "scenes.h5"])
def test_bundle_must_end_in_keras(fitted: FitResult, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentError, match=r"must end in '\.keras'.*scenes\.keras"):
        fitted.save(tmp_path / name)


def test_evaluation_matches_classes_by_name(
    classifier: Classifier, scenes: Path, tmp_path: Path
) -> None:
    for k, name in enumerate(["street", "forest"]):
        for file in sorted((scenes / name).iterdir())[: 5 + k]:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    evaluation = classifier.evaluate(sl.scan(tmp_path))
    assert evaluation.class_names == classifier.class_names
    assert {s.name: s.n_photos for s in evaluation.per_class if s.n_photos} == {
        "forest": 6, "street": 5,
    }  # fmt: skip
    answers = [(classifier.predict(p)[0].label, p.parent.name) for p in tmp_path.glob("*/*")]
    assert evaluation.accuracy.value == pytest.approx(np.mean([a == b for a, b in answers]))


def test_evaluation_refuses_other_classes(
    classifier: Classifier, scenes: Path, tmp_path: Path, photo: Path
) -> None:
    for name in ("sea", "desert"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(photo.read_bytes())
    with pytest.raises(ClassMismatchError, match="Received also: desert"):
        classifier.evaluate(sl.scan(tmp_path))


def test_broken_photo_is_named(classifier: Classifier, photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "half.jpg"
    broken.write_bytes(photo.read_bytes()[:1000])
    with pytest.raises(PhotoError, match=r"half\.jpg' cannot be used as a photo.*truncated"):
        classifier.predict([photo, broken])


def test_broken_photo_can_be_skipped_with_a_warning(
    classifier: Classifier, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    answers = classifier.predict([tmp_path / "text.jpg", photo], skip_broken=True)
    assert [a.source for a in answers] == [str(photo)]
    assert "text.jpg" in caplog.text


def test_path_that_does_not_exist(classifier: Classifier) -> None:
    with pytest.raises(PathMissingError, match=r"nowhere\.jpg.*Check the path"):
        classifier.predict("nowhere.jpg")


def test_nothing_to_predict(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(NoPhotosError, match="at least one"):
        classifier.predict(tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
    ],
)  # fmt: skip
def test_array_that_is_no_image(classifier: Classifier, array: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match=r"shape \(height, width, 3\) and the dtype uint8"):
        classifier.predict(array)


@pytest.mark.parametrize("thing", [3, [3], None])
def test_thing_that_is_no_photo(classifier: Classifier, thing: object) -> None:
    with pytest.raises(ArgumentError, match="`photos` must be a path, bytes, an array"):
        classifier.predict(thing)  # type: ignore[arg-type]


def test_images_of_another_size_or_scale(classifier: Classifier) -> None:
    with pytest.raises(ArgumentError, match=r"must have the shape \(n, "):
        classifier.probabilities(np.zeros((1, 7, 7, 3), np.uint8))
    px = classifier.image_px
    with pytest.raises(ArgumentError, match=r"dtype uint8, values 0-255\. Received: .*float32"):
        classifier.probabilities(np.zeros((1, px, px, 3), np.float32))  # type: ignore[arg-type]
    assert classifier.probabilities(np.zeros((0, px, px, 3), np.uint8)).shape == (0, 6)


def test_bundle_whose_names_do_not_fit_its_network(fitted: FitResult, tmp_path: Path) -> None:
    path = tmp_path / "odd.keras"
    for names, px in ((["a", "b"], 32), (list("abcdef"), 31), (list("abcdef"), True)):
        fitted.classifier.model.save(path)
        with zipfile.ZipFile(path, "a") as archive:
            about = {"format": 1, "class_names": names, "image_px": px, "facts": {}}
            archive.writestr("scenelearn.json", json.dumps(about))
        with pytest.raises(BundleError, match=r"class names at|incomplete"):
            sl.load(path)


def test_name_of_a_photo_is_printed_without_its_control_characters(
    classifier: Classifier, photo: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "red\x1b[31m\nname.jpg"
    odd.write_bytes(photo.read_bytes())
    text = str(classifier.predict(odd)[0])
    assert "\\x1b[31m\\nname.jpg" in text
    assert text.isprintable()


def test_bundle_that_is_not_there() -> None:
    with pytest.raises(PathMissingError, match=r"nowhere\.keras"):
        sl.load("nowhere.keras")


def test_files_that_are_no_bundle(fitted: FitResult, tmp_path: Path) -> None:
    whole = fitted.save(tmp_path / "scenes.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.keras").write_text("hello")
    (tmp_path / "empty.keras").write_bytes(b"")
    fitted.classifier.model.save(tmp_path / "plain.keras")
    for name in ("half", "text", "empty", "plain"):
        with pytest.raises(BundleError, match=rf"{name}\.keras' must be a whole file"):
            sl.load(tmp_path / f"{name}.keras")


def test_bundle_whose_entries_are_absurd_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scenelearn.json", json.dumps({"format": 1}))
        archive.writestr("config.json", b" " * (17 * 2**20))
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="a size that no classifier has"):
        sl.load(path)


@pytest.mark.parametrize(
    "about",
    ["[]", "{}", '{"format": 2}', '{"format": 1, "class_names": [3], "image_px": 3, "facts": {}}'],
)
def test_bundle_with_an_entry_of_nonsense(fitted: FitResult, tmp_path: Path, about: str) -> None:
    path = tmp_path / "odd.keras"
    fitted.classifier.model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("scenelearn.json", about)
    with pytest.raises(BundleError, match="incomplete or of a newer version"):
        sl.load(path)


def test_code_in_a_bundle_is_not_run(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Lambda(lambda x: x + 1)])
    path = tmp_path / "lambda.keras"
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        about = {"format": 1, "class_names": ["a", "b"], "image_px": 4, "facts": {}}
        archive.writestr("scenelearn.json", json.dumps(about))
    with pytest.raises(BundleError, match="Lambda"):
        sl.load(path)


def test_temperature_is_the_minimum_of_the_log_loss() -> None:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rng = np.random.default_rng(0)
    n = 20_000  # the softened labels make a difference of the order 1/n
    logits = rng.standard_normal((n, 4)) * 3
    labels = (logits / 2.5 + rng.gumbel(size=(n, 4))).argmax(axis=1)

    def loss(t: float) -> float:
        return float(-log_softmax(logits / t, axis=1)[np.arange(n), labels].mean())

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-6})
    assert temperature(logits, labels) == pytest.approx(best.x, rel=2e-3)
    assert temperature(logits, labels) == pytest.approx(2.5, rel=0.05)


def test_few_answers_that_are_all_right_do_not_make_it_certain() -> None:
    logits = np.tile([1.2, 1.0, -1.0], (12, 1))
    value = temperature(logits, np.zeros(12, int))
    sure = softmax(logits / value)[0, 0]
    assert sure < 1 - 1 / 14  # Laplace's rule of succession: (12 + 1) / (12 + 2)
    assert 0.05 < value < 1


def test_temperature_does_not_depend_on_a_shift_of_the_logits() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((50, 3)), rng.integers(0, 3, 50)
    shifted = logits + rng.standard_normal((50, 1)) * 100
    assert temperature(shifted, labels) == pytest.approx(temperature(logits, labels), rel=1e-6)


def test_photo_that_is_turned_by_exif_is_uprighted_however_it_comes(
    classifier: Classifier, photo: Path
) -> None:
    with Image.open(photo) as opened:
        upright = opened.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    stored = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(stored, "PNG", exif=exif)
    ways = [np.asarray(upright), stored.getvalue(), Image.open(stored)]
    first, *others = classifier.predict(ways)
    for other in others:
        np.testing.assert_allclose(other.probabilities, first.probabilities, atol=1e-5)


def test_pillow_image_of_a_cut_file_is_refused_like_the_file(
    classifier: Classifier, photo: Path
) -> None:
    cut = Image.open(io.BytesIO(photo.read_bytes()[:2000]))
    with pytest.raises(PhotoError, match=r"'image 0' cannot be used as a photo"):
        classifier.predict(cut)
    whole = Image.open(photo)
    assert (
        len(
            classifier.predict(
                [Image.open(io.BytesIO(photo.read_bytes()[:2000])), whole], skip_broken=True
            )
        )
        == 1
    )
