"""How photos of any size become images of one size: cropped, padded or squashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_choice, check_image_px, image_size

SHAPES = ("crop", "pad", "squash")

_PREPARATION = {
    "crop": "Crop the center to the proportions of {size} px, and resize it to that size",
    "pad": "Resize the whole photo, in its proportions, to fit into {size} px, and pad it with "
    "black on both sides",
    "squash": "Resize the whole photo to {size} px, whatever its proportions",
}


@dataclass(frozen=True, slots=True)
class Resize:
    """How a photo of any size becomes the image that a network is given.

    Attributes:
        height: of the image, in pixels.
        width: of the image, in pixels.
        shape: what happens to a photo of other proportions: "crop", "pad" or "squash".
    """

    height: int
    width: int
    shape: str = "crop"

    @property
    def image_px(self) -> int | tuple[int, int]:
        """Height and width; one number if they are the same."""
        return self.height if self.height == self.width else (self.height, self.width)

    @property
    def title(self) -> str:
        """For a reader: "160 px" or "120×180 px, pad"."""
        is_square = self.height == self.width
        size = f"{self.height if is_square else format_px(self.image_px)} px"
        return size if self.shape == "crop" else f"{size}, {self.shape}"

    def scaled(self, width: int) -> Resize:
        """The same shape and proportions at another width, in pixels."""
        return Resize(max(1, round(self.height * width / self.width)), width, self.shape)

    @property
    def transposed(self) -> Resize:
        """The same for photos that are stored lying on their side."""
        return Resize(self.width, self.height, self.shape)

    @property
    def preparation(self) -> str:
        """A sentence that says how to prepare an upright photo."""
        text = _PREPARATION[self.shape].format(size=format_px(self.image_px))
        return f"{text}: bicubic, antialiased."

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """The central part of a photo that is used: left, top, right and bottom, in its pixels."""
        rows, columns = height, width
        if self.shape == "crop":
            rows, columns = largest_inside(height, width, self.height, self.width)
        left, top = (width - columns) / 2, (height - rows) / 2
        return left, top, left + columns, top + rows

    def content(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that this part of a photo has in the image, without padding."""
        if self.shape == "pad":
            return largest_inside(self.height, self.width, height, width)
        return self.height, self.width

    def pad(self, content: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Put the content in the middle of a black image, unless it fills the image."""
        rows, columns = content.shape[:2]
        if (rows, columns) == (self.height, self.width):
            return content
        image = np.zeros((self.height, self.width, 3), np.uint8)
        top, left = (self.height - rows) // 2, (self.width - columns) // 2
        image[top : top + rows, left : left + columns] = content
        return image

    def __str__(self) -> str:
        """A part of file names, such as "160" or "120x180-pad"."""
        size = str(self.height) if self.height == self.width else f"{self.height}x{self.width}"
        return size if self.shape == "crop" else f"{size}-{self.shape}"


def make_resize(image_px: Any, shape: Any = "crop") -> Resize:
    """The `Resize` of a user's arguments.

    Args:
        image_px: the side of a square, or (height, width), in pixels.
        shape: "crop", "pad" or "squash".

    Raises:
        ArgumentError: if one of them is something else.

    Example:
        >>> make_resize((120, 180)).box(100, 200)
        (25.0, 0.0, 175.0, 100.0)
        >>> make_resize(160, "pad").content(100, 200)
        (80, 160)
    """
    height, width = image_size(check_image_px(image_px))
    return Resize(height, width, check_shape(shape))


def check_shape(shape: Any) -> str:
    """Check that `shape` is one of `SHAPES`.

    Raises:
        ArgumentError: if it is not.
    """
    return str(check_choice("shape", shape, SHAPES, advice="The default is 'crop'."))


def format_px(image_px: int | tuple[int, int]) -> str:
    """Height and width for a reader, such as "160×160"."""
    height, width = image_size(image_px)
    return f"{height}×{width}"


def largest_inside(height: int, width: int, like_height: int, like_width: int) -> tuple[int, int]:
    """The largest height and width inside a rectangle that have the proportions of another.

    Rounded half up, in integers, so that an exported model computes the same.

    Example:
        >>> largest_inside(100, 200, 2, 3)
        (100, 150)
    """
    rows = (2 * width * like_height + like_width) // (2 * like_width)
    columns = (2 * height * like_width + like_height) // (2 * like_height)
    return min(height, max(1, rows)), min(width, max(1, columns))
