"""Callbacks of Keras in fine-tuning."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError
from tests.helpers.marks import slow


class Recorder(keras.callbacks.Callback):
    """Records every hook with its arguments and the names of its logs."""

    def __init__(self) -> None:
        super().__init__()
        self.hooks: list[tuple[Any, ...]] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.hooks.append(("on_train_begin",))

    def on_train_end(self, logs: Any = None) -> None:
        self.hooks.append(("on_train_end",))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.hooks.append(("on_epoch_begin", epoch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.hooks.append(("on_epoch_end", epoch))
        self.logs.append(logs)

    def on_test_begin(self, logs: Any = None) -> None:
        self.hooks.append(("on_test_begin",))

    def on_test_end(self, logs: Any = None) -> None:
        self.hooks.append(("on_test_end",))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.hooks.append(("on_train_batch_begin", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.hooks.append(("on_train_batch_end", batch))
        assert list(logs) == ["loss"]


class Stop(keras.callbacks.Callback):
    """Stops after a step, sends a signal, or fails."""

    def __init__(self, step: int, action: Any) -> None:
        super().__init__()
        self.step, self.action = step, action
        self.n = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.n += 1
        if self.n == self.step:
            self.action(self)


def stop_training(callback: Any) -> None:
    callback.model.stop_training = True


def fail(callback: Any) -> None:
    raise ZeroDivisionError("the user's own error")


@pytest.fixture(scope="module")
def splits(scenes: Path) -> sl.data.Splits:
    return sl.split(sl.scan(scenes))


def hooks_of_keras(n_epochs: int, n_steps: int) -> list[tuple[Any, ...]]:
    """The hooks that `keras.Model.fit` itself calls, for as many epochs and steps."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    recorder = Recorder()
    x, y = np.zeros((n_steps, 2)), np.zeros((n_steps, 1))
    model.fit(
        x, y, batch_size=1, epochs=n_epochs, validation_data=(x, y), callbacks=[recorder], verbose=0
    )
    return recorder.hooks


def test_hooks_are_those_of_keras_and_the_fit_is_the_same(
    splits: sl.data.Splits,
    fitted: sl.finetune.FitResult,
    fit_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    recorder, logger = Recorder(), keras.callbacks.CSVLogger(tmp_path / "log.csv")
    fit = sl.fit(splits, callbacks=[recorder, logger], **fit_settings)
    n_steps = -(-len(splits.train) // fit_settings["batch_size"])
    assert recorder.hooks == hooks_of_keras(2, n_steps)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, logs, epoch in zip(rows, recorder.logs, fit.history[1:], strict=True):
        assert int(row["epoch"]) == epoch.number - 1
        expected = {
            "loss": epoch.train_loss,
            "val_loss": epoch.validation_loss,
            "val_accuracy": epoch.validation_accuracy,
            "learning_rate": epoch.learning_rate,
        }
        assert logs == expected
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected)
    np.testing.assert_array_equal(fit.test_probabilities, fitted.test_probabilities)


def test_callback_stops_training(splits: sl.data.Splits, fit_settings: dict[str, Any]) -> None:
    recorder = Recorder()
    fit = sl.fit(splits, callbacks=[Stop(2, stop_training), recorder], **fit_settings)
    assert fit.stopped == "callback"
    assert len(fit.history) == 2  # the linear probe, and the epoch that was cut short
    assert recorder.hooks[-2:] == [("on_epoch_end", 0), ("on_train_end",)]
    assert fit.settings.epochs == ((2, 0.25),)  # two of the four steps of the first of two epochs


@pytest.mark.nightly
def test_early_stopping_of_keras_ends_after_two_epochs(
    splits: sl.data.Splits, fit_settings: dict[str, Any]
) -> None:
    early = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9)
    fit = sl.fit(splits, callbacks=[early], **fit_settings | {"epochs": 3})
    assert fit.stopped == "callback"
    assert len(fit.history) == 3  # the linear probe, the best epoch, and one without improvement


@pytest.mark.parametrize("step", [*slow(2), 5])
def test_error_in_a_callback_leaves_a_checkpoint_to_resume(
    splits: sl.data.Splits,
    fitted: sl.finetune.FitResult,
    fit_settings: dict[str, Any],
    step: int,
) -> None:
    with pytest.raises(ZeroDivisionError, match="the user's own error"):
        sl.fit(splits, callbacks=[Stop(step, fail)], **fit_settings)
    recorder = Recorder()
    fit = sl.fit(splits, callbacks=[recorder], resume=True, **fit_settings)
    batches = [hook for hook in recorder.hooks if hook[0] == "on_train_batch_end"]
    n_steps = -(-len(splits.train) // fit_settings["batch_size"])
    assert len(batches) == 2 * n_steps - step  # the rest
    np.testing.assert_array_equal(fit.test_probabilities, fitted.test_probabilities)
    fit.remove_checkpoint()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_signal_stops_and_resumes_with_callbacks(
    splits: sl.data.Splits, fitted: sl.finetune.FitResult, fit_settings: dict[str, Any]
) -> None:
    interrupt = Stop(3, lambda _: signal.raise_signal(signal.SIGTERM))
    recorder = Recorder()
    fit = sl.fit(splits, callbacks=[interrupt, recorder], **fit_settings)
    assert fit.stopped == "SIGTERM"
    assert recorder.hooks[-1] == ("on_train_end",)
    again = sl.fit(splits, callbacks=[Recorder()], resume=True, **fit_settings)
    np.testing.assert_array_equal(again.test_probabilities, fitted.test_probabilities)
    again.remove_checkpoint()


@pytest.mark.parametrize("callbacks", [[print], "csv", [keras.callbacks.CSVLogger], 3])
def test_callbacks_of_another_type(splits: sl.data.Splits, callbacks: Any) -> None:
    with pytest.raises(ArgumentError, match="`callbacks` must be a list of instances of keras"):
        sl.fit(splits, callbacks=callbacks)
