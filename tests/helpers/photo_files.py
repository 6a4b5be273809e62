"""Folders of small photo files, and what a scan found in them."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from scenelearn.data import Photos, Rejected, RejectionReason, scan


def photo(seed: int = 0, kind: str = "JPEG", px: int = 16) -> bytes:
    """A small image file whose content depends on the seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (px, px, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def put_all(root: Path, paths: list[str]) -> Path:
    """Write a different photo to each path."""
    for seed, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(seed))
    return root


def scan_each(contents: list[bytes]) -> list[Rejected | None]:
    """What `scan` says about files with these contents; None for a usable photo."""
    with tempfile.TemporaryDirectory() as folder:
        root = put_all(Path(folder), ["a/whole.jpg"])  # a folder without photos is an error
        for k, content in enumerate(contents):
            (root / f"a/{k}.jpg").write_bytes(content)
        rejected = {one.path: one for one in scan(root, verbose=False).rejected}
    return [rejected.get(f"a/{k}.jpg") for k in range(len(contents))]


def why(photos: Photos) -> dict[str, RejectionReason]:
    return {rejection.path: rejection.reason for rejection in photos.rejected}


def detail(photos: Photos, path: str) -> str:
    return next(rejection.detail for rejection in photos.rejected if rejection.path == path)


def classes(photos: Photos) -> dict[str, str]:
    return {row["path"]: row["label"] for row in photos.to_rows()}


def splits_by_path(photos: Photos) -> dict[str, str]:
    return dict(zip(photos.paths, photos.splits, strict=True))


PLAIN = ["sea/1.jpg", "sea/2.jpg", "street/1.jpg", "street/2.jpg"]
