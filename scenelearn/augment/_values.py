"""From uniform numbers to what happens to each photo, and from that to matrices.

The arithmetic is written once for two libraries: NumPy, for `draw`, and `keras.ops`, for a layer
that draws within a compiled model. `xp` is one or the other; nothing is imported here but NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scenelearn.augment._operations import OPERATIONS
from scenelearn.augment._policy import Policy

# Where each thing reads its uniform numbers, so that a photo's rotation is the same whatever else
# a policy asks for: one column an operation, then places, then the order of picking.
_PLACES = ("crop_x", "crop_y", "erase_x", "erase_y", "erase_aspect", "noise_seed")
_FIRST = {name: column for column, name in enumerate((*OPERATIONS, *_PLACES))}
N_COLUMNS = len(_FIRST) + len(OPERATIONS) + 1

PLACES = {"crop": _PLACES[:2], "erase": _PLACES[2:5], "noise": _PLACES[5:]}
"""What else is drawn for some operations: where, in shares, and a seed in [0, 1)."""

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, which Pillow's gray is, too
_MID_GRAY = 127.5

# YIQ: brightness, and two axes of color. Turning these two turns the hue.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_GRAY_PART = np.linalg.inv(_YIQ) @ np.diag([1.0, 0, 0]) @ _YIQ
_QUARTER = np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]) @ _YIQ


def drawn(policy: Policy, u: Any, xp: Any) -> dict[str, Any]:
    """What happens to each photo, in the operations' units.

    Args:
        policy: the bounds.
        u: (n, N_COLUMNS) uniform numbers in [0, 1).
        xp: numpy or keras.ops.

    Returns:
        For each operation that the policy asks for, and each of its `PLACES`, (n,) numbers.
    """
    values: dict[str, Any] = {}
    picked = _picked(policy, u, xp)
    for name in policy.asked:
        most, operation, column = getattr(policy, name), OPERATIONS[name], u[:, _FIRST[name]]
        if operation.unit == "probability":
            value = xp.where(column < most, 1.0, 0.0)
        elif name == "posterize":
            value = most + 0 * column if policy.fixed else xp.floor(column * (most + 1))
        elif policy.fixed and operation.kind != "base":
            value = xp.where(column < 0.5, -most, most) if operation.signed else most + 0 * column
        else:
            value = most * (2 * column - 1) if operation.signed else most * column
        values[name] = xp.where(picked[name], value, 0.0) if name in picked else value
        for place in PLACES.get(name, ()):
            values[place] = u[:, _FIRST[place]]
    return values


def _picked(policy: Policy, u: Any, xp: Any) -> dict[str, Any]:
    """Which photos get an operation, where not all do."""
    names = [name for name in policy.asked if OPERATIONS[name].kind != "base"]
    if policy.pick is None or policy.pick > len(names):
        return {}
    chances = u[:, len(_FIRST) : len(_FIRST) + len(names) + 1]  # the last one is for none
    rank = xp.argsort(xp.argsort(chances, axis=1), axis=1)
    return {name: rank[:, k] < policy.pick for k, name in enumerate(names)}


def arguments(values: Mapping[str, Any], xp: Any, most_blur: float) -> dict[str, Any]:
    """What `apply` computes with, for those operations that have a value.

    Args:
        values: from `drawn`.
        xp: numpy or keras.ops.
        most_blur: the largest standard deviation that "blur" may have, in pixels.

    Returns:
        Any of these, n rows each:

        - "turn" (n, 2, 2), from the image's pixels about its middle to the crop's, and then
          "place" (n, 2, 3), or (n, 3, 3) with perspective, to the photo, both in [-1, 1].
        - "color" (n, 3, 4), on values in 0 to 255.
        - One (n, …) for each of the operations of kind "other".
    """
    found: dict[str, Any] = {}
    kinds = {OPERATIONS[name].kind for name in values if name in OPERATIONS}
    if kinds & {"base", "geometry"}:
        found["turn"], found["place"] = _turn(values, xp), _place(values, xp)
    if "color" in kinds:
        found["color"] = _color(values, xp)
    for name in ("autocontrast", "equalize", "solarize", "posterize", "sharpness", "blocks"):
        if name in values:
            found[name] = values[name]
    if "blur" in values:
        found["blur"] = _bell(values["blur"], math.ceil(3 * most_blur), xp)
    if "noise" in values:
        found["noise"] = xp.stack([values["noise"], values["noise_seed"]], 1)
    if "erase" in values:
        found["erase"] = _box(values, xp)
    return found


def _of(values: Mapping[str, Any]) -> Any:
    """A function from an operation's name to its values, zeros where it is not asked for."""
    zeros = 0 * next(iter(values.values()))
    return lambda name: values.get(name, zeros)


