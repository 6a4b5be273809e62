"""Names, preprocessing and weights of the backbones, compared with Keras."""

from __future__ import annotations

import functools
import inspect
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scenelearn import backbones
from scenelearn.errors import (
    ArgumentError,
    PathMissingError,
    UnknownBackboneError,
    WeightsFileError,
    WeightsUnavailableError,
)
from tests.helpers.networks import keras

SMALL = "mobilenet_0.25"
FUNCTIONS = [n for n, f in vars(keras().applications).items() if n[0].isupper() and callable(f)]


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)


def canonical_name(name: Any) -> str:
    """The name in settings and bundles, as an error of `build` says it."""
    with pytest.raises(ArgumentError, match="`preprocessing` must be None for") as raised:
        backbones.build(name, preprocessing="tf")
    return str(raised.value).split("'")[1]


def record_builds(patch: pytest.MonkeyPatch, function: str) -> list[float | None]:
    """Let a function of keras.applications build a network without layers; record its widths."""
    k = keras()
    build, widths = getattr(k.applications, function), list[float | None]()

    @functools.wraps(build)
    def replacement(*_: Any, input_shape: Any, alpha: float | None = None, **__: Any) -> Any:
        widths.append(alpha)
        image = k.Input(input_shape)
        return k.Model(image, k.layers.GlobalAveragePooling2D()(image))

    patch.setattr(k.applications, function, replacement)
    return widths


def test_every_network_of_keras_has_a_name() -> None:
    assert len(backbones.names()) == len(FUNCTIONS) + 1 >= 39  # and scenelearn_tiny
    for name in backbones.names():
        assert canonical_name(name) == name


@pytest.mark.parametrize(
    ("name", "function", "width"),
    [
        ("mobilenet_v2_0.35", "MobileNetV2", 0.35),
        ("MobileNetV2", "MobileNetV2", None),
        ("mobilenet_v2_1.0", "MobileNetV2", 1.0),
        ("mobilenet_v2_1.4", "MobileNetV2", 1.4),
        ("mobilenet-v3-small", "MobileNetV3Small", None),
        ("mobilenet_v1_0.25", "MobileNet", 0.25),
        ("efficientnet_b0", "EfficientNetB0", None),
        ("EfficientNetV2B0", "EfficientNetV2B0", None),
        ("resnet50_v2", "ResNet50V2", None),
        ("convnext_tiny", "ConvNeXtTiny", None),
        ("nasnet_mobile", "NASNetMobile", None),
        ("densenet121", "DenseNet121", None),
    ],
)
def test_names_and_widths_of_networks(
    monkeypatch: pytest.MonkeyPatch, name: str, function: str, width: float | None
) -> None:
    widths = record_builds(monkeypatch, function)
    backbones.build(name, weights=None, image_px=32)
    backbones.build(canonical_name(name), weights=None, image_px=32)
    first, again = widths
    assert first == width
    assert (again or 1.0) == (width or 1.0)


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("imagenet", "mobilenet_v3_small"),
        (None, "mobilenet_v3_small"),
        ("scenelearn", "scenelearn_tiny"),
        ("imagnet", "mobilenet_v3_small"),  # no such file: `build` raises the error
        # as Keras names its files
        ("mobilenet_1_0_224_tf_no_top.h5", "mobilenet"),
        ("mobilenet_2_5_128_tf_no_top.h5", "mobilenet_0.25"),
        (
            "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.4_224_no_top.h5",
            "mobilenet_v2_1.4",
        ),
        ("weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5", "mobilenet_v3_large_0.75"),
        ("weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "mobilenet_v3_small"),
        ("efficientnetb0_notop.h5", "efficientnet_b0"),
        ("efficientnetv2-b0_notop.h5", "efficientnet_v2_b0"),
        ("efficientnetv2-s_notop.h5", "efficientnet_v2_s"),
        ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "resnet50"),
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "resnet50_v2"),
        ("inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "inception_resnet_v2"),
        ("nasnet_mobile_no_top.h5", "nasnet_mobile"),
        # as users name them
        (Path("weights", "mobilenet_v2_0.35.h5"), "mobilenet_v2_0.35"),
        ("weights of resnet50/MobileNetV1-0.5_notop.h5", "mobilenet_0.5"),
        ("mobilenet_v2_alpha0.35_scenelearn_1.0.2.h5", "mobilenet_v2_0.35"),
        ("se_resnet50.h5", "resnet50"),  # loading raises the error
        ("resnet50_scenes_0.91.h5", "resnet50"),  # it has no widths
        ("ScenelearnTiny.h5", "scenelearn_tiny"),
    ],
)
def test_default_for(weights: str | Path | None, name: str) -> None:
    assert backbones.default_for(weights) == name


