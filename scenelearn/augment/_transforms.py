"""From uniform numbers to the parameters of each operation, and from these to matrices.

The arithmetic is written once for two libraries: NumPy, used by `sample`, and `keras.ops`, used by
the layer, which samples within a compiled model. `xp` is either of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scenelearn.augment._operations import OPERATIONS
from scenelearn.augment._policy import Policy

# Each operation has its own column of uniform numbers, so that the rotation of a photo does not
# depend on the other operations of the policy. Then come positions, then the choice of operations.
_POSITIONS = ("crop_x", "crop_y", "erase_x", "erase_y", "erase_aspect", "noise_seed")
_COLUMNS = {name: column for column, name in enumerate((*OPERATIONS, *_POSITIONS))}
N_COLUMNS = len(_COLUMNS) + len(OPERATIONS) + 1

POSITIONS = {"crop": _POSITIONS[:2], "erase": _POSITIONS[2:5], "noise": _POSITIONS[5:]}
"""What some operations need besides their strength: positions as fractions, a seed in [0, 1)."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to gray
_MID_GRAY = 127.5

# YIQ: luma, and two axes of chroma. A rotation of these two axes rotates the hue.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_GRAY_PART = np.linalg.inv(_YIQ) @ np.diag([1.0, 0, 0]) @ _YIQ
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.array([[0, 0, 0], [0, 0, -1.0], [0, 1, 0]]) @ _YIQ


def sample_values(policy: Policy, u: Any, xp: Any) -> dict[str, Any]:
    """Compute the strength of each operation for each photo, in the operations' units.

    Args:
        policy: the ranges.
        u: (n, N_COLUMNS) uniform numbers in [0, 1).
        xp: numpy or keras.ops.

    Returns:
        (n,) numbers for each operation of the policy, and for each of its `POSITIONS`.
    """
    values: dict[str, Any] = {}
    chosen = _choose_operations(policy, u, xp)
    for name in policy.operations:
        strength, operation, column = getattr(policy, name), OPERATIONS[name], u[:, _COLUMNS[name]]
        full = strength + 0 * column
        if operation.unit == "probability":
            value = xp.where(column < strength, 1.0, 0.0)
        elif name == "posterize":
            value = full if policy.fixed_magnitude else xp.floor(column * (strength + 1))
        elif policy.fixed_magnitude and operation.kind != "base":
            value = xp.where(column < 0.5, -strength, strength) if operation.signed else full
        else:
            value = strength * (2 * column - 1) if operation.signed else strength * column
        values[name] = xp.where(chosen[name], value, 0.0) if name in chosen else value
        for position in POSITIONS.get(name, ()):
            values[position] = u[:, _COLUMNS[position]]
    return values


def _choose_operations(policy: Policy, u: Any, xp: Any) -> dict[str, Any]:
    """For each operation, which photos get it; empty if all photos get all operations."""
    names = [name for name in policy.operations if OPERATIONS[name].kind != "base"]
    if policy.num_ops is None or policy.num_ops > len(names):
        return {}
    # The last candidate stands for no operation.
    candidates = u[:, len(_COLUMNS) : len(_COLUMNS) + len(names) + 1]
    rank = xp.argsort(xp.argsort(candidates, axis=1), axis=1)
    return {name: rank[:, k] < policy.num_ops for k, name in enumerate(names)}


def compute_arguments(values: Mapping[str, Any], xp: Any, max_blur: float) -> dict[str, Any]:
    """Compute the arrays that `apply` needs, for those operations that have values.

    Args:
        values: from `sample_values`.
        xp: numpy or keras.ops.
        max_blur: the largest standard deviation of "blur", in pixels.

    Returns:
        Any of these, n rows each:

        - "linear" (n, 2, 2), from the new image's pixels, relative to its center, to those of the
          crop; then "placement" (n, 2, 3), or (n, 3, 3) with perspective, from the crop to the
          photo, both in [-1, 1].
        - "color" (n, 3, 4), for values in 0 to 255.
        - One (n, …) array for each filter.
    """
    arguments: dict[str, Any] = {}
    kinds = {OPERATIONS[name].kind for name in values if name in OPERATIONS}
    if kinds & {"base", "geometry"}:
        arguments["linear"] = _linear_matrix(values, xp)
        arguments["placement"] = _placement_matrix(values, xp)
    if "color" in kinds:
        arguments["color"] = _color_matrix(values, xp)
    for name in ("autocontrast", "equalize", "solarize", "posterize", "sharpness", "jpeg_blocks"):
        if name in values:
            arguments[name] = values[name]
    if "blur" in values:
        arguments["blur"] = _gaussian_kernel(values["blur"], math.ceil(3 * max_blur), xp)
    if "noise" in values:
        arguments["noise"] = xp.stack([values["noise"], values["noise_seed"]], 1)
    if "erase" in values:
        arguments["erase"] = _erase_box(values, xp)
    return arguments


def _getter(values: Mapping[str, Any]) -> Callable[[str], Any]:
    """A function from an operation's name to its values, zeros if it has none."""
    zeros = 0 * next(iter(values.values()))
    return lambda name: values.get(name, zeros)


