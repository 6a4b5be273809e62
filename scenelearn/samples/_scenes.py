"""Rendering sample scenes: from (seed, class, index) to the bytes of a JPEG file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scenelearn._checks import check_integer
from scenelearn._io import atomic_write, ensure_folder
from scenelearn._progress import Progress, show_progress
from scenelearn.samples._buildings import paint_buildings
from scenelearn.samples._camera import take_photo
from scenelearn.samples._clutter import add_clutter
from scenelearn.samples._forest import paint_forest
from scenelearn.samples._glacier import paint_glacier
from scenelearn.samples._mountain import paint_mountain
from scenelearn.samples._picture import Picture
from scenelearn.samples._sea import paint_sea
from scenelearn.samples._street import paint_street

# How to paint each class, and the probability of night. A painter returns the lowest place of
# birds and that of the feet of people, or None where nothing is to be added.
_PAINTERS: dict[str, tuple[Callable[[Picture], tuple[float, float] | None], float]] = {
    "buildings": (paint_buildings, 0.12),
    "forest": (paint_forest, 0.0),
    "glacier": (paint_glacier, 0.0),
    "mountain": (paint_mountain, 0.02),
    "sea": (paint_sea, 0.02),
    "street": (paint_street, 0.15),
}

CLASS_NAMES: tuple[str, ...] = tuple(_PAINTERS)
"""Names of the six classes, in the order of their labels."""

_REPORT_EVERY = 10


def sample_scenes(
    folder: str | os.PathLike[str],
    per_class: int = 120,
    seed: int = 0,
    *,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Path:
    """Render six classes of synthetic landscape and city scenes as JPEG files.

    Use them to try things without photos. The classes are those of the Intel scene photos:
    buildings, forest, glacier, mountain, sea and street. Each scene is painted from perspective
    geometry and fractal noise with random light, weather and season, then photographed by a random
    camera. The colors of the classes overlap on purpose, so that a classifier has to use shape and
    texture.

    Photo `i` of a class depends on `seed`, the class and `i` only, so a larger `per_class` adds
    photos and does not change the others. The files are identical byte for byte with the same
    versions of NumPy and Pillow on the same kind of processor, and up to rounding otherwise.
    Existing files of the same name are replaced; nothing is ever deleted.

    Args:
        folder: the folder to write to, created if missing. Photos are written to
            `folder/<class>/<class>_0000.jpg` and so on, 150x150 px each.
        per_class: photos per class, at least 1.
        seed: seed of all random choices, at least 0.
        progress: called as `progress(what, done, total)` with numbers of photos.
        verbose: True for a progress bar, False for none, "auto" for one on a terminal and in a
            notebook.

    Returns:
        The folder.

    Raises:
        ArgumentError: if `per_class` is not a positive integer, `seed` is not an integer of at
            least 0, `folder` is not a path, or `folder` or a class folder in it is a file or not
            writable.
        DiskSpaceError: if the disk is full.
        DiskError: if the system cannot write a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as temporary:
        ...     folder = sample_scenes(temporary, per_class=2)
        ...     names = sorted(path.name for path in folder.glob("*/*.jpg"))
        >>> len(names), names[0]
        (12, 'buildings_0000.jpg')
    """
    per_class = check_integer("per_class", per_class, low=1)
    seed = check_integer("seed", seed, low=0)
    root = ensure_folder(folder)
    class_folders = {name: ensure_folder(root / name) for name in CLASS_NAMES}
    total = per_class * len(CLASS_NAMES)
    done = 0
    with show_progress(progress, verbose) as report:
        for name, class_folder in class_folders.items():
            for index in range(per_class):
                with atomic_write(class_folder / f"{name}_{index:04d}.jpg") as partial:
                    partial.write_bytes(render_scene(seed, name, index))
                done += 1
                if done % _REPORT_EVERY == 0 or done == total:
                    report("rendering sample scenes", done, total)
    return root


def render_scene(seed: int, class_name: str, index: int) -> bytes:
    """Render one scene.

    Args:
        seed: seed of the collection.
        class_name: one of `CLASS_NAMES`.
        index: index of the photo within its class.

    Returns:
        The bytes of a JPEG file of 150x150 px.
    """
    rng = np.random.default_rng([seed, CLASS_NAMES.index(class_name), index])
    paint, night = _PAINTERS[class_name]
    picture = Picture(rng, night)
    places = paint(picture)
    if places is not None:
        add_clutter(picture, *places)
    photo = take_photo(picture)
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=int(rng.integers(82, 96)))
    return stream.getvalue()


def render_scenes(per_class: int) -> list[bytes]:
    """The files of `sample_scenes` with seed 0, class by class, in memory."""
    return [render_scene(0, name, k) for name in sorted(CLASS_NAMES) for k in range(per_class)]