@pytest.mark.parametrize(
    "name",
    [
        "best.h5",
        "mobilenet_v3_notop.h5",  # small or large?
        "seresnet50.h5",  # another family
        "mobilenet_v2_acc0.93.h5",  # no width
        "mobilenet_v2_0.35_loss_0.25.h5",  # which?
        "vgg160.h5",
        "mobilenet_v2_0.0.h5",
    ],
)
def test_default_for_ambiguous_file_names(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.touch()
    with pytest.raises(ArgumentError, match=rf"name .* does not contain it.*{name}.*backbone="):
        backbones.default_for(file)
    with pytest.raises(PathMissingError, match="imagnet"):
        backbones.build(backbones.default_for("imagnet"), weights="imagnet")


def test_unknown_name_suggests_similar_ones() -> None:
    with pytest.raises(UnknownBackboneError, match=r"'resnet5'.*Did you mean.*'resnet50'"):
        backbones.build("resnet5")


@pytest.mark.parametrize("name", ["", "mobilenet_v9", None])
def test_invalid_names_are_unknown(name: Any) -> None:
    with pytest.raises(UnknownBackboneError, match="must be a network of keras"):
        backbones.build(name)


def test_width_of_a_network_without_widths() -> None:
    with pytest.raises(UnknownBackboneError, match=r"'resnet50' does not exist in width 0\.5"):
        backbones.build("resnet50_0.5")


@pytest.mark.parametrize("name", backbones.names())
def test_preprocessing_equals_preprocess_input(
    monkeypatch: pytest.MonkeyPatch, name: str, pixels: npt.NDArray[np.uint8]
) -> None:
    k = keras()
    if name == "scenelearn_tiny":
        preprocess = k.applications.mobilenet_v2.preprocess_input
    else:
        (function,) = (f for f in FUNCTIONS if f.lower() == name.replace("_", ""))
        preprocess = inspect.getmodule(getattr(k.applications, function)).preprocess_input
        record_builds(monkeypatch, function)
    features = backbones.build(name, weights=None, image_px=32)
    position = features.layers.index(features.get_layer("backbone"))
    prepared = k.Model(features.input, features.layers[position - 1].output)
    expected = np.asarray(preprocess(pixels.astype(np.float32)))
    np.testing.assert_allclose(np.asarray(prepared(pixels)), expected, atol=2e-4)


@pytest.mark.slow
def test_features_are_those_of_keras(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    k = keras()
    k.utils.set_random_seed(3)
    theirs = k.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    path = tmp_path / "mobilenet.weights.h5"
    theirs.save_weights(path)
    ours = backbones.fast_on_cpu(backbones.build(SMALL, weights=path, image_px=32))
    prepared = k.applications.mobilenet.preprocess_input(pixels.astype(np.float32))
    expected = theirs.predict_on_batch(prepared)
    np.testing.assert_allclose(ours.predict_on_batch(pixels), expected, atol=1e-5)


def test_random_weights_follow_the_seed_and_the_initializers() -> None:
    a, b, c = (backbones.build(SMALL, weights=None, image_px=32, seed=s) for s in (1, 1, 2))
    pairs = list(zip(a.get_weights(), b.get_weights(), strict=True))
    assert all((u == v).all() for u, v in pairs)
    kernels = [v for v in a.trainable_variables if v.path.endswith("conv_pw_13/kernel")]
    others = [v for v in c.trainable_variables if v.path.endswith("conv_pw_13/kernel")]
    kernel = np.asarray(kernels[0])
    assert not (kernel == np.asarray(others[0])).all()
    limit = np.sqrt(6 / (kernel.shape[2] + kernel.shape[3]))  # Glorot and Bengio 2010, eq. 16
    assert limit * 0.99 < np.abs(kernel).max() <= limit
    for variable in a.variables:
        name = variable.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            assert (np.asarray(variable) == 1).all()
        if name in ("beta", "moving_mean"):
            assert (np.asarray(variable) == 0).all()


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal"])
def test_initial_values_have_the_spread_that_keras_gives(mode: str, distribution: str) -> None:
    k = keras()
    initializer = k.initializers.VarianceScaling(2.0, mode, distribution, seed=1)

    class Network(k.Model):  # type: ignore[misc, name-defined]
        """A model that was never called, and has no weights yet."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.first = k.layers.Conv2D(32, 1)
            self.second = k.layers.Conv2D(64, 3, kernel_initializer=initializer, use_bias=False)

        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

        def get_config(self) -> dict[str, Any]:
            return {}

    features = backbones.build(Network(), preprocessing="none", image_px=8, seed=5)
    (ours,) = (np.asarray(v) for v in features.weights if tuple(v.shape) == (3, 3, 32, 64))
    theirs = np.asarray(initializer((3, 3, 32, 64)))
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=0.2)


def test_models_built_afterwards_are_initialized_as_usual() -> None:
    backbones.build(SMALL, weights=None, image_px=32)
    dense = keras().layers.Dense(2)
    assert tuple(dense(np.ones((1, 3), np.float32)).shape) == (1, 2)


@pytest.mark.slow
def test_statistics_stay_and_scales_train_with_stored_weights(
    tmp_path: Path, pixels: npt.NDArray[np.uint8]
) -> None:
    k = keras()
    path = tmp_path / "w.weights.h5"
    backbones.build(SMALL, weights=None, image_px=32).get_layer("backbone").save_weights(path)
    features = backbones.build(SMALL, weights=path, image_px=32)
    model = k.Sequential([features, k.layers.Dense(2)])
    model.compile("adam", "mse")
    before = {v.path: np.array(v) for v in features.variables}
    far = np.full((4, 2), 1e8, np.float32)  # random features are tiny, and so are gradients
    model.train_on_batch(pixels, far)
    for variable in features.variables:
        same = (np.array(variable) == before[variable.path]).all()
        if "moving_" in variable.path:
            assert same, variable.path
    last_scale = next(v for v in features.variables if v.path.endswith("conv_pw_13_bn/gamma"))
    assert not (np.array(last_scale) == before[last_scale.path]).all()


@pytest.mark.slow
def test_statistics_stay_in_fit_of_a_model_around_the_network() -> None:
    """Keras' guide relies on `training=False`, which a functional model overrides in `fit`."""
    layers = keras().layers

    def moves(*, freeze: bool) -> bool:
        image = keras().Input((4,))
        base = keras().Model(image, layers.BatchNormalization()(image))
        if freeze:
            backbones.freeze_batchnorm(base)
        outer = keras().Input((4,))
        model = keras().Model(outer, layers.Dense(1)(base(outer, training=False)))
        model.compile("sgd", "mse")
        model.fit(np.full((8, 4), 5.0), np.zeros((8, 1)), verbose=0)
        return not np.array_equal(base.get_weights()[2], np.zeros(4))  # the moving mean

    assert moves(freeze=False), "say so in docs/how-to/migrate.md and in freeze_batchnorm"
    assert not moves(freeze=True)


def test_weights_file_that_is_not_there() -> None:
    with pytest.raises(PathMissingError, match=r"weights='nowhere\.h5', where there is no file"):
        backbones.build(SMALL, weights="nowhere.h5", image_px=32)


def test_weights_file_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    keras().Sequential([keras().Input((3,)), keras().layers.Dense(2)]).save_weights(path)
    with pytest.raises(
        WeightsFileError, match=r"other\.weights\.h5.*does not match 'mobilenet_0\.25'"
    ):
        backbones.build(SMALL, weights=path, image_px=32)


def test_damaged_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n nonsense")
    with pytest.raises(WeightsFileError, match=r"broken\.h5.*does not match"):
        backbones.build(SMALL, weights=path, image_px=32)


def test_weights_of_a_wrong_type() -> None:
    with pytest.raises(
        ArgumentError, match=r"`weights` must be a path\. .*'imagenet', 'scenelearn', the path"
    ):
        backbones.build(SMALL, weights=3, image_px=32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "said"),  # as Keras raises them
    [
        (Exception("URL fetch failure on …: None -- no route to host"), "no route to host"),
        (ValueError("Incomplete or corrupted file detected."), "corrupted"),
    ],
)
def test_failed_download_explains_how_to_pass_a_file(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", refuse)
    with pytest.raises(WeightsUnavailableError, match=rf"{said}.*weights='path/to/file"):
        backbones.build(SMALL, weights="imagenet", image_px=128)


@pytest.mark.slow
def test_efficientnet_from_a_file_equals_the_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pixels: npt.NDArray[np.uint8]
) -> None:
    path = tmp_path / "efficientnetb0.weights.h5"
    random = backbones.build("efficientnet_b0", weights=None, image_px=32)
    random.get_layer("backbone").save_weights(path)
    from_file = backbones.build("efficientnet_b0", weights=path, image_px=32)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
    downloaded = backbones.build("efficientnet_b0", weights="imagenet", image_px=32)

    def layers(model: Any) -> list[str]:
        return [type(layer).__name__ for layer in model.get_layer("backbone").layers]

    assert layers(from_file) == layers(downloaded)
    assert layers(from_file) != layers(random)  # Keras omits one without "imagenet"


def test_efficientnet_file_that_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "other.weights.h5"
    keras().Sequential([keras().Input((3,)), keras().layers.Dense(2)]).save_weights(path)
    with pytest.raises(WeightsFileError, match=r"does not match 'efficientnet_b0'"):
        backbones.build("efficientnet_b0", weights=path, image_px=32)


def test_dropout_inside_a_backbone_follows_the_seed() -> None:
    def states(seed: int) -> list[list[int]]:
        model = backbones.build("efficientnet_b0", weights=None, image_px=32, seed=seed)
        seeds = [v for v in model.variables if v.path.endswith("seed_generator_state")]
        return [np.asarray(v).tolist() for v in seeds]

    assert states(1)
    assert states(1) == states(1) != states(2)


def test_downloaded_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pixels: npt.NDArray[np.uint8]
) -> None:
    stored = backbones.build(SMALL, weights=None, image_px=32, seed=9)
    path = tmp_path / "download.weights.h5"
    stored.get_layer("backbone").save_weights(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))
    model = backbones.build(SMALL, weights="imagenet", image_px=32)
    np.testing.assert_allclose(
        model.predict_on_batch(pixels), stored.predict_on_batch(pixels), atol=1e-6
    )


