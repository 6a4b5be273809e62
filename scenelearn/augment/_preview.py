"""To look at: photos, and beside each what a policy makes of it."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.augment._apply import apply
from scenelearn.augment._draw import Draws, check_whole, draw
from scenelearn.augment._policy import Policy
from scenelearn.errors import ArgumentError, PhotoError

if TYPE_CHECKING:
    from PIL import Image

_STYLE = (
    "display:grid;gap:.6rem;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));"
    "margin:0 0 1rem"
)
_GAP, _LINE = 8, 12  # pixels between pictures, and of a line of a caption


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preview:
    """Rows of pictures with captions: one row a photo, the photo itself first.

    Attributes:
        images: (rows, columns, image_px, image_px, 3) uint8.
        captions: a row of captions for each row of images.
        title: what is shown.
    """

    images: npt.NDArray[np.uint8] = field(repr=False)
    captions: tuple[tuple[str, ...], ...]
    title: str

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

    def picture(self) -> Image.Image:
        """All of it as one picture, captions below the images."""
        from PIL import Image, ImageDraw, ImageFont

        n_rows, n_columns, px = self.images.shape[:3]
        font = ImageFont.load_default(_LINE - 2)
        texts = [[_lines(caption, px, font) for caption in row] for row in self.captions]
        high = px + max(len(lines) for row in texts for lines in row) * _LINE + _GAP
        sheet = Image.new("RGB", (n_columns * (px + _GAP) + _GAP, n_rows * high + _GAP), "white")
        canvas = ImageDraw.Draw(sheet)
        for row, line_groups in enumerate(texts):
            for column, lines in enumerate(line_groups):
                left, top = _GAP + column * (px + _GAP), _GAP + row * high
                sheet.paste(Image.fromarray(self.images[row, column]), (left, top))
                for k, line in enumerate(lines):
                    canvas.text((left, top + px + 2 + k * _LINE), line, "black", font)
        return sheet

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a page that needs nothing beside it, or one picture.

        Args:
            path: ends in ".html", ".png" or ".jpg".

        Returns:
            The path.

        Raises:
            ArgumentError: if the path ends in something else.
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
            self.picture().save(buffer, "png" if path.suffix == ".png" else "jpeg", quality=90)
            content = buffer.getvalue()
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        temporary.write_bytes(content)
        os.replace(temporary, path)
        return path


def preview(
    photos: Any,
    policy: str | Policy | Mapping[str, Any] | Draws = "standard",
    *,
    n: int = 7,
    rows: int = 4,
    seed: int = 0,
    image_px: int = 160,
) -> Preview:
    """What a policy makes of some photos: a grid, each photo first and then its variants.

    Args:
        photos: images, (n, height, width, 3) uint8; or paths of photos; or what `scan` gives, of
            which photos from all over are shown.
        policy: a policy, or the name of one; or draws, one for each variant, the same for each
            photo.
        n: variants of each photo, at least 1; of draws, all of them.
        rows: at most so many photos.
        seed: of the draws.
        image_px: width and height of a picture; photos are cut to a square about their middle.

    Returns:
        The grid: a notebook shows it, `save` writes it.

    Raises:
        ArgumentError: if there is nothing to show, there is no such policy, or a number is out of
            range.
        PhotoError: if a photo cannot be read.
        BackendError: if no backend of Keras is installed.

    Example:
        >>> grid = preview(np.zeros((1, 40, 60, 3), np.uint8), "light", n=3, image_px=32)
        >>> grid.images.shape
        (1, 4, 32, 32, 3)
    """
    for name, value in (("n", n), ("rows", rows), ("image_px", image_px)):
        check_whole(name, value, least=1)
    originals = np.stack([_square(photo, image_px) for photo in _some(photos, rows)])
    if isinstance(policy, Draws):
        n = len(policy)
        draws = policy[np.tile(np.arange(n), len(originals))]
    else:
        draws = draw(policy, seed, len(originals) * n)
    varied = keras().ops.convert_to_numpy(apply(np.repeat(originals, n, axis=0), draws))
    varied = varied.reshape(len(originals), n, image_px, image_px, 3)
    captions = tuple(
        ("original", *(draws.caption(k) for k in range(row * n, (row + 1) * n)))
        for row in range(len(originals))
    )
    what = policy if isinstance(policy, str) else "of your own"
    return Preview(
        images=np.concatenate([originals[:, None], varied], axis=1),
        captions=captions,
        title=f"Augmentation {what}: each photo, and {n} variants of it",
    )


def _some(photos: Any, most: int) -> Iterator[Any]:
    """Up to so many of the photos, as arrays or opened images."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(photos, str | os.PathLike):
        photos = [photos]
    n = len(photos) if hasattr(photos, "__len__") else 0
    if not n:
        raise ArgumentError(
            "`photos` must be images, paths of photos, or what `scan` gives, at least one. "
            f"Received: {type(photos).__name__} of length {n}. Pass e.g. sl.scan(folder)."
        )
    read = getattr(photos, "read", None)  # of photos in a folder or an archive
    for k in np.unique(np.linspace(0, n - 1, min(most, n)).astype(int)):
        one = io.BytesIO(read(int(k))) if read else photos[k]
        if isinstance(one, np.ndarray):
            yield one
            continue
        try:
            with Image.open(one) as image:
                yield image
        except (OSError, UnidentifiedImageError) as error:
            name = photos.paths[k] if read else str(one)
            raise PhotoError(f"{name!r} cannot be read: {error}. Leave it out.") from error


def _square(photo: Any, px: int) -> npt.NDArray[np.uint8]:
    """The middle of a photo, upright and in color, (px, px, 3)."""
    from PIL import Image, ImageOps

    if isinstance(photo, np.ndarray):
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
            raise ArgumentError(
                "Each image must have the shape (height, width, 3) and the dtype uint8. "
                f"Received: shape {photo.shape}, dtype {photo.dtype}. Convert them."
            )
        photo = Image.fromarray(photo)
    upright = ImageOps.exif_transpose(photo).convert("RGB")
    return np.asarray(ImageOps.fit(upright, (px, px), Image.Resampling.BICUBIC))


def _data_url(image: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _lines(text: str, width: int, font: Any) -> list[str]:
    """The text in lines of at most this width, in pixels, unless a word is longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
