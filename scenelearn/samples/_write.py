"""Writing sample scenes: from (seed, class, index) to the bytes of one JPEG file."""

from __future__ import annotations

import io
import operator
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from scenelearn.errors import ArgumentError
from scenelearn.samples._buildings import paint_buildings
from scenelearn.samples._camera import take_photo
from scenelearn.samples._canvas import Array, Rng
from scenelearn.samples._forest import paint_forest
from scenelearn.samples._glacier import paint_glacier
from scenelearn.samples._mood import Mood
from scenelearn.samples._mountain import paint_mountain
from scenelearn.samples._sea import paint_sea
from scenelearn.samples._street import paint_street

_PAINTERS: dict[str, Callable[[Rng], tuple[Array, Mood]]] = {
    "buildings": paint_buildings,
    "forest": paint_forest,
    "glacier": paint_glacier,
    "mountain": paint_mountain,
    "sea": paint_sea,
    "street": paint_street,
}

CLASS_NAMES: tuple[str, ...] = tuple(_PAINTERS)
"""Names of the six classes, in the order of their labels."""

_REPORT_EVERY = 10


def sample_scenes(
    folder: str | os.PathLike[str],
    per_class: int = 120,
    seed: int = 0,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws six classes of landscape and city scenes as JPEG files, to stand in for photos.

    The classes are those of the Intel scene photos: buildings, forest, glacier, mountain,
    sea and street. Each scene is painted from perspective geometry and fractal noise under
    a random light, weather and season, then photographed by a random camera. The colors of
    the classes overlap on purpose: shape and texture tell them apart.

    Photo `i` of a class is a function of `seed`, the class and `i` alone, so a larger
    `per_class` adds photos and leaves the others as they were: byte for byte with the same
    NumPy and Pillow on the same kind of processor, to within rounding otherwise. Files of the
    same name are replaced; nothing is ever deleted.

    Args:
        folder: Where to draw; made if missing. Photos are written to
            `folder/<class>/<class>_0000.jpg` and so on, 150x150 px each.
        per_class: Number of photos in each class, at least 1.
        seed: Seed of all random choices, at least 0.
        progress: Called now and then as `progress(done, total)` with numbers of photos, the
            last time with `done == total`.

    Returns:
        The folder, as a path.

    Raises:
        ArgumentError: If `per_class` is not a positive integer, `seed` is not an integer of
            at least 0, `folder` is not a path, or `folder` (or the place of a class inside
            it) is a file.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as temporary:
        ...     folder = sample_scenes(temporary, per_class=2)
        ...     names = sorted(path.name for path in folder.glob("*/*.jpg"))
        >>> len(names), names[0]
        (12, 'buildings_0000.jpg')
    """
    n_photos = _integer(per_class, "per_class", 1, "a positive integer")
    first_seed = _integer(seed, "seed", 0, "an integer of at least 0")
    root = _folder(folder)
    places = {name: _folder(root / name) for name in CLASS_NAMES}
    total = n_photos * len(CLASS_NAMES)
    done = 0
    for name, place in places.items():
        for index in range(n_photos):
            _replace(place / f"{name}_{index:04d}.jpg", draw_scene(first_seed, name, index))
            done += 1
            if progress is not None and (done % _REPORT_EVERY == 0 or done == total):
                progress(done, total)
    return root


def draw_scene(seed: int, class_name: str, index: int) -> bytes:
    """Draws one scene.

    Args:
        seed: Seed of the collection.
        class_name: One of `CLASS_NAMES`.
        index: Number of the photo in its class.

    Returns:
        The bytes of a JPEG file of 150x150 px.
    """
    rng = np.random.default_rng([seed, CLASS_NAMES.index(class_name), index])
    canvas, mood = _PAINTERS[class_name](rng)
    return _encode(take_photo(rng, canvas, mood), quality=int(rng.integers(82, 96)))


def _encode(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _integer(value: object, name: str, least: int, wanted: str) -> int:
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least:
        raise ArgumentError(
            f"`{name}` must be {wanted}. Received: {name}={value!r}. "
            f"Pass a whole number such as {name}={least}."
        )
    return number


def _folder(folder: str | os.PathLike[str]) -> Path:
    try:
        path = Path(folder)
    except TypeError:
        raise ArgumentError(
            f"`folder` must be a path. Received: folder={folder!r}. "
            "Pass a string or a pathlib.Path."
        ) from None
    if path.exists() and not path.is_dir():
        raise ArgumentError(
            f"`folder` must be a folder or a path where one can be made, but {str(path)!r} is a "
            f"file. Received: folder={str(path)!r}. Name another folder, or move that file away."
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def _replace(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, then moves it to its place in one step."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
