"""Damage to files."""

from __future__ import annotations

import struct
from pathlib import Path


def move_directory(path: Path) -> None:
    """Let the directory of a ZIP archive without a comment state that it is later in the file.

    Its entries then are before the start of the file.
    """
    content = bytearray(path.read_bytes())
    (offset,) = struct.unpack("<I", content[-6:-2])
    content[-6:-2] = struct.pack("<I", offset + 2**20)
    path.write_bytes(content)
