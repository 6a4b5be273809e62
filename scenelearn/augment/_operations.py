"""What can be done to a photo: each operation with its unit and its strongest setting."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One way to vary a photo.

    Attributes:
        name: as in `Policy`.
        kind: "base" (geometry that every photo gets), "geometry", "color" (one 3×4 matrix) or
            "other" (what fits into neither matrix).
        unit: of its strength.
        most: the largest strength that a policy may ask for.
        signed: whether a draw goes both ways, from -strength to strength.
        what: what it does, in a line.
    """

    name: str
    kind: str
    unit: str
    most: float
    signed: bool
    what: str


def _table(*rows: tuple[str, str, str, float, bool, str]) -> dict[str, Operation]:
    return {
        name: Operation(name=name, kind=kind, unit=unit, most=most, signed=signed, what=what)
        for name, kind, unit, most, signed, what in rows
    }


OPERATIONS: dict[str, Operation] = _table(
    ("mirror", "base", "probability", 1, False, "left and right change places"),
    ("upside_down", "base", "probability", 1, False, "top and bottom change places"),
    ("crop", "base", "share of the area", 0.99, False, "up to this share is cut away"),
    ("stretch", "base", "fraction", 3, True, "the crop is wider or taller than the photo"),
    ("rotate", "geometry", "degrees", 180, True, "turned, counterclockwise where positive"),
    ("zoom", "geometry", "fraction", 3, True, "larger, or smaller where negative"),
    ("shear_x", "geometry", "degrees", 60, True, "rows slide along each other"),
    ("shear_y", "geometry", "degrees", 60, True, "columns slide along each other"),
    ("shift_x", "geometry", "share of the width", 1, True, "moved to the right"),
    ("shift_y", "geometry", "share of the height", 1, True, "moved downwards"),
    ("tilt_x", "geometry", "fraction", 0.4, True, "the right side comes nearer"),
    ("tilt_y", "geometry", "fraction", 0.4, True, "the lower side comes nearer"),
    ("brightness", "color", "stops", 4, True, "values times 2 to the power of this"),
    ("contrast", "color", "fraction", 1, True, "further from mid-gray"),
    ("saturation", "color", "fraction", 1, True, "further from gray of the same brightness"),
    ("hue", "color", "degrees", 180, True, "turned about the gray axis"),
    ("temperature", "color", "stops", 2, True, "red over blue, so warmer"),
    ("gray", "color", "probability", 1, False, "no color"),
    ("autocontrast", "other", "probability", 1, False, "darkest to black, brightest to white"),
    ("equalize", "other", "probability", 1, False, "all values about equally frequent"),
    ("solarize", "other", "share of the values", 1, False, "the brightest values inverted"),
    ("posterize", "other", "bits", 7, False, "so many low bits dropped"),
    ("sharpness", "other", "fraction", 1, True, "further from a smoothed copy"),
    ("blur", "other", "pixels", 5, False, "Gaussian of this standard deviation"),
    ("noise", "other", "levels", 128, False, "normal noise of this standard deviation"),
    ("blocks", "other", "steps", 20, False, "as a JPEG with this multiple of its usual steps"),
    ("erase", "other", "share of the area", 0.9, False, "a gray rectangle"),
)
"""Every operation by name, in the order in which `apply` does them."""
