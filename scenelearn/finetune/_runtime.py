"""What runs next to a fit: signals, `keras.callbacks`, and the clock of its time budget."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Protocol

from scenelearn._backend import keras
from scenelearn._distributed import all_reduce_max
from scenelearn._progress import Progress, Report
from scenelearn.errors import ArgumentError

# A signal is handled only if its handler is still the default.
_DEFAULT_HANDLERS: tuple[tuple[signal.Signals, Any], ...] = (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
)

_log = logging.getLogger(__name__)


class StopSignal:
    """Whether Ctrl-C or SIGTERM has asked a fit to stop.

    At first a signal raises `KeyboardInterrupt` immediately. After `defer_signals`, the first one
    is only recorded, since an exception in the middle of a training step would leave a network
    whose arrays JAX has deleted; the trainer checks `requested` after each step. A second signal
    always raises.

    Attributes:
        requested: name of the first signal, "SIGINT" or "SIGTERM"; empty if there was none.
    """

    def __init__(self) -> None:
        self.requested = ""
        self._deferred = False
        self._closed = False

    def defer_signals(self) -> None:
        """From now on, only record the first signal, since there is a result to return.

        Raises:
            KeyboardInterrupt: if a signal has already come.
        """
        self.check()
        self._deferred = True

    def check(self) -> None:
        """Raise for a signal whose exception was lost, as happens inside callbacks.

        Raises:
            KeyboardInterrupt: if a signal has come before `defer_signals`.
        """
        if self.requested and not self._deferred:
            raise KeyboardInterrupt(self.requested)

    def checked(self, report: Report) -> Report:
        """A progress function that also checks for a signal."""

        def check_and_report(done: int, total: int) -> None:
            self.check()
            report(done, total)

        return check_and_report

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._closed:
            return
        name, is_first = signal.Signals(number).name, not self.requested
        self.requested = self.requested or name
        if not (is_first and self._deferred):
            raise KeyboardInterrupt(name)


class StopRequest(Protocol):
    """Whether a fit has been asked to stop: a `StopSignal` or a `SharedStopSignal`."""

    @property
    def requested(self) -> str:
        """Name of the signal; empty if there was none."""


class SharedStopSignal:
    """A `StopSignal` of several processes: a signal to one of them stops all.

    Reading `requested` is a collective operation: if one process reads it, all must.
    """

    def __init__(self, stop: StopSignal) -> None:
        self._stop = stop

    @property
    def requested(self) -> str:
        """Name of the signal that any process received; empty if there was none."""
        names = ("", *(number.name for number, _ in _DEFAULT_HANDLERS))
        return names[all_reduce_max(names.index(self._stop.requested))]


@contextmanager
def handle_signals() -> Iterator[StopSignal]:
    """Handle SIGINT (Ctrl-C) and SIGTERM inside this context.

    Only in the main thread, where Python allows signal handlers, and only signals that the program
    neither handles nor ignores itself. The previous handlers are restored in any case.

    Yields:
        Whether a signal has come.

    Raises:
        KeyboardInterrupt: at a signal, see `StopSignal`; its argument is the name of the signal.

    Example:
        >>> import signal
        >>> with handle_signals() as stop:
        ...     stop.defer_signals()
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.requested
        'SIGTERM'
        >>> signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        True
    """
    stop, replaced = StopSignal(), []
    in_main_thread = threading.current_thread() is threading.main_thread()
    try:
        for number, default in _DEFAULT_HANDLERS if in_main_thread else ():
            if signal.getsignal(number) is default:
                replaced.append((number, default))
                signal.signal(number, stop._handle)
        yield stop
    except Exception as error:
        if stop.requested and not stop._deferred:  # a library has replaced the KeyboardInterrupt
            raise KeyboardInterrupt(stop.requested) from error
        raise
    finally:
        stop._closed = True
        for number, default in replaced:
            signal.signal(number, default)


class Callbacks:
    """Callbacks of Keras, called by the trainer with the usual logs.

    Attributes:
        has_failed: whether one has raised an error, which is passed on.
    """

    def __init__(self, callbacks: Any = ()) -> None:
        """Check the callbacks.

        Raises:
            ArgumentError: if `callbacks` is not a list of them.
        """
        kind = keras().callbacks.Callback if callbacks not in ((), []) else object
        if not isinstance(callbacks, list | tuple) or not all(
            isinstance(callback, kind) for callback in callbacks
        ):
            raise ArgumentError(
                "`callbacks` must be a list of instances of keras.callbacks.Callback. Received: "
                f"callbacks={callbacks!r:.200}. Pass e.g. [keras.callbacks.CSVLogger('log.csv')]."
            )
        self._callbacks = list(callbacks)
        self._model: Any = None
        self.has_failed = False

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def begin(self, model: Any, *, n_epochs: int, n_steps: int) -> None:
        """Set the model and its parameters, and call `on_train_begin`."""
        self._model = model
        if self:
            model.stop_training = False
            for callback in self._callbacks:
                callback.set_params({"epochs": n_epochs, "steps": n_steps, "verbose": 0})
                callback.set_model(model)
            self.call("on_train_begin", logs={})

    def call(self, hook: str, *args: int, logs: Mapping[str, float]) -> None:
        """Call one hook of all callbacks, each with logs of its own."""
        try:
            for callback in self._callbacks:
                getattr(callback, hook)(*args, dict(logs))
        except BaseException:
            self.has_failed = True
            raise

    @property
    def stop_requested(self) -> bool:
        """Whether a callback has set `model.stop_training`. A collective operation."""
        return bool(self) and bool(all_reduce_max(bool(self._model.stop_training)))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Phase:
    """One phase of a fit.

    Attributes:
        name: "network", "photos", "features", "linear probe", "fine-tuning" (compiling
            and timing included) or "test" (calibration included); "earlier run" for everything
            before `fit(resume=True)` resumed.
        seconds: wall-clock time.
        note: one line about what was done.
    """

    name: str
    seconds: float
    note: str

    def __repr__(self) -> str:
        return f"<Phase {self.name!r}: {self.seconds:.1f} s, {self.note}>"


class Clock:
    """The time budget of a fit and the time that its phases take.

    The budget is infinite if `minutes` is, as for a fit whose epochs are set.

    Attributes:
        phases: the completed phases, in order. If the run was resumed, the first one stands for the
            earlier process.
    """

    def __init__(self, minutes: float, progress: Progress, stop: StopSignal, start: float) -> None:
        self.phases: list[Phase] = []
        self._minutes = minutes
        self._progress = progress
        self._stop = stop
        self._start = start

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a phase. Yields a function that takes one line about what was done."""
        begin, notes = time.perf_counter(), [""]

        def note(text: str) -> None:
            notes[0] = text

        yield note
        self.phases.append(Phase(name=name, seconds=time.perf_counter() - begin, note=notes[0]))
        _log.info("%s: %.1f s, %s", name, self.phases[-1].seconds, notes[0])
        self._stop.check()

    def report(self, what: str) -> Report:
        """The progress function for one kind of work, which also checks for a signal."""
        return self._stop.checked(partial(self._progress, what))

    def add_earlier_run(self, seconds: float, note: str) -> None:
        """Count the time of an earlier process of the same run, as a phase of its own."""
        self._start -= seconds
        self.phases.insert(0, Phase(name="earlier run", seconds=seconds, note=note))

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def left_s(self, *, reserve_s: float = 0.0) -> float:
        """Seconds that are left before the last `reserve_s` of the budget; negative if late."""
        return self._start + 60 * self._minutes - reserve_s - time.perf_counter()