def _turn(values: Mapping[str, Any], xp: Any) -> Any:
    of = _of(values)
    angle = of("rotate") * (math.pi / 180)
    cos, sin = xp.cos(angle), xp.sin(angle)
    scale = _factor(of("zoom"), xp)
    slide_x, slide_y = (xp.tan(of(name) * (math.pi / 180)) for name in ("shear_x", "shear_y"))
    flip_x, flip_y = 1 - 2 * of("mirror"), 1 - 2 * of("upside_down")
    # From the image back to the crop: unmirrored, turned back, sheared back, scaled back.
    a, b, c, d = cos * flip_x, -sin * flip_y, sin * flip_x, cos * flip_y
    a, b = a + slide_x * c, b + slide_x * d
    c, d = c + slide_y * a, d + slide_y * b
    return _rows([[a / scale, b / scale], [c / scale, d / scale]], xp)


def _place(values: Mapping[str, Any], xp: Any) -> Any:
    of = _of(values)
    area, aspect = 1 - of("crop"), _factor(of("stretch"), xp)
    side, wider = xp.sqrt(area), xp.sqrt(aspect)
    wider = xp.minimum(xp.maximum(wider, side), 1 / side)  # neither side outgrows the photo
    width, height = xp.minimum(side * wider, 1.0), xp.minimum(side / wider, 1.0)
    one, zero = 1 + 0 * area, 0 * area
    x, y = ((2 * values[n] - 1 if n in values else zero) for n in ("crop_x", "crop_y"))
    middle_x, middle_y = (1 - width) * x, (1 - height) * y
    # A crop after a shift, both in [-1, 1].
    right = middle_x - 2 * width * of("shift_x")
    down = middle_y - 2 * height * of("shift_y")
    if not {"tilt_x", "tilt_y"} & set(values):
        return _rows([[width, zero, right], [zero, height, down]], xp)
    # (x, y) to (x, y) / (1 + tilt · (x, y)), then the above.
    tilt_x, tilt_y = of("tilt_x"), of("tilt_y")
    return _rows(
        [
            [width + right * tilt_x, right * tilt_y, right],
            [down * tilt_x, height + down * tilt_y, down],
            [tilt_x, tilt_y, one],
        ],
        xp,
    )


def _color(values: Mapping[str, Any], xp: Any) -> Any:
    """One matrix, of: brightness, contrast, saturation and gray, hue, temperature."""
    of = _of(values)
    gain, contrast = xp.exp(of("brightness") * math.log(2)), 1 + of("contrast")
    saturation = (1 + of("saturation")) * (1 - of("gray"))
    angle = of("hue") * (math.pi / 180)
    turned, quarter = xp.cos(angle) - 1, xp.sin(angle)
    warmth = xp.exp(of("temperature") * (math.log(2) / 2))
    temperature = [warmth, 1 + 0 * warmth, 1 / warmth]
    saturated = [
        [saturation * float(i == j) + (1 - saturation) * _LUMA[j] for j in range(3)]
        for i in range(3)
    ]
    hue = [
        [
            float(i == j)
            + turned * (float(i == j) - float(_GRAY_PART[i, j]))
            + quarter * float(_QUARTER[i, j])
            for j in range(3)
        ]
        for i in range(3)
    ]
    offset = _MID_GRAY * (1 - contrast)
    rows = []
    for i in range(3):
        mixed = [sum(hue[i][k] * saturated[k][j] for k in range(3)) for j in range(3)]
        row = [temperature[i] * contrast * gain * value for value in mixed]
        rows.append([*row, temperature[i] * offset])
    return _rows(rows, xp)


def _box(values: Mapping[str, Any], xp: Any) -> Any:
    """Left, top, right, bottom of what is erased, in shares; its sides from 1:2 to 2:1."""
    side = xp.sqrt(values["erase"])
    wider = xp.exp((values["erase_aspect"] - 0.5) * math.log(2))
    wider = xp.minimum(xp.maximum(wider, side), 1 / xp.maximum(side, 1e-6))
    width, height = side * wider, side / wider
    left, top = (1 - width) * values["erase_x"], (1 - height) * values["erase_y"]
    return xp.stack([left, top, left + width, top + height], 1)


def _bell(deviation: Any, radius: int, xp: Any) -> Any:
    """The kernel of a Gaussian blur, (n, 2 radius + 1); with 0, one 1 in the middle."""
    deviation = xp.maximum(deviation, 1e-3)[:, None]
    steps = xp.reshape(xp.arange(-radius, radius + 1, dtype="float32"), (1, -1)) / deviation
    bell = xp.exp(-0.5 * steps * steps)
    return bell / xp.sum(bell, axis=1, keepdims=True)


def _factor(fraction: Any, xp: Any) -> Any:
    """1 + fraction, or 1 / (1 + |fraction|) where it is negative."""
    return xp.where(fraction < 0, 1 / (1 + xp.maximum(-fraction, 0.0)), 1 + fraction)


def _rows(rows: list[list[Any]], xp: Any) -> Any:
    return xp.stack([xp.stack(row, 1) for row in rows], 1)