def test_download_reports_its_progress(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def urlretrieve(_origin: str, _target: str, reporthook: Any) -> None:
        for n_blocks in range(3):
            reporthook(n_blocks, 8, 16)
        raise urllib.error.URLError("connection lost")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", urlretrieve)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    reports = []
    with pytest.raises(WeightsUnavailableError, match="connection lost"):
        backbones.build(
            SMALL, weights="imagenet", image_px=128, progress=lambda *report: reports.append(report)
        )
    assert reports == [("downloading weights", done, 16) for done in (0, 8, 16)]
    assert not capsys.readouterr().out


def test_width_without_pretrained_weights() -> None:
    with pytest.raises(ArgumentError, match=r"Keras cannot build 'mobilenet_v2_0\.33'"):
        backbones.build("mobilenet_v2_0.33", weights="imagenet", image_px=96)


@pytest.mark.parametrize(
    ("name", "n_features"),
    [("efficientnet_v2_b0", 1280), ("convnext_tiny", 768), ("scenelearn_tiny", 768)],
)
def test_networks_that_depend_on_their_name(name: str, n_features: int) -> None:
    """Some functions of Keras infer what to build from the name that they are passed."""
    model = backbones.build(name, weights=None, image_px=64)
    assert model.get_layer("backbone").output.shape[1] == model.output_shape[1] == n_features


def test_image_size_that_the_network_does_not_support() -> None:
    with pytest.raises(ArgumentError, match=r"Keras cannot build 'xception'.*image_px=32"):
        backbones.build("xception", weights=None, image_px=32)


@pytest.mark.intel
def test_real_weights_give_the_features_of_keras(weights: Path) -> None:
    k = keras()
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3)).astype(np.uint8)
    for name, file, function, width in (
        ("mobilenet_0.25", "mobilenet_v1_0.25_224_notop.h5", "MobileNet", 0.25),
        ("mobilenet_v2_0.35", "mobilenet_v2_0.35_224_notop.h5", "MobileNetV2", 0.35),
        ("mobilenet_v3_small", "mobilenet_v3_small_1.0_224_deq8_notop.h5", "MobileNetV3Small", 1.0),
    ):
        theirs = getattr(k.applications, function)(
            alpha=width, include_top=False, weights=str(weights / file),
            input_shape=(96, 96, 3), pooling="avg",
        )  # fmt: skip
        module = inspect.getmodule(getattr(k.applications, function))
        x = module.preprocess_input(images.astype(np.float32))  # type: ignore[union-attr]
        ours = backbones.fast_on_cpu(backbones.build(name, weights=weights / file, image_px=96))
        expected = theirs.predict_on_batch(x)
        np.testing.assert_allclose(ours.predict_on_batch(images), expected, atol=1e-4, err_msg=name)


