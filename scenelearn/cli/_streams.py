"""Standard streams that no encoding, closed end or full disk can turn into a failed command."""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from scenelearn._display import printable_lines

_ASCII = {"…": "...", "×": "x", "–": "-", "—": "-", "−": "-", "’": "'", "“": '"', "”": '"'}


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks: our own punctuation by ASCII, all else by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII.get(c) or ascii(c)[1:-1] for c in lacking), error.end


codecs.register_error("scenelearn.plain", _plain)


class _ErrorStream:
    """stderr whose failures are ignored: messages must not cost a result."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Formatter(logging.Formatter):
    """Log lines without the control characters of a file or class name."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Inside, stdout accepts every character, and writing to stderr never fails.

    Log messages of level warning and above go to stderr. The streams are restored at the end.
    """
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            if stream is None:  # closed, as by `2>&-`; no file may get its number now
                setattr(sys, name, stack.enter_context(Path(os.devnull).open("w")))
            elif isinstance(stream, io.TextIOWrapper) and not stream.closed:
                stack.callback(_set_errors, stream, stream.errors)
                _set_errors(stream, "scenelearn.plain")
        sys.stderr = _ErrorStream(sys.stderr)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter("%(message)s"))
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(handler)
            stack.callback(root.removeHandler, handler)
        try:
            yield
        finally:
            for stream in before:
                _drain(stream)
            sys.stdout, sys.stderr = before


def _set_errors(stream: io.TextIOWrapper, errors: str | None) -> None:
    """Set what a stream does with characters that its encoding lacks."""
    with contextlib.suppress(OSError, ValueError):  # it flushes first
        stream.reconfigure(errors=errors)


def _drain(stream: TextIO | None) -> None:
    """Flush a stream; one that fails loses its buffer, or Python would exit with 120."""
    if stream is None:
        return
    try:
        stream.flush()
    except ValueError:  # closed
        pass
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
