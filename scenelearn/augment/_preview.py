"""A preview of augmentation: photos, each with some of its variants."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from scenelearn._backend import keras
from scenelearn._checks import check_integer, check_path
from scenelearn._io import atomic_write
from scenelearn._progress import Progress, show_progress
from scenelearn.augment._apply import apply
from scenelearn.augment._policy import Policy
from scenelearn.augment._sample import Parameters, sample
from scenelearn.data import Photos
from scenelearn.data._decode import decode_image
from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.data._resize import Resize, make_resize
from scenelearn.errors import ArgumentError, PhotoError

_STYLE = (
    "display:grid;gap:.6rem;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));"
    "margin:0 0 1rem"
)
_GAP, _LINE_HEIGHT = 8, 12  # pixels between images, and per line of a caption


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Preview:
    """A grid of images with captions: one row per photo, the photo itself first.

    Attributes:
        images: (rows, columns, height, width, 3) uint8.
        captions: a row of captions per row of images.
        title: what the grid shows.
    """

    images: npt.NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    title: str

    def __repr__(self) -> str:
        return f"<Preview: {self.title}>"

    def _repr_html_(self) -> str:
        rows = []
        for images, captions in zip(self.images, self.captions, strict=True):
            figures = "".join(
                f'<figure style="margin:0"><img src="{_data_url(image)}" '
                f'alt="{html.escape(caption)}" style="width:100%">'
                f'<figcaption style="font-size:.7rem;line-height:1.3">{html.escape(caption)}'
                "</figcaption></figure>"
                for image, caption in zip(images, captions, strict=True)
            )
            rows.append(f'<div style="{_STYLE}">{figures}</div>')
        return f"<p>{html.escape(self.title)}</p>{''.join(rows)}"

    def to_image(self) -> Image.Image:
        """Return the whole grid as one image, with captions below the images."""
        n_rows, n_columns, height, width = self.images.shape[:4]
        font = ImageFont.load_default(_LINE_HEIGHT - 2)
        texts = [[_wrap(caption, width, font) for caption in row] for row in self.captions]
        high = height + max(len(lines) for row in texts for lines in row) * _LINE_HEIGHT + _GAP
        size = (n_columns * (width + _GAP) + _GAP, n_rows * high + _GAP)
        sheet = Image.new("RGB", size, "white")
        canvas = ImageDraw.Draw(sheet)
        for row, line_groups in enumerate(texts):
            for column, lines in enumerate(line_groups):
                left, top = _GAP + column * (width + _GAP), _GAP + row * high
                sheet.paste(Image.fromarray(self.images[row, column]), (left, top))
                for k, line in enumerate(lines):
                    canvas.text((left, top + height + 2 + k * _LINE_HEIGHT), line, "black", font)
        return sheet

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the grid as a self-contained HTML page or as an image.

        Args:
            path: a file name that ends in ".html", ".png" or ".jpg".

        Returns:
            The path.

        Raises:
            ArgumentError: if the path ends in something else, or cannot be written.
        """
        path = Path(path)
        if path.suffix not in (".html", ".png", ".jpg"):
            raise ArgumentError(
                "`path` must end in .html, .png or .jpg. "
                f"Received: path={str(path)!r}. Pass e.g. 'preview.html'."
            )
        if path.suffix == ".html":
            head = f'<!doctype html><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            content = f"{head}<body>{self._repr_html_()}</body>".encode()
        else:
            buffer = io.BytesIO()
            self.to_image().save(buffer, "png" if path.suffix == ".png" else "jpeg", quality=90)
            content = buffer.getvalue()
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return path


