"""Sizing by the textbook method, from the assignment's network to the command line."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scenelearn import sizing
from scenelearn.errors import (
    ArgumentError,
    BundleError,
    MissingExtraError,
    PathMissingError,
    UnknownBackboneError,
    UnknownLayerError,
)
from tests.helpers.damage import move_directory
from tests.helpers.networks import keras

SPEC = ", ".join(f"Conv2D({n}, 3, strides=2, padding='same')" for n in (100, 200, 400))


def textbook_cnn() -> list[sizing.Layer]:
    return [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]


def cnn(**settings: Any) -> sizing.Estimate:
    return sizing.estimate(textbook_cnn(), input_shape=(200, 300, 3), **settings)


def one(layer: sizing.Layer, *shape: int) -> sizing.Estimate:
    return sizing.estimate([layer], input_shape=shape)


# The second question of the assignment


def test_parameters_of_the_textbook_cnn() -> None:
    found = cnn()
    assert [layer.n_parameters for layer in found.layers] == [2_800, 180_200, 720_400]
    assert found.n_parameters == 903_400
    assert found.parameter_bytes == 3_613_600


def test_memory_of_one_prediction() -> None:
    found = cnn()
    assert [layer.activation_bytes for layer in found.layers] == [6_000_000, 3_000_000, 1_520_000]
    assert found.prediction_bytes == 9_000_000 + 3_613_600
    assert found.prediction_peak_layer == "conv2d_1"
    assert found.prediction_bytes_without_reuse == 10_520_000 + 3_613_600
    assert found.prediction_bytes_without_reuse + 200 * 300 * 3 * 4 == 14_853_600


def test_memory_of_training_on_fifty_images() -> None:
    parts = cnn(batch_size=50, optimizer="sgd_momentum").training
    assert (parts.activations, parts.inputs) == (526_000_000, 36_000_000)
    geron = parts.activations + parts.inputs + parts.parameters
    assert geron == 565_613_600
    assert geron + parts.gradients == 569_227_200
    assert geron + parts.gradients + parts.optimizer_slots == parts.total == 572_840_800


def test_each_wrong_number_of_the_submitted_answer_has_a_known_mistake() -> None:
    found = cnn()
    right = [layer.n_parameters for layer in found.layers]
    maps = [layer.activation_bytes for layer in found.layers]
    # the kernel's depth multiplied by the three colors once more
    assert (3 * 3 * 100 * 3 + 1) * 200 == 540_200 != right[1]
    assert (3 * 3 * 200 * 3 + 1) * 400 == 2_160_400 != right[2]
    # "1000" written for the first layer
    assert 1_000 + right[1] + right[2] == 901_600 != found.n_parameters
    # all activations multiplied by three channels, though their depth is the number of filters
    assert [3 * size for size in maps] == [18_000_000, 9_000_000, 4_560_000]
    # released: the input and one of those, where two consecutive ones exist at the same time
    tripled = 3 * maps[0]
    assert round((tripled + 200 * 300 * 3 * 4) / 1e6, 2) == 18.72  # 18.83 with its own rounding
    # a batch of 50: everything fifty times, even the parameters
    assert round(50 * 18.83) in {941, 942}
    assert 50 * found.parameter_bytes == 180_680_000 != found.parameter_bytes
    # training: input, tripled activations and tripled kernels, fifty times each
    kernels = (1_000 + 540_200 + 2_160_400) * 4
    everything = 50 * (200 * 300 * 3 * 4 + 3 * sum(maps) + kernels)
    assert round(everything / 1e9, 1) == 2.2
    # ... and without gradients, which are as large as the parameters
    assert cnn(batch_size=50).training.gradients == found.parameter_bytes
    # parameters are stored once
    parts = cnn(batch_size=50).training
    assert parts.parameters == found.parameter_bytes != 50 * found.parameter_bytes


def test_frozen_layers_keep_no_activations_before_the_first_trained_layer() -> None:
    frozen = cnn(trainable="head")
    assert frozen.n_trainable_parameters == 720_400
    assert frozen.training.activations == 3_000_000 + 1_520_000
    assert frozen.training.gradients == 720_400 * 4
    assert cnn(trainable=False).training.activations == 0


def test_a_branch_waits_for_its_merge() -> None:
    layers = keras().layers
    x = layers.Input((8, 8, 4))
    a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    b = layers.Conv2D(4, 3, padding="same", name="b")(a)
    c = layers.Conv2D(4, 3, padding="same", name="c")(b)
    model = keras().Model(x, layers.Add(name="sum")([a, c]))
    found = sizing.estimate(model)
    one = 8 * 8 * 4 * 4
    assert found.prediction_bytes - found.parameter_bytes == 3 * one  # a waits while b and c run
    assert found.prediction_peak_layer in {"c", "sum"}


@pytest.mark.parametrize(
    ("settings", "maps", "weights"),
    [
        ({"dtype": "float16"}, 2, 2),
        ({"dtype": "float64"}, 8, 8),
        ({"mixed_precision": "mixed_bfloat16"}, 2, 4),
    ],
)
def test_precision(settings: dict[str, str], maps: int, weights: int) -> None:
    found = cnn(**settings)
    assert found.parameter_bytes == 903_400 * weights
    assert found.prediction_bytes == 2_250_000 * maps + 903_400 * weights


# Optimizers, against Keras


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "use_ema": True}),
        ("RMSprop", {}),
        ("RMSprop", {"momentum": 0.9, "centered": True}),
        ("Adam", {}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {}),
        ("Adamax", {}),
        ("Nadam", {}),
        ("Adagrad", {}),
        ("Adadelta", {}),
        ("Adafactor", {}),
        ("Ftrl", {}),
        ("Lion", {}),
        ("Lamb", {}),
        ("Adam", {"gradient_accumulation_steps": 4}),
    ],
)
def test_slots_equal_those_of_keras(make: str, settings: dict[str, Any]) -> None:
    optimizer = getattr(keras().optimizers, make)(**settings)
    weights = [keras().Variable(initializer="zeros", shape=s) for s in ((3, 3, 4, 8), (8,), (8, 5))]
    found = sizing.estimate(
        [sizing.Conv2D(8, 3), sizing.GlobalAveragePooling2D(), sizing.Dense(5, use_bias=False)],
        input_shape=(9, 9, 4),
        optimizer=optimizer,
    )
    optimizer.build(weights)
    kept = sum(math.prod(v.shape) for v in optimizer.variables if len(v.shape))
    assert found.training.optimizer_slots == 4 * kept


def test_slots_of_an_optimizer_that_keras_does_not_know() -> None:
    class OwnAdam(keras().optimizers.Adam):  # type: ignore[misc]
        """Not registered with Keras."""

    known, own = keras().optimizers.Adam(amsgrad=True), OwnAdam(amsgrad=True)
    assert (
        cnn(optimizer=own).training.optimizer_slots == cnn(optimizer=known).training.optimizer_slots
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "nadam", "adafactor"])
def test_a_name_and_its_optimizer_agree(name: str) -> None:
    by_name = cnn(optimizer=name).training
    by_object = cnn(optimizer=keras().optimizers.get(name)).training
    assert by_name.optimizer_slots == by_object.optimizer_slots


# Questions about other sizes


@pytest.mark.parametrize("method", sizing.METHODS)
def test_max_batch_is_the_largest_that_fits(method: str) -> None:
    found = cnn(method=method)
    largest = found.max_batch("2 GB")
    assert found.fits("2 GB", largest)
    assert not found.fits("2 GB", largest + 1)
    assert found.max_batch(1000) == 0
    assert found.max_batch("2 GB", training=False) > largest


def test_largest_image_keeps_the_proportions() -> None:
    found = cnn(batch_size=8)
    height, width = found.max_image_size("1 GB")
    assert width == round(height * 300 / 200)
    layers = textbook_cnn()

    def needs(high: int) -> int:
        shape = (high, round(high * 1.5), 3)
        return sizing.estimate(layers, input_shape=shape, batch_size=8).training_bytes

    assert needs(height) <= 10**9 < needs(height + 1)


def test_compare_ranks_networks_without_creating_weights() -> None:
    comparison = sizing.compare(["VGG16", "mobilenet_v2"], memory="8 GiB", image_px=64)
    assert [one.name for one in comparison.estimates] == ["mobilenetv2_1.00_64", "vgg16"]
    assert comparison.max_batches == tuple(one.max_batch("8 GiB") for one in comparison.estimates)
    assert len(str(comparison).splitlines()) == 3
    smaller = (
        138_357_544 - (7 * 7 - 2 * 2) * 512 * 4096
    )  # the first dense layer reads 2×2 feature maps
    assert json.loads(json.dumps(comparison.to_json()))[1]["n_parameters"] == smaller
    assert "<table>" in comparison._repr_html_()


# Display


def test_the_derivation_contains_every_number() -> None:
    text = cnn(batch_size=50, optimizer="sgd_momentum").derivation()
    for number in ("2{,}800", "180{,}200", "720{,}400", "903{,}400", "3{,}613{,}600"):
        assert number in text
    assert r"(9 \cdot 100 + 1) \cdot 200 = 180{,}200" in text
    assert "572,840,800" in text
    assert text.count("$$") % 2 == 0
    one = cnn().derivation()
    assert "12{,}613{,}600" in one
    assert "14{,}133{,}600" in one


def test_text_json_plot_and_comparison() -> None:
    found = cnn(batch_size=50, optimizer="adam")
    assert "903,400" in str(found)
    assert json.loads(json.dumps(found.to_json()))["training"]["total"] == found.training_bytes
    assert "<td>conv2d_1</td>" in found._repr_html_()
    figure = str(found.plot())
    assert figure.startswith("<figure>")
    assert figure.count("<title>") == len(found.training_timeline)
    assert 'role="img" aria-label="Memory of one step' in figure
    assert "1.00" in found.compare(found)
    assert max(point.n_bytes for point in found.training_timeline) == found.training_bytes
    assert "903,400 parameters" in repr(found)
    assert len(repr(found).splitlines()) == len(repr(found.plot()).splitlines()) == 1


def test_names_are_escaped() -> None:
    found = sizing.estimate([sizing.Dense(2, name="<b>")], input_shape=(3,))
    assert "<b>" not in found._repr_html_() + str(found.plot())


def test_rows_have_one_entry_per_layer_call() -> None:
    rows = cnn(batch_size=2).to_rows()
    assert [row["name"] for row in rows] == ["conv2d", "conv2d_1", "conv2d_2"]
    assert rows[0]["layer_type"] == "Conv2D"
    assert rows[0]["output_shape"] == [2, 100, 150, 100]
    assert rows[2]["receptive_field"] == [15, 15]
    assert rows[2]["effective_stride"] == [8, 8]


def test_tables_convert_to_pandas() -> None:
    pd = pytest.importorskip("pandas")
    table = cnn().to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert table["n_parameters"].tolist() == [2_800, 180_200, 720_400]
    comparison = sizing.compare(["mobilenet_v2"], image_px=96).to_pandas()
    assert comparison["name"].tolist() == ["mobilenetv2_1.00_96"]


def test_to_pandas_without_pandas_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="pip install pandas"):
        cnn().to_pandas()


def test_results_survive_pickle_and_copy() -> None:
    found = cnn(optimizer="adam")
    for other in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):  # noqa: S301
        assert other == found
        assert other.max_batch("2 GB") == found.max_batch("2 GB")
    shapes = sizing.recurrent_shapes(units=4, features=3)
    assert pickle.loads(pickle.dumps(shapes)) == shapes  # noqa: S301


def test_a_comparison_has_a_short_repr() -> None:
    comparison = sizing.NetworkComparison((cnn(),))
    assert repr(comparison) == "<NetworkComparison: 1 networks: layers>"


def test_control_characters_in_names_do_not_reach_the_terminal() -> None:
    found = sizing.estimate([sizing.Dense(2, name="\x1b[2J")], input_shape=(3,))
    assert "\x1b" not in str(found) + found.derivation() + str(sizing.NetworkComparison((found,)))


# What `estimate` accepts


@pytest.mark.nightly
def test_a_name_is_the_model_of_keras_applications() -> None:
    model = keras().applications.MobileNetV2(weights=None)
    found = sizing.estimate("mobilenet_v2")
    assert found.n_parameters == model.count_params()
    assert found.input_shapes == ((1, 224, 224, 3),)
    assert sizing.estimate("MobileNetV2").prediction_bytes == found.prediction_bytes


def test_a_name_takes_an_input_shape() -> None:
    found = sizing.estimate("vgg16", input_shape=(64, 96, 3), batch_size=2)
    assert found.input_shapes == ((2, 64, 96, 3),)
    assert found.n_parameters == 138_357_544 - (7 * 7 - 2 * 3) * 512 * 4096


def test_a_layer_list_as_text_is_the_layer_list() -> None:
    assert sizing.estimate(SPEC, input_shape=(200, 300, 3)).layers == cnn().layers


def test_numpy_integers_are_sizes() -> None:
    np = pytest.importorskip("numpy")
    assert sizing.Dense(np.int32(3)).output_shape((1, 2)) == (1, 3)
    assert cnn(batch_size=np.int64(2)).to_json() == cnn(batch_size=2).to_json()


# Errors


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sizing.Conv2D(8, 3, strides=0), ArgumentError, "strides=0"),
        (lambda: sizing.Conv2D(8, (3,)), ArgumentError, "tuple of 2"),
        (lambda: sizing.Conv2D(9, 3, groups=2), ArgumentError, "groups=2"),
        (lambda: sizing.Conv2D(8, 3, padding="full"), ArgumentError, "padding='full'"),
        (lambda: sizing.Conv2D(8, 3, strides=2, dilation_rate=2), ArgumentError, "both"),
        (
            lambda: one(sizing.Conv2D(8, 9), 5, 5, 3),
            ArgumentError,
            "must fit",
        ),
        (
            lambda: one(sizing.Conv2D(8, 3), 5, 3),
            ArgumentError,
            "4 axes",
        ),
        (lambda: sizing.Add().output_shape((1, 8), (1, 9)), ArgumentError, "cannot merge"),
        (lambda: sizing.Concatenate(1).output_shape((1, 8, 2), (1, 9, 3)), ArgumentError, "axis 1"),
        (lambda: sizing.Reshape((7,)).output_shape((1, 8)), ArgumentError, "8 values"),
        (lambda: sizing.Dropout(2), ArgumentError, "rate=2"),
        (lambda: sizing.parse_bytes("8 gigs"), ArgumentError, "8 gigs"),
        (lambda: sizing.parse_bytes(True), ArgumentError, "True"),
        (lambda: cnn(batch_size=0), ArgumentError, "batch_size=0"),
        (lambda: cnn(method="guess"), ArgumentError, "'textbook', 'xla'"),
        (lambda: cnn(dtype="int8"), ArgumentError, "int8"),
        (lambda: cnn(dtype="float16", method="xla"), ArgumentError, "float32"),
        (lambda: cnn(optimizer="speedy"), ArgumentError, "speedy"),
        (lambda: cnn(optimizer=3), ArgumentError, "int"),
        (lambda: cnn(trainable=["nobody"]), ArgumentError, "nobody"),
        (lambda: cnn(trainable="tail"), ArgumentError, "tail"),
        (lambda: sizing.estimate([]), ArgumentError, "empty"),
        (lambda: sizing.estimate(["Dense"]), ArgumentError, "str at index 0"),
        (lambda: sizing.estimate([keras().layers.Dense(3)]), ArgumentError, "keras.Sequential"),
        (lambda: sizing.estimate("no_such_net"), UnknownBackboneError, "MobileNetV2"),
        (lambda: sizing.estimate("vgg16", input_shape=(64, 64)), ArgumentError, "(64, 64)"),
        (lambda: sizing.estimate(Path("nowhere.keras")), PathMissingError, "nowhere.keras"),
        (lambda: cnn().fits("1 GB", 0), ArgumentError, "batch_size=0"),
        (lambda: cnn().compare(3), ArgumentError, "int"),
        (lambda: cnn(trainable=3), ArgumentError, "trainable=3"),
        (lambda: sizing.estimate(textbook_cnn(), input_shape=3), ArgumentError, "input_shape=3"),
        (lambda: sizing.compare(3), ArgumentError, "networks=3"),
        (lambda: sizing.estimate(3), ArgumentError, "int"),
        (lambda: sizing.estimate(textbook_cnn()), ArgumentError, "input_shape"),
        (
            lambda: sizing.estimate(textbook_cnn(), input_shape=(0, 3, 3)),
            ArgumentError,
            "(0, 3, 3)",
        ),
        (lambda: sizing.compare([]), ArgumentError, "networks"),
        (lambda: sizing.compare(["no_such_net"]), UnknownBackboneError, "no_such_net"),
        (lambda: sizing.compare(["InceptionV3"], image_px=32), ArgumentError, "(32, 32, 3)"),
        (
            lambda: sizing.estimate("BatchNormalization(axis=5)", input_shape=(3,)),
            ArgumentError,
            "`axis` must be an axis of the input",
        ),
        (lambda: sizing.estimate("Nothing(3)"), UnknownLayerError, "Nothing"),
        (lambda: sizing.estimate("Dense(\0)"), ArgumentError, "layers as in Python"),
        (lambda: sizing.estimate("Dense(" + "-" * 10**5 + "1)"), ArgumentError, "in Python"),
        (lambda: sizing.estimate("Dense("), ArgumentError, "layers as in Python"),
        (lambda: sizing.estimate("Dense(open('x'))"), UnknownLayerError, "open"),
        (lambda: sizing.estimate("nowhere.keras"), PathMissingError, "nowhere.keras"),
        (lambda: sizing.conv_output_length(3, 5), ArgumentError, "must fit"),
        (lambda: sizing.receptive_field([(0, 1, 0)]), ArgumentError, "kernel_size=0"),
    ],
)
def test_errors_say_what_was_received(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.keras"
    path.write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"broken\.keras"):
        sizing.estimate(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    move_directory(path)
    with pytest.raises(BundleError, match=r"broken\.keras"):
        sizing.estimate(path)


def test_a_layer_that_cannot_be_traced_is_named() -> None:
    class Opaque(keras().layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            raise RuntimeError(f"no symbols here: {x.shape}")

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

        def compute_output_spec(self, x: Any) -> Any:
            return keras().KerasTensor(x.shape)

    x = keras().Input((4,))
    model = keras().Model(x, Opaque(name="mine")(x))
    is_jax = keras().backend.backend() == "jax"
    why = "no symbols here" if is_jax else "only the JAX backend"
    with pytest.raises(UnknownLayerError, match=rf'"mine" \(Opaque\).*{why}'):
        sizing.estimate(model)


def test_a_model_without_an_input_shape_is_rejected() -> None:
    model = keras().Sequential([keras().layers.Dense(3)])
    with pytest.raises(ArgumentError, match="no input shape"):
        sizing.estimate(model)


# Saved files and the command line


def test_a_saved_model_has_the_optimizer_that_it_was_compiled_with(tmp_path: Path) -> None:
    image = keras().Input((16, 16, 3))
    inner = keras().Sequential([keras().Input((16, 16, 3)), keras().layers.Flatten()])
    inner.compile("sgd", "mse")
    model = keras().Model(image, keras().layers.Dense(2)(inner(image)))
    model.compile(keras().optimizers.SGD(momentum=0.9), "mse")
    model.save(tmp_path / "small.keras")
    found = sizing.estimate(tmp_path / "small.keras")
    assert found.training.optimizer_slots == sizing.estimate(model).training.optimizer_slots
    assert found.training.optimizer_slots == 4 * model.count_params()


def test_optimizer_whose_variables_have_other_shapes() -> None:
    class History(keras().optimizers.SGD):  # type: ignore[misc]
        def build(self, variables: Any) -> None:
            super().build(variables)
            for at, variable in enumerate(variables):
                self.add_variable((10, *variable.shape), name=f"kept_{at}")

    optimizer = keras().optimizers.LossScaleOptimizer(keras().optimizers.Adafactor())
    plain = cnn(optimizer=keras().optimizers.Adafactor()).training.optimizer_slots
    assert cnn(optimizer=optimizer).training.optimizer_slots == plain
    if keras().backend.backend() == "jax":
        found = cnn(optimizer=History())
        assert found.training.optimizer_slots == 10 * found.parameter_bytes


def test_saved_model_with_an_unknown_optimizer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(keras().optimizers.SGD):  # type: ignore[misc]
        """Not registered with Keras."""

    model = keras().Sequential([keras().Input((4,)), keras().layers.Dense(2)])
    model.compile(Own(), "mse")
    model.save(tmp_path / "own.keras")
    found = sizing.estimate(tmp_path / "own.keras", optimizer="adam")
    assert found.training.optimizer_slots == 2 * 4 * model.count_params()
    assert "is not known to Keras" in caplog.text


def test_slots_have_the_precision_of_the_weights() -> None:
    for dtype, n_bytes in (("float64", 8), ("float32", 4), ("float16", 2)):
        found = sizing.estimate([sizing.Dense(3)], input_shape=(5,), optimizer="adam", dtype=dtype)
        assert found.training.optimizer_slots == 2 * 18 * n_bytes


@pytest.mark.skipif(keras().backend.backend() != "jax", reason="only JAX traces layers")
def test_images_that_a_traced_layer_cannot_take_are_no_larger_images() -> None:
    class Positions(keras().layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.embedding = self.add_weight(shape=(1, *shape[1:]))

        def call(self, x: Any) -> Any:
            return x + self.embedding

    image = keras().Input((32, 32, 3))
    x = keras().layers.Conv2D(4, 8, 8)(image)
    model = keras().Model(image, Positions()(keras().layers.Reshape((16, 4))(x)))
    assert sizing.estimate(model).max_image_size("1 GiB") == (39, 39)  # four windows, rounded down


def test_a_saved_model_is_sized_without_its_weights(tmp_path: Path) -> None:
    layers = keras().layers
    model = keras().Sequential([layers.Input((8, 8, 3)), layers.Flatten(), layers.Dense(5)])
    model.save(tmp_path / "small.keras")
    found = sizing.estimate(tmp_path / "small.keras")
    assert found.n_parameters == model.count_params() == 965


def size(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scenelearn", "size", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_size_on_the_command_line() -> None:
    run = size(
        SPEC, "--input-shape", "200,300,3", "--batch-size", "50", "--memory", "8GiB", "--json"
    )
    assert run.returncode == 0, run.stderr
    value = json.loads(run.stdout)
    assert value["n_parameters"] == 903_400
    assert value["max_batch"] == cnn(optimizer="adam").max_batch("8GiB")
    table = size(SPEC, "--input-shape", "200,300,3", "--batch-size", "1").stdout
    assert "12,613,600 B (12.6 MB)" in table


def test_size_of_nothing_known_fails_clearly() -> None:
    run = size("no_such_net")
    assert run.returncode == 1
    assert "no_such_net" in run.stderr
    assert "MobileNetV2" in run.stderr


def test_importing_sizing_is_quick_and_light() -> None:
    code = "import scenelearn.sizing, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"keras", "jax", "numpy", "PIL"} & set(run.stdout.split())
