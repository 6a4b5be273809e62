"""Checkpoints, resumed and repeated fits, signals, NaN, full disks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError, ManifestError, PathMissingError
from scenelearn.finetune import FitResult
from scenelearn.finetune._repeated_fits import _restore_splits
from tests.helpers import REPOSITORY
from tests.helpers.networks import keras
from tests.helpers.patches import save_at_each_step


@pytest.fixture(autouse=True)
def _default_handlers() -> Iterator[None]:
    """Handlers as in the foreground of a shell; in the background SIGINT is ignored."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without the checkpoints of other tests."""
    monkeypatch.setenv("SCENELEARN_CACHE", str(tmp_path_factory.mktemp("cache")))


# Resuming


class Digests(keras().callbacks.Callback):  # type: ignore[misc]
    """The digest of weights and optimizer after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, str] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        digest = hashlib.sha256(json.dumps(logs).encode())
        for variable in (*self.model.variables, *self.model.optimizer.variables):
            digest.update(np.asarray(variable).tobytes())
        self.found[epoch] = digest.hexdigest()


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> Digests:
    """Records a digest after each epoch. A checkpoint is written at each step."""
    save_at_each_step(monkeypatch)
    return Digests()


@pytest.fixture(scope="module")
def uninterrupted(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> tuple[FitResult, dict[int, str]]:
    """An uninterrupted fit, and its digests."""
    digests = Digests()
    return sl.fit(fitted.splits, **fit_settings, callbacks=[digests]), digests.found


class CrashError(Exception):
    """Simulates the end of the process."""


def at(what: str, n_done: int, act: Callable[[], Any]) -> Callable[[str, int, int], None]:
    """A progress function that calls `act` when `n_done` of one kind of work is done."""

    def progress(name: str, done: int, _: int) -> None:
        if (name, done) == (what, n_done):
            act()

    return progress


def crash() -> None:
    raise CrashError


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def runs() -> list[Path]:
    return sorted(Path(os.environ["SCENELEARN_CACHE"]).glob("runs/*/*"))


def same(fit: FitResult, other: FitResult) -> bool:
    """Whether two fits have the same probabilities and history, bit for bit."""

    def history(result: FitResult) -> str:  # as text, since NaN differs from NaN
        return str([dataclasses.astuple(replace(epoch, seconds=0.0)) for epoch in result.history])

    return np.array_equal(fit.test_probabilities, other.test_probabilities) and (
        history(fit) == history(other)
    )


def test_same_seed_gives_the_same_result(
    fitted: FitResult, uninterrupted: tuple[FitResult, dict[int, str]]
) -> None:
    assert same(uninterrupted[0], fitted)


def test_resumed_fit_is_identical_bit_for_bit(
    uninterrupted: tuple[FitResult, dict[int, str]],
    fit_settings: dict[str, Any],
    digests: Digests,
    tmp_path: Path,
) -> None:
    fit, expected = uninterrupted
    settings = fit_settings | {"callbacks": [digests], "resume": True}
    # In the first epoch, at its end, in the second, and after training.
    for what, n_done in [("fine-tuning", 2), ("fine-tuning", 4), ("fine-tuning", 7)]:
        with pytest.raises(CrashError):
            sl.fit(fit.splits, **settings, progress=at(what, n_done, crash))
    with pytest.raises(CrashError):
        sl.fit(fit.splits, **settings, progress=at("testing", 0, crash))
    again = sl.fit(fit.splits, **settings)
    assert digests.found == expected
    assert same(again, fit)
    assert again.phases[0].name == "earlier run"
    assert again.seconds == pytest.approx(sum(one.seconds for one in again.phases), rel=0.2)
    with pytest.raises(ArgumentError):
        again.save(tmp_path / "scenes.h5")
    assert len(runs()) == 1  # until the classifier is safe
    again.save(tmp_path / "scenes.keras")
    assert runs() == []


@pytest.mark.slow
def test_run_resumed_with_another_number_of_threads_is_identical(
    fitted: FitResult, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "weights": weights_file, "backbone": "mobilenet_0.25", "image_px": 64, "epochs": 3,
        "batch_size": 20, "recipe": {"cutmix_alpha": 1},
    }  # fmt: skip
    save_at_each_step(monkeypatch)
    monkeypatch.setenv("SCENELEARN_THREADS", "1")
    whole, parts = Digests(), Digests()
    fit = sl.fit(fitted.splits, **settings, callbacks=[whole])
    assert sorted(whole.found) == [0, 1, 2]
    settings["callbacks"] = [parts]
    monkeypatch.setenv("SCENELEARN_THREADS", "2")
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **settings, progress=at("fine-tuning", 4, crash))
    monkeypatch.setenv("SCENELEARN_THREADS", "8")
    again = sl.fit(fitted.splits, **settings, resume=True)
    assert again.phases[0].name == "earlier run"
    assert parts.found == whole.found
    assert same(again, fit)


@pytest.mark.slow
def test_signal_in_a_step_returns_the_best_so_far_and_can_be_resumed(
    uninterrupted: tuple[FitResult, dict[int, str]],
    fit_settings: dict[str, Any],
    digests: Digests,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    fit, expected = uninterrupted
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    seen: list[int] = []

    def terminate(what: str, done: int, _: int) -> None:
        if what == "fine-tuning":
            seen.append(done)
            if done == 6:
                signal.raise_signal(signal.SIGTERM)

    settings = fit_settings | {"callbacks": [digests]}
    stopped = sl.fit(fit.splits, **settings, progress=terminate)
    assert seen[-1] <= 7
    assert stopped.stopped == stopped.to_json()["stopped"] == "SIGTERM"
    assert [epoch.number for epoch in stopped.history] == [0, 1]
    assert "Stopped by SIGTERM in epoch 2 of 2" in caplog.text
    assert "stopped: SIGTERM" in stopped.phases[4].note
    assert "stopped early: SIGTERM" in str(stopped)
    assert repr(stopped).endswith("stopped early: SIGTERM>")
    assert stopped.evaluation.n_photos == fit.evaluation.n_photos
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    stopped.save(tmp_path / "scenes.keras")
    assert len(runs()) == 1

    again = sl.fit(fit.splits, **settings, resume=True)
    assert digests.found == expected
    assert same(again, fit)
    assert not again.stopped
    again.save(tmp_path / "scenes.keras")
    assert runs() == []


@pytest.mark.slow
def test_signal_during_validation(
    uninterrupted: tuple[FitResult, dict[int, str]], fit_settings: dict[str, Any]
) -> None:
    class Interrupt(keras().callbacks.Callback):  # type: ignore[misc]
        def on_test_begin(self, logs: Any = None) -> None:
            interrupt()

    fit, _ = uninterrupted
    stopped = sl.fit(fit.splits, **fit_settings, callbacks=[Interrupt()])
    assert (stopped.stopped, len(stopped.history)) == ("SIGINT", 1)
    steps: list[int] = []

    def progress(what: str, done: int, _: int) -> None:
        if what == "fine-tuning":
            steps.append(done)

    assert same(sl.fit(fit.splits, **fit_settings, resume=True, progress=progress), fit)
    assert steps[0] == 5  # the four steps of the first epoch are not repeated


@pytest.mark.slow
def test_signal_during_interpolation(
    fitted: FitResult, weights_file: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "weights": weights_file, "backbone": "mobilenet_0.25", "image_px": 64, "epochs": 1,
        "batch_size": 16,
    }  # fmt: skip
    caplog.set_level(logging.INFO)

    def interrupt_once(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("interpolation"):
            caplog.handler.removeFilter(interrupt_once)
            interrupt()
        return True

    fit = sl.fit(fitted.splits, **settings)
    caplog.handler.addFilter(interrupt_once)
    stopped = sl.fit(fitted.splits, **settings)
    assert stopped.stopped == "SIGINT"
    assert "Stopped by SIGINT in epoch 1 of 1" in caplog.text
    stopped.save(tmp_path / "scenes.keras")
    assert len(runs()) == 1
    assert same(sl.fit(fitted.splits, **settings, resume=True), fit)


@pytest.mark.slow
def test_signal_during_timing_keeps_the_linear_probe(
    fitted: FitResult, fit_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    early = at("compiling and timing", 1, interrupt)
    fit = sl.fit(fitted.splits, **fit_settings, progress=early)
    assert (fit.stopped, fit.kept, len(fit.history)) == ("SIGINT", "linear probe", 1)
    assert "Stopped by SIGINT before fine-tuning. Keeping the linear probe." in caplog.text
    assert runs() == []  # a checkpoint would save no work


@pytest.mark.slow
def test_second_signal_or_one_before_the_linear_probe_raises(
    fitted: FitResult, fit_settings: dict[str, Any], digests: Digests
) -> None:
    handler = signal.getsignal(signal.SIGINT)

    def twice() -> None:
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        sl.fit(fitted.splits, **fit_settings, progress=at("fine-tuning", 2, twice))
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(runs()) == 1  # the last checkpoint is kept

    def terminate() -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        sl.fit(fitted.splits, **fit_settings, progress=at("extracting features", 0, terminate))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert runs() == []  # without resume, a fit removes the checkpoint


# Signals


def fit_with(
    fitted: FitResult, fit_settings: dict[str, Any], act: Callable[[], Any], **options: Any
) -> FitResult:
    """A fit that calls a function before the features are extracted."""
    progress = at("extracting features", 0, act)
    return sl.fit(fitted.splits, **fit_settings, progress=progress, **options)


def test_swallowed_or_replaced_interrupt_is_raised_again(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    def swallow() -> None:  # as in a callback whose errors are only logged
        with suppress(KeyboardInterrupt):
            interrupt()

    def replace_error() -> None:
        try:
            interrupt()
        except KeyboardInterrupt as error:
            raise CrashError from error

    for act in (swallow, replace_error):
        with pytest.raises(KeyboardInterrupt, match="SIGINT"):
            fit_with(fitted, fit_settings, act)


def test_other_handlers_and_threads_are_unaffected(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def raise_both() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        crash()

    try:
        with pytest.raises(CrashError):
            fit_with(fitted, fit_settings, raise_both)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ignored)

    handlers: list[Any] = []

    def record() -> None:
        handlers.append(signal.getsignal(signal.SIGINT))
        crash()

    def elsewhere() -> None:
        with suppress(CrashError):
            fit_with(fitted, fit_settings, record)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


@pytest.mark.slow
def test_fit_inside_a_fit_leaves_signals_to_the_outer_one(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    stopped: list[str] = []

    def fit_inside() -> None:
        early = at("compiling and timing", 1, interrupt)
        inner = sl.fit(fitted.splits, **fit_settings | {"seed": 1}, progress=early)
        stopped.append(inner.stopped)
        with pytest.raises(KeyboardInterrupt):
            interrupt()

    outer = sl.fit(
        fitted.splits, **fit_settings, progress=at("compiling and timing", 1, fit_inside)
    )
    assert (stopped, outer.stopped) == ([""], "SIGINT")


@pytest.mark.nightly
def test_resumed_fit_without_time_left_keeps_the_best(
    fitted: FitResult, fit_settings: dict[str, Any], digests: Digests
) -> None:
    timed = fit_settings | {"epochs": None, "minutes": 1000.0}
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **timed, progress=at("fine-tuning", 6, crash))
    late = sl.fit(fitted.splits, **timed | {"minutes": 0.001}, resume=True)
    assert late.stopped == "time"
    assert [epoch.number for epoch in late.history] == [0, 1]
    late.remove_checkpoint()
    assert runs() == []


@pytest.mark.slow
def test_slow_validation_ends_fine_tuning(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    late_s, clock = [0.0], time.perf_counter

    class Slow(keras().callbacks.Callback):  # type: ignore[misc]
        def on_test_begin(self, logs: Any = None) -> None:
            late_s[0] = 1e6

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late_s[0])
    timed = fit_settings | {"epochs": None, "minutes": 1000.0}
    fit = sl.fit(fitted.splits, **timed, callbacks=[Slow()])
    assert fit.stopped == "time"
    assert [epoch.number for epoch in fit.history] == [0, 1]


# Losses that are not finite


@pytest.mark.slow
def test_nan_loss_restores_the_best_weights(
    fitted: FitResult, fit_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    fit = sl.fit(fitted.splits, **fit_settings | {"learning_rate": 1e38})
    assert fit.stopped == "not finite"
    assert "Pass a lower learning_rate than 1e+38" in caplog.text
    assert fit.kept == "linear probe"
    assert all(np.isfinite(one).all() for one in fit.classifier.model.get_weights())
    assert fit.validation_evaluation.accuracy.value == pytest.approx(
        fit.history[0].validation_accuracy
    )
    fit.remove_checkpoint()
    assert runs() == []


# Repeating from the JSON


def test_splits_are_restored_with_their_groups(scenes: Path) -> None:
    photos = sl.scan(scenes)
    splits = sl.split(photos, groups=np.arange(len(photos)) // 2, quarantine=[photos.paths[5]])
    saved = json.loads(json.dumps(splits.to_json()))
    restored = _restore_splits(saved, photos)
    for name in ("train", "validation", "test", "quarantined"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(splits, name))
    used = np.setdiff1d(np.arange(len(photos)), splits.quarantined)
    np.testing.assert_array_equal(restored.groups[used], splits.groups[used])
    with pytest.raises(ManifestError, match="no such photo"):
        _restore_splits(saved, photos[np.arange(len(photos)) != 5])


@pytest.mark.slow
def test_fit_is_repeated_from_its_json(
    fitted: FitResult, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    value = json.loads(json.dumps(fitted.to_json(), allow_nan=False))
    folder = Path(shutil.copytree(scenes, tmp_path / "elsewhere"))
    shutil.copy(next((scenes / "sea").iterdir()), folder / "sea" / "added later.jpg")
    again = sl.finetune.repeat(value, folder)
    assert np.array_equal(again.test_probabilities, fitted.test_probabilities)
    assert same(again, fitted)
    assert again.settings == fitted.settings
    assert "ran with" not in caplog.text

    value["environment"]["keras"] = "2.0"
    with pytest.raises(CrashError):
        sl.finetune.repeat(value, folder, progress=at("extracting features", 0, crash))
    assert "ran with keras 2.0 (now 3" in caplog.text

    moved = next((folder / "sea").glob("*_*.jpg"), next((folder / "sea").iterdir()))
    content = moved.read_bytes()
    moved.write_bytes(content + b"\0")
    with pytest.raises(
        ManifestError, match=r"must contain the photos of the first fit.*another content"
    ):
        sl.finetune.repeat(value, folder)
    moved.unlink()
    with pytest.raises(
        ManifestError, match=r"must contain the photos of the first fit.*no such photo"
    ):
        sl.finetune.repeat(value, folder)
    moved.write_bytes(content)
    value["environment"]["photos"] = "0" * 16
    with pytest.raises(ManifestError, match=r"in their original classes.*fingerprint"):
        sl.finetune.repeat(value, folder)


# Separate processes


@pytest.mark.nightly
def test_interrupted_command_saves_the_best_so_far(scenes: Path, tmp_path: Path) -> None:
    words = ["fit", str(scenes), "--out", str(tmp_path / "out"), "--epochs", "500", "--json"]
    words += ["--backbone", "scenelearn_tiny", "--weights", "none", "--image-px", "32"]
    command = subprocess.Popen(
        [sys.executable, "-m", "scenelearn", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SCENELEARN_CACHE": str(tmp_path / "cache")},
    )
    state = tmp_path / "cache" / "runs"
    while command.poll() is None and not list(state.glob("*/state")):
        time.sleep(0.1)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=600)
    assert command.returncode == 0, err
    assert "Stopped by SIGINT in epoch" in err
    assert json.loads(out)["stopped"] == "SIGINT"
    assert len(list(state.glob("*/state"))) == 1
    photo = next(scenes.rglob("*.jpg"))
    assert sl.load(tmp_path / "out" / "scenes.keras").predict(photo)


@pytest.mark.nightly
def test_bench_runs(tmp_path: Path) -> None:
    from tests.bench import interruptions

    file = tmp_path / "found.json"
    few = ["--kills", "1", "--saves", "1", "--interrupts", "1", "--terms", "1"]
    interruptions.main([*few, "--out", str(file)])
    found = json.loads(file.read_text())
    assert found["uninterrupted"]["deterministic"]
    assert (found["kills"]["identical"], found["kills"]["chain"]["identical"]) == (1, True)
    assert found["stops"]["clean"] == 2
    assert found["checkpoint_saves"]["loaded"] == found["bundle_saves"]["loaded"] == 1


def test_published_results_have_no_lost_run() -> None:
    file = REPOSITORY / "docs" / "results" / "interruptions.json"
    found = json.loads(file.read_text())
    assert found["kills"]["identical"] == found["kills"]["total"] >= 10
    assert found["kills"]["chain"]["identical"]
    assert found["stops"]["clean"] == found["stops"]["total"] >= 24
    assert found["stops"]["max_steps_after"] <= 1
    for what in ("checkpoint_saves", "bundle_saves"):
        assert found[what]["loaded"] == found[what]["total"] >= 20
    # A little more in a short run, since the first and the last checkpoint are always written.
    assert found["checkpoint_overhead"]["fraction"] <= 1.5 * 0.02


@pytest.mark.nightly
def test_repeat_with_moved_weights(
    scenes: Path, weights_file: Path, tmp_path: Path, fit_settings: dict[str, Any]
) -> None:
    old = shutil.copy(weights_file, tmp_path / "old.weights.h5")
    settings = fit_settings | {"backbone": "mobilenet_0.25", "weights": old, "epochs": 0}
    first = sl.fit(sl.split(sl.scan(scenes)), **settings)
    value = json.loads(json.dumps(first.to_json()))
    moved = Path(shutil.move(old, tmp_path / "new.weights.h5"))
    with pytest.raises(PathMissingError, match=r"`weights` must be .*old\.weights\.h5"):
        sl.finetune.repeat(value, scenes)
    again = sl.finetune.repeat(value, scenes, weights=moved)
    assert np.array_equal(again.test_probabilities, first.test_probabilities)
    assert again.settings.recipe.scale_lr_by_weights
