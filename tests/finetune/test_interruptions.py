"""Checkpoints, resumed and repeated fits, signals, NaN, full disks."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
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
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError, ManifestError, PathMissingError
from scenelearn.finetune import Epoch, FitResult, FitSettings, _checkpoint, _trainer
from scenelearn.finetune._checkpoint import (
    Checkpoint,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from scenelearn.finetune._runtime import Clock, StopSignal, handle_signals
from scenelearn.finetune._trainer import TrainingState
from tests.bench.interruptions import digest_of
from tests.helpers import REPOSITORY


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


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The digest of the state after each epoch. A checkpoint is written at each step."""
    monkeypatch.setattr(_checkpoint, "INTERVAL_S", 0.0)
    monkeypatch.setattr(_checkpoint, "MAX_TIME_FRACTION", math.inf)
    return _record_digests(monkeypatch)


def _record_digests(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    found: dict[int, str] = {}
    end_epoch = TrainingState.end_epoch

    def record(state: TrainingState, epoch: Epoch, model: Any) -> None:
        end_epoch(state, epoch, model)
        found[epoch.number] = digest_of(state, model)

    monkeypatch.setattr(TrainingState, "end_epoch", record)
    return found


@pytest.fixture(scope="module")
def uninterrupted(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> tuple[FitResult, dict[int, str]]:
    """An uninterrupted fit, and its digests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = _record_digests(monkeypatch)
        fit = sl.fit(fitted.splits, **fit_settings)
    return fit, found


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
    digests: dict[int, str],
    tmp_path: Path,
) -> None:
    fit, expected = uninterrupted
    # In the first epoch, at its end, in the second, and after training.
    for what, n_done in [("fine-tuning", 2), ("fine-tuning", 4), ("fine-tuning", 7)]:
        with pytest.raises(CrashError):
            sl.fit(fit.splits, **fit_settings, resume=True, progress=at(what, n_done, crash))
    with pytest.raises(CrashError):
        sl.fit(fit.splits, **fit_settings, resume=True, progress=at("testing", 0, crash))
    again = sl.fit(fit.splits, **fit_settings, resume=True)
    assert digests == expected
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
    monkeypatch.setattr(_checkpoint, "INTERVAL_S", 0.0)
    monkeypatch.setattr(_checkpoint, "MAX_TIME_FRACTION", math.inf)
    found = _record_digests(monkeypatch)
    monkeypatch.setenv("SCENELEARN_THREADS", "1")
    fit = sl.fit(fitted.splits, **settings)
    expected = dict(found)
    assert sorted(expected) == [1, 2, 3]
    found.clear()
    monkeypatch.setenv("SCENELEARN_THREADS", "2")
    with pytest.raises(CrashError):
        sl.fit(fitted.splits, **settings, progress=at("fine-tuning", 4, crash))
    monkeypatch.setenv("SCENELEARN_THREADS", "8")
    again = sl.fit(fitted.splits, **settings, resume=True)
    assert again.phases[0].name == "earlier run"
    assert found == expected
    assert same(again, fit)


@pytest.mark.slow
def test_signal_in_a_step_returns_the_best_so_far_and_can_be_resumed(
    uninterrupted: tuple[FitResult, dict[int, str]],
    fit_settings: dict[str, Any],
    digests: dict[int, str],
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

    stopped = sl.fit(fit.splits, **fit_settings, progress=terminate)
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

    again = sl.fit(fit.splits, **fit_settings, resume=True)
    assert digests == expected
    assert same(again, fit)
    assert not again.stopped
    again.save(tmp_path / "scenes.keras")
    assert runs() == []


@pytest.mark.slow
def test_signal_during_validation(
    fitted: FitResult, fit_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_batches = _trainer.predict_batches

    def interrupted(*arguments: Any, **named: Any) -> Any:
        interrupt()
        return predict_batches(*arguments, **named)

    monkeypatch.setattr(_trainer, "predict_batches", interrupted)
    stopped = sl.fit(fitted.splits, **fit_settings)
    assert (stopped.stopped, len(stopped.history)) == ("SIGINT", 1)
    state = read_checkpoint(runs()[0]).metadata["state"]
    assert (state["step"], len(state["losses"]), len(state["history"])) == (4, 4, 1)


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
    fitted: FitResult, fit_settings: dict[str, Any], digests: dict[int, str]
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


def test_swallowed_or_replaced_interrupt_is_raised_again() -> None:
    def lost() -> None:
        with handle_signals() as stop:
            with suppress(KeyboardInterrupt):  # as in a callback whose errors are only logged
                interrupt()
            stop.check()

    def changed() -> None:
        with handle_signals():
            try:
                interrupt()
            except KeyboardInterrupt as error:
                raise CrashError from error

    def another() -> None:
        with handle_signals() as stop:
            stop.defer_signals()
            interrupt()
            raise CrashError

    for interrupted in (lost, changed):
        with pytest.raises(KeyboardInterrupt, match="SIGINT"):
            interrupted()
    with pytest.raises(CrashError):
        another()


def test_other_handlers_and_threads_are_unaffected() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with handle_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert (received, stop.requested) == ([signal.SIGTERM], "")
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ignored)

    handlers: list[Any] = []

    def elsewhere() -> None:
        with handle_signals():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def test_nested_handlers_leave_signals_to_the_outer_one() -> None:
    with handle_signals() as outer:
        outer.defer_signals()
        with handle_signals() as inner:
            interrupt()
        assert (outer.requested, inner.requested) == ("SIGINT", "")
        with pytest.raises(KeyboardInterrupt):
            interrupt()


# The checkpoint file


@pytest.fixture
def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {
        "model/0": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "model/1": np.array(3, np.int64),
        "best/0": np.zeros((0, 4), np.uint8),
    }


def test_checkpoint_round_trip(tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    metadata = {"losses": [0.1, 1 / 3, math.inf], "elapsed_s": 1e-300}
    write_checkpoint(tmp_path / "new" / "state", metadata, arrays)
    found = read_checkpoint(tmp_path / "new" / "state")
    assert found.metadata == metadata
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)


def test_checkpoint_preserves_bfloat16(tmp_path: Path) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    write_checkpoint(tmp_path / "state", {}, {"a": np.array([1.5, -2], bfloat16)})
    found = read_checkpoint(tmp_path / "state").arrays["a"]
    assert found.dtype == bfloat16
    assert found.astype(float).tolist() == [1.5, -2]


def test_damaged_checkpoint_is_rejected(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state"
    write_checkpoint(file, {"n": 1}, arrays)
    content = file.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"not a checkpoint|damaged"):
            read_checkpoint(file)
    for torn in (b"", content[:10], content[:-1], content + b"\0"):
        file.write_bytes(torn)
        assert Checkpoint(file).read() is None
    assert caplog.text.count(f"{file}: damaged") == 2
    assert caplog.text.count(f"{file}: not a checkpoint") == 2
    file.unlink()
    assert Checkpoint(file).read() is None
    assert "This run starts from the beginning" in caplog.text


def test_full_disk_keeps_the_old_checkpoint_and_warns_once(
    tmp_path: Path,
    arrays: dict[str, np.ndarray[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoint = Checkpoint(tmp_path / "run" / "state")
    checkpoint.write({"n": 1}, arrays)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    checkpoint.write({"n": 2}, arrays)
    checkpoint.write({"n": 3}, arrays)
    assert caplog.text.count(f"Cannot write the checkpoint {checkpoint.file}") == 1
    assert "No space left on device" in caplog.text
    assert [path.name for path in checkpoint.file.parent.iterdir()] == ["state"]
    saved = checkpoint.read()
    assert saved is not None
    assert saved.metadata == {"n": 1}
    assert checkpoint.n_written == 1


def test_unwritable_folder_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Checkpoint(tmp_path / "file" / "state").write({}, {})  # only logs a warning
    Checkpoint(tmp_path / "file" / "state").remove()


def test_removing_a_checkpoint_removes_partial_files(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run" / "state")
    checkpoint.write({}, {})
    (tmp_path / "run" / ".state.x1y2").touch()
    checkpoint.remove()
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    for k in range(25):
        write_checkpoint(tmp_path / f"run {k}" / "state", {}, {})
        os.utime(tmp_path / f"run {k}" / "state", (k, k))
    (tmp_path / "other").mkdir()
    Checkpoint(tmp_path / "run 24" / "state").remove()
    expected = {"other", *(f"run {k}" for k in range(4, 24))}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_writing_takes_a_small_fraction_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "state")
    assert checkpoint.is_due()

    def slow(*_: Any) -> None:
        now[0] += 2

    monkeypatch.setattr(_checkpoint, "write_checkpoint", slow)
    checkpoint.write({}, {})
    for later, within, at_end in [(99, False, False), (101, True, True)]:
        now[0] = 102.0 + later
        assert (checkpoint.is_due(), checkpoint.is_due(epoch_ended=True)) == (within, at_end)
    checkpoint._last_s = 0.01  # a fast disk
    for later, within, at_end in [(0.4, False, False), (1, False, True), (31, True, True)]:
        now[0] = 102.0 + later
        assert (checkpoint.is_due(), checkpoint.is_due(epoch_ended=True)) == (within, at_end)


# The identity of a run


def test_different_runs_have_different_checkpoints(
    fitted: FitResult, fit_settings: dict[str, Any]
) -> None:
    splits = fitted.splits
    pixels = sl.data.decode(splits.photos, 32)
    network = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32, seed=0)
    requested = FitSettings(**fit_settings)
    first = checkpoint_path(requested, splits, pixels, network)
    other = sl.backbones.build("scenelearn_tiny", weights=None, image_px=32, seed=1)
    files = {
        first,
        *(
            checkpoint_path(replace(requested, **{name: value}), splits, pixels, network)
            for name, value in [("seed", 1), ("learning_rate", 1e-5), ("augmentation", "none")]
        ),
        checkpoint_path(requested, replace(splits, test=splits.test[1:]), pixels, network),
        checkpoint_path(requested, splits, pixels, other),
    }
    assert len(files) == 6
    assert checkpoint_path(replace(requested, minutes=99), splits, pixels, network) == first


def test_time_of_an_earlier_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 100.0)
    clock = Clock(1.0, lambda *_: None, StopSignal(), time.perf_counter())
    deadline = clock.deadline(reserve_s=5)
    clock.add_earlier_run(40.0, "to step 3 of epoch 2")
    assert clock.deadline(reserve_s=5) == deadline - 40
    assert clock.elapsed_s() == 40
    assert clock.phases[0].seconds == 40


@pytest.mark.nightly
def test_resumed_fit_without_time_left_keeps_the_best(
    fitted: FitResult, fit_settings: dict[str, Any], digests: dict[int, str]
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
    late_s, validate = [0.0], _trainer._validate

    def slowly(*arguments: Any) -> Any:
        late_s[0] = 1e6
        return validate(*arguments)

    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + late_s[0])
    monkeypatch.setattr(_trainer, "time", clock)
    monkeypatch.setattr(_trainer, "_validate", slowly)
    fit = sl.fit(fitted.splits, **fit_settings | {"epochs": None, "minutes": 1000.0})
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


def test_non_finite_weights_are_never_kept() -> None:
    class Model:
        output_shape = (None, 2)

        def __init__(self, weight: float) -> None:
            self.weights = [np.array([weight])]

        def get_weights(self) -> list[np.ndarray[Any, Any]]:
            return self.weights

    def epoch(number: int, loss: float) -> Epoch:
        return Epoch(
            number=number, train_loss=0, validation_loss=0.1, calibrated_loss=loss,
            validation_accuracy=0.9, learning_rate=0, seconds=0,
        )  # fmt: skip

    state = TrainingState(
        plan=None,  # type: ignore[arg-type]
        history=[], best_loss=0.6, best_weights=[], initial_weights=[],
    )  # fmt: skip
    state.end_epoch(epoch(1, 0.5), Model(math.nan))
    state.end_epoch(epoch(2, 1e30), Model(2.0))
    state.end_epoch(epoch(3, math.nan), Model(3.0))
    assert state.best == 0
    state.end_epoch(epoch(4, 0.55), Model(4.0))
    state.end_epoch(epoch(5, 0.56), Model(5.0))
    assert (state.best, state.interpolation, state.best_weights[0].item()) == (4, 1.0, 4.0)
    state.keep(Model(math.inf), 0.5, epoch=5, interpolation=0.5)
    assert state.best == 4


# Repeating from the JSON


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


@pytest.mark.slow
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
    assert found["checkpoint_overhead"]["fraction"] <= 1.5 * _checkpoint.MAX_TIME_FRACTION


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
