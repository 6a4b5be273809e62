"""Progress of long work: one callback signature, and bars where someone is looking."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scenelearn._checks import check_choice
from scenelearn._display import printable

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0: unknown)."""

Report = Callable[[int, int], None]
"""Called with how much of one kind of work is done, and how much there is."""


class ProgressBars:
    """Progress bars on stderr, one for each kind of work, with the total and the time left."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar of this work to `done`; a new kind of work gets a new bar."""
        if sys.stderr is None:
            return
        with contextlib.suppress(OSError, ValueError):  # a closed or full stream
            if self._bar is None or what != self._what:
                from tqdm import tqdm

                self.close()
                interval = 0.2 if _is_interactive() else 10  # a log needs few lines
                self._what = what
                self._bar = tqdm(
                    total=total or None,
                    desc=what,
                    unit="",
                    dynamic_ncols=True,
                    mininterval=interval,
                )
            self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Print one line below the bars."""
        self.close()
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(printable(text) + "\n")
                sys.stderr.flush()

    def close(self) -> None:
        """End the bar that is showing, if any."""
        if self._bar is not None:
            bar, self._bar = self._bar, None
            with contextlib.suppress(OSError, ValueError):
                bar.close()


@contextmanager
def show_progress(progress: Progress | None, verbose: bool | str = "auto") -> Iterator[Progress]:
    """The callback for the work inside: the caller's, bars, or one that does nothing.

    Args:
        progress: the caller's own callback, which replaces the bars.
        verbose: True for bars on stderr, False for none, "auto" for bars on a terminal and in a
            notebook.

    Yields:
        A callback (what, done, total).

    Raises:
        ArgumentError: if `verbose` is not a supported value.
    """
    check_choice("verbose", verbose, (True, False, "auto"), advice="'auto' is the default.")
    if progress is not None:
        yield progress
    elif verbose is True or (verbose == "auto" and _is_interactive()):
        with ProgressBars() as bars:
            yield bars
    else:
        yield _ignore


def _is_interactive() -> bool:
    """Whether stderr is a terminal, or this is a notebook."""
    ipython = sys.modules.get("IPython")
    if ipython is not None:
        shell = ipython.get_ipython()
        if any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__):
            return True  # Google Colab's is a subclass
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False


def _ignore(what: str, done: int, total: int, /) -> None:
    """Report nothing."""
