"""Networks of the user's own as backbones: Keras models and `.keras` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn import backbones
from scenelearn.backbones._network import load_if_own
from scenelearn.cli import main
from scenelearn.errors import ArgumentError, ExportError, PathMissingError, WeightsFileError
from scenelearn.finetune import FitSettings
from scenelearn.finetune._model import build_features
from tests.helpers.networks import materialize
from tests.helpers.own_backbones import attention_network, classifier_of
from tests.helpers.patches import require_no_packages_for_export

layers = keras.layers
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):
    """A layer of the user's own."""

    def __init__(self, start: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(
            shape=(shape[-1],), initializer=keras.initializers.Constant(self.start)
        )

    def call(self, x: Any) -> Any:
        return x * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A subclassed model."""

    def __init__(self, width: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.convolution = layers.Conv2D(width, 3, 2)
        self.norm = layers.BatchNormalization()

    def call(self, x: Any, training: bool | None = None) -> Any:
        return keras.ops.relu(self.norm(self.convolution(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def model_of(*inner: Any, size: int | None = None) -> Any:
    def make() -> Any:
        image = keras.Input((size, size, 3))
        x = image
        for layer in inner:
            x = layer(x)
        return keras.Model(image, x)

    return materialize(make)


def randomize(model: Any, seed: int = 0) -> Any:
    """Random positive weights, so that every part of the network matters."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 0.6, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def expected_average(model: Any, pixels: Any) -> Any:
    return np.asarray(model(np.asarray(pixels, np.float32), training=False)).mean((1, 2))


def features_of(backbone: Any, **settings: Any) -> Any:
    return backbones.build(backbone, **{"image_px": 32, **settings})


def assert_same(ours: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=2e-4, atol=2e-4)


def small(*, rescaling: bool = True) -> Any:
    first = [layers.Rescaling(1 / 255)] if rescaling else []
    return randomize(
        model_of(*first, layers.Conv2D(4, 3, 2), layers.BatchNormalization(), layers.ReLU())
    )


def test_feature_maps_are_averaged_and_the_model_is_not_changed() -> None:
    model = small()
    before = model.get_weights()
    features = features_of(model)
    assert features.get_layer("backbone").input_shape == (None, 32, 32, 3)
    assert_same(features(IMAGES), expected_average(model, IMAGES))
    features.set_weights([0 * weight for weight in features.get_weights()])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["features", "class_token", "logits"])
def test_layers_may_have_the_names_of_layers_that_are_added(name: str) -> None:
    def make() -> Any:
        image = keras.Input((32, 32, 3))
        return keras.Model(image, keras.layers.Conv2D(4, 3, 2, name=name)(image))

    features = backbones.build(materialize(make), preprocessing="none", image_px=32)
    assert features.output_shape == (None, 4)


def test_file_gives_the_same_as_the_model(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "mine.keras")
    assert_same(features_of(tmp_path / "mine.keras")(IMAGES), expected_average(model, IMAGES))
    assert features_of(str(tmp_path / "mine.keras"), image_px=None).input_shape[1] == 224


