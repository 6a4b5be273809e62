"""What may happen to a training photo, and what does happen to which: drawn apart from applied."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How strongly training photos are varied.

    Attributes:
        mirror: whether half of the photos are mirrored left to right. Never upside down: a scene
            has its sky above.
        smallest_area: a crop keeps between this share of the area and all of it, in (0, 1].
        aspect: a crop is wider or taller by at most this factor, at least 1.
        brightness: values are multiplied by up to 1 ± this, in [0, 1).

    Raises:
        ArgumentError: if a value is out of its range.
    """

    mirror: bool = True
    smallest_area: float = 0.6  # as in the measurements that the default recipe rests on
    aspect: float = 1.2
    brightness: float = 0.2

    def __post_init__(self) -> None:
        area, aspect, brightness = self.smallest_area, self.aspect, self.brightness
        for name, value, right, expected in (
            ("mirror", self.mirror, isinstance(self.mirror, bool), "True or False"),
            ("smallest_area", area, isinstance(area, int | float) and 0 < area <= 1, "in (0, 1]"),
            (
                "aspect",
                aspect,
                isinstance(aspect, int | float) and 1 <= aspect < math.inf,
                "at least 1",
            ),
            (
                "brightness",
                brightness,
                isinstance(brightness, int | float) and 0 <= brightness < 1,
                "in [0, 1)",
            ),
        ):
            if not right:
                raise ArgumentError(
                    f"`{name}` must be {expected}. Received: {name}={value!r}. "
                    "Leave it out for the default."
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """What happens to each photo of a batch.

    Attributes:
        boxes: (n, 4) float64, left, top, right, bottom of the crop, as shares in [0, 1] of width
            and height.
        mirrored: (n,) bool.
        gains: (n,) float64, what the values are multiplied by.
    """

    boxes: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]
    gains: npt.NDArray[np.float64]


def draw(policy: Policy, seed: int, epoch: int, indices: npt.NDArray[np.int64]) -> Draws:
    """Draw what happens to each photo: a function of (seed, epoch, index) and nothing else.

    Args:
        policy: the bounds.
        seed: of the run, at least 0.
        epoch: at least 0; another epoch, another draw.
        indices: (n,) the photos' positions, at least 0.

    Returns:
        The draws, in the order of `indices`.

    Raises:
        ArgumentError: if `seed`, `epoch` or an index is negative.

    Example:
        >>> a = draw(Policy(), 0, 1, np.array([5, 9]))
        >>> b = draw(Policy(), 0, 1, np.array([9]))
        >>> bool((a.boxes[1] == b.boxes[0]).all())
        True
    """
    for name, least in (("seed", seed), ("epoch", epoch), ("indices", min(indices, default=0))):
        if least < 0:
            raise ArgumentError(
                f"`{name}` must be at least 0. Received: {least}. Count from 0 upwards."
            )
    u = np.array([np.random.default_rng([seed, epoch, int(i)]).random(6) for i in indices])
    u = u.reshape(-1, 6)  # of no photos, too
    area = policy.smallest_area + (1 - policy.smallest_area) * u[:, 0]
    stretch = np.exp((2 * u[:, 1] - 1) * np.log(policy.aspect) / 2)
    stretch = np.clip(stretch, np.sqrt(area), 1 / np.sqrt(area))  # neither side outgrows the image
    width = np.minimum(np.sqrt(area) * stretch, 1)
    height = np.minimum(np.sqrt(area) / stretch, 1)
    left, top = (1 - width) * u[:, 2], (1 - height) * u[:, 3]
    return Draws(
        boxes=np.stack([left, top, left + width, top + height], axis=1),
        mirrored=policy.mirror & (u[:, 4] < 0.5),
        gains=1 + policy.brightness * (2 * u[:, 5] - 1),
    )
