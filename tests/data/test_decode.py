"""Decoding: upright, complete, in color, antialiased, or rejected with a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile, ImageOps

from scenelearn.data import Rejected, RejectionReason, audit, scan, to_image
from scenelearn.errors import ArgumentError, PhotoError
from tests.helpers import REPOSITORY
from tests.helpers.marks import nightly, slow
from tests.helpers.photo_files import scan_each

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")


def encoded(image: Image.Image | Pixels, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 40, height: int = 30, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int = 64, height: int = 64) -> Pixels:
    """Asymmetric, easy on JPEG: red grows rightwards, green downwards, blue on a diagonal."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    channels = (x / width, y / height, (x / width) ** 2 * (1 - y / height))
    return (np.stack(channels, axis=-1) * 255).astype(np.uint8)


def rejection(content: bytes) -> Any:
    with pytest.raises(PhotoError) as caught:
        to_image(content, 8)
    return caught.value


def rejections(content: bytes) -> tuple[Any, Rejected]:
    """Why `to_image` and `scan` reject a file."""
    (scanned,) = scan_each([content])
    assert scanned is not None
    return rejection(content), scanned


def outcomes(contents: list[bytes]) -> set[RejectionReason | None]:
    """The outcome for each file: a reason, or None for an image. Anything else fails the test."""
    seen = {None if one is None else one.reason for one in scan_each(contents)}
    for content in contents:
        try:
            image = to_image(content, 16)
        except PhotoError as error:
            seen.add(error.reason)
        else:
            assert image.shape == (16, 16, 3)
            seen.add(None)
    return seen


def worst(a: Pixels, b: Pixels) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# Shape

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ("crop", 4, ["rrbb", "rrbb", "rrbb", "rrbb"]),
        ("squash", 4, ["rrbb", "rrbb", "rrbb", "rrbb"]),
        ("pad", 4, ["....", "rrbb", "rrbb", "...."]),
        ("pad", 6, ["......", "rrrbbb", "rrrbbb", "rrrbbb", "......", "......"]),
        ("crop", (2, 6), ["rrrbbb", "rrrbbb"]),
        ("squash", (2, 6), ["rrrbbb", "rrrbbb"]),
        ("pad", (2, 6), [".rrbb.", ".rrbb."]),
        ("pad", (6, 2), ["..", "..", "rb", "..", "..", ".."]),
    ],
)
def test_photo_of_two_colors_in_each_shape(
    shape: str, size: int | tuple[int, int], expected: list[str]
) -> None:
    stored = np.zeros((200, 400, 3), np.uint8)
    stored[:, :200], stored[:, 200:] = RED, BLUE
    colors = {"r": RED, "b": BLUE, ".": BLACK}
    right = np.array([[colors[letter] for letter in row] for row in expected])
    shown = to_image(encoded(stored), size, shape).astype(int)
    assert shown.shape == right.shape
    assert np.abs(shown - right).max() <= 32  # the cubic overshoots at the edge between the colors
    assert ((shown == 0).all(axis=2) == (right == 0).all(axis=2)).all()


@pytest.mark.parametrize("size", [(48, 48), (30, 50), (50, 30)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shapes_agree_with_pillow(size: tuple[int, int], kind: str) -> None:
    stored = smooth(1200, 800)
    content = encoded(stored, kind, **({"quality": 95} if kind == "JPEG" else {}))
    image, target = Image.open(io.BytesIO(content)).convert("RGB"), size[::-1]
    for shape, expected in {
        "crop": ImageOps.fit(image, target, Image.Resampling.BICUBIC),
        "pad": ImageOps.pad(image, target, Image.Resampling.BICUBIC),
        "squash": image.resize(target, Image.Resampling.BICUBIC),
    }.items():
        assert worst(to_image(content, size, shape), np.asarray(expected)) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", ["crop", "pad", "squash"])
def test_shapes_are_those_of_the_upright_photo(orientation: int, shape: str) -> None:
    stored = smooth(900, 500)
    content = oriented(stored, orientation, "JPEG", quality=95, subsampling=0)
    upright = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](stored)))
    expected = to_image(upright, (20, 30), shape)
    assert worst(to_image(content, (20, 30), shape), expected) <= 5


def test_other_sizes_and_shapes_are_errors() -> None:
    image = Image.new("RGB", (4, 4))
    for size in (0, (4,), (4, 0), (4, 4, 3), "4"):
        with pytest.raises(ArgumentError, match=r"`image_px` must be an integer.*Received"):
            to_image(image, size)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="`shape` must be one of 'crop', 'pad', 'squash'"):
        to_image(image, 4, "stretch")


