"""Progress bars where somebody watches."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from scenelearn._progress import ProgressBars, show_progress


class ZMQInteractiveShell:
    """The shell of a notebook, by the name that IPython gives it."""


class Shell(ZMQInteractiveShell):
    """Google Colab's, a subclass."""


class TerminalInteractiveShell:
    """The shell of a terminal, whose output may be a file."""


@pytest.mark.parametrize(
    ("shell", "shown"),
    [(ZMQInteractiveShell, True), (Shell, True), (TerminalInteractiveShell, False)],
)
def test_notebooks_show_progress(monkeypatch: pytest.MonkeyPatch, shell: type, shown: bool) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with show_progress(None, "auto") as progress:
        assert isinstance(progress, ProgressBars) == shown
