"""Photos that show the same picture, and photos that only look alike."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_T = Image.Transpose


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cropped(image: Image.Image, fraction: float = 0.95) -> Image.Image:
    left, top = (
        round(0.8 * (1 - fraction) * image.width),
        round(0.2 * (1 - fraction) * image.height),
    )
    right, bottom = left + round(fraction * image.width), top + round(fraction * image.height)
    return image.crop((left, top, right, bottom))


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)))


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """Rotated by a few degrees, without the empty corners."""
    part = np.cos(np.radians(degrees)) + np.sin(np.radians(degrees))
    width, height = (round(side / part / 2) for side in image.size)
    x, y = image.width // 2, image.height // 2
    upright = image.rotate(degrees, Image.Resampling.BICUBIC)
    return upright.crop((x - width, y - height, x + width, y + height))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 30": lambda image: encoded(image, 30),
    "quality 95": lambda image: encoded(image, 95),
    "half": lambda image: scaled(image, 0.5),
    "mirrored": lambda image: image.transpose(_T.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(_T.ROTATE_90),
    "cropped": cropped,
}
MORE_CHANGES = CHANGES | {
    "quality 20": lambda image: encoded(image, 20),
    "third": lambda image: scaled(image, 1 / 3),
    "double": lambda image: scaled(image, 2),
    "upside down": lambda image: image.transpose(_T.FLIP_TOP_BOTTOM),
    "cropped to 90%": lambda image: cropped(image, 0.9),
    "cropped to 92%, 60%": lambda image: scaled(cropped(image, 0.92), 0.6),
    "rotated by 3°": lambda image: rotated(image, 3),
    "brighter": lambda image: image.point([min(255, round(1.1 * k + 5)) for k in range(256)] * 3),
    "mirrored, quality 40": lambda image: encoded(image.transpose(_T.FLIP_LEFT_RIGHT), 40),
    "squeezed": lambda image: image.resize((image.width, round(0.8 * image.height))),
}


def plant(
    source: list[Path],
    folder: Path,
    n: int,
    changes: dict[str, Callable[..., Image.Image]] = CHANGES,
) -> dict[str, tuple[str, str]]:
    """`n` changed photos next to their originals; new path -> old path and change."""
    planted = {}
    for at, path in enumerate(random.Random(0).sample(source, n)):
        name, change = list(changes.items())[at % len(changes)]
        new = path.with_name(f"planted {name} {at}.jpg")
        with Image.open(path) as image:
            change(image.convert("RGB")).save(new, quality=90)
        old = path.relative_to(folder).as_posix()
        planted[new.relative_to(folder).as_posix()] = (old, name)
    return planted


def inspected_part(seed: int, defect: str = "", px: int = 200, noise: float = 3) -> Image.Image:
    """A photo of a plate with five holes, taken by a fixed camera: "scratch" or "hole" missing."""
    rng = np.random.default_rng(seed)
    unit = px / 200
    image = Image.new("RGB", (px, px), (120, 122, 118))
    draw = ImageDraw.Draw(image)
    plate = [30 * unit, 40 * unit, 170 * unit, 160 * unit]
    draw.rounded_rectangle(plate, 12 * unit, fill=(170, 172, 176), outline=(90, 90, 95), width=2)
    holes = [(55, 65), (145, 65), (55, 135), (145, 135), (100, 100)]
    missing = rng.integers(5) if defect == "hole" else -1
    for k, (x, y) in enumerate(holes):
        if k != missing:
            box = [(x - 8) * unit, (y - 8) * unit, (x + 8) * unit, (y + 8) * unit]
            draw.ellipse(box, fill=(60, 60, 62))
    if defect == "scratch":
        x, y, angle, length = rng.uniform((45, 50, 0, 12), (150, 150, np.pi, 30))
        end = x + length * np.cos(angle), y + length * np.sin(angle)
        line = [x * unit, y * unit, end[0] * unit, end[1] * unit]
        draw.line(line, fill=(225, 225, 230), width=max(1, round(1.5 * unit)))
    pixels = np.asarray(image) + rng.normal(0, noise, (px, px, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def plain_shape(seed: int, px: int = 96) -> Image.Image:
    """One of four shapes in one of many colors, always in the same place."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (px, px), (255, 255, 255))
    draw, color = ImageDraw.Draw(image), tuple(rng.integers(0, 230, 3).tolist())
    box = [px // 5, px // 5, px * 4 // 5, px * 4 // 5]
    shapes = [
        lambda: draw.ellipse(box, fill=color),
        lambda: draw.rectangle(box, fill=color),
        lambda: draw.polygon([(px // 2, box[1]), (box[0], box[3]), (box[2], box[3])], fill=color),
        lambda: draw.rectangle([box[0], px * 2 // 5, box[2], px * 3 // 5], fill=color),
    ]
    shapes[seed % 4]()
    return image


def drawn_digit(seed: int, px: int = 28) -> Image.Image:
    """The digit `seed` % 10, white on black, in one of many sizes, weights and slants."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (4 * px, 4 * px))
    font = ImageFont.load_default(size=int(4 * px * rng.uniform(0.6, 0.85)))
    x, y = 2 * px + rng.uniform(-8, 8, 2)
    weight = int(rng.integers(0, 4))
    draw = ImageDraw.Draw(image)
    draw.text((x, y), str(seed % 10), fill=255, font=font, anchor="mm", stroke_width=weight)
    slanted = image.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    return slanted.resize((px, px), Image.Resampling.BOX)


def put_parts(folder: Path, n: int, **options: float) -> Path:
    """`n` photos of an inspected part, half of them with a scratch or a missing hole."""
    for k in range(n):
        defect = ("", "scratch", "", "hole")[k % 4]
        file = folder / ("defect" if defect else "good") / f"{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        inspected_part(k, defect, **options).save(file, quality=90)  # type: ignore[arg-type]
    return folder


def put_drawings(folder: Path, draw: Callable[[int], Image.Image], n: int, n_classes: int) -> Path:
    """`n` drawings in class folders."""
    for k in range(n):
        file = folder / f"class {k % n_classes}" / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(k).save(file)
    return folder
