"""Where the time of a fit goes, and how much of it is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from scenelearn.finetune._result import Phase
from scenelearn.finetune._stop import Stop

Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


class Clock:
    """Runs from `start` on.

    Attributes:
        phases: those that have ended, in order; first what an earlier process did of the run.
    """

    def __init__(self, minutes: float, progress: Progress | None, stop: Stop, start: float) -> None:
        self.phases: list[Phase] = []
        self._minutes = minutes
        self._progress = progress
        self._stop = stop
        self._start = start

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time what is done inside. The function that is yielded takes a line on what it was."""
        begin, notes = time.monotonic(), [""]

        def note(text: str) -> None:
            notes[0] = text

        yield note
        self.phases.append(Phase(name=name, seconds=time.monotonic() - begin, note=notes[0]))
        _log.info("%s: %.1f s, %s", name, self.phases[-1].seconds, notes[0])
        self._stop.check()

    def report(self, what: str) -> Callable[[int, int], None]:
        """The caller's progress function for one kind of work, which also heeds a signal."""
        return self._stop.checked(partial(self._progress, what) if self._progress else None)

    def count(self, seconds: float, note: str) -> None:
        """Count what an earlier process has done of the same run: it is a phase of its own."""
        self._start -= seconds
        self.phases.insert(0, Phase(name="before", seconds=seconds, note=note))

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def deadline(self, *, keep_s: float) -> float:
        """When, on `time.monotonic`'s clock, `keep_s` seconds of the budget are left."""
        return self._start + 60 * self._minutes - keep_s
