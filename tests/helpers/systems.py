"""Marks of tests that need what not every system has."""

import os
import sys
import tempfile
from pathlib import Path

import pytest


def _can_link() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder, "link").symlink_to(folder)
        except OSError:
            return False
    return True


needs_posix = pytest.mark.skipif(
    os.name == "nt",
    reason="Windows has no fork, pipes among files, kill signals or permissions, and fewer names",
)
needs_symlinks = pytest.mark.skipif(
    not _can_link(), reason="Windows lets only some users create symbolic links"
)
needs_byte_names = pytest.mark.skipif(
    sys.platform in ("darwin", "win32"), reason="names are Unicode, without some characters"
)