# Upright

# What makes a stored image upright, by the EXIF standard: where its row 0 and column 0 are.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: np.rot90(stored, 2),
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


def oriented(stored: Pixels, orientation: int, kind: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(np.ascontiguousarray(stored), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_made_upright(orientation: int) -> None:
    stored = smooth(96, 64)
    content = oriented(stored, orientation, "JPEG", quality=95, subsampling=0)
    shown = to_image(content, 64)
    right = UPRIGHT[orientation](stored[:, 16:80])
    assert worst(shown, right) <= 10
    for other in set(UPRIGHT) - {orientation}:
        assert worst(shown, UPRIGHT[other](stored[:, 16:80])) > 100


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_other_formats_are_made_upright_exactly(kind: str, orientation: int) -> None:
    stored = noise(48, 32)
    content = oriented(stored, orientation, kind, **({"lossless": True} if kind == "WEBP" else {}))
    shown = to_image(content, 32)
    assert np.array_equal(shown, UPRIGHT[orientation](stored[:, 8:40]))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_are_ignored(orientation: int) -> None:
    stored = noise(32, 32)
    assert np.array_equal(to_image(oriented(stored, orientation, "PNG"), 32), stored)


def test_damaged_exif_does_not_cost_the_photo() -> None:
    image = smooth()
    plain = to_image(encoded(image, "JPEG", quality=95), 64)
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010F] = "maker"
    good = exif.tobytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        for place in random.integers(6, len(bad), 4):
            bad[place] = random.integers(256)
        turned = to_image(encoded(image, "JPEG", quality=95, exif=bytes(bad)), 64)
        assert any(worst(turned, turn(plain)) <= 2 for turn in UPRIGHT.values())


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0garbage", b"no exif"])
def test_unreadable_exif_means_upright(exif: bytes) -> None:
    image = smooth()
    plain = to_image(encoded(image, "JPEG"), 64)
    assert np.array_equal(to_image(encoded(image, "JPEG", exif=exif), 64), plain)


# Square


@pytest.mark.parametrize(("width", "height"), [(50, 32), (32, 50)])
def test_the_central_square_is_kept(width: int, height: int) -> None:
    image = noise(width, height)
    left, top = (width - 32) // 2, (height - 32) // 2
    assert np.array_equal(to_image(encoded(image), 32), image[top : top + 32, left : left + 32])


def test_an_odd_margin_is_cropped_by_half_a_pixel_at_each_edge() -> None:
    ramp = np.broadcast_to(6 * np.arange(41, dtype=np.uint8)[:, None], (20, 41, 3)).copy()
    shown = to_image(encoded(ramp), 20)[:, :, 0]
    # From 10.5 to 30.5: each pixel is the mean of two neighbors.
    expected = 6 * (np.arange(20) + 10.5)
    assert np.abs(shown[10] - expected).max() <= 1


def test_every_format_gives_a_square_of_uint8() -> None:
    for kind in FORMATS:
        image = to_image(encoded(noise(), kind), 17)
        assert image.shape == (17, 17, 3)
        assert image.dtype == np.uint8


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_the_smallest_images(width: int, height: int) -> None:
    image = np.full((height, width, 3), (10, 120, 240), np.uint8)
    assert (to_image(encoded(image), 16) == (10, 120, 240)).all()


def test_shrinking_is_antialiased() -> None:
    y, x = np.mgrid[0:256, 0:256]
    board = np.repeat((((x + y) % 2) * 255)[:, :, None], 3, axis=2).astype(np.uint8)
    shrunk = to_image(encoded(board), 32).astype(int)
    assert np.abs(shrunk - 127.5).max() < 8


def test_a_jpeg_decoded_at_reduced_size_is_the_same_picture() -> None:
    image = smooth(1024, 768)
    by_jpeg = to_image(encoded(image, "JPEG", quality=95), 64)
    by_png = to_image(encoded(image), 64)
    assert worst(by_jpeg, by_png) <= 8


def test_a_jpeg_is_never_decoded_below_the_requested_size() -> None:
    stripes = np.repeat(np.tile(np.array([0, 0, 255, 255], np.uint8), (240, 80)), 3).reshape(
        240, 320, 3
    )
    shown = to_image(encoded(stripes, "JPEG", quality=95, subsampling=0), 240)
    assert shown.std() > 100  # the finest stripes are all there


def test_to_image_accepts_a_pillow_image() -> None:
    image = noise(50, 32)
    assert np.array_equal(to_image(Image.fromarray(image), 32), image[:, 9:41])


# Color


def test_a_16_bit_ramp_is_scaled_not_clipped() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (256, 1))
    shown = to_image(encoded(Image.fromarray(ramp)), 256)
    assert np.array_equal(shown, np.repeat(np.tile(np.arange(256), (256, 1))[:, :, None], 3, 2))


