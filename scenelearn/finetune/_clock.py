"""Where the time of a fit goes, and how much of it is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from scenelearn.finetune._result import Phase

Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


class Clock:
    """Runs from its making on.

    Attributes:
        phases: those that have ended, in order.
    """

    def __init__(self, minutes: float, progress: Progress | None) -> None:
        self.phases: list[Phase] = []
        self._minutes = minutes
        self._progress = progress
        self._start = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time what is done inside. The function that is yielded takes a line on what it was."""
        begin, notes = time.monotonic(), [""]

        def note(text: str) -> None:
            notes[0] = text

        yield note
        self.phases.append(Phase(name=name, seconds=time.monotonic() - begin, note=notes[0]))
        _log.info("%s: %.1f s, %s", name, self.phases[-1].seconds, notes[0])

    def report(self, what: str) -> Callable[[int, int], None] | None:
        """The caller's progress function for one kind of work."""
        return None if self._progress is None else partial(self._progress, what)

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def deadline(self, *, keep_s: float) -> float:
        """When, on `time.monotonic`'s clock, `keep_s` seconds of the budget are left."""
        return self._start + 60 * self._minutes - keep_s
