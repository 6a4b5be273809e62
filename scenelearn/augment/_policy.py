"""Augmentation policies: a strength for each operation, 0 for never."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scenelearn._checks import check_bool, check_integer, check_number
from scenelearn._json import plain
from scenelearn.augment._operations import OPERATIONS
from scenelearn.errors import ArgumentError

_FILLS = ("reflect", "edge")


def check_fill(fill: Any) -> str | tuple[float, float, float]:
    """Check that `fill` is "reflect", "edge" or a color, and return a color as a tuple of floats.

    Raises:
        ArgumentError: if it is something else.
    """
    if isinstance(fill, str) and fill in _FILLS:
        return fill
    try:
        if isinstance(fill, tuple | list) and len(fill) == 3:
            r, g, b = (check_number("fill", value, low=0, high=255) for value in fill)
            return r, g, b
    except ArgumentError:
        pass
    raise ArgumentError(
        "`fill` must be 'reflect', 'edge' or a color (r, g, b) of numbers from 0 to 255. "
        f"Received: fill={fill!r}. Pass 'reflect'."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An augmentation policy: the maximum strength of each operation, 0 for never.

    Strengths are sampled uniformly between 0 and the maximum, in both directions where that makes
    sense; probabilities are sampled as yes or no. `OPERATIONS` describes each operation.

    Attributes:
        horizontal_flip: probability of flipping left and right.
        vertical_flip: probability of flipping top and bottom.
        crop: largest fraction of the area that is cut away, in [0, 0.99].
        aspect: largest change of the crop's aspect ratio, a fraction: 0.2 means from 1/1.2 to 1.2.
            Limited by the photo's border, so it has no effect without a crop.
        rotate: degrees, at most 180.
        zoom: fraction; 0.25 means from 1/1.25 to 1.25 times the size.
        shear_x: degrees, at most 60.
        shear_y: degrees, at most 60.
        translate_x: fraction of the width.
        translate_y: fraction of the height.
        perspective_x: how much closer the left or right side comes, a fraction of at most 0.4.
        perspective_y: how much closer the top or bottom comes, a fraction of at most 0.4.
        brightness: stops, at most 4; values are multiplied by 2 to the power of the sampled value.
        contrast: fraction; 0.2 means from 0.8 to 1.2 times the distance from mid-gray.
        saturation: fraction; likewise for the distance from the gray of the same luma.
        hue: degrees about the gray axis, at most 180.
        temperature: stops of red over blue, at most 2.
        gray: probability of converting to grayscale.
        autocontrast: probability of stretching values from black to white.
        equalize: probability of equalizing the histogram.
        solarize: fraction of the range, from white down, that is inverted.
        posterize: number of low bits dropped, an integer from 0 to 7.
        sharpness: fraction; smooths where negative, sharpens where positive.
        blur: standard deviation in pixels, at most 5.
        noise: standard deviation in levels of 255, at most 128.
        jpeg_blocks: JPEG artifacts: a multiple of the standard quantization steps, at most 20.
        erase: largest fraction of the area covered by a gray rectangle, at most 0.9.
        num_ops: how many of the operations after `aspect` each photo gets, chosen at random; one of
            the candidates is the identity. None for all operations.
        fixed_magnitude: whether to use the full strength, with a random sign, instead of sampling.
        fill: how to fill the area outside the photo: "reflect", "edge", or a color (r, g, b) in 0
            to 255.

    Raises:
        ArgumentError: if a value is out of range.

    Example:
        >>> Policy(rotate=10, brightness=0.5)
        Policy(rotate=10, brightness=0.5)
    """

    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0
    crop: float = 0.0
    aspect: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    shear_x: float = 0.0
    shear_y: float = 0.0
    translate_x: float = 0.0
    translate_y: float = 0.0
    perspective_x: float = 0.0
    perspective_y: float = 0.0
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
    jpeg_blocks: float = 0.0
    erase: float = 0.0
    num_ops: int | None = None
    fixed_magnitude: bool = False
    fill: str | tuple[float, float, float] = "reflect"

    def __post_init__(self) -> None:
        for name, operation in OPERATIONS.items():
            check: Any = check_integer if name == "posterize" else check_number
            check(
                name, getattr(self, name), low=0, high=operation.maximum,
                advice=f"The unit is {operation.unit}; 0 means never.",
            )  # fmt: skip
        if self.num_ops is not None:
            check_integer("num_ops", self.num_ops, low=1, advice="None means all operations.")
        check_bool("fixed_magnitude", self.fixed_magnitude)
        object.__setattr__(self, "fill", check_fill(self.fill))

    def __repr__(self) -> str:
        return f"Policy({', '.join(f'{name}={value!r}' for name, value in self._changed())})"

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of the policy's operations, in the order of `OPERATIONS`."""
        return tuple(name for name in OPERATIONS if getattr(self, name))

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as plain values by name."""
        return {name: plain(value) for name, value in self._changed()}

    def _changed(self) -> list[tuple[str, Any]]:
        values = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return [(name, value) for name, value, default in values if value != default]


_TRIVIAL: dict[str, Any] = {
    # The wide space of TrivialAugment, converted to our units: shear by 0.99, translation by 32 of
    # 224 pixels, rotation by 135 degrees, 6 of 8 bits, factors from about half to double.
    "rotate": 135,
    "shear_x": 44.7,
    "shear_y": 44.7,
    "translate_x": 0.14,
    "translate_y": 0.14,
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
    # The strength of each operation at RandAugment's maximum level.
    "rotate": 30,
    "shear_x": 16.7,
    "shear_y": 16.7,
    "translate_x": 0.3,
    "translate_y": 0.3,
    "brightness": 1.0,
    "contrast": 0.9,
    "saturation": 0.9,
    "autocontrast": 1.0,
    "equalize": 1.0,
    "solarize": 1.0,
    "posterize": 4,
    "sharpness": 0.9,
}
_MAX_LEVEL = 30

_BASE: dict[str, Any] = {"horizontal_flip": 0.5, "crop": 0.4, "aspect": 0.2}

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    # Crops down to 60% of the area, aspect ratios up to 1.2, brightness times 0.8 to 1.2: as in
    # the first measurements of fine-tuning.
    "light": Policy(**_BASE, brightness=0.3),
    "standard": Policy(**_BASE, rotate=5, brightness=0.3, contrast=0.2, saturation=0.2),
    "strong": Policy(
        **_BASE | {"crop": 0.7, "aspect": 0.33},
        rotate=15, zoom=0.1, shear_x=5, perspective_x=0.1, perspective_y=0.1, brightness=0.6,
        contrast=0.4, saturation=0.5, hue=10, temperature=0.3, gray=0.05, blur=1, noise=8,
        erase=0.2,
    ),
    "trivial": Policy(**_BASE, **_TRIVIAL, num_ops=1),
}  # fmt: skip
"""The named policies.

