"""Sizing against Keras itself: every application, and random networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scenelearn import sizing
from scenelearn.errors import UnknownBackboneError, UnknownLayerError
from tests.helpers.marks import nightly, slow
from tests.helpers.networks import build_application, deferred_initialization, keras

APPLICATIONS = sorted(
    name
    for name, value in vars(keras().applications).items()
    if callable(value) and name[0].isupper()
)
ONE_PER_FAMILY = [
    "ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "ResNet50V2",
    "VGG16", "Xception",
]  # fmt: skip
OTHERS = sorted(set(APPLICATIONS) - set(ONE_PER_FAMILY))


def compare_to_keras(model: Any, batch: int = 2) -> None:
    """Parameters, trainable parameters, and the shape of every layer's output."""
    inputs = tuple(tuple(size or 64 for size in tensor.shape[1:]) for tensor in model.inputs)
    found = sizing.estimate(model, input_shape=inputs, batch_size=batch)
    assert found.n_parameters == model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert found.n_trainable_parameters == trainable
    shapes = {layer.name: layer.output_shape for layer in found.layers}
    outputs = {id(tensor) for tensor in model.outputs}
    for layer in model.layers:
        if layer.name in shapes and len(layer._inbound_nodes) == 1:
            tensor = layer._inbound_nodes[0].outputs[0]
            assert agrees(shapes[layer.name], tensor), layer.name
            outputs.discard(id(tensor))
    assert not outputs


def agrees(shape: tuple[int, ...], tensor: Any) -> bool:
    """Whether a shape is the tensor's wherever the tensor's is known."""
    known = tuple(tensor.shape)[1:]
    return len(known) + 1 == len(shape) and all(
        size in {None, own} for size, own in zip(known, shape[1:], strict=True)
    )


@pytest.mark.parametrize("name", slow(*ONE_PER_FAMILY) + nightly(*OTHERS))
def test_every_application_equals_keras(name: str) -> None:
    compare_to_keras(build_application(name))


def test_a_frozen_model_trains_nothing() -> None:
    model = build_application("MobileNetV2", (64, 64, 3))
    model.trainable = False
    assert sizing.estimate(model).n_trainable_parameters == 0
    assert sizing.estimate(model).n_parameters == model.count_params()


