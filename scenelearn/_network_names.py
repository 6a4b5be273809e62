"""Names of networks, as users write them and as keras.applications spells them."""

from __future__ import annotations

import re

# "mobilenet_v2_0.35" -> ("mobilenet_v2", "0.35"); Keras calls the width `alpha`.
_WITH_WIDTH = re.compile(r"(?P<base>.*?)[_-](?P<width>\d+\.\d+)")


def split_width(name: str) -> tuple[str, float | None]:
    """Split the name of a network into its base name and its width multiplier.

    Args:
        name: a name such as "mobilenet_v2_0.35".

    Returns:
        The name without the width, and the width; None if the name has none.

    Example:
        >>> split_width("mobilenet_v2_0.35")
        ('mobilenet_v2', 0.35)
    """
    match = _WITH_WIDTH.fullmatch(name)
    return (match["base"], float(match["width"])) if match else (name, None)


def normalize_name(name: str) -> str:
    """Reduce a name to its lower-case letters and digits, which identify a network.

    Example:
        >>> normalize_name("MobileNet-V2")
        'mobilenetv2'
    """
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return "mobilenet" if letters == "mobilenetv1" else letters