# Licenses


def test_every_network_of_keras_has_a_license() -> None:
    licenses = {name: backbones.weights_license(name, "imagenet") for name in backbones.names()}
    assert [name for name, words in licenses.items() if words == "not known"] == ["scenelearn_tiny"]


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        ("resnet50", "imagenet", "MIT (K. He)"),
        ("resnet101_v2", "imagenet", "BSD (Facebook)"),
        ("mobilenet_0.25", "imagenet", "Apache-2.0 (Google)"),
        (
            "vgg16",
            "a/file.h5",
            "that of your weights file; the license of Keras' own weights is Creative",
        ),
        ("vgg16", None, "none: random weights, trained on your photos only"),
    ],
)
def test_license_of_weights(name: str, weights: str | None, words: str) -> None:
    assert backbones.weights_license(name, weights).startswith(words)


def test_rectangles_give_the_same_features_in_the_fast_form() -> None:
    plain, fast = (
        backbones.build("scenelearn_tiny", weights="scenelearn", image_px=(32, 48))
        for _ in range(2)
    )
    assert plain.input_shape == (None, 32, 48, 3)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3)).astype("float32")
    found = backbones.fast_on_cpu(fast).predict_on_batch(images)
    np.testing.assert_allclose(found, plain.predict_on_batch(images), rtol=1e-3, atol=1e-3)