def test_shared_layers_count_once_and_nested_models_are_expanded() -> None:
    layers = keras().layers
    x = layers.Input((8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    inner = keras().Sequential([layers.Input((8, 8, 4)), layers.Conv2D(4, 1)], name="inner")
    model = keras().Model(x, layers.Add()([inner(shared(shared(x))), inner(x)]))
    found = sizing.estimate(model)
    assert found.n_parameters == model.count_params()
    assert [layer.name for layer in found.layers] == [
        "shared", "shared_1", f"inner/{inner.layers[0].name}", f"inner/{inner.layers[0].name}_1",
        model.layers[-1].name,
    ] or sorted(layer.name.split("/")[0] for layer in found.layers) == sorted(
        ["shared", "shared_1", "inner", "inner", model.layers[-1].name]
    )  # fmt: skip


@pytest.mark.parametrize("name", ["MultiHeadAttention", "Attention"])
def test_attention_reads_query_value_and_key_by_name_and_skips_masks(name: str) -> None:
    layers = keras().layers
    x, y, z = layers.Input((10, 16)), layers.Input((7, 16)), layers.Input((7, 16))
    mask = layers.Input((10, 7), dtype="bool")
    if name == "Attention":
        masks = [layers.Input((10,), dtype="bool"), layers.Input((7,), dtype="bool")]
        out = layers.Attention()([x, y, z], mask=masks)
        compare_to_keras(keras().Model([x, y, z, *masks], out))
        return
    attention = layers.MultiHeadAttention(2, 8)
    out, scores = attention(
        key=z, value=y, query=x, attention_mask=mask, return_attention_scores=True
    )
    model = keras().Model([x, y, z, mask], [out, scores])
    found = sizing.estimate(model, input_shape=((10, 16), (7, 16), (7, 16), (10, 7)))
    assert found.n_parameters == model.count_params()
    assert found.layers[-1].output_shape == (1, 10, 16)
    products = (10 + 7 + 7 + 10) * 16 * 16 + 2 * 10 * 7 * 16  # projections, and both of attention
    assert found.n_multiply_adds == products


@pytest.mark.parametrize("name", ["matmul", "dot", "tensordot", "inner", "einsum", "conv"])
def test_products_are_counted_or_refused(name: str) -> None:
    ops, layers = keras().ops, keras().layers
    x, y = layers.Input((6, 4), batch_size=1), layers.Input((4, 5), batch_size=1)
    inputs, n = [x, y], 6 * 4 * 5
    if name == "matmul":
        out = ops.matmul(x, y)
    elif name == "einsum":
        out = ops.einsum("bij,bjk->bik", x, y)
    elif name == "conv":
        out, inputs, n = ops.conv(x, np.ones((3, 4, 7), "float32"), padding="same"), [x], 3 * 6 * 28
    elif name == "tensordot":
        out = ops.tensordot(x, y, axes=[[2], [1]])
    elif name == "dot":
        out = ops.dot(x, y)
    else:
        out = ops.inner(x, ops.transpose(y, (0, 2, 1)))
    model = keras().Model(inputs, out)
    if keras().backend.backend() == "jax":
        assert sizing.estimate(model).n_multiply_adds == n
    else:
        with pytest.raises(UnknownLayerError, match=f"operation {name} .*KERAS_BACKEND=jax"):
            sizing.estimate(model)


@pytest.mark.skipif(keras().backend.backend() != "jax", reason="only JAX traces layers")
def test_weights_that_two_layers_share_count_once() -> None:
    layers, ops = keras().layers, keras().ops

    class Transposed(layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, dense: Any) -> None:
            super().__init__()
            self.dense = dense

        def build(self, _: Any) -> None:
            self.bias = self.add_weight(shape=(self.dense.kernel.shape[0],))

        def call(self, x: Any) -> Any:
            return ops.matmul(x, ops.transpose(self.dense.kernel)) + self.bias

    x, dense = layers.Input((12,)), layers.Dense(5)
    model = keras().Model(x, Transposed(dense)(dense(x)))
    found = sizing.estimate(model)
    assert found.n_parameters == model.count_params() == 12 * 5 + 5 + 12


def test_frozen_layers_inside_of_wrappers_train_nothing() -> None:
    layers = keras().layers
    x = layers.Input((6, 4))
    y = layers.TimeDistributed(layers.Dense(3, trainable=False))(x)
    y = layers.Bidirectional(layers.LSTM(2, trainable=False))(y)
    model = keras().Model(x, layers.Dense(1)(y))
    assert sizing.estimate(model).n_trainable_parameters == 5
    assert sizing.estimate(model, trainable=True).n_trainable_parameters == model.count_params()


def test_a_custom_layer_is_traced() -> None:
    class Block(keras().layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = keras().layers.Dense(8)
            self.second = keras().layers.Dense(4)

        def build(self, shape: Any) -> None:
            self.first.build(shape)
            self.second.build((*shape[:-1], 8))

        def call(self, x: Any) -> Any:
            return keras().ops.relu(self.second(self.first(x))) + x

    x = keras().Input((4,))
    model = keras().Model(x, Block()(x))
    found = sizing.estimate(model, batch_size=3)
    assert found.n_parameters == model.count_params() == 5 * 8 + 9 * 4
    assert found.n_multiply_adds == 3 * (4 * 8 + 8 * 4)


@pytest.mark.parametrize(
    ("name", "kind", "width"),
    [
        ("mobilenet_v2_0.35", "MobileNetV2", 0.35),
        ("MobileNet-V1_0.25", "MobileNet", 0.25),
        ("mobilenet_v3_small_0.75", "MobileNetV3Small", 0.75),
    ],
)
def test_a_mobilenet_with_a_width_equals_keras(name: str, kind: str, width: float) -> None:
    with deferred_initialization():
        theirs = getattr(keras().applications, kind)(
            weights=None, input_shape=(96, 96, 3), alpha=width
        )
    assert (
        sizing.estimate(build_application(name, (96, 96, 3))).n_parameters == theirs.count_params()
    )


@pytest.mark.parametrize("name", ["resnet50_0.5", "mobilenet_v2_0.0", "efficientnet_b0_1.0"])
def test_a_width_that_the_network_does_not_have_is_rejected(name: str) -> None:
    with pytest.raises(UnknownBackboneError, match=rf"has no width .*Received: '{name}'.*_0\.35"):
        build_application(name)


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model and of those nested in it."""
    for layer in model.layers:
        yield from leaves(layer) if hasattr(layer, "layers") else [layer]


@pytest.mark.parametrize(
    "name", slow("MobileNetV2", "ConvNeXtTiny") + nightly("ResNet50", "EfficientNetB0")
)
@pytest.mark.skipif(keras().backend.backend() != "jax", reason="counts what XLA counts")
def test_multiply_adds_equal_those_that_xla_counts(name: str) -> None:
    import jax

    layers = keras().layers
    model = build_application(name, (64, 64, 3))
    total = 0
    for layer in leaves(model):  # one product at a time, so that XLA counts nothing else
        if isinstance(layer, layers.Dense):
            shape = layer.input.shape
            work = jax.jit(lambda a, b: a @ b).lower(
                jax.ShapeDtypeStruct((math.prod(shape[1:-1]), shape[-1]), "float32"),
                jax.ShapeDtypeStruct(layer.kernel.shape, "float32"),
            )
            total += work.cost_analysis()["flops"] / 2
        elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            n_channels, out = layer.input.shape[-1], layer.output.shape
            groups = n_channels if isinstance(layer, layers.DepthwiseConv2D) else layer.groups
            kernel = (*layer.kernel.shape[:2], n_channels // groups, out[-1])
            # XLA leaves out taps on padding, sizing counts them: "valid" on an input padded
            # beforehand has the same outputs and no such taps
            padded = tuple(
                (n - 1) * stride + width
                for n, stride, width in zip(out[1:3], layer.strides, kernel[:2], strict=True)
            )
            work = jax.jit(
                lambda a, b, s=layer.strides, g=groups: jax.lax.conv_general_dilated(
                    a, b, s, "VALID", feature_group_count=g,
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
            ).lower(
                jax.ShapeDtypeStruct((1, *padded, n_channels), "float32"),
                jax.ShapeDtypeStruct(kernel, "float32"),
            )  # fmt: skip
            total += work.cost_analysis()["flops"] / 2
    found = sizing.estimate(model)
    assert found.n_multiply_adds == pytest.approx(total, rel=0.02)


# Random networks


def image_network(draw: Any) -> Any:
    layers = keras().layers
    with deferred_initialization():
        x = inputs = layers.Input((draw(st.integers(9, 20)), draw(st.integers(9, 20)), 4))
        for _ in range(draw(st.integers(1, 6))):
            x = _random_layer(draw, layers, x)
        if draw(st.booleans()):
            x = layers.Flatten()(x)
            x = layers.Dense(draw(st.integers(1, 9)), use_bias=draw(st.booleans()))(x)
        return keras().Model(inputs, x)


_KINDS = ["conv", "depth", "separable", "transposed", "pool", "norm", "merge", "pad", "move"]


def _random_layer(draw: Any, layers: Any, x: Any) -> Any:
    small = min(x.shape[1:3])
    kind = draw(st.sampled_from(_KINDS))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = draw(st.sampled_from(["same", "valid"])) if small > 6 else "same"
    strides = draw(st.integers(1, 2))
    dilation = draw(st.integers(1, 2)) if strides == 1 else 1
    bias = draw(st.booleans())
    if kind == "conv":
        groups = draw(st.sampled_from([g for g in (1, 2, 4) if x.shape[-1] % g == 0]))
        filters = groups * draw(st.integers(1, 3))
        return layers.Conv2D(
            filters, kernel, strides, padding, dilation_rate=dilation, groups=groups, use_bias=bias
        )(x)
    if kind == "depth":
        times = draw(st.integers(1, 2))
        return layers.DepthwiseConv2D(
            kernel, strides, padding, depth_multiplier=times, dilation_rate=dilation, use_bias=bias
        )(x)
    if kind == "separable":
        return layers.SeparableConv2D(draw(st.integers(1, 9)), kernel, strides, padding)(x)
    if kind == "transposed":
        return layers.Conv2DTranspose(draw(st.integers(1, 5)), kernel, strides, padding)(x)
    if kind == "pool":
        pool = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
        return pool(draw(st.integers(1, 2)), draw(st.integers(1, 2)), padding)(x)
    if kind == "norm":
        norm = draw(st.sampled_from([
            layers.BatchNormalization(scale=bias), layers.LayerNormalization(center=bias),
            layers.GroupNormalization(1), layers.RMSNormalization(), layers.PReLU(),
        ]))  # fmt: skip
        norm.trainable = draw(st.booleans())
        return norm(x)
    if kind == "merge":
        y = layers.Conv2D(x.shape[-1], 3, padding="same", activation="relu")(x)
        merge = draw(st.sampled_from([layers.Add, layers.Concatenate, layers.Multiply]))
        return merge()([x, y])
    if kind == "pad":
        return layers.ZeroPadding2D(draw(st.integers(0, 2)))(x)
    return layers.UpSampling2D(draw(st.integers(1, 2)))(layers.Activation("gelu")(x))


@given(st.data())
@settings(
    max_examples=350, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_random_image_networks_equal_keras(data: st.DataObject) -> None:
    compare_to_keras(image_network(data.draw))


def sequence_network(draw: Any) -> Any:
    layers = keras().layers
    with deferred_initialization():
        if draw(st.booleans()):
            inputs = layers.Input((draw(st.integers(4, 9)),), dtype="int32")
            x = layers.Embedding(20, draw(st.integers(1, 6)))(inputs)
        else:
            x = inputs = layers.Input((draw(st.integers(4, 9)), draw(st.integers(1, 6))))
        for _ in range(draw(st.integers(1, 3))):
            units = draw(st.integers(1, 7))
            kind = draw(st.sampled_from(["rnn", "lstm", "gru", "both", "each", "mha", "conv"]))
            if kind == "mha":
                attention = layers.MultiHeadAttention(
                    draw(st.integers(1, 3)), units, value_dim=draw(st.sampled_from([None, 3]))
                )
                x = attention(x, x)
            elif kind == "each":
                x = layers.TimeDistributed(layers.Dense(units))(x)
            elif kind == "conv":
                x = layers.Conv1D(units, 2, padding=draw(st.sampled_from(["same", "causal"])))(x)
            elif kind == "both":
                mode = draw(st.sampled_from(["concat", "sum"]))
                inner = layers.LSTM(units, return_sequences=True)
                x = layers.Bidirectional(inner, merge_mode=mode)(x)
            elif kind == "gru":
                after = draw(st.booleans())
                x = layers.GRU(units, return_sequences=True, reset_after=after)(x)
            else:
                cell = layers.SimpleRNN if kind == "rnn" else layers.LSTM
                x = cell(units, return_sequences=True, use_bias=draw(st.booleans()))(x)
        if draw(st.booleans()):
            x = layers.LSTM(3)(x)
        return keras().Model(inputs, x)


@given(st.data())
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_random_sequence_networks_equal_keras(data: st.DataObject) -> None:
    compare_to_keras(sequence_network(data.draw))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "n_inputs"),
    [
        (
            "GroupQueryAttention",
            {"head_dim": 32, "num_query_heads": 4, "num_key_value_heads": 2},
            2,
        ),
        (
            "GroupQueryAttention",
            {"head_dim": 8, "num_query_heads": 6, "num_key_value_heads": 3, "use_bias": False},
            3,
        ),
        ("MultiHeadAttention", {"num_heads": 2, "key_dim": 8, "value_dim": 5}, 3),
        ("MultiHeadAttention", {"num_heads": 2, "key_dim": 8, "output_shape": (3, 4)}, 2),
        ("EinsumDense", {"equation": "...x,xy->...y", "output_shape": 7, "bias_axes": "y"}, 1),
        ("EinsumDense", {"equation": "abc,cde->abde", "output_shape": (None, 3, 4)}, 1),
    ],
)
def test_attention_and_einsum_equal_keras(
    name: str, settings: dict[str, Any], n_inputs: int
) -> None:
    layers = keras().layers
    inputs = [layers.Input((10, 16)) for _ in range(n_inputs)]
    compare_to_keras(keras().Model(inputs, getattr(layers, name)(**settings)(*inputs)))
