"""The pictures of the site that are drawn at build: sample scenes, icon, social card."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GREEN = (47, 107, 79)


def contact_sheet(rows: int) -> Image.Image:
    """Sample scenes, one column for each class."""
    import scenelearn as sl

    with tempfile.TemporaryDirectory() as folder:
        photos = sl.scan(sl.sample_scenes(folder, per_class=rows, seed=0))
        sheet = Image.new("RGB", (156 * photos.n_classes - 6, 156 * rows - 6), "white")
        for i, path in enumerate(photos.paths):
            column, row = divmod(i, rows)
            with Image.open(Path(photos.folder) / path) as photo:
                sheet.paste(photo, (156 * column, 156 * row))
    return sheet


def icon(side: int) -> Image.Image:
    """A scene in two colors: a mountain under the sun."""
    large = Image.new("RGBA", (8 * side, 8 * side))
    draw = ImageDraw.Draw(large)
    unit = 8 * side / 16

    def points(*pairs: tuple[float, float]) -> list[tuple[float, float]]:
        return [(unit * x, unit * y) for x, y in pairs]

    draw.rounded_rectangle(points((0, 0), (16, 16)), 3 * unit, GREEN)
    draw.ellipse(points((9.8, 2.6), (13.2, 6)), (255, 214, 102))
    draw.polygon(points((1.5, 13), (6.5, 4.5), (9.2, 9), (10.6, 7.2), (14.5, 13)), "white")
    return large.resize((side, side), Image.Resampling.LANCZOS)


def social_card(title: str, text: str, sheet: Image.Image) -> Image.Image:
    """The picture that sites show beside a link to this one, 1200 × 630 pixels."""
    card = Image.new("RGB", (1200, 630), GREEN)
    scaled = sheet.resize((1200, round(1200 * sheet.height / sheet.width)))
    card.paste(scaled.crop((0, 0, 1200, 300)), (0, 330))
    draw = ImageDraw.Draw(card)
    card.paste(icon(110), (60, 60), icon(110))
    draw.text((200, 58), title, "white", ImageFont.load_default(90))
    draw.text((60, 220), text, "white", ImageFont.load_default(34))
    return card


def encoded(picture: Image.Image, kind: str) -> bytes:
    """The contents of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 80} if kind == "jpeg" else {"optimize": True}))
    return buffer.getvalue()
