"""What may happen to a training photo: a strength for each operation, 0 for never."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from scenelearn.augment._operations import OPERATIONS
from scenelearn.errors import ArgumentError

FILLS = ("reflect", "edge")


def checked_fill(fill: object) -> str | tuple[float, float, float]:
    """See that `fill` is one of the three kinds; a color becomes a tuple.

    Raises:
        ArgumentError: if it is not.
    """
    if isinstance(fill, str) and fill in FILLS:
        return fill
    if isinstance(fill, tuple | list) and len(fill) == 3:
        color = [float(v) for v in fill if _number(v, int | float) and 0 <= v <= 255]
        if len(color) == 3:
            return color[0], color[1], color[2]
    raise ArgumentError(
        "`fill` must be 'reflect', 'edge' or a color (r, g, b) of numbers from 0 to 255. "
        f"Received: fill={fill!r}. Pass 'reflect'."
    )


def _number(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How strongly photos are varied: the largest strength of each operation, 0 for never.

    A draw lies anywhere between 0 and the strength, and goes both ways where that has a meaning;
    probabilities are drawn as yes or no. `OPERATIONS` has a line on each.

    Attributes:
        mirror: probability that left and right change places.
        upside_down: probability that top and bottom change places.
        crop: largest share of the area that is cut away, in [0, 0.99].
        stretch: the crop is wider or taller than the photo by at most this fraction, as far as it
            is smaller than the photo: without a crop nothing is stretched.
        rotate: degrees, at most 180.
        zoom: fraction; 0.25 means from 1/1.25 to 1.25 times the size.
        shear_x: degrees, at most 60.
        shear_y: degrees, at most 60.
        shift_x: share of the width.
        shift_y: share of the height.
        tilt_x: perspective: how much nearer one side comes, a fraction of at most 0.4.
        tilt_y: the same for top and bottom.
        brightness: stops, at most 4; values are multiplied by 2 to the power of what is drawn.
        contrast: fraction; 0.2 means 0.8 to 1.2 times the distance from mid-gray.
        saturation: fraction; likewise from the gray of the same brightness.
        hue: degrees about the gray axis.
        temperature: stops of red over blue.
        gray: probability that all color goes.
        autocontrast: probability that values are spread from black to white.
        equalize: probability that values are made equally frequent.
        solarize: share of the range, from white down, that is inverted.
        posterize: low bits dropped, a whole number up to 7.
        sharpness: fraction; below 0 smoothed, above 0 sharpened.
        blur: standard deviation in pixels, at most 5.
        noise: standard deviation in levels of 255, at most 128.
        blocks: blocks of 8×8 pixels as in a JPEG; a multiple of the usual quantization steps.
        erase: largest share of the area under a gray rectangle, at most 0.9.
        pick: each photo gets this many of the operations after `stretch`, one of the candidates
            being none; None for all of them.
        fixed: whether strengths are used in full, with either sign, instead of drawn.
        fill: what lies outside the photo: "reflect", "edge", or a color (r, g, b) in 0 to 255.

    Raises:
        ArgumentError: if a value is out of its range.

    Example:
        >>> Policy(rotate=10, brightness=0.5).asked
        ('rotate', 'brightness')
    """

    mirror: float = 0.0
    upside_down: float = 0.0
    crop: float = 0.0
    stretch: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    shear_x: float = 0.0
    shear_y: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    temperature: float = 0.0
    gray: float = 0.0
    autocontrast: float = 0.0
    equalize: float = 0.0
    solarize: float = 0.0
    posterize: int = 0
    sharpness: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    blocks: float = 0.0
    erase: float = 0.0
    pick: int | None = None
    fixed: bool = False
    fill: str | tuple[float, float, float] = "reflect"

    def __post_init__(self) -> None:
        for name, operation in OPERATIONS.items():
            value = getattr(self, name)
            whole = name == "posterize"
            if (
                not _number(value, int if whole else int | float)
                or not 0 <= value <= operation.most
            ):
                raise ArgumentError(
                    f"`{name}` must be a {'whole ' if whole else ''}number from 0 to "
                    f"{operation.most:g} ({operation.unit}). Received: {name}={value!r}. "
                    "Leave it out for never."
                )
        if self.pick is not None and (not _number(self.pick, int) or self.pick < 1):
            raise ArgumentError(
                "`pick` must be a whole number of at least 1, or None for all operations. "
                f"Received: pick={self.pick!r}."
            )
        if not isinstance(self.fixed, bool):
            raise ArgumentError(f"`fixed` must be True or False. Received: fixed={self.fixed!r}.")
        object.__setattr__(self, "fill", checked_fill(self.fill))

    @property
    def asked(self) -> tuple[str, ...]:
        """The operations that this policy asks for, in the order in which they are done."""
        return tuple(name for name in OPERATIONS if getattr(self, name))

    def to_json(self) -> dict[str, Any]:
        """What differs from a policy that does nothing, as plain values by name."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = asdict(Policy())
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
            if value != plain[name]
        }


_TRIVIAL: dict[str, Any] = {
    # The wide space of TrivialAugment, on our units: shears of 0.99, shifts of 32 pixels of 224,
    # 135 degrees, 6 of 8 bits, factors from about half to double.
    "rotate": 135,
    "shear_x": 44.7,
    "shear_y": 44.7,
    "shift_x": 0.14,
    "shift_y": 0.14,
    "brightness": 1.0,
    "contrast": 0.99,
    "saturation": 0.99,
    "autocontrast": 1.0,
    "equalize": 1.0,
    "solarize": 1.0,
    "posterize": 6,
    "sharpness": 0.99,
}
_RANDAUGMENT: dict[str, Any] = {
    # Strongest setting of each operation, which level 30 of RandAugment has.
    "rotate": 30,
    "shear_x": 16.7,
    "shear_y": 16.7,
    "shift_x": 0.3,
    "shift_y": 0.3,
    "brightness": 1.0,
    "contrast": 0.9,
    "saturation": 0.9,
    "autocontrast": 1.0,
    "equalize": 1.0,
    "solarize": 1.0,
    "posterize": 4,
    "sharpness": 0.9,
}
_LEVELS = 30

_BASE: dict[str, Any] = {"mirror": 0.5, "crop": 0.4, "stretch": 0.2}

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    # Crops to 60 % of the area, aspect ratios up to 1.2, values times 0.8 to 1.2: the recipe that
    # the first measurements of fine-tuning used.
    "light": Policy(**_BASE, brightness=0.3),
    "standard": Policy(**_BASE, rotate=5, brightness=0.3, contrast=0.2, saturation=0.2),
    "strong": Policy(
        **_BASE | {"crop": 0.7, "stretch": 0.33},
        rotate=15, zoom=0.1, shear_x=5, tilt_x=0.1, tilt_y=0.1, brightness=0.6, contrast=0.4,
        saturation=0.5, hue=10, temperature=0.3, gray=0.05, blur=1, noise=8, erase=0.2,
    ),
    "trivial": Policy(**_BASE, **_TRIVIAL, pick=1),
}  # fmt: skip
"""The policies that have a name.