- "none": no augmentation.
- "light": horizontal flips, crops and brightness.
- "standard": also slight rotation, contrast and saturation; suited to photos of scenes.
- "strong": wider ranges, and perspective, hue, temperature, blur, noise and erasing.
- "trivial": horizontal flips, crops, and at most one of thirteen operations, of any strength:
  S. Müller, F. Hutter (2021), TrivialAugment: tuning-free yet state-of-the-art data augmentation.
  ICCV.
"""


def policy(name: str | Policy | Mapping[str, Any]) -> Policy:
    """Return a policy by name.

    Args:
        name: one of `POLICIES`; a policy, which is returned unchanged; or a policy's fields by
            name, as from `Policy.to_json`.

    Returns:
        The policy.

    Raises:
        ArgumentError: if there is no policy of this name, or a value is out of range.

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
            "A policy must have known fields only. Received: "
            f"{sorted(map(str, set(name) - known))}. The fields are {', '.join(sorted(known))}."
        )
    if not isinstance(name, str) or name not in POLICIES:
        raise ArgumentError(
            f"A policy must be one of {', '.join(map(repr, POLICIES))}, or an augment.Policy. "
            f"Received: {name!r}. Define your own with augment.Policy(rotate=10, …)."
        )
    return POLICIES[name]


def randaugment(n: int = 2, m: float = 9) -> Policy:
    """RandAugment: `n` of fourteen operations for each photo, at level `m` of 30.

    One of the fourteen is the identity. Unlike in the paper, the chosen operations are performed in
    a fixed order (see `OPERATIONS`), so that all geometry takes a single resampling, and no
    operation is chosen twice.

    Args:
        n: operations per photo, at least 1.
        m: level, in (0, 30].

    Returns:
        The policy. It also flips and crops each photo as "standard" does.

    Raises:
        ArgumentError: if `n` or `m` is out of range.

    Example:
        >>> randaugment(2, 15).rotate
        15.0

    References:
        E. Cubuk et al. (2020), RandAugment: practical automated data augmentation with a reduced
        search space. NeurIPS.
    """
    check_number("m", m, low=0, high=_MAX_LEVEL, open_low=True, advice="9 is usual.")
    check_integer("n", n, low=1, advice="2 is usual.")
    strengths: dict[str, Any] = {}
    for name, maximum in _RANDAUGMENT.items():
        scaled = maximum * m / _MAX_LEVEL
        is_probability = OPERATIONS[name].unit == "probability"
        strengths[name] = (
            maximum if is_probability else round(scaled) if name == "posterize" else scaled
        )
    return Policy(**_BASE, **strengths, num_ops=n, fixed_magnitude=True)
