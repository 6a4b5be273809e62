"""Systems that lack what only some POSIX systems have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AS_ON_WINDOWS = """
import os, signal, sys
for name in ("fork", "getuid", "mkfifo", "posix_fallocate", "register_at_fork",
             "sched_getaffinity", "sysconf"):
    vars(os).pop(name, None)
vars(signal).pop("SIGKILL", None)
sys.modules["resource"] = None
import scenelearn as sl
"""


def run_as_on_windows(code: str, *arguments: str | Path) -> str:
    keras_on_numpy = "ignore:__array__ implementation:DeprecationWarning"  # see pyproject.toml
    options = ["-W", "error", "-W", keras_on_numpy, "-c", AS_ON_WINDOWS + code]
    command = [sys.executable, *options, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_photos_are_audited_and_split(scenes: Path) -> None:
    code = "splits = sl.split(sl.audit(sys.argv[1]).photos); print(len(splits.photos))"
    assert run_as_on_windows(code, scenes) == "72"


@pytest.mark.slow
def test_a_classifier_is_trained_saved_and_loaded(scenes: Path, tmp_path: Path) -> None:
    code = (
        "fit = sl.fit(sl.split(sl.scan(sys.argv[1])), weights=None, backbone='scenelearn_tiny',\n"
        "             image_px=32, epochs=1)\n"
        "assert 'memory measured' not in fit.environment\n"
        "path = fit.save(sys.argv[2])\n"
        "print(len(sl.load(path).predict(sys.argv[1])))"
    )
    assert run_as_on_windows(code, scenes, tmp_path / "scenes.keras") == "72"
