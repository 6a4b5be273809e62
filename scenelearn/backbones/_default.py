"""Which network is taken where none is named."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scenelearn.backbones._names import find, letters_of, names
from scenelearn.backbones._tiny import STORED, TINY
from scenelearn.errors import ArgumentError

DEFAULT = "mobilenet_v3_small"
"""The network from ImageNet weights, where none is named. Chosen by validation photos."""

# Not a version such as "1.0.2". Keras has weights of these widths.
_DECIMAL = re.compile(r"(?<![\d.])\d\.\d+(?!\.?\d)")
_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
# "mobilenet_2_5_224_tf_no_top.h5": so Keras calls the file of MobileNet with a width of 0.25.
_WIDTH_OF_V1 = re.compile(r"mobilenet_(?P<tenths>\d)_(?P<hundredths>\d)_\d+_tf")


def default_for(weights: str | os.PathLike[str] | None) -> str:
    """The network that goes with weights.

    Args:
        weights: as for `build`; of a path, only the name of the file is looked at.

    Returns:
        A name that `find` knows: of a weights file, the network and width that its name tells, as
        the files do that Keras offers for download; for "scenelearn" the one whose weights are in
        the package; otherwise "mobilenet_v3_small".

    Raises:
        ArgumentError: if the file is there and its name does not tell.

    Example:
        >>> default_for("imagenet")
        'mobilenet_v3_small'
        >>> default_for("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_160_no_top.h5")
        'mobilenet_v2_0.35'
    """
    if weights == STORED:
        return TINY
    if not isinstance(weights, str | os.PathLike) or weights == "imagenet":
        return DEFAULT
    path = Path(weights)
    told = _told_by(path.name.lower())
    if told is None and path.expanduser().is_file():
        raise ArgumentError(
            "`backbone` must be given with a weights file whose name does not tell the network. "
            f"Received: weights={str(weights)!r}. Pass e.g. backbone={DEFAULT!r}; "
            "`scenelearn.backbones.names()` has all of them."
        )
    return told or DEFAULT


def _told_by(file: str) -> str | None:
    known = {letters_of(name): name for name in names()}
    named = max((key for key in known if _holds(file, key)), key=len, default=None)
    if named is None:
        return None
    name = known[named]
    if not find(name).has_widths:
        return name
    if match := _WIDTH_OF_V1.search(file):
        tenths, hundredths = match["tenths"], match["hundredths"]
        width = 1.0 if tenths == "1" else float(f"0.{tenths}{hundredths}")
    else:
        found = {float(number) for number in _DECIMAL.findall(file)} or {1.0}
        if len(found) > 1 or not found <= set(_WIDTHS):  # which, or an accuracy?
            return None
        (width,) = found
    return find(f"{name}_{width}").name


def _holds(file: str, letters: str) -> bool:
    """Whether a file's name has these letters, not as a part of a longer word or number.

    Nor before another version: "seresnet50" has no "resnet50", "mobilenet_v3" no "mobilenet".
    """
    word = "[^a-z0-9]*".join(letters)
    return re.search(rf"(?<![a-z]){word}(?!\d|[^a-z0-9]*v[2-9])", file) is not None
