"""The bundled backbone: its weights, and the synthetic images that it is pretrained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError, PathMissingError, WeightsUnavailableError
from tests.bench import bundled_backbone, pretrain_ablations
from tests.bench.pretrain import _kinds, _train
from tests.bench.pretrain.__main__ import write_weights
from tests.bench.pretrain._ghost_batches import use_ghost_batches
from tests.bench.pretrain._store import ImageStore
from tests.helpers.networks import keras
from tests.helpers.patches import move_bundled_weights

WEIGHTS_FILE = Path(sl.__file__).parent / "backbones" / "scenelearn_tiny.weights.h5"


# Rendering


def test_an_image_depends_only_on_seed_class_and_index() -> None:
    whole = _kinds.render_images(0, 3, range(6), 40)
    np.testing.assert_array_equal(_kinds.render_images(0, 3, range(4, 6), 40), whole[4:])
    assert len({image.tobytes() for image in whole}) == 6
    assert not np.array_equal(_kinds.render_images(1, 3, range(6), 40), whole)


@pytest.mark.parametrize("label", range(20))
def test_every_kind_of_class_renders_something(label: int) -> None:
    images = _kinds.render_images(0, label, range(3), 48)
    assert images.shape == (3, 48, 48, 3)
    assert images.std(axis=(1, 2, 3)).mean() > 4


def test_selected_kinds_alternate() -> None:
    kinds = [_kinds.kind_of(label, ("julia", "texture")) for label in range(8)]
    assert kinds == ["texture", "texture", "texture", "julia"] * 2
    alone = _kinds.render_images(0, 3, range(2), 36, ("julia", "texture"))
    assert not np.array_equal(alone, _kinds.render_images(0, 3, range(2), 36))  # an attractor there


def test_half_of_the_classes_are_layouts() -> None:
    kinds = [_kinds.kind_of(label) for label in range(100)]
    assert kinds.count("layout") == 50
    assert set(kinds) == {"attractor", "julia", "layout", "texture"}


def test_images_are_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(folder=tmp_path, seed=0, n_classes=40, per_class=2, px=36)
    said: list[str] = []
    store.render(said.append)
    assert said == ["rendered: 20 of 40 classes", "rendered: 40 of 40 classes"]
    monkeypatch.setattr(_kinds, "render_images", None)  # existing files are not rendered again
    store.render(said.append)
    numbers = np.array([2 * 33 + 1, 0])
    expected = np.stack([store.reader()(numbers)[0], np.load(sorted(tmp_path.iterdir())[0])[0]])
    monkeypatch.undo()
    np.testing.assert_array_equal(store.reader()(numbers), expected)
    np.testing.assert_array_equal(expected[0], _kinds.render_images(0, 33, range(1, 2), 36)[0])


# Training


def test_batches_of_an_epoch_contain_every_image_once_except_those_held_out() -> None:
    store = ImageStore(folder=Path(), seed=0, n_classes=20, per_class=5, px=36)
    config = _train.PretrainConfig(batch_size=10, held_out=1)
    batches = list(_train._batches(store, config, 0, 0))
    assert sorted(np.concatenate(batches)) == [n for n in range(100) if n % 5 < 4]
    rest = list(_train._batches(store, config, 0, 3))
    np.testing.assert_array_equal(np.stack(rest), np.stack(batches[3:]))
    assert not np.array_equal(list(_train._batches(store, config, 1, 0)), batches)


@pytest.mark.nightly
@pytest.mark.skipif(keras().backend.backend() != "jax", reason="pretraining is on JAX")
def test_ghost_batches_have_their_own_statistics() -> None:
    import jax

    k = keras()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8, 8, 3)).astype(np.float32)
    y = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 64)]

    def made() -> Any:
        k.utils.set_random_seed(3)
        image = k.Input((8, 8, 3))
        maps = k.layers.BatchNormalization()(k.layers.Conv2D(4, 3, use_bias=False)(image))
        pooled = k.layers.GlobalAveragePooling2D()(k.layers.ReLU()(maps))
        model = k.Model(image, k.layers.Dense(5)(pooled))
        loss = k.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(k.optimizers.SGD(0.5), loss=loss)
        return model

    model, plain = made(), made()
    sl.backbones.fast_on_cpu(model)
    use_ghost_batches(model)
    model.train_on_batch(x, y)

    def loss_of(trainable: Any, x: Any, y: Any) -> Any:
        others = [variable.value for variable in plain.non_trainable_variables]
        logits, _ = plain.stateless_call(trainable, others, x, training=True)
        return -(y * jax.nn.log_softmax(logits)).sum(1).mean()

    weights = [variable.value for variable in plain.trainable_variables]
    parts = [jax.grad(loss_of)(weights, x[n : n + 16], y[n : n + 16]) for n in range(0, 64, 16)]
    expected = [w - 0.5 * sum(g) / 4 for w, *g in zip(weights, *parts, strict=True)]
    for one, other in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-4, atol=1e-6)
    together = jax.grad(loss_of)(weights, x, y)[0]  # unlike a step with whole-batch statistics
    assert not np.allclose(model.trainable_variables[0], weights[0] - 0.5 * together, rtol=1e-3)


@pytest.mark.nightly
def test_an_interrupted_run_resumes_as_if_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(folder=tmp_path / "images", seed=0, n_classes=20, per_class=6, px=36)
    store.render(lambda _: None)
    config = _train.PretrainConfig(image_px=32, batch_size=32, epochs=2, held_out=1)

    def weights(checkpoint: Path) -> list[Any]:
        network, found = _train.train(store, config, checkpoint, lambda _: None)
        assert found["steps"] == 2 * (100 // 32)
        return list(network.get_weights())

    expected = weights(tmp_path / "never")
    monkeypatch.setattr(_train, "_CHECKPOINT_INTERVAL_S", 0.0)
    keep, n_kept = _train._write_checkpoint, []

    def interrupt(*arguments: Any) -> None:
        keep(*arguments)
        n_kept.append(1)
        if len(n_kept) == 5:  # in the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(_train, "_write_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "run")
    monkeypatch.setattr(_train, "_CHECKPOINT_INTERVAL_S", 1e9)
    for one, other in zip(weights(tmp_path / "run"), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_are_written_in_half_precision_and_read_by_a_build(tmp_path: Path) -> None:
    model = sl.backbones.build("scenelearn_tiny", weights=None, image_px=48, seed=3)
    file = tmp_path / "tiny.weights.h5"
    write_weights(model.get_layer("backbone"), file)
    assert file.stat().st_size < 1_200_000
    with h5py.File(file) as content:
        kinds = set()
        content.visititems(
            lambda _, item: kinds.add(item.dtype) if isinstance(item, h5py.Dataset) else None
        )
    assert kinds == {np.dtype(np.float16), np.dtype(np.float32)}  # float32: BatchNormalization's
    read = sl.backbones.build("scenelearn_tiny", weights=file, image_px=48)
    for one, other in zip(read.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other.astype(np.float16) if one.ndim > 1 else other)


def test_variants_are_compared_on_photos_that_no_published_split_tests(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = sl.scan(scenes)
    tested = {n for seed in range(5) for n in sl.split(photos, seed=seed).test.tolist()}
    noise = np.random.default_rng(0).standard_normal((len(photos), 100), np.float32)
    told = np.eye(photos.n_classes, dtype=np.float32)[photos.labels]
    # Noise that suffices to memorize each photo, and the labels themselves: only what generalizes
    # counts.
    for known, lowest, highest in ((noise, 0.0, 0.5), (told, 1.0, 1.0)):
        monkeypatch.setattr(pretrain_ablations, "extract_features", lambda *_, k=known, **__: k)
        judged = pretrain_ablations.cross_validate(photos, None, 32)
        assert judged["n"] == len(photos) - len(tested)
        assert lowest <= judged["value"] <= highest


# The package


def test_the_network_is_small_and_takes_any_size() -> None:
    for px in (32, 33, 100):
        model = sl.backbones.build("scenelearn_tiny", weights=None, image_px=px)
        assert model.output_shape == (None, 768)
    assert model.count_params() < 500_000


def test_bundled_weights_are_loaded_and_give_finite_features(scenes: Path) -> None:
    assert WEIGHTS_FILE.stat().st_size < 1_200_000
    stored, random = (
        sl.backbones.build("scenelearn_tiny", weights=weights, image_px=48)
        for weights in ("scenelearn", None)
    )
    kernel = stored.get_layer("backbone").get_layer("stem_convolution").kernel
    with h5py.File(WEIGHTS_FILE) as content:
        found: list[Any] = []
        content.visititems(
            lambda _, item: found.append(item[()]) if getattr(item, "shape", 0) == (3, 3, 3, 16)
            else None
        )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(kernel), found[0].astype(np.float32))
    assert not np.array_equal(stored.get_weights()[0], random.get_weights()[0])
    known = sl.finetune.extract_features(
        sl.scan(scenes), backbone="scenelearn_tiny", weights="scenelearn", image_px=48
    )
    assert known.shape == (72, 768)
    assert np.isfinite(known).all()


def test_bundled_weights_of_a_different_network_are_rejected() -> None:
    with pytest.raises(
        ArgumentError, match=r"'scenelearn_tiny' only\. Received: .*for 'mobilenet_0.25'"
    ):
        sl.backbones.build("mobilenet_0.25", weights="scenelearn", image_px=32)


def test_missing_bundled_weights_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    move_bundled_weights(monkeypatch, Path("nowhere/tiny.weights.h5"))
    with pytest.raises(PathMissingError, match=r"nowhere.*Reinstall scenelearn"):
        sl.backbones.build("scenelearn_tiny", weights="scenelearn", image_px=32)


def test_license_of_bundled_weights() -> None:
    assert sl.backbones.weights_license("scenelearn_tiny", "scenelearn").startswith(
        "Apache-2.0 (scenelearn"
    )


# Messages


@pytest.mark.parametrize("there", [True, False])
def test_without_a_download_the_bundled_weights_are_suggested(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, measured = tmp_path / "tiny.weights.h5", tmp_path / "tiny.json"
    if there:
        file.touch()
        percent = {"pretrained": 61.5, "imagenet": 90.1}
        measured.write_text(json.dumps({"test_percent": percent, "image_px": {"pretrained": 96}}))
    move_bundled_weights(monkeypatch, file, measured)

    def refuse(*_: object, **__: object) -> None:
        raise Exception("no route to host")  # as Keras does

    monkeypatch.setattr(keras().src.utils.file_utils, "get_file", refuse)
    message = (
        r"weights='scenelearn'.*image_px=96.*61\.5% instead of 90\.1%"
        if there
        else "random weights"
    )
    with pytest.raises(WeightsUnavailableError, match=message):
        sl.backbones.build("mobilenet_v2_0.35", weights="imagenet", image_px=32)


def test_published_figures_are_the_measured_ones() -> None:
    results = Path(sl.__file__).parent.parent / "docs/results/bundled_backbone.json"
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["weights_blake2b"] == bundled_backbone.digest()
    summary = json.loads(bundled_backbone.SUMMARY.read_text(encoding="utf-8"))
    assert summary == bundled_backbone.summary(found)
    for part in ("test_percent", "image_px"):
        assert set(summary[part]) == {"imagenet", "pretrained", "random"}


def test_stores_of_different_images_have_different_files() -> None:
    store = ImageStore(folder=Path(), seed=0, n_classes=20, per_class=5, px=36)
    assert store._file(0) != replace(store, px=40)._file(0)