def _linear_matrix(values: Mapping[str, Any], xp: Any) -> Any:
    get = _getter(values)
    angle = get("rotate") * (math.pi / 180)
    cos, sin = xp.cos(angle), xp.sin(angle)
    scale = _scale_factor(get("zoom"), xp)
    slope_x, slope_y = (xp.tan(get(name) * (math.pi / 180)) for name in ("shear_x", "shear_y"))
    flip_x, flip_y = 1 - 2 * get("horizontal_flip"), 1 - 2 * get("vertical_flip")
    # From the new image back to the crop: undo the flip, rotation, shear and zoom.
    a, b, c, d = cos * flip_x, -sin * flip_y, sin * flip_x, cos * flip_y
    a, b = a + slope_x * c, b + slope_x * d
    c, d = c + slope_y * a, d + slope_y * b
    return _stack_rows([[a / scale, b / scale], [c / scale, d / scale]], xp)


def _placement_matrix(values: Mapping[str, Any], xp: Any) -> Any:
    get = _getter(values)
    area, aspect = 1 - get("crop"), _scale_factor(get("aspect"), xp)
    side, wider = xp.sqrt(area), xp.sqrt(aspect)
    wider = xp.minimum(xp.maximum(wider, side), 1 / side)  # keep the crop within the photo
    width, height = xp.minimum(side * wider, 1.0), xp.minimum(side / wider, 1.0)
    one, zero = 1 + 0 * area, 0 * area
    x, y = ((2 * values[n] - 1 if n in values else zero) for n in ("crop_x", "crop_y"))
    center_x, center_y = (1 - width) * x, (1 - height) * y
    # The crop after the translation, both in [-1, 1].
    right = center_x - 2 * width * get("translate_x")
    down = center_y - 2 * height * get("translate_y")
    if not {"perspective_x", "perspective_y"} & set(values):
        return _stack_rows([[width, zero, right], [zero, height, down]], xp)
    # Map (x, y) to (x, y) / (1 + p · (x, y)), then apply the above.
    perspective_x, perspective_y = get("perspective_x"), get("perspective_y")
    return _stack_rows(
        [
            [width + right * perspective_x, right * perspective_y, right],
            [down * perspective_x, height + down * perspective_y, down],
            [perspective_x, perspective_y, one],
        ],
        xp,
    )


def _color_matrix(values: Mapping[str, Any], xp: Any) -> Any:
    """One matrix for saturation and gray, hue, contrast, brightness and temperature."""
    get = _getter(values)
    gain, contrast = xp.exp(get("brightness") * math.log(2)), 1 + get("contrast")
    saturation = (1 + get("saturation")) * (1 - get("gray"))
    angle = get("hue") * (math.pi / 180)
    cos_less_one, sin = xp.cos(angle) - 1, xp.sin(angle)
    warmth = xp.exp(get("temperature") * (math.log(2) / 2))
    temperature = [warmth, 1 + 0 * warmth, 1 / warmth]
    gray_matrix = [
        [saturation * float(i == j) + (1 - saturation) * _LUMA[j] for j in range(3)]
        for i in range(3)
    ]
    hue_matrix = [
        [
            float(i == j)
            + cos_less_one * (float(i == j) - float(_GRAY_PART[i, j]))
            + sin * float(_QUARTER_TURN[i, j])
            for j in range(3)
        ]
        for i in range(3)
    ]
    offset = _MID_GRAY * (1 - contrast)
    rows = []
    for i in range(3):
        mixed = [sum(hue_matrix[i][k] * gray_matrix[k][j] for k in range(3)) for j in range(3)]
        row = [temperature[i] * contrast * gain * value for value in mixed]
        rows.append([*row, temperature[i] * offset])
    return _stack_rows(rows, xp)


def _erase_box(values: Mapping[str, Any], xp: Any) -> Any:
    """Left, top, right and bottom of the erased box, as fractions; aspect from 1:2 to 2:1."""
    side = xp.sqrt(values["erase"])
    wider = xp.exp((values["erase_aspect"] - 0.5) * math.log(2))
    wider = xp.minimum(xp.maximum(wider, side), 1 / xp.maximum(side, 1e-6))
    width, height = side * wider, side / wider
    left, top = (1 - width) * values["erase_x"], (1 - height) * values["erase_y"]
    return xp.stack([left, top, left + width, top + height], 1)


def _gaussian_kernel(deviation: Any, radius: int, xp: Any) -> Any:
    """Gaussian kernels, (n, 2 radius + 1); for a deviation of 0, a single 1 in the center."""
    deviation = xp.maximum(deviation, 1e-3)[:, None]
    steps = xp.reshape(xp.arange(-radius, radius + 1, dtype="float32"), (1, -1)) / deviation
    kernel = xp.exp(-0.5 * steps * steps)
    return kernel / xp.sum(kernel, axis=1, keepdims=True)


def _scale_factor(fraction: Any, xp: Any) -> Any:
    """1 + fraction, or 1 / (1 + |fraction|) where it is negative."""
    return xp.where(fraction < 0, 1 / (1 + xp.maximum(-fraction, 0.0)), 1 + fraction)


def _stack_rows(rows: list[list[Any]], xp: Any) -> Any:
    return xp.stack([xp.stack(row, 1) for row in rows], 1)
