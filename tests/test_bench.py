"""Benches whose mistakes nobody would see in their numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scenelearn._backend import keras
from scenelearn.finetune import FitResult
from tests.bench._whole import whole
from tests.bench.frozen_maps import below_what_trains, handed_on

MAP = 3 * 3 * 4 * 4  # bytes, of 3 by 3 by 4 numbers


def test_a_fit_that_a_signal_ended_is_no_measurement(fitted: FitResult) -> None:
    for stopped in ("", "time", "not finite"):  # what a user gets, too
        whole(replace(fitted, stopped=stopped))
    for stopped in ("SIGINT", "SIGTERM"):
        with pytest.raises(SystemExit, match=rf"stopped \({stopped}\)"):
            whole(replace(fitted, stopped=stopped))


def test_what_is_handed_on_is_all_that_later_layers_read() -> None:
    k = keras()
    image = k.Input((3, 3, 4))
    first = k.layers.Conv2D(4, 1, name="first")(image)
    second = k.layers.Conv2D(4, 1, name="second")(first)
    end = k.layers.Add(name="sum")([first, second])
    operations = k.Model(image, end).operations
    names = [one.name for one in operations]
    handed = {
        name: sum(4 * int(np.prod(one.shape[1:])) for one in handed_on(operations, number))
        for number, name in enumerate(names)
    }
    assert [handed[name] for name in ("first", "second", "sum")] == [MAP, MAP, 2 * MAP]


def test_below_what_trains_nothing_trains_and_its_maps_are_coarse() -> None:
    below, kept = below_what_trains("mobilenet_0.25", 64)
    assert not below.trainable_variables
    # Block 6 makes maps of 4 by 4. Those of 8 by 8 begin in block 4, whose depthwise convolution
    # has stride 2 and, at a quarter of the width, 32 channels; its 1×1 convolution makes 64.
    assert kept == 8 * 8 * 32 * 4
