"""Layers without a description: what JAX traces of them against Keras and hand arithmetic."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pytest

from scenelearn import sizing
from scenelearn.errors import ArgumentError, UnknownLayerError
from tests.helpers.hub_backbones import CONFIGURATIONS
from tests.helpers.networks import deferred_initialization, keras

pytestmark = pytest.mark.skipif(
    keras().backend.backend() != "jax", reason="only the JAX backend traces layers"
)

if keras().backend.backend() == "jax":
    from tests.bench.memory import estimate_case, hub_classifier, planned_bytes


def own_layers() -> dict[str, Callable[..., Any]]:
    """Layers of one's own, by name."""
    layers, ops = keras().layers, keras().ops

    class Plain(layers.Dense):
        pass

    class Changed(layers.Dense):
        def call(self, x: Any) -> Any:
            return ops.relu(super().call(x))

    class Product(layers.Layer):
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight(shape=(shape[-1], 7), name="factor")

        def call(self, x: Any) -> Any:
            return ops.matmul(x, self.factor)

    class Around(layers.Layer):
        def build(self, shape: Any) -> None:
            self.inner = Product()
            self.inner.build(shape)
            self.shift = self.add_weight(shape=(7,), name="shift", trainable=False)

        def call(self, x: Any) -> Any:
            return ops.add(self.inner(x), self.shift)

    class Unread(layers.Dense):
        def build(self, shape: Any) -> None:
            super().build(shape)
            self.extra = self.add_weight(shape=(5,), name="extra")

    class Attention(layers.Layer):
        """Four heads over tokens, written with keras.ops, as most people write it."""

        def build(self, shape: Any) -> None:
            width = shape[-1]
            self.to_all = self.add_weight(shape=(width, 3 * width), name="to_all")
            self.out = layers.Dense(width)
            self.out.build(shape)

        def call(self, x: Any) -> Any:
            n, tokens, width = ops.shape(x)
            split = ops.reshape(ops.matmul(x, self.to_all), (n, tokens, 3, 4, width // 4))
            query, key, value = ops.unstack(ops.transpose(split, (2, 0, 3, 1, 4)), 3)
            scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * (width // 4) ** -0.5
            mixed = ops.matmul(ops.softmax(scores), value)
            joined = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (n, tokens, width))
            return self.out(joined)

    class Windows(layers.Layer):
        """A product within windows of 4 × 4, whose batch axis is that of all windows."""

        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")

        def call(self, x: Any) -> Any:
            n, height, width, channels = ops.shape(x)
            parts = ops.reshape(x, (n, height // 4, 4, width // 4, 4, channels))
            parts = ops.reshape(ops.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, 16, channels))
            mixed = ops.matmul(ops.matmul(parts, ops.transpose(parts, (0, 2, 1))), parts)
            count = ops.shape(mixed)[0] // n
            return ops.mean(ops.reshape(mixed, (n, count * 16, channels)), axis=1) * self.scale

    class Noisy(layers.Layer):
        """Dropout and a running mean of its own."""

        def build(self, shape: Any) -> None:
            self.seeds = keras().random.SeedGenerator(0)
            self.mean = self.add_weight(shape=(shape[-1],), name="mean", trainable=False)

        def call(self, x: Any, training: bool = False) -> Any:
            if not training:
                return x - self.mean
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(x, axis=0))
            return keras().random.dropout(x - self.mean, 0.5, seed=self.seeds)

    kinds = (Plain, Changed, Product, Around, Unread, Attention, Windows, Noisy)
    return {kind.__name__: kind for kind in kinds}


def network(name: str, shape: tuple[int, ...], *arguments: Any) -> Any:
    """A layer of one's own between an input and a head."""
    with deferred_initialization():
        inputs = keras().Input(shape)
        x = own_layers()[name](*arguments)(inputs)
        return keras().Model(inputs, keras().layers.Dense(3, activation="softmax")(x))


CASES: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "Plain": ((100,), (1000,)),
    "Changed": ((100,), (100,)),
    "Product": ((100,), ()),
    "Around": ((100,), ()),
    "Unread": ((100,), (8,)),
    "Attention": ((16, 32), ()),
    "Windows": ((8, 8, 6), ()),
    "Noisy": ((40,), ()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", sizing.METHODS)
def test_parameters_equal_those_of_keras(name: str, method: str) -> None:
    shape, arguments = CASES[name]
    model = network(name, shape, *arguments)
    found = sizing.estimate(model, batch_size=4, optimizer="adam", method=method)
    assert found.n_parameters == model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert found.n_trainable_parameters == trainable
    assert found.training_bytes > 3 * 4 * trainable


def test_a_matrix_of_its_own_costs_what_it_holds() -> None:
    layers = keras().layers

    class Matrix(layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, _: Any) -> None:
            self.matrix = self.add_weight(shape=(1000, 1000), name="matrix")

        def call(self, x: Any) -> Any:
            return keras().ops.matmul(x, self.matrix)

    with deferred_initialization():
        inputs = keras().Input((1000,))
        model = keras().Model(inputs, layers.Dense(3)(Matrix()(inputs)))
    found = sizing.estimate(model, batch_size=2)
    assert found.n_parameters == 1_003_003
    assert found.n_multiply_adds == 2 * (1000 * 1000 + 1000 * 3)
    assert found.prediction_bytes == 4 * (1_003_003 + 2 * 1000 + 2 * 3)


def test_the_multiply_adds_of_an_attention_block() -> None:
    model = network("Attention", (16, 32))
    per_photo = 16 * 32 * 96 + 2 * 16 * 16 * 32 + 16 * 32 * 32 + 16 * 32 * 3
    for batch in (1, 5):
        found = sizing.estimate(model, batch_size=batch)
        assert found.n_multiply_adds == batch * per_photo
    layer = found.layers[0]
    assert layer.layer_type == "Attention, traced"
    assert layer.output_shape == (5, 16, 32)
    # in training, at least queries, keys, values, their mixture and the shares of 4 heads are kept
    assert layer.activation_bytes >= 5 * 4 * (16 * 32 * 5 + 4 * 16 * 16)
    assert "(Attention, traced)" in found.derivation()


def test_windows_in_the_batch_axis() -> None:
    found = sizing.estimate(network("Windows", (8, 8, 6)), batch_size=5)
    assert found.layers[0].output_shape == (5, 6)
    assert found.layers[0].n_multiply_adds == 5 * 4 * 2 * 16 * 16 * 6


def test_what_prediction_holds_inside_a_traced_layer() -> None:
    """e^x is computed in the memory of x·W: never are twice 400 floats alive."""
    ops = keras().ops

    class Inside(keras().layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.wide = self.add_weight(shape=(shape[-1], 400), name="wide")

        def call(self, x: Any) -> Any:
            return ops.sum(ops.exp(ops.matmul(x, self.wide)), axis=-1, keepdims=True)

    with deferred_initialization():
        inputs = keras().Input((10,))
        model = keras().Model(inputs, Inside()(inputs))
    found = sizing.estimate(model, batch_size=2)
    assert found.prediction_bytes == 4 * (4000 + 2 * 400 + 2)


def test_a_layer_that_is_called_twice_counts_once() -> None:
    with deferred_initialization():
        inputs = keras().Input((16, 32))
        layer = own_layers()["Attention"]()
        model = keras().Model(inputs, layer(layer(inputs)))
    once = sizing.estimate(network("Attention", (16, 32)))
    for method in sizing.METHODS:
        found = sizing.estimate(model, method=method)
        assert found.n_parameters == model.count_params() == 32 * 96 + 33 * 32
        assert found.n_multiply_adds == 2 * (once.n_multiply_adds - 16 * 32 * 3)


def subclassed() -> Any:
    layers = keras().layers

    class Subclassed(keras().Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.mix = own_layers()["Product"]()
            inner = [layers.Input((7,)), layers.Dense(4, activation="relu")]
            self.inner = keras().Sequential(inner)
            self.head = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.head(keras().ops.relu(self.inner(self.mix(x))))

    return Subclassed()


def test_a_subclassed_model_by_its_input_shape() -> None:
    with pytest.raises(ArgumentError, match=r"no input shape yet\. Pass `input_shape`"):
        sizing.estimate(subclassed())
    model = subclassed()
    found = sizing.estimate(model, input_shape=(100,), batch_size=2)
    assert found.n_parameters == model.count_params() == 700 + 8 * 4 + 5 * 3
    assert found.n_multiply_adds == 2 * (700 + 7 * 4 + 4 * 3)
    assert len(found.layers) == 4  # a line for each layer inside
    nested = keras().Sequential([keras().Input((100,)), model, keras().layers.Dense(2)])
    assert sizing.estimate(nested).n_parameters == model.count_params() + 4 * 2


def test_a_sequential_model_by_its_input_shape() -> None:
    model = keras().Sequential([keras().layers.Dense(5)])
    assert sizing.estimate(model, input_shape=(7,)).n_parameters == 40


def test_weights_that_no_layer_holds_are_an_error() -> None:
    class Odd(keras().Model):  # type: ignore[misc, name-defined]
        pass

    inputs = keras().Input((4,))
    model = Odd(inputs, keras().layers.Dense(2)(inputs))
    model.extra = model.add_weight(shape=(5,), name="extra")
    with pytest.raises(UnknownLayerError, match=r"counts 10 parameters.*Keras 15"):
        sizing.estimate(model)


def test_a_call_that_needs_values_is_an_error() -> None:
    class Unable(keras().layers.Layer):  # type: ignore[misc, name-defined]
        def compute_output_spec(self, x: Any) -> Any:
            return keras().KerasTensor(x.shape, x.dtype)

        def call(self, x: Any) -> Any:
            return x if float(keras().ops.sum(x)) > 0 else -x

    inputs = keras().Input((4,))
    model = keras().Model(inputs, Unable()(inputs))
    with pytest.raises(UnknownLayerError, match=r"\(Unable\) has no description.*be traced"):
        sizing.estimate(model)


@pytest.mark.parametrize(
    ("name", "step", "within"),
    [
        ("Attention", "predict", 0.05),
        ("Attention", "train sgd_momentum", 0.12),
        ("Windows", "predict", 0.05),
        ("Windows", "train sgd_momentum", 0.05),
        ("Around", "predict", 0.05),
        ("Around", "train sgd_momentum", 0.05),
        ("Noisy", "predict", 0.05),
        ("Noisy", "train sgd_momentum", 0.2),
    ],
)
def test_the_xla_rule_is_close_to_the_plan(name: str, step: str, within: float) -> None:
    shape = {"Attention": (64, 64), "Windows": (32, 32, 16)}.get(name, (400,))
    model = network(name, shape)
    if len(model.outputs[0].shape) > 2:
        pooled = keras().layers.GlobalAveragePooling1D()(model.outputs[0])
        model = keras().Model(model.inputs, pooled)
    real = planned_bytes(model, 8, step)["total_bytes"]
    found = estimate_case(model, {"batch_size": 8, "step": step})["estimated_bytes"]
    assert found == pytest.approx(real, rel=within)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("keras_hub"), reason="keras_hub is not installed")
@pytest.mark.parametrize("family", CONFIGURATIONS)
@pytest.mark.filterwarnings("ignore:.*(has unbuilt state|a mask attached)")  # of Swin, in Keras
def test_backbones_of_keras_hub(family: str) -> None:
    with deferred_initialization():
        model = hub_classifier(family)
    for method in sizing.METHODS:
        found = sizing.estimate(model, batch_size=2, method=method)
        assert found.n_parameters == model.count_params()
        assert found.training_bytes > found.prediction_bytes


@pytest.mark.parametrize("activation", ["mish", "selu", "glu"])
def test_activations_without_a_rule_are_traced(activation: str) -> None:
    layers = keras().layers
    model = keras().Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(4, 3, activation=activation)]
    )
    for method in ("textbook", "xla"):
        found = sizing.estimate(model, batch_size=4, method=method)
        assert found.n_parameters == (3 * 3 * 3 + 1) * 4
        assert found.layers[0].layer_type == "Conv2D, traced"
        assert found.training_bytes > found.prediction_bytes > 4 * 8 * 8 * 3 * 4


def test_described_layers_need_a_rule_for_their_activation() -> None:
    layer = sizing.Conv2D(4, 3, activation="mish")
    with pytest.raises(UnknownLayerError, match="no rule for the activation 'mish'"):
        sizing.estimate([layer], input_shape=(8, 8, 3), method="xla")
