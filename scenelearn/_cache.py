"""Where scenelearn keeps what can be made again: pixels, sample scenes, compiled programs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_path() -> Path:
    """``SCENELEARN_CACHE`` where that is set, else ``scenelearn`` in the user's cache folder.

    That is ``XDG_CACHE_HOME``, or ``~/.cache``. The folder may not exist yet.
    """
    named = os.environ.get("SCENELEARN_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named).expanduser() if named else base / "scenelearn"