@pytest.mark.parametrize(
    ("values", "pixels"),
    [
        ("none", IMAGES),
        ("tf", IMAGES / 127.5 - 1),
        ("torch", (IMAGES / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("caffe", IMAGES[..., ::-1] - np.array([103.939, 116.779, 123.68])),
        ((0.5, 0.25), (IMAGES / 255 - 0.5) / 0.25),
        (([0.1, 0.2, 0.3], [0.5, 1, 0.5]), (IMAGES / 255 - [0.1, 0.2, 0.3]) / [0.5, 1, 0.5]),
    ],
)
def test_preprocessing(values: Any, pixels: Any) -> None:
    model = small(rescaling=False)
    features = features_of(model, preprocessing=values)
    assert_same(features(IMAGES), expected_average(model, pixels))


def test_preprocessing_that_cannot_be_told_must_be_given() -> None:
    with pytest.raises(ArgumentError, match=r"`preprocessing` must be given.*'torch'"):
        features_of(small(rescaling=False))
    for wrong in ("imagenet", (123.0, 58.0), (0.5, 0), (0.5,), ([0.1, 0.2], 1), 3):
        with pytest.raises(ArgumentError, match="`preprocessing` must be 'none'"):
            features_of(small(), preprocessing=wrong)
    with pytest.raises(ArgumentError, match=r"`preprocessing` must be None for 'mobilenet_0\.25'"):
        features_of("mobilenet_0.25", weights=None, preprocessing="tf")


def test_nested_and_shared_models_are_taken_apart() -> None:
    inner = model_of(layers.Conv2D(3, 3, 1, "same", name="logits"), layers.ReLU())
    sequential = keras.Sequential([layers.Conv2D(4, 3, 2), layers.BatchNormalization()])
    model = randomize(model_of(layers.Rescaling(1 / 255), inner, inner, sequential))
    inner.trainable = False
    features = features_of(model)
    assert_same(features(IMAGES), expected_average(model, IMAGES))
    backbone = features.get_layer("backbone")
    assert not any(hasattr(layer, "layers") for layer in backbone.layers)
    assert features.count_params() == model.count_params()


def test_tokens_give_class_token_and_average_of_patches() -> None:
    def make() -> Any:
        image = keras.Input((32, 32, 3))
        patches = layers.Reshape((16, 4))(layers.Conv2D(4, 8, 8)(image))
        token = layers.Reshape((1, 4))(layers.Dense(4)(layers.GlobalAveragePooling2D()(image)))
        return keras.Model(image, layers.Concatenate(axis=1)([token, patches]))

    model = randomize(materialize(make))
    tokens = np.asarray(model(IMAGES / np.float32(255)))
    expected = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=1)
    assert_same(features_of(model, preprocessing=(0, 1))(IMAGES), expected)


def test_classification_head_is_cut_only_if_it_is_one() -> None:
    average = [layers.Rescaling(1 / 255), layers.Conv2D(5, 3), layers.GlobalAveragePooling2D()]
    heads = {
        "softmax": [layers.Dense(7, activation="softmax")],
        "separate": [layers.Dense(7), layers.Softmax()],
        "embedding": [layers.Dense(7)],
    }
    n_features = {
        name: features_of(model_of(*average, *head, size=32)).output_shape[1]
        for name, head in heads.items()
    }
    assert n_features == {"softmax": 5, "separate": 5, "embedding": 7}


def test_operations_that_are_not_layers_are_copied_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, 8)(image)
    model = keras.Model(image, x + keras.ops.sigmoid(x))
    built = backbones.build(model, preprocessing="none", image_px=32)
    assert caplog.messages == []
    expected = np.mean(model.predict_on_batch(IMAGES), axis=(1, 2))
    np.testing.assert_allclose(built.predict_on_batch(IMAGES), expected, rtol=1e-5)


def test_dictionary_gives_the_smallest_feature_maps() -> None:
    def make() -> Any:
        image = keras.Input((32, 32, 3))
        p2 = layers.Conv2D(4, 3, 4)(layers.Rescaling(1 / 255)(image))
        outputs = {"P3": layers.Conv2D(6, 3, 2)(p2), "P2": p2, "vector": layers.Flatten()(p2)}
        return keras.Model(image, outputs)

    assert features_of(materialize(make)).output_shape == (None, 6)


def test_custom_layer_and_subclassed_model() -> None:
    model = randomize(model_of(layers.Rescaling(1 / 255), Scale(2.0), Subclassed(5)))
    features = features_of(model)
    assert_same(features(IMAGES), expected_average(model, IMAGES))
    alone = Subclassed(3)
    randomize(alone(np.zeros((1, 32, 32, 3), np.float32)) is not None and alone)
    assert_same(features_of(alone, preprocessing="none")(IMAGES), expected_average(alone, IMAGES))


def test_subclassed_model_that_was_never_called(caplog: pytest.LogCaptureFixture) -> None:
    model = Subclassed(3)
    assert features_of(model, preprocessing="none").output_shape == (None, 3)
    assert "its weights are random" in caplog.text
    assert not model.built


def test_layers_of_any_precision_compute_in_the_requested_one() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small()
    finally:
        keras.config.set_dtype_policy(before)
    assert features_of(model).get_layer("backbone").compute_dtype == "float32"
    assert features_of(model, precision="mixed_bfloat16").output.dtype == "bfloat16"