def preview(
    photos: Any,
    policy: str | Policy | Mapping[str, Any] | Parameters = "standard",
    *,
    n: int = 7,
    rows: int = 4,
    seed: int = 0,
    image_px: int | tuple[int, int] = 160,
    shape: str = "crop",
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Preview:
    """Show what a policy does to some photos, as a grid of each photo and its variants.

    Args:
        photos: images, (n, height, width, 3) uint8; paths of photos; or `Photos` from `scan`, of
            which evenly spaced ones are shown.
        policy: a policy, or the name of one; or parameters, one for each variant, which are then
            the same for each photo.
        n: variants per photo, at least 1; ignored with parameters, of which all are shown.
        rows: the maximum number of photos.
        seed: random seed of the parameters.
        image_px: the side of each image, or (height, width), in pixels, as in `fit`.
        shape: what happens to photos of other proportions: "crop", "pad" or "squash", as in `fit`.
        progress: called with (what, done, total), in place of a progress bar.
        verbose: True for a progress bar, False for none, "auto" for one on a terminal or in a
            notebook.

    Returns:
        The grid: notebooks display it, and `save` writes it to a file.

    Raises:
        ArgumentError: if there are no photos, there is no such policy or shape, or a number is out
            of range.
        PhotoError: if a photo cannot be read.
        BackendError: if no Keras backend is installed.

    Example:
        >>> grid = preview(np.zeros((1, 40, 60, 3), np.uint8), "light", n=3, image_px=32)
        >>> grid.images.shape
        (1, 4, 32, 32, 3)
        >>> preview(np.zeros((1, 40, 60, 3), np.uint8), n=3, image_px=(20, 30)).images.shape
        (1, 4, 20, 30, 3)
    """
    for name, value in (("n", n), ("rows", rows)):
        check_integer(name, value, low=1)
    resize = make_resize(image_px, shape)
    chosen = _choose_photos(photos, rows)
    with show_progress(progress, verbose) as report:
        decoded = []
        for photo in chosen:
            decoded.append(_to_image(photo, resize))
            report("decoding photos", len(decoded), len(chosen))
    if isinstance(policy, Parameters):
        n = len(policy)
        parameters = policy[np.tile(np.arange(n), len(decoded))]
    else:
        parameters = sample(policy, seed, len(decoded) * n)
    originals = np.stack(decoded)
    variants = keras().ops.convert_to_numpy(apply(np.repeat(originals, n, axis=0), parameters))
    variants = variants.reshape(len(originals), n, *originals.shape[1:])
    captions = tuple(
        ("original", *(parameters.caption(k) for k in range(row * n, (row + 1) * n)))
        for row in range(len(originals))
    )
    name = f'"{policy}"' if isinstance(policy, str) else "with custom parameters"
    return Preview(
        images=np.concatenate([originals[:, None], variants], axis=1),
        captions=captions,
        title=f"Augmentation {name}: {len(originals)} photos, each with {n} variants",
    )


def _choose_photos(photos: Any, max_photos: int) -> list[Any]:
    """Evenly spaced photos: arrays, or (name, function that reads the file)."""
    if isinstance(photos, str | os.PathLike):
        photos = [photos]
    n = len(photos) if hasattr(photos, "__len__") else 0
    if not n:
        raise ArgumentError(
            "`photos` must be images, paths, or `Photos` from `scan`, at least one. "
            f"Received: {type(photos).__name__} of length {n}. Pass e.g. sl.scan(folder)."
        )
    chosen = np.unique(np.linspace(0, n - 1, min(max_photos, n)).astype(int)).tolist()
    if isinstance(photos, Photos):  # of a folder or an archive
        return [(photos.paths[k], partial(photos.read, k)) for k in chosen]
    return [
        photo
        if isinstance(photo, np.ndarray)
        else (str(photo), check_path("photos", photo).read_bytes)
        for photo in (photos[k] for k in chosen)
    ]


def _to_image(photo: Any, resize: Resize) -> npt.NDArray[np.uint8]:
    """A photo as `fit` gives it to the network."""
    if isinstance(photo, np.ndarray):
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
            raise ArgumentError(
                "Each image must have the shape (height, width, 3) and the dtype uint8. "
                f"Received: shape {photo.shape}, dtype {photo.dtype}. Convert them."
            )
        return decode_image(Image.fromarray(photo), resize)
    name, read = photo
    try:
        return decode_image(read(), resize)
    except (OSError, RejectedPhotoError) as error:
        raise PhotoError(f"{name!r} cannot be read: {error}. Leave it out.") from error


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _wrap(text: str, width: int, font: Any) -> list[str]:
    """Wrap the text to lines of at most this width in pixels; longer words are not split."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
