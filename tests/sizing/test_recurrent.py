"""The shapes of recurrent layers, against Keras."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from scenelearn import sizing
from scenelearn.errors import ArgumentError
from tests.helpers.networks import keras

ALL = list(itertools.product(["SimpleRNN", "LSTM", "GRU"], [False, True], [False, True]))


@pytest.mark.parametrize(("cell", "sequences", "states"), ALL)
def test_shapes_equal_those_of_keras(cell: str, sequences: bool, states: bool) -> None:
    found = sizing.recurrent_shapes(
        units=6, batch_size=2, timesteps=5, features=3,
        return_sequences=sequences, return_state=states, cell=cell,
    )  # fmt: skip
    layer = getattr(keras().layers, cell)(6, return_sequences=sequences, return_state=states)
    outputs = layer(np.zeros((2, 5, 3), "float32"))
    real = [tuple(one.shape) for one in (outputs if states else [outputs])]
    computed = [found.output_shape, *(tuple(axis.size for axis in s) for s in found.states)]
    assert computed == real
    assert found.input_shape == (2, 5, 3)
    assert [tuple(v.shape) for v in layer.weights] == [w.shape for w in found.weights]


@pytest.mark.parametrize("mode", ["concat", "sum"])
def test_bidirectional_layers_equal_keras(mode: str) -> None:
    found = sizing.recurrent_shapes(
        units=[4, 6], batch_size=2, timesteps=5, features=3, bidirectional=True, merge_mode=mode
    )
    layers = keras().layers
    x = np.zeros((2, 5, 3), "float32")
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode=mode)(x)
    x = layers.Bidirectional(layers.LSTM(6), merge_mode=mode)(x)
    assert found.output_shape == tuple(x.shape)


def test_the_explanation_names_three_dimensions() -> None:
    found = sizing.recurrent_shapes(
        units=64, batch_size=8, timesteps=50, features=10, return_state=True
    )
    text = found.explanation()
    assert "**3 dimensions**, (batch, time, features) = (8, 50, 10)" in text
    assert "2 dimensions, (batch, features) = (8, 10)" in text
    assert "h and the cell state c" in text
    assert "4 × [(10 + 64) × 64 + 64] = 19,200" in text  # 4 · 64 · (10 + 64 + 1)
    assert "time" in str(found)
    assert repr(found) == "<RecurrentShapes: LSTM, (8, 50, 10) → (8, 64)>"
    assert json.loads(json.dumps(found.to_json()))["input"][1]["name"] == "time"
    assert "<table>" in found._repr_html_()


def test_axes_without_a_size_are_shown_as_any() -> None:
    found = sizing.recurrent_shapes(units=4, features=3, return_sequences=True)
    assert found.input_shape == (None, None, 3)
    assert found.output_shape == (None, None, 4)
    assert "(any, any, 3)" in found.explanation()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"units": 0}, "units=0"),
        ({"units": []}, "units=[]"),
        ({"features": 0}, "features=0"),
        ({"timesteps": -1}, "timesteps=-1"),
        ({"cell": "RNN2"}, "RNN2"),
        ({"bidirectional": True, "merge_mode": "max"}, "max"),
    ],
)
def test_errors_say_what_was_received(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        sizing.recurrent_shapes(**{"units": 4, "features": 3, **settings})
    assert words in str(caught.value)
