"""Receptive fields against gradients: which inputs an output element depends on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scenelearn import sizing
from tests.helpers.networks import build_application, keras

LENGTH = 121


def _one_axis(*made: Any) -> Any:
    x = inputs = keras().layers.Input((LENGTH, 1))
    for layer in made:
        x = layer(x)
    return keras().Model(inputs, x)


def _branches() -> Any:
    layers = keras().layers
    x = inputs = layers.Input((LENGTH, 1))
    wide = layers.Conv1D(1, 7, padding="same", kernel_initializer="ones")(x)
    narrow = layers.Conv1D(1, 2, padding="same", kernel_initializer="ones")(x)
    return keras().Model(inputs, layers.Add()([wide, narrow]))


def conv(taps: int, **more: Any) -> Any:
    return keras().layers.Conv1D(1, taps, kernel_initializer="ones", **more)


@pytest.mark.skipif(keras().backend.backend() != "jax", reason="only JAX traces layers")
def test_the_field_of_a_traced_layer_is_unknown() -> None:
    model = _one_axis(conv(3, padding="same"), conv(3, padding="same", activation="selu"))
    first, second = sizing.estimate(model).layers
    assert first.receptive_field is not None
    assert second.receptive_field is None


NETWORKS = {
    "valid": lambda: _one_axis(conv(3, strides=2), conv(4), conv(5, strides=3)),
    "same": lambda: _one_axis(
        conv(3, strides=2, padding="same"), conv(4, padding="same"), conv(2, padding="same")
    ),
    "dilated": lambda: _one_axis(conv(3, dilation_rate=4, padding="same"), conv(3)),
    "causal": lambda: _one_axis(conv(3, padding="causal"), conv(3, padding="causal", strides=2)),
    "pooled": lambda: _one_axis(
        conv(3, padding="same"), keras().layers.AveragePooling1D(3, 2, padding="same"), conv(3)
    ),
    "padded": lambda: _one_axis(
        keras().layers.ZeroPadding1D((3, 1)), conv(4, strides=2), keras().layers.Cropping1D((2, 0))
    ),
    "upsampled": lambda: _one_axis(conv(3, strides=2), keras().layers.UpSampling1D(2), conv(3)),
    "transposed": lambda: _one_axis(
        conv(3, strides=2),
        keras().layers.Conv1DTranspose(1, 4, strides=2, kernel_initializer="ones"),
    ),
    "transposed same": lambda: _one_axis(
        conv(3),
        keras().layers.Conv1DTranspose(1, 3, strides=3, padding="same", kernel_initializer="ones"),
    ),
    "branches": _branches,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_receptive_field_is_what_the_output_depends_on(name: str) -> None:
    model = NETWORKS[name]()
    field = sizing.estimate(model).layers[-1].receptive_field
    n_out = model.output_shape[1]

    def seen(place: int) -> tuple[int, int]:
        """First and last input that moves one output element: all weights are 1."""
        one = np.eye(LENGTH, dtype=np.float32)[:, :, None]
        moved = np.flatnonzero(np.asarray(model(one))[:, place, 0])
        return int(moved[0]), int(moved[-1])

    (size,), (stride,), (start,) = field.size, field.stride, field.start
    middle = n_out // 2
    places = range(middle - 3, middle + 3)
    spans = [seen(place) for place in places]
    assert max(last - first + 1 for first, last in spans) <= size
    for place, (first, last) in zip(places, spans, strict=True):
        center, reach = start + place * stride, (size - 1) / 2
        if stride < 1 or name in {"upsampled", "transposed"}:  # some see a little less
            assert center - reach - 1 <= first <= last <= center + reach + 1
        else:
            assert (first, last) == (center - reach, center + reach)


def test_the_textbook_network_has_fields_of_fifteen_pixels_with_stride_eight() -> None:
    layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
    rows = sizing.estimate(layers, input_shape=(200, 300, 3)).layers
    assert [row.receptive_field.size for row in rows] == [(3, 3), (7, 7), (15, 15)]
    assert rows[-1].receptive_field.stride == (8, 8)
    # "same" pads an even height at the bottom only; 25 after 50 rows, and 38 after 75 columns,
    # which pads on both sides
    assert rows[-1].receptive_field.start == (7.0, 3.0)


def test_rectangular_windows_have_one_field_per_axis() -> None:
    (row,) = sizing.estimate(
        [sizing.Conv2D(4, (1, 5), strides=(1, 2))], input_shape=(9, 9, 3)
    ).layers
    assert row.receptive_field == sizing.ReceptiveField(size=(1, 5), stride=(1, 2), start=(0.0, 2))


def test_known_networks_have_the_published_receptive_fields() -> None:
    """Araujo, Norris and Sim (2019), table 1: VGG16 212 at stride 32, ResNet50 483."""
    for name, layer, size in (("VGG16", "block5_pool", 212), ("ResNet50", "conv5_block3_out", 483)):
        model = build_application(name, (224, 224, 3))
        row = next(row for row in sizing.estimate(model).layers if row.name.endswith(layer))
        assert row.receptive_field.size == (size, size)
        assert row.receptive_field.stride == (32, 32)


def test_layers_that_depend_on_the_whole_input_have_no_field() -> None:
    layers = keras().layers
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(x)
    gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D(name="pooled")(x))
    x = layers.Multiply(name="gated")([x, gate])
    model = keras().Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    fields = {row.name: row.receptive_field for row in sizing.estimate(model).layers}
    assert fields["pooled"] is None
    assert fields["head"] is None
    assert fields["gated"].size == fields["conv"].size == (3, 3)
    sequence = [sizing.LSTM(4, return_sequences=True)]
    assert sizing.estimate(sequence, input_shape=(9, 3)).layers[0].receptive_field is None