- "none" does nothing.
- "light": mirrored left to right, crops, brightness.
- "standard": the same with a small rotation, contrast and saturation: for photos of scenes.
- "strong": wider, with perspective, hue, temperature, blur, noise and erasing.
- "trivial": mirrored and cropped, and one operation of thirteen or none, of any strength:
  S. Müller, F. Hutter (2021), TrivialAugment: tuning-free yet state-of-the-art data augmentation.
  ICCV.
"""


def policy(name: str | Policy | Mapping[str, Any]) -> Policy:
    """The policy of a name.

    Args:
        name: one of `POLICIES`; a policy, which is given back; or its values by name, as
            `Policy.to_json` gives them.

    Returns:
        The policy.

    Raises:
        ArgumentError: if there is none of this name, or a value is out of range.

    Example:
        >>> policy("light").crop
        0.4
    """
    if isinstance(name, Policy):
        return name
    if isinstance(name, Mapping):
        known = {field.name for field in fields(Policy)}
        if set(name) <= known:
            return Policy(**name)
        raise ArgumentError(
            f"A policy must have values of known names. Received: {sorted(set(name) - known)}. "
            f"Known are {', '.join(sorted(known))}."
        )
    if not isinstance(name, str) or name not in POLICIES:
        raise ArgumentError(
            f"A policy must be one of {', '.join(map(repr, POLICIES))}, or an augment.Policy. "
            f"Received: {name!r}. Make one of your own by augment.Policy(rotate=10, …)."
        )
    return POLICIES[name]


def randaugment(n: int = 2, m: float = 9) -> Policy:
    """RandAugment for each photo: `n` operations of fourteen, at level `m` of 30.

    The fourteenth is none. Unlike in the paper, what was picked is done in the order of
    `OPERATIONS`, so that all geometry is one look-up, and no operation comes twice.

    Args:
        n: operations a photo, at least 1.
        m: level, in (0, 30].

    Returns:
        The policy; every photo is mirrored and cropped as by "standard".

    Raises:
        ArgumentError: if `n` or `m` is out of range.

    Example:
        >>> randaugment(2, 15).rotate
        15.0

    References:
        E. Cubuk et al. (2020), RandAugment: practical automated data augmentation with a reduced
        search space. NeurIPS.
    """
    if not _number(m, int | float) or not 0 < m <= _LEVELS:
        raise ArgumentError(
            f"`m` must be a number above 0, up to {_LEVELS}. Received: m={m!r}. 9 is usual."
        )
    if not _number(n, int) or n < 1:
        raise ArgumentError(f"`n` must be a whole number of at least 1. Received: n={n!r}. Pass 2.")
    strengths = {
        name: most
        if OPERATIONS[name].unit == "probability"
        else round(most * m / _LEVELS)
        if name == "posterize"
        else most * m / _LEVELS
        for name, most in _RANDAUGMENT.items()
    }
    return Policy(**_BASE, **strengths, pick=n, fixed=True)
