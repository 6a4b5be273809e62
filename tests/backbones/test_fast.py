"""The fast forms of layers, compared with the layers of Keras, forward and backward."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from scenelearn import backbones
from scenelearn.backbones import _compilation_cache, _fast
from scenelearn.backbones._fast import _convolution, _parallel
from scenelearn.backbones._fast._microbatch import supports_microbatches
from scenelearn.classify._inference import predict_images
from scenelearn.finetune._teacher import distillation_loss
from tests.helpers.marks import nightly, slow
from tests.helpers.networks import build_application, deferred_initialization, keras

SMALL = "mobilenet_0.25"

pytestmark = pytest.mark.skipif(
    keras().backend.backend() != "jax", reason="the fast forms are for JAX"
)


@pytest.fixture(scope="module")
def pixels() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)


def run_backward(model: Any, x: npt.NDArray[Any], training: bool = True) -> list[npt.NDArray[Any]]:
    """Outputs and all gradients, by inputs and weights, of a compiled forward and backward pass."""
    import jax

    k = keras()
    states = [v.value for v in model.non_trainable_variables]

    def loss(weights: Any, x: Any) -> Any:
        outputs, _ = model.stateless_call(weights, states, x, training=training)
        cotangents = np.random.default_rng(7).standard_normal(outputs.shape)
        return (outputs.astype("float32") * cotangents.astype(np.float32)).sum(), outputs

    weights = [v.value for v in model.trainable_variables]
    gradients, outputs = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(weights, x)
    return [
        k.ops.convert_to_numpy(k.ops.cast(a, "float32"))
        for a in (outputs, *jax.tree.leaves(gradients))
    ]


def randomize(model: Any) -> Any:
    rng = np.random.default_rng(1)
    for variable in model.variables:
        shift = 1.0 if variable.path.endswith(("gamma", "moving_variance")) else 0.0
        if "seed" not in variable.path:
            variable.assign(shift + 0.3 * rng.uniform(-1, 1, variable.shape))
    return model


def check(model: Any, x: npt.NDArray[Any], tolerance: float = 2e-5) -> None:
    """The model gives the same outputs and gradients in plain and in fast form."""
    plain = run_backward(model, x)
    fast = run_backward(backbones.fast_on_cpu(model), x)
    backbones.undo_fast(model)
    for a, b in zip(fast, plain, strict=True):
        scale = np.abs(b).max() + 1e-6
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


def of_layers(shape: tuple[int, ...], *layers: Any) -> Any:
    k = keras()
    return randomize(k.Sequential([k.Input(shape), *layers]))


def images(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 1, "same", (9, 12)),
        (3, 1, "valid", (9, 12)),
        (3, 2, "same", (9, 12)),
        (3, 2, "valid", (9, 12)),
        pytest.param(3, 2, "valid", (8, 8), marks=pytest.mark.slow),
        pytest.param(5, 2, "same", (8, 11), marks=pytest.mark.slow),
        pytest.param(2, 3, "same", (7, 10), marks=pytest.mark.slow),
        pytest.param(2, 3, "valid", (7, 10), marks=pytest.mark.slow),
        pytest.param(7, 1, "same", (7, 5), marks=pytest.mark.slow),
        pytest.param(1, 2, "valid", (6, 7), marks=pytest.mark.slow),
        ((3, 5), 1, "same", (8, 9)),
        pytest.param(4, 1, "same", (6, 6), marks=pytest.mark.slow),
        pytest.param(3, 4, "valid", (11, 10), marks=pytest.mark.slow),
    ],
)
def test_depthwise(kernel: Any, stride: int, padding: str, size: tuple[int, int]) -> None:
    layer = keras().layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False)
    check(of_layers((*size, 3), layer), images(2, *size, 3))


LAYERS = [
    lambda k: k.DepthwiseConv2D(3, 2, "same", depth_multiplier=2, activation="relu"),
    lambda k: k.SeparableConv2D(5, 3, 2, "same", activation="tanh"),
    lambda k: k.Conv2D(6, 3, 2, "same"),
    lambda k: k.Conv2D(6, 1, 2, "same", use_bias=False),
    lambda k: k.Conv2D(6, 5, padding="same", activation="relu"),
    lambda k: k.Conv2D(6, (4, 5), 3, "valid"),
    lambda k: k.MaxPooling2D(6, 2, "same"),  # as XLA has it
    lambda k: k.Conv2D(6, 3, padding="same", dilation_rate=2),
    lambda k: k.Conv2D(6, 5, padding="same", groups=2),
    lambda k: k.Conv2D(4, 7, padding="same", groups=4),  # as ConvNeXt has it
    lambda k: k.ReLU(6.0),
    lambda k: k.ReLU(negative_slope=0.1),
    lambda k: k.LayerNormalization(),
]  # fmt: skip
MORE_LAYERS = [
    lambda k: k.DepthwiseConv2D(3, 1, "same", dilation_rate=2),
    lambda k: k.SeparableConv2D(3, 3, 1, "valid", depth_multiplier=2, use_bias=False),
    lambda k: k.Conv2D(7, 1, activation="relu"),
    lambda k: k.Conv2D(2, 1, use_bias=False),
    lambda k: k.Conv2D(6, 3, 2, "valid", activation="sigmoid"),
    lambda k: k.Conv2D(6, 1, (2, 1), "valid"),
    lambda k: k.Conv2D(6, 5, padding="valid"),
    lambda k: k.Conv2D(6, 5, 2, "same", use_bias=False),
    lambda k: k.Conv2D(6, 5, (2, 1), "same"),
    lambda k: k.Conv2D(3, 5, padding="same"),  # fewer channels out than in
    lambda k: k.Conv2D(8, 3, 2, groups=4, activation="gelu"),
    lambda k: k.Conv2D(4, 3, padding="same", dilation_rate=2, groups=4),
    lambda k: k.Activation("relu"),
    lambda k: k.Activation("relu6"),
]  # fmt: skip


@pytest.mark.parametrize("make", slow(*LAYERS) + nightly(*MORE_LAYERS))
def test_other_layers(make: Callable[[Any], Any]) -> None:
    check(of_layers((9, 10, 4), make(keras().layers)), 4 * images(2, 9, 10, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((4, 3), 1, "same", (20, 24)),
        ((4, 3), 1, "valid", (20, 24)),
        (3, 2, "same", (33, 40)),
        ((5, 4), 2, "valid", (36, 41)),
        (7, 3, "same", (50, 49)),
        (4, 3, "valid", (51, 53)),  # the last columns are seen by no output
    ],
)
def test_large_feature_maps_use_the_flipped_kernel(
    kernel: Any, stride: int, padding: str, size: tuple[int, int]
) -> None:
    layer = keras().layers.Conv2D(5, kernel, stride, padding)
    model = of_layers((*size, 8), layer)
    assert np.prod(model.output_shape[1:3]) >= _convolution._MANY_POSITIONS
    check(model, images(2, *size, 8), tolerance=5e-5)


@pytest.mark.slow
def test_convolution_with_disjoint_windows_is_one_product() -> None:
    import jax

    model = backbones.fast_on_cpu(of_layers((32, 32, 3), keras().layers.Conv2D(6, 8, 8)))
    text = jax.jit(model).lower(images(2, 32, 32, 3)).as_text()
    assert text.count("dot_general") == 1
    assert "stablehlo.convolution" not in text
    check(of_layers((33, 34, 3), keras().layers.Conv2D(6, 8, 8, "same")), images(2, 33, 34, 3))


def test_batch_of_unknown_size() -> None:
    import jax

    k = keras()
    layers = [k.layers.Conv2D(60, 9), k.layers.BatchNormalization(), k.layers.MaxPooling2D(1)]
    model = backbones.fast_on_cpu(backbones.freeze_batchnorm(of_layers((9, 10, 4), *layers)))
    (batch,) = jax.export.symbolic_shape("b")
    found = jax.eval_shape(model, jax.ShapeDtypeStruct((batch, 9, 10, 4), np.float32))
    assert found.shape == (batch, 1, 2, 60)


def test_images_that_are_not_floats() -> None:
    import jax

    k = keras()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 10, 4))
    for layer, kind in (
        (k.layers.Conv2D(6, 5), "uint8"),
        (k.layers.MaxPooling2D(3, 2, "same"), "int8"),
        (k.layers.MaxPooling2D(3, 2, "same"), "bool"),
    ):
        model = k.Sequential([k.Input((9, 10, 4), dtype=kind), layer])
        x = (pixels % 2 if kind == "bool" else pixels // 2).astype(kind)
        plain = jax.jit(lambda x, m=model: m(x))(x)
        backbones.fast_on_cpu(model)
        fast = jax.jit(lambda x, m=model: m(x))(x)
        assert fast.dtype == plain.dtype
        np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-3)


def test_a_photo_smaller_than_the_kernel_gives_what_keras_gives() -> None:
    k = keras()
    layers = [k.layers.Conv2D(6, 5), k.layers.GlobalAveragePooling2D()]
    model = of_layers((None, None, 4), *layers)
    try:
        plain = model(images(2, 4, 4, 4))
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error)[:40])):
            backbones.fast_on_cpu(model)(images(2, 4, 4, 4))
    else:  # Keras 3.12: the mean of no values
        np.testing.assert_array_equal(backbones.fast_on_cpu(model)(images(2, 4, 4, 4)), plain)


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [(3, 2, "same"), (2, 2, "valid"), ((2, 3), 1, "same"), (3, 2, "valid"), (2, 3, "valid")],
)
def test_max_pooling(window: Any, stride: int, padding: str) -> None:
    layer = keras().layers.MaxPooling2D(window, stride, padding)
    # Whole numbers: many windows have several largest values, of which one has the gradient.
    check(of_layers((9, 10, 4), layer), np.round(2 * images(2, 9, 10, 4)))
    check(of_layers((9, 10, 4), layer), -5 - images(2, 9, 10, 4) ** 2)  # padding is not the largest


def test_max_pooling_with_different_strides_is_unchanged() -> None:
    layer = keras().layers.MaxPooling2D(2, (2, 1))
    before = layer.call
    backbones.fast_on_cpu(of_layers((9, 10, 4), layer))
    assert layer.call == before


def test_channels_first_is_unchanged() -> None:
    layer = keras().layers.DepthwiseConv2D(3, data_format="channels_first")
    before = layer.call
    backbones.fast_on_cpu(keras().Sequential([keras().Input((4, 9, 10)), layer]))
    assert layer.call == before


@pytest.mark.parametrize(
    ("make", "stored"),
    [
        (lambda k: k.DepthwiseConv2D(3, 1, "same", depth_multiplier=2), "statistics kept"),
        pytest.param(
            lambda k: k.SeparableConv2D(5, 3, use_bias=False),
            "statistics kept",
            marks=pytest.mark.slow,
        ),
        (lambda k: k.Conv2D(7, 1), "statistics kept"),
        pytest.param(
            lambda k: k.Conv2D(2, 1, use_bias=False),
            "statistics kept",
            marks=pytest.mark.slow,
        ),
        (lambda k: k.Conv2D(6, 3, 2, "same", use_bias=False), "statistics kept"),
        pytest.param(
            lambda k: k.Conv2D(6, 5, 2, use_bias=False),
            "statistics kept",
            marks=pytest.mark.slow,
        ),
        (lambda k: k.Conv2D(60, 9), "statistics kept"),  # has more weights than outputs
        (lambda k: k.Conv2D(6, 5, padding="same", groups=2), "statistics kept"),
        pytest.param(
            lambda k: k.Conv2D(8, 3, padding="same", groups=4),
            "statistics kept",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda k: k.Conv2D(6, 1, activation="relu"),
            "statistics kept",
            marks=pytest.mark.slow,
        ),
        (lambda k: k.DepthwiseConv2D(3), "frozen"),
        (lambda k: k.Conv2D(7, 1), "predicting"),
    ],
)
def test_batchnorm_with_moving_statistics(make: Callable[[Any], Any], stored: str) -> None:
    k = keras()
    norm = k.layers.BatchNormalization(scale=stored != "frozen")
    model = of_layers((9, 10, 4), make(k.layers), norm)
    if stored == "statistics kept":
        backbones.freeze_batchnorm(model)
    norm.trainable = stored != "frozen"
    plain = run_backward(model, images(2, 9, 10, 4), training=stored != "predicting")
    backbones.fast_on_cpu(model)
    fast = run_backward(model, images(2, 9, 10, 4), training=stored != "predicting")
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5 * np.abs(b).max())


def test_batchnorm_is_folded_into_the_convolution() -> None:
    import jax

    k = keras()
    model = of_layers((8, 8, 4), k.layers.DepthwiseConv2D(3), k.layers.BatchNormalization())

    def program(training: bool) -> str:
        def call(x: Any) -> Any:
            return model(x, training=training)

        return jax.jit(call).lower(images(2, 8, 8, 4)).as_text()

    backbones.fast_on_cpu(model)
    passes = [program(training).count("tensor<2x6x6x4xf32>") for training in (False, True)]
    assert passes[0] < passes[1]
    backbones.freeze_batchnorm(model)  # in this order too
    assert program(training=True).count("tensor<2x6x6x4xf32>") == passes[0]


@pytest.mark.slow
def test_batch_statistics_are_still_learned() -> None:
    k = keras()
    x = images(8, 8, 8, 4)

    def learned(fast: bool) -> list[npt.NDArray[Any]]:
        layers = [
            k.layers.Conv2D(4, 3),
            k.layers.BatchNormalization(),
            k.layers.ReLU(),
            k.layers.GlobalAveragePooling2D(),
        ]
        model = of_layers((8, 8, 4), *layers)
        if fast:
            backbones.fast_on_cpu(model)
        model.compile("sgd", "mse")
        for _ in range(2):
            model.train_on_batch(x, np.ones((8, 4), np.float32))
        return [np.asarray(a) for a in model.get_weights()]

    for a, b in zip(learned(True), learned(False), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.nightly
def test_half_precision() -> None:
    k, policy = keras(), "mixed_bfloat16"
    layers = [
        k.layers.Conv2D(4, 3, 2, "same", dtype=policy),
        k.layers.BatchNormalization(dtype=policy),
        k.layers.ReLU(6.0, dtype=policy),
        k.layers.DepthwiseConv2D(3, padding="same", dtype=policy),
        k.layers.Conv2D(8, 5, padding="same", dtype=policy),
        k.layers.MaxPooling2D(3, 2, "same", dtype=policy),
        k.layers.Conv2D(6, 3, dtype=policy, padding="same"),
        k.layers.Conv2D(2, 1, dtype=policy),
    ]
    model = backbones.freeze_batchnorm(of_layers((8, 8, 3), *layers))
    check(model, images(2, 8, 8, 3), tolerance=0.03)


def network(dropout: float = 0.0, penalty: float = 0.0) -> Any:
    k = keras()
    model = of_layers(
        (12, 12, 3),
        k.layers.Conv2D(8, 3, 2, "same", use_bias=False),
        k.layers.BatchNormalization(),
        k.layers.ReLU(6.0),
        k.layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        k.layers.BatchNormalization(),
        k.layers.Activation("hard_swish"),
        k.layers.Dropout(dropout, seed=3),
        k.layers.GlobalAveragePooling2D(),
        k.layers.Dense(3, kernel_regularizer=k.regularizers.L2(penalty) if penalty else None),
    )
    return backbones.freeze_batchnorm(model)


@pytest.mark.parametrize("n_photos", [16, pytest.param(11, marks=pytest.mark.slow)])
def test_microbatches_equal_the_whole_batch(n_photos: int) -> None:
    model, x = network(), images(n_photos, 12, 12, 3)
    check(model, x)
    expected = model.predict_on_batch(x)
    found = backbones.fast_on_cpu(model).predict_on_batch(x)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batches_at_once_use_all_cores_and_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = randomize(build_application(SMALL, (32, 32, 3)))
    assert _fast.batches_at_once(model, 32) == 1
    backbones.fast_on_cpu(model)
    images = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3)).astype(np.uint8)
    batches = [images[:32], images[32:40], *np.split(images[40:], [32, 64, 96])]
    tables, sizes = [], []
    for n in ("2", "8", "999"):
        monkeypatch.setenv("SCENELEARN_THREADS", n)
        sizes.append([_fast.batches_at_once(model, size) for size in (16, 32, 20)])
        tables.append(predict_images(model, batches, 32))
    assert sizes == [[2, 1, 1], [8, 4, 1], [16, 16, 1]]
    assert tables[0].shape[0] == 150
    for table in tables[1:]:
        np.testing.assert_array_equal(table, tables[0])


def test_microbatches_with_several_outputs() -> None:
    import jax

    k = keras()
    inner, x = network(), images(16, 12, 12, 3)
    maps = k.layers.GlobalAveragePooling2D()(inner.layers[1].output)
    model = k.Model(inner.inputs, {"maps": maps, "logits": inner.outputs[0]})
    expected = model.predict_on_batch(x)
    found = backbones.fast_on_cpu(model).predict_on_batch(x)
    assert found.keys() == {"maps", "logits"}
    for name, table in found.items():
        np.testing.assert_allclose(table, expected[name], atol=1e-5)
    assert "scan[" in str(jax.make_jaxpr(model)(x))


@pytest.mark.parametrize(
    ("loss", "weighted"),
    [
        ("sparse_categorical_crossentropy", False),
        pytest.param(
            lambda k: k.losses.SparseCategoricalCrossentropy(from_logits=True),
            False,
            marks=pytest.mark.slow,
        ),
        (lambda k: k.losses.SparseCategoricalCrossentropy(from_logits=True), True),
        pytest.param(
            lambda k: k.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
            False,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["by name", "mean", "weighted", "sum"],
)
def test_training_steps_equal_those_of_keras(loss: Any, weighted: bool) -> None:
    k = keras()
    x, y = images(16, 12, 12, 3), np.arange(16) % 3
    weights = np.linspace(0, 2, 16, dtype=np.float32) if weighted else None

    def trained(fast: bool) -> tuple[list[Any], list[npt.NDArray[Any]]]:
        model = network()
        model.add(k.layers.Softmax()) if isinstance(loss, str) else None
        if fast:
            backbones.fast_on_cpu(model)
        model.compile("adam", loss if isinstance(loss, str) else loss(k), metrics=["accuracy"])
        logs = [model.train_on_batch(x, y, sample_weight=weights) for _ in range(3)]
        if fast:  # in parts, unless the loss is no mean
            is_sum = getattr(model.loss, "reduction", "") == "sum"
            assert (model.train_function.update is None) == is_sum
        return logs, [np.asarray(a) for a in model.get_weights()]

    (logs, values), (plain_logs, plain_values) = trained(True), trained(False)
    np.testing.assert_allclose(logs, plain_logs, rtol=1e-4)
    for a, b in zip(values, plain_values, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.slow
def test_dropout_differs_between_microbatches() -> None:
    model = network(dropout=0.5)
    seed = next(v for v in model.variables if "seed" in v.path)
    before = np.asarray(seed.value)
    backbones.fast_on_cpu(model).compile("sgd", "mse")
    x = np.repeat(images(1, 12, 12, 3), 16, axis=0)  # the same photo, dropped out differently
    states = [v.value for v in model.non_trainable_variables]
    weights = [v.value for v in model.trainable_variables]
    import jax

    outputs, _ = jax.jit(lambda x: model.stateless_call(weights, states, x, training=True))(x)
    assert len(np.unique(np.asarray(outputs)[:, 0].round(5))) > 8
    model.train_on_batch(x, np.zeros((16, 3), np.float32))
    assert not (np.asarray(seed.value) == before).all()


def test_custom_layers_see_the_whole_batch() -> None:
    k = keras()

    class Centered(k.layers.Layer):  # type: ignore[name-defined, misc]
        def call(self, x: Any) -> Any:
            return x - k.ops.mean(x, axis=0, keepdims=True)

    model = of_layers((6, 6, 3), k.layers.Conv2D(2, 1), Centered())
    check(model, images(16, 6, 6, 3))


@pytest.mark.parametrize("kind", ["operation", "lambda"])
def test_operations_on_the_batch_see_the_whole_batch(kind: str) -> None:
    k = keras()

    def center(x: Any) -> Any:
        return x - k.ops.mean(x, axis=0, keepdims=True)

    image = k.Input((6, 6, 3))
    x = k.layers.Conv2D(2, 1)(image)
    x = center(x) if kind == "operation" else k.layers.Lambda(center)(x)
    model = randomize(k.Model(image, x))
    check(model, images(16, 6, 6, 3))
    expected = model.predict_on_batch(images(16, 6, 6, 3))
    backbones.fast_on_cpu(model)
    found = model.predict_on_batch(images(16, 6, 6, 3))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_operations_on_each_photo_run_in_parts(tmp_path: Path) -> None:
    k = keras()
    image = k.Input((6, 6, 3))
    x = k.layers.Conv2D(2, 1)(image[..., ::-1] / 255.0 - 0.5)
    model = k.Model(image, k.ops.mean(x, axis=(1, 2)))
    assert supports_microbatches(model)
    model.save(tmp_path / "model.keras")
    assert supports_microbatches(k.models.load_model(tmp_path / "model.keras"))
    caffe = k.applications.resnet50.preprocess_input(image)
    assert supports_microbatches(k.Model(image, k.layers.Conv2D(2, 1)(caffe)))


@pytest.mark.parametrize(
    ("loss", "is_mean"),
    [
        ("mse", True),
        ("sparse_categorical_crossentropy", True),
        ("MeanSquaredError", True),
        ("dice", False),
        (lambda k: k.losses.CategoricalCrossentropy(from_logits=True), True),
        (lambda k: k.losses.KLDivergence(), True),
        (lambda _: distillation_loss(1), True),
        (lambda k: k.losses.MeanSquaredError(reduction="sum"), False),
        (lambda k: k.losses.Circle(), False),
        (lambda k: k.losses.SparseCategoricalCrossentropy(ignore_class=0), False),
    ],
)
def test_which_losses_are_means_over_the_photos(loss: Any, is_mean: bool) -> None:
    k = keras()
    model = k.Sequential([k.Input((2,)), k.layers.Dense(2)])
    model.compile(loss=loss if isinstance(loss, str) else loss(k))
    assert _parallel._loss_is_mean(model) == is_mean


def test_own_loss_sees_the_whole_batch() -> None:
    class Contrast(keras().losses.Loss):  # type: ignore[misc, name-defined]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return y_pred - y_pred[::-1] + y_true

    model = keras().Sequential([keras().Input((2,)), keras().layers.Dense(1)])
    model.compile(loss=Contrast())
    assert not _parallel._loss_is_mean(model)


@pytest.mark.slow
def test_partly_frozen_networks_train_the_other_layers() -> None:
    x = images(16, 12, 12, 3)
    model = network()
    for layer in model.layers[:4]:
        layer.trainable = False
    check(model, x)


@pytest.mark.parametrize(
    "name", [SMALL, pytest.param("mobilenet_v3_small", marks=pytest.mark.slow)]
)
def test_backbones_equal_those_of_keras(name: str, pixels: npt.NDArray[np.uint8]) -> None:
    model = backbones.build(name, weights=None, image_px=32)
    expected = model.predict_on_batch(pixels)
    found = backbones.fast_on_cpu(model).predict_on_batch(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize(
    "name",
    slow("EfficientNetB0", "ConvNeXtTiny")
    + nightly("MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "Xception"),
)
def test_no_depthwise_convolution_is_left_to_xla(name: str) -> None:
    from tests.bench.memory import lower_step

    with deferred_initialization():
        model = build_application(name, (96, 96, 3))
        backbones.fast_on_cpu(backbones.freeze_batchnorm(model))
    text = lower_step(model, 8, "predict")[0].as_text()
    assert set(re.findall(r"feature_group_count = (\d+)", text)) <= {"1"}


@pytest.mark.parametrize("name", slow("ResNet50") + nightly("EfficientNetV2B0", "Xception"))
def test_no_convolution_or_pooling_gradient_is_left_to_xla(name: str) -> None:
    from tests.bench.memory import lower_step

    with deferred_initialization():
        model = build_application(name, (96, 96, 3))
        backbones.fast_on_cpu(backbones.freeze_batchnorm(model))
    text = lower_step(model, 8, "train")[0].as_text()
    # XLA is slow if the batch or the output channels swap places with another axis.
    assert set(re.findall(r"dim_numbers = (\S.*?), window", text)) == {
        "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    }
    assert "lhs_dilate = [2" not in text
    assert "select_and_scatter" not in text


def bytes_of_transformer_gradient(depth: int) -> float:
    """What the gradient of a small transformer reads and writes, by XLA's own count."""
    import jax

    layers = keras().layers
    image = keras().Input((64, 64, 3))
    x = layers.Reshape((-1, 32))(layers.Conv2D(32, 8, 8)(image))
    for _ in range(depth):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 16)(y, y)])
        y = layers.Dense(128, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    model = backbones.fast_on_cpu(keras().Model(image, layers.LayerNormalization()(x)))

    def loss(weights: Any, states: Any, x: Any) -> Any:
        return (model.stateless_call(weights, states, x)[0] ** 2).sum()

    weights, states = (
        [v.value for v in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    )
    program = jax.jit(jax.grad(loss)).lower(weights, states, images(4, 64, 64, 3)).compile()
    return float(program.cost_analysis()["bytes accessed"])


@pytest.mark.slow
def test_gradient_of_a_transformer_takes_the_same_for_each_layer() -> None:
    two, four, eight = map(bytes_of_transformer_gradient, (2, 4, 8))
    assert (eight - four) / 4 == pytest.approx((four - two) / 2, rel=0.01)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "image_px"),
    [
        ("mobilenet_v2_0.35", 64),
        ("efficientnet_b0", 64),
        ("efficientnet_v2_b0", 64),
        ("xception", 96),
        ("nasnet_mobile", 64),
        ("convnext_tiny", 64),
        ("resnet50", 64),
        ("densenet121", 64),
    ],
)
def test_larger_backbones_equal_keras_forward_and_backward(name: str, image_px: int) -> None:
    model = backbones.freeze_batchnorm(backbones.build(name, weights=None, image_px=image_px))
    for layer in model._flatten_layers():
        if isinstance(layer, keras().layers.Dropout):
            layer.rate = 0.0
    x = np.random.default_rng(0).uniform(0, 255, (8, image_px, image_px, 3)).astype(np.float32)
    plain, fast = run_backward(model, x), run_backward(backbones.fast_on_cpu(model), x)
    np.testing.assert_allclose(fast[0], plain[0], rtol=1e-4, atol=1e-5 * np.abs(plain[0]).max())
    # Of Xception's millions of ReLU inputs, a few are so near 0 that rounding turns them over.
    for a, b in zip(fast, plain, strict=True):
        assert np.linalg.norm(a - b) <= 1e-2 * np.linalg.norm(b) + 1e-9