def test_16_bit_values_are_rounded_to_the_nearest() -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (32, 32)).astype(np.uint16)
    shown = to_image(encoded(Image.fromarray(wide), "TIFF"), 32)[:, :, 0]
    assert np.abs(shown - wide / 257).max() <= 0.5


def ramp(high: int) -> npt.NDArray[np.int64]:
    return np.tile(np.linspace(0, high, 64).astype(np.int64), (64, 1))


@pytest.mark.parametrize("n_bits", [8, 16, 20, 31])
def test_32_bit_integers_are_scaled_by_the_bits_that_they_need(n_bits: int) -> None:
    wide = ramp(2**n_bits - 1)
    shown = to_image(encoded(Image.fromarray(wide.astype(np.int32)), "TIFF"), 64)[:, :, 0]
    assert np.abs(shown - wide / (2**n_bits - 1) * 255).max() <= 0.51


@pytest.mark.parametrize(("kind", "low"), [("<u4", 0), ("<i4", -(2**31))])
def test_32_bit_integers_of_both_signs(kind: str, low: int) -> None:
    wide = ramp(2**32 - 1) + low
    content = gray_tiff(wide.astype(kind), is_signed=kind == "<i4")
    shown = to_image(content, 64)[:, :, 0]
    assert np.abs(shown - (wide - low) / (2**32 - 1) * 255).max() <= 0.51


