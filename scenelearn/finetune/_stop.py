"""Ctrl-C and SIGTERM: a fit ends in an orderly way at the first, at once at the second."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from scenelearn._devices import largest

# A signal is taken over only from the handler that it has where nobody has set another one.
_USUAL: tuple[tuple[signal.Signals, Any], ...] = (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
)


class Stop:
    """Whether the end of a fit has been asked for.

    As long as there is nothing to keep, a signal raises `KeyboardInterrupt` where it strikes.
    After `gently` it is only noted, since an exception in the middle of a training step would
    leave a network whose arrays JAX has deleted; whoever trains looks at `requested` after each
    step. A second signal raises in any case.

    Attributes:
        requested: the name of the first signal, "SIGINT" or "SIGTERM"; empty while there is none.
    """

    def __init__(self) -> None:
        self.requested = ""
        self._gently = False
        self._over = False

    def gently(self) -> None:
        """From now on there is something to keep: only note the first signal.

        Raises:
            KeyboardInterrupt: if one has come already.
        """
        self.check()
        self._gently = True

    def check(self) -> None:
        """Look once more for a signal whose exception was lost, as some are inside of callbacks.

        Raises:
            KeyboardInterrupt: if one has come before `gently`.
        """
        if self.requested and not self._gently:
            raise KeyboardInterrupt(self.requested)

    def checked(self, progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
        """A progress function that also looks for a signal."""

        def report(done: int, total: int) -> None:
            self.check()
            if progress:
                progress(done, total)

        return report

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._over:
            return
        name, first = signal.Signals(number).name, not self.requested
        self.requested = self.requested or name
        if not (first and self._gently):
            raise KeyboardInterrupt(name)


class Requested(Protocol):
    """Where to ask whether the end of a fit has been asked for."""

    @property
    def requested(self) -> str:
        """The name of the signal; empty while there is none."""


class SharedStop:
    """A `Stop` that all processes look at together: a signal to one of them is one to all.

    Each time that one process asks, all must.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    @property
    def requested(self) -> str:
        """The name of the signal that any of them got; empty while there is none."""
        names = ("", *(number.name for number, _ in _USUAL))
        return names[largest(names.index(self._stop.requested))]


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take SIGINT (Ctrl-C) and SIGTERM over while what is inside runs.

    Only in the main thread, where Python lets signals be handled; and only a signal that nobody
    else handles or ignores: a program that has its own handler keeps it. What was there before is
    put back, whatever happens.

    Yields:
        Where to ask whether a signal has come.

    Raises:
        KeyboardInterrupt: at a signal, see `Stop`; its argument is the signal's name.

    Example:
        >>> import signal
        >>> with stoppable() as stop:
        ...     stop.gently()
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.requested
        'SIGTERM'
        >>> signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        True
    """
    stop, replaced = Stop(), []
    main = threading.current_thread() is threading.main_thread()
    try:
        for number, usual in _USUAL if main else ():
            if signal.getsignal(number) is usual:
                replaced.append((number, usual))
                signal.signal(number, stop._handle)
        yield stop
    except Exception as error:
        if stop.requested and not stop._gently:  # what was interrupted made another error of it
            raise KeyboardInterrupt(stop.requested) from error
        raise
    finally:
        stop._over = True
        for number, usual in replaced:
            signal.signal(number, usual)