@pytest.mark.slow
def test_fast_forms_are_not_saved(tmp_path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    model = backbones.fast_on_cpu(backbones.build(SMALL, weights=None, image_px=32))
    model.save(tmp_path / "m.keras")
    plain = keras().saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_allclose(
        model.predict_on_batch(pixels), plain.predict_on_batch(pixels), atol=1e-5
    )


def test_undo_fast_restores_compiled_programs(pixels: npt.NDArray[np.uint8]) -> None:
    model = backbones.build(SMALL, weights=None, image_px=32)
    before = model.predict_on_batch(pixels)
    backbones.fast_on_cpu(backbones.fast_on_cpu(model))  # twice is as once
    model.predict_on_batch(pixels)
    np.testing.assert_array_equal(backbones.undo_fast(model).predict_on_batch(pixels), before)


def test_on_an_accelerator_only_programs_are_kept(
    pixels: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(_fast, "_on_cpu", lambda: False)
    monkeypatch.setattr(_fast, "keep_programs", lambda: kept.append(True))
    model = backbones.build(SMALL, weights=None, image_px=32)
    layers = [dict(vars(layer)) for layer in model._flatten_layers()]
    assert backbones.fast_on_cpu(model) is model
    assert kept == [True]
    assert [dict(vars(layer)) for layer in model._flatten_layers()] == layers
    assert model.predict_on_batch(pixels).shape == (8, 256)


# The compilation cache


def program_of(cache: Path, setup: str = "") -> str:
    code = (
        "import os, jax\n"
        f"os.environ['SCENELEARN_CACHE'] = {str(cache)!r}\n{setup}\n"
        "jax.jit(lambda x: x + 1)(1.0)  # JAX has looked for a cache already\n"
        "from scenelearn.backbones import _compilation_cache\n"
        "_compilation_cache._MIN_COMPILE_S = 0\n"
        "_compilation_cache.keep_programs()\n"
        "print(jax.jit(lambda x: x * 2 + 3)(1.0), jax.config.jax_compilation_cache_dir)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not run.stderr
    return run.stdout.strip()


@pytest.mark.slow
def test_programs_are_kept_and_reused(tmp_path: Path) -> None:
    assert program_of(tmp_path).startswith("5.0 " + str(tmp_path / "programs"))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("jit_*")}
    assert files
    program_of(tmp_path)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("jit_*")}
    for path in files:
        path.write_bytes(b"torn")  # as by a full disk
    assert program_of(tmp_path).startswith("5.0 ")


@pytest.mark.slow
def test_programs_do_not_depend_on_the_path_of_the_cache(tmp_path: Path) -> None:
    names = []
    for folder in ("one", "two"):
        program_of(tmp_path / folder)
        names.append(sorted(path.name for path in (tmp_path / folder).rglob("jit_*cache")))
    assert names[0]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    "setup",
    [
        "jax.config.update('jax_compilation_cache_dir', os.environ['SCENELEARN_CACHE'] + '/mine')",
        "jax.config.update('jax_enable_compilation_cache', False)",
        "open(os.environ['SCENELEARN_CACHE'] + '/programs', 'w').close()  # no folder can be made",
        "jax.default_backend, jax.process_count = lambda: 'gpu', lambda: 2",
    ],
)
def test_programs_are_not_kept_if_disabled(tmp_path: Path, setup: str) -> None:
    said = program_of(tmp_path, setup)
    assert said == "5.0 None" or said == f"5.0 {tmp_path / 'mine'}"
    assert not list(tmp_path.glob("programs/*"))