def gray_tiff(pixels: npt.NDArray[np.integer], *, is_signed: bool) -> bytes:
    """Integers of 32 bits, not compressed, in one strip."""
    height, width = pixels.shape
    data = pixels.tobytes()
    entries = [(256, width), (257, height), (258, 32), (259, 1), (262, 1), (273, 8), (277, 1)]
    entries += [(278, height), (279, len(data)), (339, 2 if is_signed else 1)]
    directory = struct.pack("<H", len(entries))
    for tag, value in entries:
        directory += struct.pack("<HHII", tag, 3, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def png(n_bits: int, color_type: int, rows: bytes, transparent: bytes) -> bytes:
    """An 8 × 8 PNG with a transparent color."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 8, 8, n_bits, color_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


@pytest.mark.parametrize(("n_channels", "color_type"), [(1, 0), (3, 2)])
def test_a_transparent_color_of_16_bits_shows_white(n_channels: int, color_type: int) -> None:
    pixels = np.full((8, 8, n_channels), 30_000, ">u2")
    pixels[4:] = 1000
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    transparent = struct.pack(">H", 1000) * n_channels
    shown = to_image(png(16, color_type, rows, transparent), 8)
    assert (shown[:4] == 117).all()
    assert (shown[4:] == 255).all()


@pytest.mark.parametrize("n_bits", [1, 2, 4, 8])
def test_a_transparent_gray_of_few_bits_shows_white(n_bits: int) -> None:
    gray = int("1".zfill(n_bits) * (8 // n_bits), 2)  # value 1 in each pixel
    rows = (b"\0" + bytes(n_bits)) * 4 + (b"\0" + bytes([gray]) * n_bits) * 4
    shown = to_image(png(n_bits, 0, rows, struct.pack(">H", 1)), 8)
    assert (shown[:4] == 0).all()
    assert (shown[4:] == 255).all()


@pytest.mark.parametrize(("mode", "start"), [("1", b"P4"), ("L", b"P5"), ("RGB", b"P6")])
def test_portable_pixmaps(mode: str, start: bytes) -> None:
    image = Image.fromarray(noise(16, 16)).convert(mode)
    content = encoded(image, "PPM")
    assert content.startswith(start)
    assert scan_each([content]) == [None]
    assert np.array_equal(to_image(content, 16), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("content", "gray"),
    [
        (b"P2\n2 2\n65535\n0 65535 257 32896\n", [[0, 255], [1, 128]]),
        (b"P5\n2 2\n4095\n" + struct.pack(">4H", 0, 4095, 16, 2056), [[0, 255], [1, 128]]),
        (b"P1\n# dark is 1\n2 2\n0 1 1 0\n", [[255, 0], [0, 255]]),
    ],
)
def test_portable_pixmaps_of_other_ranges(content: bytes, gray: list[list[int]]) -> None:
    assert to_image(content, 2)[:, :, 0].tolist() == gray


def test_a_large_pixmap_in_plain_text_is_rejected_at_once() -> None:
    error = rejection(b"P1\n6000 6000\n" + b"0" * 36_000_000)
    assert error.reason is RejectionReason.TOO_LARGE
    assert "binary PPM" in error.detail


def test_transparency_shows_white() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    shown = to_image(encoded(rgba), 32)
    alpha = rgba[:, :, 3:] / 255
    assert np.abs(shown - (rgba[:, :, :3] * alpha + 255 * (1 - alpha))).max() <= 1.01
    assert (shown[0] == 255).all()
    assert np.array_equal(shown[1], rgba[1, :, :3])


def test_transparent_gray_shows_white() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (32, 32, 2), dtype=np.uint8)
    shown = to_image(encoded(Image.fromarray(gray)), 32)
    alpha = gray[:, :, 1:] / 255
    assert np.abs(shown - (gray[:, :, :1] * alpha + 255 * (1 - alpha))).max() <= 1.01


@pytest.mark.parametrize("transparency", [2, b"\xff\xff\x00"])
def test_a_transparent_color_of_a_palette_shows_white(transparency: int | bytes) -> None:
    index = np.tile(np.arange(3, dtype=np.uint8), (3, 1))
    image = Image.frombytes("P", (3, 3), index.tobytes())
    image.putpalette([255, 0, 0, 0, 200, 0, 0, 0, 99])
    shown = to_image(encoded(image, transparency=transparency), 3)
    assert shown[1].tolist() == [[255, 0, 0], [0, 200, 0], [255, 255, 255]]


def test_a_palette_becomes_its_colors() -> None:
    image = Image.fromarray(noise(32, 32)).quantize(64)
    expected = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(to_image(encoded(image, kind), 32), expected)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_gray_becomes_three_equal_channels(kind: str) -> None:
    gray = noise(32, 32)[:, :, 0]
    shown = to_image(encoded(Image.fromarray(gray), kind), 32)
    assert np.array_equal(shown, np.repeat(gray[:, :, None], 3, axis=2))


def test_black_and_white() -> None:
    bits = noise(32, 32)[:, :, 0] > 127
    shown = to_image(encoded(Image.fromarray(bits)), 32)
    assert np.array_equal(shown[:, :, 1], np.where(bits, 255, 0))


def test_gray_jpeg() -> None:
    gray = smooth()[:, :, 0]
    shown = to_image(encoded(Image.fromarray(gray), "JPEG", quality=95), 64)
    assert np.abs(shown - gray[:, :, None].astype(int)).max() <= 4


def test_cmyk_jpeg() -> None:
    y, x = np.mgrid[0:64, 0:64] * 3.0
    cmyk = np.stack([x, y, (x + y) / 2, x / 3], axis=-1).astype(np.uint8)
    shown = to_image(
        encoded(Image.frombytes("CMYK", (64, 64), cmyk.tobytes()), "JPEG", quality=98), 64
    )
    ink, black = cmyk[:, :, :3].astype(float), cmyk[:, :, 3:].astype(float)
    assert np.abs(shown - (255 - ink) * (255 - black) / 255).max() <= 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("#ff0000", "#0000ff")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert scan_each([content]) == [None]
    assert (to_image(content, 16) == (255, 0, 0)).all()


def profile_of(
    matrix: npt.NDArray[np.float64], gamma: float, space: bytes = b"RGB ", name: bytes = b"made up"
) -> bytes:
    """An ICC profile (version 2) of three primaries, or gray, and a power curve."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: npt.NDArray[np.float64]) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(map(fixed, values))

    curve = b"curv" + struct.pack(">4xIH", 1, round(gamma * 256)) + bytes(2)
    label = b"desc" + struct.pack(">4xI", len(name) + 1) + name + b"\0" + bytes(78)
    tags = [
        (b"desc", label + bytes(-len(label) % 4)),
        (b"wtpt", xyz(np.array([0.9642, 1.0, 0.8249]))),
        (b"cprt", b"text" + bytes(8)),
    ]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        tags += [(b"%cXYZ" % c, xyz(column)) for c, column in zip(b"rgb", matrix.T, strict=True)]
        tags += [(b"%cTRC" % c, curve) for c in b"rgb"]
    at, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for key, content in tags:
        table += key + struct.pack(">II", at + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + table + data
    size, white = 128 + len(body), (63190, 65536, 54061)
    words = (b"mntr", space, b"XYZ ", b"acsp")
    header = struct.pack(">I4xI4s4s4s12x4s28xiii", size, 0x02400000, *words, *white)
    return header + bytes(128 - len(header)) + body


# Columns: the primaries' XYZ under D50. sRGB's as IEC 61966-2-1 gives them, adapted by Bradford's
# matrix; Display P3's as its own profile has them.
SRGB = np.array([
    [0.4360747, 0.3850649, 0.1430804],
    [0.2225045, 0.7168786, 0.0606169],
    [0.0139322, 0.0971045, 0.7141733],
])  # fmt: skip
P3 = np.array([
    [0.515121, 0.291977, 0.157104],
    [0.241196, 0.692245, 0.0665741],
    [-0.00105, 0.0418854, 0.784073],
])  # fmt: skip


def as_srgb(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Linear light in sRGB's primaries to sRGB's values in [0, 255]."""
    light = np.clip(linear, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


OPTIONS: dict[str, dict[str, object]] = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 98, "subsampling": 0},
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_color_profiles_are_converted_to_srgb(kind: str, gamma: float) -> None:
    profile = profile_of(P3, gamma)
    content = encoded(smooth(64, 64), kind, icc_profile=profile, **OPTIONS.get(kind, {}))
    stored = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    right = as_srgb((stored / 255.0) ** gamma @ (np.linalg.inv(SRGB) @ P3).T)
    dark = (stored < 40).any(axis=2)  # there, 8 bits of linear light are few
    assert np.abs(to_image(content, 64) - right)[~dark].max() <= 1.5
    assert np.abs(right - stored)[~dark].max() > 15  # so it was converted


def test_gray_profiles_are_converted_to_srgb() -> None:
    ramp = np.tile(np.arange(40, 256, dtype=np.uint8), (216, 1))
    content = encoded(ramp, "PNG", icc_profile=profile_of(P3, 1.0, b"GRAY"))
    right = as_srgb(ramp / 255.0)
    assert np.abs(to_image(content, 216) - right[:, :, None]).max() <= 1.5


def test_srgb_and_unusable_profiles_change_nothing() -> None:
    image = noise(32, 32)
    plain = to_image(encoded(image), 32)
    good = profile_of(P3, 2.2)
    for profile in (
        profile_of(P3, 2.2, name=b"my sRGB monitor"),  # says that it is sRGB
        profile_of(P3, 2.2, b"GRAY"),  # of another space than the pixels
        b"",
        b"no profile",
        good[:200],
        good[:36] + b"\0" * 92 + good[128:],
    ):
        assert np.array_equal(to_image(encoded(image, icc_profile=profile), 32), plain)
    transparent = np.dstack([image[:, :, :2]])  # gray and alpha with a gray profile
    content = encoded(Image.fromarray(transparent, "LA"), icc_profile=profile_of(P3, 2.2, b"GRAY"))
    assert to_image(content, 32).shape == (32, 32, 3)


def test_ycck_jpeg() -> None:
    """Adobe's second way to store CMYK; the expected color by the standard's arithmetic."""
    stored = (90, 150, 110, 200)  # Y, Cb, Cr, K as they stand in the file
    plain = Image.new("CMYK", (32, 32), tuple(255 - value for value in stored))
    content = bytearray(encoded(plain, "JPEG", quality=100))
    marker = content.index(b"Adobe")
    content[marker + 11] = 2  # the transform: YCCK instead of CMYK
    y, cb, cr, k = stored
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)
    # libjpeg gives 255 - red and so on for C, M and Y; Adobe stores all four inverted.
    cyan, magenta, yellow, black = red, green, blue, 255 - k
    right = [(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)]
    assert np.abs(to_image(bytes(content), 16) - right).max() <= 3


@pytest.mark.parametrize(
    "kind_mode",
    slow("JPEG RGB", "JPEG CMYK", "PNG RGBA", "PNG P", "TIFF I;16")
    + nightly("JPEG L", "PNG RGB", "PNG L", "PNG I;16")
    + nightly("TIFF RGB", "TIFF L", "TIFF RGBA", "TIFF P", "TIFF CMYK"),
)
def test_large_photos_are_reduced_first_and_look_the_same(kind_mode: str) -> None:
    kind, mode = kind_mode.split()
    y, x = np.mgrid[0:1900, 0:2500] / 300.0
    waves = [
        127 + 60 * np.sin(3 * x + k) * np.cos(2 * y - k) + 40 * np.sin(40 * x * (k + 1))
        for k in range(3)
    ]
    color = np.stack(waves, -1).clip(0, 255).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(color[:, :, 0].astype(np.uint16) * 257)
        whole = Image.fromarray(color[:, :, 0]).convert("RGB")
    elif mode == "RGBA":
        image = Image.fromarray(np.dstack([color, color[:, :, :1]]))
        alpha = color[:, :, :1] / 255.0
        whole = Image.fromarray((color * alpha + 255 * (1 - alpha)).round().astype(np.uint8))
    else:
        image = Image.fromarray(color).convert(mode)
        whole = image.convert("RGB")
    content = encoded(image, kind, **OPTIONS.get(kind, {}))
    right = whole.resize((48, 48), Image.Resampling.BICUBIC, (300, 0, 2200, 1900))
    difference = np.abs(to_image(content, 48).astype(int) - np.asarray(right))
    assert difference.mean() < 1
    assert difference.max() <= 6


def test_floating_point_pixels_are_rejected_rather_than_guessed() -> None:
    content = encoded(Image.fromarray(np.random.default_rng(0).random((8, 8), np.float32)), "TIFF")
    for error in rejections(content):
        assert error.reason is RejectionReason.UNSUPPORTED
        assert "8 bits per channel" in error.detail


# Rejected


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_truncated_files_are_rejected_as_such(kind: str, share: float) -> None:
    content = encoded(noise(80, 60), kind)
    assert scan_each([content]) == [None]
    for error in rejections(content[: int(len(content) * share)]):
        # Pillow does not say how an AVIF header is broken.
        assert error.reason in (
            {RejectionReason.TRUNCATED, RejectionReason.DAMAGED}
            if kind == "AVIF"
            else {RejectionReason.TRUNCATED}
        )
        assert error.detail.startswith(f"{kind}: ")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_way_to_cut_a_file_is_survived(kind: str) -> None:
    content = encoded(noise(24, 24), kind)
    cuts = [content[:end] for end in range(0, len(content), 7)]
    assert outcomes(cuts) <= {
        None,  # only the last bytes, which hold no pixels, are missing
        RejectionReason.EMPTY_FILE,
        RejectionReason.NOT_AN_IMAGE,
        RejectionReason.TRUNCATED,
        RejectionReason.DAMAGED,
    }


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_truncated_compressed_tiff(compression: str) -> None:
    content = encoded(noise(80, 60), "TIFF", compression=compression)
    assert rejection(content[: len(content) // 2]).reason is RejectionReason.TRUNCATED


def test_pillows_switch_for_truncated_images_is_overridden_and_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(noise(80, 60), "JPEG")
    assert rejection(content[: len(content) // 2]).reason is RejectionReason.TRUNCATED
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_empty_file() -> None:
    for error in rejections(b""):
        assert error.reason is RejectionReason.EMPTY_FILE


@pytest.mark.parametrize(
    "content",
    [b"x", b"hello, I am a text file\n", b"\0" * 1000, b"<html></html>", b"BMW is a car maker"],
)
def test_other_files_are_not_images(content: bytes) -> None:
    assert str(rejection(content)) == "not an image: unknown format"
    for error in rejections(content):
        assert (error.reason, error.detail) == (RejectionReason.NOT_AN_IMAGE, "unknown format")


def test_a_sound_in_a_riff_container_is_not_an_image() -> None:
    assert rejection(b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 50).reason is RejectionReason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50, "HEIC"),
        (b"\0\0\0\x18ftyphevc\0\0\0\0hevcmif1" + b"\0" * 50, "HEIC"),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix" + b"\0" * 50, "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafheic" + b"\0" * 50, "HEIC"),
        (b"8BPS\0\1" + b"\0" * 50, "PSD"),
        (b"%PDF-1.7\n", "PDF"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 50, "JPEG 2000"),
        (b"\xff\x0a" + b"\0" * 50, "JPEG XL"),
    ],
)
def test_unsupported_formats_say_what_to_do(content: bytes, name: str) -> None:
    error = rejection(content)
    assert error.reason is RejectionReason.UNSUPPORTED
    assert error.detail.startswith(name)
    assert "JPEG" in error.detail


def test_damaged_headers_name_the_format() -> None:
    content = bytearray(encoded(noise(), "PNG"))
    content[16:20] = b"\0\0\0\0"  # a width of 0
    error = rejection(bytes(content))
    assert error.reason is RejectionReason.DAMAGED
    assert error.detail.startswith("PNG: ")


def test_a_jpeg_with_its_end_but_a_damaged_middle_is_decoded_or_rejected() -> None:
    content = encoded(noise(80, 60), "JPEG")
    random = np.random.default_rng(0)
    damaged = []
    for _ in range(200):
        bad = bytearray(content)
        start = int(random.integers(2, len(bad) - 60))
        bad[start : start + 40] = random.bytes(40)
        damaged.append(bytes(bad))
    assert {None, RejectionReason.DAMAGED} <= outcomes(damaged)


def test_random_bytes() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        assert (
            rejection(random.bytes(int(random.integers(1, 500)))).reason
            is RejectionReason.NOT_AN_IMAGE
        )


@pytest.mark.parametrize("kind", FORMATS)
def test_random_bytes_after_a_valid_start(kind: str) -> None:
    random = np.random.default_rng(0)
    start = encoded(noise(), kind)[:16]
    for _ in range(50):
        assert rejection(start + random.bytes(500)).reason is not RejectionReason.EMPTY_FILE


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bytes_are_decoded_or_rejected(kind: str) -> None:
    content = encoded(noise(), kind)
    random = np.random.default_rng(0)
    mutants = []
    for k in range(200):
        bad = bytearray(content)
        for place in random.integers(0, min(200, len(bad)) if k % 2 else len(bad), 1 + k % 5):
            bad[place] = random.integers(256)
        mutants.append(bytes(bad))
    assert RejectionReason.DAMAGED in outcomes(mutants)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def jpeg_header(width: int, height: int) -> bytes:
    content = encoded(noise(16, 16), "JPEG")
    frame = content.index(b"\xff\xc0")
    return content[: frame + 5] + struct.pack(">HH", height, width) + content[frame + 9 :]


@pytest.mark.parametrize(
    "content",
    [png_header(60_000, 60_000), png_header(12_000, 10_000), jpeg_header(65_000, 65_000)],
    ids=["large png", "just too large png", "large jpeg"],
)
def test_decompression_bombs_are_rejected_at_once(content: bytes) -> None:
    start = time.process_time()
    for error in rejections(content):
        assert error.reason is RejectionReason.TOO_LARGE
    assert time.process_time() - start < 1


def test_a_jpeg_with_very_many_scans_is_rejected_at_once() -> None:
    start = time.process_time()
    content = jpeg_header(9_000, 9_000) + b"\xff\xda\0\x08\1\1\0\0?\0" * 60
    for error in rejections(content):
        assert error.reason is RejectionReason.TOO_LARGE
        assert "60 scans" in error.detail or "61 scans" in error.detail
    assert time.process_time() - start < 1


def color_tiff(bits: int, pixels: bytes) -> bytes:
    """4 × 4 pixels of three samples, not compressed, in one strip."""
    entries = [(256, 3, 4), (257, 3, 4), (258, 3, bits), (259, 3, 1), (262, 3, 2)]
    entries += [(273, 4, 8), (277, 3, 3), (278, 3, 4), (279, 4, len(pixels))]
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack("<HHII", tag, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + bytes(4)


def test_16_bit_color_in_a_tiff_is_scaled() -> None:
    values = np.linspace(0, 65535, 48).astype("<u2")
    shown = to_image(color_tiff(16, values.tobytes()), 4)
    assert np.abs(shown.ravel() - values / 257.0).max() <= 1


def test_other_bits_in_a_tiff_are_unsupported_not_damaged() -> None:
    error = rejection(color_tiff(24, bytes(144)))
    assert error.reason is RejectionReason.UNSUPPORTED
    assert "save it with 8 bits per channel" in error.detail


def test_damage_after_the_first_frame_does_not_matter(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(20, 20, seed)).convert("P") for seed in range(3)]
    whole = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second = whole.index(b"\0,", len(encoded(frames[0], "GIF")) - 40)
    cuts = [whole[:cut] + b";" for cut in range(second, second + 40)]
    (tmp_path / "a").mkdir()
    for k, content in enumerate([whole, *cuts]):
        (tmp_path / f"a/{k:02}.gif").write_bytes(content)
    found = audit(scan(tmp_path))
    assert 0 in found.animated
    assert len(found.photos) + len(found.rejected) == 41


@pytest.mark.nightly
@pytest.mark.parametrize(
    "kind", ["JPEG of 192 MP", "PNG with alpha", "PNG of 16 bits", "GIF", "TIFF"]
)
def test_the_largest_photos_need_less_than_a_gibibyte_and_ten_seconds(
    kind: str, tmp_path: Path
) -> None:
    side = {"JPEG of 192 MP": (16_000, 12_000)}.get(kind, (10_000, 9_900))
    mode = {"PNG with alpha": "RGBA", "PNG of 16 bits": "I;16", "GIF": "P"}.get(kind, "RGB")
    image = Image.new(mode, side, 77)
    options = {"transparency": 3} if kind == "GIF" else {}
    photo = tmp_path / "photos/a/photo"
    photo.parent.mkdir(parents=True)
    image.save(photo, kind.split(maxsplit=1)[0], **options)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from scenelearn.data import audit, scan, to_image\n"
        "from tests.bench.fuzz._cases import peak_kib\n"
        "content = Path(sys.argv[1]).read_bytes()\n"
        "start = time.process_time()\n"
        "to_image(content, 160); audit(scan(Path(sys.argv[1]).parent.parent))\n"
        "print(time.process_time() - start, peak_kib())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(photo)],
        capture_output=True, text=True, timeout=600, cwd=REPOSITORY,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    seconds, kib = map(float, run.stdout.split())
    assert kib < 2**20
    assert seconds < 30  # three readings


def test_too_little_memory_is_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    content = encoded(noise())
    for method in ("tobytes", "load"):
        with monkeypatch.context() as patch:
            patch.setattr(
                ImageFile.ImageFile if method == "load" else Image.Image, method, no_memory
            )
            error = rejection(content)
        assert error.reason is RejectionReason.UNREADABLE
        assert "memory" in error.detail


def palette_without_colors() -> bytes:
    """A PNG whose pixels are indices of a palette that it lacks."""
    content = encoded(Image.fromarray(noise()).convert("P"))
    start, end = content.index(b"PLTE") - 4, content.index(b"IDAT") - 4
    return content[:start] + content[end:]


def test_a_palette_without_colors_is_decoded_or_rejected() -> None:
    assert outcomes([palette_without_colors()]) <= {None, RejectionReason.DAMAGED}


@pytest.mark.parametrize(
    "error", [AssertionError(), ValueError("x"), struct.error("x"), SystemError(), RecursionError()]
)
@pytest.mark.parametrize("method", ["load", "convert"])
def test_whatever_a_decoder_raises_is_a_rejection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, method: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    content = encoded(Image.fromarray(noise()).convert("P"), "GIF")
    image = Image.fromarray(noise()).convert("P")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.gif").write_bytes(content)
    photos = scan(tmp_path)
    monkeypatch.setattr(ImageFile.ImageFile if method == "load" else Image.Image, method, fail)
    (audited,) = audit(photos).rejected
    for found in (rejection(content), audited):
        assert found.reason is RejectionReason.DAMAGED
        assert found.detail.endswith(str(error) or type(error).__name__)
    if method == "convert":
        with pytest.raises(PhotoError, match="damaged image"):
            to_image(image, 8)


def test_an_interruption_is_no_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        to_image(encoded(noise()), 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("image_px", [16, 40, 75])
def test_resampling_agrees_with_pillow(mode: str, image_px: int) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    image = Image.fromarray(coarse).resize((96, 71), Image.Resampling.BICUBIC).convert(mode)
    box = (12.5, 0, 83.5, 71)
    plain = image.resize((image_px, image_px), Image.Resampling.BICUBIC, box).convert("RGB")
    apart = np.abs(to_image(image, image_px).astype(int) - np.asarray(plain))
    assert apart.mean() < 0.5
    assert np.quantile(apart, 0.99) <= 3


def test_without_a_wheel_pillow_resamples() -> None:
    code = (
        "import sys; sys.modules['cykooz_resizer'] = None\n"
        "import numpy as np; from PIL import Image; from scenelearn.data import to_image\n"
        "noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)\n"
        "image = Image.fromarray(noise)\n"
        "plain = image.resize((20, 20), Image.Resampling.BICUBIC)\n"
        "assert (to_image(image, 20) == np.asarray(plain)).all()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_resampling_to_the_same_size_changes_nothing() -> None:
    pixels = noise(30, 30, seed=1)
    assert (to_image(Image.fromarray(pixels), 30) == pixels).all()


def test_a_rejected_photo_error_has_reason_and_detail() -> None:
    error = rejection(b"")
    assert isinstance(error, PhotoError)
    assert isinstance(error, ValueError)
    assert str(error) == "empty file: 0 bytes"


# Global state is restored


def test_decoding_never_warns() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\0\0\xff\xff\xff\xff"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        to_image(encoded(smooth(), "JPEG", exif=exif), 16)
        rejection(b"\x89PNG\r\n\x1a\n" + b"\0" * 30)
        rejection(png_header(10_001, 10_000))
    assert seen == []


def test_threads_leave_the_warning_filters_as_they_were() -> None:
    content = encoded(noise(120, 90), "JPEG")
    before = list(warnings.filters)
    gate = threading.Barrier(8)

    def work(_: int) -> None:
        gate.wait()
        for _ in range(20):
            to_image(content, 16)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
        scan_each([content] * 20)
    assert list(warnings.filters) == before
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
