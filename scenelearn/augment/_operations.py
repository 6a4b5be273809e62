"""The operations of augmentation, each with its unit and its maximum strength."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of augmentation.

    Attributes:
        name: the name of its field in `Policy`.
        kind: "base" (geometry that every photo gets), "geometry", "color" (part of one 3×4 matrix)
            or "filter" (neither geometry nor a matrix).
        unit: the unit of its strength.
        maximum: the largest strength that a policy may have.
        signed: whether sampled values go both ways, from -strength to strength.
        description: what it does, in one line.
    """

    name: str
    kind: str
    unit: str
    maximum: float
    signed: bool
    description: str


_TABLE = (
    ("horizontal_flip", "base", "probability", 1, False, "flip left and right"),
    ("vertical_flip", "base", "probability", 1, False, "flip top and bottom"),
    ("crop", "base", "fraction of the area", 0.99, False, "cut away up to this fraction"),
    ("aspect", "base", "fraction", 3, True, "change the aspect ratio of the crop"),
    ("rotate", "geometry", "degrees", 180, True, "rotate, counterclockwise where positive"),
    ("zoom", "geometry", "fraction", 3, True, "enlarge, or shrink where negative"),
    ("shear_x", "geometry", "degrees", 60, True, "slide rows along each other"),
    ("shear_y", "geometry", "degrees", 60, True, "slide columns along each other"),
    ("translate_x", "geometry", "fraction of the width", 1, True, "move to the right"),
    ("translate_y", "geometry", "fraction of the height", 1, True, "move down"),
    ("perspective_x", "geometry", "fraction", 0.4, True, "bring the right side closer"),
    ("perspective_y", "geometry", "fraction", 0.4, True, "bring the bottom closer"),
    ("brightness", "color", "stops", 4, True, "multiply values by 2 to this power"),
    ("contrast", "color", "fraction", 1, True, "move values away from mid-gray"),
    ("saturation", "color", "fraction", 1, True, "move colors away from gray"),
    ("hue", "color", "degrees", 180, True, "rotate colors about the gray axis"),
    ("temperature", "color", "stops", 2, True, "make colors warmer: more red, less blue"),
    ("gray", "color", "probability", 1, False, "convert to grayscale"),
    ("autocontrast", "filter", "probability", 1, False, "stretch values from black to white"),
    ("equalize", "filter", "probability", 1, False, "equalize the histogram"),
    ("solarize", "filter", "fraction of the range", 1, False, "invert the brightest values"),
    ("posterize", "filter", "bits", 7, False, "drop this many low bits"),
    ("sharpness", "filter", "fraction", 1, True, "sharpen, or smooth where negative"),
    ("blur", "filter", "pixels", 5, False, "Gaussian blur of this standard deviation"),
    ("noise", "filter", "levels", 128, False, "Gaussian noise of this standard deviation"),
    ("jpeg_blocks", "filter", "steps", 20, False, "JPEG artifacts of this quantization multiple"),
    ("erase", "filter", "fraction of the area", 0.9, False, "cover a rectangle with gray"),
)

# The order is part of the random stream: an operation reads the random column of its position.
OPERATIONS: dict[str, Operation] = {
    name: Operation(
        name=name, kind=kind, unit=unit, maximum=maximum, signed=signed, description=description
    )
    for name, kind, unit, maximum, signed, description in _TABLE
}
"""Every operation by name.

`apply` takes color and filters in this order, after the geometry: crop and aspect, translation,
perspective, zoom, shear, rotation, and flips last.
"""