def test_the_oldest_programs_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    (tmp_path / "tuned").mkdir()  # what XLA has found out for a GPU lies in a folder of its own
    for n in range(6):
        path = tmp_path / ("tuned" if n % 2 else ".") / str(n)
        path.write_bytes(bytes(10))
        os.utime(path, (n, n))
    monkeypatch.setattr(_compilation_cache, "_LIMIT_BYTES", 20)
    _compilation_cache._remove_oldest(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("?")) == ["4", "5"]


def faults_of(setup: dict[str, str]) -> int:
    """The smallest number of page faults of a training step, in a new process."""
    code = """
import resource

import numpy as np

from scenelearn import backbones
from scenelearn.finetune._teacher import distillation_loss
from tests.helpers.networks import keras

k = keras()
model = backbones.freeze_batchnorm(backbones.build("mobilenet_0.25", weights=None, image_px=96))
model = k.Sequential([backbones.fast_on_cpu(model), k.layers.Dense(2)])
backbones.fast_on_cpu(model).compile("sgd", "mse")
x, y = np.zeros((16, 96, 96, 3), np.uint8), np.zeros((16, 2), np.float32)
for _ in range(4):
    model.train_on_batch(x, y)
found = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    model.train_on_batch(x, y)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))
"""
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, capture_output=True, env=os.environ | setup, check=True, text=True)
    return int(found.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
@pytest.mark.nightly
def test_freed_memory_is_kept_unless_the_user_has_configured_malloc() -> None:
    kept, not_kept = faults_of({}), faults_of({"MALLOC_TRIM_THRESHOLD_": "131072"})
    assert not_kept > 1000  # 4 KB each
    assert kept < not_kept / 10


# The parts of a batch


def trained(model: Any, x: Any, y: Any, times: int = 3) -> list[npt.NDArray[Any]]:
    for _ in range(times):
        model.train_on_batch(x, y)
    return [np.asarray(a) for a in model.get_weights()]


def test_weights_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images(35, 12, 12, 3), np.eye(3, dtype=np.float32)[np.arange(35) % 3]
    run, active, peaks = _parallel.PartProgram.run, list[Any](), [0]
    company = threading.Event()  # set as soon as two parts run at the same time

    def noted(self: Any, *arguments: Any) -> Any:
        active.append(None)
        peaks.append(len(active))
        if len(active) > 1:
            company.set()
        company.wait(60)  # a part that is done at once would never meet another
        result = run(self, *arguments)
        active.pop()
        return result

    monkeypatch.setattr(_parallel.PartProgram, "run", noted)
    model = backbones.fast_on_cpu(network(dropout=0.5))
    model.compile("adam", keras().losses.CategoricalCrossentropy(from_logits=True))
    company.set()
    trained(model, x, y, 1)  # compiles
    start = [np.asarray(v.value) for v in (*model.variables, *model.optimizer.variables)]
    found = []
    for n in (1, 2, 3, 8):
        monkeypatch.setenv("SCENELEARN_THREADS", str(n))
        for variable, value in zip(
            (*model.variables, *model.optimizer.variables), start, strict=True
        ):
            variable.assign(value)
        peaks.clear()
        if n > 1:
            company.clear()
        for size in (32, 35, 16):  # the second one has an incomplete part
            trained(model, x[:size], y[:size])
        assert max(peaks) == 1 if n == 1 else 1 < max(peaks) <= n
        found.append([*model.get_weights(), model.predict_on_batch(x)])
    for other in found[1:]:
        assert all((a == b).all() for a, b in zip(found[0], other, strict=True))


def test_an_incomplete_part_counts_its_photos_only() -> None:
    x, y = images(7, 12, 12, 3), np.arange(7) % 3
    loss = keras().losses.SparseCategoricalCrossentropy(from_logits=True)

    def weights(fast: bool, **settings: Any) -> list[npt.NDArray[Any]]:
        model = network(**settings)
        if fast:
            backbones.fast_on_cpu(model)
        model.compile("sgd", loss)
        return trained(model, x, y)

    for settings in ({}, {"penalty": 0.1}):  # the penalty is part of the loss once, not per part
        for a, b in zip(weights(True, **settings), weights(False, **settings), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_sums_do_not_depend_on_the_order_in_which_parts_end() -> None:
    values = np.random.default_rng(0).standard_normal(11).astype(np.float32)
    sums = set()
    for seed in range(20):
        total = _parallel.TreeSum(11, lambda a, b: a + b)
        for k in np.random.default_rng(seed).permutation(11):
            total.insert(int(k), values[k])
        sums.add(float(total.result))
    assert len(sums) == 1
    assert sums.pop() == pytest.approx(values.sum(dtype=np.float64), abs=1e-5)


@pytest.mark.parametrize("n_photos", slow(20) + nightly(16, 24, 12, 7))
def test_keras_fit_runs_parts(n_photos: int) -> None:
    x, y = images(n_photos + 3, 12, 12, 3), np.arange(n_photos + 3) % 3

    def fitted(fast: bool) -> tuple[list[npt.NDArray[Any]], Any]:
        model = network()
        if fast:
            backbones.fast_on_cpu(model)
        loss = keras().losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"])
        history = model.fit(x, y, batch_size=n_photos, epochs=2, shuffle=False, verbose=0)
        return [np.asarray(a) for a in model.get_weights()], history.history

    (fast, fast_history), (plain, plain_history) = fitted(True), fitted(False)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    for name, values in plain_history.items():
        np.testing.assert_allclose(fast_history[name], values, rtol=1e-4)


@pytest.mark.slow
def test_dropout_differs_between_the_parts() -> None:
    model = backbones.fast_on_cpu(network(dropout=0.5))
    model.compile("sgd", "mse")
    x, y = np.repeat(images(1, 12, 12, 3), 4, axis=0), np.zeros((4, 3), np.float32)
    trained(model, x, y, 1)
    step = model.train_function
    assert isinstance(step, _parallel.TrainStep)
    state = model._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    first, second, again = (
        np.asarray(step.program.run(state, np.uint32(k), x, y, np.ones(4, np.float32))[1])
        for k in (0, 1, 0)
    )
    assert (first == again).all()
    assert (first != second).any(axis=1).all()


@pytest.mark.slow
def test_undo_fast_runs_the_whole_batch_again() -> None:
    model = backbones.fast_on_cpu(network())
    model.compile("sgd", "mse")
    x, y = images(16, 12, 12, 3), np.zeros((16, 3), np.float32)
    trained(model, x, y, 1)
    assert isinstance(model.train_function, _parallel.TrainStep)
    backbones.undo_fast(model)
    trained(model, x, y, 1)
    assert not isinstance(model.train_function, _parallel.TrainStep)


@pytest.mark.slow
def test_prediction_runs_parts_and_changes_no_variable() -> None:
    x = images(19, 12, 12, 3)  # the last part is incomplete
    model = network(dropout=0.5)
    expected = model.predict(x, batch_size=16, verbose=0)
    backbones.fast_on_cpu(model)
    before = [np.asarray(variable.value) for variable in model.variables]
    backbones.undo_fast(model)
    backbones.fast_on_cpu(model)
    found = [model.predict(x, batch_size=16, verbose=0) for _ in range(2)]
    assert isinstance(model.predict_function, _parallel.PredictStep)
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-5)
    after = [np.asarray(variable.value) for variable in model.variables]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))