def test_batchnorm_keeps_its_statistics_also_inside_custom_layers() -> None:
    features = features_of(model_of(layers.Rescaling(1 / 255), Subclassed(4)))
    before = features.get_weights()
    features(IMAGES, training=True)
    for old, new in zip(before, features.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def two_inputs() -> Any:
    a, b = keras.Input((32, 32, 3), name="a"), keras.Input((4,), name="b")
    x = layers.GlobalAveragePooling2D()(a)
    return keras.Model([a, b], layers.Concatenate()([x, b]))


def with_nan() -> Any:
    model = small()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_inputs, "2 inputs: a, b"),
        (
            lambda: keras.Sequential(
                [keras.Input((3, 32, 32)), layers.GlobalAveragePooling2D("channels_first")]
            ),
            "channels_first",
        ),
        (lambda: keras.Sequential([keras.Input((32, 32, 1)), layers.Flatten()]), "input shape"),
        (with_nan, "NaN or infinity"),
        (lambda: model_of(layers.Reshape((16, 16, 4, 3)), size=32), "outputs of shape"),
        (lambda: 3, r"a keras\.Model"),
        (lambda: model_of(layers.Flatten(), layers.Dense(3), size=16), "the `image_px`"),
    ],
)
def test_unusable_networks_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        features_of(make(), preprocessing="none")


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PathMissingError, match="no file or folder"):
        features_of(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("text")
    with pytest.raises(WeightsFileError, match=r"`model\.save` wrote"):
        features_of(tmp_path / "text.keras")
    with pytest.raises(ArgumentError, match=r"the keras\.Model itself"):
        features_of("model:functional")


class Positions(layers.Layer):
    """Adds an embedding of its position to each token."""

    def build(self, shape: Any) -> None:
        self.embedding = self.add_weight(shape=(1, *shape[1:]))

    def call(self, x: Any) -> Any:
        return x + self.embedding


class Mixing(layers.Layer):
    """Mixes tokens, with a weight for each two of them."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(1, shape[1], shape[1]))

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(self.kernel, x)


def tokens_network(layer: Any) -> Any:
    """A class token and 16 patches of an image of 32 pixels, with 4 channels, through a layer."""

    def make() -> Any:
        image = keras.Input((32, 32, 3))
        patches = layers.Reshape((-1, 4))(layers.Conv2D(4, 8, 8)(image))
        token = layers.Dense(4)(layers.GlobalAveragePooling1D(keepdims=True)(patches))
        return keras.Model(image, layer(layers.Concatenate(axis=1)([token, patches])))

    return materialize(make)


def test_position_embeddings_are_interpolated() -> None:
    layer = Positions(name="positions")
    model = tokens_network(layer)
    ramp = np.linspace(0, 1, 4)[None, :, None] * np.ones((4, 1, 4))
    layer.embedding.assign(np.concatenate([np.full((1, 1, 4), 5.0), ramp.reshape(1, 16, 4)], 1))
    backbone = features_of(model, preprocessing="none", image_px=64).get_layer("backbone")
    resized = np.asarray(backbone.get_layer("positions").embedding)
    assert resized.shape == (1, 65, 4)
    assert (resized[0, 0] == 5).all()
    assert np.diff(resized[0, 1:].reshape(8, 8, 4), axis=1).min() > 0
    np.testing.assert_allclose(resized[0, 1:].mean(), 0.5, atol=1e-6)


def test_weights_that_depend_on_the_image_size_otherwise_are_refused() -> None:
    model = tokens_network(Mixing())
    with pytest.raises(ArgumentError, match=r"\(1, 17, 17\) where \(1, 65, 65\) is expected"):
        features_of(model, preprocessing="none", image_px=64)


def test_kernel_after_flatten_is_no_position_embedding() -> None:
    model = model_of(
        layers.Rescaling(1 / 255), layers.MaxPooling2D(4), layers.Conv2D(4, 1), layers.Flatten(),
        layers.Dense(4), size=32,
    )  # fmt: skip
    with pytest.raises(ArgumentError, match=r"\(256, 4\) where \(1024, 4\) is expected"):
        features_of(model, image_px=64)


def test_rescaling_of_values_from_0_to_1_does_not_tell_the_preprocessing() -> None:
    model = model_of(layers.Rescaling(2.0, offset=-1.0), layers.Conv2D(4, 3, 4), size=32)
    with pytest.raises(ArgumentError, match="`preprocessing` must be given"):
        features_of(model)
    expected = expected_average(model, IMAGES / 255)
    assert_same(features_of(model, preprocessing=(0, 1))(IMAGES), expected)
    for known in (
        layers.Rescaling(1.0, offset=[-123.7, -116.8, -103.9]),
        layers.Rescaling(1 / 127.5, offset=-1),
    ):
        model = model_of(known, layers.Conv2D(4, 3, 4), size=32)
        assert_same(features_of(model)(IMAGES), expected_average(model, IMAGES))
    built = backbones.build(small(rescaling=False), preprocessing="none", image_px=32)
    assert features_of(built).output_shape == built.output_shape


@pytest.mark.parametrize(
    ("mean", "variance", "is_told"),
    [(120.0, 3000.0, True), (120.0, 1.0, True), (0.5, 0.05, False), (0.0, 1.0, False)],
)
def test_normalization_tells_the_preprocessing_if_its_values_are_bytes(
    mean: float, variance: float, is_told: bool
) -> None:
    first = layers.Normalization(mean=[mean] * 3, variance=[variance] * 3)
    model = model_of(first, layers.Conv2D(4, 3, 4), size=32)
    if is_told:
        assert features_of(model).output_shape == (None, 4)
        return
    with pytest.raises(ArgumentError, match="`preprocessing` must be given"):
        features_of(model)


def test_weights_of_another_network_are_refused(scenes: Path) -> None:
    splits = sl.split(sl.scan(scenes))
    with pytest.raises(ArgumentError, match="`weights` must be left out"):
        sl.fit(splits, backbone=small(), weights="scenelearn")


@pytest.mark.slow
def test_fit_with_a_subclassed_model_whose_weights_depend_on_the_size(scenes: Path) -> None:
    class Transformer(keras.Model):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.patches = layers.Conv2D(8, 32, 32)
            self.tokens, self.norm = layers.Reshape((-1, 8)), layers.LayerNormalization()

        def build(self, shape: Any) -> None:
            n = (shape[1] // 32) * (shape[2] // 32)
            self.positions = self.add_weight(shape=(1, n, 8), name="position_embedding")

        def call(self, x: Any) -> Any:
            return self.norm(self.tokens(self.patches(x)) + self.positions)

    splits = sl.split(sl.scan(scenes))
    fit = sl.fit(splits, backbone=Transformer(), preprocessing="tf", image_px=224, epochs=1)
    assert fit.settings.train_px == fit.settings.image_px == 224


@pytest.mark.slow
def test_slices_and_constants_in_a_graph_are_saved(scenes: Path, tmp_path: Path) -> None:
    image = keras.Input((32, 32, 3))
    x = image[..., ::-1] - np.array([103.9, 116.8, 123.7], np.float32)
    tokens = layers.Reshape((16, 8))(layers.Conv2D(8, 8, 8)(x))
    model = keras.Model(image, keras.ops.concatenate([tokens[:, 0], tokens[:, 1]], axis=-1))
    splits = sl.split(sl.scan(scenes))
    fit = sl.fit(splits, backbone=model, preprocessing="none", image_px=32, epochs=1)
    loaded = sl.load(fit.save(tmp_path / "scenes.keras"))
    ours, theirs = (c.predict_proba(IMAGES) for c in (fit.classifier, loaded))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_preprocessing_is_refused_for_a_network_that_is_known(scenes: Path) -> None:
    splits = sl.split(sl.scan(scenes))
    for run in (sl.fit, sl.finetune.plan):
        with pytest.raises(ArgumentError, match=r"`preprocessing` must be None for 'mobilenet_0"):
            run(splits, backbone="mobilenet_0.25", weights=None, preprocessing="torch")


@pytest.mark.slow
def test_fit_save_and_load(scenes: Path, tmp_path: Path) -> None:
    splits = sl.split(sl.scan(scenes))
    image = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for width in (8, 16):
        x = layers.Conv2D(width, 3, 4, "same", use_bias=False, kernel_regularizer="l2")(x)
        x = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(x)))
    model = keras.Model(image, Scale()(x))
    fit = sl.fit(splits, backbone=model, image_px=32, epochs=1)
    assert fit.settings.backbone == f"model:{model.name}"
    assert fit.settings.weights == "own"
    file = fit.save(tmp_path / "scenes.keras")
    with pytest.raises(sl.errors.BundleError, match=r"custom_objects={'Scale': …}"):
        sl.load(file)
    with pytest.raises(ArgumentError, match="must map names to classes"):
        sl.load(file, custom_objects=[Scale])  # type: ignore[arg-type]
    loaded = sl.load(file, custom_objects={"Scale": Scale})
    ours, theirs = (c.predict_proba(IMAGES) for c in (fit.classifier, loaded))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert loaded.explain(IMAGES[0]).heatmap.shape == (32, 32)
    repeated = sl.finetune.repeat(fit.to_json(), scenes, backbone=model)
    np.testing.assert_array_equal(repeated.test_probabilities, fit.test_probabilities)
    with pytest.raises(ArgumentError, match=r"the keras\.Model itself"):
        sl.finetune.repeat(fit.to_json(), scenes)


def test_lambda_is_refused_before_anything_is_trained(scenes: Path) -> None:
    model = model_of(layers.Rescaling(1 / 255), layers.Lambda(lambda x: x), layers.Conv2D(3, 3))
    with pytest.raises(ArgumentError, match="Lambda"):
        sl.fit(sl.split(sl.scan(scenes)), backbone=model, image_px=32)


def test_tokens_are_explained_on_the_grid_of_patches() -> None:
    network = attention_network()
    classifier, head = classifier_of(network)
    column = np.random.default_rng(1).normal(size=(8, 1)).astype(np.float32)
    kernel = np.concatenate([column, -column], axis=1)
    head.kernel.assign(kernel)
    tokens = np.asarray(network.predict_on_batch(IMAGES[:1].astype(np.float32)))[0]
    # The gradient of the logit is the kernel's column, divided by the number of patches.
    label = int((tokens @ kernel).max(0).argmax())
    evidence = np.maximum(tokens @ kernel[:, label], 0).reshape(4, 4)
    heatmap = classifier.explain(IMAGES[0], label="ab"[label]).heatmap
    assert heatmap.shape == (32, 32)
    row, column_of_patch = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert 4 * (row // 8) + column_of_patch // 8 == evidence.argmax()
    np.testing.assert_allclose(heatmap.max(), 1, atol=0.1)


def test_averages_of_two_feature_maps_are_explained_together() -> None:
    image = keras.Input((32, 32, 3))
    first = layers.Conv2D(4, 3, 4, padding="same", activation="relu")(image)
    second = layers.Conv2D(5, 3, 2, padding="same", activation="relu")(first)
    average = layers.GlobalAveragePooling2D
    features = layers.Concatenate()([average()(second), average()(first)])
    network = randomize(keras.Model(image, features))
    classifier, head = classifier_of(network, preprocessing="none")
    for feature_map, column in ((second, 2), (first, 5 + 3)):
        kernel = np.zeros((9, 2), np.float32)
        kernel[column, 0] = 1
        head.kernel.assign(kernel)
        values = keras.Model(image, feature_map).predict_on_batch(IMAGES[:1].astype(np.float32))
        channel = np.asarray(values)[0, :, :, column % 5]
        expected = Image.fromarray(channel / channel.max()).resize(
            (32, 32), Image.Resampling.BILINEAR
        )
        heatmap = classifier.explain(IMAGES[0], label="a").heatmap
        np.testing.assert_allclose(heatmap / heatmap.max(), expected / np.max(expected), atol=1e-4)


def test_features_that_pass_by_the_last_feature_map_have_no_explanation() -> None:
    image = keras.Input((32, 32, 3))
    first = layers.Conv2D(4, 3, 4)(image)
    second = layers.Conv2D(4, 3, 2)(first)
    average = layers.GlobalAveragePooling2D
    network = keras.Model(image, average()(second) + average()(first))
    classifier, _ = classifier_of(network, preprocessing="none")
    with pytest.raises(ArgumentError, match="other features, too"):
        classifier.explain(IMAGES[0])


def test_vector_has_no_explanation_and_its_features_detect_ood() -> None:
    vector = model_of(
        layers.Rescaling(1 / 255), layers.AveragePooling2D(8), layers.Flatten(), size=32
    )
    classifier, _ = classifier_of(vector)
    assert classifier.predict_proba(IMAGES).shape == (3, 2)
    with pytest.raises(ArgumentError, match="gives a vector only"):
        classifier.explain(IMAGES[0])


def test_random_weights_train_all_layers_of_a_frozen_network() -> None:
    network = model_of(layers.Conv2D(4, 3, 4), layers.BatchNormalization(), size=32)
    network.trainable = False
    own = load_if_own(network, "none")
    settings = FitSettings(backbone=own.name, weights=None, image_px=32)
    features = build_features(settings, own)
    assert len(features.trainable_weights) == 4
    assert not network.trainable_weights  # the user's own stays as it is


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("tf", "tf"),
        ("0.5,0.25", (0.5, 0.25)),
        (".1,.2,.3,1,1,1", ([0.1, 0.2, 0.3], [1, 1, 1])),
    ],
)
def test_preprocessing_on_the_command_line(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: Any
) -> None:
    given: dict[str, Any] = {}

    def fit(_: Any, **settings: Any) -> Any:
        given.update(settings)
        raise ArgumentError("no fit")

    monkeypatch.setattr("scenelearn.fit", fit)
    command = ["fit", str(scenes), "--backbone", "mine.keras", "--preprocessing", text]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert given["preprocessing"] == value


@pytest.mark.slow
def test_fit_on_the_command_line(scenes: Path, tmp_path: Path) -> None:
    small(rescaling=False).save(tmp_path / "mine.keras")
    command = ["fit", str(scenes), "--backbone", str(tmp_path / "mine.keras")]
    more = ["--image-px", "32", "--epochs", "0", "--out", str(tmp_path / "out")]
    assert main([*command, *more]) == 2  # the preprocessing is missing
    assert main([*command, *more, "--preprocessing", "0.5,0.5"]) == 0
    assert sl.load(tmp_path / "out" / "scenes.keras").metadata["backbone"] == "mine.keras"


def classifier_with(layer: Any) -> sl.classify.Classifier:
    """A classifier with a layer of one's own, and random weights."""
    network = model_of(layers.Rescaling(1 / 255), layers.Conv2D(4, 3, 8), layer)
    classifier: sl.classify.Classifier = classifier_of(network, preprocessing="none")[0]
    return classifier


def test_layer_that_cannot_be_imported_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(Scale):
        pass

    require_no_packages_for_export(monkeypatch)
    with pytest.raises(ExportError, match=r"defined in a module.*<locals>\.Local"):
        classifier_with(Local()).export(tmp_path / "scenes.onnx", check=IMAGES)


@pytest.mark.slow
def test_layer_of_ones_own_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    result = classifier_with(Scale(0.5)).export(tmp_path / "scenes", check=IMAGES)
    assert result.max_difference < 1e-4


def test_own_network_keeps_the_rectangle_that_it_was_built_for() -> None:
    image = keras.Input((32, 48, 3))
    maps = layers.Conv2D(4, 3, strides=4)(image)
    own = keras.Model(image, maps)
    assert backbones.build(own, preprocessing="none").input_shape == (None, 32, 48, 3)
    other = features_of(own, preprocessing="none", image_px=(16, 24))
    assert other.input_shape == (None, 16, 24, 3)


def test_tokens_of_a_rectangle_are_refused() -> None:
    image = keras.Input((32, 48, 3))
    tokens = layers.Reshape((24, 5))(layers.Conv2D(5, 8, strides=8)(image))
    with pytest.raises(ArgumentError, match=r"one number for a transformer.*\(32, 48\)"):
        features_of(keras.Model(image, tokens), preprocessing="none", image_px=(32, 48))
