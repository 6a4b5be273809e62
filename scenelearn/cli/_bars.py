"""Progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


class Bars:
    """A progress bar for each kind of work, with its total and the time left, on stderr."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def of(self, what: str) -> Callable[[int, int], None]:
        """A function (done, total) that shows one kind of work."""
        return lambda done, total: self.show(what, done, total)

    def say(self, text: str) -> None:
        """Print a line below the bars."""
        self._close()
        print(text, file=sys.stderr, flush=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar of this work to `done`; a new kind of work gets a new bar."""
        if self._bar is None or what != self._what:
            from tqdm import tqdm

            self._close()
            often = 0.2 if sys.stderr.isatty() else 10  # a log needs few lines
            self._what = what
            self._bar = tqdm(total=total, desc=what, unit="", dynamic_ncols=True, mininterval=often)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
